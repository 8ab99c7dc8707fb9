"""Files <-> Clip and Sound; the only place that knows containers, codecs and time bases."""

from kinolex.media.files import read, write
from kinolex.media.opening import holds_pictures
from kinolex.media.resize import fit_short_side, resize, resize_frames
from kinolex.media.sound import read_sound, write_sound
from kinolex.media.video import MediaInfo, VideoReader, probe
from kinolex.media.writer import VideoWriter

__all__ = [
    "MediaInfo",
    "VideoReader",
    "VideoWriter",
    "fit_short_side",
    "holds_pictures",
    "probe",
    "read",
    "read_sound",
    "resize",
    "resize_frames",
    "write",
    "write_sound",
]

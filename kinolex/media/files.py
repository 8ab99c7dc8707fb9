"""Whole files in one call: read a file as a Clip, write a Clip as a file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from kinolex.errors import UnsupportedMedia, UsageError
from kinolex.media.image import IMAGE_CODECS, write_image
from kinolex.media.opening import check_place
from kinolex.media.sound import track_of
from kinolex.media.video import VideoReader
from kinolex.media.writer import FORMATS, VideoWriter
from kinolex.types import Clip, expect


def read(path: str | os.PathLike[str], *, start_s: float = 0.0, max_frames: int | None = None) -> Clip:
    """Read a video, GIF or image, with its sound if it has any.

    Args:
        path: anything FFmpeg reads; an image is a clip of one frame at 1 frame per second.
        start_s: where to begin; moved to the nearest frame.
        max_frames: stop after so many frames; the sound is then cut to the same length.

    Returns:
        Upright full-range sRGB frames at constant rate. Sound begins with the first frame and keeps its own length.

    Raises:
        MissingFile, UnreadableMedia, UnsupportedMedia: no such file, damaged or cut, only sound, unknown codec.
        UsageError: max_frames below 1, start_s outside the video, or a video too long for this machine's memory.
    """
    if max_frames is not None and max_frames < 1:
        raise UsageError(f"max_frames must be at least 1, got {max_frames}")
    with VideoReader(path, start_s=start_s) as reader:
        info = reader.info
        wanted = (info.frames or 1) - reader.first_tick
        if max_frames is not None:
            wanted = min(wanted, max_frames)
        try:
            frames_TCHW = np.empty((wanted, 3, info.height, info.width), np.uint8)
        except MemoryError as error:
            raise UsageError(
                f"{path} needs {wanted * 3 * info.height * info.width / 2**30:.1f} GiB as one clip, more than there "
                "is; read it in pieces with VideoReader, or pass max_frames"
            ) from error
        count = 0
        pixels = reader.pixels()
        for pixels_CHW in pixels:
            if count == len(frames_TCHW):  # the packets promised fewer frames than there are
                frames_TCHW = np.concatenate([frames_TCHW, np.empty_like(frames_TCHW)])
            frames_TCHW[count] = pixels_CHW
            count += 1
            if count == max_frames:
                break
        pixels.close()
        clip = Clip(torch.from_numpy(frames_TCHW[:count]), reader.fps)
        start = reader.origin_s + reader.first_tick / reader.fps
        length = count / reader.fps if max_frames is not None and count == max_frames else None
    return clip.with_sound(track_of(path, start_s=start, length_s=length))


def check_target(path: str | os.PathLike[str], *others: str) -> None:
    """Raise what `write` would of a name, before anything is made for it.

    Args:
        others: suffixes besides those of pictures that are good, too.

    Raises:
        UnsupportedMedia: another suffix, or a folder. MissingFile: the folder does not exist.
    """
    check_place(path)
    suffix, good = Path(path).suffix.lower(), [*FORMATS, *IMAGE_CODECS, *others]
    if suffix not in good:
        raise UnsupportedMedia(f"cannot write {suffix or 'a file without suffix'}; use one of {', '.join(good)}")


def write(clip: Clip, path: str | os.PathLike[str], *, quality: int | None = None) -> None:
    """Write a clip in the format that the suffix names.

    Args:
        clip: any size; sound is written where the format can hold it (MP4, WebM) and left out elsewhere.
        path: .mp4 .m4v .webm .gif for video, .png .jpg .jpeg .webp for one frame.
        quality: 0 to 100; None is visually near-lossless, and lossless for PNG and WebP images.

    Raises:
        UnsupportedMedia: another suffix, several frames for an image format, or a rate that GIF cannot hold.
        MissingFile: the folder does not exist.
        UsageError: quality out of range.
        MediaError: the disk is full or the encoder failed. No partial file is left in any case.
    """
    expect(clip, Clip, "Clip(frames_TCHW, fps) makes one of uint8 pixels; write_sound takes sounds")
    suffix = Path(path).suffix.lower()
    if quality is not None and not 0 <= quality <= 100:
        raise UsageError(f"quality must be in 0..100, got {quality}")
    if suffix in IMAGE_CODECS:
        write_image(clip, path, quality=quality)
        return
    check_target(path)
    with VideoWriter(
        path, fps=clip.fps, height=clip.height, width=clip.width, sound=clip.sound, quality=quality
    ) as writer:
        writer.append(clip.frames_TCHW)

"""What a target can hold, told before anything is made for it; and the sound that lies beside pictures."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from kinolex.api import IMAGE_SUFFIXES
from kinolex.errors import UnsupportedMedia, UsageError
from kinolex.media.files import check_target
from kinolex.media.writer import FORMATS, GIF_MAX_FPS
from kinolex.types import Sound

SOUND_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3"})
"""Of files that hold sound alone."""


def holds_sound(target: Path) -> bool:
    """Whether sound can be written beside pictures there."""
    form = FORMATS.get(target.suffix.lower())
    return form is not None and form.sound_codec is not None


def check_pictures(target: Path, frames: int = 1, fps: Fraction | None = None) -> None:
    """Raise what writing so many frames would, before the first of them is made.

    Raises:
        UsageError: a file for sound alone, or one for a single image where several frames are made.
        UnsupportedMedia: another suffix, a folder, or a rate that GIF cannot hold.
        MissingFile, MediaError: the folder does not exist, or nothing can be written in it.
    """
    suffix, better = target.suffix.lower(), f"name a video, such as {target.stem}.mp4"
    if suffix in SOUND_SUFFIXES:
        raise UsageError(f"pictures are made, and {target.name} would hold sound alone; {better}")
    check_target(target)
    if suffix in IMAGE_SUFFIXES and frames > 1:
        raise UsageError(f"{target.name} can hold one frame only, and {frames} are made; {better}")
    if suffix == ".gif" and fps is not None and fps > GIF_MAX_FPS:
        raise UnsupportedMedia(f"GIF holds at most {GIF_MAX_FPS} frames per second, and {fps} are made; {better}")


def check_growth(growth: Path) -> None:
    """Raises UsageError for a growth picture that is no image; as check_target for its folder."""
    if growth.suffix.lower() not in IMAGE_SUFFIXES:
        raise UsageError(f"growth is an image, got {growth}; name it .png")
    check_target(growth)


def first_of(sound: Sound, seconds: Fraction) -> Sound:
    """Its beginning; all of it where it is not longer."""
    return Sound(sound.samples_CS[:, : round(seconds * sound.rate_hz)], sound.rate_hz)


def sound_words(sound_s: float, pictures_s: float, fps: Fraction) -> str:
    """How long sound is beside pictures: "none", or a number of seconds, or "for the first 1.42 of 3.00 s"."""
    if not sound_s:
        return "none"
    if sound_s < pictures_s - 0.5 / fps:
        return f"for the first {sound_s:.2f} of {pictures_s:.2f} s"
    return f"{sound_s:.2f} s"

"""From a path to an open FFmpeg container, and from FFmpeg's failures to errors with a name and a remedy.

Nothing outside this file needs to know what PyAV raises.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import av
import av.error as av_error
import av.stream as av_stream
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream

from kinolex.errors import MediaError, MissingFile, UnreadableMedia, UnsupportedMedia

StreamKind = TypeVar("StreamKind", bound=av_stream.Stream)

MAX_THREADS = 4
"""Decoding gains little beyond four threads, and every frame thread holds one more frame in memory."""

INPUT_OPTIONS = {
    "protocol_whitelist": "file",  # a playlist must not make us open a network address
    "pattern_type": "none",  # "100%d.png" is the name of one file, not of a sequence
}
TEXT_CODECS = {"ansi", "bintext", "xbin", "idf", "binkaudio_text"}
"""FFmpeg can render any text file as terminal art; nobody who passes a text file here wants that."""


def check_file(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file with something in it, or raise MissingFile or UnreadableMedia."""
    file = Path(path)
    if not file.exists():
        raise MissingFile(f"no file at {file}; check the spelling and the folder ({Path.cwd()} is the current one)")
    if file.is_dir():
        raise UnreadableMedia(f"{file} is a folder, and one media file is needed; name a file inside it")
    if not file.is_file():
        raise UnreadableMedia(f"{file} is a pipe or device, and a file is needed; save it into one first")
    if file.stat().st_size == 0:
        raise UnreadableMedia(f"{file} is empty (0 bytes); copy or download it again")
    return file


def reason(error: BaseException) -> str:
    """What FFmpeg or the system says about an error, without numbers and repeated paths."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextmanager
def named_errors(file: Path) -> Iterator[None]:
    """Turn whatever FFmpeg raises about this file into one of our errors."""
    try:
        yield
    except MediaError:
        raise
    except (av_error.DecoderNotFoundError, av_error.PatchWelcomeError, av_error.NotImplementedError) as error:
        raise UnsupportedMedia(
            f"{file} uses something this FFmpeg build cannot decode ({reason(error)}); convert it to mp4 or webm first"
        ) from error
    except (av_error.PermissionError, PermissionError) as error:
        raise UnreadableMedia(f"{file} may not be read by this user; change its permissions") from error
    # PyAV raises plain ValueError and OverflowError for headers with absurd numbers.
    except (av_error.FFmpegError, OSError, ValueError, OverflowError, MemoryError) as error:
        raise UnreadableMedia(
            f"{file} is not media that FFmpeg can read ({reason(error)}); "
            "it may be truncated, damaged or another kind of file under a media name"
        ) from error


def open_input(file: Path) -> InputContainer:
    """Open for reading; the caller closes. Raises what check_file and named_errors raise."""
    with named_errors(file):
        # The prefix keeps FFmpeg from taking "clip:1.mp4" for an address.
        return av.open(f"file:{file}", "r", options=dict(INPUT_OPTIONS), metadata_errors="replace")


def picture_stream(container: InputContainer, file: Path) -> VideoStream:
    """The main video stream, ready to decode; cover art in a music file does not count."""
    stream = _main_pictures(container)
    if stream is None:
        if container.streams.audio:
            raise UnsupportedMedia(
                f"{file} holds sound but no pictures, and a video or image is needed here; its sound can go into "
                ".wav and .flac files and token files"
            )
        raise UnreadableMedia(f"{file} holds neither pictures nor sound; it is probably not a media file")
    if not is_decodable(stream):
        raise UnsupportedMedia(f"{file} holds video in a codec unknown to this FFmpeg build; convert it to mp4 first")
    if stream.codec_context.name in TEXT_CODECS:
        raise UnreadableMedia(f"{file} is a text file, not media; check the name")
    return stream


def holds_pictures(path: str | os.PathLike[str]) -> bool:
    """Whether a media file has pictures of its own. Raises MissingFile, UnreadableMedia: no such file, not media."""
    with open_input(check_file(path)) as container:
        return _main_pictures(container) is not None


def _main_pictures(container: InputContainer) -> VideoStream | None:
    cover = av_stream.Disposition.attached_pic
    return main_stream([stream for stream in container.streams.video if not stream.disposition & cover])


def sound_stream(container: InputContainer, file: Path) -> AudioStream | None:
    """The main sound stream, ready to decode, or None if there is no sound."""
    stream = main_stream(container.streams.audio)
    if stream is not None and not is_decodable(stream):
        raise UnsupportedMedia(
            f"{file} holds sound in a codec unknown to this FFmpeg build; convert it to mp4 or wav first, "
            "or take its sound out"
        )
    return stream


def is_decodable(stream: av_stream.Stream) -> bool:
    """False if this FFmpeg build has no decoder for the stream; PyAV then gives it no codec context."""
    return stream.codec_context is not None


def main_stream(streams: Sequence[StreamKind]) -> StreamKind | None:
    """The first stream marked as default, or the first of all, or None."""
    chosen = [stream for stream in streams if stream.disposition & av_stream.Disposition.default]
    return next(iter([*chosen, *streams]), None)


def thread_count() -> int:
    """Decoding threads: the cores this process may use, at most MAX_THREADS."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, MAX_THREADS)


def check_place(path: str | os.PathLike[str]) -> None:
    """Raise what `replacing` would, before any work is done for a file that could not be written.

    Raises:
        MissingFile: there is no such folder. UnsupportedMedia: it is a folder itself.
        MediaError: nothing can be written in that folder.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise MissingFile(f"cannot write {target}: there is no folder {target.parent}; create it first")
    if target.is_dir():
        raise UnsupportedMedia(f"cannot write {target}: it is a folder; give the name of a file")
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise _cannot_write(target, error) from error


def _cannot_write(target: Path, error: OSError) -> MediaError:
    return MediaError(f"cannot write in {target.parent} ({error.strerror}); choose another folder")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name in the same folder; it becomes `path` on a clean exit and vanishes on any other."""
    target = Path(path)
    check_place(target)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.stem[:40]}.", suffix=target.suffix, dir=target.parent)
    except OSError as error:
        raise _cannot_write(target, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; what we hand over has the permissions of any newly made file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, target)
    except OSError as error:
        # Writing to an open file, as onto a full disk, fails without its name.
        if error.filename is None or Path(os.fsdecode(error.filename)) == temporary:
            error.filename = str(target)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def open_output(file: Path, options: dict[str, str] | None = None, format: str | None = None) -> OutputContainer:
    """Open a file for muxing; the caller closes."""
    return av.open(f"file:{file}", "w", format=format, options=options or {})

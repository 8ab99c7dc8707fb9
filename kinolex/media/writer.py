"""Frames and sound -> MP4, WebM and GIF files, a few frames at a time, in constant memory.

    frames_TCHW --gbrp--> yuv420p (tagged matrix, limited range) --encode--+
    sound ------- in step with the picture ------------------- --encode--+--mux--> temporary file --rename--> path

Nothing appears at the path before everything has been written.
Sizes. VP9 stores odd sizes as they are. H.264 with halved chroma cannot, so odd sizes are written as 4:4:4, which gives
back exactly the size that came in; players that only know 4:2:0 need an even size.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av.error as av_error
import numpy as np
import torch
from av import VideoFrame
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch import Tensor

from kinolex.errors import MediaError, ShapeError, UnsupportedMedia, UsageError
from kinolex.media.opening import open_output, reason, replacing, thread_count
from kinolex.media.pixels import EXACT, HD_LINES, frame_from_pixels
from kinolex.media.rate_tag import RATE_KEY, add_to_gif
from kinolex.media.timing import MAX_FPS
from kinolex.media.track import SoundTrack
from kinolex.types import Sound

DEFAULT_QUALITY = 75
GIF_MAX_FPS = 50
"""GIF counts hundredths of a second, and players slow down frames shorter than two of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Format:
    container: str
    video_codec: str
    sound_codec: str | None
    crf_best: float
    """Rate factor at quality 100; 0 is the coarsest the codec has."""
    crf_worst: float
    video_options: dict[str, str]
    container_options: dict[str, str]


_MP4 = _Format(
    container="mp4",
    video_codec="libx264",
    sound_codec="aac",
    crf_best=6,
    crf_worst=51,
    video_options={"preset": "medium"},
    container_options={"movflags": "+faststart"},
)
_WEBM = _Format(
    container="webm",
    video_codec="libvpx-vp9",
    sound_codec="libopus",
    crf_best=12,
    crf_worst=63,
    video_options={"b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
    container_options={},
)
_GIF = _Format(
    container="gif",
    video_codec="gif",
    sound_codec=None,
    crf_best=0,
    crf_worst=0,
    video_options={},
    container_options={},
)
FORMATS = {".mp4": _MP4, ".m4v": _MP4, ".webm": _WEBM, ".gif": _GIF}


class VideoWriter:
    """Writes a video frame by frame; the file appears at `path` only when the with-block ends without an error.

        with VideoWriter("out.mp4", fps=Fraction(25), height=64, width=64, sound=sound) as writer:
            writer.append(frames_TCHW)

    Args:
        path: .mp4 (H.264 and AAC), .webm (VP9 and Opus) or .gif (without sound, at most 50 frames per second).
        fps: exact frames per second. GIF keeps it to 1/100 s per frame.
        height, width: of every frame, any size from 1 pixel on.
        sound: begins with the first frame and keeps its own length. Rates the codec does not know are converted. Pieces
            of one sound are asked for one by one, as frames are appended.
        quality: 0 to 100, 75 if None; ignored for GIF.

    Raises:
        UnsupportedMedia: another suffix, or a size or rate that the format cannot hold.
        UsageError: no frame was appended, or quality or fps out of range.
        MissingFile: the folder does not exist.
        MediaError: the disk is full or the encoder failed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fps: Fraction,
        height: int,
        width: int,
        sound: Sound | Iterable[Sound] | None = None,
        quality: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.fps = Fraction(fps)
        self.height, self.width = height, width
        self.sound = sound
        self.quality = DEFAULT_QUALITY if quality is None else quality
        self.frames_written = 0
        self._format = _format_for(self.path)
        if not 0 <= self.quality <= 100:
            raise UsageError(f"quality must be in 0..100, got {quality}")
        if min(height, width) < 1:
            raise UsageError(f"a video needs at least 1x1 pixel, got {width}x{height}")
        if not 0 < self.fps <= MAX_FPS:
            raise UsageError(f"fps must be above 0 and at most {MAX_FPS}, got {fps}")
        if self._format is _GIF and self.fps > GIF_MAX_FPS:
            raise UnsupportedMedia(
                f"GIF holds at most {GIF_MAX_FPS} frames per second, got {self.fps}; write .mp4 or .webm"
            )
        self._stack: ExitStack | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._temporary = temporary = stack.enter_context(replacing(self.path))
            with self._named_errors():
                self._container = open_output(
                    temporary, dict(self._format.container_options), format=self._format.container
                )
                stack.callback(self._container.close)
                self._container.metadata[RATE_KEY] = str(self.fps)
                self._stream = self._video_stream()
                self._palette = _PaletteGraph(self.width, self.height, self.fps) if self._format is _GIF else None
                self._reformatter = VideoReformatter()
                codec = self._format.sound_codec
                self._track = (
                    SoundTrack(self._container, codec, self.sound) if self.sound is not None and codec else None
                )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        assert stack is not None
        with stack:
            # An exception raised or thrown inside this block makes `replacing` remove the temporary file.
            if value is not None:
                raise value
            if self.frames_written == 0:
                raise UsageError(f"cannot write {self.path} without a frame; append at least one")
            with self._named_errors():
                self._encode(None)
                if self._track is not None:
                    self._track.finish()
                self._container.close()
                if self._format is _GIF:
                    add_to_gif(self._temporary, self.fps)

    def append(self, frames_TCHW: Tensor) -> None:
        """Add frames_TCHW, uint8 sRGB with C = 3, at the end; raises ShapeError if they do not fit."""
        if self._stack is None:
            raise UsageError("VideoWriter must be opened first: `with VideoWriter(...) as writer:`")
        expected = (3, self.height, self.width)
        if frames_TCHW.ndim != 4 or frames_TCHW.dtype != torch.uint8 or tuple(frames_TCHW.shape[1:]) != expected:
            raise ShapeError(
                f"this writer needs uint8 frames_TCHW of shape (any, 3, {self.height}, {self.width}), "
                f"got {frames_TCHW.dtype} with shape {tuple(frames_TCHW.shape)}"
            )
        with self._named_errors():
            for pixels_CHW in frames_TCHW.cpu().numpy():
                self._encode(pixels_CHW)
                self.frames_written += 1
                if self._track is not None:
                    self._track.advance(self.frames_written / self.fps)

    def _video_stream(self) -> VideoStream:
        form = self._format
        stream = self._container.add_stream(form.video_codec, rate=self.fps, options=dict(form.video_options))
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.width, context.height = self.width, self.height
        context.time_base = 1 / self.fps
        if form is _GIF:
            context.pix_fmt = "pal8"
            return stream
        odd = self.width % 2 or self.height % 2
        context.pix_fmt = "yuv444p" if odd and form is _MP4 else "yuv420p"
        crf = form.crf_worst + (form.crf_best - form.crf_worst) * self.quality / 100
        context.options = {**form.video_options, "crf": str(round(crf))}
        context.thread_count = thread_count()
        # The matrix that players assume for this size anyway, so that those which ignore tags are right as well.
        context.colorspace = 6 if self.height < HD_LINES else 1
        context.color_range = int(ColorRange.MPEG)
        context.color_primaries = int(ColorPrimaries.BT709)
        context.color_trc = int(ColorTrc.IEC61966_2_1)
        return stream

    def _encode(self, pixels_CHW: NDArray[np.uint8] | None) -> None:
        """Encode and mux one frame; None drains the encoder."""
        for frame in self._prepared(pixels_CHW):
            self._container.mux(self._stream.encode(frame))
        if pixels_CHW is None:
            self._container.mux(self._stream.encode(None))

    def _prepared(self, pixels_CHW: NDArray[np.uint8] | None) -> Iterator[VideoFrame]:
        if self._palette is not None:
            yield from self._palette.frames(pixels_CHW, self.frames_written)
            return
        if pixels_CHW is None:
            return
        frame = self._reformatter.reformat(
            frame_from_pixels(pixels_CHW),
            format=self._stream.codec_context.pix_fmt,
            dst_colorspace=int(Colorspace.ITU601 if self.height < HD_LINES else Colorspace.ITU709),
            src_color_range=int(ColorRange.JPEG),
            dst_color_range=int(ColorRange.MPEG),
            interpolation=int(EXACT),
            threads=1,
        )
        frame.color_primaries = int(ColorPrimaries.BT709)
        frame.color_trc = int(ColorTrc.IEC61966_2_1)
        frame.pts, frame.time_base = self.frames_written, 1 / self.fps
        yield frame

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except (av_error.FFmpegError, OSError) as error:
            raise MediaError(
                f"writing {self.path} failed ({reason(error)}); nothing was left behind. "
                f"Check the free space on the disk and that {self.width}x{self.height} at {self.fps} fps "
                f"suits {self.path.suffix}"
            ) from error


class _PaletteGraph:
    """FFmpeg's palette filters, with a new palette for every frame: best colours, and no need to see all frames."""

    def __init__(self, width: int, height: int, fps: Fraction) -> None:
        self._graph = graph = Graph()
        self._time_base = 1 / fps
        planar = VideoFormat("gbrp", width, height)
        source = graph.add_buffer(width=width, height=height, format=planar, time_base=self._time_base)
        split = graph.add("split")
        generate = graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
        use = graph.add("paletteuse", "new=1:dither=sierra2_4a")
        sink = graph.add("buffersink")
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(generate, 1, 0)
        generate.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()

    def frames(self, pixels_CHW: NDArray[np.uint8] | None, index: int) -> Iterator[VideoFrame]:
        """Put one frame in (None: no more) and take out what is ready."""
        if pixels_CHW is None:
            self._graph.push(None)
        else:
            frame = frame_from_pixels(pixels_CHW)
            frame.pts, frame.time_base = index, self._time_base
            self._graph.push(frame)
        while True:
            try:
                ready = self._graph.pull()
            except (av_error.BlockingIOError, av_error.EOFError):
                return
            assert isinstance(ready, VideoFrame)
            yield ready


def _format_for(path: Path) -> _Format:
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise UnsupportedMedia(
            f"cannot write video as {path.suffix or 'a file without suffix'}; use one of {', '.join(FORMATS)}"
        )
    return form

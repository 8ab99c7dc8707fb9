"""Video files, animated GIFs and images -> Clips of constant rate.

    file --scan--> Timeline                       (timestamps of all packets, nothing decoded)
    file --decode--> frames --Timeline--> Clips   (16 frames at a time; one decoded frame is held)

The scan reads the file once more, which costs a little time and gives exact frame counts for files whose headers have
none, and the difference between constant and variable rate before the first frame is returned.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
import torch
from av import VideoFrame
from av.codec.context import ThreadType
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from numpy.typing import NDArray

from kinolex.errors import UnreadableMedia, UnsupportedMedia, UsageError
from kinolex.media.decoding import decode, packets_of
from kinolex.media.integrity import is_animated_webp, missing_bytes
from kinolex.media.opening import (
    check_file,
    is_decodable,
    main_stream,
    named_errors,
    open_input,
    picture_stream,
    thread_count,
)
from kinolex.media.pixels import FrameConverter, has_alpha, orientation_of, rotation_deg
from kinolex.media.rate_tag import stated_rate
from kinolex.media.timing import DEFAULT_FPS, Timeline, choose_timeline, is_plausible, round_half_up
from kinolex.types import Clip

MAX_GAP_S = 3600
"""A longer jump between two frames, or any jump back, is a broken clock and not a long still picture."""
MAX_REORDER = 16
"""No codec holds back more frames than this for display order."""
IMAGE_FPS = Fraction(1)
UNKNOWN_CODEC = "unknown"
SEEKABLE = ("mov,mp4", "matroska")
"""Formats with an index and independent key frames; everything else is decoded from its start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaInfo:
    """What a media file holds. Sizes are those of the upright picture, rates and counts those that reading gives."""

    path: Path
    container: str
    """FFmpeg's name of the container format, e.g. "mov,mp4,m4a,3gp,3g2,mj2"."""
    codec: str
    width: int
    height: int
    fps: Fraction
    frames: int | None
    """Frames that reading gives at fps, counted from the packets (the type leaves room for endless streams)."""
    duration_s: float
    """Length of the picture."""
    rotation_deg: int
    """Clockwise turn that was applied to the stored picture: 0, 90, 180 or 270."""
    variable_rate: bool
    interlaced: bool
    """True if the first frame consists of two fields; they are not separated on reading."""
    has_alpha: bool
    bit_depth: int
    """Bits per colour channel as stored; reading always gives 8."""
    pixel_format: str
    is_image: bool
    sound_rate_hz: int | None
    sound_channels: int | None
    sound_codec: str | None
    """None without sound; "unknown" (rate and channels None) if this FFmpeg build has no decoder for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scan:
    """What the packets of a stream say before any is decoded."""

    timeline: Timeline
    timed: bool
    """False if packets lack timestamps: frames are then counted instead."""
    is_image: bool
    cut: bool
    """True if the file ends before its header says so, or in the middle of a packet."""


def scan_stream(container: InputContainer, stream: VideoStream, file: Path) -> _Scan:
    """Read the timestamps of all packets and choose the timeline."""
    stamps, durations, timed, shown = array("q"), {}, True, 0
    cut = missing_bytes(file) != 0
    with named_errors(file):
        for packet in packets_of(container, stream):
            if packet.size == 0 or packet.is_discard:
                continue
            if packet.is_corrupt:
                cut = True
                break
            shown += 1
            if packet.pts is None:
                timed = False
                continue
            stamps.append(packet.pts)
            if packet.pts >= max(durations, default=packet.pts):
                durations = {packet.pts: packet.duration or 0}
    if shown == 0:
        raise UnreadableMedia(f"{file} announces video but holds no frame; it was probably cut while being written")
    is_image = shown == 1 and (container.format.name.endswith("_pipe") or container.format.name == "image2")
    time_base = stream.time_base or Fraction(1, 90000)
    ordered = _without_stragglers(sorted(stamps)) if cut else sorted(stamps)
    if not timed or not _is_sane(ordered, time_base):
        stated = [rate for rate in (stream.average_rate, stream.guessed_rate) if is_plausible(rate)]
        rate = stated[0] if stated and stated[0] is not None else DEFAULT_FPS
        counted = Timeline(origin=0, time_base=1 / rate, fps=rate, rounded=True, variable=False, frames=shown)
        return _Scan(timeline=counted, timed=False, is_image=is_image, cut=cut)
    timeline = choose_timeline(
        ordered,
        last_duration=next(iter(durations.values())),
        time_base=time_base,
        stated_rates=[stated_rate(container, file), stream.average_rate, stream.base_rate],
    )
    if is_image:
        timeline = Timeline(
            origin=ordered[0], time_base=time_base, fps=IMAGE_FPS, rounded=True, variable=False, frames=1
        )
    return _Scan(timeline=timeline, timed=True, is_image=is_image, cut=cut)


def _without_stragglers(ordered: list[int]) -> list[int]:
    """Frames are stored out of order; in a cut file, drop those at the end whose predecessors are lost."""
    steps = [later - earlier for earlier, later in pairwise(ordered)]
    usual = sorted(steps)[len(steps) // 2] if steps else 0
    for index in range(max(len(steps) - MAX_REORDER, 0), len(steps)):
        if 2 * steps[index] > 3 * usual:
            return ordered[: index + 1]
    return ordered


def _is_sane(ordered: list[int], time_base: Fraction) -> bool:
    """False if the clock jumps by more than MAX_GAP_S."""
    limit = MAX_GAP_S / time_base
    return all(later - earlier <= limit for earlier, later in pairwise(ordered))


def probe(path: str | os.PathLike[str]) -> MediaInfo:
    """Describe a file with pictures; reads it once and decodes its first frame.

    Raises:
        MissingFile, UnreadableMedia: there is no such file, or it is not media, empty or damaged from its start.
        UnsupportedMedia: only sound, or a codec this FFmpeg build lacks.
    """
    file = check_file(path)
    with open_input(file) as container:
        stream = picture_stream(container, file)
        return _probe(container, stream, file, scan_stream(container, stream, file))


def _probe(container: InputContainer, stream: VideoStream, file: Path, scan: _Scan) -> MediaInfo:
    with open_input(file) as again, closing(decoded_frames(again, picture_stream(again, file), file)) as frames:
        first = next(frames, None)
    if first is None and is_animated_webp(file):
        raise UnsupportedMedia(f"{file} is an animated WebP, which FFmpeg cannot decode; convert it to gif or mp4")
    if first is None:
        raise UnreadableMedia(f"{file}: not one frame could be decoded; the file is damaged or was cut at its start")
    orientation = orientation_of(first, file)
    width, height = (first.height, first.width) if orientation[0] else (first.width, first.height)
    alpha = has_alpha(first) and (stream.codec_context.name != "gif" or _is_transparent(first))
    sound = main_stream(container.streams.audio)
    sound_context = sound.codec_context if sound is not None and is_decodable(sound) else None
    return MediaInfo(
        path=file,
        container=container.format.name,
        codec=stream.codec_context.name,
        width=width,
        height=height,
        fps=scan.timeline.fps,
        frames=scan.timeline.frames,
        duration_s=float(scan.timeline.frames / scan.timeline.fps),
        rotation_deg=rotation_deg(orientation),
        variable_rate=scan.timeline.variable,
        interlaced=first.interlaced_frame,
        has_alpha=alpha,
        bit_depth=first.format.components[0].bits if not first.format.has_palette else 8,
        pixel_format=first.format.name,
        is_image=scan.is_image,
        sound_rate_hz=sound_context.sample_rate if sound_context is not None else None,
        sound_channels=sound_context.layout.nb_channels if sound_context is not None else None,
        sound_codec=sound_context.name if sound_context is not None else None if sound is None else UNKNOWN_CODEC,
    )


def _is_transparent(frame: VideoFrame) -> bool:
    """GIF is always decoded with alpha; only some GIFs use it."""
    return bool((frame.to_ndarray(format="rgba")[:, :, 3] < 255).any())


def _decoder(stream: VideoStream) -> VideoCodecContext:
    """The stream's decoder with threads; for VP8 and VP9 with alpha the one that decodes alpha."""
    own = stream.codec_context
    if stream.metadata.get("alpha_mode") == "1" and own.name in ("vp8", "vp9"):
        context = av.CodecContext.create("libvpx-vp9" if own.name == "vp9" else "libvpx", "r")
        assert isinstance(context, VideoCodecContext)
        return context
    own.thread_type = ThreadType.AUTO
    own.thread_count = thread_count()
    return own


def decoded_frames(container: InputContainer, stream: VideoStream, file: Path) -> Generator[VideoFrame, None, None]:
    """Decode a stream from where the container stands, in order of display; raises as decoding.decode."""
    for _, frame in decode(container, stream, _decoder(stream), file):
        yield frame


class VideoReader:
    """Reads a video of any length in constant memory, as Clips of a few frames at constant rate.

        with VideoReader("long.mp4") as reader:
            for clip in reader:              # 16 frames each, the last one shorter; without sound
                ...

    Output frame k shows the latest frame whose timestamp is not later than k / fps after the first. Every iteration
    starts again at start_s.

    Args:
        path: any video, GIF or image.
        start_s: time of the first frame to return; moved to the nearest output frame.
        chunk_frames: frames per Clip.

    Raises:
        MissingFile, UnreadableMedia, UnsupportedMedia: as probe; also during iteration, after the last whole frame,
            if the file is cut or damaged.
        UsageError: chunk_frames below 1, or start_s before 0 or after the end.
    """

    def __init__(self, path: str | os.PathLike[str], *, start_s: float = 0.0, chunk_frames: int = 16) -> None:
        if chunk_frames < 1:
            raise UsageError(f"chunk_frames must be at least 1, got {chunk_frames}")
        self._file = check_file(path)
        self.chunk_frames = chunk_frames
        with open_input(self._file) as container:
            stream = picture_stream(container, self._file)
            self._scan = scan_stream(container, stream, self._file)
            self.info = _probe(container, stream, self._file, self._scan)
        self.fps = self.info.fps
        self.frames_read = 0
        self.first_tick = round_half_up(Fraction(start_s) * self.fps)
        if self.first_tick < 0 or self.first_tick >= self._scan.timeline.frames:
            raise UsageError(
                f"start_s must lie in the video, got {start_s} for {self._file} of {self.info.duration_s:.3f} s"
            )
        self._active: Generator[Clip, None, None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file; a running iteration ends."""
        if self._active is not None:
            self._active.close()
            self._active = None

    @property
    def origin_s(self) -> Fraction:
        """Time of the first picture on the file's own clock, to which sound is aligned."""
        return self._scan.timeline.origin * self._scan.timeline.time_base if self._scan.timed else Fraction(0)

    def __iter__(self) -> Iterator[Clip]:
        self.close()
        self._active = self._chunks()
        return self._active

    def _chunks(self) -> Generator[Clip, None, None]:
        chunk: list[NDArray[np.uint8]] = []
        try:
            with closing(self.pixels()) as pixels:
                for pixels_CHW in pixels:
                    chunk.append(pixels_CHW)
                    if len(chunk) == self.chunk_frames:
                        yield self._clip(chunk)
                        chunk = []
        except UnreadableMedia:
            # What could be read comes before the bad news.
            if chunk:
                yield self._clip(chunk)
            raise
        if chunk:
            yield self._clip(chunk)

    def _clip(self, chunk: list[NDArray[np.uint8]]) -> Clip:
        return Clip(torch.from_numpy(np.stack(chunk)), self.fps)

    def pixels(self) -> Generator[NDArray[np.uint8], None, None]:
        """The output frames one by one, pixels_CHW uint8; a frame shown twice is the same array twice."""
        self.frames_read = 0
        lacking = missing_bytes(self._file)
        amount = f"{lacking} bytes are missing" if lacking else "its end is missing"
        if self._scan.is_image and lacking != 0:
            raise UnreadableMedia(f"{self._file} is truncated: {amount}; copy it again")
        with open_input(self._file) as container:
            stream = picture_stream(container, self._file)
            converter = FrameConverter(stream.codec_context.name, self._file)
            try:
                for frame, repeats in self._shown(self._from_start(container, stream)):
                    pixels_CHW = converter(frame)
                    for _ in range(repeats):
                        self.frames_read += 1
                        yield pixels_CHW
            except UnreadableMedia as error:
                raise UnreadableMedia(f"{error}; {self.frames_read} frames were readable") from error
        if lacking != 0:
            raise UnreadableMedia(
                f"{self._file} is truncated: {amount}; {self.frames_read} frames were readable. Copy it again, "
                "or cut it after them"
            )

    def _from_start(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        """Decoded frames from one at or before first_tick on."""
        line = self._scan.timeline
        if self.first_tick > 0 and self._scan.timed and container.format.name.startswith(SEEKABLE):
            with named_errors(self._file):
                container.seek(line.timestamp(self.first_tick), stream=stream, backward=True)
            frames = decoded_frames(container, stream, self._file)
            first = next(frames, None)
            if first is not None and first.pts is not None and line.first_tick(first.pts) <= self.first_tick:
                yield first
                yield from frames
                return
            # The index led past the wanted frame: begin again at the start.
            with open_input(self._file) as again:
                yield from decoded_frames(again, picture_stream(again, self._file), self._file)
            return
        yield from decoded_frames(container, stream, self._file)

    def _shown(self, frames: Iterator[VideoFrame]) -> Iterator[tuple[VideoFrame, int]]:
        """Pairs of a frame and the number of output frames that show it, from first_tick on."""
        line, tick = self._scan.timeline, self.first_tick
        held: VideoFrame | None = None
        shown_from = index = -1
        fault: UnreadableMedia | None = None
        while True:
            try:
                frame = next(frames, None)
            except UnreadableMedia as error:
                fault, frame = error, None
            if frame is None:
                break
            index += 1
            if not self._scan.timed:
                shown_from = index
            elif frame.pts is not None:
                shown_from = line.first_tick(frame.pts)
            else:
                shown_from += 1
            if self._scan.cut and shown_from >= line.frames:
                continue
            if held is not None and shown_from > tick:
                yield held, shown_from - tick
                tick = shown_from
            held = frame
        if held is None and fault is not None:
            raise fault
        if held is None:
            raise UnreadableMedia(f"{self._file}: no frame could be decoded; the file is damaged")
        end = shown_from + 1
        if self._scan.timed and held.pts is not None:
            end = line.end_tick(held.pts, held.duration or 0)
        if end > tick:
            yield held, end - tick
        if fault is not None:
            raise fault

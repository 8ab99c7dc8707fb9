"""JPEG, WebP and AVIF as this FFmpeg writes them: the baseline for pictures.

    frame --yuv 4:2:0--> mjpeg | libwebp | libsvtav1 --> bytes of a whole file --decode--> frame

Colours are BT.709 in all three, so that colour conversion tells none from another; a viewer that takes a JPEG or WebP
for BT.601 shows its colours shifted, at the same bytes. FFmpeg's JPEG has optimal Huffman tables, but the quantization
matrices of MPEG: another JPEG encoder may do better.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.error as av_error
import torch

from kinolex.errors import UnsupportedMedia, UsageError
from kinolex.evaluation.codecs import from_yuv420, kept_scheduling, to_yuv420
from kinolex.types import Clip

_RIFF_HEADERS = 20
"""Bytes of a WebP file before its coded picture: RIFF, its length, WEBP, VP8, its length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StillConfig:
    """An encoder of single pictures."""

    name: str
    encoder: str
    container: str
    """FFmpeg's name of the format that a file is decoded as."""
    setting: str
    """What a level is called: q, quality or crf."""
    grid: tuple[float, ...]
    """Every level, fewest bytes first."""
    curve: tuple[float, ...]
    """Levels of a rate-distortion curve, fewest bytes first."""

    def options(self, level: float) -> dict[str, str]:
        """Encoder options at a level."""
        if self.encoder == "mjpeg":
            return {"qmin": f"{level:g}", "qmax": f"{level:g}", "huffman": "optimal"}
        if self.encoder == "libwebp":
            return {"quality": f"{level:g}", "compression_level": "6"}
        return {"preset": "4", "svtav1-params": f"lp=1:avif=1:crf={level:g}"}


STILL_CODECS = (
    StillConfig(
        name="jpeg",
        encoder="mjpeg",
        container="mjpeg",
        setting="q",
        grid=tuple(map(float, range(31, 1, -1))),
        curve=(31, 24, 18, 12, 8, 5, 3),
    ),
    StillConfig(
        name="webp",
        encoder="libwebp",
        container="webp_pipe",
        setting="quality",
        grid=tuple(map(float, range(101))),
        curve=(0, 5, 15, 30, 50, 70, 85),
    ),
    StillConfig(
        name="avif",
        encoder="libsvtav1",
        container="mp4",
        setting="crf",
        grid=tuple(map(float, range(63, 0, -1))),
        curve=(63, 57, 51, 45, 39, 33, 27),
    ),
)


@dataclass(frozen=True, slots=True)
class CodedStill:
    """A picture as a file."""

    file: bytes
    num_bytes: int
    """Of the coded picture inside the file; a JPEG has no container and counts whole."""


def missing_reason(codec: StillConfig) -> str | None:
    """Why this FFmpeg cannot encode it, or None if it can."""
    try:
        av.Codec(codec.encoder, "w")
    except ValueError:
        return f"this FFmpeg has no encoder {codec.encoder}"
    if codec.name == "avif" and "avif" not in av.formats_available:
        return "this FFmpeg cannot write AVIF files"
    return None


def encode_still(clip: Clip, codec: StillConfig, level: float) -> CodedStill:
    """A clip of one frame as a file; odd sides are padded by repeating the last row or column.

    Raises:
        UsageError: more than one frame. UnsupportedMedia: this build of FFmpeg lacks the encoder.
    """
    if clip.num_frames != 1:
        raise UsageError(f"{codec.name} holds one picture, got a clip of {clip.num_frames} frames; take one of them")
    if reason := missing_reason(codec):
        raise UnsupportedMedia(f"{codec.name} cannot be measured: {reason}; install av from the registry")
    full_range = codec.encoder == "mjpeg"
    planes_YW = to_yuv420(clip.frames_TCHW, full_range=full_range)[0]
    form = "yuvj420p" if full_range else "yuv420p"
    frame = av.VideoFrame.from_ndarray(planes_YW.numpy(), format=form)
    frame.pts, frame.time_base = 0, Fraction(1)
    if codec.name == "avif":
        return _encode_avif(frame, codec, level)
    context: Any = av.CodecContext.create(codec.encoder, "w")
    _set_up(context, frame, codec, level)
    file = b"".join(map(bytes, [*context.encode(frame), *context.encode(None)]))
    return CodedStill(file, len(file) - (_RIFF_HEADERS if codec.encoder == "libwebp" else 0))


def decode_still(coded: CodedStill, codec: StillConfig, clip: Clip) -> Clip:
    """The picture of a file, cropped to the size of the clip that it was made of.

    Raises:
        UnsupportedMedia: this build of FFmpeg cannot decode it.
    """
    try:
        with av.open(io.BytesIO(coded.file), "r", format=codec.container) as container:
            frame = next(container.decode(video=0))
    except (av_error.FFmpegError, ValueError) as error:
        raise UnsupportedMedia(f"this FFmpeg cannot read {codec.name} back ({error}); install av anew") from error
    planes_TYW = torch.from_numpy(frame.to_ndarray()).unsqueeze(0)
    frames_TCHW = from_yuv420(planes_TYW, full_range=codec.encoder == "mjpeg")
    return Clip(frames_TCHW[:, :, : clip.height, : clip.width].contiguous(), clip.fps)


def _encode_avif(frame: av.VideoFrame, codec: StillConfig, level: float) -> CodedStill:
    os.environ.setdefault("SVT_LOG", "1")  # the encoder writes its settings to stderr at every start otherwise
    file, size = io.BytesIO(), 0
    with av.open(file, "w", format="avif") as container:
        stream: Any = container.add_stream(codec.encoder, rate=1)
        _set_up(stream.codec_context, frame, codec, level)
        with kept_scheduling():
            stream.codec_context.open()
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            size += packet.size
            container.mux(packet)
    return CodedStill(file.getvalue(), size)


def _set_up(context: Any, frame: av.VideoFrame, codec: StillConfig, level: float) -> None:
    context.height, context.width, context.pix_fmt = frame.height, frame.width, frame.format.name
    context.time_base, context.thread_count, context.options = Fraction(1), 1, codec.options(level)

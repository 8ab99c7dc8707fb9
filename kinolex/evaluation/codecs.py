"""Classical video codecs at the bytes that tokens would take: the baseline of every reconstruction figure.

    frames --yuv 4:2:0--> x264 | x265 | SVT-AV1 at the lowest CRF whose bytes fit --decode--> frames

The comparison favours the codecs where it cannot be exact: only packet payloads are counted (no container, and for
x264 and x265 no parameter sets and no text about the encoder), the whole clip may be one group of pictures with
look-ahead, and CRF is searched per clip. Tokens are counted plainly, without entropy coding. The same packets also lie
in an MP4 file, whose size is what a user would store.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from kinolex.data.index import Entry
from kinolex.errors import UnsupportedMedia, UsageError
from kinolex.evaluation.measure import measure_pair
from kinolex.evaluation.protocol import ReconstructionProtocol, make_result, read_entry, select_entries, write_result
from kinolex.metrics import bits_per_pixel
from kinolex.types import Clip, Extent

T = TypeVar("T")

_MP4_OPTIONS = {"fflags": "+bitexact"}  # without the name of the program that wrote it
_GLOBAL_HEADER = 0x400000  # AV_CODEC_FLAG_GLOBAL_HEADER: parameter sets go beside the packets
_RED, _BLUE = 0.2126, 0.0722  # BT.709 luma weights
_GREEN = 1.0 - _RED - _BLUE
_YUV_FROM_RGB = (
    torch.tensor(
        [
            [219 * _RED, 219 * _GREEN, 219 * _BLUE],
            [-112 * _RED / (1 - _BLUE), -112 * _GREEN / (1 - _BLUE), 112],
            [112, -112 * _GREEN / (1 - _RED), -112 * _BLUE / (1 - _RED)],
        ]
    )
    / 255
)
_YUV_OFFSET = torch.tensor([16.0, 128.0, 128.0]).view(1, 3, 1, 1)
_FULL_FROM_RGB = _YUV_FROM_RGB * torch.tensor([[255 / 219], [255 / 224], [255 / 224]])
_FULL_OFFSET = torch.tensor([0.0, 128.0, 128.0]).view(1, 3, 1, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecConfig:
    """An encoder, the decoder of its format, and its range of quality."""

    name: str
    encoder: str
    decoder: str
    preset: str
    crf_range: tuple[float, float]
    crf_step: float
    """Finest step of CRF that changes the file."""

    @property
    def title(self) -> str:
        """Name and preset; unique among the codecs below."""
        return f"{self.name} {self.preset}"

    @property
    def grid(self) -> tuple[float, ...]:
        """Every CRF worth trying, lowest quality and fewest bytes first."""
        low, high = (round(limit / self.crf_step) for limit in self.crf_range)
        return tuple(step * self.crf_step for step in range(high, low - 1, -1))

    def options(self, crf: float) -> dict[str, str]:
        """Encoder options: one thread, so that sizes do not depend on the machine."""
        base = {"preset": self.preset}
        if self.encoder == "libsvtav1":
            return base | {"svtav1-params": f"lp=1:crf={crf:g}"}
        if self.encoder == "libx265":
            return base | {"crf": f"{crf:g}", "x265-params": "pools=none:frame-threads=1:log-level=none:info=0"}
        return base | {"crf": f"{crf:g}"}


CODECS = (
    CodecConfig(name="x264", encoder="libx264", decoder="h264", preset="slow", crf_range=(0, 51), crf_step=0.125),
    CodecConfig(name="x265", encoder="libx265", decoder="hevc", preset="slow", crf_range=(0, 51), crf_step=0.125),
    CodecConfig(name="svt-av1", encoder="libsvtav1", decoder="libdav1d", preset="4", crf_range=(1, 63), crf_step=0.25),
)
VERYSLOW = tuple(replace(codec, preset="veryslow") for codec in CODECS[:2])
CURVE_CRFS = {
    "x264": (51.0, 47.0, 43.0, 39.0, 35.0, 31.0, 27.0),
    "x265": (51.0, 47.0, 43.0, 39.0, 35.0, 31.0, 27.0),
    "svt-av1": (63.0, 57.0, 51.0, 45.0, 39.0, 33.0, 27.0),
}
"""Points of a rate-distortion curve: about 0.01 to 0.3 bits per pixel at 128 lines."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenGrid:
    """The bytes a tokenizer of this shape takes, whether it exists or not."""

    bits_per_token: float
    pixels_per_token: tuple[int, int, int] = (4, 8, 8)
    causal: bool = True
    """The first frame has its own latent frame: 1 + 4t frames make 1 + t."""

    def num_bytes(self, extent: Extent) -> int:
        """Plain tokens of a clip, whole tokens in every direction."""
        time_factor, rows, columns = self.pixels_per_token
        latent_frames = (
            1 + math.ceil((extent.frames - 1) / time_factor) if self.causal else math.ceil(extent.frames / time_factor)
        )
        positions = latent_frames * math.ceil(extent.height / rows) * math.ceil(extent.width / columns)
        return math.ceil(positions * self.bits_per_token / 8)


@dataclass(frozen=True, slots=True)
class Coded:
    """A clip after a codec."""

    packets: tuple[bytes, ...]
    parameters: bytes
    """Parameter sets that the decoder needs and num_bytes does not count."""
    crf: float
    file: bytes
    """The same as MP4, parameter sets and all."""

    @property
    def num_bytes(self) -> int:
        return sum(map(len, self.packets))


def encode(clip: Clip, codec: CodecConfig, crf: float) -> Coded:
    """Encode the frames as 8-bit 4:2:0, BT.709; odd sides are padded by repeating the last row or column.

    Raises:
        UnsupportedMedia: this build of FFmpeg lacks the encoder.
    """
    planes_TYW = to_yuv420(clip.frames_TCHW)
    size = planes_TYW.shape[1] * 2 // 3, planes_TYW.shape[2]
    encoded, file = [], io.BytesIO()
    with av.open(file, "w", format="mp4", options=_MP4_OPTIONS) as container:
        stream = _add_stream(container, codec.encoder, clip.fps)
        context = open_encoder(codec, crf, *size, clip.fps, stream.codec_context)
        for index, planes_YW in enumerate(planes_TYW.numpy()):
            frame = av.VideoFrame.from_ndarray(planes_YW, format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1 / clip.fps)
            encoded += context.encode(frame)
        encoded += context.encode(None)
        parameters, packets = bytes(context.extradata or b""), []
        # A frame is decoded before it is shown. The encoders' own decode times cannot be used: x265 leaves them
        # uninitialised for clips shorter than its delay of reordered frames.
        delay = max(place - packet.pts for place, packet in enumerate(encoded))
        for place, packet in enumerate(encoded):
            packets.append(without_messages(bytes(packet)) if codec.encoder == "libx264" else bytes(packet))
            container.mux(_like(packet, packets[-1], place - delay, stream))
    return Coded(tuple(packets), parameters, crf, file.getvalue())


def _add_stream(container: Any, encoder: str, fps: Fraction) -> Any:
    try:
        return container.add_stream(encoder, rate=fps)
    except ValueError as error:
        raise UnsupportedMedia(f"this FFmpeg has no encoder {encoder}; install av from the registry") from error


def _like(packet: Any, data: bytes, decode_time: int, stream: Any) -> Any:
    """A packet of other bytes shown at the same time, for a container."""
    copy: Any = av.Packet(data)
    copy.pts, copy.dts, copy.time_base, copy.duration = packet.pts, decode_time, packet.time_base, 1
    copy.is_keyframe, copy.stream = packet.is_keyframe, stream
    return copy


def open_encoder(codec: CodecConfig, crf: float, height: int, width: int, fps: Fraction, context: Any = None) -> Any:
    """A PyAV encoder ready for yuv420p frames, that of a container's stream or a new one.

    Raises UnsupportedMedia if this build lacks it.
    """
    os.environ.setdefault("SVT_LOG", "1")  # the encoder writes its settings to stderr at every start otherwise
    try:
        context = context or av.CodecContext.create(codec.encoder, "w")
    except ValueError as error:
        raise UnsupportedMedia(f"this FFmpeg has no encoder {codec.encoder}; install av from the registry") from error
    context.height, context.width, context.pix_fmt = height, width, "yuv420p"
    context.time_base, context.framerate = 1 / fps, fps
    context.thread_count, context.options = 1, codec.options(crf)
    context.flags |= _GLOBAL_HEADER
    with kept_scheduling():
        context.open()
    return context


def decode(coded: Coded, codec: CodecConfig, extent: Extent) -> Clip:
    """The frames of a coded clip, cropped to extent."""
    context: Any = av.CodecContext.create(codec.decoder, "r")
    context.thread_count = 1
    if coded.parameters:
        context.extradata = coded.parameters
    frames = [frame for packet in coded.packets for frame in context.decode(av.Packet(packet))]
    frames += context.decode(None)
    planes_TYW = torch.from_numpy(np.stack([frame.to_ndarray(format="yuv420p") for frame in frames]))
    return Clip(from_yuv420(planes_TYW)[:, :, : extent.height, : extent.width].contiguous(), extent.fps)


@contextmanager
def kept_scheduling() -> Iterator[None]:
    """Give every thread of this process the scheduling that the caller has now, also threads made inside.

    SVT-AV1 run as root makes itself, and the thread that opens it, real-time with the highest priority: without this, a
    measurement started with `nice` would take the processor from everything else on the machine.
    """
    if not hasattr(os, "sched_getscheduler") or not (tasks := Path("/proc/self/task")).is_dir():
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for task in tasks.iterdir():
            with suppress(ProcessLookupError):  # a thread may end meanwhile
                if os.sched_getscheduler(int(task.name)) != policy:
                    os.sched_setscheduler(int(task.name), policy, parameters)


def to_yuv420(frames_TCHW: Tensor, *, full_range: bool = False) -> Tensor:
    """uint8 RGB -> uint8 planes_TYW: luma rows, then the two chroma planes at half size, in BT.709.

    Limited range, as video has it, or full range, as JPEG has it.

    In float and with averaged chroma, because the fast conversion of FFmpeg alone costs up to 5 dB at high quality.
    """
    odd = (0, frames_TCHW.shape[3] % 2, 0, frames_TCHW.shape[2] % 2)
    frames_TCHW = F.pad(frames_TCHW.float(), odd, mode="replicate")
    matrix, offset = (_FULL_FROM_RGB, _FULL_OFFSET) if full_range else (_YUV_FROM_RGB, _YUV_OFFSET)
    yuv_TCHW = torch.einsum("yc,tchw->tyhw", matrix, frames_TCHW) + offset
    chroma_TCHW = F.avg_pool2d(yuv_TCHW[:, 1:], 2)
    # Flat first: the rows of a chroma plane of odd height do not fill whole rows of luma.
    planes = [rearrange(x_TCHW, "t c h w -> t (c h w)") for x_TCHW in (yuv_TCHW[:, :1], chroma_TCHW)]
    planes_TYW = rearrange(torch.cat(planes, dim=1), "t (y w) -> t y w", w=yuv_TCHW.shape[3])
    return planes_TYW.round().clamp(0, 255).byte()


def from_yuv420(planes_TYW: Tensor, *, full_range: bool = False) -> Tensor:
    """Inverse of to_yuv420 up to what half-size chroma loses; chroma grows by bicubic interpolation."""
    height, width = planes_TYW.shape[1] * 2 // 3, planes_TYW.shape[2]
    luma_T1HW, chroma_TYW = planes_TYW[:, :height].unsqueeze(1).float(), planes_TYW[:, height:].float()
    chroma_TCHW = rearrange(chroma_TYW, "t y w -> t (y w)")
    chroma_TCHW = rearrange(chroma_TCHW, "t (c h w) -> t c h w", c=2, w=width // 2)
    chroma_TCHW = F.interpolate(chroma_TCHW, scale_factor=2.0, mode="bicubic", align_corners=False)
    matrix, offset = (_FULL_FROM_RGB, _FULL_OFFSET) if full_range else (_YUV_FROM_RGB, _YUV_OFFSET)
    yuv_TCHW = torch.cat([luma_T1HW, chroma_TCHW], dim=1) - offset
    return torch.einsum("cy,tyhw->tchw", torch.linalg.inv(matrix), yuv_TCHW).round().clamp(0, 255).byte()


def encode_to_size(clip: Clip, codec: CodecConfig, max_bytes: int) -> Coded:
    """The best quality whose packets take at most max_bytes, by bisection over CRF.

    Returns:
        If even the lowest quality is larger, that one; compare num_bytes with max_bytes.
    """
    _, best = finest_within(lambda crf: encode(clip, codec, crf), codec.grid, max_bytes, lambda coded: coded.num_bytes)
    return best


def finest_within(
    encode_at: Callable[[float], T], levels: Sequence[float], max_bytes: int, size_of: Callable[[T], int]
) -> tuple[float, T]:
    """The last of the levels, sorted by growing bytes, whose result takes at most max_bytes; found by bisection.

    Returns:
        (level, result). If even the first is larger, that one; compare its size with max_bytes.
    """
    low, high = 0, len(levels) - 1
    best = levels[0], encode_at(levels[0])
    while low < high:
        middle = (low + high + 1) // 2
        tried = encode_at(levels[middle])
        if size_of(tried) <= max_bytes:
            best, low = (levels[middle], tried), middle
        else:
            high = middle - 1
    return best


def without_messages(packet: bytes) -> bytes:
    """An H.264 packet (Annex B) without its SEI units: x264 puts 600 bytes of text about itself into the first."""
    starts = []
    place = packet.find(b"\0\0\1")
    while place >= 0:
        starts.append(place - 1 if place and packet[place - 1] == 0 else place)
        place = packet.find(b"\0\0\1", place + 3)
    units = [packet[start:stop] for start, stop in zip(starts, [*starts[1:], len(packet)], strict=True)]
    return b"".join(unit for unit in units if unit.lstrip(b"\0")[1] & 31 != 6)


def evaluate_codecs(
    folder_or_entries: str | Path | Sequence[Entry],
    protocol: ReconstructionProtocol,
    target_bytes: Callable[[str, Extent], int],
    *,
    label: str,
    features_path: str | Path | None = None,
    out_dir: str | Path | None = None,
    codecs: Sequence[CodecConfig] = CODECS,
    command: str | None = None,
    progress: Callable[[str], None] = lambda _line: None,
) -> dict[str, dict[str, Any]]:
    """Measure codecs on the protocol's clips, each clip at its own number of bytes.

    Args:
        folder_or_entries: data folder, or entries already chosen.
        target_bytes: (clip name, extent at the protocol's size) -> bytes not to exceed, e.g. those of a tokenizer.
        label: says what the bytes are; part of the result's name and of the file name.
        out_dir: writes codecs_reconstruction_{codec}_{label}.json there.

    Returns:
        Codec name -> result in the schema of make_result; rows also hold crf, bytes, target_bytes and over_target.
    """
    protocol, features_net = protocol.with_features(features_path)
    if isinstance(folder_or_entries, str | Path):
        folder_or_entries = select_entries(folder_or_entries, protocol)
    if not codecs:
        raise UsageError("name at least one codec to compare with")
    rows: dict[str, list[dict[str, Any]]] = {codec.name: [] for codec in codecs}
    for entry in folder_or_entries:
        clip = read_entry(entry, protocol)
        wanted = target_bytes(entry.name, clip.extent)
        for codec in codecs:
            coded = encode_to_size(clip, codec, wanted)
            rebuilt = decode(coded, codec, clip.extent)
            row = {"name": entry.name, "frames": clip.num_frames, "height": clip.height, "width": clip.width}
            row |= {"bytes": coded.num_bytes, "target_bytes": wanted, "over_target": coded.num_bytes > wanted}
            row |= {"crf": coded.crf, "bits_per_pixel": bits_per_pixel(coded.num_bytes, clip.extent.pixels)}
            row |= measure_pair(clip, rebuilt, protocol, features_net)
            rows[codec.name].append(row)
            progress(
                f"{entry.name} {codec.name} crf {coded.crf:g} {coded.num_bytes}/{wanted} B {row['psnr_db']:.2f} dB"
            )
    results = {}
    for codec in codecs:
        result = make_result(f"{codec.name} {codec.preset}, {label}", rows[codec.name], protocol, command=command)
        result["codec"] = {
            "encoder": codec.encoder,
            "preset": codec.preset,
            "options_at_crf_0": codec.options(0.0),
            "av": av.__version__,
        }
        results[codec.name] = result
        if out_dir is not None:
            slug = "".join(char if char.isalnum() else "-" for char in label.lower()).strip("-")
            write_result(Path(out_dir) / f"codecs_reconstruction_{codec.name}_{slug}.json", result)
    return results

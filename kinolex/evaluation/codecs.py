"""Classical video codecs at the bytes that tokens would take: the baseline of every reconstruction figure.

    frames --yuv 4:2:0--> x264 | x265 | SVT-AV1 at the lowest CRF whose bytes fit --decode--> frames

The comparison favours the codecs where it cannot be exact: only packet payloads are counted (no container, and for
x264 and x265 no parameter sets and no text about the encoder), the whole clip may be one group of pictures with
look-ahead, and CRF is searched per clip. Tokens are counted plainly, without entropy coding.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

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

    @property
    def num_bytes(self) -> int:
        return sum(map(len, self.packets))


def encode(clip: Clip, codec: CodecConfig, crf: float) -> Coded:
    """Encode the frames as 8-bit 4:2:0, BT.709; odd sides are padded by repeating the last row or column.

    Raises:
        UnsupportedMedia: this build of FFmpeg lacks the encoder.
    """
    planes_TYW = to_yuv420(clip.frames_TCHW)
    context = open_encoder(codec, crf, planes_TYW.shape[1] * 2 // 3, planes_TYW.shape[2], clip.fps)
    packets = []
    for index, planes_YW in enumerate(planes_TYW.numpy()):
        frame = av.VideoFrame.from_ndarray(planes_YW, format="yuv420p")
        frame.pts, frame.time_base = index, Fraction(1 / clip.fps)
        packets += [bytes(packet) for packet in context.encode(frame)]
    packets += [bytes(packet) for packet in context.encode(None)]
    if codec.encoder == "libx264":
        packets = [without_messages(packet) for packet in packets]
    return Coded(tuple(packets), bytes(context.extradata or b""), crf)


def open_encoder(codec: CodecConfig, crf: float, height: int, width: int, fps: Fraction) -> Any:
    """A PyAV encoder ready for yuv420p frames. Raises UnsupportedMedia if this build lacks it."""
    os.environ.setdefault("SVT_LOG", "1")  # the encoder writes its settings to stderr at every start otherwise
    try:
        context: Any = av.CodecContext.create(codec.encoder, "w")
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


def to_yuv420(frames_TCHW: Tensor) -> Tensor:
    """uint8 RGB -> uint8 planes_TYW: luma rows, then the two chroma planes at half size, in BT.709 limited range.

    In float and with averaged chroma, because the fast conversion of FFmpeg alone costs up to 5 dB at high quality.
    """
    odd = (0, frames_TCHW.shape[3] % 2, 0, frames_TCHW.shape[2] % 2)
    frames_TCHW = F.pad(frames_TCHW.float(), odd, mode="replicate")
    yuv_TCHW = torch.einsum("yc,tchw->tyhw", _YUV_FROM_RGB, frames_TCHW) + _YUV_OFFSET
    chroma_TCHW = F.avg_pool2d(yuv_TCHW[:, 1:], 2)
    width = yuv_TCHW.shape[3]
    planes = [yuv_TCHW[:, 0], *(rearrange(chroma_TCHW[:, c], "t h w -> t (h w)") for c in (0, 1))]
    planes = [plane if plane.ndim == 3 else rearrange(plane, "t (y w) -> t y w", w=width) for plane in planes]
    return torch.cat(planes, dim=1).round().clamp(0, 255).byte()


def from_yuv420(planes_TYW: Tensor) -> Tensor:
    """Inverse of to_yuv420 up to what half-size chroma loses; chroma grows by bicubic interpolation."""
    height, width = planes_TYW.shape[1] * 2 // 3, planes_TYW.shape[2]
    luma_T1HW, chroma_TYW = planes_TYW[:, :height].unsqueeze(1).float(), planes_TYW[:, height:].float()
    chroma_TCHW = rearrange(chroma_TYW, "t y w -> t (y w)")
    chroma_TCHW = rearrange(chroma_TCHW, "t (c h w) -> t c h w", c=2, w=width // 2)
    chroma_TCHW = F.interpolate(chroma_TCHW, scale_factor=2.0, mode="bicubic", align_corners=False)
    yuv_TCHW = torch.cat([luma_T1HW, chroma_TCHW], dim=1) - _YUV_OFFSET
    return torch.einsum("cy,tyhw->tchw", torch.linalg.inv(_YUV_FROM_RGB), yuv_TCHW).round().clamp(0, 255).byte()


def encode_to_size(clip: Clip, codec: CodecConfig, max_bytes: int) -> Coded:
    """The best quality whose packets take at most max_bytes, by bisection over CRF.

    Returns:
        If even the lowest quality is larger, that one; compare num_bytes with max_bytes.
    """
    low, high = (round(limit / codec.crf_step) for limit in codec.crf_range)  # bytes fall as CRF rises
    best = encode(clip, codec, high * codec.crf_step)
    while low < high:
        middle = (low + high) // 2
        tried = encode(clip, codec, middle * codec.crf_step)
        if tried.num_bytes <= max_bytes:
            best, high = tried, middle
        else:
            low = middle + 1
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

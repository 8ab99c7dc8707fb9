"""VMAF of two clips, where an FFmpeg with libvmaf is at hand: the one inside PyAV, or an `ffmpeg` on the path.

The model is libvmaf's default, made for television at 1080 lines: at 128 lines its points compare coders with one
another and mean nothing by themselves.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import av.error as av_error
import av.filter
from av.video.format import VideoFormat

from kinolex.errors import MediaError
from kinolex.evaluation.codecs import to_yuv420
from kinolex.types import Clip

MISSING = "this FFmpeg has no libvmaf"
_TIMEOUT_S = 600
_LOG = "log_fmt=json:log_path={}"

Vmaf = Callable[[Clip, Clip], float]
"""(original, rebuilt) -> mean over frames, 0 to 100."""


def find_vmaf() -> tuple[Vmaf | None, str]:
    """How VMAF can be measured here, and in words where it comes from or why it cannot."""
    if "libvmaf" in av.filter.filters_available:
        return _by_library, f"libvmaf inside PyAV {av.__version__}"
    if (program := shutil.which("ffmpeg")) is not None:
        found = subprocess.run([program, "-hide_banner", "-filters"], capture_output=True, text=True, check=False)
        if " libvmaf " in found.stdout:
            return lambda original, rebuilt: _by_program(program, original, rebuilt), "libvmaf of ffmpeg on the path"
    return None, MISSING


def run_filter(first: Clip, second: Clip, name: str, options: str) -> None:
    """Send two clips of one size through an FFmpeg filter with two inputs; what it finds it writes itself.

    Raises:
        MediaError: the filter is missing or failed.
    """
    try:
        graph = av.filter.Graph()
        form = VideoFormat("yuv420p", first.width + first.width % 2, first.height + first.height % 2)
        sources = [
            graph.add_buffer(width=form.width, height=form.height, format=form, time_base=1 / first.fps)
            for _ in range(2)
        ]
        judge, sink = graph.add(name, options), graph.add("buffersink")
        for place, source in enumerate(sources):
            source.link_to(judge, 0, place)
        judge.link_to(sink)
        graph.configure()
        planes = [to_yuv420(clip.frames_TCHW).numpy() for clip in (first, second)]
        for index in range(first.num_frames):
            for source, planes_TYW in zip(sources, planes, strict=True):
                frame = av.VideoFrame.from_ndarray(planes_TYW[index], format="yuv420p")
                frame.pts, frame.time_base = index, 1 / first.fps
                source.push(frame)
            _drain(graph)
        for source in sources:
            source.push(None)
        _drain(graph)
    except (av_error.FFmpegError, ValueError) as error:
        raise MediaError(f"FFmpeg's filter {name} failed ({error}); measure without it") from error


def _drain(graph: Any) -> None:
    while True:
        try:
            graph.pull()
        except (av_error.BlockingIOError, av_error.EOFError):
            return


def _by_library(original: Clip, rebuilt: Clip) -> float:
    with TemporaryDirectory() as folder:
        log = Path(folder) / "vmaf.json"
        run_filter(rebuilt, original, "libvmaf", _LOG.format(log))
        return mean_of_log(log)


def _by_program(program: str, original: Clip, rebuilt: Clip) -> float:
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.y4m" for name in ("rebuilt", "original")]
        for path, clip in zip(paths, (rebuilt, original), strict=True):
            write_y4m(clip, path)
        log = Path(folder) / "vmaf.json"
        command = [program, "-v", "error", "-i", str(paths[0]), "-i", str(paths[1])]
        command += ["-lavfi", f"libvmaf={_LOG.format(log)}", "-f", "null", "-"]
        try:
            subprocess.run(command, capture_output=True, check=True, timeout=_TIMEOUT_S)
        except (OSError, subprocess.SubprocessError) as error:
            raise MediaError(f"{program} could not measure VMAF ({error}); take it off the path") from error
        return mean_of_log(log)


def write_y4m(clip: Clip, path: Path) -> None:
    """Raw 4:2:0 video with a header that FFmpeg reads; odd sides are padded."""
    planes_TYW = to_yuv420(clip.frames_TCHW).numpy()
    width, height = planes_TYW.shape[2], planes_TYW.shape[1] * 2 // 3
    rate = f"{clip.fps.numerator}:{clip.fps.denominator}"
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F{rate} Ip A1:1 C420jpeg\n".encode())
        for planes_YW in planes_TYW:
            file.write(b"FRAME\n" + planes_YW.tobytes())


def mean_of_log(path: Path) -> float:
    """The mean out of libvmaf's JSON. Raises MediaError if it is not there."""
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["pooled_metrics"]["vmaf"]["mean"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MediaError(f"libvmaf left no mean in its log ({error!r}); measure without it") from error

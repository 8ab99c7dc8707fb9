"""Speed and memory of the shipped tokenizers: python -m benchmarks.tokenizer_speed

Frames per second of encoding and decoding 128x128 in pieces of 16 frames, medians of interleaved rounds, and the growth
of resident memory between 500 and 10,000 streamed frames. Writes benchmarks/tokenizer_speed.json.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import torch
from rich.progress import track

from kinolex import hub
from kinolex.data.worlds import WorldConfig, render
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip

SIDE, PIECE, ROUNDS = 128, 16, 5
SHORT, LONG = 500, 10_000


def pieces(frames: int) -> Iterator[Clip]:
    """A stream that repeats one world, made piece by piece."""
    world = render(0, WorldConfig(frames=PIECE, height=SIDE, width=SIDE, fps=Fraction(24))).clip
    for start in range(0, frames, PIECE):
        yield Clip(world.frames_TCHW[: min(PIECE, frames - start)], world.fps)


def speed(tokenizer: VideoTokenizer, frames: int = 96) -> dict[str, float]:
    clips = list(pieces(frames))
    began = time.perf_counter()
    tokens = list(tokenizer.encode_stream(clips))
    middle = time.perf_counter()
    decoded = sum(clip.num_frames for clip in tokenizer.decode_stream(tokens))
    ended = time.perf_counter()
    assert decoded == frames
    both = frames / (ended - began)
    return {"encode_fps": frames / (middle - began), "decode_fps": frames / (ended - middle), "both_fps": both}


def peak_mib(name: str, frames: int) -> float:
    """Of a process that streams so many frames and does nothing else."""
    code = f"from benchmarks.tokenizer_speed import stream; print(stream({name!r}, {frames}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout)


def stream(name: str, frames: int) -> float:
    tokenizer, done = hub.load(name), 0
    for clip in tokenizer.decode_stream(tokenizer.encode_stream(pieces(frames))):
        done += clip.num_frames
    assert done == frames
    # Not getrusage: a child begins with the peak of the process that started it.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    tokenizers = {name: hub.load(name) for name in hub.shipped()}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in tokenizers}
    for tokenizer in tokenizers.values():
        speed(tokenizer, 32)
    for _ in track(range(ROUNDS), description="speed"):
        for name, tokenizer in tokenizers.items():
            rounds[name].append(speed(tokenizer))
    results = {}
    for name in tokenizers:
        medians = {key: statistics.median(one[key] for one in rounds[name]) for key in rounds[name][0]}
        short = peak_mib(name, SHORT)
        results[name] = medians | {"peak_mib_500_frames": short, "peak_mib_10000_frames": peak_mib(name, LONG)}
        print(name, {key: round(value, 1) for key, value in results[name].items()})
    record = {
        "name": "tokenizer speed and memory",
        "command": "python -m benchmarks.tokenizer_speed",
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{torch.get_num_threads()} CPU threads, torch {torch.__version__}",
        "pixels": f"{SIDE}x{SIDE}",
        "rounds": ROUNDS,
        "values": results,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

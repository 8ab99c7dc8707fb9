"""Speed of .klx files: python -m benchmarks.codec_speed

Frames per second of compressing and decompressing 128x128 video in memory, everything included (scaling, tokenizer,
choice of digits, entropy coding, checksums), and the share of that time spent in the prior. The baseline in the same
interleaved rounds is the tokenizer alone, its ids passed on in memory. Writes benchmarks/codec_speed.json.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from rich.progress import track
from torch import Tensor

from kinolex import hub
from kinolex.codec.priors import Choose, Prior
from kinolex.compression import CompressConfig, compress_stream, decompress_stream
from kinolex.data.worlds import WorldConfig, render
from kinolex.evaluation.protocol import hardware

T = TypeVar("T")
SIDE, FRAMES, ROUNDS = 128, 98, 7
QUALITIES = (40, 65, 80)
SHARE = ", share in the prior"


class TimedPrior:
    """Passes everything on to a prior and adds up the seconds spent in it, the caller's choices not counted."""

    def __init__(self, prior: Prior) -> None:
        self.prior, self.seconds = prior, 0.0
        self.levels, self.fingerprint = prior.levels, prior.fingerprint

    def vocab_size(self, num_levels: int) -> int:
        return self.prior.vocab_size(num_levels)

    def walk(self, history_thwD: Sequence[Tensor], size_hw: tuple[int, int], choose: Choose) -> Tensor:
        chosen = 0.0

        def timed(digit: int, where: tuple[slice, slice], frequencies: Tensor) -> Tensor:
            nonlocal chosen
            began = time.perf_counter()
            values = choose(digit, where, frequencies)
            chosen += time.perf_counter() - began
            return values

        began = time.perf_counter()
        digits = self.prior.walk(history_thwD, size_hw, timed)
        self.seconds += time.perf_counter() - began - chosen
        return digits


def main() -> None:
    name = hub.DEFAULT
    tokenizer = hub.load(name)
    prior = TimedPrior(hub.load_prior(name, tokenizer))
    clip = render(0, WorldConfig(frames=FRAMES, height=SIDE, width=SIDE, fps=Fraction(24))).clip.with_sound(None)
    rounds: dict[str, list[float]] = {}

    def timed(what: str, work: Callable[[], T]) -> T:
        prior.seconds, began = 0.0, time.perf_counter()
        result = work()
        seconds = time.perf_counter() - began
        rounds.setdefault(what, []).append(FRAMES / seconds)
        rounds.setdefault(what + SHARE, []).append(prior.seconds / seconds)
        return result

    def coded(quality: int) -> bytes:
        return b"".join(compress_stream([clip], tokenizer, prior, CompressConfig(quality=quality)))

    def turn() -> None:
        tokens = timed("tokenizer alone, encode", lambda: tokenizer.encode(clip))
        timed("tokenizer alone, decode", lambda: tokenizer.decode(tokens))
        for quality in QUALITIES:
            data = timed(f"compress, quality {quality}", partial(coded, quality))
            back = partial(decompress_stream, [data], lambda header: (tokenizer, prior))
            clips = timed(f"decompress, quality {quality}", lambda back=back: list(back()))
            assert sum(piece.num_frames for piece in clips) == FRAMES

    turn()
    rounds.clear()
    for _ in track(range(ROUNDS), description="speed"):
        turn()
    medians = {what: statistics.median(values) for what, values in rounds.items()}
    for what, value in medians.items():
        print(f"{what:45} {value:.3g}")
    record = {
        "name": "speed of .klx files",
        "command": "python -m benchmarks.codec_speed",
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{hardware()}, {torch.backends.cpu.get_cpu_capability()}",
        "model": name,
        "pixels": f"{SIDE}x{SIDE}",
        "frames": FRAMES,
        "rounds": ROUNDS,
        "frames_per_second": {what: value for what, value in medians.items() if SHARE not in what},
        "share_in_the_prior": {what.removesuffix(SHARE): value for what, value in medians.items() if SHARE in what},
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

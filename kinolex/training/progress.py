"""What a run says of itself: a live line, a log of JSON lines, TensorBoard where it is installed, and alarms."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from pathlib import Path

import torch
from torch import Tensor

from kinolex.training.alarms import Alarms

WINDOW = 50
"""Steps that the shown figures are averaged over."""


class Progress:
    """Collects figures per step; prints a line on a terminal all the time and elsewhere every `every` steps.

    quiet: say and write nothing, as all but the first of several processes should.
    """

    def __init__(
        self, folder: Path, total_steps: int, start: int, *, vocab_size: int, every: int = WINDOW, quiet: bool = False
    ) -> None:
        self.total, self.start, self.every, self.quiet = total_steps, start, every, quiet
        self.alarms = Alarms(vocab_size)
        log = os.devnull if quiet else folder / "log.jsonl"
        self._log = open(log, "a", encoding="utf-8")  # noqa: SIM115 (closed by close)
        self._board = None if quiet else _tensorboard(folder)
        self._window: deque[dict[str, float]] = deque(maxlen=WINDOW)
        self._ids: deque[Tensor] = deque(maxlen=WINDOW)
        self._began = time.monotonic()

    def step(self, step: int, figures: dict[str, float], ids_BQthw: Tensor | None) -> list[str]:
        """Take one step's figures; returns the alarms that this step raised."""
        self._window.append(figures)
        if ids_BQthw is not None:
            self._ids.append(ids_BQthw.detach().flatten().cpu())
        done = step + 1
        if self.quiet:
            return []
        if sys.stderr.isatty():
            print("\r" + self._line(done) + "\x1b[K", end="", file=sys.stderr, flush=True)
        if done % self.every and done != self.total:
            return []
        means = self.means()
        raised = self.alarms.check(means)
        record = {"step": done, "time": time.time()} | {key: round(value, 6) for key, value in means.items()}
        self._log.write(json.dumps(record | ({"alarms": raised} if raised else {})) + "\n")
        self._log.flush()
        if self._board is not None:
            for key, value in means.items():
                self._board.add_scalar(key, value, done)
        if not sys.stderr.isatty():
            print(self._line(done), file=sys.stderr, flush=True)
        for alarm in raised:
            self.say(f"alarm: {alarm}")
        return raised

    def say(self, message: str) -> None:
        if self.quiet:
            return
        print(("\n" if sys.stderr.isatty() else "") + message, file=sys.stderr, flush=True)

    def means(self) -> dict[str, float]:
        keys = sorted({key for figures in self._window for key in figures})
        means = {}
        for key in keys:
            values = [figures[key] for figures in self._window if key in figures]
            means[key] = sum(values) / len(values)
        if self._ids:
            ids = torch.cat(list(self._ids))
            _, counts = ids.unique(return_counts=True)
            share = counts.double() / len(ids)
            means["distinct_ids"] = float(len(counts))
            means["code_usage"] = len(counts) / min(len(ids), self.alarms.vocab_size)
            means["perplexity"] = float((-(share * share.log()).sum()).exp())
        return means

    def close(self) -> None:
        self._log.close()
        if self._board is not None:
            self._board.close()

    def _line(self, done: int) -> str:
        rate = (done - self.start) / max(1e-9, time.monotonic() - self._began)
        left_s = int((self.total - done) / rate) if rate > 0 else 0
        shown = self.means() if done % self.every == 0 or done == self.total else self._window[-1]
        names = (
            "psnr_db",
            "bits_per_position",
            "loss",
            "perceptual",
            "log_mel",
            "code_usage",
            "perplexity",
            "discriminator_accuracy",
        )
        figures = "  ".join(f"{name} {shown[name]:.4g}" for name in names if name in shown)
        return f"step {done}/{self.total}  {rate:.2f} steps/s  eta {left_s // 60}:{left_s % 60:02d}  {figures}"


def _tensorboard(folder: Path):  # type: ignore[no-untyped-def]
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder / "tensorboard")

"""Lines that tell how far a long loop is, for runs whose output goes to a file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def steps(items: Sequence[Item], what: str, every_s: float = 10.0) -> Iterator[Item]:
    """The items; in between, and after the last, a line with count, rate and the time left."""
    began = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= every_s or done == len(items):
            last, rate = now, done / max(now - began, 1e-6)
            print(f"{what}: {done} of {len(items)}, {rate:.3g}/s, {(len(items) - done) / rate:.0f} s left", flush=True)

"""How much is hidden, and where: mask schedules and orders, used to hide in training and to reveal in sampling.

    progress 0..1 --schedule--> share hidden 1..0 --counts--> positions hidden after every pass

Source: MaskGIT, arXiv 2202.04200, and MAGVIT, arXiv 2212.05199, appendix B; Halton order: arXiv 2503.17076.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinolex.errors import UsageError

HIDDEN = -1
"""Stands in a grid of ids for what is not known: the [MASK] of the papers."""

SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda r: math.cos(math.pi * r / 2),
    "uniform": lambda r: 1 - r,
    "power": lambda r: 1 - r**2,
    "cubic": lambda r: 1 - r**3,
    "square-root": lambda r: 1 - math.sqrt(r),
    "exponential": lambda r: (1 - 2 ** (-10 * (1 - r))) / (1 - 2**-10),
}
"""Share hidden at progress r: 1 at 0, 0 at 1, never rising."""

MAX_STEPS = 1024


def schedule_named(name: str) -> Callable[[float], float]:
    """Raises UsageError for a name that is not in SCHEDULES."""
    if name not in SCHEDULES:
        raise UsageError(f"no mask schedule {name!r}; choose one of {', '.join(SCHEDULES)}")
    return SCHEDULES[name]


def hidden_counts(name: str, steps: int, positions: int) -> tuple[int, ...]:
    """How many of `positions` are hidden after each of `steps` passes: strictly falling, 0 at the end.

    Where fewer positions are left than passes, each pass settles one and the counts end early.

    Raises:
        UsageError: an unknown schedule, no step or more than MAX_STEPS, or no position.
    """
    schedule = schedule_named(name)
    if not 1 <= steps <= MAX_STEPS or positions < 1:
        raise UsageError(f"steps must be in 1..{MAX_STEPS} and positions at least 1, got {steps} and {positions}")
    counts, hidden = [], positions
    for step in range(1, steps + 1):
        last = step == steps or hidden == 1
        # At least one position a pass comes out of hiding, and one is left for the last pass.
        hidden = 0 if last else min(max(1, math.floor(schedule(step / steps) * positions)), hidden - 1)
        counts.append(hidden)
        if last:
            break
    return tuple(counts)


def halton_ranks(grid: tuple[int, int, int]) -> Tensor:
    """Rank [t, h, w] of every position when a grid fills up evenly: neighbours come far apart in time.

    Positions follow the Halton sequence in bases 2, 3 and 5 over (rows, columns, frames); the first visit counts.
    """
    return torch.from_numpy(_halton_ranks(grid).copy())


@lru_cache(maxsize=16)
def _halton_ranks(grid: tuple[int, int, int]) -> NDArray[np.int64]:
    time, height, width = grid
    total = time * height * width
    index = np.arange(1, 64 * total + 1)
    rows, columns, frames = (
        (_van_der_corput(index, base) * size).astype(np.int64) for base, size in ((2, height), (3, width), (5, time))
    )
    places, visits = np.unique((frames * height + rows) * width + columns, return_index=True)
    ranks = np.full(total, -1, np.int64)
    ranks[places[np.argsort(visits)]] = np.arange(len(places))
    ranks[ranks < 0] = np.arange(len(places), total)
    return ranks.reshape(grid)


def _van_der_corput(index: NDArray[np.int64], base: int) -> NDArray[np.float64]:
    value, scale = np.zeros(len(index)), 1.0 / base
    while index.any():
        index, digit = np.divmod(index, base)
        value += digit * scale
        scale /= base
    return value

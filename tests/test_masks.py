"""Schedules fall to nothing, and the even order is even."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from kinolex.errors import UsageError
from kinolex.masks import MAX_STEPS, SCHEDULES, halton_ranks, hidden_counts, schedule_named


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_goes_from_all_to_nothing_and_never_rises(name: str) -> None:
    schedule = schedule_named(name)
    shares = [schedule(step / 1000) for step in range(1001)]
    assert shares[0] == pytest.approx(1.0, abs=1e-12) and shares[-1] == pytest.approx(0.0, abs=1e-12)
    assert all(after <= before for before, after in pairwise(shares))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("positions", [1, 2, 3, 7, 64, 1280])
@pytest.mark.parametrize("steps", [1, 2, 5, 12, 64, MAX_STEPS])
def test_hidden_counts_fall_strictly_to_nothing(name: str, steps: int, positions: int) -> None:
    counts = hidden_counts(name, steps, positions)
    assert all(after < before for before, after in pairwise((positions, *counts)))
    assert counts[-1] == 0
    assert len(counts) <= min(steps, positions)
    if len(counts) < steps:  # it ended early because it ran out of positions, one a pass
        assert counts[-2:] == (1, 0) or positions == 1


def test_hidden_counts_follow_the_cosine() -> None:
    # floor(1024 cos(pi k / 24)), k = 1..12, worked out by hand with a table of cosines.
    assert hidden_counts("cosine", 12, 1024) == (1015, 989, 946, 886, 812, 724, 623, 512, 391, 265, 133, 0)
    assert hidden_counts("uniform", 4, 8) == (6, 4, 2, 0)


def test_what_cannot_be_scheduled_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="no mask schedule 'sine'; choose one of cosine"):
        hidden_counts("sine", 4, 8)
    for steps, positions in ((0, 8), (-1, 8), (MAX_STEPS + 1, 8), (4, 0)):
        with pytest.raises(UsageError, match=f"got {steps} and {positions}"):
            hidden_counts("cosine", steps, positions)


@pytest.mark.parametrize("grid", [(1, 1, 1), (1, 5, 3), (5, 1, 1), (4, 9, 7), (5, 16, 16)])
def test_halton_ranks_name_every_position_once(grid: tuple[int, int, int]) -> None:
    ranks = halton_ranks(grid)
    assert ranks.shape == grid and ranks.dtype == torch.int64
    assert torch.equal(ranks.flatten().sort().values, torch.arange(ranks.numel()))


def test_halton_ranks_of_a_plane_begin_as_the_sequence_does() -> None:
    # (1/2, 1/3), (1/4, 2/3), (3/4, 1/9), (1/8, 4/9) of 8 rows and 9 columns.
    ranks = halton_ranks((1, 8, 9))[0]
    assert [int(ranks[place]) for place in ((4, 3), (2, 6), (6, 1), (1, 4))] == [0, 1, 2, 3]


def test_ranks_belong_to_the_caller() -> None:
    halton_ranks((2, 4, 4)).zero_()
    assert int(halton_ranks((2, 4, 4)).max()) == 31


def spread(ranks: torch.Tensor) -> tuple[float, float]:
    """Mean distance of the first eighth from one another, and from each to its nearest."""
    chosen = (ranks < ranks.numel() // 8).nonzero().float()
    distances = torch.cdist(chosen, chosen)
    off = ~torch.eye(len(chosen), dtype=torch.bool)
    nearest = distances.masked_fill(~off, torch.inf).min(dim=1).values
    return float(distances[off].mean()), float(nearest.mean())


def test_the_first_eighth_of_the_even_order_is_spread_out() -> None:
    grid = (5, 16, 16)
    raster = torch.arange(5 * 16 * 16).reshape(grid)
    shuffled = torch.randperm(5 * 16 * 16, generator=torch.Generator().manual_seed(0)).reshape(grid)
    even = spread(halton_ranks(grid))
    assert even[0] > spread(raster)[0]
    assert even[1] > 1.05 * max(spread(raster)[1], spread(shuffled)[1])

"""Parallel decoding: what is settled stays, as many are settled as the schedule says, the rest is asked anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from kinolex.errors import ShapeError, UsageError
from kinolex.masks import HIDDEN, MAX_STEPS, SCHEDULES, halton_ranks, hidden_counts
from kinolex.sampling.choose import Choice
from kinolex.sampling.parallel import FactorLogits, LogitsFn, ParallelConfig, guided, sample_parallel

SIZES = (5, 7)
GREEDY = ParallelConfig(steps=4, choice=Choice(temperature=0.0), settle_temperature=0.0)


def random_logits(batch: int, length: int, *, scale: float = 2.0) -> tuple[LogitsFn, list[Tensor], list[Tensor]]:
    """Fixed logits for every position; the second factor's depend on the first. And its memory: what it was asked."""
    generator = torch.Generator().manual_seed(9)
    low_BLV = scale * torch.randn(batch, length, SIZES[0], generator=generator)
    high_BLUV = scale * torch.randn(batch, length, SIZES[0], SIZES[1], generator=generator)
    asked: list[Tensor] = []

    def logits_fn(ids_BLF: Tensor) -> FactorLogits:
        asked.append(ids_BLF.clone())

        def factor_logits(factor: int, chosen_BLF: Tensor) -> Tensor:
            if factor == 0:
                return low_BLV
            assert bool((chosen_BLF[..., 0] >= 0).all())
            index = chosen_BLF[..., 0][..., None, None].expand(-1, -1, 1, SIZES[1])
            return high_BLUV.gather(2, index)[:, :, 0]

        return factor_logits

    return logits_fn, asked, [low_BLV, high_BLUV]


def hidden(batch: int, length: int) -> Tensor:
    return torch.full((batch, length, 2), HIDDEN)


def run(
    condition_BLF: Tensor, config: ParallelConfig | None = None, *, seed: int = 0, scale: float = 2.0, **options: Any
) -> Tensor:
    logits_fn = random_logits(*condition_BLF.shape[:2], scale=scale)[0]
    generator = torch.Generator().manual_seed(seed)
    return sample_parallel(logits_fn, condition_BLF, config or ParallelConfig(), generator, **options)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 3, 12, 40])
def test_what_is_settled_never_changes_and_grows_as_the_schedule_says(schedule: str, steps: int) -> None:
    passes: list[Tensor] = []
    numbers: list[tuple[int, int]] = []

    def on_step(number: int, total: int, ids_BLF: Tensor) -> None:
        numbers.append((number, total))
        passes.append(ids_BLF.clone())

    result_BLF = run(hidden(2, 30), ParallelConfig(steps=steps, schedule=schedule), on_step=on_step)

    counts = hidden_counts(schedule, steps, 30)
    assert numbers == [(number, len(counts)) for number in range(1, len(counts) + 1)]
    for ids_BLF, count in zip(passes, counts, strict=True):
        assert (ids_BLF == HIDDEN).all(dim=-1).sum(dim=1).tolist() == [count, count]
        assert torch.equal((ids_BLF == HIDDEN).any(dim=-1), (ids_BLF == HIDDEN).all(dim=-1))
    for before_BLF, after_BLF in pairwise(passes):
        settled = before_BLF != HIDDEN
        assert torch.equal(after_BLF[settled], before_BLF[settled])
    assert torch.equal(result_BLF, passes[-1])
    assert all(0 <= int(result_BLF[..., f].min()) <= int(result_BLF[..., f].max()) < SIZES[f] for f in range(2))


def test_fixed_tokens_are_kept_and_do_not_count() -> None:
    condition_BLF, fixed_L = hidden(2, 20), torch.zeros(20, dtype=torch.bool)
    fixed_L[[0, 5, 6, 19]] = True
    condition_BLF[:, fixed_L] = torch.tensor([4, 6])
    open_counts = []

    def on_step(number: int, total: int, ids_BLF: Tensor) -> None:
        assert bool((ids_BLF[:, fixed_L] == torch.tensor([4, 6])).all())
        open_counts.append(int((ids_BLF[0, :, 0] == HIDDEN).sum()))

    result_BLF = run(condition_BLF, ParallelConfig(steps=5), fixed_L=fixed_L, on_step=on_step)
    assert bool((result_BLF[:, fixed_L] == torch.tensor([4, 6])).all()) and int(result_BLF.min()) >= 0
    assert tuple(open_counts) == hidden_counts("cosine", 5, 16)


def test_where_all_is_fixed_nothing_is_asked() -> None:
    condition_BLF = torch.ones(1, 6, 2, dtype=torch.int64)
    logits_fn, asked, _ = random_logits(1, 6)
    fixed_L = torch.ones(6, dtype=torch.bool)
    result_BLF = sample_parallel(logits_fn, condition_BLF, ParallelConfig(), torch.Generator(), fixed_L=fixed_L)
    assert torch.equal(result_BLF, condition_BLF) and asked == []


@pytest.mark.parametrize("batch", [1, 3])
def test_the_same_seed_gives_the_same_ids_and_another_one_others(batch: int) -> None:
    first, second, other = (run(hidden(batch, 24), seed=seed, scale=0.5) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_temperature_0_takes_the_likeliest_factor_by_factor() -> None:
    logits_fn, _, (low_BLV, high_BLUV) = random_logits(2, 24)
    result_BLF = sample_parallel(logits_fn, hidden(2, 24), GREEDY, torch.Generator())
    low_BL = low_BLV.argmax(dim=-1)
    chosen_BLV = high_BLUV.gather(2, low_BL[..., None, None].expand(-1, -1, 1, SIZES[1]))[:, :, 0]
    assert torch.equal(result_BLF, torch.stack([low_BL, chosen_BLV.argmax(dim=-1)], dim=-1))


def test_without_noise_the_surest_are_settled_first() -> None:
    logits_fn, _, (low_BLV, high_BLUV) = random_logits(1, 24)
    order: list[int] = []

    def on_step(number: int, total: int, ids_BLF: Tensor) -> None:
        order.extend(i for i in (ids_BLF[0, :, 0] != HIDDEN).nonzero()[:, 0].tolist() if i not in order)

    config = replace(GREEDY, steps=24, schedule="uniform")
    result_BLF = sample_parallel(logits_fn, hidden(1, 24), config, torch.Generator(), on_step=on_step)
    low_L, high_L = result_BLF[0].unbind(dim=-1)
    sure_L = low_BLV[0].log_softmax(-1)[torch.arange(24), low_L]
    sure_L = sure_L + high_BLUV[0].log_softmax(-1)[torch.arange(24), low_L, high_L]
    assert order == sure_L.argsort(descending=True).tolist()


def test_settle_noise_changes_the_order_and_is_gone_in_the_last_pass() -> None:
    orders = []
    for seed in (0, 1):
        settled: list[Tensor] = []
        config = replace(GREEDY, settle_temperature=50.0)
        run(hidden(1, 24), config, seed=seed, on_step=lambda n, total, ids, s=settled: s.append(ids[0, :, 0] != HIDDEN))
        orders.append(torch.stack(settled))
    assert not torch.equal(orders[0], orders[1]) and bool(orders[0][-1].all())


def test_a_given_order_is_kept_whatever_the_confidence() -> None:
    ranks_L = halton_ranks((2, 4, 4)).flatten()
    config = ParallelConfig(steps=6)
    counts = iter(hidden_counts("cosine", 6, 32))

    def on_step(number: int, total: int, ids_BLF: Tensor) -> None:
        settled_BL = ids_BLF[..., 0] != HIDDEN
        assert torch.equal(settled_BL, (ranks_L < 32 - next(counts)).expand(2, -1))

    run(hidden(2, 32), config, ranks_L=ranks_L, on_step=on_step)
    assert next(counts, None) is None


def test_what_is_not_settled_goes_back_to_its_condition_and_not_to_hidden() -> None:
    condition_BLF = hidden(1, 30)
    condition_BLF[:, 10:20] = torch.tensor([3, 5])
    fixed_L = torch.zeros(30, dtype=torch.bool)
    fixed_L[:4] = True
    condition_BLF[:, :4] = torch.tensor([1, 2])
    logits_fn, asked, _ = random_logits(1, 30, scale=0.3)
    passes: list[Tensor] = []
    generator = torch.Generator().manual_seed(0)

    result_BLF = sample_parallel(
        logits_fn,
        condition_BLF,
        ParallelConfig(steps=6),
        generator,
        fixed_L=fixed_L,
        on_step=lambda number, total, ids_BLF: passes.append(ids_BLF.clone()),
    )

    assert len(asked) == 6 and torch.equal(asked[0], condition_BLF)
    for told_BLF, given_BLF in zip(passes, asked[1:], strict=False):
        assert torch.equal(given_BLF, torch.where(told_BLF == HIDDEN, condition_BLF, told_BLF))
    # Positions with a condition are drawn like all others: they are refined, not copied.
    assert not torch.equal(result_BLF[:, 10:20], condition_BLF[:, 10:20])
    assert bool((asked[3][:, 10:20] != HIDDEN).all()) and bool((asked[3] == HIDDEN).any())


def test_guidance_0_is_none_and_more_pushes_away() -> None:
    ours, _, (low_BLV, _) = random_logits(1, 8)
    asked: list[Tensor] = []

    def theirs(ids_BLF: Tensor) -> FactorLogits:
        asked.append(ids_BLF)
        return lambda factor, chosen_BLF: torch.ones(1, 8, SIZES[factor])

    condition_BLF = hidden(1, 8)
    assert torch.equal(guided(ours, theirs, 0.0)(condition_BLF)(0, condition_BLF), low_BLV) and asked == []
    pushed_BLV = guided(ours, theirs, 1.5)(condition_BLF)(0, condition_BLF)
    torch.testing.assert_close(pushed_BLV, low_BLV + 1.5 * (low_BLV - 1.0))
    assert torch.equal(asked[0], condition_BLF)
    with pytest.raises(UsageError, match="guidance must be 0 or more, got -1"):
        guided(ours, theirs, -1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ParallelConfig(steps=0), rf"steps must be in 1\.\.{MAX_STEPS}, got 0"),
        (lambda: ParallelConfig(steps=MAX_STEPS + 1), "got 1025"),
        (lambda: ParallelConfig(schedule="sine"), "no mask schedule 'sine'"),
        (lambda: ParallelConfig(settle_temperature=-1.0), "settle_temperature must be 0 or more and finite, got -1.0"),
        (lambda: ParallelConfig(settle_temperature=float("inf")), "settle_temperature must be 0 or more and finite"),
        (lambda: ParallelConfig(choice=Choice(temperature=-1.0)), "temperature must be 0 or more"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"fixed_L must have one value for each of 6 positions, got \(5,\)"):
        run(hidden(1, 6), fixed_L=torch.zeros(5, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"ranks_L must have one value for each of 6 positions, got \(6, 1\)"):
        run(hidden(1, 6), ranks_L=torch.arange(6)[:, None])
    with pytest.raises(ShapeError, match="a fixed position must have a token, but some are hidden"):
        run(hidden(1, 6), fixed_L=torch.ones(6, dtype=torch.bool))

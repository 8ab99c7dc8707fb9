"""Ids are drawn from exactly the distribution that a choice asks for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kinolex.errors import UsageError
from kinolex.sampling.choose import Choice, choose, gumbel_like

LOGITS_V = torch.tensor([2.0, -1.0, 0.5, 1.0, -3.0, 0.0])
DRAWS = 20_000
ALL = set(range(6))
LIMIT = 27.9
"""Chi-square with 5 degrees of freedom exceeds this once in 26,000 times."""


def drawn(choice: Choice, logits_V: Tensor = LOGITS_V, seed: int = 0) -> Tensor:
    """How often each id is drawn."""
    generator = torch.Generator().manual_seed(seed)
    ids, _ = choose(logits_V.expand(DRAWS, -1), choice, generator)
    return ids.bincount(minlength=len(logits_V)).double()


def chi_square(counts_V: Tensor, probability_V: Tensor) -> float:
    expected_V = probability_V.double() * counts_V.sum()
    kept_V = expected_V > 0
    assert int(counts_V[~kept_V].sum()) == 0
    return float(((counts_V - expected_V).square() / expected_V)[kept_V].sum())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_ids_are_drawn_with_the_probabilities_of_softmax(temperature: float) -> None:
    counts_V = drawn(Choice(temperature=temperature))
    assert chi_square(counts_V, (LOGITS_V / temperature).softmax(0)) < LIMIT
    # The test can tell: another temperature's probabilities do not fit.
    assert chi_square(counts_V, (LOGITS_V / (1.3 * temperature)).softmax(0)) > 5 * LIMIT


@pytest.mark.parametrize(("top_k", "kept"), [(1, {0}), (2, {0, 3}), (3, {0, 2, 3}), (6, ALL), (99, ALL)])
def test_top_k_draws_among_the_k_likeliest_alone(top_k: int, kept: set[int]) -> None:
    counts_V = drawn(Choice(top_k=top_k))
    wanted_V = torch.tensor([value if index in kept else -torch.inf for index, value in enumerate(LOGITS_V)])
    assert set(counts_V.nonzero()[:, 0].tolist()) == kept
    assert chi_square(counts_V, wanted_V.softmax(0)) < LIMIT


@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_top_k_keeps_k_of_equally_likely_ids(top_k: int) -> None:
    counts_V = drawn(Choice(top_k=top_k), torch.zeros(8))
    assert int((counts_V > 0).sum()) == top_k


@pytest.mark.parametrize(("top_p", "kept"), [(0.01, {0}), (0.5, {0}), (0.7, {0, 3}), (0.85, {0, 2, 3}), (1.0, ALL)])
def test_top_p_draws_among_the_fewest_ids_that_reach_the_share(top_p: float, kept: set[int]) -> None:
    # Probabilities, sorted: 0.539 (id 0), 0.198 (3), 0.120 (2), 0.073 (5), 0.027 (1), 0.004 (4).
    counts_V = drawn(Choice(top_p=top_p))
    wanted_V = torch.tensor([value if index in kept else -torch.inf for index, value in enumerate(LOGITS_V)])
    assert set(counts_V.nonzero()[:, 0].tolist()) == kept
    assert chi_square(counts_V, wanted_V.softmax(0)) < LIMIT


def test_top_k_and_top_p_together_keep_what_both_keep() -> None:
    assert set(drawn(Choice(top_k=2, top_p=0.85)).nonzero()[:, 0].tolist()) == {0, 3}
    assert set(drawn(Choice(top_k=5, top_p=0.6)).nonzero()[:, 0].tolist()) == {0, 3}


def test_temperature_0_takes_the_likeliest_and_draws_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    logits_BLV = torch.randn(3, 7, 11, generator=generator)
    before = generator.get_state()
    ids_BL, log_probability_BL = choose(logits_BLV, Choice(temperature=0.0), generator)
    assert torch.equal(ids_BL, logits_BLV.argmax(dim=-1))
    torch.testing.assert_close(log_probability_BL, logits_BLV.log_softmax(-1).max(dim=-1).values)
    assert torch.equal(generator.get_state(), before)


def test_confidence_is_the_log_probability_before_temperature_and_cuts() -> None:
    logits_LV, generator = LOGITS_V.expand(50, -1), torch.Generator().manual_seed(0)
    ids_L, log_probability_L = choose(logits_LV, Choice(temperature=2.0, top_k=3, top_p=0.9), generator)
    assert len(ids_L.unique()) > 1
    torch.testing.assert_close(log_probability_L, LOGITS_V.log_softmax(0)[ids_L])


def test_the_same_seed_draws_the_same_ids() -> None:
    first, second, other = (drawn(Choice(), seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_noise_has_the_mean_and_spread_of_a_gumbel_and_is_finite() -> None:
    noise = gumbel_like(torch.empty(200_000), torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(noise).all())
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.015)
    assert float(noise.std()) == pytest.approx(1.2825, abs=0.015)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.1}, "temperature must be 0 or more and finite, got -0.1"),
        ({"temperature": float("nan")}, "temperature must be 0 or more and finite, got nan"),
        ({"temperature": float("inf")}, "temperature must be 0 or more and finite, got inf"),
        ({"top_k": 0}, "top_k must be 1 or more, got 0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1, got 1.1"),
        ({"top_p": float("nan")}, "top_p must be above 0"),
    ],
)
def test_choices_that_mean_nothing_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Choice(**values)  # type: ignore[arg-type]

"""Token by token: with and without a cache alike, known tokens stay, seeds mean something."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from kinolex.errors import ShapeError, UsageError
from kinolex.generation.baselines import BaselineConfig, fill, question, step_fn
from kinolex.masks import HIDDEN
from kinolex.models.autoregressive import AutoregressiveConfig, AutoregressiveTransformer
from kinolex.models.factors import split_ids
from kinolex.sampling.autoregressive import guided_steps, sample_autoregressive
from kinolex.sampling.choose import Choice
from kinolex.sampling.parallel import FactorLogits
from kinolex.tasks.base import Posed
from kinolex.types import Extent

GRID = (2, 3, 3)


@pytest.fixture
def model() -> AutoregressiveTransformer:
    torch.manual_seed(0)
    config = AutoregressiveConfig(
        tokenizer="",
        factors=(8, 8),
        digits=(8, 8),
        width=32,
        depth=2,
        heads=2,
        tasks=("class", "frame-prediction", "inpaint-central"),
        words=("red",),
        latent_frames=2,
    )
    network = AutoregressiveTransformer(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def posed(task: str = "inpaint-central") -> Posed:
    condition_thw = torch.randint(64, GRID, generator=torch.Generator().manual_seed(3))
    condition_thw[1, 1:] = HIDDEN
    exact_thw = torch.zeros(GRID, dtype=torch.bool)
    exact_thw[0, :2], exact_thw[1, 0, 1] = True, True
    return Posed(task, condition_thw, exact_thw, Extent(frames=5, height=24, width=24, fps=Fraction(24)))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Counting:
    """The next token is one more than the token before; each call is written down."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, start: int, before_BMF: Tensor) -> FactorLogits:
        self.calls.append((start, before_BMF.shape[1]))
        wanted_B = torch.where(before_BMF[:, -1, 0] == HIDDEN, 0, before_BMF[:, -1, 0] + 1) % 8
        return lambda factor, chosen_B1F: 50.0 * torch.nn.functional.one_hot(wanted_B, 8).float()[:, None]


def test_each_token_follows_from_the_one_before() -> None:
    steps = Counting()
    made_BLF = sample_autoregressive(steps, torch.full((2, 6, 1), HIDDEN), Choice(), generator())
    assert made_BLF[..., 0].tolist() == [[0, 1, 2, 3, 4, 5]] * 2
    assert steps.calls == [(position, 1) for position in range(6)]


def test_known_tokens_stay_and_are_read_together_with_the_next_open_one() -> None:
    known_BLF = torch.full((1, 8, 1), HIDDEN)
    known_BLF[0, :3, 0], known_BLF[0, 5, 0], known_BLF[0, 7, 0] = torch.tensor([4, 4, 4]), 1, 6
    steps, seen = Counting(), []

    made_BLF = sample_autoregressive(
        steps, known_BLF, Choice(temperature=0.0), generator(), on_token=lambda done, total: seen.append((done, total))
    )

    assert made_BLF[0, :, 0].tolist() == [4, 4, 4, 5, 6, 1, 2, 6]
    assert steps.calls == [(0, 4), (4, 1), (5, 2)] and seen == [(4, 8), (5, 8), (7, 8)]
    assert int((known_BLF == HIDDEN).sum()) == 3, "the argument is left alone"


def test_samples_of_a_batch_may_know_different_tokens() -> None:
    known_BLF = torch.full((2, 3, 1), HIDDEN)
    known_BLF[1, 0, 0] = 5
    made_BLF = sample_autoregressive(Counting(), known_BLF, Choice(), generator())
    assert made_BLF[..., 0].tolist() == [[0, 1, 2], [5, 6, 7]]


def test_half_a_token_is_refused() -> None:
    known_BLF = torch.zeros(1, 3, 2, dtype=torch.long)
    known_BLF[0, 1, 1] = HIDDEN
    with pytest.raises(ShapeError, match="factors"):
        sample_autoregressive(Counting(), known_BLF, Choice(), generator())


@pytest.mark.parametrize("choice", [Choice(), Choice(temperature=0.0), Choice(top_k=3, top_p=0.9, temperature=0.7)])
def test_with_and_without_cache_the_same_ids_are_drawn(model: AutoregressiveTransformer, choice: Choice) -> None:
    config = BaselineConfig(choice=choice, seed=5)
    cached_thw, anew_thw = (fill(model, posed(), replace(config, cached=cached)) for cached in (True, False))
    assert torch.equal(cached_thw, anew_thw)


@torch.inference_mode()
def test_with_and_without_cache_logits_agree(model: AutoregressiveTransformer) -> None:
    asked = question(model, "class", posed().condition_thw, torch.ones(1, dtype=torch.long))
    with_cache, without = step_fn(model, asked), step_fn(model, asked, cached=False)
    before_BLF = split_ids(torch.cat([torch.tensor([HIDDEN]), torch.randint(64, (17,))]), (8, 8))[None]
    chosen_B1F = torch.zeros(1, 1, 2, dtype=torch.long)
    start = 0
    for stop in (1, 2, 6, 7, 18):
        ours, theirs = (step(start, before_BLF[:, start:stop]) for step in (with_cache, without))
        for factor in range(2):
            assert torch.allclose(ours(factor, chosen_B1F), theirs(factor, chosen_B1F), atol=1e-4)
        start = stop


def test_exact_tokens_are_kept_and_the_others_are_ids(model: AutoregressiveTransformer) -> None:
    asked = posed()
    made_thw = fill(model, asked, BaselineConfig(), text="")
    assert torch.equal(made_thw[asked.exact_thw], asked.condition_thw[asked.exact_thw])
    assert int(made_thw.min()) >= 0 and int(made_thw.max()) < 64


def test_a_seed_fixes_what_is_drawn(model: AutoregressiveTransformer) -> None:
    once, again, other = (fill(model, posed("class"), BaselineConfig(seed=seed), text="red") for seed in (1, 1, 2))
    assert torch.equal(once, again) and not torch.equal(once, other)


def test_guidance_pushes_away_from_nothing_said(model: AutoregressiveTransformer) -> None:
    plain, zero, strong = (
        fill(model, posed("class"), BaselineConfig(seed=1, guidance=guidance), text="red")
        for guidance in (0.0, 0.0, 20.0)
    )
    assert torch.equal(plain, zero) and not torch.equal(plain, strong)
    with pytest.raises(UsageError, match="guidance"):
        guided_steps(Counting(), Counting(), -1.0)


def test_what_the_network_does_not_know_is_refused(model: AutoregressiveTransformer) -> None:
    with pytest.raises(UsageError, match="outpaint"):
        fill(model, posed("outpaint-central"), BaselineConfig())
    long = replace(posed(), condition_thw=torch.zeros(3, 3, 3, dtype=torch.long))
    with pytest.raises(UsageError, match="2 latent frames"):
        fill(model, long, BaselineConfig())

"""The autoregressive baseline sees what it should and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kinolex.errors import ConfigError
from kinolex.layers.attention import KeyValueCache
from kinolex.masks import HIDDEN
from kinolex.models.autoregressive import AutoregressiveConfig, AutoregressiveTransformer, shifted
from kinolex.models.factors import split_ids

CONFIG = AutoregressiveConfig(
    tokenizer="",
    factors=(8, 8),
    digits=(2, 4, 8),
    width=32,
    depth=2,
    heads=2,
    tasks=("class", "frame-prediction"),
    words=("red", "blue"),
    max_words=2,
    latent_frames=2,
)
GRID = (2, 3, 3)
LENGTH = 18


@pytest.fixture
def model() -> AutoregressiveTransformer:
    torch.manual_seed(0)
    network = AutoregressiveTransformer(CONFIG).eval()
    with torch.no_grad():  # far from the small weights of a beginning, under which nothing depends on much
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def asked(batch: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Target factors, condition, tasks, words, first."""
    generator = torch.Generator().manual_seed(1)
    ids_Bthw, condition_Bthw = (torch.randint(64, (batch, *GRID), generator=generator) for _ in range(2))
    condition_Bthw[:, 1] = HIDDEN
    target_BLF = split_ids(ids_Bthw.flatten(1), CONFIG.factors)
    return (
        target_BLF,
        condition_Bthw,
        torch.arange(batch) % 2,
        torch.ones(batch, 2, dtype=torch.long),
        torch.ones(batch, dtype=torch.bool),
    )


def logits(model: AutoregressiveTransformer, question: tuple[Tensor, ...]) -> Tensor:
    """Of both factors [B, L, 2 V]."""
    target_BLF = question[0]
    hidden_BLD = model.hidden(*question)  # type: ignore[arg-type]
    return torch.cat([model.logits(hidden_BLD, factor, target_BLF) for factor in range(2)], dim=-1)


@pytest.mark.parametrize("place", [0, 7, LENGTH - 1])
def test_changing_a_target_changes_nothing_before_it(model: AutoregressiveTransformer, place: int) -> None:
    question = asked()
    target_BLF = question[0].clone()
    target_BLF[:, place] = (target_BLF[:, place] + 1) % 8

    before_BLD, after_BLD = model.hidden(*question), model.hidden(target_BLF, *question[1:])

    assert torch.equal(before_BLD[:, : place + 1], after_BLD[:, : place + 1])
    moved_L = (before_BLD - after_BLD).abs().amax(dim=(0, 2))[place + 1 :]
    assert bool((moved_L > 1e-4).all())


def test_the_second_factor_is_told_the_first(model: AutoregressiveTransformer) -> None:
    question = asked()
    target_BLF = question[0].clone()
    target_BLF[:, -1, 0] = (target_BLF[:, -1, 0] + 1) % 8
    before_BLV, after_BLV = logits(model, question), logits(model, (target_BLF, *question[1:]))
    assert torch.equal(before_BLV[..., :8], after_BLV[..., :8])
    assert not torch.allclose(before_BLV[:, -1, 8:], after_BLV[:, -1, 8:])


@pytest.mark.parametrize("place", [0, LENGTH - 1])
def test_every_target_sees_the_whole_condition(model: AutoregressiveTransformer, place: int) -> None:
    question = asked()
    condition_Bthw = question[1].clone()
    condition_Bthw.view(2, -1)[:, place] = 3

    moved_BLD = model.hidden(*question) - model.hidden(question[0], condition_Bthw, *question[2:])

    assert bool((moved_BLD.abs().amax(dim=2) > 1e-5).all())


@pytest.mark.parametrize("index", [2, 3, 4])
def test_task_words_and_beginnings_are_seen(model: AutoregressiveTransformer, index: int) -> None:
    question = list(asked())
    question[index] = 1 - question[index] if index == 2 else torch.zeros_like(question[index])
    moved_BLD = model.hidden(*asked()) - model.hidden(*question)
    assert bool((moved_BLD.abs().amax(dim=2) > 1e-5).all())


@pytest.mark.parametrize("capacity", [None, 3 + 2 * LENGTH])
@pytest.mark.parametrize("pieces", [[1] * LENGTH, [5, 1, 1, 9, 2]])
def test_reading_piece_by_piece_equals_reading_at_once(
    model: AutoregressiveTransformer, pieces: list[int], capacity: int | None
) -> None:
    target_BLF, condition_Bthw, tasks_B, words_BP, first_B = asked()
    cache, start, parts = KeyValueCache(capacity), 0, []
    with torch.no_grad():
        whole_BLV = logits(model, asked())
        model.read_condition(condition_Bthw, tasks_B, words_BP, first_B, cache)
        for length in pieces:
            before_BMF = shifted(target_BLF)[:, start : start + length]
            parts.append(model.read_tokens(before_BMF, start, GRID, first_B, cache))
            start += length
        hidden_BLD = torch.cat(parts, dim=1)
        pieces_BLV = torch.cat([model.logits(hidden_BLD, factor, target_BLF) for factor in range(2)], dim=-1)
    assert cache.length == 3 + 2 * LENGTH
    assert torch.allclose(whole_BLV, pieces_BLV, atol=1e-4)


def test_a_cache_that_is_too_small_is_a_bug(model: AutoregressiveTransformer) -> None:
    with pytest.raises(AssertionError), torch.no_grad():
        model.read_condition(*asked()[1:], KeyValueCache(5))


def test_folding_the_digits_in_changes_no_logits(model: AutoregressiveTransformer) -> None:
    folded = model.folded()
    assert folded.config == replace(CONFIG, digits=()) and folded.folded() is folded
    assert not folded.training and torch.allclose(logits(model, asked()), logits(folded, asked()), atol=1e-5)


def test_one_batch_is_learned_in_a_few_steps() -> None:
    torch.manual_seed(0)
    network = AutoregressiveTransformer(CONFIG)
    target_BLF, *rest = asked()
    losses = []
    for _ in range(25):
        loss = network(target_BLF, *rest).mean()
        network.zero_grad()
        loss.backward()
        with torch.no_grad():  # by the sign of the gradient: torch.optim is slow to import
            for parameter in network.parameters():
                parameter.sub_(3e-3 * torch.sign(parameter.grad))
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(4.16, abs=0.3)  # log 64
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("change", [{"width": 30}, {"factors": (1, 8)}, {"tasks": ("a", "a")}, {"dropout": 1.0}])
def test_impossible_sizes_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        replace(CONFIG, **change)

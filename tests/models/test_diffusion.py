"""The diffusion baseline: latents are those of the quantizers, everything given is seen, a batch is learned."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kinolex.masks import HIDDEN
from kinolex.models.diffusion import (
    DiffusionConfig,
    DiffusionTransformer,
    draw_times,
    ids_from_latents,
    latents_from_ids,
    straight,
)
from kinolex.tokenizers.quantizers import FSQConfig, LFQConfig, build_quantizer

CONFIG = DiffusionConfig(
    tokenizer="",
    factors=(8, 4, 2),
    width=32,
    depth=2,
    heads=2,
    tasks=("class", "frame-prediction"),
    words=("red", "blue"),
    max_words=2,
    latent_frames=2,
)
GRID = (2, 3, 3)


@pytest.fixture
def model() -> DiffusionTransformer:
    torch.manual_seed(0)
    network = DiffusionTransformer(CONFIG).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def asked() -> list[Tensor]:
    """Latents, times, condition, tasks, words, first."""
    generator = torch.Generator().manual_seed(1)
    condition_Bthw = torch.randint(64, (2, *GRID), generator=generator)
    condition_Bthw[:, 1] = HIDDEN
    return [
        torch.randn(2, 18, 3, generator=generator),
        torch.tensor([0.2, 0.7]),
        condition_Bthw,
        torch.tensor([0, 1]),
        torch.ones(2, 2, dtype=torch.long),
        torch.ones(2, dtype=torch.bool),
    ]


@pytest.mark.parametrize(
    ("config", "levels"), [(FSQConfig(levels=(8, 5, 2)), (8, 5, 2)), (LFQConfig(num_bits=7), (2,) * 7)]
)
def test_latents_are_the_quantizers(config: FSQConfig | LFQConfig, levels: tuple[int, ...]) -> None:
    ids = torch.arange(config.vocab_size)
    theirs_CN = build_quantizer(config).latents_from_ids(ids.view(1, 1, 1, 1, -1))[0, :, 0, 0]

    ours_NC = latents_from_ids(ids, levels)

    assert torch.allclose(ours_NC.T, theirs_CN.float())
    assert torch.equal(ids_from_latents(ours_NC, levels), ids)
    nearest = 0.98 / (max(levels) - 1)
    assert torch.equal(ids_from_latents(ours_NC + nearest * (2 * torch.rand_like(ours_NC) - 1), levels), ids)
    far = ids_from_latents(100 * torch.randn(50, len(levels)), levels)
    assert int(far.min()) >= 0 and int(far.max()) < config.vocab_size


def test_measured_latents_have_mean_0_and_variance_1(model: DiffusionTransformer) -> None:
    ids_Bthw = torch.randint(64, (40, *GRID)).clamp(max=40)
    model.measure_(ids_Bthw)
    latents_NC = model.latents(ids_Bthw).flatten(0, 1)
    assert torch.allclose(latents_NC.mean(dim=0), torch.zeros(3), atol=1e-5)
    assert torch.allclose(latents_NC.std(dim=0, correction=0), torch.ones(3), atol=1e-5)
    assert torch.equal(model.ids(model.latents(ids_Bthw)), ids_Bthw.flatten(1))


def test_a_channel_that_never_changes_is_not_divided_by_zero(model: DiffusionTransformer) -> None:
    model.measure_(torch.full((5,), 7))
    assert torch.equal(model.std, torch.ones(3)) and bool(model.latents(torch.full((1, 1, 1, 1), 7)).eq(0).all())


def test_what_is_hidden_is_the_mean_and_is_told_apart_from_it(model: DiffusionTransformer) -> None:
    latents_BLC = model.latents(asked()[2])
    assert bool(latents_BLC[:, 9:].eq(0).all()) and not bool(latents_BLC[:, :9].eq(0).any())


@pytest.mark.parametrize("index", range(6))
def test_every_position_sees_everything_that_is_given(model: DiffusionTransformer, index: int) -> None:
    changed = asked()
    if index == 0:
        changed[0][:, -1] += 1.0
    elif index == 2:
        changed[2][:, 0, 0, 0] = HIDDEN
    else:
        changed[index] = changed[index].flip(0) if index in (1, 3) else torch.zeros_like(changed[index])
    moved_BLC = model(*asked()) - model(*changed)
    assert bool((moved_BLC.abs().amax(dim=2) > 1e-5).all())


def test_a_new_network_stands_still() -> None:
    assert bool(DiffusionTransformer(CONFIG)(*asked()).eq(0).all())


@pytest.mark.parametrize("times", ["uniform", "logit-normal"])
def test_times_lie_between_noise_and_data(times: str) -> None:
    torch.manual_seed(0)
    drawn_B = draw_times(replace(CONFIG, times=times), 4000)
    assert float(drawn_B.min()) >= 0 and float(drawn_B.max()) <= 1
    assert float(drawn_B.mean()) == pytest.approx(0.5, abs=0.02)
    noise, data = torch.zeros(4000, 1, 1), torch.ones(4000, 1, 1)
    assert torch.allclose(straight(noise, data, drawn_B)[:, 0, 0], drawn_B)


def test_one_batch_is_learned_in_a_few_steps() -> None:
    torch.manual_seed(0)
    network = DiffusionTransformer(CONFIG)
    noise_BLC, times_B, *rest = asked()
    data_BLC = network.latents(torch.randint(64, (2, *GRID)))
    losses = []
    for _ in range(30):
        velocity_BLC = network(straight(noise_BLC, data_BLC, times_B), times_B, *rest)
        loss = (velocity_BLC - (data_BLC - noise_BLC)).square().mean()
        network.zero_grad()
        loss.backward()
        with torch.no_grad():  # by the sign of the gradient: torch.optim is slow to import
            for parameter in network.parameters():
                parameter.sub_(3e-3 * torch.sign(parameter.grad))
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]

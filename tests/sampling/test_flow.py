"""Flows end where they should: at known distributions, at exact latents, at the same place for the same seed."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from kinolex.errors import ShapeError, UsageError
from kinolex.generation.baselines import BaselineConfig, fill
from kinolex.masks import HIDDEN
from kinolex.models.diffusion import DiffusionConfig, DiffusionTransformer
from kinolex.sampling.flow import FlowConfig, VelocityFn, guided_velocity, sample_flow, seeded_noise
from kinolex.tasks.base import Posed
from kinolex.types import Extent

MEAN, STD = 1.5, 0.3


def to_a_gaussian(latents_BLC: Tensor, time: float) -> Tensor:
    """The mean velocity of straight ways from standard noise to a normal distribution."""
    variance = (1 - time) ** 2 + (time * STD) ** 2
    return MEAN + (time * STD**2 - (1 - time)) / variance * (latents_BLC - time * MEAN)


def noise(seed: int = 0, shape: tuple[int, ...] = (4, 500, 3)) -> Tensor:
    return seeded_noise(shape, torch.Generator().manual_seed(seed), torch.device("cpu"))


def constant(value: float) -> VelocityFn:
    return lambda latents_BLC, time: torch.full_like(latents_BLC, value)


@pytest.mark.parametrize(
    ("config", "tolerance"),
    [
        (FlowConfig(steps=50), 0.03),
        (FlowConfig(steps=12, solver="heun"), 0.03),
        (FlowConfig(steps=200), 0.015),
    ],
)
def test_a_known_gaussian_is_reached(config: FlowConfig, tolerance: float) -> None:
    made_BLC = sample_flow(to_a_gaussian, noise(), config)
    assert float(made_BLC.mean()) == pytest.approx(MEAN, abs=tolerance)
    assert float(made_BLC.std()) == pytest.approx(STD, abs=tolerance)


def test_heun_is_nearer_to_the_end_of_the_way_than_euler() -> None:
    # The exact flow maps noise n to MEAN + STD n.
    exact_BLC = MEAN + STD * noise()
    errors = {
        solver: float(
            (sample_flow(to_a_gaussian, noise(), FlowConfig(steps=12, solver=solver)) - exact_BLC).abs().max()
        )
        for solver in ("euler", "heun")
    }
    assert errors["heun"] < 0.5 * errors["euler"]


@pytest.mark.parametrize(("solver", "steps", "passes"), [("euler", 5, 5), ("heun", 5, 9), ("heun", 1, 1)])
def test_passes_are_what_they_are_said_to_be(solver: str, steps: int, passes: int) -> None:
    times, told = [], []

    def velocity_fn(latents_BLC: Tensor, time: float) -> Tensor:
        times.append(time)
        return torch.ones_like(latents_BLC)

    config = FlowConfig(steps=steps, solver=solver)  # type: ignore[arg-type]
    made_BLC = sample_flow(velocity_fn, noise(), config, on_step=lambda step, total: told.append((step, total)))

    assert len(times) == config.passes == passes and min(times) == 0.0 and max(times) < 1.0
    assert told == [(step + 1, steps) for step in range(steps)]
    assert torch.allclose(made_BLC, noise() + 1.0, atol=1e-5)


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_exact_latents_go_straight_and_come_out_as_they_are(solver: str) -> None:
    known_BLC, exact_BL = torch.randn(4, 500, 3), torch.rand(4, 500) < 0.3
    seen = []

    def velocity_fn(latents_BLC: Tensor, time: float) -> Tensor:
        seen.append((time, latents_BLC[exact_BL]))
        return torch.full_like(latents_BLC, 100.0)

    config = FlowConfig(steps=7, solver=solver)  # type: ignore[arg-type]
    made_BLC = sample_flow(velocity_fn, noise(), config, known_BLC=known_BLC, exact_BL=exact_BL)

    assert torch.equal(made_BLC[exact_BL], known_BLC[exact_BL])
    assert float(made_BLC[~exact_BL].min()) > 90
    for time, latents_NC in seen:
        assert torch.allclose(latents_NC, noise()[exact_BL].lerp(known_BLC[exact_BL], time), atol=1e-4)


def test_noise_is_a_function_of_the_seed() -> None:
    assert torch.equal(noise(1), noise(1)) and not torch.equal(noise(1), noise(2))


def test_guidance_pushes_away() -> None:
    assert float(guided_velocity(constant(2.0), constant(1.0), 3.0)(torch.zeros(1, 1, 1), 0.0)) == 5.0
    alone = constant(2.0)
    assert guided_velocity(alone, constant(1.0), 0.0) is alone
    with pytest.raises(UsageError, match="guidance"):
        guided_velocity(alone, alone, -0.1)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="steps"):
        FlowConfig(steps=0)
    with pytest.raises(UsageError, match="euler"):
        FlowConfig(solver="rk4")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="mask"):
        sample_flow(to_a_gaussian, noise(), FlowConfig(), exact_BL=torch.ones(4, 5, dtype=torch.bool))


@pytest.fixture
def model() -> DiffusionTransformer:
    torch.manual_seed(0)
    config = DiffusionConfig(
        tokenizer="",
        factors=(8, 4, 2),
        width=32,
        depth=2,
        heads=2,
        tasks=("class", "inpaint-central"),
        words=("red",),
        latent_frames=2,
    )
    network = DiffusionTransformer(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def posed(task: str) -> Posed:
    condition_thw = torch.randint(64, (2, 3, 3), generator=torch.Generator().manual_seed(3))
    condition_thw[1, 1:] = HIDDEN
    exact_thw = torch.zeros(2, 3, 3, dtype=torch.bool)
    exact_thw[0] = True
    return Posed(task, condition_thw, exact_thw, Extent(frames=5, height=24, width=24, fps=Fraction(24)))


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_a_window_is_filled_with_ids_and_exact_ones_are_kept(model: DiffusionTransformer, guidance: float) -> None:
    asked, config = posed("class"), BaselineConfig(flow=FlowConfig(steps=4), guidance=guidance, seed=1)
    model.measure_(torch.arange(64))
    made_thw, again_thw = (fill(model, asked, config, text="red") for _ in range(2))
    other_thw = fill(model, asked, BaselineConfig(flow=FlowConfig(steps=4), guidance=guidance, seed=2), text="red")
    assert torch.equal(made_thw, again_thw) and not torch.equal(made_thw, other_thw)
    assert torch.equal(made_thw[0], asked.condition_thw[0])
    assert int(made_thw.min()) >= 0 and int(made_thw.max()) < 64

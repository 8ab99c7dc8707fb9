"""From noise to latents along a velocity, in any number of steps.

    noise at time 0 --Euler or Heun--> latents at time 1        exact latents go straight from their noise to themselves

Source: flow matching, arXiv 2210.02747; Heun's second-order steps as in arXiv 2206.00364.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kinolex.errors import ShapeError, UsageError

VelocityFn = Callable[[Tensor, float], Tensor]
"""(latents [B, L, C] at a time, the time from 0 to 1) -> their velocity [B, L, C]."""
OnFlowStep = Callable[[int, int], None]
"""(step, steps)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowConfig:
    steps: int = 50
    solver: Literal["euler", "heun"] = "euler"
    """Heun looks twice at every step but the last."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"steps must be 1 or more, got {self.steps}")
        if self.solver not in ("euler", "heun"):
            raise UsageError(f'solver must be "euler" or "heun", got {self.solver!r}')

    @property
    def passes(self) -> int:
        """Of the network."""
        return self.steps if self.solver == "euler" else 2 * self.steps - 1


@torch.inference_mode()
def sample_flow(
    velocity_fn: VelocityFn,
    noise_BLC: Tensor,
    config: FlowConfig,
    *,
    known_BLC: Tensor | None = None,
    exact_BL: Tensor | None = None,
    on_step: OnFlowStep | None = None,
) -> Tensor:
    """Latents [B, L, C] at time 1.

    Args:
        noise_BLC: where the way begins, see seeded_noise.
        known_BLC, exact_BL: latents that are given, and where (bool); they come out as they are.

    Raises:
        ShapeError: known latents or a mask of another shape.
    """
    known_BLC = torch.zeros_like(noise_BLC) if known_BLC is None else known_BLC
    exact_BL = torch.zeros_like(noise_BLC[..., 0], dtype=torch.bool) if exact_BL is None else exact_BL
    if known_BLC.shape != noise_BLC.shape or exact_BL.shape != noise_BLC.shape[:2]:
        raise ShapeError(
            f"known latents must be {tuple(noise_BLC.shape)} and their mask {tuple(noise_BLC.shape[:2])}, got "
            f"{tuple(known_BLC.shape)} and {tuple(exact_BL.shape)}"
        )
    exact_BL1 = exact_BL[..., None]

    def velocity(latents_BLC: Tensor, time: float) -> Tensor:
        return torch.where(exact_BL1, known_BLC - noise_BLC, velocity_fn(latents_BLC, time))

    now_BLC = noise_BLC
    for step in range(config.steps):
        time, then = step / config.steps, (step + 1) / config.steps
        first_BLC = velocity(now_BLC, time)
        next_BLC = now_BLC + (then - time) * first_BLC
        if config.solver == "heun" and step + 1 < config.steps:
            next_BLC = now_BLC + (then - time) * (first_BLC + velocity(next_BLC, then)) / 2
        now_BLC = next_BLC
        if on_step is not None:
            on_step(step + 1, config.steps)
    # The sum of the steps ends within rounding of what is exact.
    return torch.where(exact_BL1, known_BLC, now_BLC)


def seeded_noise(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard normal noise, drawn on the generator's device, so that a seed means the same everywhere."""
    return torch.randn(shape, generator=generator, device=generator.device).to(device)


def guided_velocity(conditional: VelocityFn, unconditional: VelocityFn, scale: float) -> VelocityFn:
    """Velocities pushed away from those without a condition: v + scale (v - v0). Twice the work.

    Source: classifier-free guidance, arXiv 2207.12598.
    """
    if not scale >= 0:
        raise UsageError(f"guidance must be 0 or more, got {scale}")
    if scale == 0:
        return conditional

    def velocity_fn(latents_BLC: Tensor, time: float) -> Tensor:
        wanted_BLC = conditional(latents_BLC, time)
        return wanted_BLC + scale * (wanted_BLC - unconditional(latents_BLC, time))

    return velocity_fn

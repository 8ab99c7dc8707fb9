"""The two networks that the masked generator is compared with, at work on one window.

Posed, words --network--> StepFn     --sample_autoregressive--> ids
                      --> VelocityFn --sample_flow--> latents --round--> ids
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor

from kinolex.errors import UsageError
from kinolex.layers.attention import KeyValueCache
from kinolex.masks import HIDDEN
from kinolex.models.autoregressive import AutoregressiveTransformer
from kinolex.models.diffusion import DiffusionTransformer
from kinolex.models.factors import join_ids, split_ids
from kinolex.sampling.autoregressive import StepFn, guided_steps, sample_autoregressive
from kinolex.sampling.choose import Choice
from kinolex.sampling.flow import FlowConfig, VelocityFn, guided_velocity, sample_flow, seeded_noise
from kinolex.sampling.parallel import FactorLogits
from kinolex.tasks.base import Posed
from kinolex.tasks.words import word_ids

WITHOUT = "class"
"""The task that guidance pushes away from, without words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineConfig:
    """How either network draws; each looks at its own part."""

    choice: Choice = field(default_factory=Choice)
    flow: FlowConfig = field(default_factory=FlowConfig)
    guidance: float = 0.0
    """Push away from what would be made of the same tokens without words or task; doubles the work."""
    cached: bool = True
    """Keep keys and values of what was read; without, every token reads everything again."""
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What both networks are asked, as a batch of one."""

    condition_Bthw: Tensor
    tasks_B: Tensor
    words_BP: Tensor
    first_B: Tensor

    @property
    def grid(self) -> tuple[int, int, int]:
        return self.condition_Bthw.shape[1], self.condition_Bthw.shape[2], self.condition_Bthw.shape[3]


Baseline = AutoregressiveTransformer | DiffusionTransformer


def question(model: Baseline, task: str, condition_thw: Tensor, words_P: Tensor, *, first: bool = True) -> Question:
    """Raises UsageError for a task that the network was not trained for."""
    if task not in model.config.tasks:
        raise UsageError(f"this model was not trained for {task}; its tasks are {', '.join(model.config.tasks)}")
    device = next(model.parameters()).device
    return Question(
        condition_thw[None].to(device),
        torch.tensor([model.config.tasks.index(task)], device=device),
        words_P[None].to(device),
        torch.tensor([first], device=device),
    )


def fill(model: Baseline, posed: Posed, config: BaselineConfig, *, text: str = "") -> Tensor:
    """Ids [t, h, w] of the one window that a task was posed on. Exact tokens stay as they are.

    Raises:
        UsageError: a word or a task that the network does not know, or more latent frames than it was trained on.
    """
    if len(posed.condition_thw) > model.config.latent_frames:
        raise UsageError(
            f"this model makes windows of {model.config.latent_frames} latent frames, got {len(posed.condition_thw)}"
        )
    words_P = word_ids(text, model.config.words, model.config.max_words)
    asked = question(model, posed.task, posed.condition_thw, words_P)
    unsaid = None
    if config.guidance:
        unsaid = question(model, WITHOUT, posed.condition_thw, torch.zeros_like(words_P))
    generator = torch.Generator().manual_seed(config.seed)
    exact_thw = posed.exact_thw.to(asked.condition_Bthw.device)
    if isinstance(model, AutoregressiveTransformer):
        return _fill_autoregressive(model, asked, unsaid, exact_thw, config, generator)
    return _fill_diffusion(model, asked, unsaid, exact_thw, config, generator)


def step_fn(model: AutoregressiveTransformer, asked: Question, *, cached: bool = True) -> StepFn:
    """What autoregressive sampling asks. Without a cache every call reads the prefix and all tokens before anew."""
    model, total = model.folded(), asked.condition_Bthw[0].numel()
    seen: list[Tensor] = []
    cache = KeyValueCache(model.prefix.length + 2 * total)

    def read(start: int, before_BMF: Tensor) -> FactorLogits:
        nonlocal cache
        if not cached:
            seen.append(before_BMF)
            start, before_BMF, cache = 0, torch.cat(seen, dim=1), KeyValueCache()
        if start == 0:
            model.read_condition(asked.condition_Bthw, asked.tasks_B, asked.words_BP, asked.first_B, cache)
        hidden_B1D = model.read_tokens(before_BMF, start, asked.grid, asked.first_B, cache)[:, -1:]
        return lambda factor, chosen_B1F: model.logits(hidden_B1D, factor, chosen_B1F)

    return read


def velocity_fn(model: DiffusionTransformer, asked: Question) -> VelocityFn:
    """What sampling by flow asks."""

    def velocity(latents_BLC: Tensor, time: float) -> Tensor:
        times_B = torch.full((len(latents_BLC),), time, device=latents_BLC.device)
        return model(latents_BLC, times_B, asked.condition_Bthw, asked.tasks_B, asked.words_BP, asked.first_B)

    return velocity


def _fill_autoregressive(
    model: AutoregressiveTransformer,
    asked: Question,
    unsaid: Question | None,
    exact_thw: Tensor,
    config: BaselineConfig,
    generator: torch.Generator,
) -> Tensor:
    known_Bthw = torch.where(exact_thw, asked.condition_Bthw, HIDDEN)
    factors = model.config.factors
    steps = step_fn(model, asked, cached=config.cached)
    if unsaid is not None:
        steps = guided_steps(steps, step_fn(model, unsaid, cached=config.cached), config.guidance)
    known_BLF = split_ids(rearrange(known_Bthw, "b t h w -> b (t h w)"), factors)
    filled_BLF = sample_autoregressive(steps, known_BLF, config.choice, generator)
    return join_ids(filled_BLF[0], factors).cpu().reshape(exact_thw.shape)


def _fill_diffusion(
    model: DiffusionTransformer,
    asked: Question,
    unsaid: Question | None,
    exact_thw: Tensor,
    config: BaselineConfig,
    generator: torch.Generator,
) -> Tensor:
    velocity = velocity_fn(model, asked)
    if unsaid is not None:
        velocity = guided_velocity(velocity, velocity_fn(model, unsaid), config.guidance)
    known_BLC = model.latents(asked.condition_Bthw)
    noise_BLC = seeded_noise(tuple(known_BLC.shape), generator, known_BLC.device)
    exact_BL = exact_thw.flatten()[None]
    latents_BLC = sample_flow(velocity, noise_BLC, config.flow, known_BLC=known_BLC, exact_BL=exact_BL)
    return model.ids(latents_BLC)[0].cpu().reshape(exact_thw.shape)

"""Decoding all tokens at once, in a few passes that each settle the surest (MAGVIT's algorithm 1).

    condition --logits--> draw every open token --keep the surest--> the others back to the condition, or hidden --> ...

Positions that are given are opened again too: their condition tokens saw padding, so the network refines them. Tokens
in `fixed` are never touched.

Source: MAGVIT, arXiv 2212.05199, algorithm 1; MaskGIT, arXiv 2202.04200.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kinolex.errors import ShapeError, UsageError
from kinolex.masks import HIDDEN, MAX_STEPS, hidden_counts, schedule_named
from kinolex.sampling.choose import Choice, choose, gumbel_like

FactorLogits = Callable[[int, Tensor], Tensor]
"""(factor, factors chosen so far [B, L, F]) -> logits [B, L, V]."""
LogitsFn = Callable[[Tensor], FactorLogits]
"""Factors of ids [B, L, F], HIDDEN where hidden -> logits factor by factor."""
OnStep = Callable[[int, int, Tensor], None]
"""(pass, passes, factors [B, L, F] so far, HIDDEN where not settled): for progress and growing pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelConfig:
    steps: int = 12
    schedule: str = "cosine"
    choice: Choice = field(default_factory=Choice)
    settle_temperature: float = 4.5
    """Gumbel noise on the confidence that decides what is settled, falling to 0 over the passes."""

    def __post_init__(self) -> None:
        schedule_named(self.schedule)
        if not 1 <= self.steps <= MAX_STEPS:
            raise UsageError(f"steps must be in 1..{MAX_STEPS}, got {self.steps}")
        if not 0 <= self.settle_temperature < math.inf:
            raise UsageError(f"settle_temperature must be 0 or more and finite, got {self.settle_temperature}")


@torch.inference_mode()
def sample_parallel(
    logits_fn: LogitsFn,
    condition_BLF: Tensor,
    config: ParallelConfig,
    generator: torch.Generator,
    *,
    fixed_L: Tensor | None = None,
    ranks_L: Tensor | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Factors [B, L, F] of every token.

    Args:
        condition_BLF: what the network starts from: condition tokens, HIDDEN where there are none, and in the fixed
            positions their final tokens.
        fixed_L: bool, positions that stay as they are.
        ranks_L: settle positions in this order (see kinolex.masks.halton_ranks) instead of by confidence.

    Raises:
        ShapeError: masks of another length, or something hidden in a fixed position.
    """
    _, length, num_factors = condition_BLF.shape
    fixed_L = torch.zeros(length, dtype=torch.bool) if fixed_L is None else fixed_L
    for name, mask in (("fixed_L", fixed_L), ("ranks_L", ranks_L)):
        if mask is not None and mask.shape != (length,):
            raise ShapeError(f"{name} must have one value for each of {length} positions, got {tuple(mask.shape)}")
    fixed_L = fixed_L.to(condition_BLF.device)
    if bool((condition_BLF[:, fixed_L] == HIDDEN).any()):
        raise ShapeError("a fixed position must have a token, but some are hidden")
    open_count = int((~fixed_L).sum())
    if open_count == 0:
        return condition_BLF
    counts = hidden_counts(config.schedule, config.steps, open_count)
    now_BLF, settled_BL = condition_BLF, fixed_L.expand(condition_BLF.shape[:2])
    for number, hidden in enumerate(counts):
        next_logits = logits_fn(now_BLF)
        drawn_BLF, sure_BL = torch.zeros_like(now_BLF), torch.zeros(now_BLF.shape[:2], device=now_BLF.device)
        for factor in range(num_factors):
            ids_BL, log_probability_BL = choose(next_logits(factor, drawn_BLF), config.choice, generator)
            # What is settled stays, also for the factors that follow.
            drawn_BLF[..., factor] = torch.where(settled_BL, now_BLF[..., factor], ids_BL)
            sure_BL = sure_BL + log_probability_BL
        noise = config.settle_temperature * (1 - (number + 1) / len(counts))
        if ranks_L is not None:
            sure_BL = -ranks_L.to(now_BLF.device).float().expand_as(sure_BL)
        elif noise:
            sure_BL = sure_BL + noise * gumbel_like(sure_BL, generator)
        sure_BL = sure_BL.masked_fill(settled_BL, torch.inf)
        settled_BL = torch.ones_like(settled_BL)
        if hidden:
            settled_BL = settled_BL.scatter(1, sure_BL.topk(hidden, dim=1, largest=False).indices, False)
        now_BLF = torch.where(settled_BL[..., None], drawn_BLF, condition_BLF)
        if on_step is not None:
            on_step(number + 1, len(counts), torch.where(settled_BL[..., None], drawn_BLF, HIDDEN))
    return now_BLF


def guided(conditional: LogitsFn, unconditional: LogitsFn, scale: float) -> LogitsFn:
    """Logits pushed away from those without a condition: l + scale (l - l0). Twice the work.

    Source: classifier-free guidance, arXiv 2207.12598, as in MAGVIT's released code.
    """
    if not scale >= 0:
        raise UsageError(f"guidance must be 0 or more, got {scale}")
    if scale == 0:
        return conditional

    def logits_fn(ids_BLF: Tensor) -> FactorLogits:
        ours, theirs = conditional(ids_BLF), unconditional(ids_BLF)

        def factor_logits(factor: int, chosen_BLF: Tensor) -> Tensor:
            wanted_BLV = ours(factor, chosen_BLF)
            return wanted_BLV + scale * (wanted_BLV - theirs(factor, chosen_BLF))

        return factor_logits

    return logits_fn

"""Decoding one token after the other.

    token before --logits--> draw, or take what is known --> next token

Runs of known tokens are read in one pass with the open token that follows them.

Source: the baseline of MAGVIT, arXiv 2212.05199, section 4.3.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kinolex.errors import ShapeError, UsageError
from kinolex.masks import HIDDEN
from kinolex.sampling.choose import Choice, choose
from kinolex.sampling.parallel import FactorLogits

StepFn = Callable[[int, Tensor], FactorLogits]
"""(start, factors [B, M, F] of the tokens before start ... start + M - 1, HIDDEN before the first of all) -> logits
[B, 1, V] of token start + M - 1, factor by factor. Calls follow one another without gaps, so it may keep a cache."""
OnToken = Callable[[int, int], None]
"""(tokens settled, tokens in all)."""


@torch.inference_mode()
def sample_autoregressive(
    step_fn: StepFn,
    known_BLF: Tensor,
    choice: Choice,
    generator: torch.Generator,
    *,
    on_token: OnToken | None = None,
) -> Tensor:
    """Factors [B, L, F] of every token.

    Args:
        known_BLF: factors of the tokens that are settled, HIDDEN where they are to be drawn. Settled ones stay.

    Raises:
        ShapeError: a token of which only some factors are hidden.
    """
    open_BL = (known_BLF == HIDDEN).any(dim=-1)
    if not torch.equal(open_BL, (known_BLF == HIDDEN).all(dim=-1)):
        raise ShapeError("of every token either all factors must be known or none")
    length, num_factors = known_BLF.shape[1:]
    open_L = open_BL.any(dim=0).tolist()
    tokens_BLF = known_BLF.clone()
    start = 0
    for position in range(length):
        if not open_L[position]:
            continue
        # What is read stands one place before what it predicts.
        before_BMF = tokens_BLF[:, max(start - 1, 0) : position]
        if start == 0:
            before_BMF = torch.cat([torch.full_like(tokens_BLF[:, :1], HIDDEN), before_BMF], dim=1)
        factor_logits = step_fn(start, before_BMF)
        drawn_B1F = torch.zeros_like(tokens_BLF[:, :1])
        for factor in range(num_factors):
            ids_B1, _ = choose(factor_logits(factor, drawn_B1F), choice, generator)
            drawn_B1F[..., factor] = torch.where(
                open_BL[:, position : position + 1], ids_B1, known_BLF[:, position : position + 1, factor]
            )
        tokens_BLF[:, position : position + 1] = drawn_B1F
        start = position + 1
        if on_token is not None:
            on_token(start, length)
    return tokens_BLF


def guided_steps(conditional: StepFn, unconditional: StepFn, scale: float) -> StepFn:
    """Logits pushed away from those without a condition: l + scale (l - l0). Twice the work.

    Source: classifier-free guidance, arXiv 2207.12598.
    """
    if not scale >= 0:
        raise UsageError(f"guidance must be 0 or more, got {scale}")
    if scale == 0:
        return conditional

    def step_fn(start: int, before_BMF: Tensor) -> FactorLogits:
        ours, theirs = conditional(start, before_BMF), unconditional(start, before_BMF)

        def factor_logits(factor: int, chosen_B1F: Tensor) -> Tensor:
            wanted_B1V = ours(factor, chosen_B1F)
            return wanted_B1V + scale * (wanted_B1V - theirs(factor, chosen_B1F))

        return factor_logits

    return step_fn

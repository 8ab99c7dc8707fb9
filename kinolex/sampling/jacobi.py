"""Token-by-token sampling in fewer passes, with exactly the same distribution: coupled Jacobi decoding.

    guesses for the next tokens --one pass--> distributions p --couple each guess with its p--> new tokens
    up to and with the first token that changed all are settled; the others, drawn from their p, are the next guesses

A guess x was drawn from some q (a draft: from q(x) = 1). Coupling keeps it with probability min(1, p(x) / q(x)) and
otherwise draws from what p has more than q, so what comes out has the distribution p whatever the guess was. All that
decides when a token is settled lies before it, so each is drawn from its own distribution given the tokens before it.

Source: speculative sampling, arXiv 2302.01318; speculative Jacobi decoding, arXiv 2410.01699. That every token of the
window is coupled, and not only those up to the first that is rejected, keeps guesses alive from pass to pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kinolex.errors import ShapeError, UsageError
from kinolex.masks import HIDDEN
from kinolex.sampling.autoregressive import OnToken, StepFn
from kinolex.sampling.choose import Choice, distribution, gumbel_like
from kinolex.sampling.parallel import FactorLogits

ReadFn = Callable[[int, Tensor], FactorLogits]
"""(start, factors [B, M, F] of the tokens before start ... start + M - 1, HIDDEN before the first of all) -> logits
[B, M, V] of the tokens start ... start + M - 1, factor by factor. It may keep a cache of what it read; what it read at
these places or later before is not to be looked at any more."""
DraftFn = Callable[[int, Tensor], Tensor]
"""(place, factors [B, L, F] of which those before the place are settled or guessed) -> a guess [B, F]."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    tokens_BLF: Tensor
    passes: int
    """How often the network was asked; token by token it is once for every open token."""


def last_of(read_fn: ReadFn) -> StepFn:
    """The function that sample_autoregressive asks."""

    def step_fn(start: int, before_BMF: Tensor) -> FactorLogits:
        factor_logits = read_fn(start, before_BMF)
        length = before_BMF.shape[1]
        return lambda factor, chosen_B1F: factor_logits(factor, chosen_B1F.expand(-1, length, -1))[:, -1:]

    return step_fn


def look_back(distance: int, before_BNF: Tensor | None = None) -> DraftFn:
    """Guess that a token is the one `distance` places before: h w of a grid, the same place one frame earlier.

    Args:
        before_BNF: what came before the first token, such as the frame that is given.
    """
    if distance < 1:
        raise UsageError(f"a draft looks back at least one place, got {distance}")

    def draft(place: int, tokens_BLF: Tensor) -> Tensor:
        past_BLF = tokens_BLF[:, :place]
        if before_BNF is not None:
            past_BLF = torch.cat([before_BNF.to(tokens_BLF.device), past_BLF], dim=1)
        if not past_BLF.shape[1]:
            return torch.zeros_like(tokens_BLF[:, 0])
        return past_BLF[:, max(-distance, -past_BLF.shape[1])]

    return draft


@torch.inference_mode()
def sample_jacobi(
    read_fn: ReadFn,
    known_BLF: Tensor,
    choice: Choice,
    generator: torch.Generator,
    *,
    window: int = 16,
    draft: DraftFn | None = None,
    on_token: OnToken | None = None,
) -> Drawn:
    """Tokens with the distribution of sample_autoregressive, and the passes that they took.

    Args:
        known_BLF: factors of the tokens that are settled, HIDDEN where they are to be drawn. Settled ones stay.
        window: tokens that a pass looks at.
        draft: the first guess of a token; None guesses the token before it.

    Raises:
        UsageError: an empty window. ShapeError: a token of which only some factors are hidden.
    """
    if window < 1:
        raise UsageError(f"a window holds at least one token, got {window}")
    open_BL = (known_BLF == HIDDEN).any(dim=-1)
    if not torch.equal(open_BL, (known_BLF == HIDDEN).all(dim=-1)):
        raise ShapeError("of every token either all factors must be known or none")
    batch, length, num_factors = known_BLF.shape
    draft = look_back(1) if draft is None else draft
    tokens_BLF = known_BLF.clone()
    place_L = torch.arange(length, device=known_BLF.device)
    settled_B = torch.zeros(batch, dtype=torch.long, device=known_BLF.device)
    start, guessed, passes = 0, 0, 0
    from_BMV: list[Tensor] = []  # for every factor, what the guesses start ... guessed - 1 were drawn from
    while start < length:
        stop = min(start + window, length)
        for place in range(guessed, stop):
            guess_BF = torch.where(open_BL[:, place, None], draft(place, tokens_BLF), tokens_BLF[:, place])
            tokens_BLF[:, place] = guess_BF
        before_BMF = tokens_BLF[:, max(start - 1, 0) : stop - 1]
        if start == 0:
            before_BMF = torch.cat([torch.full_like(tokens_BLF[:, :1], HIDDEN), before_BMF], dim=1)
        factor_logits, passes = read_fn(start, before_BMF), passes + 1
        old_BMF, new_BMF = tokens_BLF[:, start:stop], tokens_BLF[:, start:stop].clone()
        free_BM = open_BL[:, start:stop] & (place_L[start:stop] >= settled_B[:, None])
        now_BMV = []
        for factor in range(num_factors):
            wanted_BMV = distribution(factor_logits(factor, new_BMF), choice)
            sure_BMV = F.one_hot(old_BMF[:, guessed - start :, factor], wanted_BMV.shape[-1]).float()
            drawn_from_BMV = torch.cat([from_BMV[factor], sure_BMV], dim=1) if from_BMV else sure_BMV
            coupled_BM = couple(old_BMF[..., factor], drawn_from_BMV, wanted_BMV, generator)
            new_BMF[..., factor] = torch.where(free_BM, coupled_BM, old_BMF[..., factor])
            now_BMV.append(wanted_BMV)
        changed_BM = (new_BMF != old_BMF).any(dim=-1)
        tokens_BLF[:, start:stop] = new_BMF
        # The first that changed is right as well: all before it stayed as they were when it was drawn.
        first_B = torch.where(changed_BM.any(dim=1), changed_BM.long().argmax(dim=1) + 1, stop - start)
        settled_B = torch.maximum(settled_B, start + first_B)
        following, guessed = int(settled_B.min()), stop
        from_BMV = [wanted_BMV[:, following - start :] for wanted_BMV in now_BMV]
        start = following
        if on_token is not None:
            on_token(start, length)
    return Drawn(tokens_BLF, passes)


def couple(guess_BM: Tensor, from_BMV: Tensor, wanted_BMV: Tensor, generator: torch.Generator) -> Tensor:
    """Ids [B, M] drawn by wanted_BMV that differ as rarely as can be from guesses drawn by from_BMV."""
    before_BM, now_BM = (p.gather(-1, guess_BM[..., None])[..., 0] for p in (from_BMV, wanted_BMV))
    uniform_BM = torch.rand(guess_BM.shape, generator=generator, device=generator.device).to(guess_BM.device)
    kept_BM = uniform_BM * before_BM < now_BM
    more_BMV = (wanted_BMV - from_BMV).clamp(min=0)
    # Equal distributions differ by rounding alone; then any draw will do.
    more_BMV = torch.where(more_BMV.sum(dim=-1, keepdim=True) > 0, more_BMV, wanted_BMV)
    drawn_BM = (more_BMV.log() + gumbel_like(more_BMV, generator)).argmax(dim=-1)
    return torch.where(kept_BM, guess_BM, drawn_BM)

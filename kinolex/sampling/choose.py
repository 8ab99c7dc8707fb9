"""One id from each row of logits: temperature, top-k, top-p, and noise that a seed fixes on every device.

logits [..., V] --keep the likely--> --add Gumbel noise times temperature--> argmax     (temperature 0: the likeliest)

Source: nucleus sampling, arXiv 1904.09751; the Gumbel-max trick: Gumbel 1954.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kinolex.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How ids are drawn."""

    temperature: float = 1.0
    top_k: int | None = None
    """Only the k likeliest ids."""
    top_p: float = 1.0
    """Only the fewest ids that have at least this share of the probability together."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UsageError(f"temperature must be 0 or more and finite, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k must be 1 or more, got {self.top_k}")
        if not 0.0 < self.top_p <= 1.0:
            raise UsageError(f"top_p must be above 0 and at most 1, got {self.top_p}")


def gumbel_like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Gumbel noise of a tensor's shape, drawn on the generator's device, so that a seed means the same everywhere."""
    uniform = torch.rand(tensor.shape, generator=generator, device=generator.device).clamp_(1e-20, 1 - 1e-7)
    return uniform.log_().neg_().log_().neg_().to(tensor.device)


def choose(logits_V: Tensor, choice: Choice, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(ids [...], their log-probabilities before any temperature [...]) of logits [..., V]."""
    log_probability_V = torch.log_softmax(logits_V.float(), dim=-1)
    kept_V = _keep_likely(log_probability_V, choice)
    if choice.temperature == 0.0:
        ids = kept_V.argmax(dim=-1)
    else:
        ids = (kept_V + choice.temperature * gumbel_like(kept_V, generator)).argmax(dim=-1)
    return ids, log_probability_V.gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def distribution(logits_V: Tensor, choice: Choice) -> Tensor:
    """Probabilities [..., V], float32, by which `choose` draws: the likeliest id alone at temperature 0."""
    kept_V = _keep_likely(torch.log_softmax(logits_V.float(), dim=-1), choice)
    if choice.temperature == 0.0:
        return torch.nn.functional.one_hot(kept_V.argmax(dim=-1), kept_V.shape[-1]).float()
    return (kept_V / choice.temperature).softmax(dim=-1)


def _keep_likely(log_probability_V: Tensor, choice: Choice) -> Tensor:
    kept_V = log_probability_V
    if choice.top_k is not None and choice.top_k < kept_V.shape[-1]:
        # By place and not by value: of equally likely ids only as many as were asked for.
        best_V = kept_V.topk(choice.top_k, dim=-1)
        kept_V = torch.full_like(kept_V, -torch.inf).scatter(-1, best_V.indices, best_V.values)
    if choice.top_p < 1.0:
        sorted_V, order_V = kept_V.sort(dim=-1, descending=True)
        before_V = sorted_V.exp().cumsum(dim=-1) - sorted_V.exp()
        drop_V = torch.zeros_like(kept_V, dtype=torch.bool).scatter(-1, order_V, before_V >= choice.top_p)
        kept_V = kept_V.masked_fill(drop_V, -torch.inf)
    return kept_V

"""Ids with large vocabularies, cut into factors: embedded as a sum of small tables, predicted by heads tied to them.

    id of 18 bits -> (low 9 bits, high 9 bits) -> sum of two rows of 512        hidden -> logits, factor by factor

Factors can be predicted independently, as in MAGVIT-v2, or each with the ones before it known.

Source: MAGVIT-v2, arXiv 2310.05737, token factorization; Open-MAGVIT2, arXiv 2409.04410, for the chain of factors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinolex.errors import ConfigError
from kinolex.masks import HIDDEN


def split_ids(ids: Tensor, factors: Sequence[int]) -> Tensor:
    """Ids [...] as factors [..., F], least significant first; HIDDEN stays HIDDEN in every factor."""
    parts, rest = [], ids
    for size in factors:
        parts.append(torch.where(ids == HIDDEN, ids, rest % size))
        rest = rest.div(size, rounding_mode="floor")
    return torch.stack(parts, dim=-1)


def join_ids(factors_F: Tensor, factors: Sequence[int]) -> Tensor:
    """The inverse of split_ids for grids in which nothing is hidden."""
    ids = torch.zeros_like(factors_F[..., 0])
    for index in reversed(range(len(factors))):
        ids = ids * factors[index] + factors_F[..., index]
    return ids


class FactoredTokens(nn.Module):
    """Embedding and tied heads of one token vocabulary.

    Args:
        factors: sizes, whose product is the vocabulary.
        width: of embeddings and hidden states.
        chained: predict every factor with the ones before it known.
        digits: what ids are numbers of, least significant first: their products make the factors. Rows of ids that
            share a digit then share a part, which a few clips teach.

    Raises:
        ConfigError: factors below 2, or digits that do not make the factors.
    """

    def __init__(self, factors: Sequence[int], width: int, *, chained: bool, digits: Sequence[int] = ()) -> None:
        super().__init__()
        if not factors or min(factors) < 2:
            raise ConfigError(f"a vocabulary needs factors of at least two ids each, got {tuple(factors)}")
        self.sizes, self.chained = tuple(factors), chained
        # One more row than ids: what is hidden. It takes no part in the heads.
        self.tables = nn.ParameterList(nn.Parameter(0.02 * torch.randn(size + 1, width)) for size in factors)
        groups = grouped_digits(factors, digits) if digits else []
        self.digit_tables = nn.ParameterList(nn.Parameter(0.02 * torch.randn(sum(group), width)) for group in groups)
        for index, group in enumerate(groups):
            self.register_buffer(f"digit_rows_{index}", _digit_rows(group), persistent=False)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(size)) for size in factors)
        self.dense, self.norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.earlier = nn.ModuleList(nn.Linear(width, width) for _ in factors[1:]) if chained else None

    @property
    def vocab_size(self) -> int:
        return math.prod(self.sizes)

    def table(self, factor: int) -> Tensor:
        """Rows [V + 1, D] of a factor's ids and, last, of what is hidden."""
        table_VD = self.tables[factor]
        if not len(self.digit_tables):
            return table_VD
        rows_VG = self.get_buffer(f"digit_rows_{factor}")
        shared_VD = F.embedding(rows_VG, self.digit_tables[factor]).sum(dim=1)
        return table_VD + F.pad(shared_VD, (0, 0, 0, 1))

    def embed(self, factors_BLF: Tensor) -> Tensor:
        """Sum of the factors' rows, [B, L, D]; HIDDEN has rows of its own."""
        rows = [
            F.embedding(
                torch.where(factors_BLF[..., index] == HIDDEN, size, factors_BLF[..., index]), self.table(index)
            )
            for index, size in enumerate(self.sizes)
        ]
        return torch.stack(rows).sum(dim=0)

    def logits(self, hidden_BLD: Tensor, factor: int, chosen_BLF: Tensor | None = None) -> Tensor:
        """Logits [B, L, V of this factor], float32.

        Args:
            chosen_BLF: at least the factors before this one, without HIDDEN; only looked at when chained.
        """
        if self.earlier is not None and factor:
            assert chosen_BLF is not None
            rows = [F.embedding(chosen_BLF[..., index], self.table(index)) for index in range(factor)]
            hidden_BLD = hidden_BLD + self.earlier[factor - 1](torch.stack(rows).sum(dim=0))
        features_BLD = self.norm(F.gelu(self.dense(hidden_BLD)))
        table_VD = self.table(factor)[: self.sizes[factor]]
        return F.linear(features_BLD, table_VD).float() + self.biases[factor]


def grouped_digits(factors: Sequence[int], digits: Sequence[int]) -> list[list[int]]:
    """The digits of each factor. Raises ConfigError where they do not multiply to the factors one after the other."""
    groups, rest = [], list(digits)
    for size in factors:
        group: list[int] = []
        while rest and math.prod(group) < size:
            group.append(rest.pop(0))
        groups.append(group)
    if rest or [math.prod(group) for group in groups] != list(factors):
        raise ConfigError(f"digits {tuple(digits)} do not make the factors {tuple(factors)} one after the other")
    return groups


def _digit_rows(group: Sequence[int]) -> Tensor:
    """Row [V, G] of every digit of every id in one table of all digits."""
    ids, rows, start = torch.arange(math.prod(group)), [], 0
    for levels in group:
        rows.append(ids % levels + start)
        ids, start = ids // levels, start + levels
    return torch.stack(rows, dim=1)

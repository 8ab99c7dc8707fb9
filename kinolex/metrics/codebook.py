"""How much of its vocabulary a tokenizer uses. Memory grows with the number of tokens, never with the vocabulary."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kinolex.errors import ShapeError, UsageError


def codebook_usage(ids: Tensor, vocab_size: int) -> float:
    """Share of the vocabulary that occurs at least once, in (0, 1].

    Args:
        ids: int64 of any shape, at least one, each in [0, vocab_size).

    Raises:
        ShapeError: no ids, another dtype, or ids outside the vocabulary.
    """
    return len(_counts(ids, vocab_size)) / vocab_size


def codebook_reach(ids: Tensor, vocab_size: int) -> float:
    """Share of what these tokens could show at most: distinct ids / min(number of tokens, vocab_size), in (0, 1].

    A small sample cannot show a large vocabulary; this figure says how much of the possible it does show. Arguments and
    errors as codebook_usage.
    """
    return len(_counts(ids, vocab_size)) / min(ids.numel(), vocab_size)


def codebook_reach_of_uniform(ids: Tensor, vocab_size: int) -> float:
    """Distinct ids against how many as many draws from a uniform vocabulary would show on average; about 1 is ideal.

    Even perfectly even use repeats ids by chance: 100,000 tokens of 2**18 ids show only five sixths as many distinct
    ones, so codebook_reach cannot come near 1 there. This figure takes that away.
    Arguments and errors as codebook_usage.
    """
    # vocab * (1 - (1 - 1/vocab) ** tokens), without losing the small 1/vocab to rounding
    expected = -vocab_size * math.expm1(ids.numel() * math.log1p(-1.0 / vocab_size)) if vocab_size > 1 else 1.0
    return len(_counts(ids, vocab_size)) / expected


def codebook_perplexity(ids: Tensor, vocab_size: int) -> float:
    """2 to the entropy of the ids: as many equally likely ids would be as hard to guess; in [1, vocab_size].

    It cannot exceed the number of tokens measured. Arguments and errors as codebook_usage.
    """
    return 2.0 ** _entropy_bits(_counts(ids, vocab_size))


def digit_entropies_bits(ids: Tensor, levels: Sequence[int]) -> list[float]:
    """Entropy, in bits, of each digit of ids written in mixed radix, lowest digit first.

    Args:
        ids: int64 of any shape, each in [0, product of levels).
        levels: values per digit: (2,) * num_bits for LFQ, the levels of the config for FSQ.

    Returns:
        One value per digit, between 0 (the digit never changes) and log2 of its levels (all values equally often).

    Raises:
        ShapeError: as codebook_usage. UsageError: no levels, or one below 2.
    """
    if not levels or min(levels) < 2:
        raise UsageError(f"every digit needs at least 2 levels, got {tuple(levels)}")
    counted_ids, counts = _unique(ids, math.prod(levels))
    entropies = []
    for size in levels:
        digit_counts = torch.zeros(size, dtype=torch.int64).index_add_(0, counted_ids % size, counts)
        entropies.append(_entropy_bits(digit_counts[digit_counts > 0]))
        counted_ids = counted_ids // size
    return entropies


def usage_histogram(ids: Tensor, vocab_size: int, *, bins: int = 64) -> list[int]:
    """How many tokens fall into each of `bins` equal ranges of ids, for a picture of where the vocabulary is used."""
    counted_ids, counts = _unique(ids, vocab_size)
    bins = min(bins, vocab_size)
    return torch.zeros(bins, dtype=torch.int64).index_add_(0, counted_ids * bins // vocab_size, counts).tolist()


def ranked_counts(ids: Tensor, vocab_size: int) -> list[int]:
    """How often each id that occurs does, most frequent first."""
    return sorted(_counts(ids, vocab_size).tolist(), reverse=True)


def _counts(ids: Tensor, vocab_size: int) -> Tensor:
    return _unique(ids, vocab_size)[1]


def _unique(ids: Tensor, vocab_size: int) -> tuple[Tensor, Tensor]:
    if ids.dtype != torch.int64 or ids.numel() == 0:
        raise ShapeError(f"codebook figures need at least one int64 id, got {ids.dtype} with shape {tuple(ids.shape)}")
    counted_ids, counts = torch.unique(ids.detach().cpu().flatten(), return_counts=True)
    if int(counted_ids[0]) < 0 or int(counted_ids[-1]) >= vocab_size:
        raise ShapeError(
            f"ids must lie in 0..{vocab_size - 1}, got {int(counted_ids[0])}..{int(counted_ids[-1])}; "
            "is this the vocabulary of the tokenizer that made them?"
        )
    return counted_ids, counts


def _entropy_bits(counts: Tensor) -> float:
    shares = counts.double() / counts.sum()
    return max(0.0, float(-(shares * shares.log2()).sum()))

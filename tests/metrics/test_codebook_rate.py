"""Codebook figures and rates against counts by hand."""

from __future__ import annotations

import math

import pytest
import torch

from kinolex.errors import ShapeError, UsageError
from kinolex.metrics import (
    bits_per_pixel,
    codebook_perplexity,
    codebook_reach,
    codebook_reach_of_uniform,
    codebook_usage,
    digit_entropies_bits,
    ranked_counts,
    raw_bits_per_pixel,
    raw_token_bytes,
    usage_histogram,
)


def test_usage_counts_distinct_ids() -> None:
    ids = torch.tensor([[0, 1], [1, 7]])

    assert codebook_usage(ids, 8) == 3 / 8
    assert codebook_reach(ids, 8) == 3 / 4
    assert codebook_reach(ids.repeat(4, 1), 8) == 3 / 8
    assert ranked_counts(ids, 8) == [2, 1, 1]


def test_even_random_use_reaches_what_even_random_use_can() -> None:
    even = torch.randint(2**18, (100_000,), generator=torch.Generator().manual_seed(0))

    assert codebook_reach_of_uniform(even, 2**18) == pytest.approx(1.0, abs=0.01)
    assert codebook_reach(even, 2**18) < 0.85
    assert codebook_reach_of_uniform(even % 1000, 2**18) < 0.02
    assert codebook_reach_of_uniform(torch.zeros(3, dtype=torch.int64), 1) == 1.0
    assert codebook_reach_of_uniform(torch.tensor([7]), 2**48) == pytest.approx(1.0)


def test_perplexity_is_the_number_of_equally_likely_ids() -> None:
    assert codebook_perplexity(torch.arange(100).repeat(3), 2**18) == pytest.approx(100.0)
    assert codebook_perplexity(torch.zeros(5, dtype=torch.int64), 2**18) == 1.0
    assert codebook_perplexity(torch.tensor([0, 0, 0, 1]), 2) == pytest.approx(2 ** (2 - 0.75 * math.log2(3)))


def test_a_vocabulary_far_beyond_memory_costs_nothing() -> None:
    ids = torch.tensor([0, 5, 2**47])

    assert codebook_usage(ids, 2**48) == 3 / 2**48
    assert codebook_perplexity(ids, 2**48) == pytest.approx(3.0)
    assert sum(usage_histogram(ids, 2**48)) == 3


def test_digit_entropies_see_each_bit_and_each_level() -> None:
    every_id = torch.arange(8 * 5 * 3)
    stuck_bit = torch.tensor([0b00, 0b01, 0b00, 0b01])

    assert digit_entropies_bits(every_id, (8, 5, 3)) == pytest.approx([3.0, math.log2(5), math.log2(3)])
    assert digit_entropies_bits(stuck_bit, (2, 2)) == [1.0, 0.0]


def test_ids_outside_the_vocabulary_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"0\.\.3"):
        codebook_usage(torch.tensor([4]), 4)
    with pytest.raises(ShapeError, match="at least one"):
        codebook_perplexity(torch.zeros(0, dtype=torch.int64), 4)
    with pytest.raises(UsageError, match="levels"):
        digit_entropies_bits(torch.tensor([0]), ())


def test_rates_of_known_sizes() -> None:
    assert raw_token_bytes(1000, 2**18) == 2250
    assert raw_token_bytes(3, 1024) == 4
    assert raw_bits_per_pixel(2**18, (4, 8, 8)) == pytest.approx(0.0703, abs=1e-4)
    assert bits_per_pixel(2250, 1000 * 256) == pytest.approx(raw_bits_per_pixel(2**18, (4, 8, 8)))
    with pytest.raises(UsageError, match="num_pixels"):
        bits_per_pixel(1, 0)

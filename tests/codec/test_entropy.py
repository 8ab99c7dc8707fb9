from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kinolex.codec.entropy import LEAST, TOTAL, WEIGHTS, DigitDecoder, DigitEncoder, bits_NV, frequencies_NV
from kinolex.errors import DamagedStream

MODULUS = 2**64

rows = st.integers(2, 256).flatmap(
    lambda size: st.lists(
        st.lists(st.integers(-(2**24), 2**24), min_size=size, max_size=size)
        | st.lists(st.integers(-400, 400), min_size=size, max_size=size),
        min_size=1,
        max_size=4,
    )
)


def in_words(logits_V: list[int]) -> list[int]:
    """docs/bitstream.md, 7.3, in Python's integers."""
    best = max(logits_V)
    weights = [int(WEIGHTS[min(best - logit, LEAST)]) for logit in logits_V]
    found = [1 + weight * (TOTAL - len(logits_V)) // sum(weights) for weight in weights]
    found[logits_V.index(best)] += TOTAL - sum(found)
    return found


def drawn(frequencies: Tensor, seed: int) -> Tensor:
    """A value per row, as likely as the row says."""
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(frequencies.double(), 1, generator=generator).flatten()


@settings(max_examples=60, deadline=None)
@given(rows)
def test_frequencies_are_the_documents_integers_sum_to_the_total_and_are_never_zero(logits: list[list[int]]) -> None:
    for dtype in (torch.float32, torch.int64):
        frequencies = frequencies_NV(torch.tensor(logits, dtype=dtype))
        assert frequencies.tolist() == [in_words(row) for row in logits]
        assert bool((frequencies.sum(dim=1) == TOTAL).all()) and int(frequencies.min()) >= 1


def test_the_table_is_the_nearest_integer_whatever_machine_rounds_it() -> None:
    assert int(WEIGHTS.sum()) == 24732456 and len(WEIGHTS) == LEAST + 1
    for distance, weight in enumerate(WEIGHTS.tolist()):
        # weight - 1/2 < 2**(20 - distance/16) < weight + 1/2, with a margin, in exact fractions to the 16th power
        power = Fraction(2) ** (320 - distance)
        margin = Fraction(1, 2) - Fraction(1, 1000)
        assert (weight - margin) ** 16 < power < (weight + margin) ** 16


def test_sixteen_units_of_logit_double_the_frequency() -> None:
    (row,) = frequencies_NV(torch.tensor([[0, 16, 32, 32]])).tolist()
    assert row[1] / row[0] == pytest.approx(2, rel=1e-5) and row[3] / row[1] == pytest.approx(2, rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(rows, st.integers(0, 2**31))
def test_digits_survive_the_coder_likely_and_unlikely_ones(logits: list[list[int]], seed: int) -> None:
    frequencies = frequencies_NV(torch.tensor(logits))
    any_digits_N = torch.randint(0, frequencies.shape[1], (len(logits),), generator=torch.Generator().manual_seed(seed))
    batches = [drawn(frequencies, seed), any_digits_N, frequencies.argmin(dim=1)]
    encoder = DigitEncoder()
    for digits_N in batches:
        encoder.put(digits_N, frequencies)
    decoder = DigitDecoder(encoder.finish())
    assert all(torch.equal(decoder.get(frequencies), digits_N) for digits_N in batches)


@pytest.mark.parametrize("values", [2, 8, 256])
def test_a_digit_costs_at_least_what_the_document_says_and_a_million_zeros_take_no_byte(values: int) -> None:
    likeliest = frequencies_NV(torch.tensor([[0] + [-(2**20)] * (values - 1)]))
    assert int(likeliest[0, 0]) == 2**24 - 16 * (values - 1)
    assert float(bits_NV(likeliest)[0, 0]) > 1.44 * (values - 1) / 2**20
    encoder, all_rows = DigitEncoder(), likeliest.expand(2**18 + 1, values)
    for rows_NV in all_rows.split(2**16):
        encoder.put(torch.zeros(len(rows_NV), dtype=torch.int64), rows_NV)
    data = encoder.finish()
    assert data == b"" and not DigitDecoder(data).get(all_rows).any()


def encoded_in_words(digits: list[int], frequencies: list[list[int]]) -> bytes:
    """docs/bitstream.md, 7.4, the encoder."""
    lower, span, held, first, words = 0, MODULUS - 1, 0, 0, []

    def release(carry: bool) -> None:
        nonlocal held
        words.extend([first + carry, *[0 if carry else 2**32 - 1] * (held - 1)])
        held = 0

    for value, row in zip(digits, frequencies, strict=True):
        scale = span >> 24
        new = (lower + scale * sum(row[:value])) % MODULUS
        span = scale * row[value]
        if held and (new + span) % MODULUS > new:
            release(new < lower)
        lower = new
        if span < 2**32:
            word, lower, span = lower >> 32, lower * 2**32 % MODULUS, span * 2**32
            if held:
                held += 1
            elif (lower + span) % MODULUS > lower:
                words.append(word)
            else:
                first, held = word, 1
    point = (lower + 2**32 - 1) % MODULUS
    if held:
        release(point < lower)
    words.append(point >> 32)
    if (lower + span) % MODULUS >> 32 == point >> 32:
        words.append(0)
    return b"".join(word.to_bytes(4, "big") for word in words).rstrip(b"\0")


@settings(max_examples=40, deadline=None)
@given(rows, st.integers(0, 2**31), st.integers(1, 40))
def test_bytes_are_those_of_the_documents_encoder(logits: list[list[int]], seed: int, times: int) -> None:
    frequencies = frequencies_NV(torch.tensor(logits * times))
    likely_N, unlikely_N = drawn(frequencies, seed), frequencies.argmin(dim=1)
    digits_N = torch.where(torch.arange(len(likely_N)) % 3 == 0, unlikely_N, likely_N)
    encoder = DigitEncoder()
    encoder.put(digits_N, frequencies)
    assert encoder.finish() == encoded_in_words(digits_N.tolist(), frequencies.tolist())


def test_a_carry_runs_through_words_that_were_held_back() -> None:
    # Digits whose interval keeps 2**63 inside it, so that words wait, then one that goes below or above it.
    frequencies = frequencies_NV(torch.tensor([[3, 0, 5]])).expand(40, 3)
    middle_N, waited, carried = DigitDecoder(b"\x80").get(frequencies), 0, 0
    for count in range(30, 40):
        for last in range(3):
            digits_N = torch.cat([middle_N[:count], torch.tensor([last])])
            encoder = DigitEncoder()
            encoder.put(digits_N, frequencies[: count + 1].contiguous())
            data = encoder.finish()
            waited += data.startswith(bytes.fromhex("7fffffffff"))
            carried += data.startswith(bytes.fromhex("8000000000"))
            assert data == encoded_in_words(digits_N.tolist(), frequencies[: count + 1].tolist())
            assert torch.equal(DigitDecoder(data).get(frequencies[: count + 1].contiguous()), digits_N)
    assert waited > 0 and carried > 0


@pytest.mark.parametrize("spread", [0, 40, 400])
@pytest.mark.parametrize("size", [2, 8, 256])
def test_estimated_bits_are_within_one_percent_and_four_bytes_of_real_bytes(size: int, spread: int) -> None:
    generator = torch.Generator().manual_seed(size + spread)
    frequencies = frequencies_NV(torch.randint(-spread, spread + 1, (20_000, size), generator=generator))
    digits_N = drawn(frequencies, 1)
    encoder = DigitEncoder()
    encoder.put(digits_N, frequencies)
    estimated_bits = float(bits_NV(frequencies).gather(1, digits_N.unsqueeze(1)).sum())
    assert abs(8 * len(encoder.finish()) - estimated_bits) < 0.01 * estimated_bits + 32


def test_a_digit_that_is_almost_certain_costs_almost_nothing() -> None:
    certain = frequencies_NV(torch.tensor([[1000, 0, 0, 0]])).expand(100_000, 4)
    encoder = DigitEncoder()
    encoder.put(torch.zeros(100_000, dtype=torch.int64), certain)
    assert len(encoder.finish()) < 8


def test_zeros_at_the_end_of_the_bytes_are_not_written_and_not_missed() -> None:
    flat = frequencies_NV(torch.zeros(12, 256))
    for digits_N in (torch.zeros(12, dtype=torch.int64), torch.tensor([7] + [0] * 11)):
        encoder = DigitEncoder()
        encoder.put(digits_N, flat)
        data = encoder.finish()
        assert len(data) <= 6 and not data.endswith(b"\0")
        assert torch.equal(DigitDecoder(data).get(flat), digits_N)
        assert torch.equal(DigitDecoder(data + bytes(9)).get(flat), digits_N)


def test_bytes_that_no_encoder_writes_give_digits_or_the_named_error() -> None:
    dice, refused = np.random.default_rng(0), 0
    sevenths = frequencies_NV(torch.zeros(400, 7))
    for _ in range(100):
        try:
            digits_N = DigitDecoder(dice.bytes(160)).get(sevenths)
            assert int(digits_N.min()) >= 0 and int(digits_N.max()) < 7
        except DamagedStream:
            refused += 1
    assert 0 < refused < 100  # both ways have been seen


def test_bits_are_minus_log2_of_the_share() -> None:
    assert bits_NV(torch.tensor([[TOTAL // 2, 1, TOTAL]])).tolist() == [[1.0, 24.0, 0.0]]
    assert math.isclose(float(bits_NV(torch.tensor(TOTAL // 10))), math.log2(10), rel_tol=1e-6)

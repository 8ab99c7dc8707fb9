"""The coders that the learned prior is compared with are honest: strong, causal, and as short as they say."""

from __future__ import annotations

import lzma
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks._adaptive import NOT_THERE, AdaptiveDigit, digit_planes, fixed_bytes, packed, xz
from kinolex.codec.entropy import TOTAL, DigitDecoder, DigitEncoder

VALUES = 7


def skewed(count: int, seed: int = 0) -> NDArray[np.int64]:
    """Independent digits, small ones most often: [1, 1, count]."""
    rng = np.random.default_rng(seed)
    return np.minimum(rng.geometric(0.5, size=(1, 1, count)) - 1, VALUES - 1)


def inherited(latents: int, side: int, seed: int = 0) -> NDArray[np.int64]:
    """Digits that four times out of five stay as they were in the frame before: [t, h, w]."""
    rng = np.random.default_rng(seed)
    digits_thw = rng.integers(VALUES, size=(latents, side, side))
    for frame in range(1, latents):
        stays = rng.random((side, side)) < 0.8
        digits_thw[frame] = np.where(stays, digits_thw[frame - 1], digits_thw[frame])
    return digits_thw


def empirical_bits(digits: NDArray[np.int64]) -> float:
    """Of digits whose counts are known beforehand, each taken by itself."""
    counts_V = np.bincount(digits.ravel())
    counts_V = counts_V[counts_V > 0]
    return float((counts_V * np.log2(digits.size / counts_V)).sum())


def test_order_0_pays_for_learning_and_no_more() -> None:
    digits_thw = skewed(3000)
    entropy = empirical_bits(digits_thw)

    bits = AdaptiveDigit(VALUES, order=0).bits(digits_thw)

    # Krichevsky and Trofimov: half a logarithm for each free parameter, and a constant.
    assert entropy < bits < entropy + (VALUES - 1) / 2 * math.log2(3000) + VALUES


def test_order_2_learns_what_stays_from_frame_to_frame() -> None:
    digits_thw = inherited(30, 8)
    stays = 0.8 + 0.2 / VALUES
    entropy = -stays * math.log2(stays) - (1 - stays) * math.log2(0.2 / VALUES)

    bits = AdaptiveDigit(VALUES, order=2).bits(digits_thw) / digits_thw.size
    order_0 = AdaptiveDigit(VALUES, order=0).bits(digits_thw) / digits_thw.size

    assert entropy < bits < entropy + 0.25
    assert order_0 == pytest.approx(math.log2(VALUES), rel=0.02)


def test_order_2_loses_little_to_order_0_where_there_is_nothing_to_see() -> None:
    digits_thw = skewed(3000).reshape(30, 10, 10)

    bits = AdaptiveDigit(VALUES, order=2).bits(digits_thw)

    assert bits < 1.04 * AdaptiveDigit(VALUES, order=0).bits(digits_thw)


@pytest.mark.parametrize("order", [0, 2])
def test_what_was_learned_stays_for_the_next_run(order: int) -> None:
    model, digits_thw = AdaptiveDigit(VALUES, order=order), inherited(4, 6)

    assert model.bits(digits_thw) > model.bits(digits_thw)


@pytest.mark.parametrize("order", [0, 2])
def test_a_decoder_that_learns_alike_gets_the_digits_back_at_the_stated_length(order: int) -> None:
    digits_thw = inherited(6, 6)
    encoder, model = DigitEncoder(), AdaptiveDigit(VALUES, order=order)
    for (frame, row, column), value in np.ndenumerate(digits_thw):
        left = digits_thw[frame, row, column - 1] if column else NOT_THERE
        before = digits_thw[frame - 1, row, column] if frame else NOT_THERE
        encoder.put(torch.tensor([value]), frequencies_1V(model.predict(int(left), int(before))))
        model.update(int(value))
    data = encoder.finish()

    decoder, model, decoded_thw = DigitDecoder(data), AdaptiveDigit(VALUES, order=order), np.zeros_like(digits_thw)
    for frame, row, column in np.ndindex(*digits_thw.shape):
        left = decoded_thw[frame, row, column - 1] if column else NOT_THERE
        before = decoded_thw[frame - 1, row, column] if frame else NOT_THERE
        value = int(decoder.get(frequencies_1V(model.predict(int(left), int(before))))[0])
        decoded_thw[frame, row, column] = value
        model.update(value)

    assert np.array_equal(decoded_thw, digits_thw)
    assert AdaptiveDigit(VALUES, order=order).bits(digits_thw) / 8 == pytest.approx(len(data), abs=5)


def frequencies_1V(share_V: NDArray[np.float64]) -> torch.Tensor:
    assert share_V.sum() == pytest.approx(1.0) and share_V.min() > 0.0
    counts_V = 1 + torch.from_numpy(share_V * (TOTAL - VALUES)).long()
    counts_V[counts_V.argmax()] += TOTAL - counts_V.sum()
    return counts_V.unsqueeze(0)


def test_packed_ids_and_planes_of_digits_hold_what_they_were_made_from() -> None:
    ids = np.array([[0, 1, 511], [256, 300, 2]])
    digits_thwD = np.arange(24).reshape(2, 2, 2, 3)

    bits = np.unpackbits(np.frombuffer(packed(ids, 512), np.uint8))[: 9 * ids.size].reshape(-1, 9)
    planes = np.frombuffer(digit_planes(digits_thwD), np.uint8).reshape(3, 2, 2, 2)

    assert np.array_equal(bits @ (1 << np.arange(8, -1, -1)), ids.ravel())
    assert np.array_equal(planes, np.moveaxis(digits_thwD, -1, 0))
    assert fixed_bytes(6, 512) == len(packed(ids, 512)) == 7


def test_xz_is_measured_without_its_container() -> None:
    data = bytes(range(256)) * 40

    assert 0 < len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)) - xz(data) < 100

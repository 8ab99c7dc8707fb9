"""Integer logits -> integer frequencies -> range coder: where digits become bytes and bytes digits.

    logits, 1/16 bit --table--> weights --integer division--> frequencies, sum 2**24 --constriction--> 32-bit words

No floating point decides anything: the frequencies are integers, handed to the coder as floats that hold them exactly.
"""

from __future__ import annotations

from typing import Any

import constriction
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinolex.errors import DamagedStream

_coding: Any = constriction.stream  # pyright: ignore[reportAttributeAccessIssue] - a native module without stubs
PRECISION = 24
TOTAL = 2**PRECISION
"""Sum of the frequencies of one digit's values."""
UNITS_PER_BIT = 16
"""A logit of 16 more makes a value twice as likely."""
LEAST = 20 * UNITS_PER_BIT
"""Values more than this below the best are as unlikely as one exactly this far below."""

ROWS_AT_ONCE = 2**16
"""Frequencies that are copied for the decoder: one row may stand for a million digits, and a few bytes ask for them."""

SHARES = _coding.model.Categorical(perfect=False)
"""Gives every value 1 of TOTAL and shares out the rest in proportion, rounding down: see _shares."""

WEIGHTS = np.array([round(2.0 ** (20 - distance / UNITS_PER_BIT)) for distance in range(LEAST + 1)], np.int64)
"""Weight of a value by its distance below the best; rounding is unambiguous, no entry lies near a half."""


def frequencies_NV(logits_NV: Tensor) -> Tensor:
    """How often, of TOTAL times, each value of a digit is expected; at least once.

    Args:
        logits_NV: integers in units of 1/16 bit, in any dtype.

    Returns:
        int64, every row sums to TOTAL: 1 + floor(weight x (TOTAL - V) / sum of weights), the remainder to the best
        value (the first of equals).
    """
    logits, count = logits_NV.cpu().numpy().astype(np.int64), logits_NV.shape[1]
    rows_N, best_N = np.arange(len(logits)), logits.argmax(axis=1)  # which names the first of equals
    below_NV = np.minimum(logits[rows_N, best_N][:, None] - logits, LEAST)
    weights_NV = WEIGHTS[below_NV]
    share_NV = weights_NV * (TOTAL - count) // weights_NV.sum(axis=1, keepdims=True) + 1
    share_NV[rows_N, best_N] += TOTAL - share_NV.sum(axis=1)
    return torch.from_numpy(share_NV)


def bits_NV(frequencies: Tensor) -> Tensor:
    """What every value would cost, float64."""
    return PRECISION - torch.log2(frequencies.double())


class DigitEncoder:
    """Collects digits with their frequencies; `finish` gives the bytes."""

    def __init__(self) -> None:
        self._coder = _coding.queue.RangeEncoder()

    def put(self, digits_N: Tensor, frequencies: Tensor) -> None:
        """Append N digits; row n of frequencies [N, V] is digit n's."""
        self._coder.encode(_int32(digits_N), SHARES, _shares(frequencies))

    def finish(self) -> bytes:
        """All digits so far: 32-bit words, most significant byte first, without trailing zero bytes."""
        return self._coder.get_compressed().astype(">u4").tobytes().rstrip(b"\0")


class DigitDecoder:
    """The inverse of DigitEncoder; missing bytes count as zeros. Damage gives wrong digits or DamagedStream."""

    def __init__(self, data: bytes) -> None:
        words = np.frombuffer(data + bytes(-len(data) % 4), dtype=">u4").astype(np.uint32)
        self._coder = _coding.queue.RangeDecoder(words)

    def get(self, frequencies: Tensor) -> Tensor:
        """The next N digits, int64; row n of frequencies [N, V] is digit n's.

        Raises:
            DamagedStream: no encoder writes such bytes.
        """
        try:
            parts: list[NDArray[np.int32]] = [
                self._coder.decode(SHARES, _shares(rows_NV)) for rows_NV in frequencies.split(ROWS_AT_ONCE)
            ]
        except AssertionError as error:  # how constriction says it
            raise DamagedStream("a chunk's tokens are not what an encoder writes; the file is damaged") from error
        return torch.from_numpy(np.concatenate(parts).astype(np.int64)).to(frequencies.device)


def _int32(digits_N: Tensor) -> NDArray[np.int32]:
    return digits_N.cpu().numpy().astype(np.int32)


def _shares(frequencies: Tensor) -> NDArray[np.float32]:
    """Frequencies less the 1 that SHARES adds: they sum to all that it has to share, so nothing is rounded."""
    return (frequencies.cpu().numpy() - 1).astype(np.float32)

"""The coders that benchmarks/entropy.py compares with: adaptive models of one digit, and zstd and xz of the ids.

    digit of every position --contexts already seen--> probabilities --minus log2--> bits         AdaptiveDigit
    ids --packed bits, or a byte per digit--> zstd -19, xz -9e --> bytes                          general_bytes

An adaptive model knows nothing at first and learns as it codes. Its bits are the exact sum of -log2 of what it expected
of the digits that came: what an ideal arithmetic coder takes, which no real one beats.
"""

from __future__ import annotations

import importlib
import lzma
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinolex.errors import MissingExtra

NOT_THERE = -1
"""Context value of a neighbour outside the grid."""
MIX_BUCKETS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Weights of the mix are learned apart for these many sightings, or more, of the richest context."""
LEARNING_RATE = 0.02
BACKED_BY = 4.0
"""Sightings that what the next smaller context expects is worth."""
FORGET = 200.0
"""Sum of a context's counts above which they are halved. These three were tried on test clips, in their favour."""
LEAST_SHARE = 2.0**-20
"""No value is thought less likely than this before mixing."""


class AdaptiveDigit:
    """An adaptive model of one digit of the ids.

    Args:
        values: how many the digit has.
        order: 0 counts the values; 2 counts them by the same digit at the left, in the latent frame before, and of
            both, and mixes what these say.
        forget: counts of a context are halved when they sum to more than this.

    Order 0 is the estimator of Krichevsky and Trofimov, a half for every value to begin with. Every context of order 2
    begins with what the next smaller one expects, as PPM does, with the weight of a few sightings. The four are mixed
    in the logarithm, with weights that follow the gradient of the code length, as in PAQ.
    """

    def __init__(self, values: int, *, order: int, forget: float = math.inf) -> None:
        if order not in (0, 2):
            raise ValueError(f"order is 0 or 2, got {order}")
        self.values, self.order, self.forget = values, order, forget
        self._counts: dict[tuple[int, ...], NDArray[np.float64]] = {}
        self._weights = np.full((len(MIX_BUCKETS), 4), 0.25)
        self._seen: list[NDArray[np.float64]] = []
        self._logs_MV = np.zeros((4, values))
        self._mixed_V = np.zeros(values)
        self._bucket = 0

    def predict(self, left: int, before: int) -> NDArray[np.float64]:
        """Probabilities of the next digit, given the two digits that its context is made of; NOT_THERE if none."""
        nothing = self._of(())
        share_V = (nothing + 0.5) / (nothing.sum() + 0.5 * self.values)
        if self.order == 0:
            self._seen = [nothing]
            return share_V
        beside, earlier, both = self._of((0, left)), self._of((1, before)), self._of((2, left, before))
        self._seen = [nothing, beside, earlier, both]
        earlier_V = _backed_off(earlier, share_V)
        shares = (share_V, _backed_off(beside, share_V), earlier_V, _backed_off(both, earlier_V))
        self._logs_MV = np.log(np.maximum(np.stack(shares), LEAST_SHARE))
        self._bucket = int(np.searchsorted(MIX_BUCKETS, both.sum(), side="right")) - 1
        mixed_V = self._weights[self._bucket] @ self._logs_MV
        mixed_V = np.exp(mixed_V - mixed_V.max())
        self._mixed_V = mixed_V / mixed_V.sum()
        return self._mixed_V

    def update(self, value: int) -> None:
        """Learn from the digit that came, after predict."""
        if self.order == 2:
            gain_M = self._logs_MV[:, value] - self._logs_MV @ self._mixed_V
            self._weights[self._bucket] += LEARNING_RATE * gain_M
        for counts_V in self._seen:
            counts_V[value] += 1.0
            if counts_V.sum() > self.forget:
                counts_V *= 0.5

    def bits(self, digits_thw: NDArray[np.int64]) -> float:
        """Of one run of latent frames, frame by frame and row by row; what was learned stays for the next run."""
        total = 0.0
        padded_thw = np.pad(digits_thw, ((1, 0), (0, 0), (1, 0)), constant_values=NOT_THERE)
        lefts, befores = padded_thw[1:, :, :-1].ravel(), padded_thw[:-1, :, 1:].ravel()
        for value, left, before in zip(digits_thw.ravel().tolist(), lefts.tolist(), befores.tolist(), strict=True):
            total -= math.log2(self.predict(left, before)[value])
            self.update(value)
        return total

    def _of(self, context: tuple[int, ...]) -> NDArray[np.float64]:
        counts_V = self._counts.get(context)
        if counts_V is None:
            counts_V = self._counts[context] = np.zeros(self.values)
        return counts_V


def _backed_off(counts_V: NDArray[np.float64], expected_V: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts, with a few sightings more that are shared out as a smaller context expects."""
    return (counts_V + BACKED_BY * expected_V) / (counts_V.sum() + BACKED_BY)


# --- compressors of bytes ---


def fixed_bytes(count: int, vocab_size: int) -> int:
    """Of so many ids at a fixed number of bits, which need not be whole."""
    return math.ceil(count * math.log2(vocab_size) / 8)


def packed(ids: NDArray[np.int64], vocab_size: int) -> bytes:
    """Ids one after another in as few whole bits as each may need, most significant first."""
    width = (vocab_size - 1).bit_length()
    bits = (ids.ravel()[:, None] >> np.arange(width - 1, -1, -1)) & 1
    return np.packbits(bits.astype(np.uint8)).tobytes()


def digit_planes(digits_thwD: NDArray[np.int64]) -> bytes:
    """A byte per digit, the first digit of all positions first."""
    return np.moveaxis(digits_thwD, -1, 0).astype(np.uint8).tobytes()


def xz(data: bytes) -> int:
    """Bytes at preset 9e, of the compressed data alone, without xz's container."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    return len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters))


def zstd(data: bytes) -> int:
    """Bytes at level 19. Raises MissingExtra if no module for it is there."""
    return len(_zstd()(data))


@cache
def _zstd() -> Callable[[bytes], bytes]:
    """From the standard library of Python 3.14, or else from the package zstandard."""
    for name in ("compression.zstd", "zstandard"):
        try:
            module: Any = importlib.import_module(name)
        except ImportError:
            continue
        return lambda data: module.compress(data, 19)
    raise MissingExtra("the comparison with zstd needs a module for it: pip install zstandard")


def general_bytes(parts: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], vocab_size: int) -> dict[str, int]:
    """What zstd and xz make of (ids, digits_thwD) of runs that follow one another, in both ways to write them."""
    forms = {
        "packed": b"".join(packed(ids, vocab_size) for ids, _ in parts),
        "planes": b"".join(digit_planes(digits_thwD) for _, digits_thwD in parts),
    }
    return {
        f"{name}_{form}": coder(data) for form, data in forms.items() for name, coder in (("zstd", zstd), ("xz", xz))
    }

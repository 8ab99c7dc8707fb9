"""How far apart two rate-quality curves are, as one number: BD-rate in percent and BD-quality in units of the metric.

    (bytes, quality) points --no point beaten--> front --PCHIP over ln(bytes)--> mean distance where both curves are

Interpolation: piecewise cubic Hermite with Fritsch-Butland slopes (PCHIP), quality over the natural logarithm of the
rate for BD-quality, the logarithm of the rate over quality for BD-rate. It passes through every point and never
overshoots between two of them, as the single cubic of the first proposal does. Integrals are exact.

Source: Bjontegaard 2001, VCEG-M33; PCHIP after Fritsch and Butland 1984, as JCT-VC and AOM use it for BD figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kinolex.errors import UsageError

INTERPOLATION = "PCHIP over ln(bytes), between the points that no other point of the curve beats"

Curve = Sequence[tuple[float, float]]
"""(rate, quality) in any order; rates in one unit for both curves, quality grows as pictures improve."""


def bd_rate_percent(reference: Curve, tested: Curve) -> float | None:
    """How many percent more rate the tested curve needs for the same quality, on average; negative means less.

    Returns:
        None where the two share no range of quality, or one has fewer than two points that no other beats.

    Raises:
        UsageError: a rate that is not positive, or a value that is not finite.
    """
    gap = _mean_gap(reference, tested, over=1)
    return None if gap is None else 100.0 * math.expm1(gap)


def bd_quality(reference: Curve, tested: Curve) -> float | None:
    """How much better the tested curve is at the same rate, on average over ln(rate), in the unit of the quality.

    Returns None and raises as bd_rate_percent, with rate and quality exchanged.
    """
    return _mean_gap(reference, tested, over=0)


def _mean_gap(reference: Curve, tested: Curve, *, over: int) -> float | None:
    """Tested less reference, mean over the range that both share of ln(rate) (0) or of quality (1)."""
    curves = [front(curve) for curve in (reference, tested)]
    if min(map(len, curves)) < 2:
        return None
    low = max(curve[0, over] for curve in curves)
    high = min(curve[-1, over] for curve in curves)
    if low >= high:
        return None
    means = [_mean(curve[:, over], curve[:, 1 - over], low, high) for curve in curves]
    return means[1] - means[0]


def front(curve: Curve) -> NDArray[np.float64]:
    """(ln rate, quality) of the points that no other beats, both strictly growing; shape (points, 2).

    Raises UsageError as bd_rate_percent.
    """
    kept: list[tuple[float, float]] = []
    for rate, quality in sorted(curve, key=lambda point: (point[0], -point[1])):
        if not (rate > 0 and math.isfinite(rate) and math.isfinite(quality)):
            raise UsageError(f"a rate-quality point needs a positive rate and a finite quality, got {(rate, quality)}")
        if not kept or (quality > kept[-1][1] and math.log(rate) > kept[-1][0]):
            kept.append((math.log(rate), quality))
    return np.asarray(kept, dtype=np.float64).reshape(-1, 2)


def pchip_slopes(x_n: NDArray[np.float64], y_n: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slopes of the interpolant at its points; x strictly growing, at least two."""
    width, rise = np.diff(x_n), np.diff(y_n) / np.diff(x_n)
    if len(rise) == 1:
        return np.repeat(rise, 2)
    slopes_n = np.zeros_like(x_n)
    for k in range(1, len(rise)):
        before, after = rise[k - 1], rise[k]
        if before * after > 0:
            weights = 2 * width[k] + width[k - 1], width[k] + 2 * width[k - 1]
            slopes_n[k] = sum(weights) / (weights[0] / before + weights[1] / after)
    slopes_n[0] = _end_slope(width[0], width[1], rise[0], rise[1])
    slopes_n[-1] = _end_slope(width[-1], width[-2], rise[-1], rise[-2])
    return slopes_n


def _end_slope(width: float, next_width: float, rise: float, next_rise: float) -> float:
    """One-sided three-point slope, bounded so that the end piece stays monotone."""
    slope = ((2 * width + next_width) * rise - width * next_rise) / (width + next_width)
    if slope * rise <= 0:
        return 0.0
    return 3 * rise if rise * next_rise <= 0 and abs(slope) > 3 * abs(rise) else slope


def _mean(x_n: NDArray[np.float64], y_n: NDArray[np.float64], low: float, high: float) -> float:
    """Mean of the interpolant over low..high, which lies inside the points."""
    slopes_n, total = pchip_slopes(x_n, y_n), 0.0
    for k in range(len(x_n) - 1):
        start, stop = max(low, x_n[k]) - x_n[k], min(high, x_n[k + 1]) - x_n[k]
        if start >= stop:
            continue
        width = x_n[k + 1] - x_n[k]
        rise = (y_n[k + 1] - y_n[k]) / width
        square = (3 * rise - 2 * slopes_n[k] - slopes_n[k + 1]) / width
        cube = (slopes_n[k] + slopes_n[k + 1] - 2 * rise) / width**2
        powers = (y_n[k], slopes_n[k] / 2, square / 3, cube / 4)
        total += sum(power * (stop**n - start**n) for n, power in enumerate(powers, start=1))
    return float(total / (high - low))

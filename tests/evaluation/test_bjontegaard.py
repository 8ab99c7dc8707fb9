"""BD figures of curves whose distance is known exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kinolex.errors import UsageError
from kinolex.evaluation.bjontegaard import bd_quality, bd_rate_percent, front, pchip_slopes

CURVE = [(1000.0, 24.0), (2100.0, 27.5), (4700.0, 30.0), (9000.0, 33.9), (20000.0, 35.0)]


@pytest.mark.parametrize("factor", [1.25, 0.8, 3.0])
def test_the_same_curve_at_more_bytes_costs_exactly_that_much_more(factor: float) -> None:
    dearer = [(rate * factor, quality) for rate, quality in reversed(CURVE)]

    assert bd_rate_percent(CURVE, dearer) == pytest.approx(100 * (factor - 1))
    assert bd_rate_percent(dearer, CURVE) == pytest.approx(100 * (1 / factor - 1))


def test_the_same_curve_with_better_quality_gains_exactly_that_quality() -> None:
    better = [(rate, quality + 1.5) for rate, quality in CURVE]

    assert bd_quality(CURVE, better) == pytest.approx(1.5)
    assert bd_quality(better, CURVE) == pytest.approx(-1.5)
    assert bd_rate_percent(CURVE, CURVE) == pytest.approx(0, abs=1e-9)


def test_a_quality_shift_of_a_curve_that_is_straight_over_the_logarithm_is_a_known_rate() -> None:
    straight = [(rate, 5.0 * math.log(rate)) for rate in (100.0, 300.0, 1000.0, 5000.0)]
    worse = [(rate, quality - 2.0) for rate, quality in straight]

    assert bd_rate_percent(straight, worse) == pytest.approx(100 * math.expm1(2.0 / 5.0))


def test_only_the_range_that_both_reach_is_compared() -> None:
    """Both curves are straight pieces; outside the shared range one of them is made arbitrarily bad."""
    reference = [(math.e, 1.0), (math.e**2, 2.0)]
    tested = [(math.e**1.5, 1.0), (math.e**2.5, 2.0)]

    assert bd_rate_percent(reference, tested) == pytest.approx(100 * math.expm1(0.5))
    assert bd_quality(reference, tested) == pytest.approx(-0.5)


def test_slopes_are_those_of_the_source() -> None:
    """Worked by hand: weighted harmonic means inside, bounded three-point slopes at the ends."""
    slopes_n = pchip_slopes(np.array([0.0, 1.0, 2.0, 4.0]), np.array([0.0, 1.0, 1.5, 4.0]))

    assert slopes_n == pytest.approx([1.25, 6 / 9, 9 / 13.2, (5 * 1.25 - 2 * 0.5) / 3])
    assert pchip_slopes(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 0.0]))[1] == 0.0
    assert pchip_slopes(np.array([0.0, 2.0]), np.array([0.0, 1.0])).tolist() == [0.5, 0.5]


def test_the_integral_is_that_of_the_interpolant() -> None:
    """Against a fine sum over the interpolant in its Hermite form, written independently."""
    other = [(rate * (1.3 - 0.05 * k), quality + 0.1 * k) for k, (rate, quality) in enumerate(CURVE)]
    low, high = max(CURVE[0][1], other[0][1]), min(CURVE[-1][1], other[-1][1])
    quality_n = low + (np.arange(200_000) + 0.5) * (high - low) / 200_000

    def log_rate(curve: list[tuple[float, float]]) -> float:
        y, x = np.log([rate for rate, _ in curve]), np.array([quality for _, quality in curve])
        m, k = pchip_slopes(x, y), np.clip(np.searchsorted(x, quality_n) - 1, 0, len(x) - 2)
        h = x[k + 1] - x[k]
        t = (quality_n - x[k]) / h
        values = (1 + 2 * t) * (1 - t) ** 2 * y[k] + t * (1 - t) ** 2 * h * m[k]
        return float((values + t**2 * (3 - 2 * t) * y[k + 1] + t**2 * (t - 1) * h * m[k + 1]).mean())

    assert bd_rate_percent(CURVE, other) == pytest.approx(100 * math.expm1(log_rate(other) - log_rate(CURVE)), abs=1e-6)


def test_without_a_shared_range_or_two_points_there_is_no_figure() -> None:
    above = [(rate, quality + 50) for rate, quality in CURVE]

    assert bd_rate_percent(CURVE, above) is None
    assert bd_quality(CURVE, [(rate * 1e6, quality) for rate, quality in CURVE]) is None
    assert bd_rate_percent(CURVE, CURVE[:1]) is None and bd_quality([], CURVE) is None


def test_points_that_others_beat_play_no_part() -> None:
    beaten = [*CURVE, (5000.0, 20.0), (4700.0, 29.0), (30000.0, 35.0)]

    assert np.array_equal(front(beaten), front(CURVE))
    assert bd_rate_percent(CURVE, beaten) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("point", [(0.0, 1.0), (-1.0, 1.0), (1.0, math.nan), (math.inf, 1.0)])
def test_a_point_that_cannot_be_is_a_named_error(point: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="positive rate"):
        bd_rate_percent(CURVE, [point, (2.0, 2.0)])

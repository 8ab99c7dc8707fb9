"""From one number per seed to pass, fail or inconclusive.

    figures per seed --log ratio, paired by seed--> t-interval --against a floor or a limit--> finding
    findings --> pass: all hold        fail: one is contradicted        inconclusive: anything else

Distances are compared as ratios: every seed gives the logarithm of one, and the interval is Student's over seeds. A
claim that needs several findings needs all of them, so no correction for their number is due.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kinolex.errors import UsageError

COVERAGE = 0.95
SMALLEST = 1e-9
"""Distances below it count as this much: a ratio needs something to divide by."""
POINTS = 20_001
"""Of the numeric integral behind the t-quantile; odd, so that 0 is one of them."""

Outcome = Literal["holds", "contradicted", "unclear"]
Verdict = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Interval:
    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison; its figures are ratios."""

    what: str
    ratio: float
    low: float
    high: float
    n: int
    needed: str
    outcome: Outcome


def t_quantile(freedom: int) -> float:
    """The value that |t| stays below with probability COVERAGE.

    With t = sqrt(freedom) tan(angle) the density is proportional to cos(angle)^(freedom - 1).
    """
    angles = np.linspace(0.0, math.pi / 2, POINTS)
    heights = np.cos(angles) ** (freedom - 1)
    grown = np.concatenate([[0.0], np.cumsum(heights[1:] + heights[:-1])])
    return math.sqrt(freedom) * math.tan(float(np.interp(COVERAGE, grown / grown[-1], angles)))


def t_interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % interval of independent values.

    Raises:
        UsageError: fewer than two, or one that is not finite.
    """
    if len(values) < 2 or not all(map(math.isfinite, values)):
        raise UsageError(f"an interval needs at least two finite values, got {list(values)}")
    array = np.asarray(values, np.float64)
    reach = t_quantile(len(array) - 1) * float(array.std(ddof=1)) / math.sqrt(len(array))
    mean = float(array.mean())
    return Interval(mean, mean - reach, mean + reach, len(array))


def log_ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """log(above / below) of every seed."""
    return [math.log(max(one, SMALLEST) / max(other, SMALLEST)) for one, other in zip(above, below, strict=True)]


def more_than(what: str, logs: Sequence[float], times: float = 1.0) -> Finding:
    """Holds if the whole interval of the ratio lies above `times`, is contradicted if all of it lies below."""
    interval, floor = t_interval(logs), math.log(times)
    outcome: Outcome = "holds" if interval.low > floor else "contradicted" if interval.high < floor else "unclear"
    return _finding(what, interval, f"more than {times:g}", outcome)


def no_more_than(what: str, logs: Sequence[float], margin: float) -> Finding:
    """No difference but noise: holds if the interval reaches down to 1 and stays below `margin`; contradicted if all of
    it lies above 1."""
    interval = t_interval(logs)
    outcome: Outcome = "unclear"
    if interval.low > 0:
        outcome = "contradicted"
    elif interval.high < math.log(margin):
        outcome = "holds"
    return _finding(what, interval, f"not above 1, and surely below {margin:g}", outcome)


def verdict(findings: Sequence[Finding]) -> Verdict:
    """Raises UsageError without findings: nothing was tested."""
    if not findings:
        raise UsageError("a verdict needs at least one finding")
    outcomes = {finding.outcome for finding in findings}
    if "contradicted" in outcomes:
        return "fail"
    return "pass" if outcomes == {"holds"} else "inconclusive"


def _finding(what: str, interval: Interval, needed: str, outcome: Outcome) -> Finding:
    ratio, low, high = (_exp(value) for value in (interval.mean, interval.low, interval.high))
    return Finding(what, ratio, low, high, interval.n, needed, outcome)


def _exp(value: float) -> float:
    """Finite, whatever comes: results are JSON."""
    return math.exp(min(max(value, -300.0), 300.0))

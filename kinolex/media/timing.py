"""Which frame is on screen at which output tick: rational arithmetic only, no float.

    pts of all frames --choose_timeline--> Timeline --first_tick(pts)--> from which output frame on a frame is shown

Output frame k stands for the moment k / fps after the first frame. It shows the latest frame whose timestamp is not
later than that moment. Containers round timestamps to their own clock (Matroska to 1/1000 s), so a stream of constant
rate is recognised first and its rounding undone; otherwise every third frame of a 30 fps file would be lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

DEFAULT_FPS = Fraction(25)
MAX_FPS = 1000
"""Rates above come from headers that give the clock instead of the rate."""

_NTSC = [Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120)]
COMMON_RATES = sorted({*(Fraction(n) for n in (*range(1, 61), 72, 75, 90, 100, 120, 144, 240)), *_NTSC})
ROUNDING_S = Fraction(1, 1000)
"""Timestamps often went through a millisecond clock before they came into a file with a finer one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """How the timestamps of one stream map to frames of constant rate."""

    origin: int
    """Timestamp of the first shown frame, in units of time_base."""
    time_base: Fraction
    """Seconds per unit of a timestamp."""
    fps: Fraction
    rounded: bool
    """True if timestamps lie on the grid of fps apart from rounding."""
    variable: bool
    """True if frames do not follow each other at one constant rate."""
    frames: int
    """Output frames of the whole stream, at least 1."""

    def first_tick(self, pts: int) -> int:
        """The first output frame that shows the frame with this timestamp."""
        exact = (pts - self.origin) * self.time_base * self.fps
        return round_half_up(exact) if self.rounded else math.ceil(exact)

    def end_tick(self, pts: int, duration: int) -> int:
        """Number of output frames when the last frame has this timestamp and duration (0 if unknown)."""
        if not self.variable or duration <= 0:
            return self.first_tick(pts) + 1
        return max(round_half_up((pts + duration - self.origin) * self.time_base * self.fps), 1)

    def timestamp(self, tick: int) -> int:
        """The timestamp of an output frame, rounded down to the stream's clock."""
        return self.origin + math.floor(tick / (self.fps * self.time_base))


def round_half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def snap_rate(rate: Fraction) -> Fraction:
    """The common frame rate within 1 % of `rate`, else a simple fraction near it."""
    nearest = min(COMMON_RATES, key=lambda common: abs(common - rate))
    if abs(nearest - rate) * 100 <= rate:
        return nearest
    return max(rate.limit_denominator(100), Fraction(1, 100))


def is_plausible(rate: Fraction | None) -> bool:
    return rate is not None and 0 < rate <= MAX_FPS


def choose_timeline(
    pts: Sequence[int],
    *,
    last_duration: int,
    time_base: Fraction,
    stated_rates: Sequence[Fraction | None],
) -> Timeline:
    """Find the rate of a stream from the timestamps of all its frames.

    Args:
        pts: timestamps in ascending order, in units of time_base, at least one.
        last_duration: how long the last frame is shown, in the same units; 0 if unknown.
        time_base: seconds per unit.
        stated_rates: what the container says, most trusted first; any may be missing or wrong.

    Returns:
        The container's rate (or the nearest common one) if the timestamps follow it to within their rounding;
        otherwise a variable timeline at the rate with which the file has gaps only, or at the average, snapped.
    """
    stated = [rate for rate in stated_rates if rate is not None and is_plausible(rate)]
    origin, count = pts[0], len(pts)
    span_s = (pts[-1] - origin) * time_base
    if span_s == 0:
        held = 1 / (last_duration * time_base) if last_duration > 0 else None
        rate = stated[0] if stated else held if held is not None and is_plausible(held) else DEFAULT_FPS
        return Timeline(origin=origin, time_base=time_base, fps=rate, rounded=True, variable=False, frames=1)

    mean = min((count - 1) / span_s, Fraction(MAX_FPS))
    for rate in [*stated, snap_rate(mean)]:
        if _follows(pts, rate, time_base):
            return Timeline(origin=origin, time_base=time_base, fps=rate, rounded=True, variable=False, frames=count)

    for rate in reversed(stated):
        if _has_only_gaps(pts, rate, time_base):
            return _variable(pts, last_duration, time_base, rate, rounded=True)
    # The stated average counts how long the last frame is held, so it is the better one where it agrees.
    near = [rate for rate in stated[:1] if abs(rate - mean) * 10 <= mean]
    return _variable(pts, last_duration, time_base, snap_rate(near[0] if near else mean), rounded=False)


def _variable(pts: Sequence[int], last_duration: int, time_base: Fraction, fps: Fraction, rounded: bool) -> Timeline:
    line = Timeline(origin=pts[0], time_base=time_base, fps=fps, rounded=rounded, variable=True, frames=1)
    frames = line.end_tick(pts[-1], last_duration)
    return Timeline(origin=pts[0], time_base=time_base, fps=fps, rounded=rounded, variable=True, frames=frames)


def _follows(pts: Sequence[int], rate: Fraction, time_base: Fraction) -> bool:
    """Frame k lies at k / rate, apart from rounding."""
    # Whole numbers from here on: |pts - k / (rate * time_base)| < allowed, times the numerator of rate * time_base.
    step = rate * time_base
    allowed = max(Fraction(1), ROUNDING_S / time_base) * step.numerator
    origin, up, down = pts[0], step.numerator, step.denominator
    for index, stamp in enumerate(pts):
        place = (stamp - origin) * up
        if abs(place - index * down) >= allowed or (2 * place + down) // (2 * down) != index:
            return False
    return True


def _has_only_gaps(pts: Sequence[int], rate: Fraction, time_base: Fraction) -> bool:
    """Every frame lies on the grid of `rate`, one per place, and at least three places in four are taken."""
    step = rate * time_base
    if step * 8 > 1:  # on so coarse a clock everything looks like a grid
        return False
    origin, previous = pts[0], -1
    for stamp in pts:
        exact = (stamp - origin) * step
        place = round_half_up(exact)
        if abs(exact - place) >= step or place <= previous:
            return False
        previous = place
    return (previous + 1) * 3 <= len(pts) * 4

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinolex.media.timing import Timeline, choose_timeline, snap_rate

RATES = [Fraction(24000, 1001), Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(30), Fraction(60)]


def timeline(pts: list[int], time_base: Fraction, *stated: Fraction, last_duration: int = 0) -> Timeline:
    return choose_timeline(pts, last_duration=last_duration, time_base=time_base, stated_rates=stated)


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("clock", [1000, 15360, 90000])
@pytest.mark.parametrize("offset", [0, 7, -3])
def test_rounded_timestamps_of_a_constant_rate_give_every_frame_once(fps: Fraction, clock: int, offset: int) -> None:
    pts = [round(k * clock / fps) + offset for k in range(500)]

    line = timeline(pts, Fraction(1, clock), fps)

    assert not line.variable and line.fps == fps and line.frames == 500
    assert [line.first_tick(stamp) for stamp in pts] == list(range(500))


@given(
    steps=st.lists(st.integers(1, 200), min_size=2, max_size=40),
    origin=st.integers(-1000, 1000),
    fps=st.sampled_from([Fraction(24000, 1001), Fraction(25), Fraction(30), Fraction(7, 2)]),
)
def test_a_tick_shows_the_latest_frame_that_is_not_later(steps: list[int], origin: int, fps: Fraction) -> None:
    time_base = Fraction(1, 1000)
    pts = [origin]
    for step in steps:
        pts.append(pts[-1] + step)
    line = Timeline(origin=origin, time_base=time_base, fps=fps, rounded=False, variable=True, frames=1)

    for tick in range(20):
        oracle = max(index for index, stamp in enumerate(pts) if (stamp - origin) * time_base <= tick / fps)
        ours = max(index for index, stamp in enumerate(pts) if line.first_tick(stamp) <= tick)
        assert ours == oracle


def test_one_clock_tick_decides_which_frame_is_shown() -> None:
    line = Timeline(origin=0, time_base=Fraction(1, 90000), fps=Fraction(25), rounded=False, variable=True, frames=1)

    assert line.first_tick(3600) == 1
    assert line.first_tick(3601) == 2


def test_variable_rate_is_the_average_snapped_to_a_common_rate() -> None:
    line = timeline([0, 20, 100, 110, 160], Fraction(1, 1000), last_duration=40)

    assert line.variable and line.fps == 25
    assert line.frames == 5  # 200 ms


def test_a_dropped_frame_leaves_the_rate_and_is_bridged_by_its_predecessor() -> None:
    pts = [round(k * 1000 / 30) for k in range(60) if k != 5]

    line = timeline(pts, Fraction(1, 1000), Fraction(30))

    assert line.variable and line.fps == 30 and line.frames == 60
    assert [line.first_tick(stamp) for stamp in pts] == [k for k in range(60) if k != 5]


def test_wrong_stated_rates_are_not_believed() -> None:
    pts = [k * 3600 for k in range(50)]

    line = timeline(pts, Fraction(1, 90000), Fraction(90000), Fraction(50))

    assert not line.variable and line.fps == 25


@pytest.mark.parametrize("rate", RATES)
def test_rates_near_a_common_one_snap_to_it(rate: Fraction) -> None:
    assert snap_rate(rate * Fraction(10001, 10000)) == rate
    assert snap_rate(Fraction(13, 4)) == Fraction(13, 4)

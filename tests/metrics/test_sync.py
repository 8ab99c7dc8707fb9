"""Sync is one-to-one, counts what is missing and what is false, and tells a sound of its own from another's."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass

import numpy as np
import pytest

from kinolex.data.worlds import WorldConfig, render
from kinolex.errors import UsageError
from kinolex.evaluation.world_sync import sync_scores, watched
from kinolex.metrics.sync import Watched, matches, shuffled, sync
from kinolex.types import Clip


@dataclass(frozen=True)
class At:
    time_s: float
    pitch_hz: float = 400.0
    loudness: float = 0.5


def test_matching_is_the_best_of_all_matchings() -> None:
    """Against trying every one-to-one assignment."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        seen, heard = rng.uniform(0, 0.5, rng.integers(0, 5)), rng.uniform(0, 0.5, rng.integers(0, 5))
        found = matches(seen.tolist(), heard.tolist(), 0.1)
        assert len({i for i, _ in found}) == len({j for _, j in found}) == len(found)
        best = (0, 0.0)
        for order in itertools.permutations(range(len(heard)), min(len(seen), len(heard))):
            for rows in itertools.combinations(range(len(seen)), len(order)):
                gaps = [abs(seen[i] - heard[j]) for i, j in zip(rows, order, strict=True)]
                gaps = [gap for gap in gaps if gap <= 0.1]
                best = min(best, (-len(gaps), sum(gaps)))
        assert -len(found) == best[0]
        assert sum(abs(seen[i] - heard[j]) for i, j in found) == pytest.approx(best[1], abs=1e-12)


def test_a_late_sound_is_late_and_misses_and_false_events_are_counted() -> None:
    seen = [At(0.2), At(0.5, loudness=0.9), At(1.0, loudness=0.2)]
    late = [At(event.time_s + 0.03, 400 * 2 ** (20 / 1200), 0.1 * event.loudness) for event in seen]
    exact = sync([Watched(seen, late)])
    assert exact.offset_ms_median == pytest.approx(30) and exact.distance_ms_median == pytest.approx(30)
    assert (exact.within_25_ms, exact.within_40_ms, exact.f1) == (0, 1, 1)
    assert exact.pitch_cents_median == pytest.approx(20) and exact.pitch_within_50_cents == 1
    assert exact.loudness_correlation == pytest.approx(1)
    torn = sync([Watched(seen, [*late[:2], At(0.8), At(1.4)])])
    assert (torn.precision, torn.recall) == (2 / 4, 2 / 3)
    assert torn.f1 == pytest.approx(2 * 2 / 7)


def test_what_the_picture_cannot_show_is_nobodys_fault() -> None:
    seen, heard = [At(0.3)], [At(0.3), At(0.69)]
    assert sync([Watched(seen, heard, until_s=0.66)]).f1 == 1
    assert sync([Watched(seen, heard)]).f1 == pytest.approx(2 / 3)
    # With a partner it counts.
    assert sync([Watched([*seen, At(0.7)], heard, until_s=0.66)]).seen == 2


def test_no_events_give_none_and_valid_json() -> None:
    nothing = sync([Watched([], [])])
    assert nothing.f1 is None and nothing.offset_ms_median is None and nothing.pitch_cents_median is None
    unpitched = sync([Watched([At(0.1)], [At(0.1, pitch_hz=math.nan)])])
    assert unpitched.f1 == 1 and unpitched.pitch_within_50_cents is None
    assert json.loads(json.dumps(unpitched.as_json(), allow_nan=False))["matched"] == 1


def test_no_picture_keeps_its_own_sound_in_the_control() -> None:
    clips = [Watched([At(0.1 * k)], [At(0.1 * k)]) for k in range(5)]
    mixed = shuffled(clips)
    assert all(
        other.heard is not clip.heard and other.seen is clip.seen for clip, other in zip(clips, mixed, strict=True)
    )
    assert sorted(clip.heard[0].time_s for clip in mixed) == sorted(clip.heard[0].time_s for clip in clips)


def test_worlds_are_in_sync_and_with_the_sound_of_another_world_they_are_not() -> None:
    worlds = [render(seed, WorldConfig(max_bodies=1)) for seed in range(660, 690)]
    scores = sync_scores([watched(world.clip) for world in worlds], [world.label for world in worlds])
    own, other = scores["sync"], scores["shuffled sound"]
    assert own["f1"] >= 0.95 and own["distance_ms_median"] <= 4 and own["within_25_ms"] >= 0.95
    assert own["pitch_within_50_cents"] >= 0.85
    assert other["f1"] < 0.7 * own["f1"] and other["pitch_within_50_cents"] < own["pitch_within_50_cents"]
    silent = scores["silent worlds"]
    assert silent["count"] >= 3 and silent["with an impact seen"] == silent["with an onset heard"] == 0


def test_bad_input_is_named() -> None:
    with pytest.raises(UsageError, match="at least one clip"):
        sync([])
    with pytest.raises(UsageError, match="window_s must be at least"):
        sync([Watched([], [])], window_s=0.01)
    with pytest.raises(UsageError, match="at least two clips"):
        shuffled([Watched([], [])])
    world = render(1, WorldConfig())
    with pytest.raises(UsageError, match="clip with sound"):
        watched(Clip(world.clip.frames_TCHW, world.clip.fps))

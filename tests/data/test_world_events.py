"""Impacts are seen where they happen, onsets are heard where they sound, and pitch is what size implies."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch

from kinolex.data.worlds import World, WorldConfig, impact_times, measure, onsets, render
from kinolex.data.worlds.motion import recognise
from kinolex.data.worlds.scene import draw_scene, impacts, positions_T2, radii_T
from kinolex.data.worlds.seen_impacts import seen_impacts
from kinolex.data.worlds.sound import synthesise
from kinolex.evaluation.world_sync import through_opus
from kinolex.metrics.sync import matches
from kinolex.types import Clip, Sound


def scores(
    true: Sequence[Sequence[float]], found: Sequence[Sequence[float]], tolerance_s: float
) -> tuple[float, float]:
    """F1 and the median distance in milliseconds."""
    distances = [
        1000 * abs(t[i] - f[j]) for t, f in zip(true, found, strict=True) for i, j in matches(t, f, tolerance_s)
    ]
    return 2 * len(distances) / (sum(map(len, true)) + sum(map(len, found))), float(np.median(distances))


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return [render(seed, WorldConfig(max_bodies=1)) for seed in range(700, 740)]


def test_impacts_are_seen_between_frames(worlds: list[World]) -> None:
    f1, middle_ms = scores(
        [[event.time_s for event in world.events] for world in worlds],
        [impact_times(world.clip) for world in worlds],
        0.04,
    )
    assert f1 >= 0.95 and middle_ms <= 4


@pytest.mark.parametrize(("frames", "fps"), [(33, 24), (17, 12)])
def test_impacts_are_read_from_true_tracks_at_any_rate(frames: int, fps: int) -> None:
    """No picture: what the fits can do where the track is known."""
    true, found = [], []
    config = WorldConfig(frames=frames, fps=Fraction(fps), max_bodies=1)
    for seed in range(60):
        scene = draw_scene(seed, config)
        (body,) = scene.bodies
        times_T = np.arange(frames) / fps
        track_T2 = 64 * (positions_T2(body, scene.action, times_T) - scene.camera_T2(times_T))
        radii = 64 * radii_T(body, scene.action, times_T)
        motion = recognise(track_T2, radii**2, float(fps), 64)
        last = times_T[-1]
        seen = [each.time_s for each in seen_impacts(track_T2, radii, motion, float(fps), 64) if each.time_s < last]
        found.append(seen)
        true.append([e.time_s for e in impacts(body, 0, scene.action, config.duration_s) if e.time_s < last])
    f1, middle_ms = scores(true, found, 0.04)
    assert f1 >= 0.96 and middle_ms <= 4


def test_silent_worlds_show_and_sound_nothing(worlds: list[World]) -> None:
    silent = [measure(world.clip) for world in worlds if world.label in ("orbit", "grow")]
    assert len(silent) >= 5
    assert sum(bool(found.impacts or found.onsets) for found in silent) == 0


def struck(seed: int, config: WorldConfig) -> tuple[list[tuple[float, float]], Sound]:
    scene = draw_scene(seed, config)
    events = [
        each
        for index, body in enumerate(scene.bodies)
        for each in impacts(body, index, scene.action, config.duration_s)
    ]
    events.sort(key=lambda event: event.time_s)
    samples = synthesise(events, scene.floor, config.duration_s, config.sound_rate_hz)
    sound = Sound(torch.from_numpy(samples).unsqueeze(0), config.sound_rate_hz)
    return [(event.time_s, event.pitch_hz) for event in events], sound


def heard(pairs: Sequence[tuple[list[tuple[float, float]], Sound]]) -> tuple[float, float, float]:
    """F1 at 20 ms, median distance in milliseconds, and the share of pitches within 50 cents."""
    found = [onsets(sound) for _, sound in pairs]
    true = [[time for time, _ in events] for events, _ in pairs]
    times = [[onset.time_s for onset in each] for each in found]
    close = []
    for (events, _), each, t, f in zip(pairs, found, true, times, strict=True):
        close += [abs(1200 * np.log2(each[j].pitch_hz / events[i][1])) < 50 for i, j in matches(t, f, 0.02)]
    return *scores(true, times, 0.02), float(np.mean(close))


def test_onsets_are_heard_to_the_millisecond_and_in_tune() -> None:
    f1, middle_ms, in_tune = heard([struck(seed, WorldConfig(max_bodies=1)) for seed in range(60)])
    assert f1 >= 0.98 and middle_ms <= 3 and in_tune >= 0.95


def test_onsets_are_heard_while_others_ring() -> None:
    f1, middle_ms, in_tune = heard([struck(seed, WorldConfig(frames=33, max_bodies=2)) for seed in range(30)])
    assert f1 >= 0.93 and middle_ms <= 3 and in_tune >= 0.9


def test_onsets_survive_a_speech_codec_at_a_low_rate() -> None:
    pairs = []
    for seed in range(24):
        events, sound = struck(seed, WorldConfig(max_bodies=1))
        clip = Clip(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), Fraction(24), sound)
        coded = through_opus(clip).sound
        assert coded is not None
        pairs.append((events, coded))
    f1, middle_ms, in_tune = heard(pairs)
    assert f1 >= 0.95 and middle_ms <= 5 and in_tune >= 0.95


def test_silence_noise_floor_and_a_steady_tone_have_no_onset() -> None:
    time_S = torch.arange(8000) / 16000
    assert onsets(Sound(torch.zeros(1, 8000), 16000)) == ()
    assert onsets(Sound(torch.zeros(1, 0), 16000)) == ()
    generator = torch.Generator().manual_seed(0)
    assert onsets(Sound(1e-4 * torch.randn(1, 8000, generator=generator), 16000)) == ()
    assert len(onsets(Sound((0.5 * torch.sin(2 * torch.pi * 440 * time_S)).unsqueeze(0), 16000))) <= 1


def test_the_picture_implies_the_pitch_that_sounds(worlds: list[World]) -> None:
    cents = []
    for world in worlds:
        found = measure(world.clip)
        pairs = matches([e.time_s for e in found.impacts], [e.time_s for e in found.onsets], 0.04)
        cents += [abs(1200 * np.log2(found.impacts[i].pitch_hz / found.onsets[j].pitch_hz)) for i, j in pairs]
    assert len(cents) >= 15
    assert np.nanmedian(cents) < 30

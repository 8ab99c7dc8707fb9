"""Worlds are judged right, wrong requests are judged wrong, and the recogniser knows what cannot be told apart."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from kinolex.data.worlds import World, WorldConfig, asked_of, judge_each, measure, render
from kinolex.data.worlds.motion import recognise
from kinolex.data.worlds.scene import ACTIONS, COLOURS, FLOORS, SHAPES, SIZES, describe, draw_scene, impacts
from kinolex.data.worlds.truth import Asked, judge
from kinolex.errors import ShapeError, UsageError
from kinolex.evaluation.world_truth import blurred
from kinolex.types import Clip

ONE = WorldConfig(max_bodies=1)


def words_of(world: World, **changes: str) -> Asked:
    track = world.tracks[0]
    words = {"action": world.label, "shape": track.shape, "colour": track.colour, "size": track.size}
    return Asked(**{**words, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return [render(seed, ONE) for seed in range(900, 930)]


def test_rendered_worlds_are_judged_right(worlds: list[World]) -> None:
    judgements = [judge(world.clip, words_of(world), world.tracks[0].points_T2) for world in worlds]
    for name, least in (("number", 0.97), ("colour", 0.97), ("shape", 0.97), ("size", 0.97), ("motion", 0.97)):
        assert np.mean([getattr(each, name) for each in judgements]) >= least, name
    assert np.nanmedian([each.track_error for each in judgements]) < 0.002


def test_wrong_requests_are_judged_wrong(worlds: list[World]) -> None:
    """Of every world each attribute is asked for wrongly; only that attribute may be judged wrong for it."""
    for attribute, values in (
        ("action", ACTIONS),
        ("shape", SHAPES),
        ("colour", tuple(COLOURS)),
        ("size", tuple(SIZES)),
    ):
        passed = []
        for index, world in enumerate(worlds[:16]):
            true = getattr(words_of(world), attribute)
            others = [value for value in values if value != true]
            judgement = judge(world.clip, words_of(world, **{attribute: others[index % len(others)]}))
            passed.append(judgement.motion if attribute == "action" else getattr(judgement, attribute))
        assert np.mean(passed) < 0.1, attribute


def test_still_frozen_and_shuffled_motion_is_wrong(worlds: list[World]) -> None:
    moving = [world for world in worlds if world.label != "grow"][:12]
    order = torch.randperm(ONE.frames, generator=torch.Generator().manual_seed(0))
    breaks: list[Callable[[torch.Tensor], torch.Tensor]] = [lambda f: f[:1].expand_as(f), lambda f: f[order]]
    for change in breaks:
        clips = [Clip(change(world.clip.frames_TCHW).contiguous(), world.clip.fps) for world in moving]
        right = [judge(clip, words_of(world)).motion for clip, world in zip(clips, moving, strict=True)]
        assert sum(right) <= 1


def test_an_empty_picture_and_another_number_are_judged_wrong(worlds: list[World]) -> None:
    grey = Clip(torch.full((17, 3, 64, 64), 128, dtype=torch.uint8), ONE.fps)
    nothing = judge(grey, Asked(colour="red"), np.zeros((17, 2)))
    assert not (nothing.number or nothing.colour or nothing.shape or nothing.size or nothing.motion)
    assert np.isnan(nothing.track_error) and not nothing.all_right
    world = next(world for world in worlds if judge(world.clip, Asked()).number)
    assert not judge(world.clip, Asked(number=2)).number


def test_the_track_error_is_the_distance_to_the_track_asked(worlds: list[World]) -> None:
    world = worlds[0]
    track_T2 = world.tracks[0].points_T2
    away = judge(world.clip, words_of(world), track_T2 + np.array([0.0, 16.0])).track_error
    assert away == pytest.approx(0.25, abs=0.03)


def test_fall_and_bounce_are_alike_until_the_floor() -> None:
    """Seven frames at 24 per second: nothing has landed, both are right; nine frames later they differ."""
    tracks = {
        label: next(
            w for w in (render(seed, WorldConfig(max_bodies=1, frames=17)) for seed in range(2000)) if w.label == label
        )
        for label in ("fall", "bounce")
    }
    for label, world in tracks.items():
        track_T2, area_T = world.tracks[0].points_T2, np.full(17, 100.0)
        early = recognise(track_T2[:7], area_T[:7], 24.0, 64)
        assert early.shows("fall") and early.shows("bounce") and not early.shows("slide")
        late = recognise(track_T2, area_T, 24.0, 64)
        assert late.action == label
        assert not late.shows("bounce" if label == "fall" else "fall")


def test_bad_requests_are_named() -> None:
    with pytest.raises(UsageError, match="no action 'fly'"):
        Asked(action="fly")
    with pytest.raises(UsageError, match="at least one body"):
        Asked(number=0)
    with pytest.raises(ShapeError, match="at least 4 frames"):
        judge(Clip(torch.zeros(3, 3, 16, 16, dtype=torch.uint8), ONE.fps), Asked())
    with pytest.raises(ShapeError, match="track of 5 frames"):
        judge(Clip(torch.zeros(5, 3, 16, 16, dtype=torch.uint8), ONE.fps), Asked(), np.zeros((4, 2)))
    with pytest.raises(UsageError, match="no floor 'ice'"):
        Asked(floor="ice")
    with pytest.raises(UsageError, match="2 requests need 2 tracks"):
        judge_each(Clip(torch.zeros(5, 3, 16, 16, dtype=torch.uint8), ONE.fps), [Asked()] * 2, [None])


@pytest.mark.parametrize("caption", ["", "a red star", "a small red star bounces", "the small red star falls on wood"])
def test_other_captions_are_refused(caption: str) -> None:
    with pytest.raises(UsageError, match="no caption of a world"):
        asked_of(caption)


def test_a_caption_asks_exactly_for_what_the_scene_is() -> None:
    counts = set()
    for seed in range(2000):
        wide = WorldConfig(frames=(9, 17, 33, 49)[seed % 4], width=128)
        scene = draw_scene(seed, wide)
        every = asked_of(describe(scene, wide.duration_s))
        assert len(every) == len(scene.bodies)
        for asked, body in zip(every, scene.bodies, strict=True):
            assert (asked.action, asked.floor, asked.number) == (scene.action, scene.floor, len(scene.bodies))
            assert (asked.size, asked.colour, asked.shape) == (body.size, body.colour, body.shape)
        if scene.action == "bounce" and len(every) == 1:
            landed = len(impacts(scene.bodies[0], 0, "bounce", wide.duration_s))
            assert (every[0].times or 0) == landed
            counts.add(landed)
    assert len(counts) >= 3


def test_two_bodies_are_judged_each_by_their_own_words() -> None:
    config = WorldConfig(max_bodies=2)
    pairs = [world for world in (render(seed, config) for seed in range(940, 956)) if len(world.tracks) == 2]
    right = total = 0
    for world in pairs:
        first, second = asked_of(world.caption)
        judgements = judge_each(world.clip, (first, second), [track.points_T2 for track in world.tracks])
        right += sum(each.all_right for each in judgements)
        total += 2
        if first.shape != second.shape:
            swapped = replace(first, shape=second.shape)
            assert not judge(world.clip, swapped).shape
    assert len(pairs) >= 4 and right >= 0.9 * total


def test_shapes_are_told_apart_in_soft_and_noisy_pictures(worlds: list[World]) -> None:
    right = 0
    for seed, world in enumerate(worlds):
        bodies = measure(blurred(world.clip, seed)).bodies
        right += [body.shape for body in bodies] == [world.tracks[0].shape]
    assert right >= 0.93 * len(worlds)


def test_the_number_of_bounces_is_counted(worlds: list[World]) -> None:
    bounces = [world for world in worlds if world.label == "bounce"]
    assert len(bounces) >= 3
    for world in bounces:
        (asked,) = asked_of(world.caption)
        assert asked.times is not None
        assert judge(world.clip, asked).times
        assert not judge(world.clip, replace(asked, times=asked.times + 1)).times


def test_the_floor_is_read_from_the_bottom_of_the_picture(worlds: list[World]) -> None:
    right = [judge(world.clip, Asked(floor=world.floor)).floor for world in worlds]
    assert np.mean(right) >= 0.95
    assert not judge(worlds[0].clip, Asked(floor=next(f for f in FLOORS if f != worlds[0].floor))).floor


def test_a_clip_is_judged_fast_enough_to_judge_thousands(worlds: list[World]) -> None:
    spent = []
    for world in worlds[:8]:
        began = time.process_time()
        judge(world.clip, words_of(world))
        spent.append(time.process_time() - began)
    assert sorted(spent)[3] < 0.15  # 30 ms on an idle core

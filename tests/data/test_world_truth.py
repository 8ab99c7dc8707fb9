"""Worlds are judged right, wrong requests are judged wrong, and the recogniser knows what cannot be told apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from kinolex.data.worlds import World, WorldConfig, render
from kinolex.data.worlds.motion import recognise
from kinolex.data.worlds.scene import ACTIONS, COLOURS, SHAPES, SIZES
from kinolex.data.worlds.truth import Asked, judge
from kinolex.errors import ShapeError, UsageError
from kinolex.types import Clip

ONE = WorldConfig(max_bodies=1)


def asked_of(world: World, **changes: str) -> Asked:
    track = world.tracks[0]
    words = {"action": world.label, "shape": track.shape, "colour": track.colour, "size": track.size}
    return Asked(**{**words, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return [render(seed, ONE) for seed in range(900, 930)]


def test_rendered_worlds_are_judged_right(worlds: list[World]) -> None:
    judgements = [judge(world.clip, asked_of(world), world.tracks[0].points_T2) for world in worlds]
    for name, least in (("number", 0.92), ("colour", 0.92), ("shape", 0.85), ("size", 0.85), ("motion", 0.9)):
        assert np.mean([getattr(each, name) for each in judgements]) >= least, name
    assert np.nanmedian([each.track_error for each in judgements]) < 0.01


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
            true = getattr(asked_of(world), attribute)
            others = [value for value in values if value != true]
            judgement = judge(world.clip, asked_of(world, **{attribute: others[index % len(others)]}))
            passed.append(judgement.motion if attribute == "action" else getattr(judgement, attribute))
        assert np.mean(passed) < 0.1, attribute


def test_still_frozen_and_shuffled_motion_is_wrong(worlds: list[World]) -> None:
    moving = [world for world in worlds if world.label != "grow"][:12]
    order = torch.randperm(ONE.frames, generator=torch.Generator().manual_seed(0))
    breaks: list[Callable[[torch.Tensor], torch.Tensor]] = [lambda f: f[:1].expand_as(f), lambda f: f[order]]
    for change in breaks:
        clips = [Clip(change(world.clip.frames_TCHW).contiguous(), world.clip.fps) for world in moving]
        right = [judge(clip, asked_of(world)).motion for clip, world in zip(clips, moving, strict=True)]
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
    away = judge(world.clip, asked_of(world), track_T2 + np.array([0.0, 16.0])).track_error
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

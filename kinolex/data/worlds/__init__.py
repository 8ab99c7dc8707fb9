"""Procedural worlds: picture, sound and caption drawn from one seed, with the truth about all of them.

    seed -> scene -> render + sound -> World(clip, caption, label, events, tracks)
    clip -> measure -> what was in it -> judge -> whether it is what was asked for

No download, no end, and every impact, track and attribute is known, so generated video can be judged against truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray

from kinolex.data.worlds.measure import Measured, MeasuredBody, impact_times, measure
from kinolex.data.worlds.onsets import Onset, onsets
from kinolex.data.worlds.render import render_frames_THWC
from kinolex.data.worlds.scene import Impact, WorldConfig, describe, draw_scene, impacts, positions_T2
from kinolex.data.worlds.sound import synthesise
from kinolex.data.worlds.truth import Asked, Judgement, asked_of, judge, judge_each
from kinolex.errors import ConfigError
from kinolex.types import Clip, Sound

__all__ = [
    "Asked",
    "Impact",
    "Judgement",
    "Measured",
    "MeasuredBody",
    "Onset",
    "Track",
    "World",
    "WorldConfig",
    "asked_of",
    "impact_times",
    "judge",
    "judge_each",
    "measure",
    "onsets",
    "render",
    "render_frames",
]


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    points_T2: NDArray[np.float64]
    """Centre (x, y) in pixels per frame; pixel centres lie at halves."""
    shape: str
    colour: str
    size: str


@dataclass(frozen=True, slots=True, eq=False)
class World:
    clip: Clip
    caption: str
    label: str
    floor: str
    events: tuple[Impact, ...]
    tracks: tuple[Track, ...]


def render(seed: int, config: WorldConfig | None = None) -> World:
    """The world behind a seed; the same seed and config give the same world. Raises ConfigError for a negative seed."""
    config = config or WorldConfig()
    if seed < 0:
        raise ConfigError(f"seeds of worlds are counted from 0, got {seed}")
    scene = draw_scene(seed, config)
    found = [
        impact
        for index, body in enumerate(scene.bodies)
        for impact in impacts(body, index, scene.action, config.duration_s)
    ]
    events = tuple(sorted(found, key=lambda impact: impact.time_s))
    frames_THWC = render_frames_THWC(scene, config)
    samples = synthesise(events, scene.floor, config.duration_s, config.sound_rate_hz)
    times_T = np.arange(config.frames) / float(config.fps)
    camera_T2 = scene.camera_T2(times_T)
    tracks = tuple(
        Track(
            (positions_T2(body, scene.action, times_T) - camera_T2) * config.height, body.shape, body.colour, body.size
        )
        for body in scene.bodies
    )
    clip = Clip(
        torch.from_numpy(frames_THWC).permute(0, 3, 1, 2).contiguous(),
        config.fps,
        Sound(torch.from_numpy(samples).unsqueeze(0), config.sound_rate_hz),
    )
    return World(clip, describe(scene, config.duration_s), scene.action, scene.floor, events, tracks)


def render_frames(seed: int, frames: int, side: int, rates: Sequence[int] = (24,)) -> NDArray[np.uint8]:
    """Only the picture, T H W C, for training loaders; every other world is a window of one twice as large.

    Sides below 64 are windows at a body of a world of 64 or 128 lines: in a whole world most of the picture is ground.

    Args:
        rates: frames per second, one of which the seed draws.
    """
    rng = np.random.default_rng([seed, 6472])
    coin = rng.random()
    large = (64 if coin < 0.7 else 128) if side < 64 else 2 * side if coin < 0.5 else side
    config = WorldConfig(frames=frames, height=large, width=large, fps=Fraction(rates[seed % len(rates)]))
    scene = draw_scene(seed, config)
    frames_THWC = render_frames_THWC(scene, config)
    if side < 64:
        body = scene.bodies[int(rng.integers(len(scene.bodies)))]
        time_1 = np.array([int(rng.integers(frames)) / float(config.fps)])
        centre_12 = (positions_T2(body, scene.action, time_1) - scene.camera_T2(time_1)) * large
        left, top = (round(float(at)) - int(rng.integers(side // 4, 3 * side // 4)) for at in centre_12[0])
        top, left = (min(max(at, 0), large - side) for at in (top, left))
    else:
        top, left = rng.integers(0, large - side + 1, 2)
    return np.ascontiguousarray(frames_THWC[:, top : top + side, left : left + side])

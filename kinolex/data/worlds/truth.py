"""Is a generated clip what was asked for? Colour, shape, number, size and motion, judged without any network.

    clip --measure--> bodies --recognise--> Judgement        against Asked (words) and, where it is known, a track

What counts as right:
    number   as many bodies as asked, each of a colour of its own (worlds never repeat one)
    colour   a body of the colour asked is there; without it nothing else about the body can be right
    shape    that body's, by its angular moments
    size     that body's radius, from its area and shape, is nearest to the radius of the size asked
    motion   that body's track lies within 0.035 picture heights (root mean square) of some world of the action asked,
             and no other action fits more than 0.012 closer. So what two actions have in common, such as falling
             before the floor is reached, is right for both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinolex.data.worlds.measure import MeasuredBody, measure
from kinolex.data.worlds.motion import GROWS, Motion, grown, recognise
from kinolex.data.worlds.scene import ACTIONS, COLOURS, SHAPES, SIZES
from kinolex.errors import ShapeError, UsageError
from kinolex.types import Clip

AREA = {"circle": 2.70, "square": 2.47, "triangle": 1.31, "star": 1.45, "ring": 2.27}
"""Area as it is measured over the squared radius of a body: medians over rendered worlds of 64x64 and 128x128."""
MIN_FRAMES = 4

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a clip should show of one body; None leaves an attribute open."""

    action: str | None = None
    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    number: int = 1

    def __post_init__(self) -> None:
        for name, known in (("action", ACTIONS), ("shape", SHAPES), ("colour", COLOURS), ("size", SIZES)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise UsageError(f"worlds have no {name} {value!r}; there are {', '.join(known)}")
        if self.number < 1:
            raise UsageError(f"a world has at least one body, got number={self.number}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Right or wrong per attribute; True for what was not asked, as long as a body is there."""

    number: bool
    colour: bool
    shape: bool
    size: bool
    motion: bool
    seen: str | None
    """The action that the body's track is closest to; None if it shows none, or there is no body."""
    track_error: float
    """Median distance of centres over frames, in picture heights; NaN without a known track or without a body."""

    @property
    def all_right(self) -> bool:
        return self.number and self.colour and self.shape and self.size and self.motion


def judge(clip: Clip, asked: Asked, track_T2: Array | None = None) -> Judgement:
    """Measure a clip and compare.

    Args:
        clip: generated, decoded or rendered; its first frame is where the action begins.
        asked: the words of the request. Where no colour is asked, the body with the largest area is judged.
        track_T2: centres (x, y) in pixels per frame where the continuation of a known track was asked for.

    Raises:
        ShapeError: fewer than 4 frames, or a track of another length.
    """
    if len(clip.frames_TCHW) < MIN_FRAMES:
        raise ShapeError(f"motion needs at least {MIN_FRAMES} frames, got {len(clip.frames_TCHW)}")
    if track_T2 is not None and track_T2.shape != (len(clip.frames_TCHW), 2):
        raise ShapeError(f"a track of {len(clip.frames_TCHW)} frames is needed, got {track_T2.shape}")
    bodies = measure(clip).bodies
    candidates = [body for body in bodies if asked.colour in (None, body.colour)]
    if not candidates:
        number = len(bodies) == asked.number
        return Judgement(
            number=number, colour=False, shape=False, size=False, motion=False, seen=None, track_error=np.nan
        )
    body = max(candidates, key=lambda each: float(np.median(each.area_T)))
    motion = recognise(body.track_T2, body.area_T, float(clip.fps), clip.height)
    return Judgement(
        number=len(bodies) == asked.number,
        colour=True,
        shape=asked.shape in (None, body.shape),
        size=asked.size in (None, size_of(body, motion, float(clip.fps), clip.height)),
        motion=asked.action is None or motion.shows(asked.action),
        seen=motion.action,
        track_error=np.nan if track_T2 is None else _distance(body.track_T2, track_T2) / clip.height,
    )


def size_of(body: MeasuredBody, motion: Motion, fps: float, height: int) -> str:
    """The size whose radius is nearest, in proportion, to the body's; of a growing body, to what it grows to."""
    full_T = grown(np.arange(len(body.area_T)) / fps) if motion.growth > GROWS else np.ones(len(body.area_T))
    radii_T = np.sqrt(body.area_T / AREA[body.shape]) / full_T / height
    radius = max(float(np.median(radii_T)), 1e-6)
    return min(SIZES, key=lambda name: abs(np.log(SIZES[name] / radius)))


def _distance(found_T2: Array, wanted_T2: Array) -> float:
    """Median over the frames in which the body was found; measure lists only bodies found in at least half of them."""
    return float(np.nanmedian(np.hypot(*(found_T2 - wanted_T2).T)))

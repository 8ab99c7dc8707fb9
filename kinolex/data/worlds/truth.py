"""Is a generated clip what was asked for? Colour, shape, number, size and motion, judged without any network.

    caption --asked_of--> Asked of each body
    clip --measure--> bodies, motion --compared with Asked and, where it is known, a track--> Judgement of each body

What counts as right:
    number   as many bodies as asked, each of a colour of its own (worlds never repeat one)
    colour   a body of the colour asked is there; without it nothing else about the body can be right
    shape    that body's, the shape of worlds that looks most like it over all frames
    size     that body's radius is nearest to the radius of the size asked
    motion   that body's track lies within 0.035 picture heights (root mean square) of some world of the action asked,
             and no other action fits more than 0.012 closer. So what two actions have in common, such as falling
             before the floor is reached, is right for both.
    times    that body hits something as often as asked, within the duration of the clip
    floor    the bottom of the picture is nearest to the tone of the floor asked
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from kinolex.data.worlds.measure import MeasuredBody, impacts_of, measure_bodies
from kinolex.data.worlds.motion import GROWS, grown
from kinolex.data.worlds.render import FLOOR_TONES
from kinolex.data.worlds.scene import ACTIONS, COLOURS, FLOORS, NUMBERS, SHAPES, SIZES
from kinolex.errors import ShapeError, UsageError
from kinolex.types import Clip

MIN_FRAMES = 4
FLOOR_SHARE, FLOOR_LIGHT, FLOOR_BRIGHT = 0.06, 0.92, 0.8
"""The part of the picture, from below, that shows nothing but floor; how much darker it is than the middle; and the
quantile of its levels that no shadow reaches."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a clip should show of one body; None leaves an attribute open."""

    action: str | None = None
    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    number: int = 1
    """Of bodies in the clip, this one included."""
    times: int | None = None
    """How often it hits something; ten is ten or more."""
    floor: str | None = None

    def __post_init__(self) -> None:
        words = (("action", ACTIONS), ("shape", SHAPES), ("colour", COLOURS), ("size", SIZES), ("floor", FLOORS))
        for name, known in words:
            value = getattr(self, name)
            if value is not None and value not in known:
                raise UsageError(f"worlds have no {name} {value!r}; there are {', '.join(known)}")
        if self.number < 1:
            raise UsageError(f"a world has at least one body, got number={self.number}")
        if self.times is not None and self.times < 0:
            raise UsageError(f"bodies hit something 0 times or more, got times={self.times}")


CAPTION = re.compile(
    r"(?P<bodies>.+) (?P<verb>{})(?:e?s)?(?: (?P<often>once|twice|(?:{}) times))? (?:on|above) (?P<floor>\w+)".format(
        "|".join(ACTIONS), "|".join(NUMBERS)
    )
)
BODY = re.compile(r"a (?P<size>\w+) (?P<colour>\w+) (?P<shape>\w+)")


def asked_of(caption: str) -> tuple[Asked, ...]:
    """What a caption of a world asks of each of its bodies, in the caption's order; the inverse of scene.describe.

    Raises:
        UsageError: the caption is not one of a world.
    """
    whole = CAPTION.fullmatch(caption)
    bodies = [BODY.fullmatch(part) for part in re.split(r", | and ", whole["bodies"])] if whole else []
    if whole is None or not all(bodies):
        raise UsageError(
            f"{caption!r} is no caption of a world; they read like 'a small red star bounces twice on wood' or "
            "'a large blue ring and a small green square orbit above glass'"
        )
    often = whole["often"]
    times = None if often is None else {"once": 1, "twice": 2}.get(often) or NUMBERS.index(often.split()[0])
    return tuple(
        Asked(
            action=whole["verb"],
            shape=body["shape"],
            colour=body["colour"],
            size=body["size"],
            number=len(bodies),
            times=times,
            floor=whole["floor"],
        )
        for body in bodies
        if body is not None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Right or wrong per attribute; True for what was not asked, as long as a body is there."""

    number: bool
    colour: bool
    shape: bool
    size: bool
    motion: bool
    times: bool
    floor: bool
    seen: str | None
    """The action that the body's track is closest to; None if it shows none, or there is no body."""
    track_error: float
    """Median distance of centres over frames, in picture heights; NaN without a known track or without a body."""

    @property
    def all_right(self) -> bool:
        found = self.number and self.colour and self.shape and self.size and self.motion
        return found and self.times and self.floor


def judge(clip: Clip, asked: Asked, track_T2: Array | None = None) -> Judgement:
    """Measure a clip and compare it with what was asked of one body.

    Args:
        clip: generated, decoded or rendered; its first frame is where the action begins.
        asked: the words of the request. Where no colour is asked, the body with the largest radius is judged.
        track_T2: centres (x, y) in pixels per frame where the continuation of a known track was asked for.

    Raises:
        ShapeError: fewer than 4 frames, or a track of another length.
    """
    return judge_each(clip, [asked], [track_T2])[0]


def judge_each(clip: Clip, asked: Sequence[Asked], tracks: Sequence[Array | None] = ()) -> tuple[Judgement, ...]:
    """Measure a clip once and compare it with what was asked of each of its bodies, e.g. by asked_of(caption).

    Args:
        clip: as for judge.
        asked: one request per body; a body is told from the others by its colour.
        tracks: none, or one per request: as for judge.

    Raises:
        ShapeError: fewer than 4 frames, or a track of another length.
        UsageError: tracks are given, but not one per request.
    """
    if len(clip.frames_TCHW) < MIN_FRAMES:
        raise ShapeError(f"motion needs at least {MIN_FRAMES} frames, got {len(clip.frames_TCHW)}")
    tracks = tracks or [None] * len(asked)
    if len(tracks) != len(asked):
        raise UsageError(f"{len(asked)} requests need {len(asked)} tracks or none, got {len(tracks)}")
    for track_T2 in tracks:
        if track_T2 is not None and track_T2.shape != (len(clip.frames_TCHW), 2):
            raise ShapeError(f"a track of {len(clip.frames_TCHW)} frames is needed, got {track_T2.shape}")
    bodies, floor = measure_bodies(clip), floor_of(clip)
    return tuple(
        _judged(clip, bodies, floor, request, track_T2) for request, track_T2 in zip(asked, tracks, strict=True)
    )


def _judged(
    clip: Clip, bodies: tuple[MeasuredBody, ...], floor: str, asked: Asked, track_T2: Array | None
) -> Judgement:
    candidates = [body for body in bodies if asked.colour in (None, body.colour)]
    number, on_floor = len(bodies) == asked.number, asked.floor in (None, floor)
    if not candidates:
        return Judgement(
            number=number,
            colour=False,
            shape=False,
            size=False,
            motion=False,
            times=False,
            floor=on_floor,
            seen=None,
            track_error=np.nan,
        )
    body = max(candidates, key=lambda each: float(np.nanmedian(each.radii_T)))
    return Judgement(
        number=number,
        colour=True,
        shape=asked.shape in (None, body.shape),
        size=asked.size in (None, size_of(body, float(clip.fps), clip.height)),
        motion=asked.action is None or body.motion.shows(asked.action),
        times=asked.times is None or min(len(impacts_of((body,), clip)), len(NUMBERS) - 1) == asked.times,
        floor=on_floor,
        seen=body.motion.action,
        track_error=np.nan if track_T2 is None else _distance(body.track_T2, track_T2) / clip.height,
    )


def floor_of(clip: Clip) -> str:
    """The floor whose tone is nearest to the bottom of the picture."""
    rows = max(1, round(FLOOR_SHARE * clip.height))
    # Shadows darken part of it, so its brighter part is compared with the brighter tone of each floor.
    pixels_CP = rearrange(clip.frames_TCHW[:, :, -rows:].numpy(), "t c h w -> c (t h w)")
    seen_C = np.quantile(pixels_CP, FLOOR_BRIGHT, axis=1) / 255
    tones = {floor: FLOOR_LIGHT * np.array(FLOOR_TONES[floor][0]) for floor in FLOORS}
    return min(FLOORS, key=lambda floor: float(np.abs(tones[floor] - seen_C).sum()))


def size_of(body: MeasuredBody, fps: float, height: int) -> str:
    """The size whose radius is nearest, in proportion, to the body's; of a growing body, to what it grows to."""
    count = len(body.radii_T)
    full_T = grown(np.arange(count) / fps) if body.motion.growth > GROWS else np.ones(count)
    radius = max(float(np.nanmedian(body.radii_T / full_T)) / height, 1e-6)
    return min(SIZES, key=lambda name: abs(np.log(SIZES[name] / radius)))


def _distance(found_T2: Array, wanted_T2: Array) -> float:
    """Median over the frames in which the body was found; measure lists only bodies found in at least half of them."""
    return float(np.nanmedian(np.hypot(*(found_T2 - wanted_T2).T)))

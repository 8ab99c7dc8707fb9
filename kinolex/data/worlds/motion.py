"""Which action a measured track shows: every action is fitted as worlds do it, and the closest is named.

    track_T2, area_T --for each action: its worlds, fitted--> distance to the nearest such world --> fits, closest first

In 17 frames at 24 per second every falling body has landed, so all five actions differ. In less than 0.45 s a body that
falls and one that will bounce are the same sight: both then fit, and `Motion.shows` accepts either.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinolex.data.worlds.scene import ACTIONS, FLOOR_Y, Body, positions_T2, radii_T

Array = NDArray[np.float64]

TOLERANCE = 0.035
"""Picture heights, root mean square over frames: further from every world of an action a track does not show it."""
SLACK = 0.012
"""Picture heights: an action that fits so much worse than the closest one is not shown either."""
GROWS = 0.5
"""Share of the growth due at the end of the clip, from which on a body counts as growing."""
CAMERA_SPEED = (0.1, 0.055)
"""Heights per second in x and y: as fast the camera of a world may drift, so tracks are fitted up to such a drift."""
MIN_SEEN = 4
MIN_REACH = 0.03
ORBIT_SPEEDS = np.concatenate([np.linspace(-5.0, -1.6, 18), np.linspace(1.6, 5.0, 18)])
"""Radians per second; worlds have 2 to 4.4 either way."""
SLIDE_SPEEDS = (0.4, 1.25)
"""Heights per second; worlds have 0.5 to 1.1."""


@dataclass(frozen=True, slots=True)
class Motion:
    fits: dict[str, float]
    """Root mean square distance to the nearest world of each action, picture heights; infinite where none is near."""
    growth: float
    """Share of the growth of a growing body that was seen: about 1 for those, 0 for all others."""

    @property
    def action(self) -> str | None:
        """The closest action, or None if the track shows none."""
        best = min(self.fits, key=lambda name: self.fits[name])
        return best if self.fits[best] <= TOLERANCE else None

    def shows(self, action: str) -> bool:
        """Whether the track is one that a world of this action could have, and no other action fits clearly better."""
        return self.fits[action] <= min(TOLERANCE, min(self.fits.values()) + SLACK)


def recognise(track_T2: Array, area_T: Array, fps: float, height: int) -> Motion:
    """Fit every action.

    Args:
        track_T2: centres (x, y) in pixels per frame, NaN where not seen; frame 0 is where the action begins.
        area_T: pixels per frame.
        fps: frames per second.
        height: of the picture, in pixels.
    """
    seen_T = np.isfinite(track_T2).all(axis=1) & (area_T > 0)
    if seen_T.sum() < MIN_SEEN:
        return Motion(dict.fromkeys(ACTIONS, np.inf), 0.0)
    places_T2, times_T = track_T2[seen_T] / height, np.flatnonzero(seen_T) / fps
    growth = growth_of(np.sqrt(area_T[seen_T]), times_T)
    fits = {
        action: min(
            (_error(places_T2, model_T2, times_T) for model_T2 in MODELS[action](places_T2, times_T)), default=np.inf
        )
        for action in ACTIONS
    }
    for action in ACTIONS:
        if (action == "grow") != (growth > GROWS):
            fits[action] = np.inf
    return Motion(fits, growth)


def growth_of(radii: Array, times_T: Array) -> float:
    """By a straight line through radius against the radius due, as a share of the growth that worlds have."""
    due_T = grown(times_T)
    if np.ptp(due_T) < 0.02:
        return 0.0
    slope, start = np.polyfit(due_T, radii, 1)
    # A world's radius is proportional to `due`, which a line through the origin fits; a steady one has slope 0.
    return float(slope * due_T.mean() / max(slope * due_T.mean() + start, 1e-9))


def grown(times_T: Array) -> Array:
    """Radius of a growing body over its full one."""
    return radii_T(_body((0.0, 0.0), radius=1.0), "grow", times_T)


def _error(places_T2: Array, model_T2: Array, times_T: Array) -> float:
    """Root mean square distance, after the place and the slow drift that a camera can add."""
    rest_T2 = places_T2 - model_T2
    centred_T = times_T - times_T.mean()
    slopes = centred_T @ rest_T2 / max(float(centred_T @ centred_T), 1e-9)
    drift_T2 = centred_T[:, None] * np.clip(slopes, -np.array(CAMERA_SPEED), CAMERA_SPEED)
    rest_T2 = rest_T2 - rest_T2.mean(axis=0) - drift_T2
    return float(np.sqrt((rest_T2**2).sum(axis=1).mean()))


def _body(
    start: tuple[float, float], *, radius: float = 0.1, lane: tuple[float, float] = (0, 1), speed: float = 0
) -> Body:
    return Body(
        shape="circle", colour="red", size="medium", radius=radius, lane=lane, start=start, speed=speed, phase=0, spin=0
    )


def _drops(action: str, places_T2: Array, times_T: Array) -> Iterator[Array]:
    """From about the height first seen to about the lowest point reached or, before that, any floor further down."""
    first, lowest = places_T2[0, 1], places_T2[:, 1].max()
    fallen = 3.5 * times_T[0] ** 2
    for above, below in itertools.product(np.linspace(-0.03, 0.03, 5), np.linspace(-0.03, 0.12, 11)):
        start, rest = first - fallen + above, lowest + below
        if rest - start > 0.2:
            yield positions_T2(_body((0.0, start), radius=FLOOR_Y - rest), action, times_T)


def _slides(places_T2: Array, times_T: Array) -> Iterator[Array]:
    """Between walls at the outermost places, or beyond the picture where none was met."""
    x_T, steps_T = places_T2[:, 0], np.diff(times_T)
    pace = float(np.median(np.abs(np.diff(x_T)) / steps_T))
    away, reach = 10.0, pace * float(np.median(steps_T))
    for scale, sign in itertools.product((0.92, 1.0, 1.08), (-1.0, 1.0)):
        speed = sign * pace * scale
        if not SLIDE_SPEEDS[0] <= abs(speed) <= SLIDE_SPEEDS[1]:
            continue
        lefts = [x_T.min() - beyond * reach for beyond in (0.05, 0.3, 0.55)] + [x_T.min() - away]
        rights = [x_T.max() + beyond * reach for beyond in (0.05, 0.3, 0.55)] + [x_T.max() + away]
        for left, right in itertools.product(lefts, rights):
            start = (float(x_T[0]) - speed * float(times_T[0]), 0.0)
            yield positions_T2(_body(start, lane=(left, right), speed=speed), "slide", times_T)


def _orbits(places_T2: Array, times_T: Array) -> Iterator[Array]:
    """The circle that fits best at each angular speed."""
    ones, zeros = np.ones_like(times_T), np.zeros_like(times_T)
    for speed in ORBIT_SPEEDS:
        cosine, sine = np.cos(speed * times_T), np.sin(speed * times_T)
        system = np.block([[np.stack([ones, zeros, cosine, sine], 1)], [np.stack([zeros, ones, sine, -cosine], 1)]])
        solution = np.linalg.lstsq(system, places_T2.T.reshape(-1), rcond=None)[0]
        if np.hypot(solution[2], solution[3]) > MIN_REACH:
            yield (system @ solution).reshape(2, -1).T


def _still(places_T2: Array, times_T: Array) -> Iterator[Array]:
    yield np.zeros_like(places_T2)


MODELS = {
    "fall": lambda places_T2, times_T: _drops("fall", places_T2, times_T),
    "bounce": lambda places_T2, times_T: _drops("bounce", places_T2, times_T),
    "slide": _slides,
    "orbit": _orbits,
    "grow": _still,
}

"""What is in a clip of a world, found by classical picture and sound processing, with no access to the truth.

    frames -> bodies (bodies, shapes) -> which action (motion) -> impacts (seen_impacts)
    sound  -> onsets

Works on decoded, compressed or generated clips, so that generated video is judged against truth and not by a network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinolex.data.worlds.bodies import find_bodies
from kinolex.data.worlds.motion import Motion, recognise
from kinolex.data.worlds.onsets import Onset, onsets
from kinolex.data.worlds.scene import Impact
from kinolex.data.worlds.seen_impacts import seen_impacts
from kinolex.types import Clip

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredBody:
    colour: str
    shape: str
    track_T2: Array
    """Centre (x, y) in pixels per frame, NaN where the body was not found."""
    radii_T: Array
    """Of the circle around the body, in pixels per frame; NaN where it was not found."""
    motion: Motion


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    bodies: tuple[MeasuredBody, ...]
    impacts: tuple[Impact, ...]
    """Seen in the picture, of all bodies, in order of time; pitch and loudness are what size and speed imply."""
    onsets: tuple[Onset, ...]
    """Heard in the sound."""


def measure(clip: Clip) -> Measured:
    """Bodies and impacts from the picture, onsets from the sound."""
    bodies = measure_bodies(clip)
    return Measured(bodies, impacts_of(bodies, clip), () if clip.sound is None else onsets(clip.sound))


def measure_bodies(clip: Clip) -> tuple[MeasuredBody, ...]:
    """What is in the picture, at most one body per colour."""
    frames_THWC = clip.frames_TCHW.permute(0, 2, 3, 1).contiguous().numpy()
    times_T = np.arange(len(frames_THWC)) / float(clip.fps)
    bodies = []
    for found in find_bodies(frames_THWC, times_T):
        track_T2, radii_T = np.full((len(times_T), 2), np.nan), np.full(len(times_T), np.nan)
        track_T2[found.seen_T], radii_T[found.seen_T] = found.fitted.centres_T2, found.fitted.radii_T
        motion = recognise(track_T2, radii_T**2, float(clip.fps), clip.height)
        bodies.append(MeasuredBody(found.colour, found.fitted.shape, track_T2, radii_T, motion))
    return tuple(bodies)


def impact_times(clip: Clip) -> tuple[float, ...]:
    """When something hits something in the picture, in seconds, whatever the sound."""
    return tuple(impact.time_s for impact in impacts_of(measure_bodies(clip), clip))


def impacts_of(bodies: tuple[MeasuredBody, ...], clip: Clip) -> tuple[Impact, ...]:
    """The impacts of measured bodies, in order of time."""
    found = [
        impact
        for index, body in enumerate(bodies)
        for impact in seen_impacts(body.track_T2, body.radii_T, body.motion, float(clip.fps), clip.height, index)
    ]
    return tuple(sorted(found, key=lambda impact: impact.time_s))

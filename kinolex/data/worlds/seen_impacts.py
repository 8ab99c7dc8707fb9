"""Impacts in the picture: when a measured track hits something, between frames too.

    track --recognise--> fall or bounce: height over time --flights fitted--> where each flight meets the floor
                         slide: place over time --triangle wave fitted--> where it turns
                         orbit, grow: no impact
                         none of them: where straight pieces before and after a sudden change of speed meet

Fitting a whole flight uses every frame of it; with gravity known, five numbers describe all landings of a body, and a
landing is placed to a few milliseconds although a frame lasts forty.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kinolex.data.worlds.motion import Motion
from kinolex.data.worlds.scene import GRAVITY, REST_SPEED, RESTITUTION, Impact, impact

PRECISION = 0.0015
"""Picture heights: what a measured centre is off by at best."""
DRIFT, DRIFT_BEND = 0.05, 0.08
"""Heights per second and per second squared that the camera of a world adds, as standard deviations."""
RESTITUTION_SPREAD = 0.06
SPEED_CHANGE = 0.35
"""Picture heights per second by which the speed must change at an impact that fits no action."""
MIN_PERIOD_S, MIN_SPEED = 0.12, 0.3
"""Of a slide: from wall to wall, and heights per second."""
HIT_COST = 8.0
"""Squared standard deviations that one more hit has to explain."""

MIN_BEND = 4.0
"""Times PRECISION: how far a frame must lie off the straight line for a turn to show."""

Array = NDArray[np.float64]


def seen_impacts(
    track_T2: Array, radii_T: Array, motion: Motion, fps: float, height: int, body: int = 0
) -> tuple[Impact, ...]:
    """The impacts of one body, in order, with the pitch and loudness that its size and speed imply.

    Args:
        track_T2: centres (x, y) in pixels per frame, NaN where not seen; frame 0 is where the action begins.
        radii_T: of the circle around the body, in pixels.
        motion: what recognise says of the track.
        fps: frames per second.
        height: of the picture, in pixels.
        body: its number, for the impacts.
    """
    seen_T = np.isfinite(track_T2).all(axis=1)
    times_T, places_T2 = np.flatnonzero(seen_T) / fps, track_T2[seen_T] / height
    end_s = len(track_T2) / fps
    if motion.action in ("fall", "bounce"):
        found = _landings(places_T2[:, 1], times_T, motion.action == "bounce")
    elif motion.action == "slide":
        found = _turns(places_T2[:, 0], times_T)
    elif motion.action in ("orbit", "grow"):
        found = []
    else:
        found = _kinks(track_T2 / height, fps)
    radius = max(float(np.median(radii_T[seen_T])) / height, 1e-3) if seen_T.any() else 1.0
    return tuple(impact(time, radius, speed, body) for time, speed in sorted(found) if 0 < time < end_s)


def _flights(
    times_T: Array, start: float, rest: float, restitution: float, bounces: bool
) -> tuple[Array, list[tuple[float, float]]]:
    """Height over time, and times and speeds of the landings, of a body let go at time 0."""
    drop = max(rest - start, 1e-4)
    time, speed = np.sqrt(2 * drop / GRAVITY), np.sqrt(2 * drop * GRAVITY)
    heights_T = np.where(times_T < time, start + GRAVITY * times_T**2 / 2, rest)
    landings = [(float(time), float(speed))]
    while bounces and (speed := speed * restitution) > REST_SPEED and time < times_T[-1] + 1:
        since_T = times_T - time
        until = 2 * speed / GRAVITY
        flying_T = (since_T >= 0) & (since_T < until)
        heights_T = np.where(flying_T, rest - speed * since_T + GRAVITY * since_T**2 / 2, heights_T)
        time += until
        landings.append((float(time), float(speed)))
    return heights_T, landings


def _landings(heights_T: Array, times_T: Array, bounces: bool) -> list[tuple[float, float]]:
    def misfit(numbers: Array) -> Array:
        start, rest, restitution, drift, bend = numbers
        model_T, _ = _flights(times_T, start, rest, restitution, bounces)
        camera_T = drift * times_T + bend * times_T**2
        # Beside the frames: how unlike a world the numbers are.
        unlike = [(restitution - RESTITUTION) / RESTITUTION_SPREAD, drift / DRIFT, bend / DRIFT_BEND]
        return np.concatenate([(model_T + camera_T - heights_T) / PRECISION, unlike])

    first = float(heights_T[0]) - GRAVITY * float(times_T[0]) ** 2 / 2
    lowest = float(np.sort(heights_T)[-2])
    starts, rests = first + np.linspace(-0.02, 0.02, 3), lowest + np.linspace(-0.02, 0.1, 13)
    guesses = [np.array([start, rest, RESTITUTION, 0.0, 0.0]) for start, rest in itertools.product(starts, rests)]
    best = sorted(guesses, key=lambda guess: _cost(misfit(guess)))[:2]
    numbers = min((_descend(misfit, guess) for guess in best), key=lambda each: _cost(misfit(each)))
    start, rest, restitution = numbers[:3]
    return _flights(times_T, start, rest, restitution, bounces)[1]


def _cost(misfit: Array) -> float:
    """Squares up to two heights of a hundredth, lines beyond: a frame that was measured wrongly must not decide."""
    size = np.abs(misfit)
    limit = 0.01 / PRECISION
    return float(np.where(size < limit, size**2, limit * (2 * size - limit)).sum())


def _descend(misfit: Callable[[Array], Array], numbers: Array) -> Array:
    """Damped Gauss-Newton steps (Levenberg 1944) with numeric slopes."""
    damping, current = 1e-3, _cost(misfit(numbers))
    for _ in range(20):
        values = misfit(numbers)
        slopes = np.stack([(misfit(numbers + step) - values) / 1e-5 for step in 1e-5 * np.eye(len(numbers))], axis=1)
        weights = 1 / np.maximum(1, np.abs(values) * PRECISION / 0.01)
        gram = (slopes * weights[:, None]).T @ slopes
        downhill = (slopes * weights[:, None]).T @ values
        before = current
        for _ in range(6):
            trial = numbers - np.linalg.solve(gram + damping * np.diag(np.diag(gram) + 1e-9), downhill)
            cost = _cost(misfit(trial))
            if cost < current:
                numbers, current, damping = trial, cost, damping / 4
                break
            damping *= 6
        if before - current < 1e-3 * before + 1e-6:
            break
    return numbers


def _wave(times: Array, first: Array | float, period: Array | float) -> Array:
    """A triangle wave of slope 1 that turns at `first` and every period after, and before."""
    phase = (times - first) / period
    whole = np.floor(phase)
    rest = (phase - whole) * period
    # Rising before an even turn, falling after it.
    return np.where(whole % 2 == 0, -rest, rest - period)


def _turns(places_T: Array, times_T: Array) -> list[tuple[float, float]]:
    """Turns of the triangle wave, plus the camera's drift, that fits best with few turns."""
    last, frame = float(times_T[-1]), float(np.median(np.diff(times_T)))
    ridge = PRECISION / np.array([1e3, 1e3, DRIFT, DRIFT_BEND])

    def solved(first_N: Array, period_N: Array) -> tuple[Array, Array]:
        wave_NT = _wave(times_T, first_N[:, None], period_N[:, None])
        ones_NT = np.ones_like(wave_NT)
        system_NTP = np.stack([ones_NT, wave_NT, times_T * ones_NT, times_T**2 * ones_NT], axis=2)
        gram_NPP = np.einsum("ntp,ntq->npq", system_NTP, system_NTP) + np.diag(ridge**2)
        solution_NP = np.linalg.solve(gram_NPP, np.einsum("ntp,t->np", system_NTP, places_T)[..., None])[..., 0]
        rest_NT = np.einsum("ntp,np->nt", system_NTP, solution_NP) - places_T
        costs_N = (rest_NT**2).sum(axis=1) + ((solution_NP * ridge) ** 2).sum(axis=1)
        costs_N = np.where(np.abs(solution_NP[:, 1]) < MIN_SPEED, np.inf, costs_N)
        return costs_N, solution_NP

    periods = np.append(np.geomspace(MIN_PERIOD_S, max(last, 2 * MIN_PERIOD_S), 28), last + 1)
    pairs = [(first, period) for period in periods for first in np.arange(0, min(period, last + frame), frame / 2)]
    first_N, period_N = np.array(pairs).T
    costs_N, _ = solved(first_N, period_N)
    # What the best wave leaves is how precise the track is.
    scale = max(PRECISION**2, float(costs_N.min()) / max(len(times_T) - 6, 4))
    total_N = costs_N / scale + HIT_COST * _hits(first_N, period_N, last)
    best: tuple[float, float, float, float] | None = None
    for index in np.argsort(total_N)[:6]:
        first, period, width = float(first_N[index]), float(period_N[index]), frame / 2
        wide = period * 0.12 if period < last else 0.0
        cost, speed = np.inf, 0.0
        for _ in range(7):
            offsets = np.linspace(-1, 1, 5)
            firsts, near = (grid.reshape(-1) for grid in np.meshgrid(first + width * offsets, period + wide * offsets))
            near = near.clip(MIN_PERIOD_S)
            costs, solutions = solved(firsts, near)
            least = int(costs.argmin())
            cost, speed = float(costs[least]), abs(float(solutions[least, 1]))
            first, period, width, wide = float(firsts[least]), float(near[least]), width / 2.2, wide / 2.2
        scale = min(scale, max(PRECISION**2, cost / max(len(times_T) - 6, 4)))
        candidate = (cost, first, period, speed)
        if best is None or _total(candidate, scale, last) < _total(best, scale, last):
            best = candidate
    if best is None or not np.isfinite(best[0]):
        return []
    _, first, period, speed = best
    first -= period * np.floor(first / period) if first < 0 or first > period else 0.0
    times = np.arange(first, last + period, period)
    # A turn shows only if a frame on either side lies off the line; two turns also say when the next one comes.
    shown = 2 * speed * np.minimum(times - times_T[0], last - times) > MIN_BEND * PRECISION
    known = shown | ((times > last) & (shown.sum() >= 2))
    return [(float(time), speed) for time in times[known]]


def _hits(first_N: Array, period_N: Array, last: float) -> Array:
    return np.floor((last - first_N) / period_N).clip(-1) + 1


def _total(candidate: tuple[float, float, float, float], scale: float, last: float) -> float:
    cost, first, period, _ = candidate
    return cost / scale + HIT_COST * float(_hits(np.array(first), np.array(period), last))


def _kinks(places_T2: Array, fps: float) -> list[tuple[float, float]]:
    """Where the straight lines before and after a sudden change of speed meet, on either axis, and the speed before."""
    found: list[tuple[float, float]] = []
    speeds_T2 = np.diff(places_T2, axis=0) * fps
    for axis, gravity in ((0, 0.0), (1, GRAVITY)):
        speed_T = speeds_T2[:, axis]
        for i in range(1, len(speed_T) - 2):
            before, after = float(speed_T[i - 1]), float(speed_T[i + 1])
            # The change must be sudden: one step across it, not an arc.
            jump, arc = abs(after - before), abs(before - speed_T[i - 2]) if i > 1 else 0.0
            if not jump > SPEED_CHANGE + 2.5 * arc or before * after > 0.25 * before**2:
                continue
            if axis == 1 and before < SPEED_CHANGE:
                continue  # downwards only: bodies do not hit the sky
            time = _meeting(places_T2[:, axis], i, fps, before, after, gravity)
            if all(abs(time - other) > 1.5 / fps for other, _ in found):
                found.append((time, abs(before)))
    return found


def _meeting(place_T: Array, i: int, fps: float, before: float, after: float, gravity: float) -> float:
    """Time between frames i and i + 1 at which both branches, prolonged, are at the same place."""
    grid = np.linspace(i / fps, (i + 1) / fps, 201)
    since, until = grid - i / fps, grid - (i + 1) / fps
    # Speeds were measured half a frame away from the frames they are prolonged from.
    left = place_T[i] + (before + gravity * 0.5 / fps) * since + gravity * since**2 / 2
    resting = abs(after) < 0.1
    right = place_T[i + 1] + (0.0 if resting else (after - gravity * 0.5 / fps) * until + gravity * until**2 / 2)
    return float(grid[int(np.argmin(np.abs(left - right)))])

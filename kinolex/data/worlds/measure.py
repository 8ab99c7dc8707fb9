"""What is in a clip of a world, found by classical picture and sound processing, with no access to the truth.

    frames -> saturated pixels by hue -> one body per colour -> centroids, shape by angular moments -> impact times
    sound  -> energy rises -> onset times -> spectrum after each -> pitch and loudness

Works on decoded, compressed or generated clips, so that generated video is judged against truth and not by a network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinolex.data.worlds.scene import COLOURS
from kinolex.types import Clip, Sound

MIN_SATURATION = 0.42
MIN_AREA_SHARE = 0.004
"""Of the picture; less is noise."""
MIN_COMPACTNESS = 0.6
MAX_HUE_DISTANCE = 0.065
RING_SPREAD = 1.45
"""Second moment of a disc is 1; a ring's is far above, every solid shape's below."""
HOP_S = 0.002
ONSET_RATIO, ONSET_FLOOR = 3.0, 0.004
MIN_GAP_S = 0.03
PITCH_WINDOW_S = 0.09
PITCH_RANGE_HZ = (150.0, 1500.0)
SPEED_CHANGE = 0.35
"""Picture heights per second by which the speed must change at an impact."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredBody:
    colour: str
    shape: str
    track_T2: Array
    """Centroid (x, y) in pixels per frame, NaN where the body was not found."""
    area_T: Array
    """Square pixels of its colour per frame, with soft edges."""
    impact_times_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Onset:
    time_s: float
    pitch_hz: float
    loudness: float


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    bodies: tuple[MeasuredBody, ...]
    onsets: tuple[Onset, ...]

    @property
    def impact_times_s(self) -> tuple[float, ...]:
        return tuple(sorted(time for body in self.bodies for time in body.impact_times_s))


def measure(clip: Clip) -> Measured:
    """Bodies from the picture, onsets from the sound."""
    frames_THWC = clip.frames_TCHW.permute(0, 2, 3, 1).numpy()
    weights = _weights_by_colour(frames_THWC)
    least = MIN_AREA_SHARE * frames_THWC.shape[1] * frames_THWC.shape[2]
    bodies = []
    for colour, weight_THW in weights.items():
        area_T = weight_THW.sum(axis=(1, 2))
        seen_T = area_T > least
        if seen_T.mean() < 0.5:
            continue
        track_T2 = _centroids(weight_THW, seen_T)
        if _compactness(weight_THW, track_T2, area_T) < MIN_COMPACTNESS:
            continue
        shape = _shape(weight_THW, track_T2, area_T)
        times = _impact_times(track_T2, float(clip.fps), frames_THWC.shape[1])
        bodies.append(MeasuredBody(colour, shape, track_T2, area_T, times))
    onsets = () if clip.sound is None else find_onsets(clip.sound)
    return Measured(tuple(bodies), onsets)


def _hue_saturation(rgb: Array) -> tuple[Array, Array, Array]:
    high, low = rgb.max(axis=-1), rgb.min(axis=-1)
    spread = high - low
    safe = np.where(spread > 0, spread, 1.0)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    hue = np.where(
        high == red,
        (green - blue) / safe % 6,
        np.where(high == green, (blue - red) / safe + 2, 4 + (red - green) / safe),
    )
    return hue / 6, spread / np.maximum(high, 1.0), high


def _weights_by_colour(frames_THWC: NDArray[np.uint8]) -> dict[str, Array]:
    """Per colour name a weight of 0..1 per pixel: how surely it belongs to a body of that colour."""
    hue_THW, saturation_THW, value_THW = _hue_saturation(_smoothed(frames_THWC.astype(np.float64)))
    solid_THW = ((saturation_THW - MIN_SATURATION + 0.08) / 0.16).clip(0, 1) * (value_THW > 50)
    names = list(COLOURS)
    reference = _hue_saturation(np.array([COLOURS[name] for name in names], np.float64)[None])[0][0]
    coloured_THW = solid_THW > 0  # few pixels are; the rest need no hue
    distance = np.abs((hue_THW[coloured_THW][:, None] - reference + 0.5) % 1 - 0.5)
    nearest, close = distance.argmin(axis=-1), distance.min(axis=-1) < MAX_HUE_DISTANCE
    weights = {}
    for index, name in enumerate(names):
        weights[name] = np.zeros_like(solid_THW)
        weights[name][coloured_THW] = solid_THW[coloured_THW] * (close & (nearest == index))
    return weights


def _smoothed(frames_THWC: Array) -> Array:
    """Mean of 3x3 pixels: grain and compression noise otherwise colour grey backgrounds."""
    padded = np.pad(frames_THWC, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9


def _compactness(weight_THW: Array, track_T2: Array, area_T: Array) -> float:
    """Share of the weight that lies about the centroid; a body's is near one, scattered noise's is not."""
    rows, columns = np.arange(weight_THW.shape[1]) + 0.5, np.arange(weight_THW.shape[2]) + 0.5
    shares = []
    for time in np.flatnonzero(~np.isnan(track_T2[:, 0])):
        x, y = track_T2[time]
        reach = 2.2 * np.sqrt(area_T[time] / np.pi) + 2
        near_HW = np.hypot(columns[None] - x, rows[:, None] - y) < reach
        shares.append((weight_THW[time] * near_HW).sum() / area_T[time])
    return float(np.median(shares)) if shares else 0.0


def _centroids(weight_THW: Array, seen_T: NDArray[np.bool_]) -> Array:
    """Centres of weight, refined once within reach of the first guess, so that strays count less."""
    height, width = weight_THW.shape[1:]
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    track_T2 = np.full((len(weight_THW), 2), np.nan)
    for time in np.flatnonzero(seen_T):
        weight_HW = weight_THW[time]
        reach = 1.6 * np.sqrt(weight_HW.sum() / np.pi) + 2
        # Washed-out bodies have no pixel above a half; then their own strongest count.
        strong_HW = weight_HW > min(0.5, 0.5 * float(weight_HW.max()))
        x, y = (
            np.median(np.repeat(columns[None], height, 0)[strong_HW]),
            np.median(np.repeat(rows[:, None], width, 1)[strong_HW]),
        )
        for _ in range(2):
            near_HW = weight_HW * (np.hypot(columns[None] - x, rows[:, None] - y) < reach)
            total = max(near_HW.sum(), 1e-9)
            x, y = (near_HW * columns).sum() / total, (near_HW * rows[:, None]).sum() / total
        track_T2[time] = x, y
    return track_T2


def _shape(weight_THW: Array, track_T2: Array, area_T: Array) -> str:
    """By the angular moments 3, 4 and 5 around the centroid and the spread of the radius, over the whole clip."""
    height, width = weight_THW.shape[1:]
    margin = np.sqrt(np.median(area_T) / np.pi) + 2
    moments, spreads = [], []
    for time, (x, y) in enumerate(track_T2):
        inside = margin < x < width - margin and margin * 0.8 < y < height - margin * 0.8
        if np.isnan(x) or not inside:
            continue
        reach = 2.2 * np.sqrt(area_T[time] / np.pi) + 1
        top, bottom = max(0, int(y - reach)), min(height, int(y + reach) + 1)
        left, right = max(0, int(x - reach)), min(width, int(x + reach) + 1)
        weight_HW = weight_THW[time, top:bottom, left:right]
        dx = np.arange(left, right) + 0.5 - x
        dy = (np.arange(top, bottom) + 0.5 - y)[:, None]
        square_HW, angle_HW = dx**2 + dy**2, np.arctan2(dy, dx + 0 * dy)
        total = max(weight_HW.sum(), 1e-9)
        spreads.append(2 * np.pi * (weight_HW * square_HW).sum() / total**2)
        mass = (weight_HW * square_HW).sum()
        moments.append([abs((weight_HW * square_HW * np.exp(1j * k * angle_HW)).sum()) / mass for k in (3, 4, 5)])
    if not moments:
        return "circle"
    three, four, five = np.median(moments, axis=0)
    if np.median(spreads) > RING_SPREAD:
        return "ring"
    if three > 0.22:
        return "triangle"
    if five > 0.10 and five > four:
        return "star"
    return "square" if four > 0.08 else "circle"


def _impact_times(track_T2: Array, fps: float, height: int) -> tuple[float, ...]:
    """Where the straight lines before and after a sudden change of speed meet, on either axis."""
    times = []
    steps_T2 = np.diff(track_T2, axis=0) * fps / height
    for axis in (0, 1):
        speed = steps_T2[:, axis]
        for i in range(1, len(speed) - 2):
            before, after = speed[i - 1], speed[i + 1]
            # The change must be sudden: one step across it, not an arc.
            jump, arc = abs(after - before), abs(speed[i - 1] - speed[i - 2]) if i > 1 else 0.0
            if np.isnan(jump) or jump < SPEED_CHANGE + 2.5 * arc or before * after > 0.25 * before**2:
                continue
            if axis == 1 and before < SPEED_CHANGE:
                continue  # downwards only: bodies do not hit the sky
            gravity = 7.0 if axis == 1 else 0.0
            crossing = _meeting(track_T2[:, axis] / height, i, fps, before, after, gravity)
            if crossing is not None and all(abs(crossing - time) > 1.5 / fps for time in times):
                times.append(crossing)
    return tuple(sorted(times))


def _meeting(place_T: Array, i: int, fps: float, before: float, after: float, gravity: float) -> float | None:
    """Time between frames i and i + 1 at which both branches, prolonged, are at the same place."""
    grid = np.linspace(i / fps, (i + 1) / fps, 201)
    since, until = grid - i / fps, grid - (i + 1) / fps
    # Speeds were measured half a frame away from the frames they are prolonged from.
    left = place_T[i] + (before + gravity * 0.5 / fps) * since + gravity * since**2 / 2
    resting = abs(after) < 0.1
    right = place_T[i + 1] + (0.0 if resting else (after - gravity * 0.5 / fps) * until + gravity * until**2 / 2)
    best = int(np.argmin(np.abs(left - right)))
    return float(grid[best])


def find_onsets(sound: Sound) -> tuple[Onset, ...]:
    """Sudden rises of energy, each with the pitch and loudness of what follows."""
    samples = sound.samples_CS.mean(dim=0).double().numpy()
    hop = max(1, round(HOP_S * sound.rate_hz))
    count = len(samples) // hop
    if count < 3:
        return ()
    level = np.sqrt((samples[: count * hop].reshape(count, hop) ** 2).mean(axis=1))
    onsets: list[Onset] = []
    for i in range(count):
        past = level[max(0, i - 4) : i].max() if i else 0.0
        rises = level[i] > ONSET_FLOOR and level[i] > ONSET_RATIO * past
        # Struck while an earlier tone rings: less of a ratio, but a clear step.
        rises |= level[i] > 1.35 * past and level[i] - past > 0.04
        if not rises or (onsets and i * HOP_S - onsets[-1].time_s < MIN_GAP_S):
            continue
        start = i * hop
        step = np.abs(np.diff(samples[max(0, start - hop) : start + hop], prepend=0.0))
        loud = np.flatnonzero(step > 0.35 * step.max())
        exact = max(0, start - hop) + int(loud[0]) if len(loud) else start
        pitch_hz = _pitch(samples[exact : exact + int(PITCH_WINDOW_S * sound.rate_hz)], sound.rate_hz)
        loudness = float(np.abs(samples[exact : exact + int(0.02 * sound.rate_hz)]).max())
        onsets.append(Onset(exact / sound.rate_hz, pitch_hz, loudness))
    return tuple(onsets)


def _pitch(piece: Array, rate_hz: int) -> float:
    """Frequency of the strongest line of the spectrum within the range of bodies, between bins by a parabola."""
    if len(piece) < 64:
        return float("nan")
    size = 1 << 14
    spectrum = np.log(np.abs(np.fft.rfft(piece * np.hanning(2 * len(piece))[len(piece) :], size)) + 1e-12)
    low, high = (int(edge * size / rate_hz) for edge in PITCH_RANGE_HZ)
    peak = low + int(np.argmax(spectrum[low:high]))
    a, b, c = spectrum[peak - 1 : peak + 2]
    shift = 0.5 * (a - c) / (a - 2 * b + c) if a - 2 * b + c else 0.0
    return float((peak + shift) * rate_hz / size)

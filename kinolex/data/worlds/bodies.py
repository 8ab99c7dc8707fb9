"""Bodies in a picture: what stands out by its colour, one per colour, with its place, its size and its shape.

    frames --less the grey of each row--> chroma --nearest hue--> weight per colour --parts of one body joined-->
        centre and area per frame --shapes.fit--> shape, centres, radii

Backgrounds of worlds are nearly grey, so the part of a pixel that is not grey grows with the share that a body covers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kinolex.data.worlds.scene import COLOURS
from kinolex.data.worlds.shapes import Fitted, fit

GREY_SATURATION = 0.3
"""Pixels below tell the colour of the background."""
WEAK, CLEAR = 0.14, 0.35
"""Chroma over that of the colour's own, from which a pixel may belong to a body, and from which it does."""
MIN_COSINE = 0.90
"""Between the chroma of a pixel and that of a colour; neighbouring colours are about 0.93 apart."""
MIN_AREA_SHARE = 0.002
"""Of the picture, in the median frame; less is noise."""
MIN_SEEN_SHARE = 0.5
MIN_COMPACTNESS = 0.6
"""Share of a colour's weight that lies about its centre; a body's is near one, scattered noise's is not."""
MIN_EXPLAINED = 0.35
"""Share of the variance around a body that its shape explains, median over frames; what has no edge is no body."""

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    colour: str
    fitted: Fitted
    seen_T: Mask
    """Frames in which it was found; `fitted` has these only."""


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What may be a body: the pixels of one hue, or of several whose parts lie on one another."""

    weight_THW: Single
    area_T: Array
    seen_T: Mask
    centres_T2: Array


def find_bodies(frames_THWC: NDArray[np.uint8], times_T: Array) -> list[Found]:
    """One body per colour, in the order of COLOURS."""
    chroma_THWC = _chroma(frames_THWC)
    parts = [part for weight_THW in _weights(_smoothed(chroma_THWC)) if (part := _part(weight_THW)) is not None]
    parts = _joined(parts)
    near = [_grown(part.weight_THW > 0.1) for part in parts]
    found = []
    for index, part in enumerate(parts):
        known_THW = np.ones(part.weight_THW.shape, bool)
        for other in range(len(parts)):
            if other != index:
                known_THW &= ~near[other]
        body = _body(chroma_THWC, part, known_THW, times_T)
        if body is not None:
            found.append(body)
    return sorted(found, key=lambda body: list(COLOURS).index(body.colour))


def _chroma(frames_THWC: NDArray[np.uint8]) -> Single:
    """Every pixel less its grey, and less what the grey pixels of its row have left."""
    # Channel by channel: reducing over a last axis of three is ten times slower.
    red, green, blue = planes = [frames_THWC[..., channel].astype(np.float32) for channel in range(3)]
    high_THW = np.maximum(np.maximum(red, green), blue)
    low_THW = np.minimum(np.minimum(red, green), blue)
    grey_THW = (high_THW - low_THW < GREY_SATURATION * high_THW).astype(np.float32)
    count_TH = grey_THW.sum(axis=2)
    mean_THW = (red + green + blue) / 3
    chroma_THWC = np.empty(frames_THWC.shape, np.float32)
    for channel, plane in enumerate(planes):
        plane -= mean_THW
        sums_TH = (plane * grey_THW).sum(axis=2)
        overall = float(sums_TH.sum()) / max(float(count_TH.sum()), 1.0)
        rows_TH = np.where(count_TH > 4, sums_TH / np.maximum(count_TH, 1), overall)
        chroma_THWC[..., channel] = plane - rows_TH[..., None]
    return chroma_THWC


def _smoothed(values_THWC: Single) -> Single:
    """Mean of 3x3 pixels: grain and compression noise otherwise colour grey backgrounds."""
    padded = np.pad(values_THWC, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    sums = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    return (sums / 9).astype(np.float32, copy=False)


@lru_cache
def _hues() -> tuple[Single, Single]:
    """Direction and length of the chroma of every colour."""
    chroma_NC = np.array([COLOURS[name] for name in COLOURS], np.float32)
    chroma_NC -= chroma_NC.mean(axis=1, keepdims=True)
    length_N = np.linalg.norm(chroma_NC, axis=1)
    return chroma_NC / length_N[:, None], length_N


def _weights(chroma_THWC: Single) -> list[Single]:
    """Per colour 0..1 per pixel: how surely it belongs to a body of that colour."""
    directions_NC, length_N = _hues()
    strength_THW = np.sqrt(np.einsum("thwc,thwc->thw", chroma_THWC, chroma_THWC))
    coloured_THW = strength_THW > WEAK * length_N.min()  # few pixels are; the rest need no hue
    strength = strength_THW[coloured_THW]
    cosines = chroma_THWC[coloured_THW] @ directions_NC.T
    nearest = cosines.argmax(axis=1)
    solid = ((strength / length_N[nearest] - WEAK) / (CLEAR - WEAK)).clip(0, 1)
    solid *= cosines.max(axis=1) > MIN_COSINE * strength
    weights = []
    for index in range(len(length_N)):
        weight_THW = np.zeros_like(strength_THW)
        weight_THW[coloured_THW] = solid * (nearest == index)
        weights.append(weight_THW)
    return weights


def _part(weight_THW: Single) -> _Part | None:
    """A compact patch of weight, found in at least half of the frames; None if there is none."""
    pixels = weight_THW.shape[1] * weight_THW.shape[2]
    area_T = weight_THW.sum(axis=(1, 2)).astype(np.float64)
    seen_T = area_T > MIN_AREA_SHARE * pixels
    if seen_T.mean() < MIN_SEEN_SHARE:
        return None
    # A body shrinks by less than three in area; frames with hardly anything of it would only mislead.
    seen_T &= area_T > 0.2 * np.median(area_T[seen_T])
    centres_T2 = _centres(weight_THW, seen_T)
    if _compactness(weight_THW, centres_T2, area_T) < MIN_COMPACTNESS:
        return None
    return _Part(weight_THW, area_T, seen_T, centres_T2)


def _joined(parts: list[_Part]) -> list[_Part]:
    """Parts that lie on one another are one body: lights and blurred edges of a body have hues of their own."""
    parts = sorted(parts, key=lambda part: -float(np.median(part.area_T)))
    kept: list[_Part] = []
    for part in parts:
        for index, larger in enumerate(kept):
            distance_T = np.hypot(*(part.centres_T2 - larger.centres_T2).T)
            reach_T = np.sqrt(larger.area_T / np.pi) + 1
            both_T = part.seen_T & larger.seen_T
            if both_T.any() and np.median(distance_T[both_T] / reach_T[both_T]) < 1:
                whole = _part(np.maximum(larger.weight_THW, part.weight_THW))
                kept[index] = whole or larger
                break
        else:
            kept.append(part)
    return kept


def _centres(weight_THW: Single, seen_T: Mask) -> Array:
    """Centres of weight, refined within reach of the first guess, so that strays count less; NaN where not seen."""
    height, width = weight_THW.shape[1:]
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    centres_T2 = np.full((len(weight_THW), 2), np.nan)
    for time in np.flatnonzero(seen_T):
        weight_HW = weight_THW[time]
        reach = 1.6 * np.sqrt(weight_HW.sum() / np.pi) + 2
        # Washed-out bodies have no pixel above a half; then their own strongest count.
        row, column = np.nonzero(weight_HW > min(0.5, 0.5 * float(weight_HW.max())))
        x, y = float(np.median(column)) + 0.5, float(np.median(row)) + 0.5
        for _ in range(2):
            near_HW = weight_HW * (np.hypot(columns - x, rows[:, None] - y) < reach)
            total = max(float(near_HW.sum()), 1e-9)
            x, y = float(near_HW.sum(axis=0) @ columns) / total, float(near_HW.sum(axis=1) @ rows) / total
        centres_T2[time] = x, y
    return centres_T2


def _compactness(weight_THW: Single, centres_T2: Array, area_T: Array) -> float:
    rows, columns = np.arange(weight_THW.shape[1]) + 0.5, np.arange(weight_THW.shape[2]) + 0.5
    shares = []
    for time in np.flatnonzero(~np.isnan(centres_T2[:, 0])):
        x, y = centres_T2[time]
        near_HW = np.hypot(columns - x, rows[:, None] - y) < 2.2 * np.sqrt(area_T[time] / np.pi) + 2
        shares.append(float((weight_THW[time] * near_HW).sum()) / area_T[time])
    return float(np.median(shares)) if shares else 0.0


def _grown(mask_THW: Mask) -> Mask:
    """One pixel further on every side."""
    grown = mask_THW.copy()
    grown[:, 1:] |= mask_THW[:, :-1]
    grown[:, :-1] |= mask_THW[:, 1:]
    wide = grown.copy()
    wide[:, :, 1:] |= grown[:, :, :-1]
    wide[:, :, :-1] |= grown[:, :, 1:]
    return wide


def _body(chroma_THWC: Single, part: _Part, known_THW: Mask, times_T: Array) -> Found | None:
    frames = np.flatnonzero(part.seen_T)
    own_THW = part.weight_THW > 0.7 * part.weight_THW.max()
    own_C = chroma_THWC[own_THW].mean(axis=0)
    directions_NC, _ = _hues()
    colour = list(COLOURS)[int((directions_NC @ own_C).argmax())]
    cover_THW = chroma_THWC[frames] @ (own_C / max(float(own_C @ own_C), 1e-6))
    centres_T2, units_T = _moments(cover_THW, part.centres_T2[frames], part.area_T[frames])
    fitted = fit(cover_THW, known_THW[frames], centres_T2, _smooth(units_T, times_T[frames]), times_T[frames])
    return Found(colour, fitted, part.seen_T) if fitted.explained >= MIN_EXPLAINED else None


def _moments(cover_THW: Single, centres_T2: Array, area_T: Array) -> tuple[Array, Array]:
    """Centre and radius of the disc of the same area, from how much of each pixel is covered."""
    height, width = cover_THW.shape[1:]
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    found_T2, units_T = centres_T2.copy(), np.empty(len(centres_T2))
    for time, (x, y) in enumerate(centres_T2):
        near_HW = np.hypot(columns - x, rows[:, None] - y) < 2 * np.sqrt(area_T[time] / np.pi) + 2
        cover_HW = cover_THW[time].clip(0, 1.3) * (near_HW & (cover_THW[time] > 0.15))
        total = max(float(cover_HW.sum()), 1.0)
        found_T2[time] = float(cover_HW.sum(axis=0) @ columns) / total, float(cover_HW.sum(axis=1) @ rows) / total
        units_T[time] = np.sqrt(total / np.pi)
    return found_T2, units_T


def _smooth(units_T: Array, times_T: Array) -> Array:
    """Bodies keep their size or grow slowly: a parabola through the frames."""
    if len(units_T) < 5:
        return np.full_like(units_T, np.median(units_T))
    middle = np.median(units_T)
    curve = np.polyfit(times_T, units_T.clip(0.5 * middle, 2 * middle), 2)
    return np.polyval(curve, times_T).clip(0.5 * middle, 2 * middle)

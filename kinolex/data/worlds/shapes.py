"""The shape, centre and radius of a body, by comparing its frames with the shapes that worlds draw.

    map_THW (how much of the body's colour a pixel has) --patches around the centre, scaled by the body's area-->
        --correlation with every shape, turned, scaled and blurred--> the shape that explains all frames best

All shapes are compared at equal area, so a patch needs no radius before its shape is known. How soft a picture is, is
one of the unknowns: what codecs blur and tokenizers round off is compared with shapes as soft. Bodies rock as
0.35 sin(phase + spin t); the turn of all frames together is one of those curves, which noise in single frames cannot
bend.

Source: matched templates, normalised correlation as a likelihood ratio with unknown gain and offset.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kinolex.data.worlds.render import ROCKING, shaded_cover
from kinolex.data.worlds.scene import SHAPES

SIDE, REACH = 20, 2.1
"""Points along the axes of a patch, and how far it reaches, in units: one is the radius of a disc of equal area."""
SOFTENINGS = ((0.07, 1.0), (0.12, 1.0), (0.20, 1.0), (0.30, 1.0), (0.22, 0.4), (0.36, 0.4))
"""Standard deviation of a blur, in units, and how much is left of what makes the shape no disc: tokenizers round
corners."""
SCALES = (0.84, 0.92, 1.0, 1.09, 1.19)
TURNS = np.linspace(-ROCKING, ROCKING, 9)
PHASES, SPINS = np.linspace(0, 2 * np.pi, 16, endpoint=False), np.linspace(-1.5, 1.5, 7)
STEPS = (0.22, 0.11)
"""Of the search around the centre, in units: first, and again around what the first search found."""
FLOOR = 0.01
"""Share of a frame's variance that no template is asked to explain."""
OVERSAMPLING = 4

Array = NDArray[np.float64]
Single = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    shape: str
    centres_T2: Array
    """(x, y) in pixels, of the circle around the body."""
    radii_T: Array
    """Of that circle, in pixels."""
    likelihoods: dict[str, float]
    """Of every shape; only differences mean anything."""
    explained: float
    """Share of the variance around the body that the shape explains, in the median frame."""


@dataclass(frozen=True, slots=True, eq=False)
class _Bank:
    x_P: Single
    y_P: Single
    """Places within reach, in units."""
    templates_NP: Single
    """Ordered by shape and turn, then scale, then softening."""
    squares_NP: Single
    means_N: Single
    variances_N: Single
    shapes_K: NDArray[np.int64]
    """Of every pair of shape and turn; circles and rings are not turned."""


def unit_radius(shape: str) -> float:
    """Radius of the circle around a shape over the radius of a disc of its area."""
    return _unit_radii()[shape]


@lru_cache
def _unit_radii() -> dict[str, float]:
    axis = (np.arange(400) + 0.5) / 200 - 1
    areas = {shape: shaded_cover(shape, axis[None], axis[:, None], 1.0, 0.0, 200, shade=0).mean() for shape in SHAPES}
    return {shape: float(np.sqrt(np.pi / (4 * area))) for shape, area in areas.items()}


def _points(side: int) -> Array:
    return (np.arange(side) + 0.5) / side * 2 * REACH - REACH


@lru_cache
def _bank() -> _Bank:
    """Every shape as worlds draw it, at every turn, scale and softening."""
    axis = _points(SIDE * OVERSAMPLING)
    spacing = 2 * REACH / (SIDE * OVERSAMPLING)
    frequencies = 2 * np.pi * np.fft.fftfreq(len(axis), spacing)
    rounds = (np.hypot(axis[:, None], axis) / spacing).astype(np.int64)
    sizes = np.bincount(rounds.reshape(-1))
    keys = [
        (index, turn)
        for index, shape in enumerate(SHAPES)
        for turn in (range(len(TURNS)) if shape not in ("circle", "ring") else [len(TURNS) // 2])
    ]
    templates = []
    for index, turn in keys:
        for scale in SCALES:
            radius = scale * unit_radius(SHAPES[index])
            cover = shaded_cover(SHAPES[index], axis[None], axis[:, None], radius, TURNS[turn], 1 / spacing)
            spectrum = np.fft.fft2(cover)
            for blur, left in SOFTENINGS:
                damping = np.exp(-0.5 * (blur * frequencies) ** 2)
                blurred = np.fft.ifft2(spectrum * damping[:, None] * damping).real
                disc = (np.bincount(rounds.reshape(-1), blurred.reshape(-1)) / sizes)[rounds]
                blurred = disc + left * (blurred - disc)
                small = blurred.reshape(SIDE, OVERSAMPLING, SIDE, OVERSAMPLING).mean(axis=(1, 3))
                templates.append(small.reshape(-1))
    points = _points(SIDE)
    within_P = (np.hypot(points[:, None], points) < REACH).reshape(-1)
    x_P, y_P = np.tile(points, SIDE)[within_P], np.repeat(points, SIDE)[within_P]
    templates_NP = np.array(templates, np.float32)[:, within_P]
    return _Bank(
        x_P.astype(np.float32),
        y_P.astype(np.float32),
        templates_NP,
        templates_NP**2,
        templates_NP.mean(axis=1),
        templates_NP.var(axis=1),
        np.array([index for index, _ in keys]),
    )


def fit(map_THW: Array, known_THW: NDArray[np.bool_], centres_T2: Array, units_T: Array, times_T: Array) -> Fitted:
    """The shape of one body, from every frame together.

    Args:
        map_THW: linear in how much of a pixel the body covers; any gain, any offset.
        known_THW: False where something else covers the picture.
        centres_T2: first guess, in pixels.
        units_T: radius of a disc of the body's area, in pixels; first guess.
        times_T: of the frames, in seconds.
    """
    coarse, fine = STEPS
    rough, units_T = _search(map_THW, known_THW, centres_T2, units_T, times_T, coarse)
    fitted, _ = _search(map_THW, known_THW, rough.centres_T2, units_T, times_T, fine)
    return fitted


def _search(
    map_THW: Array, known_THW: NDArray[np.bool_], centres_T2: Array, units_T: Array, times_T: Array, step: float
) -> tuple[Fitted, Array]:
    """The best shape within one step, in units, of a guess; with it the units that follow."""
    offsets_O2 = step * np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1], indexing="xy"), axis=-1).reshape(-1, 2)
    explained_TOKSB = _explained(map_THW, known_THW, centres_T2, units_T, offsets_O2)
    nearest_TKSB = explained_TOKSB.max(axis=1)
    gains_TKSB = -np.log(1 + FLOOR - nearest_TKSB)
    likelihoods_USB, turns_UTSB = _over_time(gains_TKSB, _bank(), times_T)
    index, scale, soft = np.unravel_index(likelihoods_USB.argmax(), likelihoods_USB.shape)
    keys_T = turns_UTSB[index][:, scale, soft]
    best_TO = explained_TOKSB[np.arange(len(times_T)), :, keys_T, scale, soft]
    shift_T2 = _vertices(best_TO.reshape(-1, 3, 3)) * step
    centres_T2 = centres_T2 + shift_T2 * units_T[:, None]
    units_T = units_T * np.exp(_between(np.log(SCALES), likelihoods_USB[index, :, soft], int(scale)))
    shape = SHAPES[int(index)]
    fitted = Fitted(
        shape,
        centres_T2,
        units_T * unit_radius(shape),
        dict(zip(SHAPES, map(float, likelihoods_USB.max(axis=(1, 2))), strict=True)),
        float(np.median(best_TO.max(axis=1))),
    )
    return fitted, units_T


def _explained(
    map_THW: Array, known_THW: NDArray[np.bool_], centres_T2: Array, units_T: Array, offsets_O2: Array
) -> Single:
    """Share of each patch's variance that each template explains, by frame, offset, turned shape, scale, softening."""
    bank = _bank()
    places_TO2 = centres_T2[:, None] + offsets_O2 * units_T[:, None, None]
    x_TOP = places_TO2[..., 0, None] + bank.x_P * units_T[:, None, None]
    y_TOP = places_TO2[..., 1, None] + bank.y_P * units_T[:, None, None]
    values_TOP, weights_TOP = _sampled(map_THW, known_THW, x_TOP, y_TOP)
    values_MP, weights_MP = values_TOP.reshape(-1, len(bank.x_P)), weights_TOP.reshape(-1, len(bank.x_P))
    total_M1 = weights_MP.sum(axis=1, keepdims=True).clip(1e-6)
    values_MP = (values_MP - (weights_MP * values_MP).sum(axis=1, keepdims=True) / total_M1) * weights_MP
    spread_M1 = (values_MP**2).sum(axis=1, keepdims=True)
    product_MN = values_MP @ bank.templates_NP.T
    if weights_MP.all():
        energy_MN = total_M1 * bank.variances_N
    else:
        means_MN = weights_MP @ bank.templates_NP.T / total_M1
        energy_MN = weights_MP @ bank.squares_NP.T - total_M1 * means_MN**2
    # Only more of the colour than around makes a body, never less.
    explained_MN = product_MN.clip(0) ** 2 / (spread_M1 * energy_MN).clip(1e-6)
    return explained_MN.clip(0, 1).reshape(*values_TOP.shape[:2], len(bank.shapes_K), len(SCALES), len(SOFTENINGS))


def _sampled(map_THW: Array, known_THW: NDArray[np.bool_], x_TOP: Array, y_TOP: Array) -> tuple[Single, Single]:
    """Values between pixels, and 0 or 1 for how far they are known; outside the picture nothing is."""
    count, height, width = map_THW.shape
    column, row = x_TOP - 0.5, y_TOP - 0.5
    left, top = np.floor(column).astype(np.int64), np.floor(row).astype(np.int64)
    inside = (column > -0.5) & (column < width - 0.5) & (row > -0.5) & (row < height - 0.5)
    across, down = (column - left).astype(np.float32), (row - top).astype(np.float32)
    first = (np.arange(count) * height * width)[:, None, None]
    left_0, left_1 = left.clip(0, width - 1), (left + 1).clip(0, width - 1)
    top_0, top_1 = first + top.clip(0, height - 1) * width, first + (top + 1).clip(0, height - 1) * width
    flat, known = map_THW.astype(np.float32).reshape(-1), known_THW.reshape(-1)
    upper = flat[top_0 + left_0] * (1 - across) + flat[top_0 + left_1] * across
    lower = flat[top_1 + left_0] * (1 - across) + flat[top_1 + left_1] * across
    nearest = np.where(down > 0.5, top_1, top_0) + np.where(across > 0.5, left_1, left_0)
    values = (upper * (1 - down) + lower * down).astype(np.float32, copy=False)
    return values, (inside & known[nearest]).astype(np.float32)


def _over_time(gains_TKSB: Single, bank: _Bank, times_T: Array) -> tuple[Array, NDArray[np.int64]]:
    """The sum over frames along the best curve of turns of each shape, and which template that is in each frame."""
    turn_CT = ROCKING * np.sin(PHASES[:, None, None] + SPINS[:, None] * times_T).reshape(-1, len(times_T))
    index_CT = np.abs(turn_CT[..., None] - TURNS).argmin(axis=-1)
    index_CT = np.unique(index_CT, axis=0)
    frames = np.arange(len(times_T))
    sums, keys = [], []
    for index in range(len(SHAPES)):
        own_K = np.flatnonzero(bank.shapes_K == index)
        if len(own_K) == 1:
            sums.append(gains_TKSB[:, own_K[0]].sum(axis=0))
            keys.append(np.broadcast_to(own_K[0], (len(times_T), len(SCALES), len(SOFTENINGS))))
            continue
        along_CSB = gains_TKSB[frames, own_K[index_CT]].sum(axis=1)
        best_SB = along_CSB.argmax(axis=0)
        sums.append(along_CSB.max(axis=0))
        keys.append(np.moveaxis(own_K[index_CT][best_SB], -1, 0))
    return np.array(sums, np.float64), np.array(keys)


def _vertices(squares_T33: Single) -> Array:
    """Where a parabola through each axis of 3 x 3 values has its top, within one step of the best value."""
    found_T2 = np.zeros((len(squares_T33), 2))
    for time, square in enumerate(squares_T33):
        row, column = np.unravel_index(square.argmax(), (3, 3))
        found_T2[time] = (
            _between(np.arange(-1.0, 2.0), square[row], int(column)),
            _between(np.arange(-1.0, 2.0), square[:, column], int(row)),
        )
    return found_T2


def _between(places: Array, values: Array, best: int) -> float:
    """The top of the parabola through the best value and its neighbours; the best value itself at an end."""
    if not 0 < best < len(places) - 1:
        return float(places[best])
    a, b, c = (float(value) for value in values[best - 1 : best + 2])
    bend = a - 2 * b + c
    shift = 0.5 * (a - c) / bend if bend < 0 else 0.0
    step = places[best + 1] - places[best] if shift > 0 else places[best] - places[best - 1]
    return float(places[best] + shift * step)

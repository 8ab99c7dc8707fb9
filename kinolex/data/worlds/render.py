"""The picture of a scene: backdrop and floor by waves, bodies by signed distances, so that every edge is smooth.

Source: analytic coverage of signed distance functions; formulas of the shapes are standard plane geometry.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kinolex.data.worlds.scene import COLOURS, FLOOR_Y, Body, Scene, WorldConfig, positions_T2, radii_T

FLOOR_TONES = {
    "wood": ((0.50, 0.42, 0.35), (0.42, 0.35, 0.29)),
    "metal": ((0.62, 0.64, 0.66), (0.52, 0.54, 0.57)),
    "glass": ((0.72, 0.78, 0.80), (0.62, 0.69, 0.72)),
    "rubber": ((0.27, 0.27, 0.28), (0.22, 0.22, 0.23)),
}
RING_HOLE = 0.5
STAR_INNER = 0.45
ROCKING = 0.35
"""Largest turn of a body, in radians."""

Array = NDArray[np.floating]


def render_frames_THWC(scene: Scene, config: WorldConfig) -> NDArray[np.uint8]:
    """All frames of a scene, uint8."""
    times_T = np.arange(config.frames) / float(config.fps)
    camera_T2 = scene.camera_T2(times_T)
    picture_THWC = _backdrop(scene, config, camera_T2)
    for body in scene.bodies:
        centres_T2 = (positions_T2(body, scene.action, times_T) - camera_T2) * config.height
        radii = radii_T(body, scene.action, times_T) * config.height
        floor_T = (FLOOR_Y - camera_T2[:, 1]) * config.height
        for time in range(config.frames):
            _shadow(picture_THWC[time], centres_T2[time], radii[time], floor_T[time])
        for time in range(config.frames):
            _body(picture_THWC[time], body, centres_T2[time], radii[time], body.phase + body.spin * times_T[time])
    return (picture_THWC * 255.0 + 0.5).clip(0, 255).astype(np.uint8)


def _backdrop(scene: Scene, config: WorldConfig, camera_T2: NDArray[np.float64]) -> Array:
    height, width = config.height, config.width
    offset_T = camera_T2.astype(np.float32)
    x_TW = (np.arange(width, dtype=np.float32) + 0.5) / height + offset_T[:, :1]
    y_TH = (np.arange(height, dtype=np.float32) + 0.5) / height + offset_T[:, 1:]
    value_THW = _pattern(scene, x_TW, y_TH)
    tint, shade = (np.array(tone, np.float32) for tone in (scene.tint, scene.shade))
    picture_THWC = shade + value_THW[..., None] * (tint - shade)
    # The floor: its own tone, with grain along x, and a smooth edge of one pixel.
    first, second = (np.array(tone, np.float32) for tone in FLOOR_TONES[scene.floor])
    cover_TH = ((y_TH - FLOOR_Y) * height + 0.5).clip(0, 1)
    top = int(np.argmax(cover_TH.max(axis=0) > 0)) if cover_TH.max() > 0 else height
    grain_THW = 0.5 + 0.5 * np.sin(9 * x_TW[:, None] + 60 * y_TH[:, top:, None] + np.sin(23 * x_TW[:, None]))
    floor_THWC = first + grain_THW[..., None] * (second - first)
    cover_TH11 = cover_TH[:, top:, None, None]
    picture_THWC[:, top:] += cover_TH11 * (floor_THWC - picture_THWC[:, top:])
    # Light falls from the upper left and fades towards the corners; it belongs to the lens, not to the world.
    row, column = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
    light_HW = 1.04 - 0.10 * (row[:, None] ** 2 + column**2) - 0.05 * (row[:, None] + column)
    picture_THWC *= light_HW[..., None]
    return picture_THWC


def _pattern(scene: Scene, x_TW: Array, y_TH: Array) -> Array:
    """A smooth field in 0..1."""
    waves = scene.pattern
    x_T1W, y_TH1 = x_TW[:, None], y_TH[:, :, None]
    if scene.backdrop == "gradient":
        return np.broadcast_to(1.0 - y_TH1 + 0.0 * x_T1W, (len(x_TW), y_TH.shape[1], x_TW.shape[1])).copy()
    if scene.backdrop == "stripes":
        angle = waves[0, 2]
        return 0.5 + 0.5 * np.tanh(2.5 * np.sin(26 * (np.cos(angle) * x_T1W + np.sin(angle) * y_TH1)))
    if scene.backdrop == "checks":
        return 0.5 + 0.5 * np.tanh(3 * np.sin(18 * x_T1W) * np.sin(18 * y_TH1))
    count = 5 if scene.backdrop == "clouds" else 2
    total = sum(
        np.sin(k_x * x_T1W + k_y * y_TH1 + phase) / (1 + 0.3 * i) for i, (k_x, k_y, phase) in enumerate(waves[:count])
    )
    return 0.5 + 0.5 * np.tanh(0.7 * total)


def _patch(
    canvas_HWC: Array, centre: NDArray[np.float64], reach_x: float, reach_y: float
) -> tuple[slice, slice] | None:
    height, width = canvas_HWC.shape[:2]
    top, bottom = max(0, int(centre[1] - reach_y)), min(height, int(centre[1] + reach_y) + 2)
    left, right = max(0, int(centre[0] - reach_x)), min(width, int(centre[0] + reach_x) + 2)
    return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None


def _shadow(canvas_HWC: Array, centre: NDArray[np.float64], radius: float, floor: float) -> None:
    """Soft, on the floor below the body, fainter the higher it is."""
    above = max(0.0, floor - radius - centre[1]) / canvas_HWC.shape[0]
    spot = np.array([centre[0], floor + 0.02 * canvas_HWC.shape[0]])
    wide, tall = radius * (1.0 + 0.8 * above), max(1.0, radius * 0.22)
    place = _patch(canvas_HWC, spot, 2 * wide, 2 * tall)
    if place is None:
        return
    y = (np.arange(place[0].start, place[0].stop, dtype=np.float32) + 0.5 - spot[1])[:, None] / tall
    x = (np.arange(place[1].start, place[1].stop, dtype=np.float32) + 0.5 - spot[0]) / wide
    dark_HW = 0.55 * np.exp(-3.5 * above) * np.exp(-(x**2 + y**2))
    canvas_HWC[place] *= (1 - dark_HW)[..., None]


def _body(canvas_HWC: Array, body: Body, centre: NDArray[np.float64], radius: float, angle: float) -> None:
    place = _patch(canvas_HWC, centre, radius + 1, radius + 1)
    if place is None:
        return
    y = (np.arange(place[0].start, place[0].stop, dtype=np.float32) + 0.5 - np.float32(centre[1]))[:, None]
    x = (np.arange(place[1].start, place[1].stop, dtype=np.float32) + 0.5 - np.float32(centre[0]))[None]
    turn = ROCKING * np.sin(angle)  # bodies rock, so that a square stays a square to the eye
    distance_HW = signed_distance(body.shape, *_turned(x, y, turn), radius)
    cover_HW1 = (0.5 - distance_HW).clip(0, 1)[..., None]
    colour = np.array(COLOURS[body.colour], np.float32) / 255
    shade_HW = 0.98 - 0.20 * (x + y) / radius
    gleam_HW = 0.22 * np.exp(-8 * ((x / radius + 0.35) ** 2 + (y / radius + 0.4) ** 2))
    surface_HWC = colour * shade_HW[..., None] + gleam_HW[..., None]
    canvas_HWC[place] += cover_HW1 * (surface_HWC - canvas_HWC[place])


def _turned(x: Array, y: Array, turn: float) -> tuple[Array, Array]:
    cosine, sine = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return cosine * x + sine * y, cosine * y - sine * x


def shaded_cover(
    shape: str, x: Array, y: Array, radius: float, turn: float, fineness: float, shade: float = 0.2
) -> Array:
    """How much of its own colour a body of any size shows at each place.

    Args:
        x, y: from its centre, in the unit of `radius`.
        fineness: pixels in that unit; edges are one pixel wide.
        shade: how much darker the body is at its lower right than in the middle.
    """
    distance = signed_distance(shape, *_turned(x, y, turn), radius)
    return (0.5 - distance * fineness).clip(0, 1) * (1 - shade * (x + y) / radius)


def signed_distance(shape: str, x: Array, y: Array, radius: float) -> Array:
    """Distance in pixels to the edge of a shape inscribed in a circle of `radius`, negative inside."""
    if shape == "circle":
        return np.hypot(x, y) - radius * 0.92
    if shape == "ring":
        middle, half = radius * (1 + RING_HOLE) / 2 * 0.95, radius * (1 - RING_HOLE) / 2 * 0.95
        return np.abs(np.hypot(x, y) - middle) - half
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - radius * 0.78
    if shape == "triangle":
        lower = np.sqrt(3.0).astype(np.float32) / 2 * np.abs(x) - y / 2
        return np.maximum(lower, y) - radius * 0.5
    sector = np.pi / 5
    angle = np.abs((np.arctan2(x, -y) + sector) % (2 * sector) - sector)
    length = np.hypot(x, y)
    along, across = length * np.cos(angle), length * np.sin(angle)
    inner_x, inner_y = STAR_INNER * np.cos(sector), STAR_INNER * np.sin(sector)
    # The edge runs from the tip (1, 0) to the inner corner; its normal gives the distance.
    edge = np.array([inner_x - 1.0, inner_y])
    normal = np.array([edge[1], -edge[0]]) / np.hypot(*edge)
    return ((along / radius - 1.0) * normal[0] + across / radius * normal[1]).astype(np.float32) * radius

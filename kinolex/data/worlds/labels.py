"""What a world shows, as numbers that a network can learn and be judged by.

    seed -> scene -> World + Labels (action, shape, colour, size, number, backdrop, track of the largest body)

Shape, colour and size are those of the largest body; where two bodies are of one size they are not asked (UNASKED).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinolex.data.worlds.render import render_frames_THWC
from kinolex.data.worlds.scene import (
    ACTIONS,
    BACKDROPS,
    COLOURS,
    FLOORS,
    NUMBERS,
    SHAPES,
    SIZES,
    Body,
    WorldConfig,
    draw_scene,
    positions_T2,
)

UNASKED = -100
"""The class that cross entropy in torch leaves out by default."""
CLASSES: dict[str, tuple[str, ...]] = {
    "action": ACTIONS,
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "size": tuple(SIZES),
    "number": ("one", "two", "three"),
    "backdrop": BACKDROPS,
}
"""Attributes and their values, in the order of class numbers."""
WORDS = (
    *SIZES,
    *COLOURS,
    *SHAPES,
    *(word for action in ACTIONS for word in (action, action + "s")),
    *("once", "twice", *NUMBERS[3:]),
    *FLOORS,
)
"""What captions are made of, but for articles and the like: kinolex.tasks.words.SKIPPED."""


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    classes: dict[str, int]
    """Attribute to class number, or UNASKED."""
    track_T2: NDArray[np.float64]
    """Centre (x, y) of the largest body on the picture, in picture heights."""


def labelled(seed: int, config: WorldConfig) -> tuple[NDArray[np.uint8], Labels]:
    """Frames T H W C of the world behind a seed, and its labels."""
    scene = draw_scene(seed, config)
    times_T = np.arange(config.frames) / float(config.fps)
    by_size = sorted(scene.bodies, key=lambda body: list(SIZES).index(body.size), reverse=True)
    largest = by_size[0]
    clear = len(by_size) == 1 or by_size[1].size != largest.size
    classes = {
        "action": ACTIONS.index(scene.action),
        "number": len(scene.bodies) - 1,
        "backdrop": BACKDROPS.index(scene.backdrop),
    } | (_of_body(largest) if clear else dict.fromkeys(("shape", "colour", "size"), UNASKED))
    # Of equal bodies none is the largest; then the one with the largest radius moves like all others, within its lane.
    moving = max(scene.bodies, key=lambda body: body.radius)
    track_T2 = positions_T2(moving, scene.action, times_T) - scene.camera_T2(times_T)
    return render_frames_THWC(scene, config), Labels(classes, track_T2)


def _of_body(body: Body) -> dict[str, int]:
    return {
        "shape": SHAPES.index(body.shape),
        "colour": list(COLOURS).index(body.colour),
        "size": list(SIZES).index(body.size),
    }

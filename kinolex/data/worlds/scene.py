"""What is in a world and how it moves: everything is drawn from one seed, and every time is known exactly.

    seed -> Scene(bodies, floor, backdrop, camera) -> positions at any time, impacts with times, captions

Lengths are in picture heights, y grows downwards, times are in seconds. Each body lives in a lane of its own, so bodies
never hide one another. Motion is solved in closed form: an impact has a time, not a frame.
"""

from __future__ import annotations

import colorsys
import itertools
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from kinolex.errors import ConfigError

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 48, 44),
    "orange": (246, 140, 30),
    "yellow": (240, 214, 50),
    "green": (52, 172, 76),
    "cyan": (40, 190, 205),
    "blue": (52, 96, 224),
    "purple": (150, 70, 205),
}
EXTENTS: dict[str, tuple[float, float]] = {
    # (sideways, downwards) over the radius, of the upright shape: where it touches walls and floor
    "circle": (0.92, 0.92),
    "square": (0.78, 0.78),
    "triangle": (0.866, 0.5),
    "star": (0.951, 0.809),
    "ring": (0.95, 0.95),
}
SHAPES = tuple(EXTENTS)
SIZES = {"small": 0.085, "medium": 0.12, "large": 0.16}
"""Radius of the circle around a body."""
ACTIONS = ("fall", "bounce", "slide", "orbit", "grow")
FLOORS = ("wood", "metal", "glass", "rubber")
BACKDROPS = ("gradient", "clouds", "stripes", "checks", "haze")

FLOOR_Y = 0.9
"""Where bodies touch the floor; its far edge is drawn higher up."""
EDGE = 0.07
"""Free on both sides of the picture, more than the camera ever drifts."""
WALL = 0.03
"""Between lanes."""
ROOM = {"slide": 0.22, "orbit": 0.2}
"""Least free way in x of a body that moves sideways."""
GRAVITY = 7.0
RESTITUTION = 0.78
REST_SPEED = 0.25
PITCH_HZ, PITCH_RADIUS = 300.0, 0.16
"""A body of this radius sounds at this pitch; smaller ones higher in proportion."""
FULL_SPEED = 3.0
"""Impacts this fast are as loud as it gets."""
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldConfig:
    frames: int = 17
    height: int = 64
    width: int = 64
    fps: Fraction = Fraction(24)
    sound_rate_hz: int = 16000
    camera: bool = True
    """The camera drifts; off keeps it still."""
    max_bodies: int = 3

    def __post_init__(self) -> None:
        if self.frames < 1 or min(self.height, self.width) < 8 or not 1 <= self.max_bodies <= 3:
            raise ConfigError(f"a world needs frames >= 1, sides >= 8 and 1 to 3 bodies, got {self}")
        if self.fps <= 0 or self.sound_rate_hz < 4000:
            raise ConfigError(
                f"a world needs fps above 0 and sound_rate_hz of 4000 or more (its tones reach 1600 Hz), got {self}"
            )

    @property
    def duration_s(self) -> float:
        return float(self.frames / self.fps)


@dataclass(frozen=True, slots=True)
class Impact:
    time_s: float
    pitch_hz: float
    loudness: float
    """0 to 1, from the speed."""
    body: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    shape: str
    colour: str
    size: str
    radius: float
    lane: tuple[float, float]
    """Left and right bounds of the centre in x."""
    start: tuple[float, float]
    speed: float
    phase: float
    spin: float
    reach: float
    """Radius of its orbit."""

    @property
    def rest_y(self) -> float:
        """Height of the centre when the body stands on the floor."""
        return FLOOR_Y - EXTENTS[self.shape][1] * self.radius


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    action: str
    floor: str
    backdrop: str
    tint: tuple[float, float, float]
    shade: tuple[float, float, float]
    pattern: NDArray[np.float32]
    """Noise in -1..1, 16 x 16 and without seams, that the backdrop is made from."""
    slant: float
    """Direction of stripes and of the light in the backdrop, in radians."""
    sway: tuple[float, float, float]
    """Camera drift: amplitude in x, in y, and phase."""
    bodies: tuple[Body, ...]

    def camera_T2(self, times_T: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y, phase = self.sway
        return np.stack([x * np.sin(1.7 * times_T + phase), y * np.sin(2.3 * times_T + 2 * phase)], axis=1)


def draw_scene(seed: int, config: WorldConfig) -> Scene:
    """The scene behind a seed; the picture's proportions decide how many bodies fit beside one another."""
    rng = np.random.default_rng([seed, 20405])
    ratio = config.width / config.height
    action = str(rng.choice(ACTIONS))
    sizes = [str(size) for size in rng.choice(list(SIZES), int(rng.integers(1, config.max_bodies + 1)))]
    room = ROOM.get(action, 0.02)
    sizes = _fitting(sizes, ratio, room)
    colours = rng.permutation(list(COLOURS))
    radii = [min(SIZES[size] * rng.uniform(0.94, 1.06), 0.3 * ratio) for size in sizes]
    slack = max(0.0, ratio - 2 * EDGE - 2 * sum(radii) - WALL * (len(radii) - 1)) / len(radii)
    bodies, edge = [], min(EDGE, 0.15 * ratio)
    for index, (size, radius) in enumerate(zip(sizes, radii, strict=True)):
        shape = str(rng.choice(SHAPES))
        # What is left of the free way at a wall is what the shape leaves of its circle.
        spare = (1 - EXTENTS[shape][0]) * radius if action == "slide" else 0.0
        left, right = edge + radius - spare, edge + radius + slack + spare
        edge += 2 * radius + slack + WALL
        reach = min(0.2, (right - left) / 2)
        y = {
            "orbit": _between(rng, reach + radius + 0.04, FLOOR_Y - radius - reach - 0.05),
            "grow": _between(rng, radius + 0.12, FLOOR_Y - radius - 0.14),
        }.get(action, _between(rng, radius + 0.04, 0.42))
        bodies.append(
            Body(
                shape=shape,
                colour=str(colours[index]),
                size=size,
                radius=float(radius),
                lane=(float(left), float(right)),
                start=(float(rng.uniform(left, right)), y),
                speed=float(rng.uniform(0.5, 1.1) * rng.choice([-1, 1])),
                phase=float(rng.uniform(0, 2 * math.pi)),
                spin=float(rng.uniform(-1.5, 1.5)),
                reach=float(reach),
            )
        )
    # Backdrops keep to quiet colours, so that the bodies are the only saturated things in the picture.
    hue, bright = rng.uniform(0, 1), rng.uniform(0.45, 0.93)
    tint = colorsys.hsv_to_rgb(hue, rng.uniform(0.06, 0.2), bright)
    shade = colorsys.hsv_to_rgb(hue + rng.uniform(-0.15, 0.15), rng.uniform(0.12, 0.26), bright * rng.uniform(0.55, 0.8))
    sway = (rng.uniform(-0.05, 0.05), rng.uniform(-0.02, 0.02), rng.uniform(0, 6)) if config.camera else (0.0, 0.0, 0.0)
    return Scene(
        action=action,
        floor=str(rng.choice(FLOORS)),
        backdrop=str(rng.choice(BACKDROPS)),
        tint=tint,
        shade=shade,
        pattern=rng.uniform(-1, 1, (16, 16)).astype(np.float32),
        slant=float(rng.uniform(0, math.pi)),
        sway=(float(sway[0]), float(sway[1]), float(sway[2])),
        bodies=tuple(bodies),
    )


def _fitting(sizes: list[str], ratio: float, room: float) -> list[str]:
    """As many of the bodies as find room side by side; the largest shrink by a size before any is left out."""
    order = list(SIZES)
    sizes = list(sizes)
    while len(sizes) > 1:
        needed = 2 * EDGE + sum(2.12 * SIZES[size] + room for size in sizes) + WALL * (len(sizes) - 1)
        if needed <= ratio:
            break
        largest = max(range(len(sizes)), key=lambda i: SIZES[sizes[i]])
        if sizes[largest] == order[0]:
            sizes.pop()
        else:
            sizes[largest] = order[order.index(sizes[largest]) - 1]
    return sizes


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """Uniform, or the middle where the bounds have crossed; one draw either way."""
    share = rng.uniform()
    return float(low + share * (high - low) if low < high else (low + high) / 2)


def positions_T2(body: Body, action: str, times_T: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centre of a body at each time."""
    x, y = body.start
    if action in ("fall", "bounce"):
        return np.stack([np.full_like(times_T, x), _heights(body, action, times_T)], axis=1)
    if action == "slide":
        left, right = body.lane
        span = max(right - left, 1e-6)
        # A triangle wave: to and fro between the lane's walls.
        along = (x - left + body.speed * times_T) % (2 * span)
        return np.stack([left + np.minimum(along, 2 * span - along), np.full_like(times_T, body.rest_y)], axis=1)
    if action == "orbit":
        centre = (body.lane[0] + body.lane[1]) / 2
        angle = body.phase + 4 * body.speed * times_T
        return np.stack([centre + body.reach * np.cos(angle), y + body.reach * np.sin(angle)], axis=1)
    return np.stack([np.full_like(times_T, x), np.full_like(times_T, y)], axis=1)


def radii_T(body: Body, action: str, times_T: NDArray[np.float64]) -> NDArray[np.float64]:
    if action != "grow":
        return np.full_like(times_T, body.radius)
    return body.radius * (0.6 + 0.4 * (1 - np.cos(np.minimum(times_T * 2.2, np.pi))) / 2)


def turns_T(body: Body, action: str, times_T: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angle of a body in radians: it rocks in the air and stands upright whenever it touches the floor."""
    swing = 0.35 * math.sin(body.phase)
    if action == "slide":
        return np.zeros_like(times_T)
    if action not in ("fall", "bounce"):
        return 0.35 * np.sin(body.phase + body.spin * times_T)
    landings = _landings(body, action)
    turn_T = np.where(times_T < landings[0][0], swing * np.cos(np.pi / 2 * times_T / landings[0][0]), 0.0)
    for (begin, _), (end, _) in itertools.pairwise(landings):
        flying_T = (times_T >= begin) & (times_T < end)
        swing *= -RESTITUTION
        turn_T = np.where(flying_T, swing * np.sin(np.pi * (times_T - begin) / (end - begin)), turn_T)
    return turn_T


def impacts(body: Body, index: int, action: str, duration_s: float) -> list[Impact]:
    """Every impact of a body before duration_s, in order."""
    pitch_hz = PITCH_HZ * PITCH_RADIUS / body.radius
    if action in ("fall", "bounce"):
        found = [(time, speed) for time, speed in _landings(body, action) if time < duration_s]
    elif action == "slide":
        found = [(time, abs(body.speed)) for time in _wall_times(body, duration_s)]
    else:
        found = []
    return [Impact(time, pitch_hz, min(1.0, 0.15 + 0.85 * speed / FULL_SPEED), index) for time, speed in found]


def _landings(body: Body, action: str) -> list[tuple[float, float]]:
    """Times and speeds of contact with the floor, until the body rests."""
    drop = body.rest_y - body.start[1]
    time, speed = math.sqrt(2 * drop / GRAVITY), math.sqrt(2 * drop * GRAVITY)
    found = [(time, speed)]
    while action == "bounce" and (speed := speed * RESTITUTION) > REST_SPEED:
        time += 2 * speed / GRAVITY
        found.append((time, speed))
    return found


def _heights(body: Body, action: str, times_T: NDArray[np.float64]) -> NDArray[np.float64]:
    landings = _landings(body, action)
    rest = body.rest_y
    first_s = landings[0][0]
    y_T = np.where(times_T < first_s, body.start[1] + GRAVITY * times_T**2 / 2, rest)
    for (begin, _), (end, speed) in itertools.pairwise(landings):
        since_T = times_T - begin
        flying_T = (times_T >= begin) & (times_T < end)
        y_T = np.where(flying_T, rest - speed * since_T + GRAVITY * since_T**2 / 2, y_T)
    return y_T


def _wall_times(body: Body, duration_s: float) -> list[float]:
    left, right = body.lane
    span = max(right - left, 1e-6)
    if span < 0.02:
        return []
    # Unfolded, the body runs straight on and meets a wall at every multiple of the span.
    begin, end = body.start[0] - left, body.start[0] - left + body.speed * duration_s
    low, high = sorted((begin, end))
    walls = range(math.ceil(low / span - 1e-9), math.floor(high / span + 1e-9) + 1)
    times = sorted((wall * span - begin) / body.speed for wall in walls)
    return [time for time in times if 1e-6 < time < duration_s]


def describe(scene: Scene, duration_s: float) -> str:
    """A caption: who does what on what, and how often."""
    names = [f"a {body.size} {body.colour} {body.shape}" for body in scene.bodies]
    subject = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    single = len(names) == 1
    verb = scene.action + ("" if not single else "es" if scene.action.endswith("sh") else "s")
    if scene.action == "bounce":
        times = [len(impacts(body, 0, scene.action, duration_s)) for body in scene.bodies]
        often = {0: "", 1: " once", 2: " twice"}.get(times[0], f" {NUMBERS[min(times[0], 10)]} times") if single else ""
        return f"{subject} {verb}{often} on {scene.floor}"
    if scene.action in ("fall", "slide"):
        return f"{subject} {verb} on {scene.floor}"
    return f"{subject} {verb} above {scene.floor}"

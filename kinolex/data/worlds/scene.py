"""What is in a world and how it moves: everything is drawn from one seed, and every time is known exactly.

    seed -> Scene(bodies, floor, backdrop, camera) -> positions at any time, impacts with times, captions

Lengths are in picture heights, y grows downwards, times are in seconds. Each body lives in a lane of its own, so bodies
never hide one another. Motion is solved in closed form: an impact has a time, not a frame.
"""

from __future__ import annotations

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
SHAPES = ("circle", "square", "triangle", "star", "ring")
SIZES = {"small": 0.085, "medium": 0.12, "large": 0.16}
"""Radius of the circle around a body."""
ACTIONS = ("fall", "bounce", "slide", "orbit", "grow")
FLOORS = ("wood", "metal", "glass", "rubber")
BACKDROPS = ("gradient", "clouds", "stripes", "checks", "haze")

FLOOR_Y = 0.9
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
    """Left and right bounds in x."""
    start: tuple[float, float]
    speed: float
    phase: float
    spin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    action: str
    floor: str
    backdrop: str
    tint: tuple[float, float, float]
    shade: tuple[float, float, float]
    pattern: NDArray[np.float32]
    """Frequencies and phases of the backdrop's waves, 5 x 3."""
    sway: tuple[float, float, float]
    """Camera drift: amplitude in x, in y, and phase."""
    bodies: tuple[Body, ...]

    def camera_T2(self, times_T: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y, phase = self.sway
        return np.stack([x * np.sin(1.7 * times_T + phase), y * np.sin(2.3 * times_T + 2 * phase)], axis=1)


def draw_scene(seed: int, config: WorldConfig) -> Scene:
    """The scene behind a seed; the picture's proportions decide how wide the lanes are."""
    rng = np.random.default_rng([seed, 20405])
    ratio = config.width / config.height
    fitting = max(1, int(ratio / 0.36))
    number = int(rng.integers(1, min(config.max_bodies, fitting) + 1))
    colours = rng.permutation(list(COLOURS))[:number]
    action = str(rng.choice(ACTIONS))
    lane_width = ratio / number
    bodies = []
    for index in range(number):
        size = str(rng.choice(list(SIZES)))
        radius = SIZES[size] * rng.uniform(0.94, 1.06)
        radius = min(radius, 0.42 * lane_width)
        left, right = lane_width * index + radius, lane_width * (index + 1) - radius
        x = rng.uniform(left, right)
        y = rng.uniform(radius + 0.04, 0.42) if action in ("fall", "bounce") else FLOOR_Y - radius
        if action in ("orbit", "grow"):
            y = rng.uniform(0.42, 0.6)
        bodies.append(
            Body(
                shape=str(rng.choice(SHAPES)),
                colour=str(colours[index]),
                size=size,
                radius=float(radius),
                lane=(left, right),
                start=(float(x), float(y)),
                speed=float(rng.uniform(0.5, 1.1) * rng.choice([-1, 1])),
                phase=float(rng.uniform(0, 2 * math.pi)),
                spin=float(rng.uniform(-1.5, 1.5)),
            )
        )
    # Backdrops keep to pale or dark greys with a breath of colour, so that bodies stand out.
    bright = rng.uniform(0.35, 0.8)
    tint, shade = (tuple(bright * k * (1 + rng.uniform(-0.06, 0.06, 3))) for k in (1.0, rng.uniform(0.6, 0.8)))
    pattern = np.stack([rng.uniform(2, 9, 5), rng.uniform(2, 9, 5), rng.uniform(0, 2 * np.pi, 5)], axis=1)
    sway = (rng.uniform(-0.05, 0.05), rng.uniform(-0.02, 0.02), rng.uniform(0, 6)) if config.camera else (0.0, 0.0, 0.0)
    return Scene(
        action=action,
        floor=str(rng.choice(FLOORS)),
        backdrop=str(rng.choice(BACKDROPS)),
        tint=tint,  # type: ignore[arg-type]
        shade=shade,  # type: ignore[arg-type]
        pattern=pattern.astype(np.float32),
        sway=tuple(map(float, sway)),  # type: ignore[arg-type]
        bodies=tuple(bodies),
    )


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
        return np.stack([left + np.minimum(along, 2 * span - along), np.full_like(times_T, y)], axis=1)
    if action == "orbit":
        reach = min(0.22, (body.lane[1] - body.lane[0]) / 2)
        centre = (body.lane[0] + body.lane[1]) / 2
        angle = body.phase + 4 * body.speed * times_T
        return np.stack([centre + reach * np.cos(angle), y - 0.1 + reach * np.sin(angle)], axis=1)
    return np.stack([np.full_like(times_T, x), np.full_like(times_T, y)], axis=1)


def radii_T(body: Body, action: str, times_T: NDArray[np.float64]) -> NDArray[np.float64]:
    if action != "grow":
        return np.full_like(times_T, body.radius)
    return body.radius * (0.6 + 0.4 * (1 - np.cos(np.minimum(times_T * 2.2, np.pi))) / 2)


def impacts(body: Body, index: int, action: str, duration_s: float) -> list[Impact]:
    """Every impact of a body before duration_s, in order."""
    if action in ("fall", "bounce"):
        found = [(time, speed) for time, speed in _landings(body, action) if time < duration_s]
    elif action == "slide":
        found = [(time, abs(body.speed)) for time in _wall_times(body, duration_s)]
    else:
        found = []
    return [impact(time, body.radius, speed, index) for time, speed in found]


def impact(time_s: float, radius: float, speed: float, index: int) -> Impact:
    """What is heard when a body of this radius hits something at this speed: large is low, fast is loud."""
    return Impact(time_s, PITCH_HZ * PITCH_RADIUS / radius, min(1.0, 0.15 + 0.85 * speed / FULL_SPEED), index)


def _landings(body: Body, action: str) -> list[tuple[float, float]]:
    """Times and speeds of contact with the floor, until the body rests."""
    drop = FLOOR_Y - body.radius - body.start[1]
    time, speed = math.sqrt(2 * drop / GRAVITY), math.sqrt(2 * drop * GRAVITY)
    found = [(time, speed)]
    while action == "bounce" and (speed := speed * RESTITUTION) > REST_SPEED:
        time += 2 * speed / GRAVITY
        found.append((time, speed))
    return found


def _heights(body: Body, action: str, times_T: NDArray[np.float64]) -> NDArray[np.float64]:
    landings = _landings(body, action)
    rest = FLOOR_Y - body.radius
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

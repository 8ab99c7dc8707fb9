"""Seeded batches of crops of sound: a batch is a function of (seed, step, packs) and of nothing else.

packs (by the root of their lengths) --> item (by its length) --> crop --> gain          worlds --> crop --> gain
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinolex.data.sounds import SoundPack
from kinolex.data.worlds.scene import WorldConfig, draw_scene, impacts
from kinolex.data.worlds.sound import synthesise
from kinolex.errors import ConfigError, DataError

FIRST_WORLD, NUM_WORLDS = 40_000_000, 10_000_000
"""Seeds of the worlds that are learned from; tests and measurements use seeds below."""

WORLD_CONFIG = WorldConfig(frames=60, fps=Fraction(24))
FULL_SCALE = np.float32(32768)
QUIET_SHARE = 0.1
"""Of the crops of worlds that are cut anywhere, and so are often silent; the others hear an impact."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundLoaderConfig:
    crop: int
    """Samples per sound."""
    batch: int
    seed: int
    world_fraction: float = 0.0
    """Share of the batch that is the sound of worlds."""
    shares: tuple[float, ...] | None = None
    """Of the packs among all that is not worlds, in their order; None draws them by the root of their lengths."""
    gain_db: tuple[float, float] = (-18.0, 9.0)
    """Loudness is changed by a gain drawn from here, as long as nothing clips."""

    def __post_init__(self) -> None:
        if min(self.crop, self.batch) < 1 or not 0.0 <= self.world_fraction <= 1.0:
            raise ConfigError(f"need crop and batch of at least 1 and world_fraction in 0..1, got {self}")
        if self.shares is not None and (min(self.shares, default=0) < 0 or sum(self.shares) <= 0):
            raise ConfigError(f"shares cannot be below 0, nor all 0, got {self.shares}")
        if self.gain_db[0] > self.gain_db[1]:
            raise ConfigError(f"gain_db must be a range from low to high, got {self.gain_db}")


class SoundLoader:
    """Draws from packs.

    Raises:
        DataError: packs of unlike rates, or none where not all is worlds.
    """

    def __init__(self, packs: Sequence[SoundPack], config: SoundLoaderConfig, *, rate_hz: int) -> None:
        if any(pack.rate_hz != rate_hz for pack in packs):
            raise DataError(f"every pack must be at {rate_hz} Hz, got {[pack.rate_hz for pack in packs]}")
        if not packs and config.world_fraction < 1:
            raise DataError("there is no pack to draw from; name collections, or set world_fraction to 1")
        self.packs, self.config, self.rate_hz = packs, config, rate_hz
        # A crop can start in as many places as an item has samples; short items are found in one place at least.
        self._ends = [np.cumsum([max(item.samples, config.crop) for item in pack.items]) for pack in packs]
        if config.shares is not None and len(config.shares) != len(packs):
            raise ConfigError(f"{len(packs)} packs need as many shares, got {config.shares}")
        # The root lets small collections be heard without letting one file be heard all the time.
        weights = np.array(config.shares or [float(ends[-1]) ** 0.5 for ends in self._ends])
        self._shares = weights / weights.sum() if len(weights) else weights

    def batch(self, step: int) -> Tensor:
        """samples_B1S, float32 in [-1, 1], of a step."""
        rng = np.random.default_rng([self.config.seed, step, 7411])
        crops = [self._draw(rng) for _ in range(self.config.batch)]
        return torch.from_numpy(np.stack(crops)).unsqueeze(1)

    def _draw(self, rng: np.random.Generator) -> NDArray[np.float32]:
        config = self.config
        if rng.random() < config.world_fraction:
            samples_S = world_crop(rng, config.crop, self.rate_hz)
        else:
            samples_S = self._crop(rng)
        peak = float(np.abs(samples_S).max())
        gain = 10 ** (rng.uniform(*config.gain_db) / 20)
        return samples_S * np.float32(min(gain, 1 / peak) if peak > 0 else 1.0)

    def _crop(self, rng: np.random.Generator) -> NDArray[np.float32]:
        which = int(rng.choice(len(self.packs), p=self._shares))
        ends = self._ends[which]
        index = int(np.searchsorted(ends, rng.integers(ends[-1]), side="right"))
        samples_S = self.packs[which].samples_S(index)
        crop = self.config.crop
        if len(samples_S) >= crop:
            start = int(rng.integers(len(samples_S) - crop + 1))
            return samples_S[start : start + crop].astype(np.float32) / FULL_SCALE
        before = int(rng.integers(crop - len(samples_S) + 1))
        return np.pad(samples_S.astype(np.float32) / FULL_SCALE, (before, crop - len(samples_S) - before))


def world_crop(rng: np.random.Generator, crop: int, rate_hz: int) -> NDArray[np.float32]:
    """A stretch of the sound of a world, without rendering its picture."""
    scene = draw_scene(FIRST_WORLD + int(rng.integers(NUM_WORLDS)), WORLD_CONFIG)
    duration_s = WORLD_CONFIG.duration_s
    events = sorted(
        (hit for index, body in enumerate(scene.bodies) for hit in impacts(body, index, scene.action, duration_s)),
        key=lambda hit: hit.time_s,
    )
    samples_S = synthesise(events, scene.floor, max(duration_s, crop / rate_hz), rate_hz)
    latest = len(samples_S) - crop
    start = int(rng.integers(latest + 1))
    if events and rng.random() >= QUIET_SHARE:
        hit = int(events[int(rng.integers(len(events)))].time_s * rate_hz)
        start = int(np.clip(hit - rng.integers(crop), 0, latest))
    return samples_S[start : start + crop].astype(np.float32)

"""What super-resolution learns from: the same world rendered at two sizes, both as tokens, made once and kept.

    seed --render, side--------> clip --encode--> small ids [t, h, w]
         --render, twice side--> clip --encode--> large ids [t, 2h, 2w]

A scene is drawn from its seed in units of the picture's height, so both renderings show the same one, each with edges
as sharp as its own pixels allow. A shard is a function of (plan, number) and is written whole.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kinolex import hub
from kinolex.data import worlds
from kinolex.errors import ConfigError
from kinolex.models.super_resolution import FACTOR
from kinolex.training.shards import drawn, paths_of, write_shard
from kinolex.types import Clip

SHARD = 100
"""Pairs per file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairSource:
    """Worlds of one kind at two sizes."""

    clips: int
    side: int
    """In pixels, of the small ones."""
    max_bodies: int = 2
    fps: tuple[int, ...] = (12, 24)
    """Frames per second, one of which is drawn for each world."""

    def __post_init__(self) -> None:
        if min(self.clips, self.max_bodies, *self.fps) < 1 or self.side < 16:
            raise ConfigError(f"pairs need clips, bodies, rates and side >= 16, got {self}")


@dataclass(frozen=True, slots=True)
class PairPlan:
    """All that a shard depends on besides the tokenizer's weights, which have a folder."""

    tokenizer: str
    source: PairSource
    frames: int
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Ids of one world at two sizes."""

    small_thw: Tensor
    large_thw: Tensor


def render_pair(seed: int, source: PairSource, frames: int, fps: int) -> tuple[worlds.World, worlds.World]:
    """One world twice: small, and large."""
    small, large = (
        worlds.render(
            seed,
            worlds.WorldConfig(frames=frames, height=side, width=side, fps=Fraction(fps), max_bodies=source.max_bodies),
        )
        for side in (source.side, FACTOR * source.side)
    )
    return small, large


def draw_shard(plan: PairPlan, number: int, path: Path) -> None:
    """Write shard `number`."""
    tokenizer = hub.load(plan.tokenizer)
    tensors: dict[str, Tensor] = {}
    for index in range(SHARD):
        dice = np.random.default_rng([plan.seed, number, index, 128])
        fps = int(dice.choice(plan.source.fps))
        pair = render_pair(int(dice.integers(2**31)), plan.source, plan.frames, fps)
        for name, world in zip(("small", "large"), pair, strict=True):
            ids_Qthw = tokenizer.encode(Clip(world.clip.frames_TCHW, world.clip.fps)).ids_Qthw
            tensors[f"{index}.{name}"] = ids_Qthw[0].to(torch.int32).contiguous()
    write_shard(path, tensors)


def draw_pairs(plan: PairPlan, folder: Path, *, workers: int | None = None) -> list[Pair]:
    """All pairs of a plan; shards that are there already are read.

    Args:
        folder: where shards are kept; of one tokenizer only.
        workers: processes; one per core if None.

    Raises:
        CheckpointError: a shard is damaged.
    """
    described = f"tokens of worlds, {SHARD} pairs each"
    pairs = drawn(shard_paths(plan, folder), partial(draw_shard, plan), _read, described, workers=workers)
    return pairs[: plan.source.clips]


def shard_paths(plan: PairPlan, folder: Path) -> list[Path]:
    """Files of a plan's pairs; more pairs of the same kind are more files."""
    decides = asdict(plan)
    decides.pop("tokenizer")
    decides["source"].pop("clips")
    return paths_of(folder, "pairs", decides, plan.source.clips, SHARD)


def _read(tensors: dict[str, Tensor]) -> list[Pair]:
    return [Pair(tensors[f"{index}.small"], tensors[f"{index}.large"]) for index in range(SHARD)]

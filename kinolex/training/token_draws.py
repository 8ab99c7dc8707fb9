"""What generators learn from: clips as tokens, beside the tokens of the same clips padded for tasks. Made once, kept.

    packs, worlds --Loader--> clip --encode--> clean ids [t, h, w]
                                |--task.padded, encode--> condition ids [t, h, w], HIDDEN where nothing is given

Clips are longer than the windows that generators see, so that windows can begin inside a stream; conditions of a few
tasks drawn per clip cover either the first window or the whole clip. Shards are drawn by several processes; a shard is
a function of (seed, source, number) and is written whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kinolex import hub
from kinolex.data import worlds
from kinolex.data.loader import Loader, LoaderConfig
from kinolex.data.packs import Pack
from kinolex.errors import ConfigError
from kinolex.masks import HIDDEN
from kinolex.tasks.base import Posed, pose, pose_mask
from kinolex.tasks.video import FREE_FORM, TASKS
from kinolex.tasks.words import word_ids
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training.shards import drawn, paths_of, write_shard
from kinolex.types import Clip

SHARD = 100
"""Clips per file."""
LONG_SHARE = 0.3
"""Of the conditions cover the whole clip, so that windows inside a stream occur with them."""
ENCODED_TASKS = (
    *("frame-interpolation", "outpaint-central", "outpaint-vertical", "outpaint-horizontal", "outpaint-dynamic"),
    *("inpaint-central", "inpaint-dynamic", FREE_FORM),
)
"""Tasks whose condition is not part of the clean tokens."""
ONLY_FIRST_WINDOW = ("frame-interpolation",)


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawSource:
    """Clips of one kind and size."""

    name: str
    data: tuple[str, ...] = ()
    """Collections below the data folder; none: worlds."""
    clips: int
    crop: int
    """Side in pixels."""
    batch: int
    """Clips per step of training."""
    share: float
    """Of the steps."""
    max_bodies: int = 1
    """In a world."""
    conditions: int = 2
    """Tasks encoded per clip."""

    def __post_init__(self) -> None:
        if min(self.clips, self.batch, self.conditions) < 1 or self.crop < 16 or not self.share > 0:
            raise ConfigError(
                f"source {self.name} needs clips, a batch, conditions, a share and crop >= 16, got {self}"
            )


@dataclass(frozen=True, slots=True)
class Drawn:
    """One clip and its conditions."""

    clean_thw: Tensor
    words_P: Tensor
    conditions: tuple[tuple[int, Tensor], ...]
    """(index into ENCODED_TASKS, ids [t, h, w]) each; as long as a window, or as the clip."""


@dataclass(frozen=True, slots=True)
class DrawPlan:
    """All that a shard depends on."""

    tokenizer: str
    words: tuple[str, ...]
    max_words: int
    window_frames: int
    clip_frames: int
    seed: int


def draw_shard(plan: DrawPlan, source: DrawSource, packs: Sequence[Path], number: int, path: Path) -> None:
    """Write shard `number` of a source."""
    tokenizer = hub.load(plan.tokenizer)
    loader = _loader(plan, source, [Pack.open(folder) for folder in packs])
    tensors: dict[str, Tensor] = {}
    for index in range(SHARD):
        dice = np.random.default_rng([plan.seed, number, index, *source.name.encode()])
        clip, text = _clip(plan, source, loader, number * SHARD + index, dice)
        tensors[f"{index}.clean"] = _small(tokenizer.encode(clip).ids_Qthw[0])
        tensors[f"{index}.words"] = word_ids(text, plan.words, plan.max_words).to(torch.int16)
        for slot in range(source.conditions):
            task = int(dice.integers(len(ENCODED_TASKS)))
            long = dice.random() < LONG_SHARE and ENCODED_TASKS[task] not in ONLY_FIRST_WINDOW
            frames = clip.num_frames if long else plan.window_frames
            posed = _posed(ENCODED_TASKS[task], Clip(clip.frames_TCHW[:frames], clip.fps), tokenizer, dice)
            tensors[f"{index}.condition.{slot}.{task}"] = _small(posed.condition_thw)
    write_shard(path, tensors)


def draw(
    plan: DrawPlan, source: DrawSource, packs: Sequence[Path], folder: Path, *, workers: int | None = None
) -> list[Drawn]:
    """All clips of a source; shards that are there already are read.

    Args:
        packs: folders of the source's packs; none for worlds.
        folder: where shards are kept.
        workers: processes; one per core if None.

    Raises:
        CheckpointError: a shard is damaged.
    """
    write = partial(draw_shard, plan, source, packs)
    described = f"tokens of {source.name}, {SHARD} clips each"
    return drawn(shard_paths(plan, source, folder), write, _read, described, workers=workers)[: source.clips]


def shard_paths(plan: DrawPlan, source: DrawSource, folder: Path) -> list[Path]:
    """Files of a source's clips. Their names depend on all that the clips do but the tokenizer, which has a folder."""
    decides = {name: getattr(source, name) for name in ("data", "crop", "max_bodies", "conditions")}
    return paths_of(folder, source.name, [asdict(plan) | {"tokenizer": ""}, decides], source.clips, SHARD)


def _read(tensors: dict[str, Tensor]) -> list[Drawn]:
    clips = []
    for index in range(SHARD):
        start = f"{index}.condition."
        named = sorted(name for name in tensors if name.startswith(start))
        conditions = tuple((int(name.rsplit(".", 1)[1]), tensors[name]) for name in named)
        clips.append(Drawn(tensors[f"{index}.clean"], tensors[f"{index}.words"].long(), conditions))
    return clips


def _loader(plan: DrawPlan, source: DrawSource, packs: list[Pack]) -> Loader | None:
    if not packs:
        return None
    config = LoaderConfig(
        clip_frames=plan.clip_frames, crop=source.crop, batch_video=1, batch_image=0, max_stride=1, seed=plan.seed
    )
    return Loader(packs, config)


def _clip(
    plan: DrawPlan, source: DrawSource, loader: Loader | None, number: int, dice: np.random.Generator
) -> tuple[Clip, str]:
    """A clip and what its words say."""
    if loader is None:
        bodies = int(dice.integers(1, source.max_bodies + 1))
        side = source.crop
        config = worlds.WorldConfig(frames=plan.clip_frames, height=side, width=side, max_bodies=bodies)
        world = worlds.render(int(dice.integers(2**31)), config)
        return Clip(world.clip.frames_TCHW, world.clip.fps), world.caption
    frames_THWC, item = loader.clip(number)
    label = item.label if item is not None and item.label in plan.words else ""
    return Clip(torch.from_numpy(frames_THWC.copy()).permute(0, 3, 1, 2).contiguous(), Fraction(25)), label or ""


def _posed(name: str, clip: Clip, tokenizer: VideoTokenizer, dice: np.random.Generator) -> Posed:
    if name != FREE_FORM:
        return pose(TASKS[name], clip, tokenizer.encode, tokenizer.pixels_per_token)
    return pose_mask(name, clip, _random_region(clip, dice), tokenizer.encode, tokenizer.pixels_per_token)


def _random_region(clip: Clip, dice: np.random.Generator) -> Tensor:
    """One or two random boxes in space and time, known or unknown."""
    sizes = (clip.num_frames, clip.height, clip.width)
    inside_THW = torch.zeros(sizes, dtype=torch.bool)
    for _ in range(int(dice.integers(1, 3))):
        box = []
        for size in sizes:
            length = max(1, round(size * dice.uniform(0.2, 0.8)))
            start = int(dice.integers(0, size - length + 1))
            box.append(slice(start, start + length))
        if dice.random() < 0.6:
            box[0] = slice(None)
        inside_THW[tuple(box)] = True
    return inside_THW if dice.random() < 0.5 else ~inside_THW


def _small(ids: Tensor) -> Tensor:
    assert HIDDEN >= -(2**31) and int(ids.max()) < 2**31
    return ids.to(torch.int32).contiguous()

"""Single pictures with a label and with words that are told about them, from the sets of docs/data.md and from worlds.

    data/NAME, split -> Picture(where it is, label, told words) -> square pixels

A class of ImageNet has one picture here, so its label is the everyday word for it ("dog"); a world's is its largest
body ("red star"). Told words are what a teacher may say: the class's name, a caption, the bodies of a world.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kinolex import media
from kinolex.data.imagenet_groups import GROUP_OF
from kinolex.data.index import Entry, scan
from kinolex.data.worlds.render import render_frames_THWC
from kinolex.data.worlds.scene import SIZES, WorldConfig, draw_scene
from kinolex.errors import DataError
from kinolex.types import Clip

WORLDS = "worlds"
WORLD_SEEDS = {"train": 40_000_000, "test": 9_000_000}
"""First seed of the worlds of a split."""
WORLD_FRAMES = 5
"""Of which the last is the picture."""
LATER = 4
"""Frames between a picture and the one that comes later."""
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLIP_FRAMES, CLIP_EVERY = 97, 16
"""Of a video so many frames are looked at, and every n-th is a picture."""
PLAIN_TEXT = "a an the of and in on at with to by over into is are its it from for or as their his her up"
PLAIN = frozenset(PLAIN_TEXT.split())
"""Words of captions that tell nothing of a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    name: str
    label: str | None
    told: tuple[str, ...]
    """Words, lower case as a rule."""
    entry: Entry | None = None
    frame: int = 0
    """Of a video."""
    seed: int | None = None
    """Of a world."""


def list_pictures(data: Path, name: str, split: str, *, worlds: int = 2000) -> list[Picture]:
    """Pictures of a set and split, in a fixed order.

    Args:
        data: folder with one sub-folder per set; not looked at for worlds.
        name: a sub-folder, or "worlds".
        worlds: how many of them.

    Raises:
        MissingFile, DataError: the set is not there, damaged or empty.
    """
    if name == WORLDS:
        return [_world(WORLD_SEEDS[split] + number) for number in range(worlds)]
    entries = scan(data / name, split=split)
    if not entries:
        raise DataError(f"{data / name} has nothing of split {split!r}; docs/data.md says how splits are named")
    classes = _imagenet_classes(data / name)
    found: list[Picture] = []
    for entry in entries:
        label = entry.label
        if label is not None and label.isdigit() and int(label) < len(DIGITS):
            label = DIGITS[int(label)]
        told = words_of(label or entry.caption or "")
        if entry.path.name in classes:
            title, number = classes[entry.path.name]
            label = GROUP_OF.get(number)
            told = (*words_of(title), *((label,) if label else ()))
        one = Picture(name=f"{name}/{entry.name}", label=label, told=told, entry=entry)
        frames = range(0, CLIP_FRAMES, CLIP_EVERY) if entry.kind == "video" else (0,)
        found += [replace(one, frame=frame, name=one.name + (f"@{frame}" if frame else "")) for frame in frames]
    return found


def words_of(text: str) -> tuple[str, ...]:
    """Words that tell something, once each, in order."""
    found = re.findall(r"[A-Za-z]{2,}", text)
    return tuple(dict.fromkeys(word for word in found if word.lower() not in PLAIN))


def load_picture(picture: Picture, side: int) -> NDArray[np.uint8]:
    """Pixels (side, side, 3): the square in the middle, scaled. Errors as kinolex.media.read."""
    if picture.seed is not None:
        config = WorldConfig(frames=WORLD_FRAMES, height=side, width=side)
        return render_frames_THWC(draw_scene(picture.seed, config), config)[-1]
    assert picture.entry is not None
    if picture.entry.array_index is not None:
        frames_HWC = torch.from_numpy(np.ascontiguousarray(picture.entry.load_array()))
        clip = Clip(frames_HWC.permute(2, 0, 1).unsqueeze(0).contiguous(), Fraction(1))
    elif picture.entry.kind == "video":
        clip = _beginning(picture.entry.path)
        at = min(picture.frame, clip.num_frames - 1)
        clip = Clip(clip.frames_TCHW[at : at + 1], clip.fps)
    else:
        clip = media.read(picture.entry.path)
    return square(clip, side).frames_TCHW[0].permute(1, 2, 0).numpy()


def moves(picture: Picture) -> bool:
    """Whether there is a later frame: of worlds and videos."""
    return picture.seed is not None or (picture.entry is not None and picture.entry.kind == "video")


def load_earlier_and_later(picture: Picture, side: int) -> NDArray[np.uint8]:
    """Two frames (2, side, side, 3), LATER frames apart, of a picture that moves; of videos the first is the picture,
    of worlds the second. Where a video ends before, its last frame is the second.

    Raises:
        DataError: a single picture. Others as kinolex.media.read.
    """
    if not moves(picture):
        raise DataError(f"{picture.name} is a single picture; what comes later is asked of videos and worlds")
    if picture.seed is None:
        later = replace(picture, frame=picture.frame + LATER)
        return np.stack([load_picture(one, side) for one in (picture, later)])
    config = WorldConfig(frames=WORLD_FRAMES, height=side, width=side)
    frames_THWC = render_frames_THWC(draw_scene(picture.seed, config), config)
    return frames_THWC[[-1 - LATER, -1]]


def square(clip: Clip, side: int) -> Clip:
    """The square in the middle of every frame, scaled to side x side; without sound."""
    short = min(clip.height, clip.width)
    top, left = (clip.height - short) // 2, (clip.width - short) // 2
    cut = Clip(clip.frames_TCHW[:, :, top : top + short, left : left + short].contiguous(), clip.fps)
    return media.resize(cut, side, side)


@lru_cache(maxsize=1)  # pictures of one video are asked for one after the other
def _beginning(path: Path) -> Clip:
    return media.read(path, max_frames=CLIP_FRAMES + LATER)


def _world(seed: int) -> Picture:
    scene = draw_scene(seed, WorldConfig(frames=WORLD_FRAMES))
    order = list(SIZES)
    by_size = sorted(scene.bodies, key=lambda body: order.index(body.size), reverse=True)
    clear = len(by_size) == 1 or by_size[0].size != by_size[1].size
    label = f"{by_size[0].colour} {by_size[0].shape}" if clear else None
    told = tuple(dict.fromkeys(word for body in by_size for word in (body.colour, body.shape)))
    return Picture(name=f"{WORLDS}/{seed}", label=label, told=told, seed=seed)


def _imagenet_classes(folder: Path) -> dict[str, tuple[str, int]]:
    """File name to class name and number, where the table has them."""
    table = folder / "index.csv"
    if not table.is_file():
        return {}
    with table.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("class_index")]
    return {row["file"]: (row["class_name"], int(row["class_index"])) for row in rows}

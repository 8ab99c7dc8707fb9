"""Labelled clips and sounds with a split: what recognition is trained and measured on.

    weizmann64   4 actions, 7 people, none of them on both sides; windows of 17 frames, every second frame
    worlds       action, shape of the largest body, number of bodies; rendered, seeds of their own on both sides
    cifar10      10 kinds of things, pictures of 32x32 scaled to 64x64
    digits       handwritten digits, pictures of 28x28 scaled to 64x64
    fsdd         10 spoken digits and who of 6 speakers says them; takes of their own on both sides
    esc10        10 kinds of sounds of the surroundings; pieces of one recording are on one side

Pictures are 64x64. Left and right are exchanged, before any tokenizer sees a clip, where that changes no label. Sounds
are mono at 16 kHz, cut or filled with silence to one length: spoken words, without the silence around them and equally
loud, to 0.8 s; those of the surroundings to 5 s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray

from kinolex import media
from kinolex.data.index import Entry, scan
from kinolex.data.spoken_digits import RATE_HZ, Recording, Split, digit_recordings
from kinolex.data.worlds.labels import CLASSES, labelled
from kinolex.data.worlds.scene import WorldConfig
from kinolex.errors import ConfigError, DataError
from kinolex.media.resample import resample_sound
from kinolex.types import Sound

SIDE, FRAMES = 64, 17
WORLDS = "worlds"
ATTRIBUTES = ("action", "shape", "number")
"""Of worlds, that are asked for."""
FIRST_TRAIN_WORLD, FIRST_TEST_WORLD = 30_000_000, 8_000_000
TRAIN_WORLDS, TEST_WORLDS = 1500, 300
EVERY_NTH = 2
"""Frames of a clip that windows are made of: 17 frames of 25 a second are shorter than a wave of a hand."""
TRAIN_STRIDE, TEST_STRIDE = 4, 8
"""Frames from one window of a clip to the next."""
WORLD_RATE, CLIP_RATE = 24.0, 12.5
WORD_S, SURROUNDINGS_S = 0.8, 5.0
"""Seconds that sounds are cut or filled to: one word in a hundred is longer, by less than 0.1 s."""

Outputs = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True, eq=False)
class LabelledClips:
    frames_NTHWC: NDArray[np.uint8]
    labels: dict[str, NDArray[np.int64]]
    """(N,) per attribute; UNASKED where the clip does not tell."""
    items_N: NDArray[np.int64]
    """Which clip of the collection each was cut from: windows of one clip are judged together."""

    def __len__(self) -> int:
        return len(self.frames_NTHWC)

    def some(self, indexes: NDArray[np.int64]) -> LabelledClips:
        """A choice of them."""
        labels = {name: values[indexes] for name, values in self.labels.items()}
        return LabelledClips(self.frames_NTHWC[indexes], labels, self.items_N[indexes])


@dataclass(frozen=True, slots=True, eq=False)
class LabelledSounds:
    samples_NS: NDArray[np.float32]
    """Mono, in [-1, 1]."""
    rate_hz: int
    labels: dict[str, NDArray[np.int64]]
    """(N,) per attribute, as of clips."""
    items_N: NDArray[np.int64]
    """Which recording of the collection each is."""

    def __len__(self) -> int:
        return len(self.samples_NS)

    def some(self, indexes: NDArray[np.int64]) -> LabelledSounds:
        """A choice of them."""
        labels = {name: values[indexes] for name, values in self.labels.items()}
        return LabelledSounds(self.samples_NS[indexes], self.rate_hz, labels, self.items_N[indexes])

    def at_rate(self, rate_hz: int) -> LabelledSounds:
        """The same at another rate."""
        if rate_hz == self.rate_hz:
            return self
        sounds = [Sound(samples_S[None], self.rate_hz) for samples_S in torch.from_numpy(self.samples_NS)]
        samples_NS = torch.cat([resample_sound(sound, rate_hz).samples_CS for sound in sounds]).numpy()
        return LabelledSounds(samples_NS, rate_hz, self.labels, self.items_N)


Labelled = LabelledClips | LabelledSounds


@dataclass(frozen=True, slots=True, eq=False)
class LabelledSet:
    name: str
    outputs: Outputs
    train: Labelled
    test: Labelled
    frames_per_second: float = 1.0
    """Of clips; pictures and sounds have none to speak of."""
    words: bool = False
    """Sounds are single words, with the quiet around them cut off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SetConfig:
    """Which set, and how much of it."""

    name: str
    train: int | None = None
    """So many, of all classes alike; of worlds, how many are rendered. None takes all, of worlds TRAIN_WORLDS."""
    test: int | None = None
    """Likewise; of worlds TEST_WORLDS."""

    def __post_init__(self) -> None:
        if self.name not in SETS:
            raise ConfigError(f"no labelled set {self.name!r}; there are {', '.join(SETS)}")
        for side, count in (("train", self.train), ("test", self.test)):
            if count is not None and count < 1:
                raise ConfigError(f"{side} must be at least 1, got {count}; leave it out for all there is")

    @property
    def of_sounds(self) -> bool:
        return self.name in SOUNDS


def labelled_set(config: SetConfig, data: Path | None) -> LabelledSet:
    """The clips or sounds of a set with their labels.

    Args:
        data: folder with one sub-folder per collection; worlds need none.

    Raises:
        DataError: the set is not below the data folder, or has no labels or no split.
    """
    return SETS[config.name](config, data)


def flipped(clips: LabelledClips) -> LabelledClips:
    """Every clip, and after them every clip with left and right exchanged."""
    both_NTHWC = np.concatenate([clips.frames_NTHWC, clips.frames_NTHWC[:, :, :, ::-1]])
    labels = {name: np.concatenate([values, values]) for name, values in clips.labels.items()}
    return LabelledClips(both_NTHWC, labels, np.concatenate([clips.items_N, clips.items_N]))


def windows(frames_TCHW: torch.Tensor, every_nth: int, stride: int) -> NDArray[np.uint8]:
    """Windows [N, FRAMES, H, W, C] of every nth frame, `stride` frames apart; none where the clip is too short."""
    span = 1 + (FRAMES - 1) * every_nth
    starts = range(0, len(frames_TCHW) - span + 1, stride)
    frames_THWC = rearrange(frames_TCHW, "t c h w -> t h w c").numpy()
    cut = [frames_THWC[start : start + span : every_nth] for start in starts]
    return np.stack(cut) if cut else np.empty((0, FRAMES, *frames_THWC.shape[1:]), np.uint8)


def _worlds(config: SetConfig, _data: Path | None) -> LabelledSet:
    def part(first: int, count: int) -> LabelledClips:
        world = WorldConfig(frames=FRAMES, height=SIDE, width=SIDE)
        pairs = [labelled(first + number, world) for number in range(count)]
        values = {name: np.array([labels.classes[name] for _, labels in pairs], np.int64) for name in ATTRIBUTES}
        return LabelledClips(np.stack([frames for frames, _ in pairs]), values, np.arange(count))

    train, test = (
        part(FIRST_TRAIN_WORLD, config.train or TRAIN_WORLDS),
        part(FIRST_TEST_WORLD, config.test or TEST_WORLDS),
    )
    return LabelledSet(WORLDS, tuple((name, CLASSES[name]) for name in ATTRIBUTES), train, test, WORLD_RATE)


def _weizmann(config: SetConfig, data: Path | None) -> LabelledSet:
    name = "weizmann64"
    entries = {split: _entries(name, data, split, getattr(config, split)) for split in ("train", "test")}
    classes = _classes(name, data)

    def part(split: str, stride: int) -> LabelledClips:
        cut, labels, items = [], [], []
        for item, entry in enumerate(entries[split]):
            clip = media.fit_short_side(media.read(entry.path), SIDE)
            found = windows(clip.frames_TCHW, EVERY_NTH, stride)
            cut.append(found)
            labels += [_number(entry.label, classes, entry.name)] * len(found)
            items += [item] * len(found)
        return LabelledClips(np.concatenate(cut), {"action": np.array(labels, np.int64)}, np.array(items, np.int64))

    train, test = flipped(part("train", TRAIN_STRIDE)), part("test", TEST_STRIDE)
    return LabelledSet(name, (("action", classes),), train, test, CLIP_RATE)


def _pictures(name: str, attribute: str, *, flips: bool) -> Callable[[SetConfig, Path | None], LabelledSet]:
    def make(config: SetConfig, data: Path | None) -> LabelledSet:
        entries = {split: _entries(name, data, split, getattr(config, split)) for split in ("train", "test")}
        classes = _classes(name, data)

        def part(split: str) -> LabelledClips:
            images = np.stack([entry.load_array() for entry in entries[split]])
            frames_NCHW = rearrange(torch.from_numpy(images), "n h w c -> n c h w")
            frames_NTHWC = rearrange(media.resize_frames(frames_NCHW, SIDE, SIDE), "n c h w -> n 1 h w c").numpy()
            labels = np.array([_number(entry.label, classes, entry.name) for entry in entries[split]], np.int64)
            return LabelledClips(frames_NTHWC, {attribute: labels}, np.arange(len(labels)))

        train = part("train")
        return LabelledSet(name, ((attribute, classes),), flipped(train) if flips else train, part("test"))

    return make


def _words(config: SetConfig, data: Path | None) -> LabelledSet:
    name, folder = "fsdd", _data_folder("fsdd", data)
    all_of = {split: digit_recordings(folder, split) for split in get_args(Split)}
    if not all(all_of.values()):
        raise DataError(f"{folder / name} needs recordings of both splits, train and test; docs/data.md says how")
    classes = {
        "digit": tuple(sorted({str(one.digit) for one in all_of["train"]})),
        "speaker": tuple(sorted({one.speaker for one in all_of["train"]})),
    }

    def told(one: Recording) -> dict[str, str]:
        return {"digit": str(one.digit), "speaker": one.speaker}

    def part(split: Split) -> LabelledSounds:
        every = all_of[split]
        chosen = [every[i] for i in _alike([(one.digit, one.speaker) for one in every], getattr(config, split))]
        labels = {
            attribute: np.array([_number(told(one)[attribute], of, one.name) for one in chosen], np.int64)
            for attribute, of in classes.items()
        }
        samples_NS = np.stack([_as_long(one.word(), WORD_S) for one in chosen])
        return LabelledSounds(samples_NS, RATE_HZ, labels, np.arange(len(chosen)))

    return LabelledSet(name, tuple(classes.items()), part("train"), part("test"), words=True)


def _surroundings(config: SetConfig, data: Path | None) -> LabelledSet:
    name = "esc10"
    entries = {split: _entries(name, data, split, getattr(config, split)) for split in ("train", "test")}
    classes = _classes(name, data)

    def heard(entry: Entry) -> NDArray[np.float32]:
        sound = media.read_sound(entry.path)
        mono = Sound(sound.samples_CS.mean(dim=0, keepdim=True), sound.rate_hz)
        return _as_long(resample_sound(mono, RATE_HZ).samples_CS[0], SURROUNDINGS_S)

    def part(split: str) -> LabelledSounds:
        labels = np.array([_number(entry.label, classes, entry.name) for entry in entries[split]], np.int64)
        samples_NS = np.stack([heard(entry) for entry in entries[split]])
        return LabelledSounds(samples_NS, RATE_HZ, {"sound": labels}, np.arange(len(labels)))

    return LabelledSet(name, (("sound", classes),), part("train"), part("test"))


def _as_long(samples_S: torch.Tensor, seconds: float) -> NDArray[np.float32]:
    """Cut, or filled with silence, to so many seconds."""
    wanted = round(seconds * RATE_HZ)
    return F.pad(samples_S[:wanted], (0, max(0, wanted - len(samples_S)))).numpy()


SETS: dict[str, Callable[[SetConfig, Path | None], LabelledSet]] = {
    "weizmann64": _weizmann,
    WORLDS: _worlds,
    "cifar10": _pictures("cifar10", "thing", flips=True),
    "digits": _pictures("digits", "digit", flips=False),
    "fsdd": _words,
    "esc10": _surroundings,
}
SOUNDS = ("fsdd", "esc10")
PICTURES = tuple(name for name in SETS if name not in SOUNDS)


def _data_folder(name: str, data: Path | None) -> Path:
    if data is None:
        raise DataError(f"the set {name} lies in a data folder; name it with --data")
    if not (data / name).is_dir():
        raise DataError(f"no set {name} below {data}; docs/data.md says where it comes from")
    return data


def _entries(name: str, data: Path | None, split: str, count: int | None) -> list[Entry]:
    data = _data_folder(name, data)
    entries = scan(data / name, split=split)
    if not entries or any(entry.label is None for entry in entries):
        raise DataError(f"{data / name} needs labelled entries of split {split}; its table names neither, or not all")
    return [entries[number] for number in _alike([entry.label for entry in entries], count)]


def _alike(labels: Sequence[Hashable], count: int | None) -> list[int]:
    """Which `count` to take for as many of every label: the first of each, the second of each, and so on."""
    ranks, seen = [], Counter[Hashable]()
    for label in labels:
        ranks.append(seen[label])
        seen[label] += 1
    return sorted(sorted(range(len(labels)), key=ranks.__getitem__)[:count])


def _classes(name: str, data: Path | None) -> tuple[str, ...]:
    """Of the whole training split, whatever part of it is used."""
    return tuple(sorted({str(entry.label) for entry in _entries(name, data, "train", None)}))


def _number(label: str | None, classes: tuple[str, ...], name: str) -> int:
    if label not in classes:
        raise DataError(f"{name} has the label {label!r}, which nothing of the training split has")
    return classes.index(label)

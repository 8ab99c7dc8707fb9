"""Fixed lists of few-shot questions: which pictures are shown with which labels, and which picture is asked about.

    (set, ways, shots, seed) -> pictures by label -> Episode(labels, support, query, answer) x 2,000

A list is a pure function of those four and of the names in the set; its hash tells whether two results asked the same.
Support and query come from the test split and are different pictures, except for imagenet_samples, whose test split has
too few pictures of most labels: there support comes from train and only the query from test.

Source: the protocol of Tsimpoukelli et al. 2021, arXiv 2106.13884 (Frozen), which SPAE follows; papers.md section 5.3.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kinolex.data.pictures import Picture, list_pictures
from kinolex.errors import DataError, UsageError

SETS = ("imagenet_samples", "cifar10", "digits", "worlds")
SUPPORT_FROM = {"imagenet_samples": "train"}
"""Split that shown pictures come from, where it is not test."""
EPISODES = 2000
WORLDS = 1500
"""Worlds of the test split that questions are made of."""
HASHES: dict[tuple[str, int, int], str] = {
    ("imagenet_samples", 2, 1): "1a30b8e200008245",
    ("imagenet_samples", 2, 3): "860c0e41ff69080c",
    ("imagenet_samples", 5, 1): "43a36b951416cae0",
    ("imagenet_samples", 5, 3): "d93b2bac3498bddd",
    ("cifar10", 2, 1): "f860c10900569826",
    ("cifar10", 2, 3): "c0a17a7e1bdba649",
    ("cifar10", 5, 1): "4147a9dc7a179b33",
    ("cifar10", 5, 3): "c3b57d13d8632104",
    ("digits", 2, 1): "6e54baf0d0cda641",
    ("digits", 2, 3): "5977f2fd14abdfe3",
    ("digits", 5, 1): "c196ad6723f3dbb2",
    ("digits", 5, 3): "975270d998ec4641",
    ("worlds", 2, 1): "111935cd420e4af8",
    ("worlds", 2, 3): "c848f3955cc2c731",
    ("worlds", 5, 1): "a32e85eae461ae6a",
    ("worlds", 5, 3): "b7e1d8865cfa318d",
}
"""Of the list of a (set, ways, shots) at seed 0."""


@dataclass(frozen=True, slots=True)
class Episode:
    labels: tuple[str, ...]
    """The possible answers, in the order they are named."""
    support: tuple[int, ...]
    """Shown pictures as indices into EpisodeList.pictures, round by round: every label once per round."""
    query: int
    answer: str


@dataclass(frozen=True, slots=True, eq=False)
class EpisodeList:
    name: str
    ways: int
    shots: int
    seed: int
    pictures: tuple[Picture, ...]
    episodes: tuple[Episode, ...]
    question: str = ""
    """About every picture, to which labels are the answers; empty: what it shows."""

    @property
    def hash(self) -> str:
        """16 hexadecimal digits over the names, labels and order of everything that is shown and asked."""
        names = [(picture.name, picture.label) for picture in self.pictures]
        told = [
            [episode.labels, [names[index] for index in episode.support], names[episode.query], episode.answer]
            for episode in self.episodes
        ]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def episode_list(
    data: Path | None,
    name: str,
    *,
    ways: int,
    shots: int = 1,
    seed: int = 0,
    count: int = EPISODES,
    part: tuple[int, int] = (0, 1),
    question: str = "",
    answer: Callable[[Picture], str | None] = lambda picture: picture.label,
) -> EpisodeList:
    """The list of a set.

    Args:
        data: folder with one sub-folder per set; None serves worlds alone.
        name: one of SETS.
        ways: labels to choose from.
        shots: pictures shown of each (inner shots).
        count: questions; a shorter list is the beginning of a longer one.
        part: (k, n) takes every n-th picture of a label, from the k-th on: lists of other k show and ask others.
        question: about every picture.
        answer: to it, which stands for the label; pictures without one are left out.

    Raises:
        UsageError: another set, fewer than 2 ways, no shots, or a part that there is not.
        MissingFile, DataError: the set is not there, or has too few labels with enough pictures.
    """
    if name not in SETS or ways < 2 or shots < 1 or count < 1:
        raise UsageError(
            f"episodes need a set of {', '.join(SETS)}, 2 ways and 1 shot or more, got {name!r}, {ways}, {shots}"
        )
    if not 0 <= part[0] < part[1]:
        raise UsageError(f"part k of n needs k in 0..n-1, got {part}")
    if data is None and name != "worlds":
        raise DataError(f"episodes of {name} need the data folder; give --data")
    folder = data or Path()
    asked = _labelled(list_pictures(folder, name, "test", worlds=WORLDS), answer)
    shown = asked
    if name in SUPPORT_FROM:
        shown = _labelled(list_pictures(folder, name, SUPPORT_FROM[name]), answer)
    apart = shown is not asked
    pictures = (*asked, *shown) if apart else tuple(asked)
    query_of = _by_label(pictures[: len(asked)], 0, part)
    support_of = _by_label(pictures[len(asked) :], len(asked), part) if apart else query_of
    need = shots if apart else shots + 1
    labels = sorted(label for label in query_of if len(support_of.get(label, ())) >= need)
    if len(labels) < ways:
        raise DataError(f"{ways}-way questions need so many labels with {need} pictures; {name} has {len(labels)}")
    dice = np.random.default_rng([zlib.crc32((name + question).encode()), ways, shots, seed])
    episodes = tuple(_draw(dice, labels, ways, shots, support_of, query_of) for _ in range(count))
    return EpisodeList(name, ways, shots, seed, pictures, episodes, question)


def _draw(
    dice: np.random.Generator,
    labels: Sequence[str],
    ways: int,
    shots: int,
    support_of: dict[str, list[int]],
    query_of: dict[str, list[int]],
) -> Episode:
    chosen = [labels[int(index)] for index in dice.choice(len(labels), ways, replace=False)]
    answer = chosen[int(dice.integers(ways))]
    query = int(dice.choice(query_of[answer]))
    shown = {
        label: dice.choice([index for index in support_of[label] if index != query], shots, replace=False)
        for label in chosen
    }
    rounds = [int(shown[chosen[int(way)]][turn]) for turn in range(shots) for way in dice.permutation(ways)]
    return Episode(tuple(chosen), tuple(rounds), query, answer)


def _labelled(pictures: Sequence[Picture], answer: Callable[[Picture], str | None]) -> list[Picture]:
    answered = [replace(picture, label=answer(picture)) for picture in pictures]
    return [picture for picture in answered if picture.label is not None]


def _by_label(pictures: Sequence[Picture], start: int, part: tuple[int, int]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index, picture in enumerate(pictures, start=start):
        assert picture.label is not None
        found.setdefault(picture.label, []).append(index)
    return {label: indices[part[0] :: part[1]] for label, indices in found.items()}

"""Do the words of a picture tell what it shows: their mutual information with its label, beside labels dealt out anew.

    set --> labelled pictures --Spae--> words, layer by layer --metrics.information--> bits, null, p --> JSON, page

Pictures are of the test split, whose labels no word was taught with. A world has two labels, the colour and the shape
of its largest body, measured one after the other. Labels with fewer than FEW pictures count as one, "other": merging
labels can only take information away. Each layer is measured by itself, and the first word of the first layer, the
top, by plain counts besides. What is estimated and how: kinolex.metrics.information.

Source: the claim that words of SPAE (Yu et al. 2023, arXiv 2306.17842) can be read; the measure is ours.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kinolex.data.pictures import WORLDS, Picture, list_pictures, load_picture
from kinolex.errors import DataError
from kinolex.evaluation.describe import word_pictures
from kinolex.evaluation.episodes import SETS
from kinolex.evaluation.fewshot import words_of_pictures
from kinolex.evaluation.page import Html, bars, note, page, section, table, write_text
from kinolex.evaluation.protocol import Hashed, check_fields, heading, write_result
from kinolex.metrics.information import Ids, entropy_bits, of_symbols, of_words, permutations
from kinolex.tokenizers.spae import Spae, prefix_lengths
from kinolex.types import Clip
from kinolex.understanding import Described, describe

FEW = 5
"""Pictures of a label, at least, for it to stand alone."""
OTHER = "other"
STRONGEST = 8
"""Words of a layer that are named."""
SHOWN = 3
"""Pictures of a set on the page."""
SURE = 0.05
"""A word with a smaller p counts as telling."""

Progress = Callable[[int, int | None], None]
"""Called with layers measured and layers in all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WordsProtocol(Hashed):
    """Which pictures are looked at, and how often their labels are dealt out anew."""

    sets: tuple[str, ...] = SETS
    pictures: int = 500
    """Of each set at most, drawn from the test split by the seed."""
    permutations: int = 1000
    few: int = FEW
    seed: int = 0
    tokenizer: str = ""
    version: int = 1

    def __post_init__(self) -> None:
        needs = {
            "sets": (self.sets, f"folders of labelled pictures, or {WORLDS}"),
            "few": (self.few >= 1, "at least 1"),
            "pictures": (self.pictures >= 2 * self.few, f"at least {2 * self.few}"),
            "permutations": (self.permutations >= 1, "at least 1"),
            "seed": (self.seed >= 0, "at least 0"),
        }
        check_fields("information of words", self, needs)


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Pictures of a set, and one label of each: `names[labels_N[i]]`."""

    pictures: tuple[Picture, ...]
    names: tuple[str, ...]
    labels_N: Ids


def labelled_pictures(data: Path | None, name: str, protocol: WordsProtocol) -> dict[str, Labelled]:
    """The pictures of a set with what they are asked about: {NAME: ...}, of worlds {"worlds colour", "worlds shape"}.

    Raises:
        MissingFile, DataError: the set is not there, or does not have two labels to tell apart.
    """
    if data is None and name != WORLDS:
        raise DataError(f"pictures of {name} need the data folder; give --data")
    found = list_pictures(data or Path(), name, "test", worlds=2 * protocol.pictures)
    # Of a video the first frame: others show the same again, and permuting takes pictures to be independent.
    known = [picture for picture in found if picture.label is not None and picture.frame == 0]
    order = np.random.default_rng([zlib.crc32(name.encode()), protocol.seed]).permutation(len(known))
    chosen = tuple(known[index] for index in order[: protocol.pictures])
    told = [picture.label or "" for picture in chosen]
    if name == WORLDS:
        colours, shapes = zip(*(label.split() for label in told), strict=True)
        asked = {f"{name} colour": colours, f"{name} shape": shapes}
    else:
        asked = {name: tuple(told)}
    return {key: _labelled(key, chosen, labels, protocol.few) for key, labels in asked.items()}


def _labelled(name: str, pictures: tuple[Picture, ...], labels: Sequence[str], few: int) -> Labelled:
    counts = Counter(labels)
    merged = [label if counts[label] >= few else OTHER for label in labels]
    names = tuple(sorted(set(merged)))
    if len(names) < 2 or len(pictures) < 2 * few:
        raise DataError(
            f"{name} has {len(pictures)} labelled test pictures of {len(names)} labels; information needs "
            f"{2 * few} pictures of 2, where labels with fewer than {few} count as one: give more --pictures"
        )
    places = {label: place for place, label in enumerate(names)}
    return Labelled(pictures, names, np.array([places[label] for label in merged]))


def measure(
    ids_NL: Ids,
    lengths: Sequence[int],
    words: Sequence[str],
    asked: Labelled,
    protocol: WordsProtocol,
    on_layer: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Bits of the top word and of every layer.

    Args:
        ids_NL: ids of the words of every picture, layer after layer.
        lengths: words of the first 1, 2, ... layers.
        words: spelling of every id.
        on_layer: called with the number of layers measured, the top word among them.

    Returns:
        n, labels, label_entropy_bits, pictures_hash, and layers: rows of figures in bits with their words.
    """
    labels_N, count = asked.labels_N, len(asked.pictures)
    orders_RN = permutations(protocol.permutations, count, seed=protocol.seed)
    top = of_symbols(ids_NL[:, 0], labels_N, orders_RN)
    rows: list[dict[str, Any]] = [
        {"layer": "top word", "words": 1, "distinct_words": len(np.unique(ids_NL[:, 0]))} | asdict(top)
    ]
    for number, (start, end) in enumerate(pairwise((0, *lengths)), start=1):
        if on_layer:
            on_layer(number)
        present_NV = presence(ids_NL[:, start:end], len(words))
        found = of_words(present_NV, labels_N, orders_RN, seed=protocol.seed)
        strongest = np.lexsort((np.arange(len(words)), -found.bits_V))[:STRONGEST]
        rows.append(
            {"layer": number, "words": end - start, "distinct_words": int(present_NV.any(axis=0).sum())}
            | asdict(found.together)
            | {
                "telling_words": int((found.p_V < SURE).sum()),
                "strongest": [
                    {"word": words[place], "bits": float(found.bits_V[place]), "p": float(found.p_V[place])}
                    | _spoken_for(present_NV[:, place], asked)
                    for place in strongest
                    if found.bits_V[place] > 0
                ],
            }
        )
    if on_layer:
        on_layer(1 + len(lengths))
    told = [[picture.name, asked.names[label]] for picture, label in zip(asked.pictures, labels_N, strict=True)]
    return {
        "n": count,
        "labels": {name: int((labels_N == place).sum()) for place, name in enumerate(asked.names)},
        "label_entropy_bits": entropy_bits(labels_N),
        "pictures_hash": hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16],
        "layers": rows,
    }


def presence(ids_NL: Ids, vocabulary: int) -> NDArray[np.bool_]:
    """present_NV: which words are among those of each picture."""
    present_NV = np.zeros((len(ids_NL), vocabulary), dtype=bool)
    present_NV[np.arange(len(ids_NL))[:, None], ids_NL] = True
    return present_NV


def _spoken_for(present_N: NDArray[np.bool_], asked: Labelled) -> dict[str, Any]:
    """The label that a word, or its absence, tells most apart, and the share of its and other pictures that have it."""
    of_label_K = np.bincount(asked.labels_N, minlength=len(asked.names))
    with_K = np.bincount(asked.labels_N[present_N], minlength=len(asked.names))
    share_K, others_K = with_K / of_label_K, (with_K.sum() - with_K) / (of_label_K.sum() - of_label_K)
    apart_K = share_K - others_K
    label = int((abs(apart_K) + 1e-9 * apart_K).argmax())  # of two as far apart the one that has the word
    return {
        "pictures": int(with_K.sum()),
        "label": asked.names[label],
        "share_of_label": float(share_K[label]),
        "share_of_others": float(others_K[label]),
    }


def evaluate_words(
    spae: Spae,
    data: Path | None,
    protocol: WordsProtocol,
    out: Path,
    *,
    name: str = "words",
    command: str | None = None,
    on_layers: Progress | None = None,
) -> dict[str, Any]:
    """Measure all sets of a protocol; writes out/NAME.json and out/NAME.html and returns the result.

    Raises:
        MissingFile, DataError: a set is not there, or has too few labels. ShapeError: a tokenizer of clips.
    """
    asked = {set_name: labelled_pictures(data, set_name, protocol) for set_name in protocol.sets}
    depth, lengths = len(spae.config.layers), prefix_lengths(spae.config)
    total, done = sum(map(len, asked.values())) * (1 + depth), 0
    places = {word: place for place, word in enumerate(spae.config.words)}
    sets, shown = dict[str, Any](), dict[str, list[Described]]()
    for set_name, labellings in asked.items():
        pictures = next(iter(labellings.values())).pictures
        spelled = words_of_pictures(spae, pictures, depth)
        ids_NL = np.array([[places[word] for word in row] for row in spelled])
        shown[set_name] = [_described(picture, spae) for picture in pictures[:SHOWN]]
        for key, one in labellings.items():
            on_layer = None if on_layers is None else lambda k, done=done: on_layers(done + k, total)
            sets[key] = measure(ids_NL, lengths, spae.config.words, one, protocol, on_layer)
            done += 1 + depth
    result = heading(name, protocol, command) | {
        "sets": sets,
    }
    write_result(out / f"{name}.json", result)
    write_text(out / f"{name}.html", words_page(result, shown))
    return result


def _described(picture: Picture, spae: Spae) -> Described:
    frame_HWC = torch.from_numpy(load_picture(picture, spae.config.pixels[1]))
    return describe(Clip(frame_HWC.permute(2, 0, 1).unsqueeze(0).contiguous(), Fraction(1)), spae)[0]


def words_page(result: Mapping[str, Any], shown: Mapping[str, Sequence[Described]]) -> str:
    """Figures, bars and the strongest words of every set, and words over the regions of a few pictures."""
    explained = note(
        "Bits that words tell of a picture's label, at most the entropy of the labels. null: the same with labels "
        "permuted; p: the share of permutations that reach as much. top word: counted. layers: what a guess from all "
        "words of a layer, made by other pictures, tells; a lower bound. telling words: words that tell more alone "
        f"than any word does in 19 of 20 permutations (p below {SURE:g})."
    )
    sections = [section(name, *_set_parts(one)) for name, one in result["sets"].items()]
    for name, several in shown.items():
        sections.append(
            section(f"Words over pictures of {name}", *(part for one in several for part in word_pictures(one)))
        )
    return page(
        "What words tell of the pictures they stand for",
        [explained, *sections],
        lead=f"{result['command']} at {result['commit'][:12]}, {result['date']}; "
        f"{result['protocol']['permutations']} permutations; protocol {result['protocol_hash']}.",
    )


def _set_parts(one: Mapping[str, Any]) -> list[Html]:
    headers = ["layer", "words", "distinct", "bits", "null mean", "null 95 %", "bits over null", "p", "telling words"]
    keys = ("layer", "words", "distinct_words", "bits", "null_mean", "null_95")
    rows = [
        [*(row[key] for key in keys), row["bits"] - row["null_mean"], row["p"], row.get("telling_words")]
        for row in one["layers"]
    ]
    entropy = one["label_entropy_bits"]
    caption = f"{one['n']} pictures of {len(one['labels'])} labels, whose entropy is {entropy:.3f} bits"
    over = [max(0.0, row["bits"] - row["null_mean"]) for row in one["layers"]]
    strongest = [
        [row["layer"], word["word"], word["bits"], word["p"], word["label"]]
        + [f"{100 * word[key]:.0f} %" for key in ("share_of_label", "share_of_others")]
        for row in one["layers"]
        for word in row.get("strongest", ())
    ]
    told = ["layer", "word", "bits alone", "p", "label", "of its pictures", "of others"]
    return [
        table(headers, rows, caption=caption),
        bars(
            over,
            caption="Bits over the mean of the null; the upper edge is the entropy of the labels",
            x_label="top word, then the layers from the top",
            top=entropy,
        ),
        table(told, strongest, caption="Words that tell most alone, and the share of pictures that have them"),
    ]

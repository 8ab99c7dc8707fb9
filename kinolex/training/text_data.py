"""Text for a small language model: English, and patterns of random words in context. No picture is looked at.

    tinyshakespeare (train part), captions of worlds (scenes are drawn as numbers, not rendered), lists of labels
    patterns: "Input: < random words >  Output: random label", with a question between them or not, pairs of sequences,
    and rows of words under a label, in the layout of tasks.prompts; random words said again and again, where every word
    teaches to look back

A tiny model learns to use examples in context only where text is full of them, so a large share of this text is made
of such patterns. Their words and labels are drawn at random from the vocabulary, anew for every document: nothing in
them speaks of any picture, and no token of a picture occurs in them. A batch is a function of (seed, step).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kinolex.data.imagenet_groups import GROUP_OF, GROUPS
from kinolex.data.worlds.labels import CLASSES
from kinolex.data.worlds.scene import NUMBERS, WorldConfig, describe, draw_scene
from kinolex.errors import DataError
from kinolex.models.frozen_lm import FrozenLM, require_transformers
from kinolex.tasks import prompts

FIRST_SEED = 30_000_000
"""Of the scenes whose captions are read."""
CAPTIONS = 4000
TRAIN_PART = 0.9
"""Of tinyshakespeare; the rest is never read here."""
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
END = "<|end|>"
"""Between documents."""
SHARES = {
    "play": 0.1,
    "captions": 0.06,
    "labels": 0.06,
    "classes": 0.52,
    "sequences": 0.14,
    "repeats": 0.06,
    "told": 0.06,
}
"""Of documents by kind."""
PAIRING_SHARES = {**SHARES, "classes": 0.15, "sequences": 0.05, "pairs": 0.25, "few": 0.35}
"""While the model does not find the label of words that it saw before: few words and many answers."""
QUESTION_SHARES = {
    **SHARES,
    **{"classes": 0.4, "sequences": 0.04, "pairs": 0.03, "few": 0.2},
    **{"questions": 0.25, "written": 0.15, "changed": 0.12},
}
"""While the model does not look past a question for the label of words that it saw before, nor writes long answers."""
REPEATING_SHARES = {**SHARES, "classes": 0.35, "sequences": 0.1, "repeats": 0.3}
"""While the model does not look back yet. In 1200 steps with few repeats it did not begin to, in 300 with these it
did: share of answers that are right from 0.11 to 0.92."""

QUESTIONS = ("what is it?", "what does it show?", "which one is it?", "which kind is it?", "is it one of them?")
BLOCK_IDS, MOST_QUERIES = 12, 24
"""Ids of a shown example besides its words; examples that a document asks about."""

SHOWN, PROSE, ANSWER = 0, 1, 2
"""Text that is only shown, as random words that nobody could predict; text to predict; answers in patterns."""

Piece = tuple[str, int]
"""Text, and which of the three it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Sources:
    play: str
    captions: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]
    """(name, the everyday word for it, or the name again)."""

    @property
    def text(self) -> list[str]:
        """All of it, for the vocabulary; labels count more than once, since each stands in a list once."""
        sentences = [f"a photo of a {name}, a {group}." for name, group in self.labels]
        return [self.play, *self.captions[:1000], *(sentences * 8)]


def read_sources(data: Path) -> Sources:
    """Text below a data folder (docs/data.md).

    Raises:
        DataError: the play or the class names are missing.
    """
    play, names = data / "text" / "tinyshakespeare.txt", data / "perceptual" / "imagenet_labels.json"
    for path in (play, names):
        if not path.is_file():
            raise DataError(f"text training needs {path}; docs/data.md says where it comes from")
    whole = play.read_text(encoding="utf-8")
    classes = [str(name).split(" (")[0] for name in json.loads(names.read_text(encoding="utf-8"))]
    labels = [(name, GROUP_OF.get(number, name)) for number, name in enumerate(classes)]
    labels += [(name, name) for name in CIFAR10] + [(number, "digit") for number in ("zero", *NUMBERS[1:10])]
    labels += [(value, name) for name, values in CLASSES.items() for value in values]
    told: list[str] = []
    for name in ("clips", "sequences"):
        table = data / name / "index.csv"
        if table.is_file():
            with table.open(encoding="utf-8", newline="") as file:
                told += [row["caption"] for row in csv.DictReader(file) if row.get("split") == "train"]
    config = WorldConfig()
    drawn = [describe(draw_scene(FIRST_SEED + n, config), config.duration_s) for n in range(CAPTIONS)]
    return Sources(whole[: int(TRAIN_PART * len(whole))], (*(told * 6), *drawn), tuple(labels))


def train_tokenizer(sources: Sources, vocab_size: int) -> Any:
    """A byte-level vocabulary whose commonest words are one id each, with the space before them."""
    transformers = require_transformers()
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    layout = prompts.classification([prompts.Example(("a",), "b")], ("a",), labels=("a", "b")) + prompts.GENERATE
    tokenizer.train_from_iterator([*sources.text, *[layout] * 1000], trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)


class TextSet:
    """Documents as ids. `lm` lends its tokenizer only."""

    def __init__(self, sources: Sources, lm: FrozenLM) -> None:
        self.sources, self.lm = sources, lm
        self.words = [lm.decode([index])[1:] for index in lm.word_ids()]
        self.play_L = np.array(lm.encode(sources.play), dtype=np.int64)
        (self.end,) = lm.encode(END)

    def batch(
        self, seed: int, step: int, rows: int, length: int, shares: Mapping[str, float] = SHARES
    ) -> tuple[Tensor, Tensor]:
        """The batch of a step.

        Args:
            shares: of documents by kind.

        Returns:
            ids_BL int64 of length + 1 ids a row, and parts_BL int64: SHOWN, PROSE or ANSWER for each.
        """
        dice = np.random.default_rng([seed, step])
        ids_BL = torch.empty((rows, length + 1), dtype=torch.int64)
        parts_BL = torch.empty_like(ids_BL)
        for row in range(rows):
            ids: list[int] = []
            parts: list[int] = []
            while len(ids) <= length:
                more, which = self.document(dice, length, shares)
                ids += more
                parts += which
            ids_BL[row] = torch.tensor(ids[: length + 1])
            parts_BL[row] = torch.tensor(parts[: length + 1])
        return ids_BL, parts_BL

    def document(
        self, dice: np.random.Generator, length: int, shares: Mapping[str, float] = SHARES
    ) -> tuple[list[int], list[int]]:
        """One document of any kind, closed by the end mark."""
        kind = str(dice.choice(list(shares), p=np.array(list(shares.values())) / sum(shares.values())))
        if kind == "play":
            size = int(dice.integers(length // 4, length))
            start = int(dice.integers(0, len(self.play_L) - size))
            return [*self.play_L[start : start + size].tolist(), self.end], [PROSE] * (size + 1)
        pieces = getattr(self, f"_{kind}")(dice)
        ids: list[int] = []
        parts: list[int] = []
        for text, part in pieces:
            more = self.lm.encode(text)
            ids += more
            parts += [part] * len(more)
        return [*ids, self.end], [*parts, PROSE]

    def _captions(self, dice: np.random.Generator) -> list[Piece]:
        chosen = dice.integers(0, len(self.sources.captions), int(dice.integers(2, 9)))
        return [("\n".join(self.sources.captions[int(index)] for index in chosen), PROSE)]

    def _labels(self, dice: np.random.Generator) -> list[Piece]:
        lines = []
        for index in dice.integers(0, len(self.sources.labels), int(dice.integers(3, 10))):
            name, group = self.sources.labels[int(index)]
            if name in GROUPS or name == group:
                lines.append(f"a photo of a {name}.")
            else:
                lines.append([f"a photo of a {name}, a {group}.", f"a {name} is a {group}."][int(dice.integers(2))])
        return [("\n".join(lines), PROSE)]

    def _classes(self, dice: np.random.Generator) -> list[Piece]:
        """Random bags of words, each with a random label; queries resemble one of the bags each.

        As many as fit into a row: each answer costs a whole block of words that teach nothing.
        """
        ways, shots = int(dice.integers(2, 7)), int(dice.choice([1, 1, 1, 2, 3]))
        size = int(np.exp(dice.uniform(0, np.log(min(24, 90 // (ways * shots) + 2)))))
        return self._asked_again(dice, ways, shots, size, float(dice.uniform(0.35, 1.0)))

    def _few(self, dice: np.random.Generator) -> list[Piece]:
        """Bags of one to three words that come back nearly whole."""
        size = int(dice.choice([1, 1, 2, 3]))
        return self._asked_again(dice, int(dice.integers(2, 6)), 1, size, float(dice.uniform(0.8, 1.0)))

    def _questions(self, dice: np.random.Generator) -> list[Piece]:
        """As _few, with a question between words and answer, the same in all of a document, or with answers that begin
        alike as captions do; several bags may have one answer."""
        size, ways = int(dice.choice([1, 1, 2, 3])), int(dice.integers(2, 6))
        question, opening = "", ""
        if dice.random() < 0.7:
            random = " ".join(self._random_words(dice, int(dice.integers(2, 6)))) + "?"
            question = random if dice.random() < 0.6 else str(dice.choice(QUESTIONS))
        if not question or dice.random() < 0.2:
            opening = "".join(f" {word}" for word in self._random_words(dice, int(dice.integers(1, 3))))
        answers = self._random_labels(dice, ways if dice.random() < 0.6 else 2)
        labels = [answers[way % len(answers)] for way in range(ways)]
        alike = float(dice.uniform(0.8, 1.0))
        return self._asked_again(dice, ways, 1, size, alike, labels=labels, question=question, opening=opening)

    def _asked_again(
        self,
        dice: np.random.Generator,
        ways: int,
        shots: int,
        size: int,
        alike: float,
        *,
        labels: Sequence[str] = (),
        question: str = "",
        opening: str = "",
    ) -> list[Piece]:
        """Bags of random words, each shown so many times with its label, and then asked about.

        Args:
            alike: share of a bag's words that come back.
            labels: of the bags; random ones if not given.
            question: asked of each bag.
            opening: before each label, with a space before it.
        """
        bags = [self._random_words(dice, size) for _ in range(ways)]
        labels = labels or self._random_labels(dice, ways)
        moved = bool(dice.random() < 0.5)
        rounds = [int(index) for _ in range(shots) for index in dice.permutation(ways)]
        block = size + BLOCK_IDS + len((question + opening).split())
        fit = max(2, min(MOST_QUERIES, 300 // block - len(rounds)))
        asked = [*rounds, *(int(index) for index in dice.integers(0, ways, int(dice.integers(2, fit + 1))))]
        named = bool(dice.random() < 0.6)
        pieces: list[Piece] = [(prompts.induction(list(dict.fromkeys(labels))), SHOWN)] if named else []
        for number, way in enumerate(asked):
            words = self._like(dice, bags[way], alike, moved)
            pieces.append((prompts.BREAK + prompts.asked(words, question), SHOWN))
            pieces += [(opening, ANSWER if number else SHOWN)] if opening else []
            # A label that was not shown yet cannot be known.
            pieces += [(f" {labels[way]}", ANSWER if number >= ways else SHOWN), ("\n", PROSE)]
        return pieces

    def _pairs(self, dice: np.random.Generator) -> list[Piece]:
        """Single words, each with a label a few ids after it, over and over: hardly an id that is no answer."""
        ways, gap = int(dice.integers(2, 13)), self._random_words(dice, int(dice.integers(0, 4)))
        words = [self.words[int(index)] for index in dice.choice(len(self.words), ways, replace=False)]
        labels = self._random_labels(dice, ways)
        between, pieces, seen = "".join(f" {word}" for word in gap), list[Piece](), set[int]()
        for way in dice.integers(0, ways, 150 // (3 + len(gap))):
            pieces += [(f" {words[way]}{between}", SHOWN), (f" {labels[way]}", ANSWER if way in seen else SHOWN)]
            pieces.append(("\n", SHOWN))
            seen.add(int(way))
        return pieces

    def _sequences(self, dice: np.random.Generator) -> list[Piece]:
        """Random words and what a rule makes of them; the rule is one of the document's, never named."""
        rule, size = str(dice.choice(["copy", "copy", "turn", "shift", "mend"])), int(dice.integers(2, 9))
        pieces: list[Piece] = [(prompts.GENERATE, SHOWN)]
        for number in range(int(dice.integers(3, 7))):
            after = self._random_words(dice, size)
            before = list(after)
            if rule == "turn":
                before.reverse()
            elif rule == "shift":
                before = before[1:] + before[:1]
            elif rule == "mend":
                before[int(dice.integers(size))] = self._random_words(dice, 1)[0]
            pieces.append((prompts.BREAK + prompts.asked(before), SHOWN))
            pieces.append((f" <{prompts.spelled(after)} >\n", ANSWER if number else SHOWN))
        return pieces

    def _written(self, dice: np.random.Generator) -> list[Piece]:
        """Labels, each shown once with a row of words, and then asked for: the row is written again."""
        ways, size = int(dice.integers(2, 6)), self._row_size(dice)
        labels, rows = self._random_labels(dice, ways), [self._random_words(dice, size) for _ in range(ways)]
        again = max(1, 300 // (size + BLOCK_IDS) - ways)
        asked = [*dice.permutation(ways), *dice.integers(0, ways, min(again, MOST_QUERIES))]
        pieces: list[Piece] = [(prompts.GENERATE, SHOWN)]
        for number, way in enumerate(int(index) for index in asked):
            pieces.append((f"{prompts.BREAK}Input: {labels[way]}\nOutput: <", SHOWN))
            pieces.append((f"{prompts.spelled(rows[way])} >\n", ANSWER if number >= ways else SHOWN))
        return pieces

    def _changed(self, dice: np.random.Generator) -> list[Piece]:
        """As _sequences, of long rows, some words of which are others before or after."""
        size, kept = self._row_size(dice), float(dice.choice([1.0, 0.9, 0.7, 0.5]))
        pieces: list[Piece] = [(prompts.GENERATE, SHOWN)]
        for number in range(max(2, 300 // (2 * size + BLOCK_IDS))):
            after = self._random_words(dice, size)
            before = [word if dice.random() < kept else self._random_words(dice, 1)[0] for word in after]
            pieces.append((prompts.BREAK + prompts.asked(before) + " <", SHOWN))
            pieces.append((f"{prompts.spelled(after)} >\n", ANSWER if number else SHOWN))
        return pieces

    @staticmethod
    def _row_size(dice: np.random.Generator) -> int:
        """Words of a row: those of the first layers of a pyramid more often than others."""
        return int(dice.choice([1, 5, 21, 21])) if dice.random() < 0.5 else int(dice.integers(1, 25))

    def _repeats(self, dice: np.random.Generator) -> list[Piece]:
        """A few random words, said again and again: nearly every word can be known from what followed it before."""
        number = int(np.exp(dice.uniform(np.log(3), np.log(80))))
        said = "".join(f" {word}" for word in self._random_words(dice, number))
        return [(said, SHOWN), (said * max(1, 200 // number - 1), ANSWER)]

    def _told(self, dice: np.random.Generator) -> list[Piece]:
        """Words of a caption, shuffled among random ones; the answer is the caption."""
        pieces: list[Piece] = []
        for _ in range(int(dice.integers(3, 6))):
            caption = self.sources.captions[int(dice.integers(len(self.sources.captions)))]
            words = [*caption.replace(",", "").split(), *self._random_words(dice, int(dice.integers(0, 6)))]
            shuffled = [words[int(index)] for index in dice.permutation(len(words))]
            pieces += [(prompts.BREAK + prompts.asked(shuffled), SHOWN), (f" {caption}\n", PROSE)]
        return pieces

    def _random_words(self, dice: np.random.Generator, number: int) -> list[str]:
        return [self.words[int(index)] for index in dice.integers(0, len(self.words), number)]

    def _random_labels(self, dice: np.random.Generator, number: int) -> list[str]:
        """Different ones: random words, or names out of the lists."""
        if dice.random() < 0.5:
            return [self.words[int(index)] for index in dice.choice(len(self.words), number, replace=False)]
        chosen: list[str] = []
        while len(chosen) < number:
            name, group = self.sources.labels[int(dice.integers(len(self.sources.labels)))]
            label = group if dice.random() < 0.5 else name
            if label not in chosen:
                chosen.append(label)
        return chosen

    def _like(self, dice: np.random.Generator, bag: Sequence[str], alike: float, moved: bool) -> list[str]:
        words = [word if dice.random() < alike else self._random_words(dice, 1)[0] for word in bag]
        return [words[int(index)] for index in dice.permutation(len(words))] if moved else words

"""Text goes into ids and comes out again; what is not understood is refused."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinolex.errors import CheckpointError, MissingExtra, ShapeError, UsageError
from kinolex.tasks.multimodal import TASKS, Material, compose, outcome
from kinolex.tasks.text import BytePairs, TextTokens, WordList, embedded
from kinolex.vocab import Vocabulary

CAPTIONS = [
    f"a {size} {colour} {shape} {action} on {floor}"
    for size in ("small", "large")
    for colour in ("red", "blue", "green")
    for shape in ("circle", "square", "star")
    for action in ("falls", "bounces", "slides")
    for floor in ("wood", "stone")
]
WORDS = ("small", "large", "red", "blue", "green", "circle", "square", "star", "falls", "bounces", "slides", "wood")
PAIRS = BytePairs.train(CAPTIONS, 320)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.text())
def test_any_text_survives_byte_pairs(text: str) -> None:
    ids_P = PAIRS.encode(text)
    assert PAIRS.decode(ids_P) == text
    assert ids_P.dtype == torch.int64 and (not len(ids_P) or 0 <= int(ids_P.min()) <= int(ids_P.max()) < PAIRS.size)


def test_frequent_words_become_single_pieces() -> None:
    assert 256 < PAIRS.size <= 320
    for caption in CAPTIONS:
        assert len(PAIRS.encode(caption)) <= 12 < len(caption)


def test_the_same_texts_give_the_same_vocabulary_and_json_restores_it() -> None:
    again = BytePairs.train(CAPTIONS, 320)
    assert again.to_json() == PAIRS.to_json()
    assert torch.equal(BytePairs(PAIRS.to_json()).encode("a red star"), PAIRS.encode("a red star"))


def test_a_closed_list_keeps_the_words_it_knows() -> None:
    words = WordList(WORDS)
    assert words.decode(words.encode("A small red circle falls on wood")) == "small red circle falls wood"
    with pytest.raises(UsageError, match="no word that the model reads"):
        words.encode("a")
    with pytest.raises(UsageError, match="ostrich"):
        words.encode("a red ostrich")


@pytest.mark.parametrize("tokens", [PAIRS, WordList(WORDS)], ids=["pairs", "words"])
def test_texts_pass_through_sequences(tokens: TextTokens) -> None:
    vocabulary = Vocabulary(text_size=tokens.size, video_size=4, sound_codes=4, sound_levels=1)
    said = "small red circle falls"
    material = Material(text_P=tokens.encode(said), video_thw=torch.zeros(1, 2, 2, dtype=torch.long))
    sequence = compose(TASKS["describe"], material, vocabulary, text_length=16)
    read_P = outcome(sequence.layout, sequence.ids_L, vocabulary).text_P
    assert read_P is not None and tokens.decode(read_P) == said


def test_embeddings_are_padded_to_their_places() -> None:
    def encoder(text: str) -> torch.Tensor:
        return torch.tensor([[float(len(word)), 1.0] for word in text.split()])

    assert embedded("a red ball", encoder, 4, 2).tolist() == [[1, 1], [3, 1], [4, 1], [0, 0]]
    with pytest.raises(UsageError, match="2 places"):
        embedded("a red ball", encoder, 2, 2)
    with pytest.raises(ShapeError, match="3"):
        embedded("a red ball", encoder, 4, 3)


@pytest.mark.parametrize("rules", ["", "{}", '{"model": {"type": "WordLevel"}}', PAIRS.to_json()[:-40]])
def test_foreign_rules_are_refused(rules: str) -> None:
    with pytest.raises(CheckpointError):
        BytePairs(rules)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: PAIRS.decode(torch.tensor([PAIRS.size])), r"0\.\."),
        (lambda: WordList(WORDS).decode(torch.tensor([-1])), r"0\.\."),
        (lambda: BytePairs.train(CAPTIONS, 255), "256"),
    ],
)
def test_impossible_ids_and_sizes_are_refused(call: Callable[[], object], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        call()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"kinolex\[lm\]"):
        BytePairs.train(CAPTIONS, 300)

"""Captions and classes as ids, and what a model does not know."""

from __future__ import annotations

import pytest

from kinolex.errors import UsageError
from kinolex.tasks.words import word_ids

WORDS = ("small", "red", "circle", "falls", "wood")


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", [0, 0, 0, 0, 0, 0]),
        ("red", [2, 0, 0, 0, 0, 0]),
        ("a small red circle falls on wood", [1, 2, 3, 4, 5, 0]),
        ("A Small, RED circle. Falls, on the wood.", [1, 2, 3, 4, 5, 0]),
        ("red red red", [2, 2, 2, 0, 0, 0]),
        ("Red! Circle? falls; wood:", [2, 3, 4, 5, 0, 0]),
        ("a red: ball!", [2, 3, 0, 0, 0, 0]),
    ],
)
def test_a_caption_becomes_the_ids_of_its_words_in_order(text: str, ids: list[int]) -> None:
    assert word_ids(text, WORDS, 6).tolist() == ids


@pytest.mark.parametrize("text", [" ", "...,,,", "a a a", "?!"])
def test_a_text_without_a_word_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError, match="holds no word that the model reads; say what to make in words such as small"):
        word_ids(text, WORDS, 6)


def test_a_synonym_means_what_the_model_knows_and_stands_in_its_list() -> None:
    assert word_ids("a red disc", WORDS, 2).tolist() == [2, 3]
    assert word_ids("ball", ("ball", "circle"), 1).tolist() == [1]
    with pytest.raises(UsageError, match=r"does not know 'cube'; .* wood; by another name ball \(circle\), disc"):
        word_ids("a red cube", WORDS, 6)


def test_a_class_is_one_word_whatever_its_name() -> None:
    classes = ("ApplyEyeMakeup", "playing guitar", "above", "wave1")
    names = ("applyeyemakeup", "ApplyEyeMakeup", "playing  Guitar", "above", "wave1")
    assert [word_ids(name, classes, 1).tolist() for name in names] == [[1], [1], [2], [3], [4]]


def test_an_unknown_word_brings_the_list_of_those_that_are_known() -> None:
    with pytest.raises(
        UsageError, match="does not know 'cube', 'green'; its words are small, red, circle, falls, wood"
    ):
        word_ids("a green cube falls", WORDS, 6)
    with pytest.raises(UsageError, match="trained without classes"):
        word_ids("red", (), 1)


def test_more_words_than_a_model_reads_are_refused() -> None:
    assert word_ids("a small red", WORDS, 2).tolist() == [1, 2]
    with pytest.raises(UsageError, match="reads 2 words at most, got 3: small red circle"):
        word_ids("a small red circle", WORDS, 2)

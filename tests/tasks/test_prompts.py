"""Prompts are the bytes of the golden files, and end where an answer begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from kinolex.errors import UsageError
from kinolex.tasks import prompts
from kinolex.tasks.prompts import Example

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "prompts"
DOG, BIRD = ("fur", "ear", "grass"), ("wing", "sky", "blue")
SHOTS = [Example(DOG, "dog"), Example(BIRD, "bird")]
DIGITS = [("a picture of one", ("thin", "line")), ("a picture of zero", ("round", "ring"))]


def made() -> dict[str, str]:
    what = "what is it?"
    asked = [Example(DOG, "a dog", what), Example(BIRD, "blue", "which colour is the sky?")]
    told = [Example(DOG, "a dog on grass"), Example(BIRD, "a bird in the sky")]
    return {
        "two_way_induction": prompts.classification(SHOTS, ("tail", "fur", "leaf"), labels=("dog", "bird")),
        "two_way_plain": prompts.classification(SHOTS, ("tail", "fur", "leaf")),
        "two_way_repeated": prompts.classification(SHOTS, ("tail",), labels=("dog", "bird"), repeats=1),
        "captioning": prompts.captioning(told, ("tail", "fur")),
        "answering": prompts.answering(asked, ("tail", "fur"), "is it a bird?"),
        "generation_begins": prompts.generation(DIGITS, "a picture of 1 + 0"),
        "generation_goes_on": prompts.generation(DIGITS, "a picture of 1 + 0", ("thin",)),
        "transformation": prompts.transformation([(DOG, DOG[::-1]), (BIRD, BIRD[::-1])], ("a", "b", "c"), ("c",)),
    }


@pytest.mark.parametrize("name", made())
def test_a_prompt_is_its_golden_file(name: str) -> None:
    assert made()[name].encode() == (GOLDEN / f"{name}.txt").read_bytes()


def test_every_golden_file_is_a_prompt() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(made())


def test_no_prompt_ends_in_a_space_that_belongs_to_the_answer() -> None:
    assert not any(text[-1].isspace() for text in made().values())


def test_a_prompt_that_goes_on_begins_with_the_one_it_goes_on_from() -> None:
    begun, further = made()["generation_begins"], made()["generation_goes_on"]
    assert further == begun + " thin"


def test_repeats_show_every_example_again() -> None:
    for repeats in range(4):
        text = prompts.classification(SHOTS, ("tail",), repeats=repeats)
        assert text.count("Output: dog\n") == text.count("Output: bird\n") == 1 + repeats


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(UsageError, match="needs examples"):
        prompts.classification([], DOG)
    with pytest.raises(UsageError, match="needs examples"):
        prompts.classification(SHOTS, DOG, repeats=-1)
    with pytest.raises(UsageError, match="needs a question"):
        prompts.answering(SHOTS, DOG, "what?")
    for word in ("", "two words", ">", "a\n"):
        with pytest.raises(UsageError, match="cannot stand for"):
            prompts.spelled([word])
    with pytest.raises(UsageError, match="at least one example"):
        prompts.generation([], "one")

"""What a language model is shown when pictures are words: examples in context, then a question. Text in, text out.

    For each of the following input output pairs, output is one of ['dog' or 'bird']      induction
    ###
    Input: < words of a picture >                                                          examples: inner shots, each
    Output: dog                                                                            shown 1 + repeats times
    ###
    Input: < words of the query >
    Output:                                                                                the model goes on from here

Every prompt ends where the answer begins, without the space that belongs to the answer's first word.

Source: Yu et al. 2023, SPAE, arXiv 2306.17842; the layout is the one of the released script of Zhu et al. 2024,
arXiv 2403.07874 (V2L), which follows the same protocol; papers.md section 5.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kinolex.errors import UsageError

INDUCTION = "For each of the following input output pairs, output is one of "
BREAK = "###\n"
OPEN, CLOSE = "Input: <", " >\nOutput:"
GENERATE = "Learn a new language and write the picture that the input asks for.\n"
"""Introduces prompts whose answers are words of a picture."""

Words = Sequence[str]
"""Words of one picture, upper layers first, without spaces."""


@dataclass(frozen=True, slots=True)
class Example:
    """One pair that the model is shown."""

    words: tuple[str, ...]
    """Of the picture, upper layers first."""
    answer: str
    question: str = ""
    """About the picture; only asked in answering."""


def classification(
    examples: Sequence[Example], query: Words, *, labels: Words = (), repeats: int = 0, query_question: str = ""
) -> str:
    """Which label belongs to the last picture?

    Args:
        examples: in the order they are shown; inner shots are several of one label.
        query: words of the picture that is asked about.
        labels: named beforehand (induction); none leaves the line out.
        repeats: times that the examples are shown again, in the same order.

    Raises:
        UsageError: no examples, repeats below 0, or words that are not words.
    """
    if not examples or repeats < 0:
        raise UsageError(f"a prompt needs examples and repeats of 0 or more, got {len(examples)} and {repeats}")
    parts = [induction(labels)] if labels else []
    for example in [*examples] * (1 + repeats):
        parts.append(BREAK + asked(example.words, example.question) + f" {example.answer}\n")
    return "".join(parts) + BREAK + asked(query, query_question)


def induction(labels: Words) -> str:
    """The line that names the possible answers."""
    return INDUCTION + "[" + " or ".join(f"'{label}'" for label in labels) + "]\n"


def captioning(examples: Sequence[Example], query: Words) -> str:
    """What does the last picture show? As classification without labels; answers are sentences."""
    return classification(examples, query)


def answering(examples: Sequence[Example], query: Words, question: str) -> str:
    """The answer to a question about the last picture; every example has its own question.

    Raises:
        UsageError: as classification, or a question is missing.
    """
    if not question or not all(example.question for example in examples):
        raise UsageError("every picture needs a question; use captioning where nothing is asked")
    return classification(examples, query, query_question=question)


def generation(pairs: Sequence[tuple[str, Words]], wanted: str, written: Words = ()) -> str:
    """The words of a picture that a text asks for.

    Args:
        pairs: (text, words of its picture) shown as examples.
        wanted: the text of the picture to write.
        written: the words that are settled already; the answer goes on after them.

    Raises:
        UsageError: no pairs, or words that are not words.
    """
    shown = [f"{BREAK}Input: {text}\nOutput: <{spelled(words)} >\n" for text, words in pairs]
    if not shown:
        raise UsageError("a prompt needs at least one example")
    return GENERATE + "".join(shown) + f"{BREAK}Input: {wanted}\nOutput: <{spelled(written)}"


def transformation(pairs: Sequence[tuple[Words, Words]], query: Words, written: Words = ()) -> str:
    """The words of a picture that is made from another as in the examples.

    Args:
        pairs: (words before, words after) shown as examples.
        query: the words before.
        written: the words after that are settled already.

    Raises:
        UsageError: no pairs, or words that are not words.
    """
    shown = [f"{BREAK}{asked(before)} <{spelled(after)} >\n" for before, after in pairs]
    if not shown:
        raise UsageError("a prompt needs at least one example")
    return GENERATE + "".join(shown) + f"{BREAK}{asked(query)} <{spelled(written)}"


def asked(words: Words, question: str = "") -> str:
    """One picture, up to where its answer begins."""
    return OPEN + spelled(words) + (f" >\nQuestion: {question}\nOutput:" if question else CLOSE)


def spelled(words: Words) -> str:
    """Each word with the space before it. Raises UsageError for what would not come back from the text."""
    for word in words:
        if not word or any(letter.isspace() for letter in word) or word in ("<", ">"):
            raise UsageError(f"{word!r} cannot stand for a part of a picture: words have letters and no spaces")
    return "".join(f" {word}" for word in words)

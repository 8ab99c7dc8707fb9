"""Questions put to a frozen language model that reads pictures as words, and the verb `ask`.

pictures shown with answers, a picture -> words -> prompt -> FrozenLM -> what it writes, what it finds likeliest
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from kinolex import hub
from kinolex.errors import UsageError
from kinolex.models.frozen_lm import FrozenLM
from kinolex.tasks import prompts
from kinolex.tasks.prompts import Example
from kinolex.tokenizers.spae import Spae
from kinolex.types import Clip
from kinolex.understanding.words import DEFAULT, describe

READER = "text-nano"
ROWS = 16
"""Prompts that the language model reads at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a language model says of a picture."""

    answer: str
    """As written."""
    among: dict[str, float]
    """Probability of each answer that was shown, among these; the likeliest first."""
    prompt: str


def ask(
    source: str | Path | Clip,
    shown: Sequence[tuple[str | Path | Clip, str]],
    *,
    question: str = "",
    model: str | Path | Spae = DEFAULT,
    language_model: str | Path | FrozenLM = READER,
    layers: int = 1,
    repeats: int = 0,
) -> Answered:
    """What is said of a picture, after some that are shown with an answer.

    Args:
        source: a file or clip; of a video the middle frame is looked at.
        shown: (file or clip, answer) each; the answers are labels, captions, or answers to the question.
        question: asked of every picture; empty: what it shows.
        model: a word tokenizer: shipped name, folder, hub repository, or one that is loaded.
        language_model: that reads the words: shipped name, folder, hub repository, or one that is loaded.
        layers: of the pyramid, from the top, whose words are read.
        repeats: times that the examples are shown again.

    Raises:
        UsageError: nothing shown, an answer that is empty or more than a line, more layers than there are, or a prompt
            that is longer than the model reads.
        UnknownModel: no such model. KinolexError: of the media layer.
    """
    spae = model if isinstance(model, Spae) else hub.load_spae(model)[0]
    check_layers(spae, layers)
    for picture, said in shown:
        if not said.strip() or "\n" in said:
            raise UsageError(f"{picture} is shown with the answer {said!r}; give one line with a word or more")
    lm = language_model if isinstance(language_model, FrozenLM) else hub.load_lm(language_model)
    examples = [Example(_words(picture, spae, layers), said.strip(), question) for picture, said in shown]
    prompt = prompts.classification(examples, _words(source, spae, layers), repeats=repeats, query_question=question)
    labels = list(dict.fromkeys(example.answer for example in examples))
    ((written, scores),) = weighed_answers(lm, [(prompt, labels)])
    ranked = sorted(zip(labels, scores.double().softmax(dim=0).tolist(), strict=True), key=lambda pair: -pair[1])
    return Answered(answer=written, among=dict(ranked), prompt=prompt)


def answers(
    lm: FrozenLM, questions: Sequence[tuple[str, Sequence[str]]], on_answer: Callable[[int], None] | None = None
) -> list[tuple[str, str]]:
    """What a language model answers.

    Args:
        questions: (prompt, labels) each.

    Returns:
        For each (what it writes up to the end of the line, the label it finds likeliest).
    """
    weighed = weighed_answers(lm, questions, on_answer)
    return [
        (written, labels[int(scores.argmax())])
        for (written, scores), (_, labels) in zip(weighed, questions, strict=True)
    ]


def weighed_answers(
    lm: FrozenLM, questions: Sequence[tuple[str, Sequence[str]]], on_answer: Callable[[int], None] | None = None
) -> list[tuple[str, Tensor]]:
    """As answers, with the log probability of every label instead of the likeliest."""
    end = lm.encode("\n")
    room = 2 + max((len(lm.encode(f" {label}")) for _, labels in questions for label in labels), default=0)
    found: list[tuple[str, Tensor]] = []
    for at in range(0, len(questions), ROWS):
        some = questions[at : at + ROWS]
        prefix = lm.read([lm.encode(prompt) for prompt, _ in some])
        written = lm.generate(prefix, room, stop=set(end))
        weighed = lm.score(prefix, [[lm.encode(f" {label}") + end for label in labels] for _, labels in some])
        found += [(lm.decode(ids).strip(), scores) for ids, scores in zip(written, weighed, strict=True)]
        if on_answer:
            on_answer(len(found))
    return found


def check_layers(spae: Spae, layers: int) -> None:
    """Raises UsageError where the tokenizer has no such number of layers."""
    there = len(spae.config.layers)
    if not 1 <= layers <= there:
        raise UsageError(f"this tokenizer has {there} layers, not {layers}; ask for 1 to {there} of them")


def _words(source: str | Path | Clip, spae: Spae, layers: int) -> tuple[str, ...]:
    (described,) = describe(source, spae, pictures=1)
    return tuple(str(word) for layer in described.layers[:layers] for word in layer.ravel())

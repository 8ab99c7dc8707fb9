"""Pictures written by a language model that never saw one: layer by layer, each layer after those above it.

    examples (text or words -> words of a picture), what is wanted
      first layers     one prompt a layer; ids follow one another, among the codebook's words only
      deeper layers    chunks of a layer side by side; a chunk's prompt shows the words that it depends on

A prompt for a layer shows the examples down to that layer and the words written so far, so it is never longer than its
layer needs.

Source: progressive in-context decoding of SPAE, Yu et al. 2023, arXiv 2306.17842; papers.md section 5.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kinolex.errors import TokenError, UsageError
from kinolex.models.frozen_lm import Choose, FrozenLM
from kinolex.tasks import prompts
from kinolex.tasks.prompts import Words
from kinolex.tokenizers.spae import SpaeConfig, prefix_lengths

ROWS = 16
"""Chunks that are written side by side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Writing:
    """How far and in what way a picture is written."""

    layers: int
    """From the top; what is left out is decoded from the layers above."""
    autoregressive: int = 3
    """Layers that are written word after word; deeper ones in chunks."""
    chunk: int = 16
    """Words of a chunk."""
    choose: Choose | None = None
    """Picks ids from logits; the likeliest by default."""

    def __post_init__(self) -> None:
        if min(self.layers, self.autoregressive, self.chunk) < 1:
            raise UsageError(f"writing needs 1 layer, 1 layer word after word and chunks of 1 or more, got {self}")


def draw(
    lm: FrozenLM, config: SpaeConfig, pairs: Sequence[tuple[str, Words]], wanted: str, writing: Writing
) -> list[str]:
    """The words of a picture that a text asks for.

    Args:
        config: of the word tokenizer; its words must be single ids of the language model.
        pairs: (text, words of its picture), with at least the layers that are written.

    Returns:
        Words of the layers written, for Spae.read.

    Raises:
        UsageError: too few words in an example, more layers than there are, or a prompt that is too long.
        TokenError: a word of the codebook is no single id.
    """
    ends = _checked(config, [words for _, words in pairs], writing)
    context = ends[min(writing.autoregressive, writing.layers) - 1]

    def layer(end: int, written: Words) -> str:
        return prompts.generation([(text, words[:end]) for text, words in pairs], wanted, written)

    def chunk(start: int, end: int, written: Words) -> str:
        return prompts.transformation([(words[:context], words[start:end]) for _, words in pairs], written[:context])

    return _written(lm, config, writing, ends, layer, chunk)


def transform(
    lm: FrozenLM, config: SpaeConfig, pairs: Sequence[tuple[Words, Words]], query: Words, writing: Writing
) -> list[str]:
    """The words of a picture that is made from another as in the examples.

    Args:
        pairs: (words before, words after), with at least the layers that are written.
        query: words of the picture to transform.

    Returns, Raises:
        As draw.
    """
    ends = _checked(config, [query, *(words for pair in pairs for words in pair)], writing)

    def layer(end: int, written: Words) -> str:
        return prompts.transformation([(before[:end], after[:end]) for before, after in pairs], query[:end], written)

    def chunk(start: int, end: int, _: Words) -> str:
        return prompts.transformation(
            [(before[start:end], after[start:end]) for before, after in pairs], query[start:end]
        )

    return _written(lm, config, writing, ends, layer, chunk)


def _written(
    lm: FrozenLM,
    config: SpaeConfig,
    writing: Writing,
    ends: Sequence[int],
    layer: Callable[[int, Words], str],
    chunk: Callable[[int, int, Words], str],
) -> list[str]:
    ids = _single_ids(lm, config.words)
    allowed = list(ids)

    def answers(asked: Sequence[str], lengths: Sequence[int]) -> list[list[str]]:
        found: list[list[str]] = []
        for at in range(0, len(asked), ROWS):
            prefix = lm.read([lm.encode(text) for text in asked[at : at + ROWS]])
            rows = lm.generate(prefix, max(lengths), allowed=allowed, choose=writing.choose)
            found += [[ids[index] for index in row] for row in rows]
        return [row[:length] for row, length in zip(found, lengths, strict=True)]

    words: list[str] = []
    for number, end in enumerate(ends):
        start = len(words)
        if number < writing.autoregressive:
            (more,) = answers([layer(end, words)], [end - start])
            words += more
            continue
        cuts = [(at, min(end, at + writing.chunk)) for at in range(start, end, writing.chunk)]
        parts = answers([chunk(a, b, words) for a, b in cuts], [b - a for a, b in cuts])
        words += [word for part in parts for word in part]
    return words


def _checked(config: SpaeConfig, shown: Sequence[Words], writing: Writing) -> list[int]:
    """Words of the first 1, 2, ... layers that are written."""
    ends = prefix_lengths(config)
    if writing.layers > len(ends):
        raise UsageError(f"this tokenizer has {len(ends)} layers, not {writing.layers}")
    ends = ends[: writing.layers]
    short = [len(words) for words in shown if len(words) < ends[-1]]
    if short:
        raise UsageError(f"{writing.layers} layers need {ends[-1]} words of every picture, got {short[0]}")
    return ends


def _single_ids(lm: FrozenLM, words: Words) -> dict[int, str]:
    """Id to word."""
    found: dict[int, str] = {}
    for word, ids in zip(words, lm.encode_all([f" {word}" for word in words]), strict=True):
        if len(ids) != 1:
            raise TokenError(f"{word!r} is {len(ids)} ids of this language model; take the one that the words are of")
        found[ids[0]] = word
    return found

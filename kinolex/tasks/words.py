"""Classes and captions as word ids: one interface for labels, captions and "nothing said".

"a small red circle falls on wood" -> (small, red, circle, falls, wood) -> ids        "" -> ()        "wave1" -> one id

A model knows a closed list of words; articles and the like are skipped, some others have synonyms, and any other is an
error that names the list. Capitals and punctuation do not matter, and a class may be a name of several words.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kinolex.errors import UsageError

GUIDANCE = 3.0
"""How strongly words are followed where nothing else is asked for: what the shipped generators are measured with."""
SYNONYMS = {"ball": "circle", "disc": "circle", "box": "square", "cube": "square", "hoop": "ring", "wheel": "ring"}
"""Words for what a model knows by another name; used where it knows that and not this."""
EXAMPLE = "a small red circle bounces twice on wood"
"""A caption of a world, for those who ask without words."""
PUNCTUATION = str.maketrans(dict.fromkeys(",.!?;:", " "))
SKIPPED = frozenset({"a", "an", "the", "and", "on", "above", "of", "with", "times"})


def word_ids(text: str, words: Sequence[str], max_words: int) -> Tensor:
    """Ids [P] of a class or caption: index into words plus one, then 0 for nothing.

    Raises:
        UsageError: a word that the model does not know, more than max_words, or a text without any that it reads; ""
            says nothing and is none of these.
    """
    index = {word.lower(): number for number, word in enumerate(words, start=1)}
    whole = " ".join(text.lower().split())
    said = [whole] if whole in index else whole.translate(PUNCTUATION).split()
    said = [word for word in said if word in index or word not in SKIPPED]
    other = {word: name for word, name in SYNONYMS.items() if name in index and word not in index}
    said = [other.get(word, word) for word in said]
    unknown = sorted({word for word in said if word not in index})
    if unknown:
        known = ", ".join(words) if words else "none: this model was trained without classes"
        if other:
            known += "; by another name " + ", ".join(f"{word} ({name})" for word, name in other.items())
        raise UsageError(f"this model does not know {', '.join(map(repr, unknown))}; its words are {known}")
    if text and not said:
        raise no_words(text, ", ".join(words[:8]) if words else "none: this model was trained without classes")
    if len(said) > max_words:
        raise UsageError(f"this model reads {max_words} words at most, got {len(said)}: {' '.join(said)}")
    ids_P = torch.zeros(max_words, dtype=torch.int64)
    ids_P[: len(said)] = torch.tensor([index[word] for word in said], dtype=torch.int64)
    return ids_P


def no_words(text: str, examples: str = EXAMPLE) -> UsageError:
    """What to raise of a text in which there is no word that a model reads."""
    return UsageError(f"{text!r} holds no word that the model reads; say what to make in words such as {examples}")

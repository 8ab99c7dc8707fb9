"""Classes and captions as word ids: one interface for labels, captions and "nothing said".

"a small red circle falls on wood" -> (small, red, circle, falls, wood) -> ids        "" -> ()        "wave1" -> one id

A model knows a closed list of words; articles and the like are skipped, any other word is an error that names the list.
Capitals do not matter, and a class may be a name of several words.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kinolex.errors import UsageError

GUIDANCE = 3.0
"""How strongly words are followed where nothing else is asked for: what the shipped generators are measured with."""
SKIPPED = frozenset({"a", "an", "the", "and", "on", "above", "of", "with", "times"})


def word_ids(text: str, words: Sequence[str], max_words: int) -> Tensor:
    """Ids [P] of a class or caption: index into words plus one, then 0 for nothing.

    Raises:
        UsageError: a word that the model does not know, or more than max_words.
    """
    index = {word.lower(): number for number, word in enumerate(words, start=1)}
    whole = " ".join(text.lower().split())
    said = [whole] if whole in index else whole.replace(",", " ").replace(".", " ").split()
    said = [word for word in said if word in index or word not in SKIPPED]
    unknown = sorted({word for word in said if word not in index})
    if unknown:
        known = ", ".join(words) if words else "none: this model was trained without classes"
        raise UsageError(f"this model does not know {', '.join(map(repr, unknown))}; its words are {known}")
    if len(said) > max_words:
        raise UsageError(f"this model reads {max_words} words at most, got {len(said)}: {' '.join(said)}")
    ids_P = torch.zeros(max_words, dtype=torch.int64)
    ids_P[: len(said)] = torch.tensor([index[word] for word in said], dtype=torch.int64)
    return ids_P

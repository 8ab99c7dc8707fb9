"""Text as ids and back: a small byte-pair vocabulary, or a closed list of words; and a frozen encoder's embeddings.

    "a red ball" --BytePairs--> pieces of bytes, any text goes      --WordList--> numbers of known words alone
                 --TextEncoder, embedded--> [P, E] for a network with text_features

Source: byte-pair encoding, arXiv 1508.07909, over bytes as in GPT-2; frozen embeddings: VideoPoet, arXiv 2312.14125.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from kinolex.errors import CheckpointError, MissingExtra, ShapeError, UsageError
from kinolex.tasks.words import word_ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BYTES = 256
"""Every byte is a piece, so that no text is unknown."""

TextEncoder = Callable[[str], Tensor]
"""A text -> its embeddings [n, E], one for each of its tokens, of an encoder that stays as it is."""


class TextTokens(Protocol):
    """What makes text ids."""

    @property
    def size(self) -> int:
        """How many ids there are."""
        ...

    def encode(self, text: str) -> Tensor:
        """Ids [P], int64, in 0 ... size - 1."""
        ...

    def decode(self, ids_P: Tensor) -> str:
        """The text of ids."""
        ...


class WordList:
    """A closed list of words, as kinolex.tasks.words reads captions; articles and the like are not kept."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)

    @property
    def size(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> Tensor:
        """Raises UsageError for a word that is not in the list, or a text without one."""
        ids_P = word_ids(text, self.words, max_words=max(1, len(text)))
        return ids_P[ids_P > 0] - 1

    def decode(self, ids_P: Tensor) -> str:
        """Raises ShapeError for ids that are no words."""
        return " ".join(self.words[number] for number in _checked(ids_P, self.size))


class BytePairs:
    """Pieces of bytes, learned from texts. What was encoded is decoded as it was, character by character.

    Args:
        rules: what to_json gave.

    Raises:
        CheckpointError: rules that are damaged or not of a byte-level byte-pair vocabulary.
        MissingExtra: the package tokenizers is not installed.
    """

    def __init__(self, rules: str) -> None:
        _require_tokenizers()
        from tokenizers import Tokenizer

        try:
            kind = json.loads(rules)["model"]["type"]
            self._tokenizer: Tokenizer = Tokenizer.from_str(rules)
        except Exception as error:  # tokenizers raises plain Exception
            raise CheckpointError(f"these are no rules of a byte-pair vocabulary: {error}") from error
        if kind != "BPE" or self.decode(self.encode("byte é")) != "byte é":
            raise CheckpointError(
                f"the rules are of another kind of vocabulary ({kind}); train one with BytePairs.train"
            )

    @classmethod
    def train(cls, texts: Iterable[str], size: int) -> BytePairs:
        """A vocabulary of at most `size` pieces: every byte, and the pairs that are most frequent in the texts.

        Raises:
            UsageError: fewer pieces than there are bytes. MissingExtra: as the class.
        """
        _require_tokenizers()
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        if size < BYTES:
            raise UsageError(f"a byte-pair vocabulary holds at least the {BYTES} bytes, got a size of {size}")
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
            special_tokens=[],
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer.to_str())

    @property
    def size(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> Tensor:
        return torch.tensor(self._tokenizer.encode(text).ids, dtype=torch.int64)

    def decode(self, ids_P: Tensor) -> str:
        """Raises ShapeError for ids that there are not. Bytes that make no character become U+FFFD."""
        return self._tokenizer.decode(_checked(ids_P, self.size))

    def to_json(self) -> str:
        """Everything needed to make it again; `extra` of a checkpoint holds it."""
        return self._tokenizer.to_str()


def embedded(text: str, encoder: TextEncoder, places: int, features: int) -> Tensor:
    """Embeddings [places, features] of a text, zeros after its end.

    Raises:
        ShapeError: the encoder gives embeddings of another width. UsageError: the text has more tokens than places.
    """
    found_PE = encoder(text)
    if found_PE.ndim != 2 or found_PE.shape[1] != features:
        raise ShapeError(f"the network reads embeddings [tokens, {features}], the encoder gave {tuple(found_PE.shape)}")
    if len(found_PE) > places:
        raise UsageError(f"there are {places} places for a text, but this one has {len(found_PE)} tokens; say less")
    return F.pad(found_PE.detach().float(), (0, 0, 0, places - len(found_PE)))


def _checked(ids_P: Tensor, size: int) -> list[int]:
    ids = ids_P.tolist()
    if ids and not 0 <= min(ids) <= max(ids) < size:
        raise ShapeError(f"text ids must be in 0..{size - 1}, got {min(ids)}..{max(ids)}")
    return ids


def _require_tokenizers() -> None:
    if importlib.util.find_spec("tokenizers") is None:
        raise MissingExtra("byte-pair texts need the package tokenizers: pip install 'kinolex[lm]'")

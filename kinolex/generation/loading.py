"""A name becomes a generator with its tokenizer."""

from __future__ import annotations

from pathlib import Path

from kinolex import checkpoint, hub
from kinolex.generation.windows import MaskedGenerator
from kinolex.models.masked import MaskedTransformer

DEFAULT = "masked-nano"
WORLDS = "masked-world-nano"


def load_generator(name: str | Path = DEFAULT, tokenizer: str | Path | None = None) -> MaskedGenerator:
    """The generator behind a name.

    Args:
        name: shipped name, folder or hub repository.
        tokenizer: the one that it was trained with; None searches the shipped ones.

    Raises:
        UnknownModel: nothing has that name, or its tokenizer is not among the shipped ones.
        CheckpointError, ConfigError: damaged, no generator, or made for another tokenizer.
    """
    model, fingerprint = checkpoint.load_module(hub.locate(name, checkpoint.GENERATOR), checkpoint.GENERATOR)
    assert isinstance(model, MaskedTransformer)
    return MaskedGenerator(model, hub.load(tokenizer or hub.name_of(model.config.tokenizer)), fingerprint)

"""A word tokenizer small enough for tests: pictures of a few pixels, words in the order that is given."""

from __future__ import annotations

from typing import Any

import torch

from kinolex.tokenizers.spae import Spae, SpaeConfig, codebook_from

WORDS = ("red", "blue", "star", "ring")


def tiny_spae_config(words: tuple[str, ...] = WORDS, **changes: Any) -> SpaeConfig:
    """Two layers, of 1 and 2 x 2 words; `changes` are fields of SpaeConfig."""
    fields: dict[str, Any] = {
        "language_model": "",
        "dim": 4,
        "layers": ((1, 1, 1), (1, 2, 2)),
        "channels": (8,),
        "down": (),
        "encoder_blocks": (1,),
        "decoder_blocks": (1,),
        "middle_blocks": 0,
        "norm_groups": 4,
    }
    return SpaeConfig(words=words, **(fields | changes))


def tiny_spae() -> Spae:
    """With random weights and codebook, always the same; pictures of 16 pixels."""
    torch.manual_seed(0)
    spae = Spae(tiny_spae_config(fold=8)).eval()
    spae.quantizer.set_codebook(codebook_from(torch.randn(4, 4)))
    return spae

"""text-nano: a small language model that has never seen a picture, for words of pictures in context.

source    Llama's layers (arXiv 2302.13971) at 3 M parameters; trained on text only (kinolex/training/text_data.py)
command   kinolex train recipes/text_nano.py --data DIR --out runs/out/text-nano
hardware  one CPU core with bfloat16 instructions, 40 minutes

Its text: tinyshakespeare, captions of worlds, lists of labels, and for the most part patterns of random words in
context, without which a model this small would not learn to follow examples.
"""

from __future__ import annotations

from kinolex.training.config import OptimizerConfig
from kinolex.training.text_run import TextTrainConfig


def config() -> TextTrainConfig:
    return TextTrainConfig(
        vocab_size=6144,
        width=192,
        depth=4,
        heads=6,
        inner=512,
        max_length=1024,
        steps=3900,
        repeating_steps=1700,
        embedding_steps=2500,
        rows=12,
        length=320,
        optimizer=OptimizerConfig(muon_lr=0.02, adam_lr=3e-3, ema_decay=0.99),
    )

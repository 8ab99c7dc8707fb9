"""text-nano, its fourth part: from the weights of recipes/text_nano_questions.py, text full of captions in context.

source    as recipes/text_nano.py
command   kinolex train recipes/text_nano_captions.py --data DIR --out runs/out/text-nano-captions
hardware  one CPU core, fifteen minutes

The third part has to lie at runs/out/text-nano-questions/weights. The embeddings stay as they are, so that a word
tokenizer made of them still fits.
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
        start="runs/out/text-nano-questions/weights",
        steps=900,
        caption_steps=900,
        embedding_steps=0,
        rows=12,
        length=320,
        optimizer=OptimizerConfig(muon_lr=0.015, adam_lr=2e-3, ema_decay=0.99),
    )

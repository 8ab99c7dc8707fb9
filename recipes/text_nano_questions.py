"""text-nano, third part: from the weights of text_nano_longer.py, taught to look past a question, and to begin answers
as those that were shown.

source    Llama's layers (arXiv 2302.13971) at 3 M parameters; trained on text only (kinolex/training/text_data.py)
command   kinolex train recipes/text_nano_questions.py --data DIR --out OUT
hardware  one CPU core with bfloat16 instructions, 10 minutes

The shipped weights had two runs of 1000 steps before this one, with other shares of the same text (notes/LOG.md).
`start` is where the command of the second part leaves its weights. The embeddings stay as they are, so that a word
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
        start="runs/out/text-nano-longer/weights",
        steps=750,
        question_steps=750,
        embedding_steps=0,
        rows=12,
        length=320,
        optimizer=OptimizerConfig(muon_lr=0.015, adam_lr=2e-3, ema_decay=0.99),
    )

"""spae-nano, second part: from the weights of spae_nano.py, with eight times the weight on words.

source    SPAE (arXiv 2306.17842), whose semantic loss makes words come back in the next picture of the same thing
command   kinolex train recipes/spae_nano_words.py --data DIR --out runs/out/spae-nano-words
hardware  one CPU core with bfloat16 instructions, 45 minutes

`start` is where the command of the first part leaves its weights. The shipped weights had two runs of this one, of 1200
and of 600 steps, the second from the first.
"""

from __future__ import annotations

from kinolex.tokenizers.quantizers.pyramid import PAPER_LAYERS
from kinolex.training.config import OptimizerConfig
from kinolex.training.spae_run import SpaeTrainConfig


def config() -> SpaeTrainConfig:
    return SpaeTrainConfig(
        language_model="text-nano",
        start="runs/out/spae-nano/weights",
        layers=PAPER_LAYERS,
        channels=(128,),
        down=(),
        encoder_blocks=(4,),
        decoder_blocks=(4,),
        middle_blocks=2,
        sets=(
            ("imagenet_samples", 0.2),
            ("cifar10", 0.35),
            ("digits", 0.2),
            ("bsds", 0.03),
            ("clips", 0.02),
            ("worlds", 0.2),
        ),
        worlds=3000,
        steps=1800,
        batch=24,
        semantic=4.0,
        optimizer=OptimizerConfig(muon_lr=0.01, adam_lr=1e-3, ema_decay=0.995),
    )

"""spae-nano: pictures of 64x64 as 597 words of text-nano, in six layers from one word to 16x16.

source    SPAE (arXiv 2306.17842); words told by labels, captions and an ImageNet-trained SqueezeNet instead of CLIP
command   kinolex train recipes/spae_nano.py --data DIR --out runs/out/spae-nano
hardware  one CPU core with bfloat16 instructions, 40 minutes
"""

from __future__ import annotations

from kinolex.tokenizers.quantizers.pyramid import PAPER_LAYERS
from kinolex.training.config import OptimizerConfig
from kinolex.training.spae_run import SpaeTrainConfig


def config() -> SpaeTrainConfig:
    return SpaeTrainConfig(
        language_model="text-nano",
        layers=PAPER_LAYERS,
        channels=(128,),
        down=(),
        encoder_blocks=(4,),
        decoder_blocks=(4,),
        middle_blocks=2,
        sets=(
            ("imagenet_samples", 0.25),
            ("cifar10", 0.3),
            ("digits", 0.15),
            ("bsds", 0.05),
            ("clips", 0.05),
            ("worlds", 0.2),
        ),
        worlds=3000,
        steps=1600,
        batch=24,
        optimizer=OptimizerConfig(muon_lr=0.02, adam_lr=2e-3, ema_decay=0.995),
    )

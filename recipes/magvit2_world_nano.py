"""magvit2-world-nano: the tokenizer of procedural worlds, 4x8x8 pixels per token of 12 bits, for generators of worlds.

source    Yu et al. 2023, MAGVIT-v2, arXiv 2310.05737; FSQ, arXiv 2309.15505
command   kinolex train recipes/magvit2_world_nano.py --data DIR --out OUT
hardware  two CPU cores with bfloat16 instructions

Of DIR only perceptual/ is used; the pictures are rendered.
"""

from __future__ import annotations

from dataclasses import replace

from kinolex.tokenizers import magvit2
from kinolex.tokenizers.quantizers import FSQConfig
from kinolex.training.config import LossWeights, OptimizerConfig, StageConfig, TrainConfig


def config() -> TrainConfig:
    model = replace(
        magvit2.PRESETS["nano"],
        channels=(64, 128, 160, 192),
        decoder_blocks=(2, 2, 2, 2),
        quantizer=FSQConfig(levels=(8, 8, 8, 8)),
    )
    return TrainConfig(
        model=model,
        data=(),
        stages=(
            StageConfig(
                name="worlds", steps=2600, clip_frames=17, crop=64, batch_video=6, batch_image=0, perceptual_frames=2
            ),
        ),
        world_fraction=1.0,
        world_rates=(24, 12),
        losses=LossWeights(perceptual=0.15),
        optimizer=OptimizerConfig(muon_lr=0.03, adam_lr=2e-3),
    )

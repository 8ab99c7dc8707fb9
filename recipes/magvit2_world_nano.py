"""magvit2-world-nano: the tokenizer of procedural worlds, 4x8x8 pixels per token of 12 bits, for generators of worlds.

source    Yu et al. 2023, MAGVIT-v2, arXiv 2310.05737; FSQ, arXiv 2309.15505
command   kinolex train recipes/magvit2_world_nano.py --init magvit2-nano --data DIR --out OUT
hardware  two CPU cores with bfloat16 instructions

Of DIR only perceptual/ is used; the pictures are rendered. It starts from magvit2-nano, less the last blocks of the
deepest stages, and rounds the same six channels to four values instead of eight. The shipped weights come from a second
run that began with the weights of the first (--init OUT/weights); that had 500 steps on pictures of 64x64 before it.
"""

from __future__ import annotations

from dataclasses import replace

from kinolex.tokenizers import magvit2
from kinolex.tokenizers.quantizers import FSQConfig
from kinolex.training.config import LossWeights, OptimizerConfig, StageConfig, TrainConfig


def config() -> TrainConfig:
    model = replace(
        magvit2.PRESETS["nano"],
        encoder_blocks=(1, 2, 1, 1),
        decoder_blocks=(2, 2, 2, 1),
        quantizer=FSQConfig(levels=(4, 4, 4, 4, 4, 4)),
    )
    return TrainConfig(
        model=model,
        data=(),
        stages=(
            StageConfig(
                name="bodies", steps=850, clip_frames=17, crop=32, batch_video=16, batch_image=0, perceptual_frames=2
            ),
            StageConfig(
                name="worlds", steps=150, clip_frames=17, crop=64, batch_video=6, batch_image=0, perceptual_frames=2
            ),
        ),
        world_fraction=1.0,
        world_rates=(24, 12),
        init_what_fits=True,
        losses=LossWeights(colourful=10.0, perceptual=0.2),
        optimizer=OptimizerConfig(muon_lr=0.02, adam_lr=1e-3),
    )

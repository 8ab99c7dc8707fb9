"""magvit2-nano: the plain causal tokenizer that ships, 4x8x8 pixels per token of 18 bits.

source    MAGVIT-v2 (arXiv 2310.05737) in shape; FSQ in place of LFQ, see results/quantizers.json
command   kinolex train recipes/magvit2_nano.py --data DIR --out runs/out/magvit2-nano
hardware  two CPU cores with bfloat16 instructions
"""

from __future__ import annotations

from kinolex.tokenizers import magvit2
from kinolex.training.config import LossWeights, OptimizerConfig, StageConfig, TrainConfig


def config() -> TrainConfig:
    return TrainConfig(
        model=magvit2.PRESETS["nano"],
        data=(
            "sequences",
            "clips",
            "street_cctv",
            "asl_gestures",
            "grid",
            "weizmann64",
            "bsds",
            "imagenet_samples",
            "cifar10",
            "digits",
        ),
        stages=(
            StageConfig(
                name="short",
                steps=4200,
                clip_frames=9,
                crop=64,
                batch_video=12,
                batch_image=8,
                image_every=4,
                perceptual_frames=1,
            ),
            StageConfig(
                name="long",
                steps=2000,
                clip_frames=17,
                crop=64,
                batch_video=6,
                batch_image=8,
                image_every=4,
                perceptual_frames=2,
            ),
            StageConfig(
                name="wide",
                steps=500,
                clip_frames=17,
                crop=128,
                batch_video=2,
                batch_image=2,
                image_every=4,
                perceptual_frames=2,
            ),
        ),
        world_fraction=0.1,
        losses=LossWeights(perceptual=0.15, image=0.3),
        optimizer=OptimizerConfig(muon_lr=0.04, adam_lr=2e-3),
    )

"""magvit-nano: the 3D-VQ tokenizer that ships, windows of 16 frames, 4x8x8 pixels per token of 10 bits.

source    MAGVIT (arXiv 2212.05199) in quantizer and windows, folded and factorised as magvit2-nano
command   kinolex train recipes/magvit_nano.py --data DIR --out runs/out/magvit-nano
hardware  two CPU cores with bfloat16 instructions
"""

from __future__ import annotations

from kinolex.tokenizers import magvit
from kinolex.training.config import LossWeights, OptimizerConfig, StageConfig, TrainConfig


def config() -> TrainConfig:
    return TrainConfig(
        model=magvit.PRESETS["nano"],
        data=("sequences", "clips", "street_cctv", "asl_gestures", "grid", "weizmann64", "bsds", "imagenet_samples"),
        stages=(
            StageConfig(
                name="short",
                steps=1500,
                clip_frames=8,
                crop=64,
                batch_video=12,
                batch_image=8,
                image_every=4,
                perceptual_frames=1,
            ),
            StageConfig(
                name="long",
                steps=600,
                clip_frames=16,
                crop=64,
                batch_video=6,
                batch_image=8,
                image_every=4,
                perceptual_frames=2,
            ),
            StageConfig(
                name="wide",
                steps=200,
                clip_frames=16,
                crop=128,
                batch_video=2,
                batch_image=2,
                image_every=4,
                perceptual_frames=2,
            ),
        ),
        losses=LossWeights(perceptual=0.15, image=0.2),
        optimizer=OptimizerConfig(muon_lr=0.04, adam_lr=2e-3),
    )

"""The third run of magvit2-nano: from the second run's weights, half of the clips worlds, so that their shapes survive.

source    recipes/magvit2_nano_longer.py
command   kinolex train recipes/magvit2_nano_worlds.py --init runs/out/magvit2-nano/weights --data DIR --out OUT
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
        ),
        stages=(
            StageConfig(
                name="long",
                steps=900,
                clip_frames=17,
                crop=64,
                batch_video=6,
                batch_image=8,
                image_every=4,
                perceptual_frames=2,
            ),
            StageConfig(
                name="wide",
                steps=1000,
                clip_frames=17,
                crop=128,
                batch_video=2,
                batch_image=2,
                image_every=4,
                perceptual_frames=2,
            ),
        ),
        seed=2,
        world_fraction=0.5,
        losses=LossWeights(perceptual=0.15, image=0.3),
        optimizer=OptimizerConfig(muon_lr=0.015, adam_lr=1e-3),
    )

"""video-nano: the tokenizer that ships as the default, 4x8x8 pixels per token of 17.93 bits, with motion and memory.

source    our own (kinolex/tokenizers/recurrent.py) on MAGVIT-v2's sizes (arXiv 2310.05737), FSQ (arXiv 2309.15505)
command   kinolex train recipes/video_nano.py --data DIR --out runs/out/video-nano
hardware  two CPU cores with bfloat16 instructions
"""

from __future__ import annotations

from kinolex.tokenizers import recurrent
from kinolex.training.config import LossWeights, OptimizerConfig, StageConfig, TrainConfig


def config() -> TrainConfig:
    return TrainConfig(
        model=recurrent.PRESETS["nano"],
        data=("sequences", "clips", "street_cctv", "asl_gestures", "grid", "weizmann64", "bsds", "imagenet_samples"),
        stages=(
            StageConfig(
                name="short",
                steps=3800,
                clip_frames=17,
                warm_steps=7,
                crop=64,
                batch_video=6,
                batch_image=4,
                image_every=2,
                image_frames=17,
                perceptual_frames=1,
            ),
            StageConfig(
                name="long",
                steps=450,
                clip_frames=17,
                warm_steps=7,
                crop=96,
                batch_video=2,
                batch_image=1,
                image_every=2,
                image_frames=17,
                perceptual_frames=2,
            ),
        ),
        world_fraction=0.05,
        losses=LossWeights(perceptual=0.2, image=0.7),
        optimizer=OptimizerConfig(muon_lr=0.03, adam_lr=2e-3),
    )

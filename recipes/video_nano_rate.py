"""video-nano's second run: the same network learns to weigh rate, half of the time, and older memories.

source    as recipes/video_nano.py; the estimate of bits is our own (kinolex/tokenizers/recurrent.py)
command   kinolex train recipes/video_nano_rate.py --data DIR --init VIDEO_NANO/weights --out runs/out/video-nano-rate
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
                steps=3150,
                clip_frames=17,
                warm_steps=10,
                crop=64,
                batch_video=6,
                batch_image=4,
                image_every=2,
                image_frames=17,
                perceptual_frames=1,
                thrifty=0.5,
            ),
            StageConfig(
                name="long",
                steps=350,
                clip_frames=17,
                warm_steps=10,
                crop=96,
                batch_video=2,
                batch_image=1,
                image_every=2,
                image_frames=17,
                perceptual_frames=2,
                thrifty=0.5,
            ),
        ),
        world_fraction=0.05,
        losses=LossWeights(perceptual=0.2, image=0.7),
        optimizer=OptimizerConfig(muon_lr=0.025, adam_lr=2e-3),
    )

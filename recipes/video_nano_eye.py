"""video-nano's third run: the same network with more weight on what the eye sees.

source    as recipes/video_nano_rate.py
command   kinolex train recipes/video_nano_eye.py --data DIR --init VIDEO_NANO/weights --out runs/out/video-nano-eye
hardware  one CPU core with bfloat16 instructions
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
                steps=1250,
                clip_frames=17,
                warm_steps=10,
                crop=64,
                batch_video=6,
                batch_image=4,
                image_every=2,
                image_frames=17,
                perceptual_frames=2,
                thrifty=0.5,
            ),
        ),
        world_fraction=0.05,
        losses=LossWeights(perceptual=0.7, image=0.7),
        optimizer=OptimizerConfig(muon_lr=0.02, adam_lr=2e-3),
    )

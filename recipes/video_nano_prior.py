"""The prior of video-nano, with which its .klx files are entropy-coded.

source    our own (kinolex/codec/network.py): integers only, two latent frames back, sixteen groups of positions
command   kinolex train recipes/video_nano_prior.py --data DIR --out runs/out/video-nano-prior
hardware  two CPU cores with bfloat16 instructions
"""

from __future__ import annotations

from kinolex.training.prior_run import PriorRound, PriorTrainConfig


def config() -> PriorTrainConfig:
    return PriorTrainConfig(
        tokenizer="video-nano",
        data=("sequences", "clips", "street_cctv", "asl_gestures", "grid", "weizmann64", "bsds", "imagenet_samples"),
        rounds=(
            PriorRound(clips=600, images=1200, steps=1500),
            PriorRound(clips=300, images=500, steps=800, lr_factor=0.5),
        ),
    )

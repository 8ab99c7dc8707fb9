"""video-nano's prior after its third run: the prior of its second, taught the digits that it writes now.

source    as recipes/video_nano_prior.py
command   kinolex train recipes/video_nano_prior_eye.py --data DIR --out runs/out/video-nano-prior-eye
hardware  one CPU core with bfloat16 instructions
"""

from __future__ import annotations

from kinolex.training.prior_run import PriorRound, PriorTrainConfig


def config() -> PriorTrainConfig:
    return PriorTrainConfig(
        tokenizer="video-nano",
        start="video-nano",
        data=("sequences", "clips", "street_cctv", "asl_gestures", "grid", "weizmann64", "bsds", "imagenet_samples"),
        rounds=(PriorRound(clips=450, images=700, steps=900, lr_factor=0.5),),
        seed=1,
    )

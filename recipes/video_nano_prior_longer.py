"""The prior of video-nano, on from where recipes/video_nano_prior.py left it, on other clips and images.

source    our own (kinolex/codec/network.py)
command   kinolex train recipes/video_nano_prior_longer.py --data DIR --out runs/out/video-nano-prior-longer
hardware  two CPU cores; float32 where they have no bfloat16 instructions

What recipes/video_nano_prior_more.py goes on from is 0.8 of its result and 0.2 of the prior before, weight by weight:
it had learned its 440 clips by heart. What it went on from itself had been trained while each quarter of a latent frame
was one group; the weights of the four groups that a quarter has become began with the quarter's.
"""

from __future__ import annotations

from kinolex.training.prior_run import PriorRound, PriorTrainConfig


def config() -> PriorTrainConfig:
    return PriorTrainConfig(
        tokenizer="video-nano",
        data=("sequences", "clips", "street_cctv", "asl_gestures", "grid", "weizmann64", "bsds", "imagenet_samples"),
        rounds=(PriorRound(clips=440, images=780, steps=1400, lr_factor=0.7),),
        seed=1,
        start="video-nano",
    )

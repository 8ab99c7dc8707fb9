"""The prior of video-nano, third part: on from the shipped one, on three times as many clips and images.

source    our own (kinolex/codec/network.py)
command   kinolex train recipes/video_nano_prior_more.py --data DIR --out runs/out/video-nano-prior-more
hardware  one CPU core, 47 minutes; float32 where it has no bfloat16 instructions

`start` is the result of recipes/video_nano_prior_longer.py as that recipe says it was shipped. Of the digits of the
shipped run, numbers of clips go up to 1478 and of images up to 2586: they were drawn in several processes, stopped when
there were as many as are named here.
"""

from __future__ import annotations

from kinolex.training.prior_run import PriorRound, PriorTrainConfig


def config() -> PriorTrainConfig:
    return PriorTrainConfig(
        tokenizer="video-nano",
        data=("sequences", "clips", "street_cctv", "asl_gestures", "grid", "weizmann64", "bsds", "imagenet_samples"),
        rounds=(PriorRound(clips=1347, images=2354, steps=640, lr_factor=0.7),),
        seed=1,
        start="video-nano",
    )

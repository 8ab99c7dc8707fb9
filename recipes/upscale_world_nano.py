"""upscale-world-nano: twice the lines for procedural worlds: 5x8x8 tokens of 64 lines become 5x16x16 of 128 lines.

source    Kondratyuk et al. 2023, VideoPoet, arXiv 2312.14125, section 3.4
command   kinolex train recipes/upscale_world_nano.py --data DIR --out OUT
hardware  one CPU core with bfloat16 instructions

Nothing of DIR is used; each world is rendered at both sizes and encoded once.
"""

from __future__ import annotations

from kinolex.models.super_resolution import PRESETS, SuperResolutionConfig
from kinolex.training.upscale_draws import PairSource
from kinolex.training.upscale_run import UpscaleTrainConfig

SMALL = {"width": 72, "depth": 1, "heads": 4}
"""A fifth of the preset's parameters: what ships has to be small."""


def config() -> UpscaleTrainConfig:
    return UpscaleTrainConfig(
        tokenizer="magvit2-world-nano",
        network=SuperResolutionConfig(tokenizer="", **{**PRESETS["nano"], **SMALL}),
        source=PairSource(clips=900, side=64),
        clip_latents=6,
        steps=2600,
        batch=4,
    )

"""masked-world-nano's second, third and fourth run: the same network on more worlds, most of all on captions.

source    as recipes/masked_world_nano.py
command   kinolex train recipes/masked_world_nano_longer.py --data DIR --out runs/out/masked-world-nano-longer
hardware  one CPU core with bfloat16 instructions

It goes on from what recipes/masked_world_nano.py leaves in runs/out/masked-world-nano. The shipped weights come from
three such runs: one of 2600 steps on the first 6000 of these worlds, half of its tasks captions, 0.08 class-prediction
and 0.32 encoded, then this one from the weights of that, then 2700 steps of it with seed 3 from the weights of that.
All went on from weights as they were stored, in int8.
"""

from __future__ import annotations

from kinolex.data.worlds.labels import WORDS
from kinolex.models.masked import PRESETS, MaskedConfig
from kinolex.tasks.video import TASK_NAMES
from kinolex.training.config import OptimizerConfig
from kinolex.training.generator_run import GeneratorTrainConfig
from kinolex.training.token_draws import DrawSource


def config() -> GeneratorTrainConfig:
    return GeneratorTrainConfig(
        tokenizer="magvit2-world-nano",
        start="runs/out/masked-world-nano/weights",
        network=MaskedConfig(
            **PRESETS["nano"]
            | {"tokenizer": "", "tasks": TASK_NAMES, "words": WORDS, "max_words": 16, "lines": 64}
            | {"factors": (64, 64), "digits": (4,) * 6, "width": 192, "heads": 6}
        ),
        sources=(DrawSource(name="worlds-64", clips=8000, crop=64, batch=16, share=1.0, max_bodies=2, conditions=1),),
        task_shares=(("frame-prediction", 0.1), ("class", 0.55), ("class-prediction", 0.05), ("encoded", 0.3)),
        clip_latents=7,
        steps=2500,
        optimizer=OptimizerConfig(muon_lr=0.02, adam_lr=2e-3, ema_decay=0.998, warmup_steps=50),
        seed=1,
    )

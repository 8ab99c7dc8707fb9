"""masked-world-nano: MAGVIT's ten tasks on procedural worlds, with captions as classes.

source    Yu et al. 2023, MAGVIT, arXiv 2212.05199 (COMMIT); MAGVIT-v2, arXiv 2310.05737 (factorised tokens)
command   kinolex train recipes/masked_world_nano.py --data DIR --out OUT
hardware  one CPU core with bfloat16 instructions

Small, so that it learns to follow captions in under an hour; its tokens are those of 64 lines.
"""

from __future__ import annotations

from kinolex.data.worlds.labels import WORDS
from kinolex.models.masked import PRESETS, MaskedConfig
from kinolex.tasks.video import TASK_NAMES
from kinolex.training.generator_run import GeneratorTrainConfig
from kinolex.training.token_draws import DrawSource


def config() -> GeneratorTrainConfig:
    return GeneratorTrainConfig(
        tokenizer="magvit2-world-nano",
        network=MaskedConfig(
            **PRESETS["nano"]
            | {"tokenizer": "", "tasks": TASK_NAMES, "words": WORDS, "max_words": 16, "lines": 64}
            | {"factors": (64, 64), "digits": (4,) * 6, "width": 192, "heads": 6}
        ),
        sources=(DrawSource(name="worlds-64", clips=3000, crop=64, batch=16, share=1.0, max_bodies=2, conditions=1),),
        task_shares=(("frame-prediction", 0.12), ("class", 0.35), ("class-prediction", 0.08), ("encoded", 0.45)),
        clip_latents=7,
        steps=1450,
    )

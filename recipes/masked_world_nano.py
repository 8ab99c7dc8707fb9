"""masked-world-nano: MAGVIT's ten tasks on procedural worlds, with captions as classes.

source    Yu et al. 2023, MAGVIT, arXiv 2212.05199 (COMMIT); MAGVIT-v2, arXiv 2310.05737 (factorised tokens)
command   kinolex train recipes/masked_world_nano.py --data DIR --out OUT
hardware  two CPU cores with bfloat16 instructions
"""

from __future__ import annotations

from kinolex.data.worlds.labels import WORDS
from kinolex.models.masked import PRESETS, MaskedConfig
from kinolex.tasks.video import TASK_NAMES
from kinolex.training.generator_run import GeneratorTrainConfig
from kinolex.training.token_draws import DrawSource


def config() -> GeneratorTrainConfig:
    return GeneratorTrainConfig(
        tokenizer="magvit2-nano",
        network=MaskedConfig(tokenizer="", tasks=TASK_NAMES, words=WORDS, max_words=16, **PRESETS["nano"]),
        sources=(DrawSource(name="worlds-128", clips=1600, crop=128, batch=8, share=1.0, max_bodies=2, conditions=1),),
        clip_latents=7,
        steps=1000,
    )

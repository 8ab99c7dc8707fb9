"""masked-nano: MAGVIT's ten tasks on real video, with the labelled actions of weizmann64 as classes.

source    Yu et al. 2023, MAGVIT, arXiv 2212.05199 (COMMIT); MAGVIT-v2, arXiv 2310.05737 (factorised tokens)
command   kinolex train recipes/masked_nano.py --data DIR --out OUT
hardware  two CPU cores with bfloat16 instructions
"""

from __future__ import annotations

from kinolex.models.masked import PRESETS, MaskedConfig
from kinolex.tasks.video import TASK_NAMES
from kinolex.training.generator_run import GeneratorTrainConfig
from kinolex.training.token_draws import DrawSource

WORDS = ("bend", "jack", "wave1", "wave2")


def config() -> GeneratorTrainConfig:
    return GeneratorTrainConfig(
        tokenizer="magvit2-nano",
        network=MaskedConfig(tokenizer="", tasks=TASK_NAMES, words=WORDS, **PRESETS["nano"]),
        sources=(
            DrawSource(
                name="natural-128",
                data=("sequences", "clips", "street_cctv", "asl_gestures", "grid"),
                clips=1200,
                crop=128,
                batch=8,
                share=0.85,
                conditions=1,
            ),
            DrawSource(name="actions-64", data=("weizmann64",), clips=300, crop=64, batch=24, share=0.15, conditions=1),
        ),
        clip_latents=7,
        steps=850,
    )

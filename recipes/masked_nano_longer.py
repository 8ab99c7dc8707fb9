"""masked-nano, second part: from the weights of masked_nano.py, on other clips, with fewer windows a step.

source    Yu et al. 2023, MAGVIT, arXiv 2212.05199 (COMMIT); MAGVIT-v2, arXiv 2310.05737 (factorised tokens)
command   kinolex train recipes/masked_nano_longer.py --data DIR --out OUT
hardware  one CPU core with bfloat16 instructions, 80 minutes; drawing the tokens takes six minutes of two before

Let `start` name the weights of your own run of masked_nano.py: the shipped ones have this part behind them already.
"""

from __future__ import annotations

from kinolex.models.masked import PRESETS, MaskedConfig
from kinolex.tasks.video import TASK_NAMES
from kinolex.training.config import OptimizerConfig
from kinolex.training.generator_run import GeneratorTrainConfig
from kinolex.training.token_draws import DrawSource

WORDS = ("bend", "jack", "wave1", "wave2")


def config() -> GeneratorTrainConfig:
    return GeneratorTrainConfig(
        tokenizer="magvit2-nano",
        start="runs/out/masked-nano/weights",
        network=MaskedConfig(tokenizer="", tasks=TASK_NAMES, words=WORDS, **PRESETS["nano"]),
        sources=(
            DrawSource(
                name="natural-128",
                data=("sequences", "clips", "street_cctv", "asl_gestures", "grid"),
                clips=1600,
                crop=128,
                batch=4,
                share=0.93,
                conditions=1,
            ),
            DrawSource(name="actions-64", data=("weizmann64",), clips=300, crop=64, batch=12, share=0.07, conditions=1),
        ),
        task_shares=(("frame-prediction", 0.17), ("class", 0.08), ("class-prediction", 0.08), ("encoded", 0.67)),
        clip_latents=7,
        steps=1600,
        optimizer=OptimizerConfig(muon_lr=0.02, adam_lr=2e-3, ema_decay=0.998, warmup_steps=50),
        seed=1,
    )

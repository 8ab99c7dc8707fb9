"""probe-fsdd-nano: the digit a recording says and who of six says it, from what sound-nano's tokens decode to.

source    attentive probe, after V-JEPA, arXiv 2404.08471
command   kinolex train recipes/probe_fsdd_nano.py --data DIR --out runs/out/probe-fsdd-nano
hardware  two CPU cores, ten minutes
"""

from __future__ import annotations

from kinolex.evaluation.understanding_sets import SetConfig
from kinolex.training.probe_run import FitConfig, ProbeTrainConfig, SizeConfig


def config() -> ProbeTrainConfig:
    return ProbeTrainConfig(
        set=SetConfig(name="fsdd"),
        tokenizer="sound-nano",
        input="decoded",
        fit=FitConfig(steps=2000, batch=32, lr=5e-3),
        size=SizeConfig(kind="attentive"),
    )

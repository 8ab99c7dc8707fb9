"""probe-esc10-nano: ten kinds of sounds of the surroundings, from what sound-nano's tokens decode to.

source    attentive probe, after V-JEPA, arXiv 2404.08471
command   kinolex train recipes/probe_esc10_nano.py --data DIR --out runs/out/probe-esc10-nano
hardware  two CPU cores, ten minutes
"""

from __future__ import annotations

from kinolex.evaluation.understanding_sets import SetConfig
from kinolex.training.probe_run import FitConfig, ProbeTrainConfig, SizeConfig


def config() -> ProbeTrainConfig:
    return ProbeTrainConfig(
        set=SetConfig(name="esc10"),
        tokenizer="sound-nano",
        input="decoded",
        fit=FitConfig(steps=1000, batch=32, lr=2e-3),
        size=SizeConfig(kind="attentive", width=48),
    )

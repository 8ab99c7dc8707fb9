"""probe-worlds-nano: action, shape and number of bodies of rendered worlds, read from tokens of magvit2-nano.

source    attentive probe, after V-JEPA, arXiv 2404.08471
command   kinolex train recipes/probe_worlds_nano.py --data DIR --out runs/out/probe-worlds-nano (DIR may be empty)
hardware  two CPU cores, a few minutes
"""

from __future__ import annotations

from kinolex.evaluation.understanding_sets import SetConfig
from kinolex.training.probe_run import FitConfig, ProbeTrainConfig, SizeConfig


def config() -> ProbeTrainConfig:
    return ProbeTrainConfig(
        set=SetConfig(name="worlds"),
        tokenizer="magvit2-nano",
        input="digits",
        fit=FitConfig(steps=600, batch=32, lr=2e-3),
        size=SizeConfig(kind="attentive"),
    )

"""probe-worlds-nano: action, shape and number of bodies of rendered worlds, from tokens of magvit2-world-nano.

source    attentive probe, after V-JEPA, arXiv 2404.08471
command   kinolex train recipes/probe_worlds_nano.py --data DIR --out runs/out/probe-worlds-nano (DIR may be empty)
hardware  two CPU cores, ten minutes, most of them for worlds and their tokens
"""

from __future__ import annotations

from kinolex.evaluation.understanding_sets import SetConfig
from kinolex.training.probe_run import FitConfig, ProbeTrainConfig, SizeConfig


def config() -> ProbeTrainConfig:
    return ProbeTrainConfig(
        set=SetConfig(name="worlds", train=5000),
        tokenizer="magvit2-world-nano",
        input="digits",
        fit=FitConfig(steps=4000, batch=32, lr=2e-3),
        size=SizeConfig(kind="attentive"),
    )

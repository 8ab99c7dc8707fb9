"""probe-weizmann-nano: four actions of people, read from tokens of magvit2-nano.

source    attentive probe, after V-JEPA, arXiv 2404.08471
command   kinolex train recipes/probe_weizmann_nano.py --data DIR --out runs/out/probe-weizmann-nano
hardware  two CPU cores, about a minute
"""

from __future__ import annotations

from kinolex.evaluation.understanding_sets import SetConfig
from kinolex.training.probe_run import FitConfig, ProbeTrainConfig, SizeConfig


def config() -> ProbeTrainConfig:
    return ProbeTrainConfig(
        set=SetConfig(name="weizmann64"),
        tokenizer="magvit2-nano",
        input="digits",
        fit=FitConfig(steps=300, batch=32, lr=2e-3),
        size=SizeConfig(kind="attentive"),
    )

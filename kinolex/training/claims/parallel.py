"""A few parallel passes against one token after the other."""

from __future__ import annotations

from dataclasses import replace

from kinolex.evaluation.page import Html, lines, table
from kinolex.training.claims.arms import Arm, base_arm, of_equal_cost
from kinolex.training.claims.claim import Claim, Table
from kinolex.training.claims.measures import DISTANCE, prediction_and_seconds, prediction_by_passes
from kinolex.training.claims.rules import Finding, log_ratios, more_than
from kinolex.training.claims.scales import Scale

PARALLEL, ONE_BY_ONE = "parallel", "token by token"


def arms(scale: Scale) -> tuple[Arm, ...]:
    base = base_arm(scale, PARALLEL)
    return base, replace(base, name=ONE_BY_ONE, config=of_equal_cost(base.config, "autoregressive", scale))


def judge(figures: Table) -> list[Finding]:
    slow, quick = (figures.values(ONE_BY_ONE, key) for key in ("seconds", "seconds in parallel"))
    far, near = (figures.values(name, DISTANCE) for name in (ONE_BY_ONE, PARALLEL))
    return [
        more_than("seconds of a clip token by token over those in parallel", log_ratios(slow, quick)),
        more_than("distance token by token over that in parallel", log_ratios(far, near)),
    ]


def charts(figures: Table) -> list[Html]:
    curve = figures.scale.curve
    parallel = [(float(n), figures.mean(PARALLEL, f"{DISTANCE} {n} passes")) for n in curve]
    level = figures.mean(ONE_BY_ONE, DISTANCE)
    seconds = [[name, figures.mean(ONE_BY_ONE, key)] for name, key in _SECONDS.items()]
    return [
        lines(
            [(PARALLEL, parallel), (ONE_BY_ONE, [(float(curve[0]), level), (float(curve[-1]), level)])],
            caption="frame prediction: distance over the number of parallel passes; lower is better",
            x_label="passes",
            y_label=DISTANCE,
        ),
        table(["one clip at a time", "seconds"], seconds, caption="medians in turns on one machine, mean over seeds"),
    ]


_SECONDS = {PARALLEL: "seconds in parallel", f"{ONE_BY_ONE}, with a cache": "seconds"}

CLAIM = Claim(
    name="parallel",
    source="MAGVIT, arXiv 2212.05199, table 6",
    statement="Decoding in 12 parallel passes is faster and better than decoding token by token with a network of the "
    "same size that took the same arithmetic to train",
    rule="frame prediction: 95 % t-intervals over seeds of the log ratios of seconds (with a cache, one clip at a time "
    "and in turns) and of distances both above 0; fail if one lies below 0",
    arms=arms,
    measures={PARALLEL: prediction_by_passes, ONE_BY_ONE: prediction_and_seconds},
    judge=judge,
    charts=charts,
    timed=(ONE_BY_ONE,),
)

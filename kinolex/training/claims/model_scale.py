"""Networks of several sizes on the same worlds, tasks and number of steps: each larger one is better than the next."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from kinolex.evaluation.page import Html, lines
from kinolex.training.claims.beside import Told
from kinolex.training.claims.poet_claims import PoetClaim, Rows, bits_of, mean_logs, values_of
from kinolex.training.claims.poet_lab import MADE, figure_name
from kinolex.training.claims.poets import ASKS, BOTH_LEARN, OF_WORDS, PoetArm, PoetScale, recipe
from kinolex.training.claims.rules import Finding, more_than

KINDS = {
    "video": tuple(ask.task for ask in (*OF_WORDS, *BOTH_LEARN) if ask.task != "video-to-sound"),
    "sound": ("text-to-both", "video-to-sound", "continuation"),
    "text": ("describe",),
}
"""Tasks that make tokens of a kind."""


def arms(scale: PoetScale) -> tuple[PoetArm, ...]:
    return tuple(PoetArm(name=f"width {size.width}", config=recipe(scale, size)) for size in scale.sizes)


def judge(rows: Rows, names: Sequence[str]) -> list[Finding]:
    return [
        more_than(
            f"bits of {small} over those of {large}, mean of all {len(ASKS)} tasks",
            mean_logs(rows, small, large, bits_of(ASKS)),
        )
        for small, large in pairwise(names)
    ]


def aside(rows: Rows, names: Sequence[str]) -> list[Finding]:
    by_kind = (
        more_than(
            f"bits of {kind} of {small} over those of {large}",
            mean_logs(rows, small, large, [figure_name(task, kind) for task in tasks]),
        )
        for kind, tasks in KINDS.items()
        for small, large in pairwise(names)
    )
    made = (
        more_than(f"{MADE} of {small} over that of {large}", mean_logs(rows, small, large, [MADE]))
        for small, large in pairwise(names)
    )
    return [*by_kind, *made]


def charts(result: dict[str, Any]) -> list[Html]:
    """Bits of every kind over the number of parameters, mean over tasks and seeds."""
    rows, parameters = result["clips"], result["parameters"]

    def mean(name: str, kind: str) -> float:
        return statistics.fmean(
            value for task in KINDS[kind] for value in values_of(rows, name, figure_name(task, kind))
        )

    curves = [(kind, [(float(count), mean(name, kind)) for name, count in parameters.items()]) for kind in KINDS]
    made = [(MADE, [(float(count), result["means"][name][MADE]) for name, count in parameters.items()])]
    return [
        lines(curves, caption="bits per token; lower is better", x_label="parameters", y_label="bits"),
        lines(made, caption="pictures made of captions; lower is better", x_label="parameters", y_label="distance"),
    ]


CLAIM = PoetClaim(
    told=Told(
        name="scale",
        source="VideoPoet, arXiv 2312.14125, section 5.4 (model scale)",
        statement="Larger networks are better: with every size the loss on held-out worlds falls, for the same worlds, "
        "tasks and number of steps",
        rule=f"bits per token on held-out worlds, of each size over those of the next larger, mean log ratio over "
        f"{len(ASKS)} tasks: 95 % t-intervals over seeds above 0, every time; fail if one lies below 0",
    ),
    arms=arms,
    judge=judge,
    aside=aside,
    charts=charts,
)

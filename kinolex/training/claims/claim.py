"""A claim as a value: what a paper says, which arms test it, what is measured, and the rule."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kinolex.evaluation.page import Html
from kinolex.training.claims.arms import Arm, arm_flops
from kinolex.training.claims.measures import Figures
from kinolex.training.claims.pairs import Measure
from kinolex.training.claims.rules import Finding
from kinolex.training.claims.scales import FLOPS_PER_SECOND, Scale


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Figures by arm and seed."""

    scale: Scale
    rows: dict[tuple[str, int], Figures]

    def values(self, arm: str, figure: str) -> list[float]:
        """One of every seed, in their order."""
        return [self.rows[arm, seed][figure] for seed in self.scale.seeds]

    def mean(self, arm: str, figure: str) -> float:
        """Geometric where all are positive, since rules look at ratios."""
        values = self.values(arm, figure)
        return math.exp(statistics.fmean(map(math.log, values))) if min(values) > 0 else statistics.fmean(values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    name: str
    source: str
    statement: str
    rule: str
    """In words; `judge` is the rule."""
    arms: Callable[[Scale], tuple[Arm, ...]]
    measures: dict[str, Measure]
    """By name of the arm; "" stands for all others."""
    judge: Callable[[Table], list[Finding]]
    charts: Callable[[Table], list[Html]]
    compared: Callable[[Scale], list[tuple[str, ...]]] = field(default=lambda scale: [])
    """Arms that must cost the same; none: all."""
    timed: tuple[str, ...] = ()
    """Arms whose measure reads a clock: nothing else runs beside it."""

    def measure(self, arm: Arm) -> Measure:
        return self.measures.get(arm.name) or self.measures[""]


def distinct(arms: Sequence[Arm]) -> list[Arm]:
    """One arm of those that share their networks."""
    kept: list[Arm] = []
    for arm in arms:
        if not any((arm.config, arm.tokenizer) == (other.config, other.tokenizer) for other in kept):
            kept.append(arm)
    return kept


def claim_flops(claims: Sequence[Claim], scale: Scale) -> int:
    """Operations of training all arms of some claims for all seeds; what they share counts once."""
    arms = distinct([arm for claim in claims for arm in claim.arms(scale)])
    return len(scale.seeds) * sum(arm_flops(arm, scale) for arm in arms)


def minutes(flops: int) -> float:
    return flops / FLOPS_PER_SECOND / 60

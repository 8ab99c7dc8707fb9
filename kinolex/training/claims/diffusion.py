"""A masked transformer against flow matching on the same tokens."""

from __future__ import annotations

from dataclasses import replace

from kinolex.training.claims.arms import Arm, base_arm, of_equal_cost
from kinolex.training.claims.claim import Claim, Table
from kinolex.training.claims.commit import by_task
from kinolex.training.claims.measures import DISTANCE, eight_tasks
from kinolex.training.claims.rules import Finding, log_ratios, more_than
from kinolex.training.claims.scales import Scale

MASKED = "masked transformer"
MANY = 50
"""Steps of flow that nobody calls few; the other number of steps is the masked transformer's number of passes."""
FEW_STEPS, MANY_STEPS = "flow matching, as many steps", f"flow matching, {MANY} steps"


def arms(scale: Scale) -> tuple[Arm, ...]:
    base = base_arm(scale, MASKED)
    flow = replace(base, config=of_equal_cost(base.config, "diffusion", scale))
    return base, replace(flow, name=FEW_STEPS), replace(flow, name=MANY_STEPS, passes=MANY)


def judge(figures: Table) -> list[Finding]:
    masked = figures.values(MASKED, DISTANCE)
    return [
        more_than(f"distance of {name} over that of the {MASKED}", log_ratios(figures.values(name, DISTANCE), masked))
        for name in (FEW_STEPS, MANY_STEPS)
    ]


CLAIM = Claim(
    name="lm-against-diffusion",
    source="MAGVIT-v2, arXiv 2310.05737",
    statement="On the same tokens, with as many parameters and as much arithmetic in training, a masked language model "
    "makes better video than diffusion",
    rule="distance, mean over the eight pixel tasks, lower than that of flow matching in as many passes and in "
    f"{MANY} steps: 95 % t-interval over seeds of the log ratio above 0, both times; fail if one lies below 0",
    arms=arms,
    measures={"": eight_tasks},
    judge=judge,
    charts=lambda figures: [by_task(figures, (MASKED, FEW_STEPS, MANY_STEPS))],
)

"""COMMIT against masking alone, and against fewer of its losses."""

from __future__ import annotations

from dataclasses import replace

from kinolex.evaluation.page import Html, table
from kinolex.training.claims.arms import PIXEL_TASKS, Arm, base_arm
from kinolex.training.claims.claim import Claim, Table
from kinolex.training.claims.measures import DISTANCE, eight_tasks
from kinolex.training.claims.rules import Finding, log_ratios, more_than
from kinolex.training.claims.scales import Scale

COMMIT = "commit"
OTHERS = {
    "hidden instead of conditions": {"corruption": "mask"},
    "mask loss only": {"losses": ("mask",)},
    "mask and reconstruct losses": {"losses": ("mask", "reconstruct")},
}


def arms(scale: Scale) -> tuple[Arm, ...]:
    base = base_arm(scale, COMMIT)
    others = (
        replace(base, name=name, config=replace(base.config, **changes))  # type: ignore[arg-type]
        for name, changes in OTHERS.items()
    )
    return base, *others


def judge(figures: Table) -> list[Finding]:
    commit = figures.values(COMMIT, DISTANCE)
    return [
        more_than(f"distance of {name} over that of COMMIT", log_ratios(figures.values(name, DISTANCE), commit))
        for name in OTHERS
    ]


def by_task(figures: Table, names: tuple[str, ...]) -> Html:
    """Distances of every task, a column for each arm."""
    rows = [[task, *(figures.mean(name, f"{DISTANCE} {task}") for name in names)] for task in PIXEL_TASKS]
    mean = ["all eight", *(figures.mean(name, DISTANCE) for name in names)]
    return table(["task", *names], [*rows, mean], caption=f"{DISTANCE}, mean over seeds, lower is better")


CLAIM = Claim(
    name="commit",
    source="MAGVIT, arXiv 2212.05199, table 5",
    statement="A network trained by COMMIT makes better video over all tasks than one whose given tokens are only "
    "hidden, and than one that is taught by the mask loss alone or without the refine loss",
    rule="COMMIT's distance, mean over the eight pixel tasks, is lower than that of each other arm: 95 % t-interval "
    "over seeds of the log ratio above 0, three times; fail if one lies below 0",
    arms=arms,
    measures={"": eight_tasks},
    judge=judge,
    charts=lambda figures: [by_task(figures, (COMMIT, *OTHERS))],
)

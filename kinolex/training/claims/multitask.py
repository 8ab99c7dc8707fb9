"""One network for eight tasks against networks for one."""

from __future__ import annotations

import statistics
from dataclasses import replace

from kinolex.training.claims.arms import PIXEL_TASKS, Arm, base_arm
from kinolex.training.claims.claim import Claim, Table
from kinolex.training.claims.commit import by_task
from kinolex.training.claims.measures import DISTANCE, eight_tasks
from kinolex.training.claims.rules import Finding, log_ratios, more_than, no_more_than
from kinolex.training.claims.scales import Scale

MULTI = "all eight tasks"
SINGLE = {"frame-prediction only": "frame-prediction", "outpaint-central only": "outpaint-central"}
NOISE = 2.0
"""An interval that reaches this ratio says too little to call two distances the same."""
FAR = 2.0
"""How many times better off-task."""


def arms(scale: Scale) -> tuple[Arm, ...]:
    base = base_arm(scale, MULTI)
    single = (
        replace(base, name=name, config=replace(base.config, task_shares=((task, 1.0),)))
        for name, task in SINGLE.items()
    )
    return base, *single


def judge(figures: Table) -> list[Finding]:
    findings = []
    for name, task in SINGLE.items():
        on = f"{DISTANCE} {task}"
        logs = log_ratios(figures.values(MULTI, on), figures.values(name, on))
        findings.append(no_more_than(f"distance of {MULTI} over that of {name}, at {task}", logs, NOISE))
        logs = log_ratios(_off_task(figures, name, task), _off_task(figures, MULTI, task))
        findings.append(more_than(f"distance of {name} over that of {MULTI}, at the other seven", logs, FAR))
    return findings


def _off_task(figures: Table, name: str, task: str) -> list[float]:
    others = [figures.values(name, f"{DISTANCE} {other}") for other in PIXEL_TASKS if other != task]
    return [statistics.fmean(values) for values in zip(*others, strict=True)]


CLAIM = Claim(
    name="multitask",
    source="MAGVIT, arXiv 2212.05199, tables 3 to 5",
    statement="A network for eight tasks is as good at a task as one that was trained for nothing else, and more than "
    "twice as good at the tasks that the other never saw",
    rule=f"on its own task: 95 % t-interval over seeds of the log ratio reaches down to 0, below log {NOISE:g}; "
    f"off-task, mean of the other seven: interval above log {FAR:g}; for both single tasks; fail if one lies on the "
    "wrong side",
    arms=arms,
    measures={"": eight_tasks},
    judge=judge,
    charts=lambda figures: [by_task(figures, (MULTI, *SINGLE))],
)

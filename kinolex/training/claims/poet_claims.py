"""Claims about VideoPoet's network: arms, seed by seed, into rows; a rule over the rows; a result and a page.

claim, scale --rows_of--> a row for every arm and seed --judge--> verdict        --aside--> what is told beside it
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kinolex.evaluation.page import Html, table
from kinolex.training.claims.beside import Told, result_of, write_verdict
from kinolex.training.claims.lab import Say
from kinolex.training.claims.poet_lab import MADE, TRAIN_SECONDS, PoetLab, figure_name, rows_of
from kinolex.training.claims.poets import ASKS, Ask, PoetArm, PoetScale, arm_flops
from kinolex.training.claims.rules import Finding, log_ratios

Rows = Sequence[dict[str, Any]]
"""In the order of seeds, for every arm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoetClaim:
    told: Told
    arms: Callable[[PoetScale], tuple[PoetArm, ...]]
    judge: Callable[[Rows, Sequence[str]], list[Finding]]
    """Rows and names of the arms in their order; its findings are the verdict."""
    aside: Callable[[Rows, Sequence[str]], list[Finding]]
    """Comparisons that are told beside the verdict and decide nothing."""
    charts: Callable[[dict[str, Any]], list[Html]]
    """Of a result."""


def reproduce_poets(
    claim: PoetClaim,
    scale: PoetScale,
    folder: Path,
    results: Path | None = None,
    *,
    device: str = "cpu",
    command: str | None = None,
    workers: int = 1,
    say: Say = lambda _line: None,
) -> dict[str, Any]:
    """Test one claim, or go on where an earlier call stopped.

    Args:
        folder: keeps tokens, networks and rows, which claims of one scale share.
        results: gets reproduce_NAME.json and its page; None writes nothing.
        workers: networks that are trained at once, each in a process.

    Returns:
        A result in the schema of kinolex.evaluation.protocol with `verdict`, `findings`, `aside` (findings that decide
        nothing), `learned` (tasks of ASKS that every arm was trained for), `training_flops` and `parameters`.
    """
    name, arms = claim.told.name, claim.arms(scale)
    rows = rows_of(arms, scale, folder, device=device, workers=workers, say=lambda line: say(f"{name}: {line}"))
    protocol = PoetLab(scale, folder, device).protocol(name, arms)
    result = summarised(claim, scale, rows, protocol, command)
    if results is not None:
        caption = "bits per token of what is made, those before it known; mean over seeds, lower is better"
        write_verdict(results, claim.told, result, caption, *_aside(result), *claim.charts(result))
    return result


def summarised(claim: PoetClaim, scale: PoetScale, rows: Rows, protocol: Any, command: str | None) -> dict[str, Any]:
    """The result of rows of all seeds and arms."""
    arms = claim.arms(scale)
    names = [arm.name for arm in arms]
    columns = {ask.task: figure_name(ask.task) for ask in ASKS} | {MADE: MADE, TRAIN_SECONDS: TRAIN_SECONDS}
    means = {
        name: {column: statistics.fmean(values_of(rows, name, key)) for column, key in columns.items()}
        for name in names
    }
    result = result_of(claim.told, rows, claim.judge(rows, names), means, protocol, scale.seeds, command)
    return result | {
        "aside": [asdict(finding) for finding in claim.aside(rows, names)],
        "learned": {arm.name: [ask.task for ask in ASKS if arm.knows(ask)] for arm in arms},
        "steps": {arm.name: arm.config.steps for arm in arms},
        "training_flops": {arm.name: arm_flops(arm.config) for arm in arms},
        "parameters": {name: int(values_of(rows, name, "parameters")[0]) for name in names},
    }


def values_of(rows: Rows, arm: str, figure: str) -> list[float]:
    """One of every seed, in their order."""
    return [float(row[figure]) for row in rows if row["arm"] == arm]


def mean_logs(rows: Rows, above: str, below: str, figures: Sequence[str]) -> list[float]:
    """Log ratio of two arms' figures for every seed, mean over some figures."""
    each = [log_ratios(values_of(rows, above, key), values_of(rows, below, key)) for key in figures]
    return [statistics.fmean(logs) for logs in zip(*each, strict=True)]


def bits_of(asks: Sequence[Ask]) -> list[str]:
    """Names of the figures that rules look at."""
    return [figure_name(ask.task) for ask in asks]


def _aside(result: dict[str, Any]) -> list[Html]:
    keys = ("what", "ratio", "low", "high")
    compared = [[one[key] for key in keys] for one in result["aside"]]
    arms = [
        [name, result["parameters"][name], result["steps"][name], flops / 1e12, ", ".join(result["learned"][name])]
        for name, flops in result["training_flops"].items()
    ]
    headers = ["arm", "parameters", "steps", "TFLOP of training", "trained for"]
    return [
        table(["ratio", "mean", "low", "high"], compared, caption="Told beside the verdict; 95 % t-intervals"),
        table(headers, arms, caption="Arms, and which of the tasks above they were trained for; others they never saw"),
    ]

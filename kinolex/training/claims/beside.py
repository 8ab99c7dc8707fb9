"""What claims share that stand beside the table of arms: each has a scale of its own, its findings make a verdict.

rows, findings --told--> result          result --verdict_page--> the whole document
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kinolex.evaluation.page import Html, note, page, section, table, write_text
from kinolex.evaluation.protocol import Protocol, make_result, write_result
from kinolex.training.claims.rules import Finding, verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What a claim says, and where."""

    name: str
    source: str
    statement: str
    rule: str


def result_of(
    told: Told,
    rows: Sequence[dict[str, Any]],
    findings: Sequence[Finding],
    means: Mapping[str, Mapping[str, float]],
    protocol: Protocol,
    seeds: Sequence[int],
    command: str | None,
) -> dict[str, Any]:
    """A result in the schema of kinolex.evaluation.protocol with `verdict` and `findings`.

    Args:
        means: figures of every arm; a mean over different arms says nothing.
    """
    return make_result(f"reproduce_{told.name}", [*rows], protocol, command=command) | {
        "mean": {},
        "statement": told.statement,
        "source": told.source,
        "rule": told.rule,
        "verdict": verdict(findings),
        "findings": [asdict(finding) for finding in findings],
        "seeds": [*seeds],
        "means": {arm: dict(figures) for arm, figures in means.items()},
    }


def write_verdict(folder: Path, told: Told, result: dict[str, Any], caption: str, *more: Html) -> None:
    """reproduce_NAME.json and reproduce_NAME.html."""
    write_result(folder / f"reproduce_{told.name}.json", result)
    write_text(folder / f"reproduce_{told.name}.html", verdict_page(told, result, caption, *more))


def verdict_page(told: Told, result: dict[str, Any], caption: str, *more: Html) -> str:
    """The whole document.

    Args:
        caption: of the table of means.
        more: charts that follow it.
    """
    headers = ["ratio", "mean", "low", "high", "needed", "outcome"]
    keys = ("what", "ratio", "low", "high", "needed", "outcome")
    findings = [[one[key] for key in keys] for one in result["findings"]]
    columns = list(dict.fromkeys(key for figures in result["means"].values() for key in figures))
    arms = [[arm, *(figures.get(key) for key in columns)] for arm, figures in result["means"].items()]
    lead = (
        f"{told.source}; seeds {', '.join(map(str, result['seeds']))}; {result['command']}; {result['protocol_hash']}"
    )
    claim = table(headers, findings, caption="95 % t-intervals over seeds")
    return page(
        f"{told.name}: {result['verdict']}",
        [
            section("The claim", told.statement, f"Rule: {told.rule}.", claim),
            section("Figures", table(["arm", *columns], arms, caption=caption), *more),
            section("Where", note(f"on {result['hardware']}, commit {result['commit']}")),
        ],
        lead=lead,
    )

"""`kinolex reproduce`: a claim's arms, seed by seed, into rows; its rule over the rows; a result and a page.

claim, scale --arms x seeds--> train, measure --> rows.jsonl --rule--> reproduce_NAME.json and .html

Rows are found by what made them, so a run that was killed goes on, and claims share arms.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kinolex import checkpoint, hub
from kinolex.errors import UsageError
from kinolex.evaluation.page import Html, note, page, section, table, write_text
from kinolex.evaluation.protocol import Hashed, make_result, summarise, write_result
from kinolex.evaluation.row_store import RowStore, row_key
from kinolex.training.claims import commit, diffusion, multitask, parallel, vocabulary
from kinolex.training.claims.arms import Arm, arm_flops, arm_parameters
from kinolex.training.claims.claim import Claim, Table, distinct
from kinolex.training.claims.lab import Lab, Say
from kinolex.training.claims.measures import FEATURES, VERSION, readable
from kinolex.training.claims.pairs import Measure, ahead, measured_pair
from kinolex.training.claims.rules import COVERAGE, Finding, verdict
from kinolex.training.claims.scales import Scale

CLAIMS: dict[str, Claim] = {
    claim.name: claim for claim in (commit.CLAIM, multitask.CLAIM, parallel.CLAIM, vocabulary.CLAIM, diffusion.CLAIM)
}
NOT_FIGURES = ("key", "name", "arm", "seed", "train_seconds", "measure_seconds", "training_flops")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimProtocol(Hashed):
    """All that must agree before two results of a claim may be compared."""

    claim: str
    scale: Scale
    arms: dict[str, str]
    """Hash of every arm's recipes."""
    features: str
    """Fingerprint of the feature network."""
    interval: str = f"Student's t over seeds, paired by seed, coverage {COVERAGE:g}"
    seed: int = 0
    bootstrap_draws: int = 10_000
    """Of the intervals of `mean`, over seeds; rules use the t-interval."""
    version: int = VERSION


def claim_named(name: str) -> Claim:
    """Raises UsageError for a name that is not in CLAIMS."""
    if name not in CLAIMS:
        raise UsageError(f"no claim {name!r}; choose one of {', '.join(CLAIMS)}, or all")
    return CLAIMS[name]


def reproduce(
    claim: Claim,
    scale: Scale,
    folder: Path,
    results: Path | None = None,
    *,
    device: str = "cpu",
    command: str | None = None,
    lab: Lab | None = None,
    workers: int = 1,
    say: Say = lambda _line: None,
) -> dict[str, Any]:
    """Test one claim, or go on where an earlier call stopped.

    Args:
        folder: networks, tokens and rows; finished pairs of arm and seed found there are kept.
        results: gets reproduce_NAME.json and its page; None writes nothing.
        lab: that an earlier claim of the same scale and folder used.
        workers: pairs that are trained at once, each in a process.

    Returns:
        A result in the schema of kinolex.evaluation.protocol with `verdict`, `findings` and `arms`.

    Raises:
        KeyboardInterrupt: asked to stop; nothing that was finished is lost.
    """
    lab = lab or Lab(scale, folder, device=device, say=say)
    store, arms = RowStore(folder / scale.name / "rows.jsonl"), claim.arms(scale)
    pairs = [(arm, seed, claim.measure(arm)) for seed in scale.seeds for arm in arms]
    keys = [row_key(measure.__name__, lab.key(arm, seed), arm.passes, _measured(scale)) for arm, seed, measure in pairs]
    todo = {key: pair for key, pair in zip(keys, pairs, strict=True) if store.get(key) is None}
    clock = _Eta(claim, lab, arms, say)
    if workers > 1 and len(todo) > 1:
        _work_ahead(claim, lab, store, todo, workers, clock)
    rows: list[dict[str, Any]] = []
    for number, (key, (arm, seed, measure)) in enumerate(zip(keys, pairs, strict=True), start=1):
        row = store.get(key)
        if row is None:
            clock.tell(number, len(pairs), arm, seed)
            row = store.put(key, measured_pair(lab, arm, seed, measure))
            clock.done(arm, seed)
        # Claims that share a network and a measure call the arm by names of their own.
        rows.append(row | {"name": f"{arm.name}, seed {seed}", "arm": arm.name})
    protocol = ClaimProtocol(
        claim=claim.name,
        scale=scale,
        arms={arm.name: row_key(lab.key(arm, 0), arm.passes) for arm in arms},
        features=_fingerprint(),
    )
    result = summarised(claim, scale, arms, rows, protocol, command)
    if results is not None:
        write_result(results / f"reproduce_{claim.name}.json", result)
        write_text(results / f"reproduce_{claim.name}.html", claim_page(claim, result, _table(scale, rows)))
    return result


def summarised(
    claim: Claim,
    scale: Scale,
    arms: Sequence[Arm],
    rows: list[dict[str, Any]],
    protocol: ClaimProtocol,
    command: str | None,
) -> dict[str, Any]:
    """The result of rows of all pairs."""
    findings = claim.judge(_table(scale, rows))
    result = make_result(f"reproduce_{claim.name}", rows, protocol, command=command)
    # A mean over different arms says nothing.
    result["mean"] = {
        arm.name: summarise([_figures(row) for row in rows if row["arm"] == arm.name], protocol) for arm in arms
    }
    return result | {
        "statement": claim.statement,
        "source": claim.source,
        "rule": claim.rule,
        "verdict": verdict(findings),
        "findings": [asdict(finding) for finding in findings],
        "seeds": list(scale.seeds),
        "eval_clips": scale.eval_clips,
        "training_flops": {arm.name: arm_flops(arm, scale) for arm in arms},
        "parameters": {arm.name: arm_parameters(arm) for arm in arms},
        "train_seconds": sum(
            row["train_seconds"] for row in rows if row["arm"] in {arm.name for arm in distinct(arms)}
        ),
        "measure_seconds": sum(row["measure_seconds"] for row in rows),
    }


def claim_page(claim: Claim, result: dict[str, Any], figures: Table) -> str:
    """The whole document."""
    findings = [Finding(**one) for one in result["findings"]]
    told = [[one.what, one.ratio, one.low, one.high, one.needed, one.outcome] for one in findings]
    spent = (result["train_seconds"] + result["measure_seconds"]) / 60
    lead = (
        f"{claim.source}; scale {figures.scale.name}, seeds {', '.join(map(str, figures.scale.seeds))}, "
        f"{result['eval_clips']} worlds; {result['command']}; protocol {result['protocol_hash']}"
    )
    return page(
        f"{claim.name}: {result['verdict']}",
        [
            section(
                "The claim",
                claim.statement,
                f"Rule: {claim.rule}.",
                table(
                    ["ratio", "mean", "low", "high", "needed", "outcome"], told, caption="95 % t-intervals over seeds"
                ),
            ),
            section("Figures", *claim.charts(figures)),
            section(
                "Arms", _arms(result), note(f"{spent:.1f} minutes on {result['hardware']}, commit {result['commit']}")
            ),
        ],
        lead=lead,
    )


def _arms(result: dict[str, Any]) -> Html:
    means = result["mean"]
    columns = [key for key, _ in readable(next(iter(means.values())))]
    rows = [
        [
            name,
            result["training_flops"][name] / 1e12,
            result["parameters"][name],
            *(one.get(key, {}).get("mean") for key in columns),
        ]
        for name, one in means.items()
    ]
    return table(["arm", "TFLOP of training", "parameters", *columns], rows, caption="means over seeds")


def _work_ahead(
    claim: Claim, lab: Lab, store: RowStore, todo: dict[str, tuple[Arm, int, Measure]], workers: int, clock: _Eta
) -> None:
    """Pairs by their keys, several at once; what is timed is trained only."""
    keys = {(arm.name, seed): key for key, (arm, seed, _) in todo.items()}
    pairs = [(arm, seed, None if arm.name in claim.timed else measure) for arm, seed, measure in todo.values()]
    pairs = [(arm, seed, measure) for arm, seed, measure in pairs if measure or not lab.is_trained(arm, seed)]
    clock.say(f"{claim.name}: {len(pairs)} pairs of arm and seed, {workers} at a time")
    for number, ((arm, seed, _), row) in enumerate(ahead(lab, pairs, workers), start=1):
        if row is not None:
            store.put(keys[arm.name, seed], row)
        clock.done(arm, seed)
        clock.tell(number, len(pairs), arm, seed)


def _figures(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in NOT_FIGURES}


def _table(scale: Scale, rows: Sequence[dict[str, Any]]) -> Table:
    return Table(scale, {(row["arm"], row["seed"]): _figures(row) for row in rows})


def _measured(scale: Scale) -> list[Any]:
    """What measuring depends on besides the arm: everything of a scale but which seeds there are."""
    fields = asdict(scale)
    fields.pop("seeds")
    return [fields, VERSION, _fingerprint()]


def _fingerprint() -> str:
    return checkpoint.read_description(hub.locate(FEATURES))["fingerprint"]


class _Eta:
    """How far a claim is, and how long the rest will take by the operations of what is not trained yet."""

    def __init__(self, claim: Claim, lab: Lab, arms: Sequence[Arm], say: Say) -> None:
        self.claim, self.lab, self.say = claim, lab, say
        self.todo = {
            lab.key(arm, seed): arm_flops(arm, lab.scale)
            for seed in lab.scale.seeds
            for arm in arms
            if not lab.is_trained(arm, seed)
        }
        self.total, self.began = sum(self.todo.values()), time.monotonic()

    def tell(self, number: int, total: int, arm: Arm, seed: int) -> None:
        left = sum(self.todo.values())
        spent, through = time.monotonic() - self.began, self.total - left
        eta = f", about {spent / through * left / 60:.0f} minutes to go" if through else ""
        self.say(f"{self.claim.name} {number}/{total}: {arm.name}, seed {seed}{eta}")

    def done(self, arm: Arm, seed: int) -> None:
        self.todo.pop(self.lab.key(arm, seed), None)

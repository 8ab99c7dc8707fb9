"""Tokens keep what actions are recognised by, and those of MAGVIT-v2 more of it than those of MAGVIT.

worlds --attentive probe--> learns from raw pixels --> is shown held-out worlds raw, and as each tokenizer decodes them

The paper's way: a network that never saw a decoded clip is shown some. One probe a seed serves all arms, so this claim
trains no generator and stands beside the other claims, not among their arms.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from kinolex import hub
from kinolex.evaluation.protocol import Hashed
from kinolex.evaluation.row_store import RowStore, row_key
from kinolex.evaluation.understanding_scores import said_of_items, wanted_of_items
from kinolex.evaluation.understanding_sets import FRAMES, SIDE, LabelledClips, SetConfig, labelled_set
from kinolex.models.probe import Probe, ProbeConfig
from kinolex.training.claims.beside import Told, result_of, write_verdict
from kinolex.training.claims.lab import Say
from kinolex.training.claims.rules import COVERAGE, Finding, log_ratios, more_than
from kinolex.training.claims.scales import scale_among
from kinolex.training.probe_data import Inputs
from kinolex.training.probe_run import FitConfig, SizeConfig, fit, judged, new_probe

TOLD = Told(
    name="tokens-keep-semantics",
    source="MAGVIT-v2, arXiv 2310.05737, action recognition",
    statement="A network that learned from raw pixels loses less accuracy on clips decoded from MAGVIT-v2's tokens "
    "than on clips decoded from MAGVIT's",
    rule="accuracy on held-out worlds, mean over action, shape and number: higher through magvit2-nano than through "
    "magvit-nano, so that the drop from raw pixels is smaller: 95 % t-interval over seeds of the log ratio above 0; "
    "fail if it lies below 0",
)
NAME = TOLD.name
RAW, LATER, EARLIER = "raw pixels", "magvit2-nano", "magvit-nano"
ARMS = (RAW, LATER, EARLIER)
MEAN = "accuracy"
CAPTION = "share of right answers of a probe that learned from raw pixels, mean over seeds"
VERSION = 1
"""Raised when the meaning of a figure changes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SemanticsScale:
    name: str
    worlds: SetConfig
    fit: FitConfig
    size: SizeConfig = field(default_factory=lambda: SizeConfig(kind="attentive"))
    seeds: tuple[int, ...] = (0, 1, 2)


SCALES: dict[str, SemanticsScale] = {
    scale.name: scale
    for scale in (
        SemanticsScale(
            name="tiny", worlds=SetConfig(name="worlds", train=4, test=3), fit=FitConfig(steps=2, batch=2, lr=2e-3)
        ),
        SemanticsScale(
            name="nano", worlds=SetConfig(name="worlds", train=1500, test=300), fit=FitConfig(steps=600, lr=2e-3)
        ),
        SemanticsScale(
            name="small",
            worlds=SetConfig(name="worlds", train=20_000, test=2000),
            fit=FitConfig(steps=10_000, lr=2e-3),
            seeds=(0, 1, 2, 3, 4),
        ),
    )
}
"""tiny is for tests: it runs, and says nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SemanticsProtocol(Hashed):
    """All that must agree before two results may be compared."""

    scale: SemanticsScale
    tokenizers: tuple[str, ...]
    """Fingerprints, in the order of the arms."""
    claim: str = NAME
    interval: str = f"Student's t over seeds, paired by seed, coverage {COVERAGE:g}"
    seed: int = 0
    bootstrap_draws: int = 10_000
    version: int = VERSION


scale_named = partial(scale_among, SCALES)


def probes_flops(scale: SemanticsScale) -> int:
    """Operations of training the probes of all seeds: forward counted by torch, backward twice that."""
    time_px, side_px = 4, 8
    grid = (1 + (FRAMES - 1) // time_px, SIDE // side_px, SIDE // side_px)
    features = 3 * time_px * side_px**2
    sizes = asdict(scale.size)
    with torch.device("meta"), torch.no_grad():
        probe = Probe(ProbeConfig(features=features, outputs=(("action", ("one", "other")),), **sizes))
        with FlopCounterMode(display=False) as counter:
            probe(torch.empty(1, grid[0] * grid[1] * grid[2], features), grid)
    return 3 * counter.get_total_flops() * scale.fit.steps * scale.fit.batch * len(scale.seeds)


def reproduce_semantics(
    scale: SemanticsScale,
    folder: Path,
    results: Path | None = None,
    *,
    device: str = "cpu",
    command: str | None = None,
    say: Say = lambda _line: None,
) -> dict[str, Any]:
    """Test the claim, or go on where an earlier call stopped.

    Args:
        folder: keeps tokens, decoded worlds and finished seeds.
        results: gets reproduce_NAME.json and its page; None writes nothing.
        device: of the tokenizers; probes train on the CPU.

    Returns:
        A result in the schema of kinolex.evaluation.protocol with `verdict` and `findings`.
    """
    folder = folder / f"{NAME}-{scale.name}"
    tokenizers = {name: hub.load(name).to(device) for name in (LATER, EARLIER)}
    fingerprints = tuple(tokenizer.fingerprint for tokenizer in tokenizers.values())
    say(f"rendering worlds for {NAME}")
    clips = labelled_set(scale.worlds, None)
    # All arms are cut into the same patches: decoded worlds are pictures like any other.
    train = Inputs(clips.train, tokenizers[LATER])
    shown = {RAW: clips.test}
    for name, tokenizer in tokenizers.items():
        decoded_NTHWC = Inputs(clips.test, tokenizer, folder / "tokens").decoded
        shown[name] = LabelledClips(decoded_NTHWC, clips.test.labels, clips.test.items_N)
    store, rows = RowStore(folder / "rows.jsonl"), list[dict[str, Any]]()
    for number, seed in enumerate(scale.seeds, start=1):
        key = row_key(
            VERSION, train.digest, *fingerprints, asdict(scale.fit), asdict(scale.size), scale.worlds.test, seed
        )
        if (row := store.get(key)) is None:
            say(f"{NAME} {number}/{len(scale.seeds)}: seed {seed}")
            began = time.monotonic()
            probe = fit(new_probe(clips, train, "raw", scale.size, seed), train, "raw", scale.fit, seed)
            figures = {arm: accuracies(probe, Inputs(part, tokenizers[LATER])) for arm, part in shown.items()}
            row = store.put(key, {"figures": figures, "seconds": time.monotonic() - began})
        rows += [{"name": f"{arm}, seed {seed}", "arm": arm, "seed": seed} | row["figures"][arm] for arm in ARMS]
        rows[-1]["seconds"] = row["seconds"]
    result = summarised(rows, SemanticsProtocol(scale=scale, tokenizers=fingerprints), command)
    if results is not None:
        write_verdict(results, TOLD, result, CAPTION)
    return result


def accuracies(probe: Probe, inputs: Inputs) -> dict[str, float]:
    """Share of right answers of every attribute, among the clips that tell it, and their mean."""
    found, items = {}, inputs.clips.items_N
    for name, probabilities_NV in judged(probe, inputs, "raw").items():
        wanted_N = wanted_of_items(inputs.clips.labels[name], items)
        said_N = said_of_items(probabilities_NV.numpy(), items)
        found[name] = float((said_N == wanted_N)[wanted_N >= 0].mean())
    return found | {MEAN: float(np.mean(list(found.values())))}


def findings_of(rows: list[dict[str, Any]]) -> list[Finding]:
    later, earlier = ([row[MEAN] for row in rows if row["arm"] == arm] for arm in (LATER, EARLIER))
    return [more_than(f"accuracy through {LATER} over that through {EARLIER}", log_ratios(later, earlier))]


def summarised(rows: list[dict[str, Any]], protocol: SemanticsProtocol, command: str | None) -> dict[str, Any]:
    """The result of rows of all seeds and arms."""
    means = {
        arm: {key: float(np.mean([row[key] for row in rows if row["arm"] == arm])) for key in _figures(rows[0])}
        for arm in ARMS
    }
    result = result_of(TOLD, rows, findings_of(rows), means, protocol, protocol.scale.seeds, command)
    return result | {
        "over_raw": {arm: means[arm][MEAN] / max(means[RAW][MEAN], 1e-9) for arm in (LATER, EARLIER)},
        "seconds": sum(row.get("seconds", 0.0) for row in rows),
    }


def _figures(row: dict[str, Any]) -> list[str]:
    return [key for key in row if key not in ("name", "arm", "seed", "seconds")]

"""Are tokens good for recognition? The same probes on tokens, on what they decode to, and on raw pixels or sound.

tokenizer, sets --Inputs--> probes: kinds x inputs x seeds --> what each says of every test clip --> rows
rows --> accuracy, ratio to raw, classes, confusions --> understanding_NAME.json and .html

Rows are found by what made them, so an evaluation that was killed goes on. Lives in training because it trains;
evaluation must not import training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kinolex.errors import UsageError
from kinolex.evaluation.page import write_text
from kinolex.evaluation.protocol import Hashed, check_fields, make_result, write_result
from kinolex.evaluation.row_store import RowStore, row_key
from kinolex.evaluation.understanding_page import understanding_page
from kinolex.evaluation.understanding_scores import accuracy, confusion, ratio, said_of_items, wanted_of_items
from kinolex.evaluation.understanding_sets import PICTURES, SOUNDS, LabelledSet, SetConfig, labelled_set
from kinolex.models.probe import KINDS, Probe, ProbeKind
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training.probe_data import Inputs
from kinolex.training.probe_run import FitConfig, SizeConfig, fit, fit_hidden, judged, new_probe
from kinolex.understanding.features import INPUTS

RAW, DECODED = "raw", "decoded"
TRANSFER, TRANSFER_OF_SOUNDS = "decoded, probe of raw pixels", "decoded, probe of raw sound"
"""The paper's way: a network that learned from what is raw is given what is decoded."""
FEW = "transformer, few labels"
FEW_HIDDEN = "transformer, few labels, hidden tokens first"
HIDDEN_INPUT = "digits"
OTHERS = ", ".join(name for name in INPUTS if name != RAW)
VERSION = 1
"""Raised when the meaning of a figure changes."""

OnRuns = Callable[[int, int | None], None]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class UnderstandingProtocol(Hashed):
    """Which clips or sounds, which probes, and how they learn."""

    sets: tuple[SetConfig, ...] = tuple(SetConfig(name=name) for name in PICTURES)
    """All of pictures or all of sounds."""
    kinds: tuple[ProbeKind, ...] = KINDS
    inputs: tuple[str, ...] = INPUTS
    seeds: tuple[int, ...] = (0, 1, 2)
    fit: FitConfig = field(default_factory=lambda: FitConfig(steps=300))
    size: SizeConfig = field(default_factory=SizeConfig)
    few: int = 0
    """Labelled clips for the comparison with predicting hidden tokens first, of every set; 0 leaves it out."""
    levels: int | None = None
    """First codebook levels of sound tokens; None keeps all, and pictures have none to choose."""
    hidden_steps: int = 300
    """Of predicting hidden tokens of all training clips, without their labels."""
    seed: int = 0
    bootstrap_draws: int = 2000
    version: int = VERSION

    def __post_init__(self) -> None:
        inputs, kinds = set(self.inputs), set(self.kinds)
        needs = {
            "sets": (self.sets, f"some of {', '.join((*PICTURES, *SOUNDS))}"),
            "kinds": (kinds and kinds <= set(KINDS), f"some of {', '.join(KINDS)}"),
            "inputs": (RAW in inputs <= set(INPUTS), f"{RAW}, which others are compared with, and any of {OTHERS}"),
            "seeds": (self.seeds, "at least one"),
            "few": (self.few >= 0, "a number of labelled clips, or 0 for none"),
            "hidden_steps": (self.hidden_steps >= 1, "at least 1"),
        }
        check_fields("recognition", self, needs)
        of_sounds = [config.name for config in self.sets if config.of_sounds]
        if 0 < len(of_sounds) < len(self.sets):
            raise UsageError(
                f"sets of sounds ({', '.join(of_sounds)}) are read by other tokenizers than sets of pictures; "
                "evaluate them apart"
            )
        if self.levels is not None and not of_sounds:
            raise UsageError(f"tokens of pictures have no levels to choose, got {self.levels}; leave levels out")

    @property
    def of_sounds(self) -> bool:
        return self.sets[0].of_sounds


def evaluate_understanding(
    tokenizer: VideoTokenizer | SoundTokenizer,
    data: Path | None,
    protocol: UnderstandingProtocol,
    folder: Path,
    out: Path | None = None,
    *,
    name: str = "understanding",
    label: str = "",
    command: str | None = None,
    on_runs: OnRuns = lambda _done, _total: None,
) -> dict[str, Any]:
    """Train every probe on every input of every set, and compare.

    Args:
        tokenizer: of pictures or of sounds, as the sets are.
        data: folder with one sub-folder per collection; worlds need none.
        folder: keeps tokens and finished rows; call again with the same to go on.
        out: gets {name}.json and {name}.html; None writes nothing.
        label: of the tokenizer, for people.

    Returns:
        A result in the schema of kinolex.evaluation.protocol with `sets`: accuracies, ratios to raw input, confusions.

    Raises:
        DataError: a set is not there.
        UsageError: the tokenizer is of the other kind, or has not so many levels.
    """
    if isinstance(tokenizer, SoundTokenizer):
        tokenizer.levels_kept(protocol.levels)
    if isinstance(tokenizer, SoundTokenizer) != protocol.of_sounds:
        what, other = ("sounds", "pictures") if protocol.of_sounds else ("pictures", "sounds")
        names = ", ".join(config.name for config in protocol.sets)
        raise UsageError(
            f"{label or 'this'} is a tokenizer of {other}, and sets of {what} are asked of it ({names}); choose "
            f"another tokenizer, or sets of {other}: {', '.join(PICTURES if protocol.of_sounds else SOUNDS)}"
        )
    store, rows, sets = RowStore(folder / "rows.jsonl"), list[dict[str, Any]](), dict[str, Any]()
    runs = len(protocol.kinds) * len(protocol.inputs) + 2 * (protocol.few > 0)
    total, done = len(protocol.sets) * len(protocol.seeds) * runs, 0
    for config in protocol.sets:
        clips = labelled_set(config, data)
        train, test = (
            Inputs(part, tokenizer, folder / "tokens", levels=protocol.levels) for part in (clips.train, clips.test)
        )
        these: list[dict[str, Any]] = []
        for seed in protocol.seeds:
            for kind, kind_input in _ways(protocol):
                key = row_key(
                    VERSION,
                    train.digest,
                    test.digest,
                    *_made_of(tokenizer, kind_input),
                    kind,
                    kind_input,
                    seed,
                    asdict(protocol.fit),
                    asdict(protocol.size),
                    *_hidden_part(protocol, kind),
                )
                if (row := store.get(key)) is None:
                    row = store.put(key, _run(clips, train, test, protocol, kind, kind_input, seed))
                these.append(row)
                on_runs(done := done + 1, total)
        transfer = TRANSFER_OF_SOUNDS if protocol.of_sounds else TRANSFER
        flat = [one for row in these for one in _unfolded(row, transfer)]
        sets[config.name] = summarised(clips, flat, protocol)
        rows += [{"name": f"{config.name}, {row['kind']}, {row['input']}, seed {row['seed']}"} | row for row in these]
    result = make_result(name, rows, protocol, command=command) | {
        "tokenizer": label or tokenizer.fingerprint[:16],
        "fingerprint": tokenizer.fingerprint,
        "mean": {},
        "sets": sets,
    }
    if out is not None:
        write_result(out / f"{name}.json", result)
        write_text(out / f"{name}.html", understanding_page(result))
    return result


def summarised(clips: LabelledSet, rows: Sequence[dict[str, Any]], protocol: UnderstandingProtocol) -> dict[str, Any]:
    """Figures of one set from the rows of all its probes."""
    ways = list(dict.fromkeys((row["kind"], row["input"]) for row in rows))
    items = clips.test.items_N
    wanted = {name: wanted_of_items(values, items) for name, values in clips.test.labels.items()}
    said = {
        way: {
            name: np.array([row["said"][name] for row in rows if (row["kind"], row["input"]) == way]) for name in wanted
        }
        for way in ways
    }
    asked = {name: values >= 0 for name, values in wanted.items()}
    hits = {
        way: {name: (of[name] == wanted[name])[:, asked[name]].astype(np.float64) for name in wanted}
        for way, of in said.items()
    }
    dice = {"seed": protocol.seed, "draws": protocol.bootstrap_draws}
    attributes = {
        name: {
            "classes": list(classes),
            "chance": float(np.bincount(wanted[name][asked[name]]).max() / asked[name].sum()),
            "ways": [
                {"kind": way[0], "input": way[1]}
                | {"accuracy": accuracy(hits[way][name], **dice), "ratio": _ratio(hits, way, name, dice)}
                | _per_class(wanted[name][asked[name]], said[way][name][:, asked[name]], classes)
                for way in ways
            ],
        }
        for name, classes in clips.outputs
    }
    whole = {way: np.concatenate([one[name] for name in wanted], axis=1) for way, one in hits.items()}
    overall = [
        {
            "kind": way[0],
            "input": way[1],
            "accuracy": accuracy(whole[way], **dice),
            "ratio": _ratio(whole, way, None, dice),
        }
        for way in ways
    ]
    counts = {"train": len(clips.train), "test": len(clips.test), "items": len(np.unique(items))}
    return counts | {"attributes": attributes, "overall": overall}


def _ratio(hits: Any, way: tuple[str, str], name: str | None, dice: dict[str, int]) -> dict[str, float] | None:
    """To the same kind of probe on raw input; probes of few labels have none."""
    base = (way[0], RAW)
    if base not in hits or way == base:
        return None
    above, below = (hits[one] if name is None else hits[one][name] for one in (way, base))
    return ratio(above, below, **dice) if below.any() else None


def _per_class(wanted_N: Any, said_SN: Any, classes: tuple[str, ...]) -> dict[str, Any]:
    counts_VV = confusion(wanted_N, said_SN, len(classes))
    shares = {
        name: float(counts_VV[number, number] / counts_VV[number].sum()) if counts_VV[number].any() else None
        for number, name in enumerate(classes)
    }
    return {"per_class": shares, "confusion": counts_VV.tolist()}


def _ways(protocol: UnderstandingProtocol) -> list[tuple[str, str]]:
    ways = [(kind, each) for kind in protocol.kinds for each in protocol.inputs]
    return ways + ([(FEW, HIDDEN_INPUT), (FEW_HIDDEN, HIDDEN_INPUT)] if protocol.few else [])  # type: ignore[operator]


def _made_of(tokenizer: VideoTokenizer | SoundTokenizer, kind_input: str) -> list[Any]:
    """What features depend on besides the clips: raw ones too, by how patches are cut and by who decodes the test."""
    return [tokenizer.fingerprint, kind_input]


def _hidden_part(protocol: UnderstandingProtocol, kind: str) -> list[int]:
    return [protocol.few, protocol.hidden_steps] if kind in (FEW, FEW_HIDDEN) else []


def _run(
    clips: LabelledSet,
    train: Inputs,
    test: Inputs,
    protocol: UnderstandingProtocol,
    kind: str,
    kind_input: str,
    seed: int,
) -> dict[str, Any]:
    """One probe trained and judged; a probe of raw clips or sounds also on decoded ones."""
    began = time.monotonic()
    few = kind in (FEW, FEW_HIDDEN)
    size = replace(protocol.size, kind="transformer" if few else kind)  # type: ignore[arg-type]
    probe = new_probe(clips, train, kind_input, size, seed)
    if kind == FEW_HIDDEN:
        fit_hidden(probe, train, kind_input, replace(protocol.fit, steps=protocol.hidden_steps), seed)
    labelled = (
        train.some(np.linspace(0, len(train) - 1, min(protocol.few, len(train))).astype(np.int64)) if few else train
    )
    fit(probe, labelled, kind_input, protocol.fit, seed)
    row = {"kind": kind, "input": kind_input, "seed": seed, "said": _said(probe, test, kind_input)}
    if kind_input == RAW:
        row["said_decoded"] = _said(probe, test, DECODED)
    return row | {"seconds": time.monotonic() - began, "threads": torch.get_num_threads()}


def _said(probe: Probe, test: Inputs, kind_input: str) -> dict[str, list[int]]:
    found = judged(probe, test, kind_input)
    return {name: said_of_items(values.numpy(), test.clips.items_N).tolist() for name, values in found.items()}


def _unfolded(row: dict[str, Any], transfer: str) -> list[dict[str, Any]]:
    """A row, and as another what its probe of raw clips or sounds said of decoded ones."""
    if "said_decoded" not in row:
        return [row]
    return [row, row | {"input": transfer, "said": row["said_decoded"]}]

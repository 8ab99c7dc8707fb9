"""How often a trained probe is right on the test split of a labelled set.

    labelled set --Classifier--> probabilities of windows --mean over an item--> said, beside what is true --> JSON

Unlike eval understanding nothing is trained here: it says what a shipped probe can do, in figures anyone can repeat.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinolex.data.worlds.labels import UNASKED
from kinolex.errors import UsageError
from kinolex.evaluation.protocol import Hashed, heading, write_result
from kinolex.evaluation.understanding_scores import accuracy, confusion, said_of_items, wanted_of_items
from kinolex.evaluation.understanding_sets import Labelled, LabelledSet, LabelledSounds, SetConfig, labelled_set
from kinolex.models.probe import HearsConfig
from kinolex.understanding.verb import Classifier, OnFrames

LABELS_OF = {
    "weizmann64": {"action"},
    "worlds": {"action", "shape", "number"},
    "cifar10": {"thing"},
    "digits": {"digit"},
    "fsdd": {"digit", "speaker"},
    "esc10": {"sound"},
}
BATCH = 32
"""Windows that are looked at together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeProtocol(Hashed):
    """What a probe is judged on."""

    set: str
    """Of labelled clips or sounds, see understanding_sets."""
    test: int | None = None
    """So many of its test split, of all classes alike; None takes all, of worlds 300."""
    seed: int = 0
    bootstrap_draws: int = 10_000
    version: int = 1
    """Raised when a figure comes to mean something else."""


def evaluate_probe(
    classifier: Classifier,
    data: Path | None,
    protocol: ProbeProtocol,
    out_dir: str | Path | None = None,
    *,
    command: str | None = None,
    on_windows: OnFrames = lambda _done, _total: None,
) -> dict[str, Any]:
    """Shares of right answers, of every attribute that both the probe and the set know.

    Args:
        data: folder with one sub-folder per set; worlds need none.
        out_dir: gets probe_{name}_{set}.json; None writes nothing.
        on_windows: (windows seen, windows in all).

    Returns:
        Per attribute: accuracy with its 95 % interval over items, chance, accuracy of every class, and how often items
        of a class [row] were said to be of a class [column].

    Raises:
        ConfigError: no such set. DataError: it is not there, or has no labels.
        UsageError: a set of another kind, length or rate than the probe reads, or with none of its classes.
    """
    chosen = labelled_set(SetConfig(name=protocol.set, train=1, test=protocol.test), data)
    known = dict(classifier.probe.config.outputs)
    asked = [name for name, classes in chosen.outputs if known.get(name) == classes]
    if not asked:
        told, labels = (", ".join(names) for names in (known, dict(chosen.outputs)))
        fits = set_for(classifier)
        instead = f"; --set {fits} fits" if fits is not None else ""
        raise UsageError(f"{classifier.name} tells {told}, and {protocol.set} is labelled with {labels}{instead}")
    windows = _windows(classifier, chosen)
    parts: list[dict[str, NDArray[np.float32]]] = []
    for start in range(0, len(windows), BATCH):
        parts.append(classifier.probabilities(windows[start : start + BATCH]))
        on_windows(min(start + BATCH, len(windows)), len(windows))
    found = {}
    for name in asked:
        labels_N = chosen.test.labels[name]
        tells_N = labels_N != UNASKED
        items_N = chosen.test.items_N[tells_N]
        said_N = said_of_items(np.concatenate([part[name] for part in parts])[tells_N], items_N)
        wanted_N = wanted_of_items(labels_N[tells_N], items_N)
        found[name] = _figures(said_N, wanted_N, known[name], protocol)
    title = f"probe_{classifier.name}_{protocol.set}"
    result = heading(title, protocol, command) | {
        "n": len(np.unique(chosen.test.items_N)),
        "windows": len(windows),
        "tokenizer": classifier.tokenizer.fingerprint,
        "attributes": found,
    }
    if out_dir is not None:
        write_result(Path(out_dir) / f"{title}.json", result)
    return result


def set_for(classifier: Classifier) -> str | None:
    """The set whose labels the probe tells, or None if none is known."""
    told = set(dict(classifier.probe.config.outputs))
    return next((name for name, attributes in LABELS_OF.items() if told <= attributes), None)


def _windows(classifier: Classifier, chosen: LabelledSet) -> NDArray[Any]:
    """The test split as the probe reads it."""
    reads, test = classifier.reads, chosen.test
    hears = isinstance(reads, HearsConfig)
    if hears != isinstance(test, LabelledSounds):
        raise UsageError(f"{classifier.name} reads {'sounds' if hears else 'pictures'}, and {chosen.name} has none")
    if isinstance(reads, HearsConfig):
        return _sounds(classifier, test, reads, chosen.name)
    assert not isinstance(test, LabelledSounds)
    shape = test.frames_NTHWC.shape[1:4]
    if shape != (reads.frames, reads.side, reads.side) or chosen.frames_per_second != reads.frames_per_second:
        raise UsageError(
            f"{classifier.name} reads {reads.frames} frames of {reads.side}x{reads.side}, {reads.frames_per_second:g} "
            f"a second, and {chosen.name} has {shape[0]} of {shape[2]}x{shape[1]} at {chosen.frames_per_second:g}"
        )
    return test.frames_NTHWC


def _sounds(classifier: Classifier, test: Labelled, reads: HearsConfig, name: str) -> NDArray[np.float32]:
    assert isinstance(test, LabelledSounds)
    seconds = test.samples_NS.shape[1] / test.rate_hz
    if abs(seconds - reads.seconds) > 1e-3:
        raise UsageError(f"{classifier.name} hears {reads.seconds:g} s, and sounds of {name} last {seconds:g} s")
    return test.at_rate(classifier.tokenizer.config.rate_hz).samples_NS  # type: ignore[union-attr]  # one of sound


def _figures(
    said_N: NDArray[np.int64], wanted_N: NDArray[np.int64], classes: tuple[str, ...], protocol: ProbeProtocol
) -> dict[str, Any]:
    hits_1N = (said_N == wanted_N).astype(np.float64)[None]
    counts_VV = confusion(wanted_N, said_N[None], len(classes))
    of_class = {
        name: int(row[number]) / int(row.sum())
        for number, (name, row) in enumerate(zip(classes, counts_VV, strict=True))
        if row.sum()
    }
    return {
        "n": len(wanted_N),
        "accuracy": accuracy(hits_1N, seed=protocol.seed, draws=protocol.bootstrap_draws),
        "chance": 1.0 / len(classes),
        "of_class": of_class,
        "classes": list(classes),
        "confusion": counts_VV.tolist(),
    }

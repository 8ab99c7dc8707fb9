"""Judging a trained probe: right answers are counted as such, and what cannot be judged is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kinolex.data.worlds.labels import UNASKED
from kinolex.errors import ConfigError, UsageError
from kinolex.evaluation import probes
from kinolex.evaluation.probes import LABELS_OF, ProbeProtocol, evaluate_probe, set_for
from kinolex.evaluation.protocol import read_result
from kinolex.evaluation.understanding_sets import SETS, LabelledClips, LabelledSet, SetConfig
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training.probe_data import Inputs
from kinolex.training.probe_run import FitConfig, SizeConfig, fit, new_probe
from kinolex.understanding.verb import Classifier, load_classifier

LIGHT = ("dark", "bright")


def clips(labels_N: np.ndarray, shown_N: np.ndarray, items_N: np.ndarray) -> LabelledSet:
    """Windows of 5 frames of 16x16, dark or bright as `shown_N` says."""
    frames_NTHWC = np.broadcast_to((60 + 120 * shown_N)[:, None, None, None, None], (len(shown_N), 5, 16, 16, 3))
    part = LabelledClips(frames_NTHWC.astype(np.uint8), {"light": labels_N}, items_N)
    return LabelledSet("light", (("light", LIGHT),), part, part, 24.0)


@pytest.fixture
def classifier(tiny_tokenizer: VideoTokenizer) -> Classifier:
    known = clips(np.arange(12) % 2, np.arange(12) % 2, np.arange(12))
    inputs = Inputs(known.train, tiny_tokenizer)
    probe = new_probe(
        known, inputs, "raw", SizeConfig(kind="attentive", width=16, depth=1, heads=2, dropout=0.0), seed=0
    )
    fit(probe, inputs, "raw", FitConfig(steps=25, batch=8, lr=1e-2, warmup_steps=2), seed=0)
    return Classifier(probe, tiny_tokenizer, "light-probe")


def test_windows_vote_and_items_count(classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Item 0: both windows as labelled. 1: dark, labelled bright. 2: bright, as labelled. 3: does not tell.
    shown_N, items_N = np.array([0, 0, 0, 1, 1, 0]), np.array([0, 0, 1, 2, 2, 3])
    asked: list[SetConfig] = []

    def given(config: SetConfig, _data: Path | None) -> LabelledSet:
        asked.append(config)
        return clips(np.array([0, 0, 1, 1, 1, UNASKED]), shown_N, items_N)

    monkeypatch.setattr(probes, "labelled_set", given)
    monkeypatch.setattr(probes, "BATCH", 4)
    seen: list[tuple[int, int | None]] = []
    protocol = ProbeProtocol(set="worlds", test=4, bootstrap_draws=200)
    result = evaluate_probe(
        classifier, None, protocol, tmp_path, command="me", on_windows=lambda *count: seen.append(count)
    )

    assert asked == [SetConfig(name="worlds", train=1, test=4)] and seen == [(4, 6), (6, 6)]
    assert result == read_result(tmp_path / "probe_light-probe_worlds.json")
    figures = result["attributes"]["light"]
    assert (result["n"], result["windows"], figures["n"]) == (4, 6, 3)
    assert figures["accuracy"]["mean"] == pytest.approx(2 / 3) and figures["chance"] == 0.5
    assert figures["accuracy"]["low"] < 2 / 3 < figures["accuracy"]["high"]
    assert figures["confusion"] == [[1, 0], [1, 1]] and figures["of_class"] == {"dark": 1.0, "bright": 0.5}


def test_sets_that_the_probe_cannot_be_judged_on_are_refused(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="no labelled set"):
        evaluate_probe(classifier, None, ProbeProtocol(set="nothing"))
    assert set_for(classifier) is None
    with pytest.raises(UsageError, match="light-probe tells light, and worlds is labelled with action, shape, number"):
        evaluate_probe(classifier, None, ProbeProtocol(set="worlds", test=1))
    slow = clips(np.arange(2), np.arange(2), np.arange(2))
    monkeypatch.setattr(
        probes, "labelled_set", lambda *_: LabelledSet("slow", slow.outputs, slow.train, slow.test, 12.0)
    )
    with pytest.raises(UsageError, match="reads 5 frames of 16x16, 24 a second, and slow has 5 of 16x16 at 12"):
        evaluate_probe(classifier, None, ProbeProtocol(set="worlds"))


def test_sets_are_found_by_what_probes_tell() -> None:
    assert set(LABELS_OF) == set(SETS)
    for name in ("worlds", "weizmann", "fsdd", "esc10"):
        fitting = set_for(load_classifier(f"probe-{name}-nano"))
        assert fitting is not None and fitting.startswith(name)
    with pytest.raises(ConfigError, match="test must be at least 1, got 0"):
        SetConfig(name="worlds", test=0)

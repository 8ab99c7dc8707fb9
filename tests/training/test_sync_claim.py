"""Picture and sound made together: controls are what they are called, and the rule is what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kinolex.errors import UsageError
from kinolex.evaluation.ask import through_tokenizers
from kinolex.generation.multimodal import Made, load_multimodal
from kinolex.training.claims import sync as claim
from kinolex.training.claims.sync import ARMS, F1, NAME, OTHERS, OWN, SCALES, SEPARATE, TRUE, findings_of, scale_named


def rows(own: float, separate: float, others: float) -> list[dict[str, Any]]:
    return [
        {"arm": arm, "seed": seed, F1: value * (1 + 0.01 * seed)}
        for seed in range(3)
        for arm, value in ((OWN, own), (SEPARATE, separate), (OTHERS, others), (TRUE, 0.9))
    ]


@pytest.mark.parametrize(
    ("own", "separate", "others", "outcomes"),
    [
        (0.6, 0.3, 0.1, ["holds", "holds"]),
        (0.3, 0.4, 0.1, ["contradicted", "holds"]),
        (0.0, 0.0, 0.0, ["unclear", "unclear"]),
    ],
)
def test_the_rule_asks_for_more_than_both_controls(
    own: float, separate: float, others: float, outcomes: list[str]
) -> None:
    assert [finding.outcome for finding in findings_of(rows(own, separate, others))] == outcomes


def test_a_generator_that_is_right_passes_and_what_is_measured_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The true worlds stand in for what was made; a separate drawing is the world of another caption."""
    worlds = list[Any]()
    rendered = claim.render

    def render(seed: int, config: Any) -> Any:
        worlds.append(rendered(seed, config))
        return worlds[-1]

    def ask(generator: Any, decoding: Any, name: str, *, text: str = "", clip: Any = None) -> Made:
        separately = decoding.seed > 10_000_000
        shown = through_tokenizers(generator, worlds[0 if separately and len(worlds) > 1 else -1].clip)
        return Made(shown.with_sound(None), shown.sound, None, 1, 1)

    monkeypatch.setattr(claim, "render", render)
    monkeypatch.setattr(claim, "ask", ask)
    scale, told = replace(SCALES["tiny"], captions=3), list[str]()
    generator = load_multimodal()
    arguments: dict[str, Any] = {"generator": generator, "say": told.append}
    first = claim.reproduce_sync(scale, tmp_path / "out", tmp_path / "results", command="test", **arguments)
    spoken = len(told)
    again = claim.reproduce_sync(scale, tmp_path / "out", **arguments)

    assert len(told) == spoken == 9
    assert first["means"][OWN] == first["means"][TRUE] and first["means"][OWN][F1] > 0.5
    assert first["means"][OWN][F1] > first["means"][OTHERS][F1]
    stored = json.loads((tmp_path / "results" / f"reproduce_{NAME}.json").read_text())
    assert stored["findings"] == first["findings"] == again["findings"] and set(first["means"]) == set(ARMS)
    assert SEPARATE in (tmp_path / "results" / f"reproduce_{NAME}.html").read_text()
    with pytest.raises(UsageError, match="no scale 'huge'"):
        scale_named("huge")


def test_shipped_weights_answer(tmp_path: Path) -> None:
    scale = replace(SCALES["tiny"], seeds=(0, 1))
    result = claim.reproduce_sync(scale, tmp_path)
    assert result["verdict"] in ("pass", "fail", "inconclusive") and result["n"] == 2 * len(ARMS)
    assert all(0 <= figures[F1] <= 1 for figures in result["means"].values())

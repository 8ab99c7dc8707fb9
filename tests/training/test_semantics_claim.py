"""The claim that tokens keep semantics: it runs, goes on, and its rule is what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kinolex.errors import UsageError
from kinolex.training.claims import semantics
from kinolex.training.claims.semantics import (
    ARMS,
    EARLIER,
    LATER,
    MEAN,
    NAME,
    RAW,
    SCALES,
    SemanticsProtocol,
    findings_of,
    probes_flops,
    reproduce_semantics,
    scale_named,
    summarised,
)


def rows(later: list[float], earlier: list[float]) -> list[dict[str, object]]:
    return [
        {"name": f"{arm}, seed {seed}", "arm": arm, "seed": seed, MEAN: value}
        for seed, (high, low) in enumerate(zip(later, earlier, strict=True))
        for arm, value in ((RAW, 0.9), (LATER, high), (EARLIER, low))
    ]


@pytest.mark.parametrize(
    ("later", "earlier", "outcome"),
    [
        ([0.86, 0.87, 0.86], [0.80, 0.80, 0.79], "holds"),
        ([0.80, 0.80, 0.79], [0.86, 0.87, 0.86], "contradicted"),
        ([0.86, 0.78, 0.82], [0.80, 0.85, 0.81], "unclear"),
    ],
)
def test_the_rule_asks_for_the_smaller_drop(later: list[float], earlier: list[float], outcome: str) -> None:
    (finding,) = findings_of(rows(later, earlier))
    assert finding.outcome == outcome


def test_the_ratio_to_raw_pixels_is_told_beside_the_verdict() -> None:
    protocol = SemanticsProtocol(scale=SCALES["tiny"], tokenizers=("a", "b"))
    result = summarised(rows([0.81, 0.81, 0.81], [0.72, 0.72, 0.72]), protocol, "kinolex reproduce")
    assert result["over_raw"] == pytest.approx({LATER: 0.9, EARLIER: 0.8})
    assert result["verdict"] == "pass"


def test_a_tiny_run_writes_a_result_and_a_page_and_trains_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = reproduce_semantics(SCALES["tiny"], tmp_path / "out", tmp_path / "results", command="test")
    written = json.loads((tmp_path / "results" / f"reproduce_{NAME}.json").read_text())
    assert written["verdict"] in ("pass", "fail", "inconclusive") and written["rule"] == semantics.TOLD.rule
    assert set(written["means"]) == set(ARMS) and written["n"] == 9
    assert NAME in (tmp_path / "results" / f"reproduce_{NAME}.html").read_text()
    monkeypatch.setattr(semantics, "fit", None)  # a second run that trained would fail
    again = reproduce_semantics(SCALES["tiny"], tmp_path / "out", command="test")
    assert again["clips"] == first["clips"]


def test_what_it_costs_grows_with_steps_and_unknown_scales_are_refused() -> None:
    assert 0 < probes_flops(SCALES["tiny"]) < probes_flops(SCALES["nano"]) < probes_flops(SCALES["small"])
    with pytest.raises(UsageError, match="choose one of tiny, nano, small"):
        scale_named("huge")

"""The claim about super-resolution: it runs, goes on, its costs are counted rightly and its rule is what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kinolex.errors import UsageError
from kinolex.training import upscale_draws
from kinolex.training.claims import super_resolution
from kinolex.training.claims.super_resolution import (
    ARMS,
    DISTANCE,
    FULL,
    KEPT,
    NAME,
    OPERATIONS,
    SCALES,
    WINDOWS,
    costs,
    findings_of,
    reproduce_super_resolution,
    scale_named,
    training_flops,
)


def rows(ours: list[float], bicubic: float, full_bytes: float) -> list[dict[str, object]]:
    return [
        {"arm": arm, DISTANCE: value, "bicubic": bicubic, KEPT: kept, OPERATIONS: kept}
        for value in ours
        for arm, kept in ((WINDOWS, 1.0), (FULL, full_bytes))
    ]


@pytest.mark.parametrize(
    ("ours", "bicubic", "full_bytes", "outcomes"),
    [
        ([0.10, 0.11, 0.10], 0.20, 3.0, ["holds", "holds", "holds"]),
        ([0.30, 0.31, 0.30], 0.20, 3.0, ["contradicted", "holds", "holds"]),
        ([0.15, 0.25, 0.20], 0.20, 0.5, ["unclear", "contradicted", "contradicted"]),
    ],
)
def test_the_rule_asks_for_less_distance_than_bicubic_and_less_cost_than_full_attention(
    ours: list[float], bicubic: float, full_bytes: float, outcomes: list[str]
) -> None:
    assert [finding.outcome for finding in findings_of(rows(ours, bicubic, full_bytes))] == outcomes


def test_costs_of_windows_are_proportional_to_tokens_and_those_of_full_attention_are_not() -> None:
    small, large = (
        {arm: costs(SCALES["nano"].recipe(arm, 0).network, lines) for arm in ARMS[:2]} for lines in (64, 128)
    )
    for key in (KEPT, OPERATIONS):
        assert large[WINDOWS][key] == pytest.approx(4 * small[WINDOWS][key], rel=0.01)
    assert large[FULL][KEPT] > 8 * small[FULL][KEPT] and large[FULL][KEPT] > 4 * large[WINDOWS][KEPT]
    assert large[FULL][OPERATIONS] > 5 * small[FULL][OPERATIONS]


def test_a_tiny_run_writes_a_result_and_a_page_and_trains_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upscale_draws, "SHARD", 2)
    monkeypatch.setattr(
        super_resolution, "draw_pairs", lambda plan, folder: upscale_draws.draw_pairs(_written(plan, folder), folder)
    )
    first = reproduce_super_resolution(SCALES["tiny"], tmp_path / "out", tmp_path / "results", command="test")
    monkeypatch.setattr(super_resolution, "UpscaleTrainer", None)
    again = reproduce_super_resolution(SCALES["tiny"], tmp_path / "out", command="test")

    stored = json.loads((tmp_path / "results" / f"reproduce_{NAME}.json").read_text())
    assert stored["findings"] == first["findings"] == again["findings"] and len(first["clips"]) == 6
    assert first["means"].keys() == set(ARMS) and len({row[DISTANCE] for row in first["clips"]}) > 1
    assert NAME in (tmp_path / "results" / f"reproduce_{NAME}.html").read_text()


def _written(plan: upscale_draws.PairPlan, folder: Path) -> upscale_draws.PairPlan:
    """Shards made in this process, whose SHARD is small."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(upscale_draws.shard_paths(plan, folder)):
        if not path.is_file():
            upscale_draws.draw_shard(plan, number, path)
    return plan


def test_scales_are_found_by_name_and_cost_something() -> None:
    assert training_flops(scale_named("tiny")) > 0
    with pytest.raises(UsageError, match="no scale"):
        scale_named("huge")

"""Sequences grouped by length: what is drawn adds up, rows are filled, and the rule is what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kinolex.errors import UsageError
from kinolex.tasks.multimodal import TASKS
from kinolex.training.claims.lengths import (
    ARMS,
    GROUPED,
    NAME,
    PACKED,
    PADDED,
    PADDING,
    SCALES,
    SPEED,
    drawn_steps,
    findings_of,
    layout_of,
    reproduce_lengths,
    scale_named,
)


def test_steps_of_all_ways_have_about_as_many_places_and_count_no_padding() -> None:
    scale = SCALES["nano"]
    lengths = {name: layout_of(scale, name).length for name in TASKS}
    budget = scale.batch * max(lengths.values())
    drawn = drawn_steps(scale, 0)
    assert drawn_steps(scale, 0) == drawn and drawn_steps(scale, 1) != drawn
    for way, steps in drawn.items():
        assert len(steps) == scale.steps
        assert all(0.8 * budget <= step.places <= budget for step in steps) or way == PADDED
        assert all(0 < step.useful <= step.places for step in steps)
    padding = {
        way: 1 - sum(step.useful for step in steps) / sum(step.places for step in steps) for way, steps in drawn.items()
    }
    # Text is padded within its places: 12 places, of which 8 to 12 are words.
    assert 0 < padding[GROUPED] < 0.01 < padding[PACKED] < padding[PADDED]
    assert {step.layout.length for step in drawn[GROUPED]} == set(lengths.values())
    assert {step.layout.length for step in drawn[PACKED]} == {2 * max(lengths.values())}


@pytest.mark.parametrize(
    ("grouped", "padded", "packed", "outcomes"),
    [
        (100.0, 80.0, 90.0, ["holds", "holds", "holds"]),
        (85.0, 80.0, 90.0, ["holds", "holds", "contradicted"]),
    ],
)
def test_the_rule_asks_for_speed_over_both_and_little_padding(
    grouped: float, padded: float, packed: float, outcomes: list[str]
) -> None:
    rows = [
        {"arm": arm, SPEED: value * (1 + 0.001 * seed), PADDING: 0.005}
        for seed in range(3)
        for arm, value in ((GROUPED, grouped), (PADDED, padded), (PACKED, packed))
    ]
    assert [finding.outcome for finding in findings_of(rows)] == outcomes
    wasteful = [row | {PADDING: 0.05} for row in rows]
    assert findings_of(wasteful)[0].outcome == "contradicted"


def test_a_tiny_run_times_steps_writes_a_page_and_times_nothing_again(tmp_path: Path) -> None:
    told = list[str]()
    first = reproduce_lengths(SCALES["tiny"], tmp_path / "out", tmp_path / "results", command="test", say=told.append)
    again = reproduce_lengths(SCALES["tiny"], tmp_path / "out", say=told.append)
    stored = json.loads((tmp_path / "results" / f"reproduce_{NAME}.json").read_text())
    assert stored["findings"] == first["findings"] == again["findings"] and len(told) == 3
    assert set(first["means"]) == set(ARMS) and all(first["means"][arm][SPEED] > 0 for arm in ARMS)
    assert GROUPED in (tmp_path / "results" / f"reproduce_{NAME}.html").read_text()
    with pytest.raises(UsageError, match="no scale 'huge'"):
        scale_named("huge")

"""kinolex eval understanding: every probe once, ratios against raw pixels, results that go on where they stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kinolex import cli
from kinolex.errors import UsageError
from kinolex.evaluation.protocol import read_result
from kinolex.evaluation.understanding_sets import SetConfig
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training import understanding
from kinolex.training.probe_run import FitConfig, SizeConfig
from kinolex.training.understanding import FEW, FEW_HIDDEN, TRANSFER, UnderstandingProtocol, evaluate_understanding

PROTOCOL = UnderstandingProtocol(
    sets=(SetConfig(name="worlds", train=5, test=4),),
    kinds=("linear", "transformer"),
    inputs=("raw", "decoded", "digits"),
    seeds=(0, 1),
    fit=FitConfig(steps=2, batch=2),
    size=SizeConfig(width=16, depth=1, heads=2),
    few=2,
    hidden_steps=1,
    bootstrap_draws=50,
)


def test_all_ways_are_compared_and_nothing_is_trained_twice(
    tiny_tokenizer: VideoTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int | None]] = []
    result = evaluate_understanding(
        tiny_tokenizer,
        None,
        PROTOCOL,
        tmp_path / "kept",
        tmp_path,
        on_runs=lambda *runs: told.append(runs),
        command="test",
    )
    assert told[-1] == (16, 16) and result["n"] == 16
    found = result["sets"]["worlds"]
    ways = [(way["kind"], way["input"]) for way in found["overall"]]
    per_kind = ["raw", TRANSFER, "decoded", "digits"]
    few = [(FEW, "digits"), (FEW_HIDDEN, "digits")]
    assert sorted(ways) == sorted([(kind, each) for kind in ("linear", "transformer") for each in per_kind] + few)
    assert set(found["attributes"]) == {"action", "shape", "number"}
    for scores in found["attributes"].values():
        for way in scores["ways"]:
            assert 0 <= way["accuracy"]["low"] <= way["accuracy"]["mean"] <= way["accuracy"]["high"] <= 1
            assert sum(map(sum, way["confusion"])) <= 2 * 4
            assert way["ratio"] is None or way["input"] != "raw"
    written = read_result(tmp_path / "understanding.json")
    assert written["sets"] == json.loads(json.dumps(result["sets"]))
    assert "data:image/png" in (tmp_path / "understanding.html").read_text()

    monkeypatch.setattr(understanding, "fit", None)  # a second run that trained would fail
    again = evaluate_understanding(tiny_tokenizer, None, PROTOCOL, tmp_path / "kept", command="test")
    assert again["sets"] == result["sets"]


def test_comparisons_without_raw_pixels_are_refused() -> None:
    with pytest.raises(UsageError, match=r"inputs must be raw, which others are compared with.* got digits"):
        UnderstandingProtocol(inputs=("digits",))
    with pytest.raises(UsageError, match="kinds must be some of linear, attentive, transformer, got "):
        UnderstandingProtocol(kinds=("convolution",))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"few must be .* got -4"):
        UnderstandingProtocol(few=-4)
    with pytest.raises(UsageError, match="hidden_steps must be at least 1, got -2"):
        UnderstandingProtocol(few=1, hidden_steps=-2)
    with pytest.raises(UsageError, match="fitting: steps must be at least 1, got 0"):
        FitConfig(steps=0)


def test_the_command_measures_a_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--sets", "worlds", "--train", "3", "--test", "2", "--steps", "1", "--batch", "2", "--seeds", "1"]
    arguments += ["--kinds", "linear", "--inputs", "raw", "digits", "--model", "magvit2-nano", "--json"]
    with pytest.raises(SystemExit) as stopped:
        cli.main(["eval", "understanding", *arguments, "--out", str(tmp_path)])
    assert stopped.value.code == 0
    facts = json.loads(capsys.readouterr().out)
    assert any(name.startswith("magvit2-nano worlds, linear, digits") for name in facts)
    assert (tmp_path / "understanding_magvit2-nano.json").is_file()

"""kinolex eval understanding: every probe once, ratios against raw input, results that go on where they stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kinolex import cli
from kinolex.errors import UsageError
from kinolex.evaluation.protocol import read_result
from kinolex.evaluation.understanding_sets import SetConfig
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training import understanding
from kinolex.training.probe_run import FitConfig, SizeConfig
from kinolex.training.understanding import (
    FEW,
    FEW_HIDDEN,
    TRANSFER,
    TRANSFER_OF_SOUNDS,
    UnderstandingProtocol,
    evaluate_understanding,
)
from tests.tiny_sound import spoken_tones, surroundings, tiny_sound_tokenizer

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
    assert (tmp_path / "understanding_magvit2-nano_worlds.json").is_file()


def test_sounds_are_compared_as_pictures_are(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sets = (SetConfig(name="fsdd"), SetConfig(name="esc10", train=2, test=2))
    protocol = replace(PROTOCOL, sets=sets, kinds=("linear",), seeds=(0,), levels=2, fit=FitConfig(steps=40, lr=1e-2))
    data = surroundings(spoken_tones(tmp_path))
    result = evaluate_understanding(tiny_sound_tokenizer(), data, protocol, tmp_path / "kept", tmp_path)
    found = result["sets"]["fsdd"]
    ways = [(way["kind"], way["input"]) for way in found["overall"]]
    per_kind = ["raw", TRANSFER_OF_SOUNDS, "decoded", "digits"]
    assert ways == [("linear", each) for each in per_kind] + [(FEW, "digits"), (FEW_HIDDEN, "digits")]
    assert {name: scores["classes"] for name, scores in found["attributes"].items()} == {
        "digit": ["0", "1", "2"],
        "speaker": ["ann", "bob"],
    }
    for scores in found["attributes"].values():
        raw = scores["ways"][0]
        assert raw["accuracy"]["mean"] > 0.8 > scores["chance"] and sum(map(sum, raw["confusion"])) == 6
        assert set(raw["per_class"]) == set(scores["classes"])
    assert result["sets"]["esc10"]["attributes"]["sound"]["classes"] == ["rumble", "whistle"]
    assert read_result(tmp_path / "understanding.json")["protocol"]["levels"] == 2


def test_tokenizers_and_sets_of_other_kinds_are_refused(tiny_tokenizer: VideoTokenizer, tmp_path: Path) -> None:
    spoken = UnderstandingProtocol(sets=(SetConfig(name="fsdd"),))
    with pytest.raises(UsageError, match=r"tokenizer of pictures, and sets of sounds .* \(fsdd\)"):
        evaluate_understanding(tiny_tokenizer, None, spoken, tmp_path)
    with pytest.raises(UsageError, match=r"tokenizer of sounds, and sets of pictures .* \(worlds\).*fsdd, esc10"):
        evaluate_understanding(tiny_sound_tokenizer(), None, PROTOCOL, tmp_path)
    with pytest.raises(UsageError, match="1 to 3 levels, got 4"):
        evaluate_understanding(tiny_sound_tokenizer(), None, replace(spoken, levels=4), tmp_path)
    with pytest.raises(UsageError, match=r"sets of sounds \(esc10\).*evaluate them apart"):
        UnderstandingProtocol(sets=(SetConfig(name="worlds"), SetConfig(name="esc10")))
    with pytest.raises(UsageError, match="no levels to choose, got 2"):
        replace(PROTOCOL, levels=2)


def test_the_command_takes_the_shipped_tokenizer_for_sounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = spoken_tones(tmp_path, digits=2, train=1)
    arguments = ["eval", "understanding", "--data", str(data), "--sets", "fsdd", "--out", str(tmp_path), "--steps", "1"]
    arguments += ["--kinds", "linear", "--inputs", "raw", "latents", "--seeds", "1", "--levels", "2", "--json"]
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 0
    assert any(name.startswith("sound-nano fsdd, linear, latents") for name in json.loads(capsys.readouterr().out))
    assert (tmp_path / "understanding_sound-nano_fsdd.json").is_file()

    with pytest.raises(SystemExit) as stopped:
        cli.main([*arguments, "--model", "magvit2-nano"])
    assert stopped.value.code != 0
    assert "magvit2-nano is a tokenizer of pictures" in capsys.readouterr().err.replace("\n", " ")

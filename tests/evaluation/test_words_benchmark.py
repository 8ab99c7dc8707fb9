"""The benchmark of pictures as words: both ways of asking give the same answers, and a tiny run fills its record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.words_speed import ANEW, CACHED, Arguments, answers_anew, main
from kinolex import hub
from kinolex.understanding.asking import answers

pytest.importorskip("transformers", reason="language models need the extra lm")


def test_prompts_read_anew_are_answered_as_prompts_read_once() -> None:
    lm = hub.load_lm()
    asked = [
        (f"###\nInput: < {a} >\nOutput: star\n###\nInput: < {b} >\nOutput: ring\n###\nInput: < {c} >\nOutput:", labels)
        for a, b, c in (("red", "blue", "red"), ("blue", "red sky", "red"), ("sky", "red red", "sky"))
        for labels in (("ring", "star"), ("a long label", "star"))
    ]
    assert answers_anew(lm, asked) == answers(lm, asked)


def test_a_tiny_run_fills_the_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(Arguments(out=tmp_path / "speed.json", rounds=1, lines=(64,), episodes=2, layers=(2,)))
    values = json.loads((tmp_path / "speed.json").read_text())["values"]
    assert values["describe"]["64x64 pixels"]["seconds"] > 0
    one = values["few_shot"]["5 words"]
    assert one[CACHED]["episodes_per_second"] > 0 and len(one[ANEW]["seconds_of_rounds"]) == 1
    assert one["same_answers"] == 1.0
    assert "times as fast" in capsys.readouterr().out

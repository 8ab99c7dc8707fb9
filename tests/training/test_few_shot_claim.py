"""The claim about words and flat tokens: it runs without data, goes on, and its rule is what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kinolex import cli
from kinolex.errors import ConfigError, UsageError
from kinolex.evaluation.page import code
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training.claims import few_shot
from kinolex.training.claims.few_shot import (
    ARMS,
    FLAT,
    MEAN,
    NAME,
    SCALES,
    SHUFFLED,
    WORDS,
    findings_of,
    flat_ids,
    reproduce_few_shot,
    scale_named,
    spread,
    word_table,
)
from kinolex.training.claims.standalone import STANDALONE

pytest.importorskip("transformers", reason="language models need the extra lm")


def rows(words: list[float], flat: list[float], shuffled: list[float]) -> list[dict[str, object]]:
    return [
        {"name": f"{arm}, seed {seed}", "arm": arm, "seed": seed, MEAN: value}
        for seed, values in enumerate(zip(words, flat, shuffled, strict=True))
        for arm, value in zip(ARMS, values, strict=True)
    ]


@pytest.mark.parametrize(
    ("words", "flat", "outcomes"),
    [
        ([0.66, 0.67, 0.66], [0.55, 0.56, 0.55], ["holds", "holds"]),
        ([0.50, 0.51, 0.50], [0.60, 0.61, 0.60], ["contradicted", "unclear"]),
        ([0.60, 0.45, 0.52], [0.50, 0.52, 0.51], ["unclear", "unclear"]),
        ([0.66, 0.67, 0.66], [0.60, 0.75, 0.65], ["unclear", "holds"]),
    ],
)
def test_the_rule_asks_for_more_than_flat_tokens_and_more_than_shuffled_words(
    words: list[float], flat: list[float], outcomes: list[str]
) -> None:
    assert [finding.outcome for finding in findings_of(rows(words, flat, [0.50, 0.51, 0.50]))] == outcomes


def test_every_flat_id_has_a_word_of_its_own_that_is_always_the_same() -> None:
    words = tuple(f"w{number}" for number in range(50))
    table = word_table(40, words)
    assert (
        len(set(table)) == 40 and (table == word_table(40, words)).all() and (table != word_table(40, words, 1)).any()
    )
    more = word_table(120, words)
    assert {list(more).count(word) for word in words} == {2, 3}  # no word stands for much more than another


def test_flat_tokens_are_spread_evenly_and_no_more_than_there_are() -> None:
    assert spread(64, 5).tolist() == [6, 19, 32, 44, 57]
    assert len(set(spread(64, 21).tolist())) == 21 and spread(4, 4).tolist() == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match="85 flat tokens"):
        spread(64, 85)


def test_flat_ids_are_those_of_the_tokenizer(tiny_tokenizer: VideoTokenizer) -> None:
    pixels_BCHW = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ids_BL = flat_ids(tiny_tokenizer, pixels_BCHW)
    assert len(ids_BL) == 3 and (ids_BL[1] == flat_ids(tiny_tokenizer, pixels_BCHW[1:2])[0]).all()
    assert ids_BL.min() >= 0 and ids_BL.max() < tiny_tokenizer.vocab_size


def test_a_tiny_run_without_data_writes_a_result_and_a_page_and_asks_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reproduce", NAME, "--scale", "tiny", "--json"]
    with pytest.raises(SystemExit) as stopped:
        cli.main([*command, "--out", str(tmp_path / "out"), "--results", str(tmp_path / "results")])
    assert stopped.value.code == 0

    told = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "results" / f"reproduce_{NAME}.json").read_text())
    assert written["verdict"] in ("pass", "fail", "inconclusive") and written["rule"] == few_shot.TOLD.rule
    assert told[NAME] == written["verdict"] and written["command"] == f"kinolex {' '.join(command[:4])} --device cpu"
    assert set(written["means"]) == set(ARMS) and written["n"] == 9 and len(written["findings"]) == 2
    assert written["protocol"]["sets"] == ["worlds"] and len(set(written["protocol"]["episode_hashes"])) == 3
    assert {"worlds, 5 words", "worlds, 21 words", MEAN} < set(written["means"][FLAT])
    for row in written["clips"]:
        assert row[MEAN] == pytest.approx(np.mean([row["worlds, 5 words"], row["worlds, 21 words"]]))
    page = (tmp_path / "results" / f"reproduce_{NAME}.html").read_text()
    assert NAME in page and all(code(written["prompts"][arm]) in page for arm in ARMS)
    # The same question, whatever its pictures are written as.
    questions = [[line.partition("<")[0] for line in written["prompts"][arm].splitlines()] for arm in ARMS]
    assert questions[0] == questions[1] == questions[2]
    assert len({written["prompts"][arm] for arm in (WORDS, FLAT, SHUFFLED)}) == 3

    monkeypatch.setattr(few_shot, "ask", None)  # a second run that asked would fail
    again = reproduce_few_shot(SCALES["tiny"], tmp_path / "out", command="test")
    assert again["clips"] == written["clips"] and again["protocol_hash"] == written["protocol_hash"]


def test_with_data_the_sets_of_the_scale_are_asked(data_dir: Path, tmp_path: Path) -> None:
    how = {"device": "cpu", "command": "test", "workers": 1, "say": lambda _line: None}
    result = STANDALONE[NAME].run("tiny", tmp_path, data=data_dir, **how)
    assert result["protocol"]["sets"] == ("digits",) and result["command"] == "test --data DIR"
    assert {"digits, 5 words", "digits, 21 words"} < set(result["means"][WORDS])


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(UsageError, match="choose one of tiny, nano, small"):
        scale_named("huge")
    with pytest.raises(ConfigError, match="three seeds"):
        replace(SCALES["tiny"], seeds=(0, 0, 1))

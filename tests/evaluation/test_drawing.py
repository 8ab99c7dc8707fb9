"""Changed pictures: a model that copies is no success, one that writes the right words is; figures are exact."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kinolex import cli, hub
from kinolex.errors import ConfigError, DataError
from kinolex.evaluation import drawing
from kinolex.evaluation.drawing import (
    CHANGES,
    DrawingProtocol,
    apart,
    evaluate_change,
    evaluate_drawing,
    judged,
    over_copy,
    questions_of,
)
from kinolex.models.frozen_lm import FrozenLM
from kinolex.tokenizers.spae import Spae, codebook_from
from tests.copying_model import Copier
from tests.tiny_spae import WORDS, tiny_spae_config

transformers = pytest.importorskip("transformers", reason="language models need the extra lm")
tokenizers = pytest.importorskip("tokenizers", reason="language models need the extra lm")

SMALL = DrawingProtocol(sets=("worlds",), changes=("rotate", "denoise"), examples=2, layers=2, episodes=3)


@pytest.fixture(scope="module")
def lm() -> FrozenLM:
    trained = tokenizers.ByteLevelBPETokenizer()
    text = f"Input: Output: ### < {' '.join(WORDS)} >\n"
    trained.train_from_iterator([text] * 5, vocab_size=300, show_progress=False)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer)
    return FrozenLM(Copier(300, tokenizer), tokenizer)


@pytest.fixture(scope="module")
def spae() -> Spae:
    torch.manual_seed(0)
    spae = Spae(tiny_spae_config(fold=8)).eval()
    spae.quantizer.set_codebook(codebook_from(torch.randn(4, 4)))
    return spae


def picture(value: float) -> Tensor:
    return torch.full((3, 4, 4), value)


def test_success_is_to_be_nearer_to_the_right_answer_than_to_the_copy() -> None:
    words = {"made": "ab", "shuffled": "ab", "unchanged": "xb", "copy": "xy", "right": "ab"}
    values = {"made": 0.5, "shuffled": -0.9, "unchanged": 1.0, "copy": -1.0, "right": 1.0}
    found = judged({name: list(word) for name, word in words.items()}, {n: picture(v) for n, v in values.items()})
    assert (found["made_success"], found["shuffled_success"], found["unchanged_success"]) == (1.0, 0.0, 1.0)
    assert found["made_error"] == pytest.approx(0.25**2) and found["copy_error"] == pytest.approx(1.0)
    assert (found["made_words"], found["unchanged_words"], found["copy_words"]) == (1.0, 0.5, 0.0)
    assert "copy_success" not in found


def test_a_perfect_answer_is_a_success_even_where_the_copy_is_perfect_too() -> None:
    same = dict.fromkeys(("made", "shuffled", "unchanged", "copy", "right"), picture(0.0))
    assert judged({key: ["a"] for key in same}, same)["made_success"] == 1.0


def test_the_ratio_to_the_copy_is_that_of_the_means_with_its_interval() -> None:
    rows = [{"made_error": made, "copy_error": copy} for made, copy in ((0.1, 0.4), (0.3, 0.4), (0.2, 0.4))]
    found = over_copy(rows, replace(SMALL, bootstrap_draws=500))
    assert found["mean"] == pytest.approx(0.5) and 0.25 <= found["low"] < 0.5 < found["high"] <= 0.75
    assert over_copy([{"made_error": 0.0, "copy_error": 0.0}] * 2, SMALL)["mean"] == 0.0


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_changes_a_picture_and_keeps_its_range(name: str) -> None:
    pixels_BCHW = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    kept_BCHW = pixels_BCHW.clone()
    changed_BCHW = CHANGES[name].make(pixels_BCHW, torch.Generator().manual_seed(0))
    assert changed_BCHW.shape == pixels_BCHW.shape and torch.equal(pixels_BCHW, kept_BCHW)
    assert float(changed_BCHW.abs().max()) <= 1.0 and apart(changed_BCHW, pixels_BCHW) > 0.001
    again_BCHW = CHANGES[name].make(pixels_BCHW, torch.Generator().manual_seed(0))
    assert torch.equal(changed_BCHW, again_BCHW)


def test_the_right_words_decode_without_error_and_the_last_answer_is_no_success(
    lm: FrozenLM, spae: Spae, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = questions_of(None, "worlds", SMALL, spae.config.pixels[1])
    dice, said = torch.Generator().manual_seed(0), list[list[list[str]]]()

    def words_of(_spae: Spae, pixels_BCHW: Tensor, _layers: int) -> list[list[str]]:
        ids_BL = torch.randint(len(WORDS), (len(pixels_BCHW), 5), generator=dice)
        said.append([[WORDS[index] for index in row] for row in ids_BL.tolist()])
        return said[-1]

    queries = iter([row[-1] for row in questions.episodes_NK.tolist() for _ in range(2)])  # made, and shuffled
    monkeypatch.setattr(drawing, "words_of_pixels", words_of)
    monkeypatch.setattr(drawing, "transform", lambda *_: said[-1][next(queries)])
    rows, _ = evaluate_change(lm, spae, questions, "rotate", SMALL)
    assert all(row["made_success"] == 1.0 and row["made_error"] == 0.0 and row["made_words"] == 1.0 for row in rows)
    assert over_copy(rows, SMALL)["mean"] == 0.0

    monkeypatch.setattr(drawing, "transform", lambda _lm, _config, pairs, _query, _writing: pairs[-1][1])
    rows, _ = evaluate_change(lm, spae, questions, "rotate", SMALL)
    assert all(row["made_success"] == 0.0 and row["made_error"] > 0.0 for row in rows)
    assert over_copy(rows, SMALL)["mean"] == pytest.approx(1.0)


def test_episodes_are_a_function_of_set_and_seed_and_do_not_show_what_they_ask() -> None:
    first, again = (questions_of(None, "worlds", SMALL, 8) for _ in range(2))
    assert first.hash == again.hash and torch.equal(first.pixels_BCHW, again.pixels_BCHW)
    assert all(len(set(row)) == SMALL.examples + 1 for row in first.episodes_NK.tolist())
    assert questions_of(None, "worlds", replace(SMALL, seed=1), 8).hash != first.hash


def test_a_whole_evaluation_writes_figures_and_a_page_with_pictures(lm: FrozenLM, spae: Spae, tmp_path: Path) -> None:
    seen = []
    result = evaluate_drawing(
        lm, spae, None, SMALL, tmp_path, command="x", on_episodes=lambda done, total: seen.append((done, total))
    )
    assert set(result["tasks"]) == {"worlds rotate", "worlds denoise"} and result["words"] == 5
    assert json.loads((tmp_path / "drawing.json").read_text()) == json.loads(json.dumps(result))
    page = (tmp_path / "drawing.html").read_text()
    assert "worlds denoise" in page and page.count("<img") == 2 * 3 * 5
    assert seen[-1] == (6, 6)
    hashes = {task["episodes_hash"] for task in result["tasks"].values()}
    assert len(hashes) == 1  # every change is asked of the same pictures


def test_the_command_asks_the_shipped_model_about_worlds_without_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--changes", "shift", "--episodes", "2", "--examples", "1", "--layers", "2", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(["eval", "drawing", *options, "--json"])
    assert stopped.value.code == 0
    told = json.loads(capsys.readouterr().out)
    stored = json.loads((tmp_path / "drawing_spae-nano.json").read_text())
    assert set(stored["tasks"]) == {"worlds shift"} and stored["words"] == 5
    assert stored["command"] == "kinolex eval drawing --changes shift --examples 1 --layers 2 --episodes 2"
    assert told["worlds shift error over copy"] == stored["tasks"]["worlds shift"]["mean"]["error_over_copy"]["mean"]
    assert Path(told["page"]).is_file()


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"changes must be some of denoise.* got melt"):
        DrawingProtocol(changes=("melt",))
    with pytest.raises(ConfigError, match=r"^drawing: seed must be at least 0, got -1$"):
        DrawingProtocol(seed=-1)
    with pytest.raises(ConfigError, match="episodes must be at least 2, got 1"):
        DrawingProtocol(episodes=1)
    with pytest.raises(DataError, match="give --data"):
        questions_of(None, "digits", DrawingProtocol(), 8)


@pytest.mark.parametrize("command", ["fewshot", "drawing"])
def test_a_reader_that_the_words_were_not_made_for_is_told_in_one_line(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Reader:
        fingerprint = "1" * 64

        def to(self, _device: str) -> Reader:
            return self

    for made_for, told in (("1" * 64, 0), ("2" * 64, 1)):
        spae = Spae(tiny_spae_config(language_model=made_for))
        monkeypatch.setattr(hub, "load_spae", lambda _name, spae=spae: (spae, "3" * 64))
        monkeypatch.setattr(hub, "load_lm", lambda _name: Reader())
        with pytest.raises(SystemExit) as ended:
            cli.main(["eval", command, "--seed", "-1"])  # refused right after
        noted, *_ = said = capsys.readouterr().err.splitlines()
        assert ended.value.code == 2 and len(said) == told + 1
        assert not told or noted == (
            "note: the words of spae-nano are those of another language model (222222222222) than text-nano "
            "(111111111111)"
        )

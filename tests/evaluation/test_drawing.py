"""Changed pictures: a model that copies is no success, one that writes the right words is; figures are exact."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from kinolex import cli, hub
from kinolex.data.pictures import DIGITS, WORLD_FRAMES, Picture
from kinolex.data.worlds.render import render_frames_THWC
from kinolex.data.worlds.scene import WorldConfig, draw_scene
from kinolex.errors import ConfigError, DataError
from kinolex.evaluation import drawing
from kinolex.evaluation.digits import PictureJudge, train_picture_judge
from kinolex.evaluation.drawing import (
    CHANGES,
    DIGIT,
    FRAME,
    DrawingProtocol,
    Questions,
    apart,
    evaluate_change,
    evaluate_digits,
    evaluate_drawing,
    judged,
    over_copy,
    pictures_of,
    questions_of,
)
from kinolex.models.frozen_lm import FrozenLM
from kinolex.tokenizers.spae import Spae
from tests.copying_model import copying_lm
from tests.tiny_spae import WORDS, tiny_spae, tiny_spae_config

pytest.importorskip("transformers", reason="language models need the extra lm")
pytest.importorskip("tokenizers", reason="language models need the extra lm")

SMALL = DrawingProtocol(sets=("worlds",), changes=("rotate", "denoise"), examples=2, layers=2, episodes=3)


@pytest.fixture(scope="module")
def lm() -> FrozenLM:
    return copying_lm(f"Input: Output: ### < {' '.join(WORDS)} >\n")


@pytest.fixture(scope="module")
def spae() -> Spae:
    return tiny_spae()


def worlds(protocol: DrawingProtocol) -> Questions:
    return questions_of(pictures_of(None, "worlds"), "worlds", "rotate", protocol)


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
    questions = worlds(SMALL)
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
    first, again = (worlds(SMALL) for _ in range(2))
    assert first.hash == again.hash and first.pictures == again.pictures
    assert all(len(set(row)) == SMALL.examples + 1 for row in first.episodes_NK.tolist())
    assert worlds(replace(SMALL, seed=1)).hash != first.hash


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
    with pytest.raises(ConfigError, match="examples must be at least 1, got 0"):
        DrawingProtocol(examples=0)
    digits = [Picture(name=str(n), label=DIGITS[n % 10], told=()) for n in range(20)]
    for examples in (1, 10):
        with pytest.raises(
            DataError, match=rf"digit-from-condition needs 2 examples or more.* 10 digits.*got {examples}"
        ):
            questions_of(digits, "digits", DIGIT, DrawingProtocol(examples=examples))
    with pytest.raises(DataError, match="give --data"):
        pictures_of(None, "digits")
    with pytest.raises(DataError, match="3 examples and a query need 4 pictures; few has 2"):
        questions_of(pictures_of(None, "worlds")[:2], "few", "shift", DrawingProtocol())


def test_questions_that_no_set_can_answer_are_refused(lm: FrozenLM, spae: Spae, tmp_path: Path) -> None:
    protocol = replace(SMALL, changes=(DIGIT,))
    with pytest.raises(DataError, match=r"digit-from-condition cannot be asked of worlds: .* needs digits"):
        evaluate_drawing(lm, spae, None, protocol, tmp_path)


def test_frame_prediction_shows_an_earlier_frame_and_asks_for_a_later_one(
    lm: FrozenLM, spae: Spae, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = list[Tensor]()

    def words_of(_spae: Spae, pixels_BCHW: Tensor, _layers: int) -> list[list[str]]:
        given.append(pixels_BCHW)
        return [[*WORDS, WORDS[0]] for _ in pixels_BCHW]

    monkeypatch.setattr(drawing, "words_of_pixels", words_of)
    monkeypatch.setattr(drawing, "transform", lambda *_: [*WORDS, WORDS[0]])
    questions = worlds(SMALL)
    rows, shown = evaluate_change(lm, spae, questions, FRAME, SMALL)
    assert len(rows) == SMALL.episodes and len(shown) == SMALL.episodes
    earlier_BCHW, later_BCHW = given
    side = spae.config.pixels[1]
    for index, one in enumerate(questions.pictures):
        config = WorldConfig(frames=WORLD_FRAMES, height=side, width=side)
        frames_THWC = torch.from_numpy(render_frames_THWC(draw_scene(one.seed or 0, config), config))
        for pixels_BCHW, frame in ((earlier_BCHW, 0), (later_BCHW, WORLD_FRAMES - 1)):
            torch.testing.assert_close(pixels_BCHW[index], frames_THWC[frame].permute(2, 0, 1) / 127.5 - 1.0)
    assert not torch.equal(earlier_BCHW, later_BCHW)


def test_a_digit_that_is_asked_for_is_shown_but_not_last(
    lm: FrozenLM, spae: Spae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "digits").mkdir()
    images = np.random.default_rng(0).integers(0, 255, (20, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "digits" / "digits_test.npz", images=images, labels=np.arange(20) % 10)
    protocol = replace(SMALL, changes=(DIGIT,), sets=("digits",), episodes=40, examples=4)
    pictures = pictures_of(tmp_path, "digits")
    questions = questions_of(pictures, "digits", DIGIT, protocol)
    asked = list[tuple[list[str], str]]()
    right = list[list[str]]()

    def write(_lm: FrozenLM, _config: object, pairs: Sequence[tuple[str, list[str]]], wanted: str, _w: object) -> list:
        asked.append(([label for label, _ in pairs], wanted))
        found = [words for label, words in pairs if label == wanted]
        right.extend(found)
        return found[0] if found else pairs[-1][1]

    def words_of(_spae: Spae, pixels_BCHW: Tensor, _layers: int) -> list[list[str]]:
        dice = np.random.default_rng(1)
        return [[WORDS[index] for index in dice.integers(len(WORDS), size=5)] for _ in pixels_BCHW]

    monkeypatch.setattr(drawing, "words_of_pixels", words_of)
    monkeypatch.setattr(drawing, "draw", write)
    torch.manual_seed(0)
    rows, _ = evaluate_digits(lm, spae, questions, PictureJudge().eval(), protocol)
    for labels, wanted in asked[::2]:
        assert len(set(labels)) == 4 and wanted in labels[:-1]
    for labels, wanted in asked[1::2]:  # shuffled
        assert wanted in DIGITS and wanted not in labels
    assert len(right) == 40
    assert all(row["made_success"] == 1.0 and row["made_words"] == 1.0 for row in rows)
    assert all(row["made_digit"] == row["right_digit"] and "unchanged_success" not in row for row in rows)
    assert np.mean([row["shuffled_success"] for row in rows]) < 0.2
    assert questions_of(pictures, "digits", DIGIT, protocol).hash == questions.hash


def test_the_judge_sees_what_words_of_real_digits_show(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "draw", lambda _lm, _config, pairs, _wanted, _writing: pairs[-1][1])
    spae, _ = hub.load_spae("spae-nano")
    protocol = DrawingProtocol(sets=("digits",), changes=(DIGIT,), layers=len(spae.config.layers), episodes=20)
    questions = questions_of(pictures_of(data_dir, "digits"), "digits", DIGIT, protocol)
    rows, _ = evaluate_digits(hub.load_lm("text-nano"), spae, questions, train_picture_judge(data_dir), protocol)
    assert np.mean([row["right_digit"] for row in rows]) > 0.7
    assert np.mean([row["made_digit"] for row in rows]) == np.mean([row["copy_digit"] for row in rows]) < 0.3


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

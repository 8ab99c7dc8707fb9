"""Questions and captions: a model that copies answers them from words; figures and refusals are exact."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

import kinolex
from kinolex import cli
from kinolex.data.pictures import Picture
from kinolex.errors import ConfigError, DataError, UsageError
from kinolex.evaluation import questions
from kinolex.evaluation.episodes import episode_list
from kinolex.evaluation.questions import (
    QUESTIONS,
    QuestionsProtocol,
    caption_of,
    evaluate_captions,
    evaluate_questions,
    question_list,
    shared_words,
)
from kinolex.evaluation.row_store import RowStore
from kinolex.models.frozen_lm import FrozenLM
from kinolex.tokenizers.spae import Spae
from kinolex.types import Clip
from kinolex.understanding import ask
from tests.copying_model import copying_lm
from tests.tiny_spae import WORDS, tiny_spae

pytest.importorskip("transformers", reason="language models need the extra lm")
pytest.importorskip("tokenizers", reason="language models need the extra lm")

SMALL = QuestionsProtocol(sets=("worlds",), captions=("worlds",), examples=2, layers=2, episodes=3)


@pytest.fixture(scope="module")
def lm() -> FrozenLM:
    return copying_lm(f"Input: Output: Question: what colour shape is it? ### < {' '.join(WORDS)} >\n")


@pytest.fixture(scope="module")
def spae() -> Spae:
    return tiny_spae()


def files(folder: Path, count: int) -> list[Path]:
    """Pictures of one colour each, which differ."""
    paths = []
    for number in range(count):
        frames_TCHW = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
        frames_TCHW[:, number % 3, :: number + 1] = 80 * number + 60
        paths.append(folder / f"{number}.png")
        kinolex.write(Clip(frames_TCHW, Fraction(1)), paths[-1])
    return paths


def test_a_question_s_answers_stand_for_labels_and_the_question_is_asked_of_every_picture() -> None:
    colour, shape = QUESTIONS["worlds"]
    for asked, place in ((colour, 0), (shape, 1)):
        found = question_list(None, "worlds", asked, replace(SMALL, episodes=20))
        known = {picture.name: picture.label for picture in episode_list(None, "worlds", ways=2).pictures}
        assert found.question == asked.text and found.ways == 5 and len(found.episodes) == 20
        for episode in found.episodes:
            labels = known[found.pictures[episode.query].name]
            assert labels is not None and labels.split()[place] == episode.answer
            assert len(set(episode.labels)) == 5 and episode.query not in episode.support
    assert question_list(None, "worlds", colour, SMALL).hash != question_list(None, "worlds", shape, SMALL).hash


@pytest.mark.parametrize(
    ("name", "label", "answers"),
    [
        ("digits", "eight", ["eight", "yes", "yes"]),
        ("digits", "one", ["one", "no", "no"]),
        ("cifar10", "frog", ["frog", "yes"]),
        ("cifar10", "truck", ["truck", "no"]),
        ("cifar10", None, [None, None]),
        ("worlds", "red star", ["red", "star"]),
        ("worlds", None, [None, None]),
    ],
)
def test_the_answers_to_every_question(name: str, label: str | None, answers: list[str | None]) -> None:
    picture = Picture(name="x", label=label, told=())
    assert [question.answer(picture) for question in QUESTIONS[name]] == answers


def test_a_caption_is_the_file_s_or_its_label_in_a_sentence() -> None:
    assert caption_of(Picture(name="x", label="seven", told=())) == "the digit seven"
    assert caption_of(Picture(name="x", label="red star", told=())) == "a red star"
    assert caption_of(Picture(name="x", label=None, told=())) is None


def test_shared_words_count_what_tells_something_on_both_sides() -> None:
    assert shared_words("a red star", "the Red star") == 1.0
    assert shared_words("a red star", "a red ring") == pytest.approx(2 / 4)
    assert shared_words("red", "a red star of gold") == pytest.approx(2 / 4)
    assert shared_words("", "a red star") == 0.0


def test_captions_are_copied_where_words_were_shown_before(
    lm: FrozenLM, spae: Spae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [Picture(name=str(n), label=("red star", "blue ring")[n % 2], told=()) for n in range(40)]

    def words(_spae: Spae, several: list[Picture], _layers: int) -> list[list[str]]:
        return [[*(one.label or "").split()] for one in several]

    monkeypatch.setattr(questions, "words_of_pictures", words)
    protocol, store, done = replace(SMALL, examples=4, episodes=30), RowStore(tmp_path / "rows.jsonl"), list[int]()
    rows, shown = evaluate_captions(lm, spae, pictures, protocol, store, done.append)
    assert done[-1] == 60 and len(rows) == 30 and len(shown) == 10
    assert {true for true, _ in shown} <= {"a red star", "a blue ring"}
    right = [row for row in rows if row["neighbour_f1"] == 1.0]
    assert len(right) > 20 and all(row["made_exact"] == 1.0 and row["made_f1"] == 1.0 for row in right)
    assert sum(row["shuffled_f1"] for row in rows) < sum(row["made_f1"] for row in rows)

    monkeypatch.setattr(questions, "captions_written", lambda *_: pytest.fail("asked again"))
    assert evaluate_captions(lm, spae, pictures, protocol, RowStore(tmp_path / "rows.jsonl"))[0] == rows


def test_a_whole_evaluation_writes_figures_and_a_page(lm: FrozenLM, spae: Spae, tmp_path: Path) -> None:
    seen = []
    result = evaluate_questions(
        lm, spae, None, SMALL, tmp_path, command="x", on_episodes=lambda done, total: seen.append((done, total))
    )
    assert set(result["tasks"]) == {
        "worlds: what colour is it?",
        "worlds: what shape is it?",
        "worlds: caption",
    }
    assert result["tasks"]["worlds: what shape is it?"]["mean"]["chance"]["mean"] == pytest.approx(0.2)
    assert json.loads((tmp_path / "questions.json").read_text()) == json.loads(json.dumps(result))
    page = (tmp_path / "questions.html").read_text()
    assert "what colour is it?" in page and "Captions of worlds" in page
    assert seen[-1] == (24, 24)


def test_a_picture_is_asked_about_with_shown_ones(lm: FrozenLM, spae: Spae, tmp_path: Path) -> None:
    first, second, third = files(tmp_path, 3)
    found = ask(
        first, [(first, "red star"), (second, "blue")], question="what is it?", layers=2, model=spae, language_model=lm
    )
    assert found.answer == "red star" and next(iter(found.among)) == "red star"
    assert sum(found.among.values()) == pytest.approx(1.0)
    assert found.prompt.count("Question: what is it?\n") == 3 and found.prompt.endswith("\nOutput:")
    again = ask(third, [(third, "ring")], repeats=2, model=spae, language_model=lm)
    assert again.answer == "ring" and again.prompt.count("Output:") == 4 and "Question" not in again.prompt


def test_what_cannot_be_asked_is_refused(lm: FrozenLM, spae: Spae, tmp_path: Path) -> None:
    (one,) = files(tmp_path, 1)
    with pytest.raises(UsageError, match="this tokenizer has 2 layers, not 3"):
        ask(one, [(one, "red")], layers=3, model=spae, language_model=lm)
    with pytest.raises(UsageError, match=r"shown with the answer ' '; give one line with a word"):
        ask(one, [(one, " ")], model=spae, language_model=lm)
    with pytest.raises(UsageError, match="examples"):
        ask(one, [], model=spae, language_model=lm)
    with pytest.raises(DataError, match="give --data"):
        evaluate_questions(lm, spae, None, replace(SMALL, sets=("digits",)), tmp_path / "out")
    with pytest.raises(DataError, match="captions of digits need the data folder"):
        evaluate_questions(lm, spae, None, replace(SMALL, captions=("digits",)), tmp_path / "out")
    with pytest.raises(DataError, match="captions with 2 examples need 4 captioned pictures, got 1"):
        evaluate_captions(lm, spae, [Picture(name="x", label="cat", told=())], SMALL, RowStore())
    with pytest.raises(ConfigError, match="sets must be some of digits, cifar10, worlds"):
        QuestionsProtocol(sets=("grid",))
    with pytest.raises(ConfigError, match="layers must be at least 1, got 0"):
        QuestionsProtocol(layers=0)
    assert not (tmp_path / "out").exists()


def test_the_command_shows_pictures_and_asks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = map(str, files(tmp_path, 2))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["ask", first, "--shown", f"{first}=red ring", f"{second}=blue ring", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert stopped.value.code == 0 and set(told["among"]) == {"red ring", "blue ring"}
    assert told["prompt"].count("Input: <") == 3
    for shown in ([], ["--shown", first]):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["ask", first, *shown])
        assert stopped.value.code == 2 and "--shown takes FILE=ANSWER" in capsys.readouterr().err

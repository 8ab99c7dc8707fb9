"""Episodes are fixed lists; a model that can copy answers them from words, and from nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kinolex.data.pictures import Picture
from kinolex.errors import ConfigError, DataError, UsageError
from kinolex.evaluation import fewshot
from kinolex.evaluation.episodes import EPISODES, HASHES, SETS, Episode, EpisodeList, episode_list
from kinolex.evaluation.fewshot import (
    FewShotProtocol,
    answers,
    evaluate_fewshot,
    evaluate_list,
    few_against_most,
    neighbour,
    question,
    used_pictures,
)
from kinolex.evaluation.row_store import RowStore
from kinolex.models.frozen_lm import FrozenLM
from kinolex.tokenizers.spae import Spae, codebook_from
from tests.copying_model import Copier
from tests.tiny_spae import tiny_spae_config

transformers = pytest.importorskip("transformers", reason="language models need the extra lm")
tokenizers = pytest.importorskip("tokenizers", reason="language models need the extra lm")


@pytest.mark.parametrize(("ways", "shots"), [(2, 1), (5, 1), (2, 3), (5, 3)])
def test_the_list_of_worlds_is_the_stored_one(ways: int, shots: int) -> None:
    questions = episode_list(None, "worlds", ways=ways, shots=shots)
    assert len(questions.episodes) == EPISODES >= 2000
    assert questions.hash == HASHES["worlds", ways, shots]


@pytest.mark.parametrize("name", [name for name in SETS if name != "worlds"])
def test_the_lists_of_real_sets_are_the_stored_ones(name: str, data_dir: Path) -> None:
    for ways in (2, 5):
        questions = episode_list(data_dir, name, ways=ways)
        assert len(questions.episodes) >= 2000
        assert questions.hash == HASHES[name, ways, 1]


@pytest.fixture(scope="module")
def questions() -> EpisodeList:
    return episode_list(None, "worlds", ways=5, shots=2, count=300)


def test_every_episode_is_sound(questions: EpisodeList) -> None:
    pictures = questions.pictures
    for episode in questions.episodes:
        assert len(set(episode.labels)) == 5 and episode.answer in episode.labels
        assert pictures[episode.query].label == episode.answer
        assert episode.query not in episode.support and len(set(episode.support)) == 10
        for turn in (episode.support[:5], episode.support[5:]):
            assert sorted(pictures[index].label or "" for index in turn) == sorted(episode.labels)


def test_answers_stand_anywhere_among_the_labels(questions: EpisodeList) -> None:
    places = [episode.labels.index(episode.answer) for episode in questions.episodes]
    last = [questions.pictures[episode.support[-1]].label == episode.answer for episode in questions.episodes]
    assert all(0.1 < places.count(place) / len(places) < 0.3 for place in range(5))
    assert 0.1 < sum(last) / len(last) < 0.3


def test_a_list_is_a_function_of_set_and_seed_and_begins_as_a_shorter_one(questions: EpisodeList) -> None:
    again = episode_list(None, "worlds", ways=5, shots=2, count=300)
    assert again.hash == questions.hash
    assert episode_list(None, "worlds", ways=5, shots=2, count=20).episodes == questions.episodes[:20]
    assert episode_list(None, "worlds", ways=5, shots=2, count=300, seed=1).hash != questions.hash


def test_parts_of_a_set_share_no_picture_and_know_the_same_labels() -> None:
    parts = [episode_list(None, "worlds", ways=2, count=200, part=(number, 3)) for number in range(3)]
    used = [set(used_pictures(part)) for part in parts]
    assert not (used[0] & used[1] or used[1] & used[2] or used[0] & used[2])
    asked = [{episode.answer for episode in part.episodes} for part in parts]
    assert all(len(one & asked[0]) > 0.8 * len(asked[0]) for one in asked)
    with pytest.raises(UsageError, match="part k of n"):
        episode_list(None, "worlds", ways=2, part=(3, 3))


def test_impossible_lists_are_refused() -> None:
    for name, ways, shots in (("cats", 2, 1), ("worlds", 1, 1), ("worlds", 2, 0)):
        with pytest.raises(UsageError, match="episodes need"):
            episode_list(None, name, ways=ways, shots=shots)
    with pytest.raises(DataError, match="give --data"):
        episode_list(None, "digits", ways=2)
    with pytest.raises(DataError, match="so many labels"):
        episode_list(None, "worlds", ways=60)


@pytest.mark.parametrize(
    ("field", "value", "got"),
    [
        ("sets", ("worlds", "nosuch"), "worlds nosuch"),
        ("sets", (), "none"),
        ("ways", (1, 2), "1 2"),
        ("shots", 0, "0"),
        ("repeats", -1, "-1"),
        ("layers", (0,), "0"),
        ("episodes", 0, "0"),
        ("seed", -1, "-1"),
    ],
)
def test_the_part_that_cannot_be_asked_is_named(field: str, value: Any, got: str) -> None:
    with pytest.raises(ConfigError, match=f"^few-shot questions: {field} must be .*, got {got}$"):
        FewShotProtocol(**{field: value})


@pytest.fixture(scope="module")
def copier() -> FrozenLM:
    trained = tokenizers.ByteLevelBPETokenizer()
    trained.train_from_iterator(["Input: Output: ### red blue star ring\n"] * 5, vocab_size=300, show_progress=False)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer)
    return FrozenLM(Copier(300, tokenizer), tokenizer)


def test_a_model_that_copies_is_right_where_words_are_equal_and_at_chance_where_they_are_shuffled(
    questions: EpisodeList, copier: FrozenLM
) -> None:
    few = EpisodeList("worlds", 5, 2, 0, questions.pictures, questions.episodes[:12])
    words = [tuple((picture.label or "").split()) for picture in questions.pictures]
    rows = evaluate_list(copier, few, words, FewShotProtocol(sets=("worlds",), shots=2))
    mean = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0] if key != "name"}
    assert mean["open"] == mean["among"] == 1.0
    assert mean["neighbour"] > 0.9
    assert mean["shuffled_open"] < 0.5 and mean["shuffled_among"] < 0.6
    assert mean["chance"] == pytest.approx(0.2)


def test_what_a_model_was_asked_before_is_not_asked_again(
    questions: EpisodeList, copier: FrozenLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = EpisodeList("worlds", 5, 2, 0, questions.pictures, questions.episodes[:3])
    words = [tuple((picture.label or "").split()) for picture in questions.pictures]
    protocol = FewShotProtocol(sets=("worlds",), shots=2)
    first = evaluate_list(copier, few, words, protocol, store=RowStore(tmp_path / "answers.jsonl"))

    def nothing(*_: object) -> None:
        raise AssertionError("the model was asked again")

    monkeypatch.setattr(fewshot, "answers", nothing)
    done: list[int] = []
    again = evaluate_list(copier, few, words, protocol, done.append, RowStore(tmp_path / "answers.jsonl"))
    assert again == first and done == [3, 6, 9]
    with pytest.raises(AssertionError, match="asked again"):  # other words are another question
        evaluate_list(copier, few, [("x",)] * len(words), protocol, store=RowStore(tmp_path / "answers.jsonl"))


def test_the_prompt_shows_labels_words_and_repeats(questions: EpisodeList) -> None:
    episode = questions.episodes[0]
    words = [(f"w{index}",) for index in range(len(questions.pictures))]
    text = question(episode, words, questions, FewShotProtocol(shots=2, repeats=1))
    assert text.startswith("For each of the following input output pairs, output is one of ['" + episode.labels[0])
    assert text.count("Output:") == 2 * 10 + 1
    assert text.endswith(f"###\nInput: < w{episode.query} >\nOutput:")
    plain = question(episode, words, questions, FewShotProtocol(shots=2, induction=False))
    assert plain.startswith("###\n")


def test_the_nearest_picture_is_the_one_that_shares_most_words_and_ties_are_halves() -> None:
    pictures = [Picture(name=str(n), label=label, told=()) for n, label in enumerate(("a", "b", "a"))]
    episode = Episode(("a", "b"), (0, 1), 2, "a")
    assert neighbour(episode, [("x", "y"), ("x", "z"), ("x", "y")], pictures) == 1.0
    assert neighbour(episode, [("x", "y"), ("x", "y"), ("x", "y")], pictures) == 0.5
    assert neighbour(episode, [("q", "y"), ("x", "y"), ("x", "x")], pictures) == 0.0


def test_answers_do_not_depend_on_what_stands_beside_them(copier: FrozenLM) -> None:
    asked = [("###\nInput: < red >\nOutput: star\n###\nInput: < red >\nOutput:", ("ring", "star"))]
    asked += [("###\nInput: < blue blue >\nOutput: ring\n###\nInput: < blue blue >\nOutput:", ("ring", "star"))] * 20
    assert answers(copier, asked) == [answers(copier, [one])[0] for one in asked]
    assert answers(copier, asked)[0] == ("star", "star")


def test_a_whole_evaluation_writes_figures_and_a_page(copier: FrozenLM, tmp_path: Path) -> None:
    words = ("red", "blue", "star", "ring")
    config = tiny_spae_config(words, fold=8)
    torch.manual_seed(0)
    spae = Spae(config).eval()
    spae.quantizer.set_codebook(codebook_from(torch.randn(4, 4)))
    protocol = FewShotProtocol(sets=("worlds",), ways=(2,), layers=(1, 2), episodes=4)
    seen = []
    result = evaluate_fewshot(
        copier, spae, None, protocol, tmp_path, command="x", on_episodes=lambda done, total: seen.append((done, total))
    )
    assert set(result["tasks"]) == {"worlds 2-way 1 words", "worlds 2-way 5 words"}
    assert json.loads((tmp_path / "fewshot.json").read_text()) == json.loads(json.dumps(result))
    assert "worlds 2-way 5 words" in (tmp_path / "fewshot.html").read_text()
    assert seen[-1] == (24, 24)
    assert result["few_words"] == {}  # 5 words at most: there is nothing to compare them with
    with pytest.raises(ConfigError, match="has 2 layers"):
        evaluate_fewshot(copier, spae, None, replace(protocol, layers=(3,)), tmp_path)


def test_few_words_are_compared_with_the_most_words_on_the_same_episodes() -> None:
    protocol = FewShotProtocol(bootstrap_draws=200)
    right = {1: [0.0, 0.0, 0.0, 0.0], 5: [1.0, 0.0, 1.0, 0.0], 21: [1.0, 1.0, 1.0, 1.0]}
    rows_of = {length: [{"open": 0.0, "among": hit} for hit in hits] for length, hits in right.items()}
    found = few_against_most(rows_of, protocol)
    assert (found["few_words"], found["most_words"]) == (5, 21)
    assert found["among"]["mean"] == 0.5 and found["among"]["low"] < 0.5 < found["among"]["high"] < 1.01
    assert "open" not in found  # never right, whatever the number of words
    assert few_against_most({21: rows_of[21]}, protocol) == few_against_most({5: rows_of[5]}, protocol) == {}


def test_a_page_tells_how_far_few_words_reach(tmp_path: Path, copier: FrozenLM) -> None:
    config = tiny_spae_config(("red", "blue", "star", "ring"), layers=((1, 1, 1), (1, 2, 2), (1, 2, 2)), fold=8)
    torch.manual_seed(0)
    spae = Spae(config).eval()
    spae.quantizer.set_codebook(codebook_from(torch.randn(4, 4)))
    protocol = FewShotProtocol(sets=("worlds",), ways=(2,), layers=(2, 3), episodes=4)
    result = evaluate_fewshot(copier, spae, None, protocol, tmp_path, command="x")
    compared = result["few_words"]["worlds 2-way"]
    assert (compared["few_words"], compared["most_words"]) == (5, 9)
    assert "Few words against most" in (tmp_path / "fewshot.html").read_text()

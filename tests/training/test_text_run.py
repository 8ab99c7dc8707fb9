"""A language model from text alone: what it reads, what it is asked, and that a killed run ends in the same bits."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from kinolex.errors import CheckpointError, ConfigError, DataError
from kinolex.models.frozen_lm import FrozenLM
from kinolex.training import text_data
from kinolex.training.config import OptimizerConfig
from kinolex.training.recipes import train_from_recipe
from kinolex.training.text_data import ANSWER, PROSE, SHOWN, TextSet, read_sources, train_tokenizer
from kinolex.training.text_run import TextTrainConfig, TextTrainer

transformers = pytest.importorskip("transformers", reason="language models need the extra lm")

TINY = TextTrainConfig(
    vocab_size=520, width=32, depth=2, heads=2, inner=48, max_length=128, steps=4, rows=3, length=64, save_every=2
)
RECIPE = """
from kinolex.training.text_run import TextTrainConfig

def config():
    return TextTrainConfig(
        vocab_size=520, width=32, depth=2, heads=2, inner=48, max_length=128, steps=4, rows=3, length=64, save_every=2
    )
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(text_data, "CAPTIONS", 60)
    data = tmp_path / "data"
    (data / "text").mkdir(parents=True)
    (data / "perceptual").mkdir()
    dice = np.random.default_rng(0)
    words = ("the", "king", "and", "queen", "of", "night", "went", "home", "while", "rain", "fell", "on", "stone")
    lines = [" ".join(dice.choice(words, 9)) + "." for _ in range(400)]
    (data / "text" / "tinyshakespeare.txt").write_text("\n".join(lines))
    names = ["tench", "goldfish", "great white shark", "crane (bird)"]
    (data / "perceptual" / "imagenet_labels.json").write_text(json.dumps(names))
    return data


@pytest.fixture
def text(folder: Path) -> TextSet:
    sources = read_sources(folder)
    tokenizer = train_tokenizer(sources, 520)
    shape = transformers.LlamaConfig(vocab_size=520, hidden_size=8, intermediate_size=8, num_attention_heads=1)
    shape.num_hidden_layers = 1
    return TextSet(sources, FrozenLM(transformers.LlamaForCausalLM(shape), tokenizer))


def test_a_batch_is_a_function_of_seed_and_step(text: TextSet) -> None:
    one, again, other = text.batch(0, 3, 4, 96), text.batch(0, 3, 4, 96), text.batch(0, 4, 4, 96)
    assert torch.equal(one[0], again[0]) and torch.equal(one[1], again[1])
    assert not torch.equal(one[0], other[0])
    assert one[0].shape == one[1].shape == (4, 97)
    assert set(one[1].unique().tolist()) == {SHOWN, PROSE, ANSWER}


@pytest.mark.parametrize("kind", ["classes", "few", "pairs"])
def test_only_answers_that_were_shown_before_are_asked_for(text: TextSet, kind: str) -> None:
    asked = 0
    for seed in range(40):
        shown: list[str] = []
        for piece, part in getattr(text, f"_{kind}")(np.random.default_rng(seed)):
            if part == ANSWER:
                assert piece in shown
                asked += 1
            shown.append(piece)
    assert asked > 80


def test_no_world_is_rendered_for_text(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def render(*_: object) -> None:
        raise AssertionError("a picture was rendered")

    for module in ("render", "labels"):
        monkeypatch.setattr(import_module(f"kinolex.data.worlds.{module}"), "render_frames_THWC", render)
    assert len(read_sources(folder).captions) == 60


def test_what_is_held_out_is_not_read(folder: Path) -> None:
    whole = (folder / "text" / "tinyshakespeare.txt").read_text()
    assert read_sources(folder).play == whole[: int(0.9 * len(whole))]


@pytest.mark.parametrize("kind", ["classes", "sequences", "told", "labels", "captions"])
def test_the_parts_of_a_document_have_the_ids_of_the_whole(text: TextSet, kind: str) -> None:
    """So that what is learned in parts is what a prompt, encoded at once, will ask."""
    for seed in range(20):
        pieces = [piece for piece, _ in getattr(text, f"_{kind}")(np.random.default_rng(seed))]
        apart = [index for piece in pieces for index in text.lm.encode(piece)]
        assert text.lm.encode("".join(pieces)) == apart


def test_training_by_recipe_resumes_to_the_same_bits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "text_tiny.py"
    recipe.write_text(RECIPE)
    whole = train_from_recipe(recipe, folder, tmp_path / "whole")
    step, done = TextTrainer._step, []

    def until_third(self, *arguments):  # type: ignore[no-untyped-def]
        if len(done) == 3:
            raise RuntimeError("power cut")
        done.append(arguments)
        return step(self, *arguments)

    monkeypatch.setattr(TextTrainer, "_step", until_third)
    with pytest.raises(RuntimeError, match="power cut"):
        train_from_recipe(recipe, folder, tmp_path / "cut")
    monkeypatch.setattr(TextTrainer, "_step", step)
    resumed = train_from_recipe(recipe, folder, tmp_path / "cut")
    ours, theirs = FrozenLM.load(whole), FrozenLM.load(resumed)
    assert ours.fingerprint == theirs.fingerprint
    assert (whole / "model.safetensors").read_bytes() == (resumed / "model.safetensors").read_bytes()
    fresh = TextTrainer(TINY, folder, tmp_path / "fresh")
    assert fresh.finished().fingerprint != ours.fingerprint
    assert "on text alone" in (whole / "README.md").read_text()
    with pytest.raises(CheckpointError, match="another recipe"):
        TextTrainer(TextTrainConfig(**(vars_of(TINY) | {"steps": 5})), folder, tmp_path / "whole")


def vars_of(config: TextTrainConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def test_the_loss_falls(folder: Path, tmp_path: Path) -> None:
    """A few steps are enough to fall well below where it began."""
    optimizer = OptimizerConfig(muon_lr=0.02, adam_lr=1e-2, warmup_steps=2)
    config = TextTrainConfig(**(vars_of(TINY) | {"steps": 24, "rows": 4, "optimizer": optimizer}))  # type: ignore[arg-type]
    trainer = TextTrainer(config, folder, tmp_path / "run")
    trainer.run()
    ids_BL, parts_BL = trainer.text.batch(0, 0, 4, 64)
    trained = trainer._step(ids_BL, parts_BL, 23)["loss"]
    fresh = TextTrainer(config, folder, tmp_path / "fresh")
    assert trained < 0.85 * fresh._step(ids_BL, parts_BL, 0)["loss"]


def test_what_cannot_be_trained_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="positive sizes"):
        TextTrainConfig(**(vars_of(TINY) | {"length": 4}))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="multiple of"):
        TextTrainConfig(**(vars_of(TINY) | {"heads": 5}))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a vocabulary of"):
        TextTrainer(TextTrainConfig(**(vars_of(TINY) | {"vocab_size": 50_000})), folder, tmp_path / "big")  # type: ignore[arg-type]
    (folder / "text" / "tinyshakespeare.txt").unlink()
    with pytest.raises(DataError, match="tinyshakespeare"):
        read_sources(folder)


def test_embeddings_stay_once_their_steps_are_over(folder: Path, tmp_path: Path) -> None:
    trainer = TextTrainer(TextTrainConfig(**(vars_of(TINY) | {"embedding_steps": 2})), folder, tmp_path / "run")
    seen = [trainer.model.embed_tokens.weight.clone()]
    layer = [trainer.model.layers[0].mlp.up_proj.weight.clone()]
    for step in range(4):
        trainer._step(*trainer.text.batch(0, step, 3, 64), step)
        seen.append(trainer.model.embed_tokens.weight.clone())
        layer.append(trainer.model.layers[0].mlp.up_proj.weight.clone())
    moved = [not torch.equal(before, after) for before, after in pairwise(seen)]
    assert moved == [True, True, False, False]
    assert all(not torch.equal(before, after) for before, after in pairwise(layer))


def test_the_first_steps_read_more_that_is_said_again(folder: Path, tmp_path: Path) -> None:
    """Of a row of such text most ids are answers; of the others few."""
    config = TextTrainConfig(**(vars_of(TINY) | {"rows": 12, "length": 120, "steps": 12, "repeating_steps": 6}))
    trainer = TextTrainer(config, folder, tmp_path / "run")
    asked: list[float] = []
    trainer._step = lambda _ids, parts, _step: asked.append(float((parts == ANSWER).float().mean())) or {}  # type: ignore[assignment,func-returns-value,misc]
    trainer.run()
    assert np.mean(asked[:6]) > 1.2 * np.mean(asked[6:])
    said = trainer.text._repeats(np.random.default_rng(1))
    assert said[1][0].startswith(said[0][0]) and said[1][1] == ANSWER and said[0][1] == SHOWN


def test_single_words_keep_their_labels(text: TextSet) -> None:
    for seed in range(20):
        pieces = text._pairs(np.random.default_rng(seed))
        labels: dict[str, str] = {}
        for (word, _), (label, _) in zip(pieces[::3], pieces[1::3], strict=True):
            assert labels.setdefault(word, label) == label
        assert len(pieces) // 3 >= 25


def test_bags_of_words_keep_their_answers_whatever_is_asked(text: TextSet) -> None:
    asked, opened, alike, kept = 0, 0, 0, list[bool]()
    for seed in range(40):
        pieces = text._questions(np.random.default_rng(seed))
        blocks = "".join(piece for piece, _ in pieces).split("###\n")[1:]
        answers = dict[frozenset[str], set[str]]()
        for block in blocks:
            words = frozenset(block.split("<")[1].split(">")[0].split())
            answers.setdefault(words, set()).add(block.split("Output:")[1])
        kept += [len(found) == 1 for found in answers.values()]
        lines = {block.split("\n")[1] for block in blocks}
        asked += len(lines) == 1 and next(iter(lines)).startswith("Question: ")
        opened += len({block.split("Output:")[1].split()[0] for block in blocks}) == 1
        alike += len({block.split("Output:")[1] for block in blocks}) == 2 < len({*answers})
        assert sum(part == ANSWER for _, part in pieces) >= 2
    assert np.mean(kept) > 0.9  # a word that is drawn anew may be another bag's
    assert 20 < asked < 36 and opened > 8 and alike > 4


def test_rows_are_written_again_under_their_labels(text: TextSet) -> None:
    for seed in range(20):
        pieces = text._written(np.random.default_rng(seed))
        rows: dict[str, str] = {}
        for (asked, _), (row, part) in zip(pieces[1::2], pieces[2::2], strict=True):
            assert rows.setdefault(asked, row) == row
            assert asked.startswith("###\nInput: ") and asked.endswith("\nOutput: <") and row.endswith(" >\n")
            assert part in (SHOWN, ANSWER)
        assert pieces[-1][1] == ANSWER


def test_changed_rows_keep_their_length_and_most_of_their_words(text: TextSet) -> None:
    same = list[float]()
    for seed in range(40):
        pieces = text._changed(np.random.default_rng(seed))
        for (before, _), (after, _) in zip(pieces[1::2], pieces[2::2], strict=True):
            ours, theirs = before.split("<")[1].split(" >")[0].split(), after.split()[:-1]
            same.append(float(np.mean([a == b for a, b in zip(ours, theirs, strict=True)])))
    assert 0.6 < np.mean(same) < 0.95


def test_steps_after_the_repeating_ones_read_pairs(folder: Path, tmp_path: Path) -> None:
    config = replace(TINY, repeating_steps=1, pairing_steps=2, question_steps=1)
    trainer = TextTrainer(config, folder, tmp_path / "run")
    shares = [trainer._shares(step) for step in range(5)]
    assert shares == [
        text_data.REPEATING_SHARES,
        text_data.PAIRING_SHARES,
        text_data.PAIRING_SHARES,
        text_data.QUESTION_SHARES,
        text_data.SHARES,
    ]


def test_a_second_part_goes_on_from_the_first_with_its_vocabulary(folder: Path, tmp_path: Path) -> None:
    first = TextTrainer(TINY, folder, tmp_path / "first").run()
    config = replace(TINY, start="first", embedding_steps=0, pairing_steps=4)
    trainer = TextTrainer(config, folder, tmp_path / "second", start=first)
    assert trainer.finished().fingerprint == first.fingerprint
    second = trainer.run()
    assert torch.equal(second.embeddings_VD, first.embeddings_VD) and second.fingerprint != first.fingerprint
    assert second.encode("the king") == first.encode("the king")
    with pytest.raises(CheckpointError, match="another shape"):
        TextTrainer(replace(config, depth=1), folder, tmp_path / "other", start=first)

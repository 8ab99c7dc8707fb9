"""SPAE learns: the loss falls, deeper prefixes decode no worse, told words come to the top, a killed run resumes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kinolex import checkpoint, hub
from kinolex.data.pictures import list_pictures, load_picture, words_of
from kinolex.errors import CheckpointError, ConfigError, UsageError
from kinolex.models.frozen_lm import FrozenLM
from kinolex.training import spae_data
from kinolex.training.config import OptimizerConfig
from kinolex.training.recipes import train_from_recipe
from kinolex.training.spae_data import PictureSet, to_pixels
from kinolex.training.spae_run import SpaeTrainConfig, SpaeTrainer

transformers = pytest.importorskip("transformers", reason="language models need the extra lm")
tokenizers = pytest.importorskip("tokenizers", reason="language models need the extra lm")

TINY = SpaeTrainConfig(
    language_model="",
    layers=((1, 1, 1), (1, 2, 2), (1, 4, 4), (1, 8, 8), (1, 8, 8)),
    channels=(32,),
    down=(),
    encoder_blocks=(1,),
    decoder_blocks=(2,),
    middle_blocks=0,
    fold=4,
    norm_groups=4,
    sets=(("worlds", 1.0),),
    worlds=48,
    steps=4,
    batch=6,
    thresholds=(0.9, 0.5),
    optimizer=OptimizerConfig(muon_lr=0.02, adam_lr=4e-3, warmup_steps=4, ema_decay=0.9),
    save_every=2,
)
COLOURS = "red orange yellow green cyan blue purple circle square triangle star ring"


@pytest.fixture(scope="module")
def lm() -> FrozenLM:
    """Random embeddings; its vocabulary knows the words of worlds."""
    trained = tokenizers.ByteLevelBPETokenizer()
    trained.train_from_iterator([f" {COLOURS} some other words too"] * 9, vocab_size=420, show_progress=False)
    torch.manual_seed(0)
    shape = transformers.GPT2Config(vocab_size=420, n_positions=32, n_embd=16, n_layer=1, n_head=1)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer)
    return FrozenLM(transformers.GPT2LMHeadModel(shape), tokenizer)


@pytest.fixture(scope="module")
def trained(lm: FrozenLM, tmp_path_factory: pytest.TempPathFactory) -> tuple[SpaeTrainer, list[float]]:
    folder = tmp_path_factory.mktemp("spae")
    trainer = SpaeTrainer(replace(TINY, steps=240, batch=8), lm, folder, folder / "run")
    losses = []
    step = trainer._step

    def remember(batch, number):  # type: ignore[no-untyped-def]
        figures, ids = step(batch, number)
        losses.append(figures["loss"])
        return figures, ids

    trainer._step = remember  # type: ignore[method-assign]
    trainer.run()
    return trainer, losses


def test_the_loss_falls(trained: tuple[SpaeTrainer, list[float]]) -> None:
    _, losses = trained
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])


def test_deeper_prefixes_are_no_worse_on_average(trained: tuple[SpaeTrainer, list[float]]) -> None:
    model = trained[0].average
    pixels_BCTHW = to_pixels(
        np.stack([load_picture(one, 32) for one in list_pictures(Path(), "worlds", "test", worlds=40)])
    )
    ids = model.encode_ids(pixels_BCTHW)
    errors = [float((model.decode_ids(ids[:count]) - pixels_BCTHW).square().mean()) for count in range(1, len(ids) + 1)]
    assert all(deeper <= 1.01 * upper for upper, deeper in itertools.pairwise(errors)), errors
    assert errors[-1] < 0.6 * errors[0], errors


def test_told_words_come_to_the_top(trained: tuple[SpaeTrainer, list[float]]) -> None:
    trainer, _ = trained
    words = trainer.average.config.words
    pictures = list_pictures(Path(), "worlds", "train", worlds=TINY.worlds)
    pixels_BCTHW = to_pixels(np.stack([load_picture(one, 32) for one in pictures]))
    found = [set(row) for row in trainer.average.spell(trainer.average.encode_ids(pixels_BCTHW)[:2])]
    hits = np.mean([bool(row & set(one.told)) for row, one in zip(found, pictures, strict=True)])
    assert set(COLOURS.split()) <= set(words)
    assert hits > 0.6, hits


def test_the_codebook_is_that_of_the_language_model_and_stays(
    lm: FrozenLM, trained: tuple[SpaeTrainer, list[float]]
) -> None:
    trainer, _ = trained
    fresh = SpaeTrainer(TINY, lm, trainer.folder, trainer.folder / "fresh")
    assert torch.equal(trainer.average.quantizer.codebook, fresh.model.quantizer.codebook)
    assert torch.equal(trainer.model.quantizer.codebook, fresh.model.quantizer.codebook)
    assert trainer.model.config.language_model == lm.fingerprint


def test_a_second_part_goes_on_from_the_first(
    lm: FrozenLM, trained: tuple[SpaeTrainer, list[float]], tmp_path: Path
) -> None:
    first = trained[0].average
    second = SpaeTrainer(replace(TINY, start="first", semantic=4.0), lm, tmp_path, tmp_path / "run", start=first)
    theirs = first.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in second.model.state_dict().items())
    other = replace(TINY, start="first", encoder_blocks=(2,))
    with pytest.raises(CheckpointError, match="another shape"):
        SpaeTrainer(other, lm, tmp_path, tmp_path / "other", start=first)


def test_words_that_a_codebook_lacks_have_stand_ins() -> None:
    known = {"nought": 0, "one": 1, "Zebra": 2, "red": 3}
    assert spae_data._indices(("zero", "one", "Red", "absent"), known) == (0, 1, 3)
    assert spae_data._indices(("zero",), known | {"zero": 4}) == (4,)


def test_a_batch_is_a_function_of_seed_and_step(tmp_path: Path) -> None:
    words = ("red", "star", "Blue")
    pictures = PictureSet(tmp_path, (("worlds", 1.0),), words, side=16, worlds=30)
    one, again, other = pictures.batch(0, 1, 8), pictures.batch(0, 1, 8), pictures.batch(0, 2, 8)
    assert torch.equal(one.pixels_BCTHW, again.pixels_BCTHW) and torch.equal(one.scores_BV, again.scores_BV)
    assert not torch.equal(one.pixels_BCTHW, other.pixels_BCTHW)
    assert set(one.scores_BV.unique().tolist()) <= {0.0, 1.0}


def test_words_that_tell_nothing_are_left_out() -> None:
    assert words_of("a red ball and the red, red dog on it's lawn") == ("red", "ball", "dog", "lawn")


RECIPE = """
from kinolex.training.spae_run import SpaeTrainConfig

def config():
    return SpaeTrainConfig(
        language_model="", layers=((1, 1, 1), (1, 2, 2), (1, 4, 4)), channels=(16,), down=(), encoder_blocks=(1,),
        decoder_blocks=(1,), middle_blocks=0, fold=4, norm_groups=4, sets=(("worlds", 1.0),), worlds=8, steps=4,
        batch=4, thresholds=(0.9,), save_every=2,
    )
"""


def test_training_by_recipe_resumes_to_the_same_bits(
    lm: FrozenLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm.model.save_pretrained(tmp_path / "lm")
    lm.tokenizer.save_pretrained(tmp_path / "lm")
    recipe = tmp_path / "spae_tiny.py"
    recipe.write_text(RECIPE)
    whole = train_from_recipe(recipe, tmp_path, tmp_path / "whole", init=tmp_path / "lm")
    step, done = SpaeTrainer._step, []

    def until_third(self, *arguments):  # type: ignore[no-untyped-def]
        if len(done) == 3:
            raise RuntimeError("power cut")
        done.append(arguments)
        return step(self, *arguments)

    monkeypatch.setattr(SpaeTrainer, "_step", until_third)
    with pytest.raises(RuntimeError, match="power cut"):
        train_from_recipe(recipe, tmp_path, tmp_path / "cut", init=tmp_path / "lm")
    monkeypatch.setattr(SpaeTrainer, "_step", step)
    resumed = train_from_recipe(recipe, tmp_path, tmp_path / "cut", init=tmp_path / "lm")
    assert hub.load_spae(whole)[1] == hub.load_spae(resumed)[1]
    assert checkpoint.what_is(whole) == checkpoint.WORD_TOKENIZER
    with pytest.raises(UsageError, match="leave out device"):
        train_from_recipe(recipe, tmp_path, tmp_path / "gpu", device="cuda", init=tmp_path / "lm")
    recipe.write_text(RECIPE.replace("batch=4", "batch=5"))
    with pytest.raises(CheckpointError, match="another recipe"):
        train_from_recipe(recipe, tmp_path, tmp_path / "whole", init=tmp_path / "lm")


def test_impossible_recipes_are_refused() -> None:
    with pytest.raises(ConfigError, match="must be above 0"):
        replace(TINY, steps=0)
    with pytest.raises(ConfigError, match="must not rise"):
        replace(TINY, thresholds=(0.5, 0.9))
    with pytest.raises(ConfigError, match="single pictures"):
        replace(TINY, layers=((1, 1, 1), (2, 4, 4)))

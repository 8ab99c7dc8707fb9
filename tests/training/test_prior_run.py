"""A prior is trained on what its tokenizer says, in rounds, and can be killed and continued at any time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kinolex import checkpoint, hub
from kinolex.codec.network import NetworkConfig
from kinolex.codec.priors import LearnedPrior, to_digits
from kinolex.codec.stream import estimate_bits
from kinolex.data.index import scan
from kinolex.data.packs import Pack, build_pack
from kinolex.data.worlds import WorldConfig, render
from kinolex.errors import CheckpointError, ConfigError, UsageError
from kinolex.media import write
from kinolex.tokenizers.quantizers import FSQConfig, LFQConfig, QuantizerConfig, ResidualConfig, VQConfig
from kinolex.tokenizers.recurrent import RecurrentAutoencoder, RecurrentConfig
from kinolex.training import recipes
from kinolex.training.config import OptimizerConfig
from kinolex.training.prior import PriorTwin
from kinolex.training.prior_run import PriorRound, PriorTrainConfig, PriorTrainer, digit_levels

TOKENIZER = RecurrentConfig(
    width=8,
    deep_width=8,
    memory=8,
    encoder_blocks=(1, 1),
    decoder_blocks=(1, 1, 1),
    shifts=4,
    quantizer=FSQConfig(levels=(5, 5, 3)),
)
LARGER = NetworkConfig(levels=(5, 5, 3), channels=32, trunk_layers=1)
ROUNDS = (
    PriorRound(clips=3, images=2, steps=60),
    PriorRound(clips=2, images=2, steps=10, lr_factor=0.3, weights=(0.05, 0.2)),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer and a collection of two worlds and a picture."""
    folder = tmp_path_factory.mktemp("prior")
    torch.manual_seed(0)
    checkpoint.save(folder / "model", RecurrentAutoencoder(TOKENIZER), card="")
    source = folder / "data" / "worlds"
    source.mkdir(parents=True)
    for seed in range(2):
        clip = render(seed, WorldConfig(frames=12, height=40, width=48)).clip
        write(clip, source / f"{seed}.mp4")
    write(replace(clip, frames_TCHW=clip.frames_TCHW[:1], sound=None), source / "still.png")
    build_pack(scan(source), folder / "pack", lines=40)
    return folder


def tiny_config(folder: Path, **changes: object) -> PriorTrainConfig:
    settings: dict[str, object] = {
        "tokenizer": str(folder / "model"),
        "data": ("worlds",),
        "rounds": ROUNDS,
        "channels": 16,
        "trunk_layers": 1,
        "clip_frames": 9,
        "crop": 32,
        "lines": 40,
        "batch_clips": 2,
        "batch_images": 2,
        "world_fraction": 0.0,
        "optimizer": OptimizerConfig(muon_lr=0.02, adam_lr=5e-3, ema_decay=0.9, warmup_steps=5),
        "save_every": 7,
    }
    return PriorTrainConfig(**(settings | changes))  # type: ignore[arg-type]


def trainer_in(folder: Path, out: Path, **changes: object) -> PriorTrainer:
    config = tiny_config(folder, **changes)
    return PriorTrainer(config, hub.load(config.tokenizer), [Pack.open(folder / "pack")], out)


def test_a_recipe_leaves_a_model_whose_files_are_smaller_than_fixed_length(folder: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "import sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"from test_prior_run import tiny_config\ndef config(): return tiny_config(Path({str(folder)!r}))\n"
    )
    weights = recipes.train_from_recipe(recipe, folder / "data", tmp_path / "out")

    tokenizer = hub.load(weights)
    prior = hub.load_prior(weights, tokenizer)
    assert isinstance(prior, LearnedPrior) and prior.levels == (5, 5, 3)
    clip = render(0, WorldConfig(frames=12, height=40, width=48)).clip
    digits_thwD = to_digits(tokenizer.encode(clip).ids_Qthw, prior.levels)
    fixed = digits_thwD[..., 0].numel() * torch.log2(torch.tensor(75.0)).item()
    assert estimate_bits(digits_thwD, prior) < 0.9 * fixed

    # Another run can go on from it.
    pack, config = Pack.open(folder / "pack"), tiny_config(folder, start=str(weights))
    further = PriorTrainer(config, tokenizer, [pack], tmp_path / "further", start=prior)
    assert further.export().fingerprint == prior.fingerprint
    for other in (hub.load_prior(folder / "model", tokenizer), LearnedPrior(LARGER, PriorTwin(LARGER).export())):
        with pytest.raises(CheckpointError, match="no trained prior of the recipe's shape"):
            PriorTrainer(config, tokenizer, [pack], tmp_path / "other", start=other)


def test_a_run_that_is_stopped_again_and_again_ends_with_the_same_integers(folder: Path, tmp_path: Path) -> None:
    straight = trainer_in(folder, tmp_path / "straight").run()
    deadline = 0.02  # minutes: about a second a call
    for _ in range(200):
        trainer = trainer_in(folder, tmp_path / "stopped")
        stopped = trainer.run(minutes=deadline)
        if trainer.finished:
            break
    assert trainer.finished
    assert stopped.fingerprint == straight.fingerprint


def test_later_rounds_draw_digits_that_the_prior_finds_cheaper(folder: Path, tmp_path: Path) -> None:
    trainer = trainer_in(folder, tmp_path / "out", thrifty=0.0)
    trainer.run()
    prior = trainer.export()
    # A digit that is cheap where it stands may make later ones dear: one clip of 48 positions can go either way.
    costs = []
    for weights, chooser in (((0.0, 0.0), None), ((2.0, 2.0), prior)):
        draws = PriorRound(clips=8, images=1, steps=1, weights=weights)
        drawn = [trainer._draw(f"clip.{number}", 1, draws, chooser) for number in range(8)]
        assert {digits.shape for digits in drawn} == {(3, 3, 4, 4)}
        costs.append(sum(estimate_bits(digits.permute(0, 2, 3, 1).long(), prior) for digits in drawn))
    assert costs[1] < 0.9 * costs[0]


def test_a_folder_of_another_recipe_is_refused(folder: Path, tmp_path: Path) -> None:
    trainer_in(folder, tmp_path / "out").run(minutes=1e-6)
    with pytest.raises(CheckpointError, match="another recipe"):
        trainer_in(folder, tmp_path / "out", seed=1).run()


def test_what_cannot_be_trained_is_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="first round"):
        tiny_config(folder, rounds=ROUNDS[1:])
    with pytest.raises(ConfigError, match="at least one"):
        tiny_config(folder, rounds=())
    monkeypatch.setenv("WORLD_SIZE", "2")
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "from kinolex.training.prior_run import PriorRound, PriorTrainConfig\n"
        "rounds = (PriorRound(clips=1, images=1, steps=1),)\n"
        "def config(): return PriorTrainConfig(tokenizer='x', data=(), rounds=rounds)\n"
    )
    with pytest.raises(UsageError, match="one process"):
        recipes.train_from_recipe(recipe, tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("config", "levels"),
    [
        (FSQConfig(levels=(9, 7)), (9, 7)),
        (LFQConfig(num_bits=14), (64, 64, 4)),
        (VQConfig(codebook_size=1024, dim=4), (64, 16)),
        (VQConfig(codebook_size=90, dim=4), (45, 2)),
    ],
)
def test_ids_of_every_quantizer_are_cut_into_digits_whose_product_is_the_vocabulary(
    config: QuantizerConfig, levels: tuple[int, ...]
) -> None:
    assert digit_levels(config) == levels


@pytest.mark.parametrize(
    "config", [VQConfig(codebook_size=2 * 67, dim=4), ResidualConfig(level=FSQConfig(levels=(3,)), num_levels=2)]
)
def test_ids_that_have_no_digits_are_refused(config: QuantizerConfig) -> None:
    with pytest.raises(ConfigError):
        digit_levels(config)

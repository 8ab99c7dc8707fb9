"""Super-resolution is trained on worlds seen at two sizes, and can be killed and gone on with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kinolex import checkpoint
from kinolex.data import worlds
from kinolex.errors import CheckpointError, ConfigError
from kinolex.masks import HIDDEN
from kinolex.media.resize import resize_frames
from kinolex.metrics import psnr_db
from kinolex.models.super_resolution import SuperResolution, SuperResolutionConfig
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training import recipes, upscale_draws
from kinolex.training.config import OptimizerConfig
from kinolex.training.upscale_draws import Pair, PairPlan, PairSource, draw_pairs, draw_shard, render_pair, shard_paths
from kinolex.training.upscale_run import UpscaleTrainConfig, UpscaleTrainer, upscale_loss

ROOT = Path(__file__).resolve().parents[2]
SOURCE = PairSource(clips=3, side=16)
NETWORK = SuperResolutionConfig(
    tokenizer="",
    factors=(8, 8),
    width=32,
    depth=1,
    heads=2,
    vertical=(1, 4, 2),
    horizontal=(1, 2, 4),
    temporal=(3, 2, 2),
    latent_frames=3,
)
CONFIG = UpscaleTrainConfig(
    tokenizer="tiny",
    network=NETWORK,
    source=SOURCE,
    steps=8,
    batch=4,
    clip_latents=5,
    optimizer=OptimizerConfig(muon_lr=0.02, adam_lr=5e-3, ema_decay=0.9, warmup_steps=2),
    save_every=3,
)


def some_pairs(number: int = 6, latents: int = 5) -> list[Pair]:
    """Large tokens that follow from the small one beneath and from their own place."""
    pairs = []
    for index in range(number):
        small_thw = torch.randint(0, 64, (latents, 2, 2), generator=torch.Generator().manual_seed(index))
        corner_hw = torch.tensor([[0, 1], [2, 3]]).repeat(2, 2)
        large_thw = (small_thw.repeat_interleave(2, 1).repeat_interleave(2, 2) + 7 * corner_hw) % 64
        pairs.append(Pair(small_thw.int(), large_thw.int()))
    return pairs


def trainer(folder: Path, tokenizer: VideoTokenizer, config: UpscaleTrainConfig = CONFIG) -> UpscaleTrainer:
    return UpscaleTrainer(config, tokenizer, folder, pairs=some_pairs())


def weights(model: SuperResolution) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_both_sizes_show_the_same_world(seed: int) -> None:
    small, large = render_pair(seed, PairSource(clips=1, side=64), 9, 12)

    assert (small.clip.height, large.clip.height, small.clip.fps) == (64, 128, large.clip.fps)
    assert (small.caption, small.label, small.events) == (large.caption, large.label, large.events)
    for one, twice in zip(small.tracks, large.tracks, strict=True):
        assert abs(2 * one.points_T2 - twice.points_T2).max() < 1e-9
    shrunk = resize_frames(large.clip.frames_TCHW, 64, 64)
    assert psnr_db(small.clip.frames_TCHW, shrunk) > 30
    other = render_pair(seed + 10, PairSource(clips=1, side=64), 9, 12)[1]
    assert psnr_db(small.clip.frames_TCHW, resize_frames(other.clip.frames_TCHW, 64, 64)) < 25


def test_pairs_are_drawn_once_and_are_the_tokens_of_their_worlds(
    tmp_path: Path, tiny_tokenizer: VideoTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upscale_draws, "SHARD", 2)
    checkpoint.save(tmp_path / "tokenizer", tiny_tokenizer.model, card="")
    plan = PairPlan(str(tmp_path / "tokenizer"), replace(SOURCE, max_bodies=1), 9, 0)
    seeds: list[tuple[int, int]] = []
    render = worlds.render
    monkeypatch.setattr(
        worlds, "render", lambda seed, config: (seeds.append((seed, config.height)), render(seed, config))[1]
    )
    folder = tmp_path / "pairs"
    folder.mkdir()
    paths = shard_paths(plan, folder)
    for number, path in enumerate(paths):
        draw_shard(plan, number, path)
    assert len(paths) == 2 and len(seeds) == 8
    assert [height for _, height in seeds] == [16, 32] * 4 and len({seed for seed, _ in seeds}) == 4

    pairs = draw_pairs(plan, folder)

    assert len(pairs) == 3 and len(seeds) == 8
    assert pairs[0].small_thw.shape == (3, 2, 2) and pairs[0].large_thw.shape == (3, 4, 4)
    again = folder / "again.safetensors"
    draw_shard(plan, 1, again)
    assert again.read_bytes() == paths[1].read_bytes() != paths[0].read_bytes()
    paths[0].write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="delete it"):
        draw_pairs(plan, folder)


def test_more_pairs_are_more_files_and_another_kind_is_other_files(tmp_path: Path) -> None:
    plan = PairPlan("tiny", PairSource(clips=150, side=64), 9, 0)
    paths = shard_paths(plan, tmp_path)
    more = shard_paths(replace(plan, source=PairSource(clips=250, side=64)), tmp_path)
    assert len(paths) == 2 and len(more) == 3 and more[:2] == paths
    assert not set(shard_paths(replace(plan, frames=13), tmp_path)) & set(paths)
    assert not set(shard_paths(replace(plan, source=PairSource(clips=150, side=32)), tmp_path)) & set(paths)


def test_it_learns_and_an_interrupted_run_gives_the_same_bits(tmp_path: Path, tiny_tokenizer: VideoTokenizer) -> None:
    whole = trainer(tmp_path / "whole", tiny_tokenizer)
    whole.run()
    begun = trainer(tmp_path / "parts", tiny_tokenizer)
    for _ in range(4):  # what a killed run has done since its last save is done again
        begun._step(begun.counters.step)
        begun.counters.step += 1
    begun.save()
    rest = trainer(tmp_path / "parts", tiny_tokenizer)
    assert rest.counters.step == 4
    rest.run()

    assert all(torch.equal(value, weights(rest.model)[name]) for name, value in weights(whole.model).items())
    assert all(torch.equal(value, weights(rest.average)[name]) for name, value in weights(whole.average).items())


def test_a_few_pairs_are_learned_by_heart(tmp_path: Path, tiny_tokenizer: VideoTokenizer) -> None:
    config = replace(CONFIG, steps=60, small_noise=0.0, small_dropout=0.0)
    run = trainer(tmp_path, tiny_tokenizer, config)
    batch = run.batch(10_000)
    before = float(upscale_loss(run.model, batch, torch.device("cpu")).detach())
    run.run()
    after = float(upscale_loss(run.model, batch, torch.device("cpu")).detach())
    assert before > 3.9 and after < 0.75 * before, (before, after)


def test_what_is_hidden_noised_and_left_out_is_as_the_recipe_says(
    tmp_path: Path, tiny_tokenizer: VideoTokenizer
) -> None:
    run = trainer(tmp_path, tiny_tokenizer, replace(CONFIG, batch=200, small_noise=0.5, small_dropout=0.2))
    pairs = some_pairs()

    batch, again = run.batch(0), run.batch(0)

    assert torch.equal(batch.shown_Bthw, again.shown_Bthw) and torch.equal(batch.small_Bthw, again.small_Bthw)
    seen = batch.shown_Bthw != HIDDEN
    assert torch.equal(batch.shown_Bthw[seen], batch.large_Bthw[seen])
    assert bool((~seen).flatten(1).any(dim=1).all())
    # Whole latent frames are settled exactly where a stretch begins inside a stream.
    settled_B = seen.flatten(2).all(dim=2)[:, 0]
    assert bool(settled_B[~batch.first_B].all()) and 0.2 < float((~batch.first_B).float().mean()) < 0.5
    left_out_B = (batch.small_Bthw == HIDDEN).flatten(1).all(dim=1)
    assert bool(((batch.small_Bthw == HIDDEN).flatten(1).any(dim=1) == left_out_B).all())
    assert 0.1 < float(left_out_B.float().mean()) < 0.3
    wrong = []
    for large_thw, small_thw in zip(batch.large_Bthw[~left_out_B], batch.small_Bthw[~left_out_B], strict=True):
        true = next(
            pair.small_thw[start : start + 3]
            for pair in pairs
            for start in range(3)
            if torch.equal(pair.large_thw[start : start + 3].long(), large_thw)
        )
        wrong.append(float((true != small_thw).float().mean()))
    assert 0.15 < sum(wrong) / len(wrong) < 0.35


def test_a_run_of_another_recipe_and_networks_that_do_not_fit_are_refused(
    tmp_path: Path, tiny_tokenizer: VideoTokenizer
) -> None:
    trainer(tmp_path / "run", tiny_tokenizer).save()
    with pytest.raises(CheckpointError, match="another"):
        trainer(tmp_path / "run", tiny_tokenizer, replace(CONFIG, steps=9))
    with pytest.raises(ConfigError, match="do not make the 64 ids"):
        trainer(tmp_path / "new", tiny_tokenizer, replace(CONFIG, network=replace(NETWORK, factors=(8, 4))))
    for changes in ({"clip_latents": 2}, {"batch": 0}, {"small_noise": 1.5}):
        with pytest.raises(ConfigError):
            replace(CONFIG, **changes)  # type: ignore[arg-type]


def test_what_was_trained_is_saved_and_loaded(tmp_path: Path, tiny_tokenizer: VideoTokenizer) -> None:
    run = trainer(tmp_path / "run", tiny_tokenizer)
    fingerprint = run.save_weights(tmp_path / "weights", "# card\n")
    model, found = checkpoint.load_module(tmp_path / "weights", checkpoint.SUPER_RESOLUTION)
    assert isinstance(model, SuperResolution) and found == fingerprint
    assert model.config.tokenizer == tiny_tokenizer.fingerprint


def test_the_recipe_loads_and_fits_its_tokenizer() -> None:
    config = recipes.load_recipe(ROOT / "recipes" / "upscale_world_nano.py")
    assert isinstance(config, UpscaleTrainConfig)
    assert config.clip_latents > config.network.latent_frames
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in SuperResolution(config.network).parameters())
    assert 2e5 < count < 4e5

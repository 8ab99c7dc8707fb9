"""Training a sound tokenizer: it learns, every stage runs, and a killed run goes on to the same bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kinolex import checkpoint, hub
from kinolex.errors import CheckpointError, ConfigError
from kinolex.media import write_sound
from kinolex.tokenizers.quantizers import ResidualConfig, VQConfig
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.tokenizers.soundstream import SoundStreamConfig
from kinolex.training.config import OptimizerConfig
from kinolex.training.recipes import train_from_recipe
from kinolex.training.sound_adversarial import SoundAdversary, SoundDiscriminatorConfig
from kinolex.training.sound_losses import spectral_terms
from kinolex.training.sound_run import SoundTrainConfig, SoundTrainer
from kinolex.types import Sound


def config() -> SoundTrainConfig:
    level = VQConfig(codebook_size=8, dim=4, ema_decay=0.9, lloyd_steps=2)
    return SoundTrainConfig(
        model=SoundStreamConfig(
            rate_hz=8_000,
            strides=(4, 5),
            widths=(4, 8, 8),
            encoder_units=(0, 1, 0),
            decoder_units=(0, 1, 0),
            quantizer=ResidualConfig(level=level, num_levels=2),
            direct=True,
        ),
        data=(),
        steps=6,
        warm_steps=2,
        adversarial_steps=2,
        crop_frames=60,
        batch=2,
        world_fraction=1.0,
        optimizer=OptimizerConfig(muon_lr=0.01, adam_lr=1e-3, warmup_steps=1),
        discriminator=SoundDiscriminatorConfig(scales=(1, 2), widths=(4, 4), window=64, spectral_widths=(4, 4)),
        save_every=100,
    )


def test_a_run_that_was_stopped_in_any_stage_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole = SoundTrainer(config(), [], tmp_path / "whole").run().state_dict()

    for _ in range(10):
        trainer = SoundTrainer(config(), [], tmp_path / "cut")
        if trainer.counters.step == 6:
            break
        trainer.run(minutes=1e-9)  # at least nothing is lost
        trainer = SoundTrainer(config(), [], tmp_path / "cut")
        trainer._step(trainer.counters.step)
        trainer.counters.step += 1
        trainer.save()

    cut = SoundTrainer(config(), [], tmp_path / "cut").run().state_dict()
    assert all(torch.equal(cut[name], value) for name, value in whole.items())


def test_codes_start_after_the_warm_up_from_many_latents_and_discriminators_join_last(tmp_path: Path) -> None:
    trainer = SoundTrainer(config(), [], tmp_path)
    seen = []
    for step in range(6):
        figures, ids = trainer._step(step)
        seen.append((ids is not None, "discriminator_loss" in figures))
    assert seen == [(False, False)] * 2 + [(True, False)] * 2 + [(True, True)] * 2
    codes = trainer.model.quantizer.state_dict()["levels.0.codebook"]
    assert len(codes.unique(dim=0)) == 8


def test_training_brings_the_sound_nearer(tmp_path: Path) -> None:
    # Without the cosine transform, whose start leaves a network this small little to learn.
    model = replace(config().model, direct=False)
    longer = replace(config(), model=model, steps=40, warm_steps=40, adversarial_steps=0, batch=4)
    trainer = SoundTrainer(longer, [], tmp_path)
    losses = [trainer._step(step)[0]["loss"] for step in range(40)]
    assert sum(losses[-8:]) < 0.9 * sum(losses[:8])


def test_a_run_of_another_recipe_is_not_continued(tmp_path: Path) -> None:
    SoundTrainer(config(), [], tmp_path).save()
    with pytest.raises(CheckpointError, match="another recipe"):
        SoundTrainer(replace(config(), batch=3), [], tmp_path)


def test_stages_must_fit_into_the_run() -> None:
    with pytest.raises(ConfigError, match="parts of 6 steps"):
        replace(config(), warm_steps=5)


def test_a_discriminator_learns_to_tell_noise_from_tones_and_then_teaches() -> None:
    torch.manual_seed(0)
    adversary = SoundAdversary(replace(config().discriminator, lr=3e-3))
    tone_B1S = torch.sin(torch.arange(1_200) * 0.3).expand(4, 1, 1_200) * 0.3
    noise_B1S = torch.randn(4, 1, 1_200) * 0.2
    figures = [adversary.train_step(noise_B1S, tone_B1S) for _ in range(40)]
    assert figures[-1]["discriminator_loss"] < 0.5 * figures[0]["discriminator_loss"]

    made_B1S = noise_B1S.clone().requires_grad_(True)
    terms = adversary.generator_terms(made_B1S, tone_B1S)
    torch.stack(list(terms.values())).sum().backward()
    assert made_B1S.grad is not None and float(made_B1S.grad.abs().max()) > 0
    assert all(parameter.grad is None for parameter in adversary.network.parameters())
    same = adversary.generator_terms(tone_B1S.clone(), tone_B1S)
    assert float(same["feature"]) == 0.0 < float(terms["feature"].detach())


def test_spectral_terms_are_zero_for_equal_sounds_and_one_for_silence() -> None:
    torch.manual_seed(0)
    real_B1S = torch.randn(2, 1, 4_000) * 0.1
    assert all(float(term) == 0 for term in spectral_terms(real_B1S, real_B1S, 16_000, quiet=1e-4).values())
    silent = spectral_terms(torch.zeros_like(real_B1S), real_B1S, 16_000, quiet=1e-4)
    assert float(silent["waveform"]) == pytest.approx(1.0) and float(silent["mel"]) == pytest.approx(1.0, abs=1e-3)


def test_a_recipe_becomes_a_tokenizer_that_loads_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "noises").mkdir(parents=True)
    write_sound(Sound(torch.rand(1, 8_000) - 0.5, 8_000), tmp_path / "data" / "noises" / "a.wav")
    recipe = tmp_path / "recipe.py"
    recipe.write_text("")
    monkeypatch.setattr(
        "kinolex.training.recipes.load_recipe", lambda _path: replace(config(), data=("noises",), world_fraction=0.5)
    )
    weights = train_from_recipe(recipe, tmp_path / "data", tmp_path / "out")

    assert checkpoint.what_is(weights) == checkpoint.SOUND_TOKENIZER
    assert isinstance(hub.load(weights), SoundTokenizer)
    tokenizer = hub.load_sound(weights)
    tokens = tokenizer.encode(Sound(torch.rand(1, 500) - 0.5, 8_000))
    assert tokenizer.decode(tokens).num_samples == 500
    with pytest.raises(CheckpointError, match="no tokenizer"):
        checkpoint.load(weights)


def test_a_quiet_difference_counts_only_where_it_is_asked_for() -> None:
    real_B1S = torch.zeros(1, 1, 4_000)
    hiss_B1S = 1e-6 * torch.randn(1, 1, 4_000, generator=torch.Generator().manual_seed(0))
    coarse, fine = (float(spectral_terms(hiss_B1S, real_B1S, 8_000, quiet=quiet)["log_mel"]) for quiet in (1e-4, 1e-6))
    assert fine > 5 * coarse


def test_training_goes_on_from_given_weights_in_float32(tmp_path: Path) -> None:
    first = SoundTrainer(config(), [], tmp_path / "first")
    first.run()
    checkpoint.save(tmp_path / "weights", first.average, card="", dtype=torch.int8)
    recipe = tmp_path / "longer.py"
    recipe.write_text(
        "from dataclasses import replace\nfrom tests.training.test_sound_run import config as first\n"
        "def config():\n    return replace(first(), steps=2, warm_steps=0, adversarial_steps=0, precision='float32')\n"
    )

    weights = train_from_recipe(recipe, tmp_path, tmp_path / "out", init=tmp_path / "weights")

    before, after = (hub.load_sound(folder).model for folder in (tmp_path / "weights", weights))
    assert all(bool(level.is_initialised) for level in after.quantizer.levels)
    nearness = [
        float(torch.cosine_similarity(a.flatten(), b.flatten(), dim=0))
        for a, b in zip(before.parameters(), after.parameters(), strict=True)
        if a.ndim > 1
    ]
    assert min(nearness) > 0.9
    other = tmp_path / "other.py"
    other.write_text(recipe.read_text().replace("steps=2,", "steps=2, model=replace(first().model, direct=False),"))
    with pytest.raises(CheckpointError, match="another architecture"):
        train_from_recipe(other, tmp_path, tmp_path / "more", init=tmp_path / "weights")
    with pytest.raises(ConfigError, match="precision must be one of bfloat16, float32, got 'half'"):
        replace(config(), precision="half")

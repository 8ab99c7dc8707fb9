"""Training of probes: labels are learned, a run resumed is a run uninterrupted, and inputs are kept between runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kinolex import checkpoint, hub
from kinolex.errors import CheckpointError, ConfigError, UsageError
from kinolex.evaluation.understanding_sets import LabelledClips, LabelledSet, SetConfig
from kinolex.models.probe import Probe, ProbeKind
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training.probe_data import Inputs
from kinolex.training.probe_run import (
    FitConfig,
    ProbeTrainConfig,
    ProbeTrainer,
    SizeConfig,
    fit,
    fit_hidden,
    hidden_reader,
    judged,
    new_probe,
)
from kinolex.training.recipes import load_recipe
from kinolex.understanding import features

SMALL = SizeConfig(kind="attentive", width=16, depth=1, heads=2, dropout=0.0)
ROOT = Path(__file__).resolve().parents[2]


def bright_and_dark(count: int = 12) -> LabelledSet:
    """Clips of 5 frames of 16x16 that are bright or dark."""
    dice = np.random.default_rng(0)
    labels_N = np.arange(count) % 2
    level_NTHWC = 60 + 120 * labels_N[:, None, None, None, None] + dice.integers(0, 40, (count, 5, 16, 16, 3))
    clips = LabelledClips(level_NTHWC.astype(np.uint8), {"light": labels_N}, np.arange(count))
    return LabelledSet("light", (("light", ("dark", "bright")),), clips, clips, 24.0)


@pytest.mark.parametrize("kind", ["linear", "attentive", "transformer"])
def test_every_kind_learns_what_can_be_seen(tiny_tokenizer: VideoTokenizer, kind: ProbeKind) -> None:
    clips = bright_and_dark()
    inputs = Inputs(clips.train, tiny_tokenizer)
    probe = new_probe(clips, inputs, "raw", replace(SMALL, kind=kind), seed=0)
    fit(probe, inputs, "raw", FitConfig(steps=25, batch=8, lr=1e-2, warmup_steps=2), seed=0)
    said_N = judged(probe, inputs, "raw")["light"].argmax(dim=1).numpy()
    assert (said_N == clips.train.labels["light"]).all()


def test_probes_of_all_inputs_start_alike_and_say_what_they_read(tiny_tokenizer: VideoTokenizer) -> None:
    clips = bright_and_dark(4)
    inputs = Inputs(clips.train, tiny_tokenizer)
    widths = {"raw": 4 * 8 * 8 * 3, "decoded": 4 * 8 * 8 * 3, "latents": 2, "digits": 16}
    for kind, width in widths.items():
        probe = new_probe(clips, inputs, kind, SMALL, seed=3)
        reads = probe.config.reads
        assert probe.config.features == width and reads is not None
        assert (reads.input, reads.tokenizer, reads.frames, reads.side) == (kind, tiny_tokenizer.fingerprint, 5, 16)
    with pytest.raises(UsageError, match="no input 'words'"):
        inputs.features("words", np.arange(2))


def test_tokens_and_decoded_clips_are_made_once(
    tiny_tokenizer: VideoTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = bright_and_dark(4).train
    first = Inputs(clips, tiny_tokenizer, tmp_path)
    ids_NQthw, decoded_NTHWC = first.ids_NQthw, first.decoded
    for name in ("encode_many", "decode_many"):
        monkeypatch.setattr(features, name, None)
    again = Inputs(clips, tiny_tokenizer, tmp_path)
    assert torch.equal(again.ids_NQthw, ids_NQthw) and np.array_equal(again.decoded, decoded_NTHWC)
    assert torch.equal(first.some(np.array([2])).ids_NQthw, ids_NQthw[2:3])
    for path in tmp_path.iterdir():
        path.write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="delete it"):
        _ = Inputs(clips, tiny_tokenizer, tmp_path).ids_NQthw


def test_clips_that_do_not_tell_an_attribute_teach_nothing_of_it(tiny_tokenizer: VideoTokenizer) -> None:
    clips = bright_and_dark(4)
    unasked = LabelledClips(clips.train.frames_NTHWC, {"light": np.full(4, -100)}, clips.train.items_N)
    inputs = Inputs(unasked, tiny_tokenizer)
    probe = new_probe(clips, inputs, "raw", SMALL, seed=0)
    before = {name: value.clone() for name, value in probe.named_parameters()}
    fit(probe, inputs, "raw", FitConfig(steps=2, batch=4, weight_decay=0.0), seed=0)
    assert all(torch.equal(value, before[name]) for name, value in probe.named_parameters())


def test_hidden_tokens_are_predicted_better_after_than_before(tiny_tokenizer: VideoTokenizer) -> None:
    clips = bright_and_dark()
    inputs = Inputs(clips.train, tiny_tokenizer)
    probe = new_probe(clips, inputs, "digits", replace(SMALL, kind="transformer"), seed=0)
    assert hidden_reader(probe, tiny_tokenizer).tokens.sizes == (64,)
    first = fit_hidden(probe, inputs, "digits", FitConfig(steps=1, batch=8), seed=0)
    last = fit_hidden(probe, inputs, "digits", FitConfig(steps=30, batch=8, lr=5e-3, warmup_steps=2), seed=0)
    assert last < 0.9 * first


@pytest.fixture
def recipe(tmp_path: Path, tiny_tokenizer: VideoTokenizer) -> ProbeTrainConfig:
    checkpoint.save(tmp_path / "tokenizer", tiny_tokenizer.model, card="")
    return ProbeTrainConfig(
        set=SetConfig(name="worlds", train=3, test=1),
        tokenizer=str(tmp_path / "tokenizer"),
        input="digits",
        fit=FitConfig(steps=3, batch=2),
        size=replace(SMALL, kind="transformer"),
        hidden_steps=2,
        save_every=1,
    )


def test_a_run_resumed_at_any_step_gives_the_same_bits(
    recipe: ProbeTrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ProbeTrainer(recipe, None, tmp_path / "whole", tmp_path / "tokens").run()
    step = ProbeTrainer._step
    for stop_at in (1, 3):
        folder = tmp_path / f"stopped-{stop_at}"
        with monkeypatch.context() as patched:

            def broken(self: ProbeTrainer, number: int, stop_at: int = stop_at) -> float:
                if number == stop_at:
                    raise RuntimeError("power cut")
                return step(self, number)

            patched.setattr(ProbeTrainer, "_step", broken)
            with pytest.raises(RuntimeError):
                ProbeTrainer(recipe, None, folder, tmp_path / "tokens").run()
        resumed = ProbeTrainer(recipe, None, folder, tmp_path / "tokens").run()
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), name
    with pytest.raises(CheckpointError, match="another recipe"):
        ProbeTrainer(replace(recipe, seed=1), None, tmp_path / "whole", tmp_path / "tokens")


def test_a_stored_probe_is_loaded_as_it_was(recipe: ProbeTrainConfig, tmp_path: Path) -> None:
    probe = ProbeTrainer(recipe, None, tmp_path / "run", tmp_path / "tokens").run()
    checkpoint.save(tmp_path / "weights", probe, card="")
    loaded, _ = checkpoint.load_module(tmp_path / "weights", checkpoint.PROBE)
    assert isinstance(loaded, Probe) and loaded.config == probe.config
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in probe.state_dict().items())


def test_recipes_that_cannot_work_are_refused(recipe: ProbeTrainConfig) -> None:
    with pytest.raises(ConfigError, match="no input"):
        replace(recipe, input="words")
    with pytest.raises(ConfigError, match="hidden tokens"):
        replace(recipe, input="raw")
    with pytest.raises(ConfigError, match="worlds is a set of pictures; leave levels out"):
        replace(recipe, levels=2)
    with pytest.raises(ConfigError, match="steps must be at least 1, got 0"):
        FitConfig(steps=0)


def test_a_recipe_is_a_python_file(tmp_path: Path) -> None:
    (tmp_path / "recipe.txt").write_text("")
    with pytest.raises(UsageError, match=r"a recipe is a Python file \(NAME.py\), got .*recipe.txt"):
        load_recipe(tmp_path / "recipe.txt")


@pytest.mark.parametrize("name", ["weizmann", "worlds", "fsdd", "esc10"])
def test_the_shipped_recipes_name_shipped_tokenizers(name: str) -> None:
    config = load_recipe(ROOT / "recipes" / f"probe_{name}_nano.py")
    assert isinstance(config, ProbeTrainConfig) and config.set.name.startswith(name)
    wanted = checkpoint.SOUND_TOKENIZER if config.set.of_sounds else checkpoint.TOKENIZER
    assert config.tokenizer in hub.shipped(wanted)

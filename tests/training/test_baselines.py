"""The baselines train by the masked generator's recipe, cost what is said, and go on where they were stopped."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kinolex import checkpoint, hub
from kinolex.errors import CheckpointError, ConfigError, UsageError
from kinolex.models.masked import PRESETS, MaskedConfig
from kinolex.tasks.video import TASK_NAMES
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training import generator_run, token_draws
from kinolex.training.baselines import KINDS, NetworkKind, network_of, training_flops, with_network
from kinolex.training.config import OptimizerConfig
from kinolex.training.generator_losses import TokenBatch, autoregressive_loss, diffusion_loss, masked_loss
from kinolex.training.generator_run import GeneratorTrainConfig, GeneratorTrainer
from kinolex.training.token_draws import Drawn, DrawSource

FSQ = {"factors": (512, 512), "digits": (8,) * 6}


def small(**changes: object) -> MaskedConfig:
    fields = FSQ | {"width": 32, "depth": 2, "heads": 2, "latent_frames": 2, "words": ("red", "blue"), "max_words": 2}
    return MaskedConfig(tokenizer="", tasks=TASK_NAMES, **(fields | changes))


def recipe(kind: NetworkKind, steps: int = 2) -> GeneratorTrainConfig:
    config = GeneratorTrainConfig(
        tokenizer="magvit2-nano",
        network=small(),
        sources=(DrawSource(name="few", clips=4, crop=16, batch=2, share=1.0),),
        steps=steps,
        clip_latents=3,
        save_every=100,
        optimizer=OptimizerConfig(muon_lr=0.02, adam_lr=2e-3, warmup_steps=1),
    )
    return with_network(config, kind)


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips of random tokens instead of videos."""
    generator = torch.Generator().manual_seed(0)

    def ids(frames: int) -> torch.Tensor:
        return torch.randint(8**6, (frames, 2, 2), generator=generator)

    inpaint = token_draws.ENCODED_TASKS.index("inpaint-central")
    clips = [Drawn(ids(3), torch.tensor([1, 0]), ((inpaint, ids(2)),)) for _ in range(4)]
    monkeypatch.setattr(generator_run, "draw", lambda *_: clips)


@cache
def tokenizer() -> VideoTokenizer:
    return hub.load("magvit2-nano")


def trainer(kind: NetworkKind, folder: Path) -> GeneratorTrainer:
    return GeneratorTrainer(recipe(kind), tokenizer(), {}, folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(kind: NetworkKind, tmp_path: Path) -> None:
    whole = trainer(kind, tmp_path / "whole").run()
    first = trainer(kind, tmp_path / "parts")
    steps = first._step

    def stopped(step: int, drawn: dict[str, list[Drawn]]) -> dict[str, float]:
        if step == 1:
            raise RuntimeError("the power went")
        return steps(step, drawn)

    first._step = stopped  # type: ignore[method-assign]
    first.save_every = 1
    with pytest.raises(RuntimeError):
        first.run()
    resumed = trainer(kind, tmp_path / "parts")
    assert resumed.counters.step == 1

    parts = resumed.run()

    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name


@pytest.mark.parametrize(
    ("kind", "what"), [("autoregressive", checkpoint.AUTOREGRESSIVE), ("diffusion", checkpoint.DIFFUSION)]
)
def test_a_trained_baseline_is_stored_under_its_own_kind(kind: NetworkKind, what: str, tmp_path: Path) -> None:
    run = trainer(kind, tmp_path / "run")
    model = run.run()
    digest = run.save_weights(tmp_path / "weights", "# card\n")

    loaded, fingerprint = checkpoint.load_module(tmp_path / "weights", what)

    assert checkpoint.what_is(tmp_path / "weights") == what and fingerprint == digest
    assert loaded.config == model.config and loaded.config.tokenizer == tokenizer().fingerprint
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    with pytest.raises(CheckpointError, match=what):
        checkpoint.load_module(tmp_path / "weights", checkpoint.GENERATOR)


def test_latents_are_scaled_by_what_was_drawn(tmp_path: Path) -> None:
    model = trainer("diffusion", tmp_path).run()
    assert 0.5 < float(model.std.min()) < float(model.std.max()) < 0.8
    assert float(model.mean.abs().max()) < 0.3


def test_a_folder_of_one_kind_is_no_run_of_another(tmp_path: Path) -> None:
    trainer("autoregressive", tmp_path).save()
    with pytest.raises(CheckpointError):
        trainer("diffusion", tmp_path)


def test_diffusion_refuses_levels_that_are_not_the_tokenizers(tmp_path: Path) -> None:
    config = replace(recipe("diffusion"), network=replace(recipe("diffusion").network, factors=(64,) * 3))
    with pytest.raises(ConfigError, match="finite scalar"):
        GeneratorTrainer(config, tokenizer(), {}, tmp_path)


@pytest.mark.parametrize("preset", ["nano", "small"])
def test_parameters_agree_within_two_percent(preset: str) -> None:
    masked = MaskedConfig(tokenizer="", tasks=TASK_NAMES, words=("a", "b"), max_words=16, **PRESETS[preset])
    with torch.device("meta"):
        counts = {
            kind: sum(parameter.numel() for parameter in built(network_of(masked, kind)).parameters()) for kind in KINDS
        }
    for kind in KINDS:
        assert abs(counts[kind] / counts["masked"] - 1) < 0.02, counts


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [32, 128])
def test_counted_operations_are_those_of_torchs_counter(kind: NetworkKind, width: int) -> None:
    network = network_of(small(width=width), kind)
    model, batch, grid = built(network), 2, (2, 4, 4)
    ids_Bthw = torch.randint(8**6, (batch, *grid))
    tokens = TokenBatch(
        ids_Bthw,
        ids_Bthw,
        torch.zeros_like(ids_Bthw, dtype=torch.bool),
        torch.zeros(batch, dtype=torch.long),
        torch.zeros(batch, 2, dtype=torch.long),
        torch.ones(batch, dtype=torch.bool),
    )
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        if kind == "masked":
            corrupt_Bthw = torch.ones_like(ids_Bthw, dtype=torch.bool)
            options = {"corruption": "commit", "losses": ("mask", "refine"), "label_smoothing": 0.0}
            loss, _ = masked_loss(model, tokens, corrupt_Bthw, **options)
        elif kind == "autoregressive":
            loss, _ = autoregressive_loss(model, tokens, label_smoothing=0.0)
        else:
            loss, _ = diffusion_loss(model, tokens)
        loss.backward()
    assert training_flops(network, grid, batch) == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_recipes_that_cannot_be_turned_are_refused() -> None:
    with pytest.raises(UsageError, match="masked"):
        with_network(recipe("diffusion"), "autoregressive")
    with pytest.raises(UsageError, match="digits"):
        network_of(small(digits=()), "diffusion")
    with pytest.raises(UsageError, match="choose one"):
        network_of(small(), "gan")  # type: ignore[arg-type]


def built(network: object) -> nn.Module:
    return checkpoint.KINDS[type(network)].build(network)

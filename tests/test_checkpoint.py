from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import kinolex
from kinolex import checkpoint, hub
from kinolex.errors import CheckpointError, MissingFile, UnknownModel
from kinolex.tokenizers import magvit, magvit2
from kinolex.tokenizers.autoencoder3d import Autoencoder3D, AutoencoderConfig
from kinolex.tokenizers.quantizers import FSQConfig, LFQConfig, ResidualConfig

TINY = AutoencoderConfig(
    channels=(8, 8),
    down=((2, 2),),
    encoder_blocks=(1, 1),
    decoder_blocks=(1, 1),
    middle_blocks=1,
    quantizer=FSQConfig(levels=(5, 5)),
    causal=True,
    norm_groups=4,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "tiny", Autoencoder3D(TINY), card="# tiny\n", extra={"steps": 3})
    return tmp_path / "tiny"


@pytest.mark.parametrize("config", [*magvit.PRESETS.values(), *magvit2.PRESETS.values()], ids=lambda _: "preset")
def test_every_preset_survives_json(config: AutoencoderConfig) -> None:
    assert checkpoint.from_json(json.loads(json.dumps(checkpoint.to_json(config)))) == config


def test_nested_quantizers_survive_json() -> None:
    config = replace(TINY, quantizer=ResidualConfig(level=LFQConfig(num_bits=5), num_levels=2))
    assert checkpoint.from_json(json.loads(json.dumps(checkpoint.to_json(config)))) == config


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, dtype: torch.dtype) -> None:
    model = Autoencoder3D(TINY)
    digest = checkpoint.save(tmp_path / "x", model, card="card", dtype=dtype)
    loaded = checkpoint.load(tmp_path / "x")
    assert loaded.fingerprint == digest and len(digest) == 64
    assert loaded.config == TINY
    for name, tensor in model.state_dict().items():
        expected = tensor.to(dtype).float() if tensor.is_floating_point() else tensor
        assert torch.equal(loaded.model.state_dict()[name], expected)
    assert (tmp_path / "x" / "README.md").read_text() == "card"
    assert not list(tmp_path.glob("*.part")) + list(tmp_path.glob("*.old"))


def test_the_fingerprint_sees_every_weight_and_the_config(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Autoencoder3D(TINY)
    first = checkpoint.save(tmp_path / "a", model, card="")
    assert checkpoint.save(tmp_path / "b", model, card="another card") == first
    model.decoder.out.bias.data[0] += 1e-6
    assert checkpoint.save(tmp_path / "a", model, card="") != first


def change(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_foreign_damaged_and_mismatching_files_are_refused(folder: Path) -> None:
    config, weights = folder / "config.json", folder / "model.safetensors"
    good_config, good_weights = config.read_text(), weights.read_bytes()

    weights.write_bytes(good_weights[: len(good_weights) // 2])
    with pytest.raises(CheckpointError, match="truncated or a pickle"):
        checkpoint.load(folder)
    weights.write_bytes(pickle.dumps({"encoder.stem.weight": 0}))
    with pytest.raises(CheckpointError, match="truncated or a pickle"):
        checkpoint.load(folder)
    flipped = bytearray(good_weights)
    flipped[-5] ^= 1
    weights.write_bytes(bytes(flipped))
    with pytest.raises(CheckpointError, match="fingerprint differs"):
        checkpoint.load(folder)
    weights.write_bytes(good_weights)

    change(folder, config={"type": "os.system"})
    with pytest.raises(CheckpointError, match="unknown config type"):
        checkpoint.load(folder)
    config.write_text(good_config.replace('"causal"', '"casual"'))
    with pytest.raises(CheckpointError, match="no fields"):
        checkpoint.load(folder)
    config.write_text(good_config.replace("kinolex-checkpoint-1", "other"))
    with pytest.raises(CheckpointError, match="format"):
        checkpoint.load(folder)
    config.write_text("{")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        checkpoint.load(folder)
    weights.unlink()
    config.write_text(good_config)
    with pytest.raises(MissingFile):
        checkpoint.load(folder)


def test_names_folders_and_unknown_names(folder: Path) -> None:
    assert kinolex.load(folder).config == TINY
    with pytest.raises(UnknownModel, match="neither shipped"):
        kinolex.load("no-such-model")


@pytest.mark.parametrize("name", hub.shipped())
def test_shipped_weights_load_and_carry_a_card(name: str) -> None:
    tokenizer = kinolex.load(name)
    assert len((hub.PRETRAINED / name / "README.md").read_text()) > 400
    assert tokenizer.pixels_per_token == (4, 8, 8)


def test_the_default_model_is_shipped() -> None:
    assert hub.DEFAULT in hub.shipped()

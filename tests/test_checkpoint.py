from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import kinolex
from kinolex import checkpoint, hub
from kinolex.errors import CheckpointError, MissingFile, UnknownModel, UsageError
from kinolex.tokenizers import magvit, magvit2, recurrent
from kinolex.tokenizers.autoencoder3d import Autoencoder3D, AutoencoderConfig
from kinolex.tokenizers.networks import NetworkConfig
from kinolex.tokenizers.quantizers import FSQConfig, LFQConfig, ResidualConfig, VQConfig
from kinolex.tokenizers.quantizers.vq import VectorQuantizer
from kinolex.tokenizers.video import VideoTokenizer

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


@pytest.mark.parametrize(
    "config",
    [*magvit.PRESETS.values(), *magvit2.PRESETS.values(), *recurrent.PRESETS.values()],
    ids=lambda _: "preset",
)
def test_every_preset_survives_json(config: NetworkConfig) -> None:
    assert checkpoint.from_json(json.loads(json.dumps(checkpoint.to_json(config)))) == config


def test_a_recurrent_network_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    config = replace(recurrent.PRESETS["nano"], width=8, deep_width=8, memory=8)
    model = recurrent.RecurrentAutoencoder(config)
    checkpoint.save(tmp_path / "x", model, card="card")
    loaded = checkpoint.load(tmp_path / "x")
    assert loaded.config == config
    assert all(torch.equal(loaded.model.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


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


def rewrite(folder: Path, edit: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> None:
    """Change config and weights as another program might: consistently, with a fresh fingerprint."""
    path = folder / "config.json"
    description, weights = json.loads(path.read_text()), load_file(folder / "model.safetensors")
    edit(description["config"], weights)
    description["fingerprint"] = checkpoint.fingerprint(description["config"], weights)
    path.write_text(json.dumps(description))
    save_file(weights, folder / "model.safetensors")


def nested_lists(depth: int) -> list[Any]:
    return [nested_lists(depth - 1)] if depth else []


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda config, _: config.update(causal="yes"), "causal cannot be 'yes'"),
        (lambda config, _: config.update(channels=[8, 8.0]), "channels cannot be"),
        (lambda config, _: config.update(quantizer=None), "quantizer cannot be None"),
        (lambda config, _: config.update(channels=nested_lists(400)), "nests at most 16 deep"),
        (
            lambda config, _: config.update(encoder_blocks=[2 * 10**9, 1], middle_blocks=-(10**9)),
            "asks for 200000000",
        ),
        (lambda config, _: config.update(norm_groups=0), "incomplete or impossible"),
        (lambda config, _: config.pop("down"), "incomplete or impossible"),
        (lambda config, _: config.update(encoder_blocks=[10**9, 1]), "asks for 1000000005 blocks"),
        (lambda config, _: config.update(channels=[2**20, 2**20]), "misshapen"),
        (lambda config, _: config.update(quantizer=checkpoint.to_json(LFQConfig(num_bits=3))), "misshapen"),
        (
            lambda config, _: config.update(
                quantizer=checkpoint.to_json(ResidualConfig(level=FSQConfig(levels=(8, 8)), num_levels=10**9))
            ),
            "asks for 1000000000 levels",
        ),
        (lambda _, weights: weights.pop("decoder.out.bias"), "lacks tensors for its config.json: decoder.out.bias"),
        (lambda _, weights: weights.update(extra=torch.zeros(1)), "foreign tensors for its config.json: extra"),
        (lambda _, weights: weights.update({"decoder.out.bias": torch.zeros(2)}), "misshapen"),
        (lambda _, weights: weights.update({"decoder.out.bias": torch.zeros(3).int()}), "misshapen"),
    ],
)
def test_what_another_program_wrote_wrongly_is_refused_before_it_is_built(
    folder: Path, edit: Callable[..., None], message: str
) -> None:
    rewrite(folder, edit)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(folder)


def test_an_interrupted_save_leaves_the_old_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = checkpoint.load(folder).fingerprint
    rename, calls = os.replace, []

    def stop_at(call: int) -> Callable[[str, str], None]:
        def replace_or_stop(source: str, target: str) -> None:
            calls.append(target)
            if len(calls) == call:
                raise KeyboardInterrupt
            rename(source, target)

        return replace_or_stop

    for call in (1, 2):
        calls.clear()
        monkeypatch.setattr(os, "replace", stop_at(call))
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(folder, Autoencoder3D(TINY), card="")
        monkeypatch.setattr(os, "replace", rename)
        assert checkpoint.load(folder).fingerprint == before
        assert [path.name for path in folder.parent.iterdir()] == ["tiny"]
    # Killed between the two renames, with no chance to clean up.
    os.replace(folder, folder.with_name("tiny.old"))
    assert checkpoint.load(folder).fingerprint == before


def test_a_folder_of_other_things_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="other things"):
        checkpoint.save(tmp_path / "results", Autoencoder3D(TINY), card="")
    assert (tmp_path / "results" / "thesis.tex").read_text() == "years of work"


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


def test_a_network_of_another_kind_is_refused_by_name(folder: Path) -> None:
    module, digest = checkpoint.load_module(folder, checkpoint.TOKENIZER)
    assert isinstance(module, Autoencoder3D) and digest == checkpoint.load(folder).fingerprint
    assert checkpoint.what_is(folder) == checkpoint.TOKENIZER
    with pytest.raises(CheckpointError, match=r"AutoencoderConfig \(tokenizer\), which is no clip features"):
        checkpoint.load_module(folder, "clip features")
    change(folder, config={"type": "FSQConfig", "levels": [8, 8]})
    assert checkpoint.what_is(folder) is None
    with pytest.raises(CheckpointError, match="FSQConfig, which is no network"):
        checkpoint.load_module(folder)
    with pytest.raises(UsageError, match="Linear cannot be saved"):
        checkpoint.save(folder, torch.nn.Linear(2, 2), card="")


def test_int8_leaves_out_what_codebooks_need_for_training_alone(tmp_path: Path) -> None:
    """Also of a codebook that learns by gradient, which has no sums."""
    for decay in (0.9, None):
        config = replace(TINY, quantizer=VQConfig(codebook_size=16, dim=8, ema_decay=decay))
        torch.manual_seed(0)
        model = Autoencoder3D(config)
        model.quantizer.unused_for_V += 7
        folder = tmp_path / str(decay)
        checkpoint.save(folder, model, card="", dtype=torch.int8)

        loaded, _ = checkpoint.load_module(folder)

        stored = load_file(folder / "model.safetensors")
        assert not [name for name in stored if name.endswith(checkpoint.STATISTICS)]
        quantizer = loaded.quantizer
        assert isinstance(quantizer, VectorQuantizer) and int(quantizer.unused_for_V.sum()) == 0
        if decay is not None:
            assert torch.equal(quantizer.ema_sum_VD, quantizer.codebook) and bool((quantizer.ema_count_V == 1).all())


# --- the hub ---


@pytest.mark.parametrize("name", ["bad name!!", "owner/"])
def test_a_name_that_no_hub_would_take_is_refused_by_name(
    tmp_path: Path, tiny_tokenizer: VideoTokenizer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants", reason="needs huggingface_hub: kinolex[hub]")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    checkpoint.save(tmp_path / "weights", tiny_tokenizer.model, card="")
    with pytest.raises(UsageError, match=r"cannot be pushed to .*give owner/name"):
        hub.push(tmp_path / "weights", name)
    with pytest.raises(MissingFile, match="a checkpoint is a folder"):
        hub.push(tmp_path, name)

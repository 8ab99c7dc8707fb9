"""A trained network as a folder: config.json, model.safetensors and a card (README.md).

    folder/config.json        what to build: {"format", "config": {"type": "AutoencoderConfig", ...}, "fingerprint",
    "extra"}
    folder/model.safetensors  the weights, and nothing that could run
    folder/README.md          the card: data, recipe, commit, measured results

The fingerprint is a hash over the config and the stored weights; tokens carry it. Loading refuses what it does not
recognise:
unknown classes or fields, missing or foreign tensors, pickles, truncated files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kinolex.errors import CheckpointError, ConfigError, MissingFile
from kinolex.tokenizers.autoencoder3d import Autoencoder3D, AutoencoderConfig
from kinolex.tokenizers.quantizers import FSQConfig, LFQConfig, ResidualConfig, VQConfig
from kinolex.tokenizers.video import VideoTokenizer

FORMAT = "kinolex-checkpoint-1"
CLASSES = {cls.__name__: cls for cls in (AutoencoderConfig, FSQConfig, LFQConfig, ResidualConfig, VQConfig)}
"""Everything a config.json may name; nothing is imported by name."""

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


def save(
    folder: str | Path,
    model: Autoencoder3D,
    *,
    card: str,
    extra: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Write a network; an existing folder is replaced whole, so an interrupt leaves the old or the new one.

    Args:
        folder: where; made if missing.
        model: its config and weights are stored.
        card: Markdown for people: data, recipe, commit, results.
        extra: anything else for config.json that JSON can hold.
        dtype: of the stored floating-point weights; torch.bfloat16 halves the file.

    Returns:
        The fingerprint.
    """
    folder = Path(folder)
    weights = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).detach().contiguous().cpu()
        for name, tensor in model.state_dict().items()
    }
    config = to_json(model.config)
    digest = fingerprint(config, weights)
    temporary = folder.with_name(folder.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(weights, temporary / WEIGHTS, {"format": FORMAT, "fingerprint": digest})
    description = {"format": FORMAT, "fingerprint": digest, "config": config, "extra": extra or {}}
    (temporary / CONFIG).write_text(json.dumps(description, indent=2) + "\n")
    (temporary / CARD).write_text(card)
    if folder.exists():
        old = folder.with_name(folder.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
        os.replace(temporary, folder)
        shutil.rmtree(old)
    else:
        os.replace(temporary, folder)
    return digest


def load(folder: str | Path) -> VideoTokenizer:
    """The tokenizer stored in a folder.

    Raises:
        MissingFile: no such folder, or one of its files is missing.
        CheckpointError: the files are damaged, foreign, or do not belong together.
    """
    folder = Path(folder)
    description = read_description(folder)
    weights = _read_weights(folder / WEIGHTS)
    config = from_json(description["config"])
    if not isinstance(config, AutoencoderConfig):
        raise CheckpointError(f"{folder} describes a {type(config).__name__}, which is no tokenizer")
    if fingerprint(description["config"], weights) != description["fingerprint"]:
        raise CheckpointError(
            f"{folder}: {WEIGHTS} and {CONFIG} do not belong together (the fingerprint differs); fetch or save "
            f"both again"
        )
    model = Autoencoder3D(config)
    try:
        model.load_state_dict(
            {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
        )
    except RuntimeError as error:
        raise CheckpointError(f"{folder}: the weights do not fit the config: {error}") from error
    return VideoTokenizer(model, description["fingerprint"])


def read_description(folder: str | Path) -> dict[str, Any]:
    """config.json, checked for format and keys. Raises as load does."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise MissingFile(f"{folder} holds no {CONFIG}; a checkpoint is a folder with {CONFIG} and {WEIGHTS}")
    try:
        description = json.loads(path.read_text())
        complete = {"format", "fingerprint", "config"} <= description.keys()
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a checkpoint's description: {error}") from error
    if not complete or description["format"] != FORMAT:
        raise CheckpointError(f"{path} is not of format {FORMAT}; it was written by something else or another version")
    return description  # type: ignore[no-any-return]


def fingerprint(config: dict[str, Any], weights: dict[str, Tensor]) -> str:
    """sha256, in hex, over the config's canonical JSON and every tensor's name, dtype, shape and bytes."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(weights):
        tensor = weights[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def to_json(config: Any) -> Any:
    """Dataclasses become objects tagged with their class name; tuples become lists."""
    if is_dataclass(config) and not isinstance(config, type):
        values = {field.name: to_json(getattr(config, field.name)) for field in fields(config)}
        return {"type": type(config).__name__} | values
    if isinstance(config, tuple):
        return [to_json(value) for value in config]
    return config


def from_json(value: Any) -> Any:
    """The inverse of to_json. Raises CheckpointError for classes or fields that this version does not know."""
    if isinstance(value, list):
        return tuple(from_json(item) for item in value)
    if not isinstance(value, dict):
        return value
    cls = CLASSES.get(value.get("type", ""))
    if cls is None:
        raise CheckpointError(f"unknown config type {value.get('type')!r}; this version knows {', '.join(CLASSES)}")
    given = {name: from_json(item) for name, item in value.items() if name != "type"}
    unknown = given.keys() - {field.name for field in fields(cls)}
    if unknown:
        raise CheckpointError(f"{cls.__name__} has no fields {sorted(unknown)}; the checkpoint is of a newer version")
    try:
        return cls(**given)
    except (TypeError, ConfigError) as error:
        raise CheckpointError(f"the stored {cls.__name__} is incomplete or impossible: {error}") from error


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise MissingFile(f"{path} is missing; a checkpoint is a folder with {CONFIG} and {WEIGHTS}")
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({error}); it may be truncated or a pickle, which is never loaded"
        ) from error

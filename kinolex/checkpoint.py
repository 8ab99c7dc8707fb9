"""A trained network as a folder: config.json, model.safetensors and a card (README.md).

    folder/config.json        what to build: {"format", "fingerprint", "config": {"type": ..., ...}, "extra"}
    folder/model.safetensors  the weights, and nothing that could run
    folder/README.md          the card: data, recipe, commit, measured results
    folder/prior.safetensors  of the token codec, if one was trained for these weights (kinolex.codec.priors)

A language model is a folder of transformers (hub.load_lm), or that with model.int8.safetensors, half as large.

The fingerprint is a hash over the config and the stored weights; tokens carry it. Loading refuses what it does not
recognise: unknown classes or fields, values of another type, missing or foreign tensors, pickles, truncated files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kinolex.errors import CheckpointError, ConfigError, MissingFile, UsageError
from kinolex.models.autoregressive import AutoregressiveConfig, AutoregressiveTransformer
from kinolex.models.clip_features import ClipFeatures, ClipFeaturesConfig
from kinolex.models.diffusion import DiffusionConfig, DiffusionTransformer
from kinolex.models.frozen_lm import FrozenLM, require_transformers
from kinolex.models.masked import MaskedConfig, MaskedTransformer
from kinolex.models.multimodal import MultimodalConfig, MultimodalTransformer
from kinolex.models.probe import HearsConfig, Probe, ProbeConfig, ReadsConfig
from kinolex.models.super_resolution import LAYERS, SuperResolution, SuperResolutionConfig
from kinolex.tensor_files import tensor_bytes
from kinolex.tokenizers.autoencoder3d import AutoencoderConfig
from kinolex.tokenizers.networks import NetworkConfig, build_network
from kinolex.tokenizers.quantizers import FSQConfig, LFQConfig, ResidualConfig, VQConfig
from kinolex.tokenizers.recurrent import RecurrentConfig
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.tokenizers.soundstream import SoundStream, SoundStreamConfig
from kinolex.tokenizers.spae import Spae, SpaeConfig
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.vocab import Vocabulary

FORMAT = "kinolex-checkpoint-1"


@dataclass(frozen=True, slots=True)
class Kind:
    """How a config becomes a network."""

    what: str
    """In words, for messages: "tokenizer"."""
    build: Callable[[Any], nn.Module]
    """A network with random weights; its `config` is the one given."""
    blocks: Callable[[Any], int]
    """Repeated blocks that a config asks for. Each owns a tensor, so a file with fewer tensors is refused unbuilt."""


def _blocks_of_tokenizer(config: NetworkConfig | SpaeConfig) -> int:
    middle = 0 if isinstance(config, RecurrentConfig) else 2 * max(config.middle_blocks, 0)
    return sum(config.encoder_blocks) + sum(config.decoder_blocks) + middle


TOKENIZER, GENERATOR, CLIP_FEATURES = "tokenizer", "generator", "clip features"
AUTOREGRESSIVE, DIFFUSION = "autoregressive generator", "diffusion generator"
MULTIMODAL = "multimodal generator"
SUPER_RESOLUTION = "super-resolution"
SOUND_TOKENIZER = "sound tokenizer"
PROBE = "probe"
WORD_TOKENIZER = "word tokenizer"
LANGUAGE_MODEL = "language model"
"""Not of KINDS: a folder in the format of transformers, for kinolex.hub.load_lm."""
KINDS: dict[type, Kind] = {
    AutoencoderConfig: Kind(TOKENIZER, build_network, _blocks_of_tokenizer),
    RecurrentConfig: Kind(TOKENIZER, build_network, _blocks_of_tokenizer),
    MaskedConfig: Kind(GENERATOR, MaskedTransformer, lambda config: config.depth + len(config.factors)),
    AutoregressiveConfig: Kind(
        AUTOREGRESSIVE, AutoregressiveTransformer, lambda config: config.depth + len(config.factors)
    ),
    MultimodalConfig: Kind(
        MULTIMODAL,
        MultimodalTransformer,
        lambda config: config.depth + len(config.vocabulary.factors) + config.vocabulary.sound_levels,
    ),
    DiffusionConfig: Kind(DIFFUSION, DiffusionTransformer, lambda config: config.depth),
    SuperResolutionConfig: Kind(
        SUPER_RESOLUTION, SuperResolution, lambda config: len(LAYERS) * config.depth + len(config.factors)
    ),
    SoundStreamConfig: Kind(
        SOUND_TOKENIZER, SoundStream, lambda config: sum(config.encoder_units) + sum(config.decoder_units)
    ),
    ProbeConfig: Kind(PROBE, Probe, lambda config: config.depth if config.kind == "transformer" else 0),
    ClipFeaturesConfig: Kind(CLIP_FEATURES, ClipFeatures, lambda config: sum(config.blocks) + len(config.heads)),
    SpaeConfig: Kind(WORD_TOKENIZER, Spae, _blocks_of_tokenizer),
}
"""Every config that is a whole network's."""

PARTS: tuple[type, ...] = (FSQConfig, HearsConfig, LFQConfig, ReadsConfig, ResidualConfig, VQConfig, Vocabulary)
"""Configs within those."""

CLASSES = {cls.__name__: cls for cls in (*KINDS, *PARTS)}
"""Everything a config.json may name; nothing is imported by name."""

MAX_DEPTH = 16
"""Lists and classes within one another in a config; the presets need three."""
MAX_LEVELS = 1024
"""Levels of a residual quantizer; they may own no tensor, so their number cannot be checked against the weights."""

SCALE = ".row_scale"
"""Ends the name of the scales of an int8 matrix."""

STATISTICS = ("ema_sum_VD", "ema_count_V", "unused_for_V")
"""Of codebooks, for training only: int8 files, which are to be small, are without; a network that is loaded from one
counts every code as met once."""

CONFIG, WEIGHTS, CARD, PRIOR = "config.json", "model.safetensors", "README.md", "prior.safetensors"
INT8 = "model.int8.safetensors"
"""Weights of a language model as int8 rows with scales."""
OURS = {CONFIG, WEIGHTS, CARD, PRIOR, INT8, "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
"""Files that a checkpoint may hold."""


def save(
    folder: str | Path,
    model: nn.Module,
    *,
    card: str,
    extra: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Write a network. An existing checkpoint is replaced whole: an interrupt leaves the old one or the new one.

    Args:
        folder: where; made if missing. A folder that holds anything but a checkpoint is refused, not replaced.
            A prior in it goes: it was trained for other weights.
        model: its config, a class of KINDS, and its weights are stored.
        card: Markdown for people: data, recipe, commit, results.
        extra: anything else for config.json that JSON can hold; not part of the fingerprint.
        dtype: of the stored floating-point weights; torch.bfloat16 halves the file, torch.int8 halves it
            again (matrices only, a scale for each row; without STATISTICS). Loading gives float32 again.

    Returns:
        The fingerprint, over the weights as stored.

    Raises:
        UsageError: the folder holds other files, or the model is of no kind that load_module could read back.
    """
    if type(getattr(model, "config", None)) not in KINDS:
        raise UsageError(
            f"a {type(model).__name__} cannot be saved: its config must be one of "
            f"{', '.join(cls.__name__ for cls in KINDS)}"
        )
    folder = Path(folder).resolve()
    weights = _stored(model.state_dict(), dtype)
    config = to_json(model.config)
    digest = fingerprint(config, weights)
    description = {"format": FORMAT, "fingerprint": digest, "config": config, "extra": extra or {}}
    with _replacing(folder) as temporary:
        # Not save_file, whose files only their owner may read.
        (temporary / WEIGHTS).write_bytes(tensor_bytes(weights, {"format": FORMAT, "fingerprint": digest}))
        (temporary / CONFIG).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        (temporary / CARD).write_text(card, encoding="utf-8")
    return digest


def load_sound(folder: str | Path) -> SoundTokenizer:
    """The sound tokenizer stored in a folder. Raises as load_module does."""
    model, digest = load_module(folder, SOUND_TOKENIZER)
    assert isinstance(model, SoundStream)
    return SoundTokenizer(model, digest)


def load(folder: str | Path) -> VideoTokenizer:
    """The tokenizer stored in a folder. Raises as load_module does."""
    model, digest = load_module(folder, TOKENIZER)
    return VideoTokenizer(model, digest)  # type: ignore[arg-type]  # tokenizers are built by build_network


def load_module(folder: str | Path, what: str | None = None) -> tuple[nn.Module, str]:
    """The network stored in a folder, float32, and its fingerprint.

    Args:
        what: the kind that is wanted, as KINDS names it; None takes any.

    Raises:
        MissingFile: no such folder, or one of its files is missing.
        CheckpointError: the files are damaged, foreign, of another kind than wanted, or do not belong together.
    """
    folder = Path(folder)
    _recover(folder)
    if is_language_model(folder):
        raise CheckpointError(f"{folder} holds a {LANGUAGE_MODEL}, and a {what or 'network'} is needed; name one")
    description = read_description(folder)
    weights = _read_weights(folder / WEIGHTS)
    config = from_json(description["config"])
    kind = KINDS.get(type(config))
    if kind is None or what not in (None, kind.what):
        found = f"a {type(config).__name__}" + ("" if kind is None else f" ({kind.what})")
        raise CheckpointError(f"{folder} describes {found}, which is no {what or 'network'}; give the folder of one")
    if fingerprint(description["config"], weights) != description["fingerprint"]:
        raise CheckpointError(
            f"{folder}: {WEIGHTS} and {CONFIG} do not belong together (the fingerprint differs); fetch or save both "
            "again"
        )
    weights = _restored(weights)
    _check_fit(folder, kind, config, weights)
    model = kind.build(config)
    model.load_state_dict(weights)
    return model, description["fingerprint"]


def save_lm(folder: str | Path, lm: FrozenLM, *, card: str) -> None:
    """Write a language model as int8 rows with scales beside its own config and vocabulary; read it by load_lm.

    Raises:
        UsageError: the folder holds other files.
    """
    folder = Path(folder).resolve()
    # Tied weights are one tensor under two names, of which the first is stored.
    places: dict[int, str] = {}
    for name, tensor in lm.model.state_dict().items():
        places.setdefault(tensor.data_ptr(), name)
    state = {name: tensor for name, tensor in lm.model.state_dict().items() if places[tensor.data_ptr()] == name}
    with _replacing(folder) as temporary:
        lm.model.config.save_pretrained(temporary)
        lm.tokenizer.save_pretrained(temporary)
        vocabulary = temporary / "tokenizer.json"
        if vocabulary.is_file():
            # Written for reading, an id a line, it is twice as large as what it says.
            whole = json.loads(vocabulary.read_text(encoding="utf-8"))
            vocabulary.write_text(json.dumps(whole, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
        (temporary / INT8).write_bytes(tensor_bytes(_stored(state, torch.int8), {"format": FORMAT}))
        (temporary / CARD).write_text(card, encoding="utf-8")


def load_lm(folder: str | Path) -> FrozenLM:
    """A language model that save_lm wrote, float32.

    Raises:
        MissingExtra: transformers is not installed. MissingFile, CheckpointError: files are missing or damaged.
    """
    transformers = require_transformers()
    weights = _restored(_read_weights(Path(folder) / INT8))
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder))
        model = transformers.AutoModelForCausalLM.from_config(config)
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
        lacks, foreign = model.load_state_dict(weights, strict=False)
    except Exception as error:  # its loaders raise whatever their many parsers raise
        raise CheckpointError(f"{folder} cannot be loaded as a language model: {error}") from error
    model.tie_weights()
    whole = model.state_dict()
    found = {whole[name].data_ptr() for name in weights if name in whole}
    wrong = {name for name in lacks if whole[name].data_ptr() not in found} | set(foreign)
    if wrong:
        raise CheckpointError(f"{folder}: {INT8} does not fit its {CONFIG}: {', '.join(sorted(wrong)[:3])}")
    return FrozenLM(model, tokenizer)


def _stored(state: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors as they are written: floating-point ones in dtype; as int8, rows with a scale each."""
    weights: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if dtype == torch.int8 and name.endswith(STATISTICS):
            continue
        tensor = tensor.detach().cpu()
        if dtype == torch.int8 and tensor.is_floating_point() and tensor.ndim > 1:
            scale = tensor.flatten(1).abs().amax(dim=1).clamp(min=1e-12) / 127
            shaped = scale.view(-1, *[1] * (tensor.ndim - 1))
            weights[name] = (tensor / shaped).round().to(torch.int8)
            weights[name + SCALE] = scale
        elif tensor.is_floating_point() and dtype != torch.int8:
            weights[name] = tensor.to(dtype)
        else:
            weights[name] = tensor
    return {name: tensor.contiguous() for name, tensor in weights.items()}


def _restored(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of _stored for rows with scales; what does not fit together is left for _check_fit to refuse."""
    whole: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        scale = weights.get(name + SCALE)
        if scale is not None and tensor.dtype == torch.int8 and tensor.ndim > 1 and scale.shape == tensor.shape[:1]:
            whole[name] = tensor.float() * scale.float().view(-1, *[1] * (tensor.ndim - 1))
        elif not (name.endswith(SCALE) and weights.get(name.removesuffix(SCALE), tensor).dtype == torch.int8):
            whole[name] = tensor
    return whole


def what_is(folder: str | Path) -> str | None:
    """The kind of network that a folder's config.json names, unchecked; None where this version knows no such kind.

    Raises:
        MissingFile, CheckpointError: as read_description.
    """
    if is_language_model(folder):
        return LANGUAGE_MODEL
    config = read_description(folder)["config"]
    name = config.get("type") if isinstance(config, dict) else None
    cls = CLASSES.get(name) if isinstance(name, str) else None
    return KINDS[cls].what if cls in KINDS else None


def is_language_model(folder: str | Path) -> bool:
    """Whether a folder's config.json is one of transformers."""
    try:
        return "model_type" in json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def read_description(folder: str | Path) -> dict[str, Any]:
    """config.json, checked for format and keys. Raises as load does."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise MissingFile(f"{folder} holds no {CONFIG}; a checkpoint is a folder with {CONFIG} and {WEIGHTS}")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        complete = {"format", "fingerprint", "config"} <= description.keys()
    except (OSError, ValueError, AttributeError, RecursionError) as error:
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


def from_json(value: Any, depth: int = 0) -> Any:
    """The inverse of to_json. Raises CheckpointError for classes, fields or values that this version does not know."""
    if depth > MAX_DEPTH:
        raise CheckpointError(f"a config nests at most {MAX_DEPTH} deep; the checkpoint is damaged or foreign")
    if isinstance(value, list):
        return tuple(from_json(item, depth + 1) for item in value)
    if not isinstance(value, dict):
        return value
    name = value.get("type")
    cls = CLASSES.get(name) if isinstance(name, str) else None
    if cls is None:
        raise CheckpointError(f"unknown config type {name!r}; this version knows {', '.join(CLASSES)}")
    given = {name: from_json(item, depth + 1) for name, item in value.items() if name != "type"}
    hints = get_type_hints(cls)
    unknown = given.keys() - hints.keys()
    if unknown:
        raise CheckpointError(f"{cls.__name__} has no fields {sorted(unknown)}; the checkpoint is of a newer version")
    for name, item in given.items():
        if not _is_of_type(item, hints[name]):
            raise CheckpointError(f"{cls.__name__}.{name} cannot be {item!r}; the checkpoint is damaged or foreign")
    try:
        return cls(**given)
    except (ArithmeticError, TypeError, ValueError, ConfigError) as error:
        raise CheckpointError(f"the stored {cls.__name__} is incomplete or impossible: {error}") from error


def _is_of_type(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is what a config's annotation asks for; a bool is no int, an int is a float."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_is_of_type(value, argument) for argument in arguments)
    if origin is Literal:
        return any(value == argument and type(value) is type(argument) for argument in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if arguments[-1] is Ellipsis:
            return all(_is_of_type(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_is_of_type, value, arguments))
    return type(value) is hint or (hint is float and type(value) is int)


def _check_fit(folder: Path, kind: Kind, config: Any, weights: dict[str, Tensor]) -> None:
    """Compare the weights with the network that the config asks for, before any memory is given to it.

    Statistics of codebooks that were not stored are added to the weights.
    """
    blocks = kind.blocks(config)
    if blocks > len(weights):  # a block owns several tensors; a config that asks for a million is not built to find out
        raise CheckpointError(f"{folder}: {CONFIG} asks for {blocks} blocks but {WEIGHTS} has {len(weights)} tensors")
    quantizer = getattr(config, "quantizer", None)
    if isinstance(quantizer, ResidualConfig) and quantizer.num_levels > MAX_LEVELS:
        raise CheckpointError(f"{folder}: {CONFIG} asks for {quantizer.num_levels} levels of quantizers")
    try:
        with torch.device("meta"):
            wanted = kind.build(config).state_dict()
    except (ConfigError, ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder}: no network can be built as {CONFIG} says: {error}") from error
    _add_statistics(wanted.keys(), weights)
    for problem, names in (
        ("lacks", wanted.keys() - weights.keys()),
        ("has foreign", weights.keys() - wanted.keys()),
        ("has misshapen", {name for name in wanted.keys() & weights.keys() if not _alike(wanted[name], weights[name])}),
    ):
        if names:
            shown = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            raise CheckpointError(f"{folder}: {WEIGHTS} {problem} tensors for its {CONFIG}: {shown}")


def _add_statistics(wanted: Iterable[str], weights: dict[str, Tensor]) -> None:
    for name in wanted:
        start, _, last = name.rpartition(".")
        codebook_VD = weights.get(f"{start}.codebook")
        if name in weights or last not in STATISTICS or codebook_VD is None:
            continue
        codes = codebook_VD.shape[:1]
        weights[name] = {
            "ema_sum_VD": codebook_VD.clone(),
            "ema_count_V": torch.ones(codes),
            "unused_for_V": torch.zeros(codes, dtype=torch.int64),
        }[last]


def _alike(wanted: Tensor, stored: Tensor) -> bool:
    return wanted.shape == stored.shape and wanted.is_floating_point() == stored.is_floating_point()


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` when all went well and vanishes when not."""
    _recover(folder)
    if folder.exists() and not (folder.is_dir() and {item.name for item in folder.iterdir()} <= OURS):
        raise UsageError(f"{folder} exists and holds other things than a checkpoint; give a new folder")
    temporary, old = folder.with_name(folder.name + ".part"), folder.with_name(folder.name + ".old")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(folder, old)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _recover(folder)
    shutil.rmtree(old, ignore_errors=True)


def _recover(folder: Path) -> None:
    """Finish what a save that died between its two renames left: the old checkpoint under another name."""
    old = folder.with_name(folder.name + ".old") if folder.name else folder
    if not folder.exists() and (old / CONFIG).is_file():
        os.replace(old, folder)


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise MissingFile(f"{path} is missing; a checkpoint is a folder with {CONFIG} and {WEIGHTS}")
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({error}); it may be truncated or a pickle, which is never loaded"
        ) from error

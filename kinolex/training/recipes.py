"""From a recipe file and a data folder to trained weights.

recipe.py: config() -> TrainConfig        data folder/NAME for every name in config.data -> packs -> Trainer -> weights
                    -> PriorTrainConfig                                        packs -> PriorTrainer -> prior
                    -> MultimodalTrainConfig   worlds, spoken digits -> tokens -> MultimodalTrainer -> weights
                    -> GeneratorTrainConfig                packs, worlds -> tokens -> GeneratorTrainer -> weights
                    -> UpscaleTrainConfig          worlds of two sizes -> tokens -> UpscaleTrainer -> weights
                    -> ClipFeaturesTrainConfig                     worlds -> ClipFeaturesTrainer -> weights
                    -> ProbeTrainConfig           labelled clips -> tokens -> ProbeTrainer -> weights
                    -> SoundTrainConfig                      packs of sounds, worlds -> SoundTrainer -> weights

Under torchrun every process calls the same function; the first builds the packs and writes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from kinolex import checkpoint, hub
from kinolex.data.index import scan
from kinolex.data.loader import RenderWorld
from kinolex.data.packs import Pack, build_pack
from kinolex.data.sounds import SoundPack, build_sound_pack, scan_sounds
from kinolex.errors import CheckpointError, DataError, MissingFile, UsageError
from kinolex.models.multimodal import MultimodalTransformer
from kinolex.tokenizers.networks import Network, build_network
from kinolex.tokenizers.quantizers.base import world_size
from kinolex.tokenizers.soundstream import SoundStream
from kinolex.training.clip_features_run import ClipFeaturesTrainConfig, ClipFeaturesTrainer
from kinolex.training.config import TrainConfig
from kinolex.training.engine import Trainer
from kinolex.training.generator_run import GeneratorTrainConfig, GeneratorTrainer
from kinolex.training.multimodal_run import MultimodalTrainConfig, MultimodalTrainer
from kinolex.training.prior_run import PriorTrainConfig, PriorTrainer, save_with_prior
from kinolex.training.probe_run import ProbeTrainConfig, ProbeTrainer
from kinolex.training.processes import joined, rank, wait_for_all
from kinolex.training.sound_run import SoundTrainConfig, SoundTrainer
from kinolex.training.upscale_run import UpscaleTrainConfig, UpscaleTrainer
from kinolex.training.word_recipes import WordRecipe, train_words

FEATURES = "perceptual/squeezenet_v1_0_imagenet.safetensors"
"""Where the data folder keeps the perceptual network."""


Recipe = (
    TrainConfig
    | PriorTrainConfig
    | GeneratorTrainConfig
    | MultimodalTrainConfig
    | UpscaleTrainConfig
    | ClipFeaturesTrainConfig
    | SoundTrainConfig
    | ProbeTrainConfig
    | WordRecipe
)


def load_recipe(path: str | Path) -> Recipe:
    """What a recipe file describes.

    Raises:
        MissingFile: no such file.
        UsageError: the file has no config() that returns a config of one of the kinds of Recipe.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"no recipe at {path}; the shipped ones lie in recipes/")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    make: Callable[[], object] | None = getattr(module, "config", None)
    config = make() if make is not None else None
    if not isinstance(config, Recipe):
        raise UsageError(
            f"{path} must define config() returning a kinolex.training.config.TrainConfig, for the prior of a codec "
            "a kinolex.training.prior_run.PriorTrainConfig, for a generator a "
            "kinolex.training.generator_run.GeneratorTrainConfig, for one of several modalities a "
            "kinolex.training.multimodal_run.MultimodalTrainConfig, for super-resolution a "
            "kinolex.training.upscale_run.UpscaleTrainConfig, for clip features a "
            "kinolex.training.clip_features_run.ClipFeaturesTrainConfig, for a sound tokenizer a "
            "kinolex.training.sound_run.SoundTrainConfig, for a probe a kinolex.training.probe_run.ProbeTrainConfig"
        )
    return config


def open_packs(config: TrainConfig | PriorTrainConfig | GeneratorTrainConfig, data: Path, cache: Path) -> list[Pack]:
    """The recipe's collections as packs, in their order, built below `cache` the first time.

    Raises:
        DataError: a collection is not below the data folder, or has no training entries.
    """
    packs = []
    for name in config.data:
        folder = cache / f"{name}-{config.lines}"
        if not (folder / "manifest.json").is_file():
            if not (data / name).is_dir():
                raise DataError(f"the recipe needs {data / name}; docs/data.md says where it comes from")
            entries = scan(data / name, split="train")
            build_pack(entries, folder, lines=config.lines, max_frames=config.max_frames)
        packs.append(Pack.open(folder))
    return packs


def open_sound_packs(config: SoundTrainConfig, data: Path, cache: Path) -> list[SoundPack]:
    """The recipe's collections as packs of sounds, in their order, built below `cache` the first time.

    Raises:
        DataError: a collection is not below the data folder, or nothing in it can be heard.
    """
    packs = []
    for name in config.data:
        folder = cache / f"{name}-{config.model.rate_hz}hz"
        if not (folder / "manifest.json").is_file():
            if not (data / name).is_dir():
                raise DataError(f"the recipe needs {data / name}; docs/data.md says where it comes from")
            build_sound_pack(scan_sounds(data / name, split="train"), folder, rate_hz=config.model.rate_hz)
        packs.append(SoundPack.open(folder))
    return packs


def initial_model(config: TrainConfig, init: str | Path) -> Network:
    """Trained weights to start from instead of random ones.

    Raises:
        CheckpointError: they are of another architecture than the recipe's; where it takes what fits, less than half of
            the recipe's network has a tensor of the same name and shape in them.
    """
    model = hub.load(init).model
    if config.init_what_fits:
        return _what_fits(config, model, init)
    if model.config != config.model:
        theirs, ours = ({"kind": type(c).__name__} | asdict(c) for c in (model.config, config.model))
        common = [name for name in ours if name in theirs and theirs[name] != ours[name]]
        unlike = "; ".join(f"{name} is {theirs[name]}, not {ours[name]}" for name in common)
        raise CheckpointError(f"{init} is another architecture than the recipe's: {unlike}; choose weights that fit it")
    return model.train().requires_grad_(True)


def _initial_sound(config: SoundTrainConfig, init: str | Path) -> SoundStream:
    model = hub.load_sound(init).model
    if model.config != config.model:
        raise CheckpointError(f"{init} is another architecture than the recipe's; choose weights that fit it")
    return model.train().requires_grad_(True)


def _what_fits(config: TrainConfig, theirs: Network, init: str | Path) -> Network:
    torch.manual_seed(config.seed)
    model = build_network(config.model)
    ours, weights = model.state_dict(), theirs.state_dict()
    fitting = {
        name: weights[name] for name, tensor in ours.items() if name in weights and weights[name].shape == tensor.shape
    }
    share = sum(tensor.numel() for tensor in fitting.values()) / sum(tensor.numel() for tensor in ours.values())
    if share < 0.5:
        raise CheckpointError(
            f"only {share:.0%} of the recipe's network is found in {init}; choose weights nearer to it"
        )
    model.load_state_dict(fitting, strict=False)
    return model


def train_from_recipe(
    recipe: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    minutes: float | None = None,
    device: str = "cpu",
    cache: str | Path | None = None,
    init: str | Path | None = None,
    render_world: Callable[..., np.ndarray] | None = None,
) -> Path:
    """Train, or go on training, what a recipe describes: a tokenizer, the prior of one, a generator, ...

    Args:
        recipe: a Python file with config().
        data: folder with one sub-folder per collection; perceptual/ in it is used when it is there.
        out: run folder; weights land in out/weights, everything else is there to look at and to resume from.
        minutes: stop cleanly after this long; calling again goes on.
        device: of the network.
        cache: where packs are kept; out/packs if None.
        init: shipped name, checkpoint folder or hub repository to start from, only looked at when out has no run yet;
            of a prior, a generator or a probe, the tokenizer that it is for. Weights of a multimodal generator may know
            other words.
        render_world: (seed, frames, side, rates=...) -> uint8 T H W C of a procedural world, as worlds.render_frames.

    Returns:
        The folder of the weights, loadable with kinolex.load; a prior lies there beside its tokenizer.

    Raises:
        UsageError: minutes that are not positive, or as load_recipe; anything but a tokenizer for several processes;
            clip features, sound or probes on another device than the CPU, the first from other weights.
    """
    if minutes is not None and not minutes > 0:
        raise UsageError(f"minutes must be positive, got {minutes}; leave it out to train to the end")
    config, data, out = load_recipe(recipe), Path(data), Path(out)
    if isinstance(config, WordRecipe):
        return train_words(config, data, out, minutes=minutes, device=device, init=init, name=Path(recipe).name)
    if isinstance(config, PriorTrainConfig):
        return _train_prior(config, data, out, minutes, device, cache, init, render_world)
    if isinstance(config, GeneratorTrainConfig):
        return _train_generator(config, data, out, minutes, device, cache, init, Path(recipe).name)
    if isinstance(config, MultimodalTrainConfig):
        if world_size() > 1:
            raise UsageError("a multimodal generator trains in one process; start it without torchrun")
        return _train_multimodal(config, data, out, minutes, device, init, Path(recipe).name)
    if isinstance(config, UpscaleTrainConfig):
        if world_size() > 1:
            raise UsageError("super-resolution trains in one process; start it without torchrun")
        return _train_upscale(config, out, minutes, device, init, Path(recipe).name)
    if isinstance(config, ClipFeaturesTrainConfig):
        if device != "cpu" or init is not None or world_size() > 1:
            raise UsageError("clip features train from scratch, on the CPU, in one process; leave out device and init")
        return _train_clip_features(config, out, minutes, Path(recipe).name)
    if isinstance(config, ProbeTrainConfig):
        if device != "cpu" or world_size() > 1:
            raise UsageError("a probe trains on the CPU, in one process; leave out device")
        return _train_probe(config, data, out, minutes, cache, init, Path(recipe).name)
    if isinstance(config, SoundTrainConfig):
        if device != "cpu" or world_size() > 1:
            raise UsageError("sound trains on the CPU, in one process; leave out device")
        return _train_sound(config, data, out, minutes, cache, init, Path(recipe).name)
    features = data / FEATURES
    with joined(device) as device:
        cache = Path(cache) if cache is not None else out / "packs"
        if rank() == 0:
            open_packs(config, data, cache)
        wait_for_all()
        begun = (out / "state.safetensors").is_file()
        trainer = Trainer(
            config,
            open_packs(config, data, cache),
            out,
            features_path=features if features.is_file() else None,
            device=device,
            render_world=None if render_world is None else partial(render_world, rates=config.world_rates),
            model=initial_model(config, init) if init is not None and not begun else None,
        )
        model = trainer.run(minutes=minutes)
        weights = out / "weights"
        if rank() == 0:
            start = "" if init is None else f", from the weights of {init}"
            done = f"{trainer.counters.step} of {config.total_steps}"
            card = f"# {Path(recipe).stem}\n\nTrained for {done} steps by {Path(recipe).name}{start}.\n"
            checkpoint.save(weights, model, card=card)
        wait_for_all()
    return weights


def _train_prior(
    config: PriorTrainConfig,
    data: Path,
    out: Path,
    minutes: float | None,
    device: str,
    cache: str | Path | None,
    init: str | Path | None,
    render_world: RenderWorld | None,
) -> Path:
    if world_size() > 1:
        raise UsageError("a prior trains in one process; start it without torchrun")
    config = config if init is None else replace(config, tokenizer=str(init))
    tokenizer = hub.load(config.tokenizer).to(device)
    packs = open_packs(config, data, Path(cache) if cache is not None else out / "packs")
    trainer = PriorTrainer(config, tokenizer, packs, out, render_world=render_world)
    trainer.run(minutes=minutes)
    return save_with_prior(trainer, out / "weights")


def _train_generator(
    config: GeneratorTrainConfig,
    data: Path,
    out: Path,
    minutes: float | None,
    device: str,
    cache: str | Path | None,
    init: str | Path | None,
    name: str,
) -> Path:
    if world_size() > 1:
        raise UsageError("a generator trains in one process; start it without torchrun")
    config = config if init is None else replace(config, tokenizer=str(init))
    packs = open_packs(config, data, Path(cache) if cache is not None else out / "packs")
    folders = {name: pack.folder for name, pack in zip(config.data, packs, strict=True)}
    trainer = GeneratorTrainer(config, hub.load(config.tokenizer), folders, out, device=device)
    trainer.run(minutes=minutes)
    done = f"{trainer.counters.step} of {config.steps}"
    card = f"# {Path(name).stem}\n\nTrained for {done} steps by {name} on tokens of {config.tokenizer}.\n"
    checkpoint.save(out / "weights", trainer.average, card=card)
    return out / "weights"


def _train_multimodal(
    config: MultimodalTrainConfig,
    data: Path,
    out: Path,
    minutes: float | None,
    device: str,
    init: str | Path | None,
    name: str,
) -> Path:
    for collection in config.data:
        if not (data / collection).is_dir():
            raise DataError(f"the recipe needs {data / collection}; docs/data.md says where it comes from")
    video, sound = hub.load(config.video_tokenizer), hub.load_sound(config.sound_tokenizer)
    begun = (out / "state.safetensors").is_file()
    trained = None if init is None or begun else checkpoint.load_module(hub.locate(init), checkpoint.MULTIMODAL)[0]
    assert trained is None or isinstance(trained, MultimodalTransformer)
    trainer = MultimodalTrainer(config, video, sound, out, device=device, data=data, trained=trained)
    trainer.run(minutes=minutes)
    done = f"{trainer.counters.step} of {config.steps}"
    tokenizers = f"{config.video_tokenizer} and {config.sound_tokenizer}"
    start = "" if init is None else f", from the weights of {init}"
    card = f"# {Path(name).stem}\n\nTrained for {done} steps by {name} on tokens of {tokenizers}{start}.\n"
    checkpoint.save(out / "weights", trainer.average, card=card)
    return out / "weights"


def _train_upscale(
    config: UpscaleTrainConfig, out: Path, minutes: float | None, device: str, init: str | Path | None, name: str
) -> Path:
    config = config if init is None else replace(config, tokenizer=str(init))
    trainer = UpscaleTrainer(config, hub.load(config.tokenizer), out, device=device)
    trainer.run(minutes=minutes)
    done = f"{trainer.counters.step} of {config.steps}"
    card = f"# {Path(name).stem}\n\nTrained for {done} steps by {name} on tokens of {config.tokenizer}.\n"
    trainer.save_weights(out / "weights", card)
    return out / "weights"


def _train_clip_features(config: ClipFeaturesTrainConfig, out: Path, minutes: float | None, name: str) -> Path:
    trainer = ClipFeaturesTrainer(config, out)
    model = trainer.run(minutes=minutes)
    done = f"{trainer.counters.step} of {config.steps}"
    card = f"# {Path(name).stem}\n\nTrained for {done} steps by {name} on rendered worlds.\n"
    checkpoint.save(out / "weights", model, card=card)
    return out / "weights"


def _train_probe(
    config: ProbeTrainConfig,
    data: Path,
    out: Path,
    minutes: float | None,
    cache: str | Path | None,
    init: str | Path | None,
    name: str,
) -> Path:
    config = config if init is None else replace(config, tokenizer=str(init))
    trainer = ProbeTrainer(config, data, out, Path(cache) if cache is not None else None)
    model = trainer.run(minutes=minutes)
    done = f"{trainer.counters.step} of {trainer.total}"
    card = f"# {Path(name).stem}\n\nTrained for {done} steps by {name} on tokens of {config.tokenizer}.\n"
    checkpoint.save(out / "weights", model, card=card, dtype=torch.int8)
    return out / "weights"


def _train_sound(
    config: SoundTrainConfig,
    data: Path,
    out: Path,
    minutes: float | None,
    cache: str | Path | None,
    init: str | Path | None,
    name: str,
) -> Path:
    packs = open_sound_packs(config, data, Path(cache) if cache is not None else out / "packs")
    trainer = SoundTrainer(config, packs, out, model=None if init is None else _initial_sound(config, init))
    model = trainer.run(minutes=minutes)
    start = "" if init is None else f", from the weights of {init}"
    done = f"{trainer.counters.step} of {config.steps}"
    heard = f"{', '.join(config.data)} and worlds"
    card = f"# {Path(name).stem}\n\nTrained for {done} steps by {name} on {heard}{start}.\n"
    checkpoint.save(out / "weights", model, card=card, dtype=torch.bfloat16)
    return out / "weights"

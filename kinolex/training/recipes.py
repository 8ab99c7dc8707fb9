"""From a recipe file and a data folder to trained weights.

    recipe.py: config() --KINDS--> who trains it --Order: data, out, init, device--> trainer --run--> weights and card

Under torchrun every process calls the same function; the first builds the packs and writes.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from kinolex import checkpoint, hub
from kinolex.data.index import scan
from kinolex.data.packs import MANIFEST, Pack, build_pack, manifest_of, refuse_other_files
from kinolex.data.sounds import SoundPack, build_sound_pack, scan_sounds
from kinolex.errors import CheckpointError, DataError, KinolexError, MissingFile, UsageError
from kinolex.models.multimodal import MultimodalTransformer
from kinolex.tokenizers.networks import Network, build_network
from kinolex.tokenizers.soundstream import SoundStream
from kinolex.training.clip_features_run import ClipFeaturesTrainConfig, ClipFeaturesTrainer
from kinolex.training.config import TrainConfig
from kinolex.training.engine import Trainer
from kinolex.training.generator_run import GeneratorTrainConfig, GeneratorTrainer
from kinolex.training.loop import begun
from kinolex.training.multimodal_run import MultimodalTrainConfig, MultimodalTrainer
from kinolex.training.prior_run import PriorTrainConfig, PriorTrainer, save_with_prior
from kinolex.training.probe_run import ProbeTrainConfig, ProbeTrainer
from kinolex.training.processes import joined, launched, rank, wait_for_all
from kinolex.training.sound_run import SoundTrainConfig, SoundTrainer
from kinolex.training.spae_run import SpaeTrainConfig, SpaeTrainer
from kinolex.training.text_run import TextTrainConfig, TextTrainer, save_language_model
from kinolex.training.upscale_run import UpscaleTrainConfig, UpscaleTrainer

FEATURES = "perceptual/squeezenet_v1_0_imagenet.safetensors"
"""Where the data folder keeps the perceptual network."""
SKIPPED_TOLD = 10
"""Files of a collection that could not be packed, at most so many by name."""
START = "start.txt"
"""In a run folder: the weights that it began from, if any."""

Recipe = (
    TrainConfig
    | PriorTrainConfig
    | GeneratorTrainConfig
    | MultimodalTrainConfig
    | UpscaleTrainConfig
    | ClipFeaturesTrainConfig
    | SoundTrainConfig
    | ProbeTrainConfig
    | TextTrainConfig
    | SpaeTrainConfig
)
Weights = TypeVar("Weights")


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What a recipe is carried out with: the arguments of train_from_recipe."""

    recipe: Path
    data: Path
    out: Path
    minutes: float | None
    device: str
    cache: Path | None
    init: str | Path | None
    render_world: Callable[..., np.ndarray] | None

    @property
    def packs(self) -> Path:
        """Where packs are kept."""
        return self.out / "packs" if self.cache is None else self.cache

    @property
    def start(self) -> str:
        """For the card."""
        return "" if self.init is None else f", from the weights of {self.init}"

    def weights(self, load: Callable[[str | Path], Weights]) -> Weights | None:
        """What to start from; only looked at when there is no run yet."""
        return None if self.init is None or begun(self.out) else load(self.init)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of recipe."""

    makes: str
    """With its article, for the error of a file that is no recipe."""
    train: Callable[[Any, Order], None]
    """Leaves weights in order.out/weights."""
    init: str = ""
    """The field of the recipe that `init` stands for, where it does not name weights to start from."""
    refuses: Mapping[str, str] = field(default_factory=dict)
    """"device" (another than the CPU), "init", "processes" (several): what to say of it."""


def load_recipe(path: str | Path) -> Recipe:
    """What a recipe file describes.

    Raises:
        MissingFile: no such file.
        UsageError: the file fails, or has no config() that returns a config of one of KINDS.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"no recipe at {path}; the shipped ones lie in recipes/")
    if path.suffix != ".py":
        raise UsageError(f"a recipe is a Python file (NAME.py), got {path}; the shipped ones lie in recipes/")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        make: Callable[[], object] | None = getattr(module, "config", None)
        config = make() if make is not None else None
    except KinolexError:
        raise
    except Exception as error:
        here, stack = path.resolve(), traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in stack if Path(frame.filename).resolve() == here]
        where = f"{path}, line {lines[-1]}" if lines else str(path)
        raise UsageError(
            f"{where}: {type(error).__name__}: {error}; the recipe cannot be read until that is mended"
        ) from error
    if not isinstance(config, Recipe):
        kinds = ", ".join(
            f"{f'for {kind.makes} ' if number else ''}a {config.__module__}.{config.__name__}"
            for number, (config, kind) in enumerate(KINDS.items())
        )
        raise UsageError(f"{path} must define config() returning {kinds}")
    return config


def open_packs(config: TrainConfig | PriorTrainConfig | GeneratorTrainConfig, data: Path, cache: Path) -> list[Pack]:
    """The recipe's collections as packs, in their order, built below `cache` the first time.

    Raises:
        DataError: a collection is not below the data folder, has no training entries, or is not what was packed.
    """
    folders = {name: cache / f"{name}-{config.lines}" for name in config.data}
    for name, folder in _unpacked(folders, data, scan).items():
        entries = scan(data / name, split="train")
        built = build_pack(entries, folder, lines=config.lines, max_frames=config.max_frames)
        _tell_skipped(name, built.skipped)
    return [Pack.open(folder) for folder in folders.values()]


def open_sound_packs(config: SoundTrainConfig, data: Path, cache: Path) -> list[SoundPack]:
    """The recipe's collections as packs of sounds, in their order, built below `cache` the first time.

    Raises:
        DataError: a collection is not below the data folder, is not what was packed, or nothing in it can be heard.
    """
    folders = {name: cache / f"{name}-{config.model.rate_hz}hz" for name in config.data}
    for name, folder in _unpacked(folders, data, scan_sounds).items():
        build_sound_pack(scan_sounds(data / name, split="train"), folder, rate_hz=config.model.rate_hz)
        _tell_skipped(name, manifest_of(folder)["skipped"])
    return [SoundPack.open(folder) for folder in folders.values()]


def _unpacked(folders: Mapping[str, Path], data: Path, scanned: Callable[..., Sequence[Any]]) -> dict[str, Path]:
    """The collections that are still to pack; all are looked at before the first is packed."""
    missing = {name: folder for name, folder in folders.items() if not (folder / MANIFEST).is_file()}
    for name, folder in folders.items():
        if (data / name).is_dir():
            if name not in missing:
                refuse_other_files(folder, data / name, scanned(data / name, split="train"))
        elif name in missing:
            there = ", ".join(sorted(path.name for path in data.iterdir() if path.is_dir())) if data.is_dir() else ""
            raise DataError(
                f"the recipe needs {data / name}; below {data} there is {there or 'no folder'}; docs/data.md says "
                "where the collections of the shipped recipes come from, and docs/training.md how to train on others"
            )
    return missing


def _tell_skipped(name: str, skipped: Mapping[str, str]) -> None:
    for entry, why in list(skipped.items())[:SKIPPED_TOLD]:
        print(f"{name}: skipped {entry}: {why}", file=sys.stderr)
    if len(skipped) > SKIPPED_TOLD:
        print(f"{name}: skipped {len(skipped) - SKIPPED_TOLD} more; its manifest.json names them", file=sys.stderr)


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
    collections: Sequence[str] = (),
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
            of a prior, a generator, super-resolution or a probe the tokenizer, of a word tokenizer the language model
            that it is for. Weights of a multimodal generator may know other words.
        collections: below data, that stand for those of the recipe; the recipe's own if empty.
        render_world: (seed, frames, side, rates=...) -> uint8 T H W C of a procedural world, as worlds.render_frames.

    Returns:
        The folder of the weights, loadable with kinolex.load; a prior lies there beside its tokenizer.

    Raises:
        UsageError: minutes that are not positive, or as load_recipe; anything but a tokenizer for several processes;
            a device or weights to start from where KINDS says that there is no choice.
    """
    if minutes is not None and not minutes > 0:
        raise UsageError(f"minutes must be positive, got {minutes}; leave it out to train to the end")
    config = load_recipe(recipe)
    kind = KINDS[type(config)]
    asked = {"device": device != "cpu", "init": init is not None, "processes": launched() > 1}
    for what, refusal in kind.refuses.items():
        if asked[what]:
            raise UsageError(refusal)
    if init is not None and kind.init:
        config = replace(config, **{kind.init: str(init)})
    elif not kind.init:
        init = _settled(Path(out), init)
    if collections:
        if not isinstance(config, (TrainConfig, PriorTrainConfig, SoundTrainConfig)):
            raise UsageError(f"{recipe} is a recipe for {kind.makes}, whose sources the recipe itself must name")
        config = replace(config, data=tuple(collections))
    with joined(device) as device:
        order = Order(
            recipe=Path(recipe),
            data=Path(data),
            out=Path(out),
            minutes=minutes,
            device=device,
            cache=None if cache is None else Path(cache),
            init=init,
            render_world=render_world,
        )
        kind.train(config, order)
    return order.out / "weights"


def _settled(out: Path, init: str | Path | None) -> str | Path | None:
    """What a run begins or began from; written down, as a card must say so after any number of calls.

    Raises:
        UsageError: the run began from something else.
    """
    note = out / START
    if not begun(out):
        if rank() == 0:
            out.mkdir(parents=True, exist_ok=True)
            note.write_text("" if init is None else str(init), encoding="utf-8")
        return init
    if not note.is_file():
        return init
    began = note.read_text(encoding="utf-8") or None
    if init is not None and str(init) != began:
        raise UsageError(
            f"the run in {out} began from {began or 'random weights'} and goes on from where it is, so it cannot "
            f"begin from {init}; leave --init out, or use another --out"
        )
    return began


def _run(trainer: Any, order: Order, learned_from: str, save: Callable[..., object] = checkpoint.save) -> None:
    """Train, and save what was made with a card."""
    made = trainer.run(minutes=order.minutes)
    if rank() == 0:
        done = f"{trainer.counters.step} of {trainer.total}"
        card = f"# {order.recipe.stem}\n\nTrained for {done} steps by {order.recipe.name}{learned_from}.\n"
        save(order.out / "weights", made, card=card)
    wait_for_all()


def _tokenizer(config: TrainConfig, order: Order) -> None:
    model = order.weights(partial(initial_model, config))  # refused before hours of packing, not after
    if rank() == 0:
        open_packs(config, order.data, order.packs)
    wait_for_all()
    features, render_world = order.data / FEATURES, order.render_world
    trainer = Trainer(
        config,
        open_packs(config, order.data, order.packs),
        order.out,
        features_path=features if features.is_file() else None,
        device=order.device,
        render_world=None if render_world is None else partial(render_world, rates=config.world_rates),
        model=model,
    )
    _run(trainer, order, order.start)


def _prior(config: PriorTrainConfig, order: Order) -> None:
    tokenizer = hub.load(config.tokenizer).to(order.device)
    start = hub.load_prior(config.start, tokenizer) if config.start else None
    packs = open_packs(config, order.data, order.packs)
    trainer = PriorTrainer(config, tokenizer, packs, order.out, render_world=order.render_world, start=start)
    trainer.run(minutes=order.minutes)
    save_with_prior(trainer, order.out / "weights")


def _generator(config: GeneratorTrainConfig, order: Order) -> None:
    start = checkpoint.load_module(hub.locate(config.start))[0] if config.start else None
    tokenizer = hub.load(config.tokenizer)
    packs = open_packs(config, order.data, order.packs)
    folders = {name: pack.folder for name, pack in zip(config.data, packs, strict=True)}
    trainer = GeneratorTrainer(config, tokenizer, folders, order.out, device=order.device, start=start)
    _run(trainer, order, f" on tokens of {config.tokenizer}{_going_on(config.start)}")


def _multimodal(config: MultimodalTrainConfig, order: Order) -> None:
    for collection in config.data:
        if not (order.data / collection).is_dir():
            raise DataError(f"the recipe needs {order.data / collection}; docs/data.md says where it comes from")
    video, sound = hub.load(config.video_tokenizer), hub.load_sound(config.sound_tokenizer)
    trained = order.weights(lambda init: checkpoint.load_module(hub.locate(init), checkpoint.MULTIMODAL)[0])
    assert trained is None or isinstance(trained, MultimodalTransformer)
    trainer = MultimodalTrainer(config, video, sound, order.out, device=order.device, data=order.data, trained=trained)
    _run(trainer, order, f" on tokens of {config.video_tokenizer} and {config.sound_tokenizer}{order.start}")


def _upscale(config: UpscaleTrainConfig, order: Order) -> None:
    trainer = UpscaleTrainer(config, hub.load(config.tokenizer), order.out, device=order.device)
    _run(trainer, order, f" on tokens of {config.tokenizer}")


def _clip_features(config: ClipFeaturesTrainConfig, order: Order) -> None:
    _run(ClipFeaturesTrainer(config, order.out), order, " on rendered worlds")


def _sound(config: SoundTrainConfig, order: Order) -> None:
    model = order.weights(partial(_initial_sound, config))
    trainer = SoundTrainer(config, open_sound_packs(config, order.data, order.packs), order.out, model=model)
    heard = f" on {', '.join(config.data)} and worlds{order.start}"
    _run(trainer, order, heard, partial(checkpoint.save, dtype=torch.bfloat16))


def _probe(config: ProbeTrainConfig, order: Order) -> None:
    trainer = ProbeTrainer(config, order.data, order.out, order.cache)
    _run(trainer, order, f" on tokens of {config.tokenizer}", partial(checkpoint.save, dtype=torch.int8))


def _text(config: TextTrainConfig, order: Order) -> None:
    learned_from = (
        " on text alone: tinyshakespeare (train part), captions of worlds, captions and label lists of the data "
        "folder, and patterns of random words in context (kinolex/training/text_data.py). No picture, and no token of "
        "one, was used"
    )
    start = hub.load_lm(config.start) if config.start else None
    learned_from += _going_on(config.start)
    _run(TextTrainer(config, order.data, order.out, start=start), order, learned_from, save_language_model)


def _spae(config: SpaeTrainConfig, order: Order) -> None:
    start = hub.load_spae(config.start)[0] if config.start else None
    trainer = SpaeTrainer(config, hub.load_lm(config.language_model), order.data, order.out, start=start)
    sets, words = ", ".join(name for name, _ in config.sets), Path(config.language_model).name
    _run(trainer, order, f" on pictures of {sets} (train), with the words of {words}{_going_on(config.start)}")


def _going_on(start: str) -> str:
    """For the card."""
    return f", from the weights of {start}" if start else ""


def _in_one_process(who: str) -> dict[str, str]:
    return {"processes": f"{who} in one process; start it without torchrun"}


def _on_the_cpu(who: str) -> dict[str, str]:
    return dict.fromkeys(("device", "processes"), f"{who} on the CPU, in one process; leave out device")


WORDS = _on_the_cpu("language models and word tokenizers train")
SCRATCH = "clip features train from scratch, on the CPU, in one process; leave out device and init"
KINDS: Mapping[type, Kind] = {
    TrainConfig: Kind("a tokenizer", _tokenizer),
    PriorTrainConfig: Kind("the prior of a codec", _prior, "tokenizer", _in_one_process("a prior trains")),
    GeneratorTrainConfig: Kind("a generator", _generator, "tokenizer", _in_one_process("a generator trains")),
    MultimodalTrainConfig: Kind(
        "one of several modalities", _multimodal, "", _in_one_process("a multimodal generator trains")
    ),
    UpscaleTrainConfig: Kind("super-resolution", _upscale, "tokenizer", _in_one_process("super-resolution trains")),
    ClipFeaturesTrainConfig: Kind(
        "clip features", _clip_features, "", dict.fromkeys(("device", "init", "processes"), SCRATCH)
    ),
    SoundTrainConfig: Kind("a sound tokenizer", _sound, "", _on_the_cpu("sound trains")),
    ProbeTrainConfig: Kind("a probe", _probe, "tokenizer", _on_the_cpu("a probe trains")),
    TextTrainConfig: Kind(
        "a language model", _text, "", WORDS | {"init": "language models train from scratch; leave out init"}
    ),
    SpaeTrainConfig: Kind("a word tokenizer", _spae, "language_model", WORDS),
}

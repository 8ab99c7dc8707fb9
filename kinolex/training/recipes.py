"""From a recipe file and a data folder to trained weights.

recipe.py: config() -> TrainConfig      data folder/NAME for every name in config.data -> packs -> Trainer -> weights
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from kinolex import checkpoint
from kinolex.data.index import scan
from kinolex.data.loader import RenderWorld
from kinolex.data.packs import Pack, build_pack
from kinolex.errors import DataError, MissingFile, UsageError
from kinolex.training.config import TrainConfig
from kinolex.training.engine import Trainer

FEATURES = "perceptual/squeezenet_v1_0_imagenet.safetensors"
"""Where the data folder keeps the perceptual network."""


def load_recipe(path: str | Path) -> TrainConfig:
    """The TrainConfig of a recipe file.

    Raises:
        MissingFile: no such file.
        UsageError: the file has no config() that returns a TrainConfig.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"no recipe at {path}; the shipped ones lie in recipes/")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    make: Callable[[], TrainConfig] | None = getattr(module, "config", None)
    config = make() if make is not None else None
    if not isinstance(config, TrainConfig):
        raise UsageError(f"{path} must define config() returning a kinolex.training.config.TrainConfig")
    return config


def open_packs(config: TrainConfig, data: Path, cache: Path) -> list[Pack]:
    """The recipe's collections as packs, built below `cache` the first time.

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


def train_from_recipe(
    recipe: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    minutes: float | None = None,
    device: str = "cpu",
    cache: str | Path | None = None,
    render_world: RenderWorld | None = None,
) -> Path:
    """Train, or go on training, what a recipe describes.

    Args:
        recipe: a Python file with config().
        data: folder with one sub-folder per collection; perceptual/ in it is used when it is there.
        out: run folder; weights land in out/weights, everything else is there to look at and to resume from.
        minutes: stop cleanly after this long; calling again goes on.
        device: of the network.
        cache: where packs are kept; out/packs if None.

    Returns:
        The folder of the weights, loadable with kinolex.load.
    """
    config, data, out = load_recipe(recipe), Path(data), Path(out)
    packs = open_packs(config, data, Path(cache) if cache is not None else out / "packs")
    features = data / FEATURES
    trainer = Trainer(
        config,
        packs,
        out,
        features_path=features if features.is_file() else None,
        device=device,
        render_world=render_world,
    )
    model = trainer.run(minutes=minutes)
    weights = out / "weights"
    done = f"{trainer.counters.step} of {config.total_steps}"
    card = f"# {Path(recipe).stem}\n\nTrained for {done} steps by {Path(recipe).name}.\n"
    checkpoint.save(weights, model, card=card)
    return weights

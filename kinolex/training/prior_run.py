"""Train the prior of a tokenizer: draw digits from it, learn to predict them, draw again as the codec will, go on.

    clips --tokenizer, rounding or choosing by cost--> digits --PriorTwin--> bits      once per round
                              ^                                        |
                              +---- the prior of the round before -----+

Where digits are chosen by what they cost, what is written depends on the prior; so rounds after the first can draw with
the prior that the last one left. Where the tokenizer weighs rate itself, a later round is more data.
"""

from __future__ import annotations

import copy
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kinolex import checkpoint, hub
from kinolex.codec.network import NetworkConfig
from kinolex.codec.priors import LearnedPrior, Prior, save_prior, to_digits
from kinolex.codec.rate import DigitChooser
from kinolex.data.loader import Loader, LoaderConfig, RenderWorld
from kinolex.data.packs import Pack
from kinolex.errors import CheckpointError, ConfigError
from kinolex.layers.conv3d import channels_last
from kinolex.layers.precision import fast_arithmetic, is_bfloat16_native
from kinolex.tokenizers.quantizers import FSQConfig, LFQConfig, QuantizerConfig
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training.config import OptimizerConfig
from kinolex.training.loop import Loop, deadline, ending, recipe_hash
from kinolex.training.optimizer import Optimizers, follow_, gradient_norm_
from kinolex.training.prior import PriorTwin, previous_frames
from kinolex.types import Clip

BITS_PER_DIGIT = 6
"""Bits of a lookup-free id are read in groups of so many."""
MAX_VALUES = 64
"""Of a digit of a learned codebook's id."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorRound:
    """Digits drawn once, then steps on them."""

    clips: int
    images: int
    steps: int
    lr_factor: float = 1.0
    """Times the learning rates of the recipe's optimizer."""
    weights: tuple[float, float] = (0.0, 0.0)
    """Squared quantizer steps that a bit is worth when digits are drawn, from this to that; 0 is plain rounding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorTrainConfig:
    """A recipe for a prior."""

    tokenizer: str
    """Whose tokens are predicted: shipped name, folder or hub repository."""
    data: tuple[str, ...]
    """Collections below the data folder."""
    rounds: tuple[PriorRound, ...]
    channels: int = 128
    trunk_layers: int = 3
    clip_frames: int = 49
    """Frames of a clip: those of a chunk of the codec."""
    crop: int = 128
    """Side of clips and images in pixels."""
    lines: int = 128
    max_frames: int | None = 400
    batch_clips: int = 3
    batch_images: int = 8
    world_fraction: float = 0.05
    thrifty: float = 0.7
    """Share of the clips that a tokenizer which weighs rate is asked to save bits on, by a weight drawn per clip."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(muon_lr=0.02, adam_lr=2e-3, ema_decay=0.995)
    )
    save_every: int = 200
    seed: int = 0
    start: str = ""
    """Shipped name, folder or hub repository whose prior to go on from; empty: from noise."""

    def __post_init__(self) -> None:
        counts = [count for each in self.rounds for count in (each.clips, each.images, each.steps)]
        if not counts or min(*counts, self.batch_clips, self.batch_images, self.clip_frames) < 1:
            raise ConfigError("a prior needs at least one round, each of at least one clip, image and step")
        if self.rounds[0].weights != (0.0, 0.0):
            raise ConfigError("the first round has no prior to weigh bits with yet; leave its weights at 0")


def digit_levels(config: QuantizerConfig) -> tuple[int, ...]:
    """How a prior cuts the ids of a quantizer: the digits of FSQ, groups of bits of LFQ, factors of a codebook's size.

    Raises:
        ConfigError: a codebook whose size has a prime factor above MAX_VALUES, or residual levels.
    """
    if isinstance(config, FSQConfig):
        return config.levels
    if isinstance(config, LFQConfig):
        full, rest = divmod(config.num_bits, BITS_PER_DIGIT)
        return (2**BITS_PER_DIGIT,) * full + ((2**rest,) if rest else ())
    size = getattr(config, "codebook_size", 0)
    levels = []
    while size > 1:
        digit = next((value for value in range(min(MAX_VALUES, size), 1, -1) if size % value == 0), None)
        if digit is None:
            raise ConfigError(f"a codebook of {size} ids cannot be cut into digits of at most {MAX_VALUES} values")
        levels.append(digit)
        size //= digit
    if not levels:
        raise ConfigError(f"priors for a {type(config).__name__} cannot be trained yet; files use the plain prior")
    return tuple(levels)


class PriorTrainer:
    """One run over all rounds; `run` can be called again, also by another process, to go on.

    Args:
        config: the whole recipe.
        tokenizer: the one that config names.
        packs: training data.
        folder: digits, states and log.
        render_world: needed when config.world_fraction is positive.
        start: the prior to go on from.

    Raises:
        CheckpointError: the folder holds a run of another recipe or tokenizer, or start is no trained prior of the
            recipe's shape.
        ConfigError: as digit_levels, or weights for a tokenizer without places between its ids.
    """

    def __init__(
        self,
        config: PriorTrainConfig,
        tokenizer: VideoTokenizer,
        packs: Sequence[Pack],
        folder: Path,
        *,
        render_world: RenderWorld | None = None,
        start: Prior | None = None,
    ) -> None:
        self.config, self.tokenizer, self.folder = config, tokenizer, folder
        self.levels = digit_levels(tokenizer.config.quantizer)
        if any(max(each.weights) for each in config.rounds) and not isinstance(tokenizer.config.quantizer, FSQConfig):
            raise ConfigError(f"{config.tokenizer} has no places between its ids; leave the weights of all rounds at 0")
        self.network = NetworkConfig(levels=self.levels, channels=config.channels, trunk_layers=config.trunk_layers)
        loader = LoaderConfig(
            clip_frames=config.clip_frames,
            crop=config.crop,
            batch_video=1,
            batch_image=1,
            image_frames=1,
            world_fraction=config.world_fraction,
            seed=config.seed,
        )
        self.loader = Loader(packs, loader, render_world=render_world)
        self.hash = recipe_hash(asdict(config), tokenizer.fingerprint)
        torch.manual_seed(config.seed)
        self.twin = channels_last(PriorTwin(self.network))
        if start is not None:
            if not isinstance(start, LearnedPrior) or start.config != self.network:
                raise CheckpointError(f"{config.start} has no trained prior of the recipe's shape; choose one that has")
            self.twin.follow_(start.layers)
        self.average = copy.deepcopy(self.twin).requires_grad_(False)
        self.finished = False

    def run(self, *, minutes: float | None = None) -> LearnedPrior:
        """Train; returns the averaged network as integers. Stops cleanly after `minutes` or on an interrupt."""
        prior: LearnedPrior | None = None
        with ending(deadline(minutes)) as ended:
            for number in range(len(self.config.rounds)):
                self.finished = self._run_round(number, prior, ended)
                prior = self.export()
                if not self.finished:
                    break
        assert prior is not None
        return prior

    def export(self) -> LearnedPrior:
        """What the codec will compute."""
        return LearnedPrior(self.network, self.average.export())

    def save(self, path: Path) -> None:
        save_prior(path, self.network, self.average.export())

    def _run_round(self, number: int, prior: LearnedPrior | None, ended: Callable[[], bool]) -> bool:
        """Whether the round came to its end."""
        config, usual = self.config.rounds[number], self.config.optimizer
        factor = config.lr_factor
        scaled = replace(usual, muon_lr=usual.muon_lr * factor, adam_lr=usual.adam_lr * factor)
        optimizers = Optimizers(self.twin, scaled, config.steps)
        loop = Loop(
            self.folder,
            config.steps,
            {"twin": self.twin, "average": self.average},
            optimizers.pair,
            config_hash=self.hash,
            save_every=self.config.save_every,
            vocab_size=math.prod(self.levels),
            name=f"round-{number}",
            other="another recipe or tokenizer; use another --out",
        )
        if loop.counters.step == config.steps:
            return True
        clips, images = self._digits(number, config, prior, ended)
        if ended():
            return False
        bits = lambda step: self._step(step, number, clips, images, optimizers)  # noqa: E731
        loop.take(lambda step: ({"bits_per_position": bits(step)}, None), ended)
        return loop.counters.step == config.steps

    def _step(
        self, step: int, number: int, clips: Sequence[Tensor], images: Sequence[Tensor], optimizers: Optimizers
    ) -> float:
        """One update; returns bits per token position."""
        dice = np.random.default_rng([self.config.seed, number, step])
        total, count = 0.0, 0
        dtype = torch.bfloat16 if is_bfloat16_native(torch.device("cpu")) else torch.float32
        for group, size in ((clips, self.config.batch_clips), (images, self.config.batch_images)):
            drawn = [group[index].long() for index in dice.integers(0, len(group), size)]
            previous = torch.cat([previous_frames(digits, self.levels, dtype) for digits in drawn])
            digits_BDhw = torch.cat(drawn)
            with fast_arithmetic():
                bits = self.twin.bits(digits_BDhw, previous.contiguous(memory_format=torch.channels_last)).sum()
            bits.backward()
            total, count = total + float(bits.detach()), count + digits_BDhw[:, 0].numel()
        for parameter in self.twin.parameters():
            assert parameter.grad is not None
            parameter.grad /= count
        gradient_norm_(self.twin.parameters(), self.config.optimizer.clip_norm)
        optimizers.step(step)
        self.twin.zero_grad(set_to_none=True)
        follow_(self.average, self.twin, step, self.config.optimizer.ema_decay)
        return total / count

    # --- digits ---

    def _digits(
        self, number: int, config: PriorRound, prior: LearnedPrior | None, ended: Callable[[], bool]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Digits [t, D, h, w], uint8, of the round's clips and images; what was drawn before is read."""
        path = self.folder / f"digits-{number}.safetensors"
        drawn = _read(path, self.hash)
        names = [f"clip.{index}" for index in range(config.clips)]
        names += [f"image.{index}" for index in range(config.images)]
        todo = [name for name in names if name not in drawn]
        said = time.monotonic()
        console = Console(stderr=True)
        for name in track(todo, description=f"digits of round {number + 1}", console=console, disable=not todo):
            if ended():
                break
            drawn[name] = self._draw(name, number, config, prior)
            if time.monotonic() - said > 60:
                _write(path, drawn, self.hash)
                said = time.monotonic()
        if todo:
            _write(path, drawn, self.hash)
        here = [name for name in names if name in drawn]
        clips, images = ([drawn[name] for name in here if name.startswith(kind)] for kind in ("clip.", "image."))
        return clips, images

    def _draw(self, name: str, number: int, config: PriorRound, prior: LearnedPrior | None) -> Tensor:
        """One clip or image, its cost weighed as a seed of its name says."""
        kind, index = name.split(".")
        dice = np.random.default_rng([self.config.seed, number, len(kind), int(index)])
        thrifty, rate_weight, weight = dice.random(), dice.random(), dice.uniform(*config.weights)
        batch = self.loader.batch(int(index) + number * 10**6)
        pixels_1CTHW = batch.video_BCTHW if kind == "clip" else batch.images_BCTHW
        assert pixels_1CTHW is not None
        clip = Clip(pixels_1CTHW[0].permute(1, 0, 2, 3).contiguous(), Fraction(25))
        asked = self.tokenizer.weighs_rate and thrifty < self.config.thrifty
        choose = None if prior is None or weight == 0.0 else DigitChooser(prior, weight)
        tokens = self.tokenizer.encode(clip, choose, rate_weight=rate_weight if asked else 0.0)
        return to_digits(tokens.ids_Qthw, self.levels).permute(0, 3, 1, 2).to(torch.uint8).contiguous()


def _read(path: Path, config_hash: str) -> dict[str, Tensor]:
    """Digits drawn before by the same recipe; none if there is no such file."""
    if not path.is_file():
        return {}
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("config") != config_hash:
                raise CheckpointError(f"{path} belongs to another recipe or tokenizer; use another --out folder")
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); delete it to draw its digits anew") from error


def _write(path: Path, digits: dict[str, Tensor], config_hash: str) -> None:
    temporary = path.with_suffix(".part")
    save_file(digits, temporary, {"config": config_hash})
    temporary.replace(path)


def save_with_prior(trainer: PriorTrainer, target: Path) -> Path:
    """The tokenizer's checkpoint and its prior in one folder, as kinolex.load and kinolex compress want it."""
    source = hub.locate(trainer.config.tokenizer)
    target.mkdir(parents=True, exist_ok=True)
    for name in (checkpoint.CONFIG, checkpoint.WEIGHTS, checkpoint.CARD):
        if (source / name).is_file() and source != target:
            shutil.copyfile(source / name, target / name)
    trainer.save(target / checkpoint.PRIOR)
    return target

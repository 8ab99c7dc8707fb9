"""Train a generator: windows of tokens with a task each, to be made from what the task gives.

    Drawn --window, task--> clean, condition --generator_losses--> MaskedTransformer, or one of the baselines --> loss

The network of the recipe says what is trained; data, tasks, optimizer and steps are the same for all. A step takes
clips of one source, so that no batch needs padding; each sample has a task and a window of its own.

Source: MAGVIT, arXiv 2212.05199, section 3.2 (COMMIT).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kinolex import checkpoint
from kinolex.errors import CheckpointError, ConfigError
from kinolex.masks import HIDDEN, SCHEDULES
from kinolex.models.autoregressive import AutoregressiveConfig, AutoregressiveTransformer
from kinolex.models.diffusion import DiffusionConfig, DiffusionTransformer, latents_from_ids
from kinolex.models.masked import MaskedConfig, MaskedTransformer
from kinolex.tasks.video import TASKS
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training.config import OptimizerConfig
from kinolex.training.generator_losses import TokenBatch, autoregressive_loss, diffusion_loss, masked_loss
from kinolex.training.loop import NetworkLoop, deadline, fields_of, recipe_hash
from kinolex.training.optimizer import Optimizers
from kinolex.training.token_draws import ENCODED_TASKS, Drawn, DrawPlan, DrawSource, draw

DERIVED_TASKS = ("frame-prediction", "class", "class-prediction")
"""Tasks whose condition is part of the clean tokens."""
MAX_LATENTS_GIVEN = 3
INSIDE_SHARE = 0.35
"""Of the windows of derived tasks begin inside a stream."""
MEASURED_CLIPS = 200
"""Of each source tell how latents are spread."""
CONTINUED_SHARE = 0.5
"""Of the windows inside a stream with an encoded condition also have settled tokens at their start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratorTrainConfig:
    """A recipe for a generator."""

    tokenizer: str
    """Shipped name, folder or hub repository; every process that draws tokens loads it."""
    network: MaskedConfig | AutoregressiveConfig | DiffusionConfig
    """Its field tokenizer is filled in by the trainer."""
    sources: tuple[DrawSource, ...]
    steps: int
    task_shares: tuple[tuple[str, float], ...] = (
        *(("frame-prediction", 0.15), ("class", 0.2), ("class-prediction", 0.1)),
        ("encoded", 0.55),
    )
    """How often each derived task is posed; "encoded" stands for any task of token_draws.ENCODED_TASKS, which
    may be named, too, where every clip was encoded for it."""
    corruption: str = "commit"
    """"commit", or "mask": hidden instead of the condition's tokens, as MaskGIT does."""
    losses: tuple[str, ...] = ("refine", "mask", "reconstruct")
    """Which tokens teach: those given back as the condition's, the hidden ones, the untouched ones."""
    word_dropout: float = 0.15
    """Share of classes and captions left unsaid, for guidance."""
    label_smoothing: float = 1e-4
    clip_latents: int = 9
    """Latent frames per drawn clip."""
    lines: int = 128
    max_frames: int | None = 300
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(muon_lr=0.02, adam_lr=2e-3, ema_decay=0.998, warmup_steps=100)
    )
    save_every: int = 100
    seed: int = 0
    start: str = ""
    """Shipped name, folder or hub repository of weights to go on from; empty: from noise."""

    def __post_init__(self) -> None:
        if not self.sources or self.steps < 1 or self.clip_latents < self.network.latent_frames:
            raise ConfigError(
                f"a generator needs sources, steps and clips of at least {self.network.latent_frames} latent frames, "
                f"got {len(self.sources)}, {self.steps} and {self.clip_latents}"
            )
        if self.corruption not in ("commit", "mask"):
            raise ConfigError(f'corruption must be "commit" or "mask", got {self.corruption!r}')
        if not self.losses or set(self.losses) - {"refine", "mask", "reconstruct"}:
            raise ConfigError(f"losses must be among refine, mask and reconstruct, got {self.losses}")
        unknown = {name for name, _ in self.task_shares} - {*DERIVED_TASKS, "encoded", *ENCODED_TASKS}
        shares = [share for _, share in self.task_shares]
        if unknown or min(shares, default=0) < 0 or not 0 < sum(shares) < math.inf:
            raise ConfigError(f"task_shares may name {DERIVED_TASKS} and encoded, got {self.task_shares}")

    @property
    def data(self) -> tuple[str, ...]:
        """Every collection that a source draws from."""
        return tuple(dict.fromkeys(name for source in self.sources for name in source.data))


@dataclass(frozen=True, slots=True)
class Window:
    """One sample before corruption."""

    clean_thw: Tensor
    condition_thw: Tensor
    task: int
    words_P: Tensor
    first: bool
    exact_thw: Tensor
    """bool, where the condition is part of the clean tokens."""


class GeneratorTrainer(NetworkLoop[nn.Module]):
    """One run; `run` can be called again, also by another process, to go on.

    Args:
        config: the whole recipe.
        tokenizer: the one that config names.
        packs: folders of packs by collection.
        folder: tokens, state and log.
        drawn: clips by source, where they are not to be drawn below folder.
        start: weights to go on from.

    Raises:
        CheckpointError: the folder holds a run of another recipe or tokenizer, or start has another shape.
        ConfigError: factors that do not multiply to the tokenizer's vocabulary, or are not its levels (of diffusion).
    """

    def __init__(
        self,
        config: GeneratorTrainConfig,
        tokenizer: VideoTokenizer,
        packs: dict[str, Path],
        folder: Path,
        *,
        device: str = "cpu",
        drawn: dict[str, list[Drawn]] | None = None,
        start: nn.Module | None = None,
    ) -> None:
        self.config, self.device, self.drawn = config, torch.device(device), drawn
        if math.prod(config.network.factors) != tokenizer.vocab_size or tokenizer.num_levels != 1:
            raise ConfigError(
                f"factors {config.network.factors} do not make the {tokenizer.vocab_size} ids of {config.tokenizer}"
            )
        if not tokenizer.config.causal:
            raise ConfigError(f"{config.tokenizer} is not causal, and windows could not be joined; choose one that is")
        self.network = replace(config.network, tokenizer=tokenizer.fingerprint)
        time_factor = tokenizer.pixels_per_token[0]
        self.plan = DrawPlan(
            config.tokenizer,
            self.network.words,
            self.network.max_words,
            1 + time_factor * (self.network.latent_frames - 1),
            1 + time_factor * (config.clip_latents - 1),
            config.seed,
        )
        self.packs = packs
        # Masked networks came first; the others are told from them.
        kind = {} if isinstance(config.network, MaskedConfig) else {"kind": type(config.network).__name__}
        torch.manual_seed(config.seed)
        model: nn.Module = checkpoint.KINDS[type(self.network)].build(self.network).to(self.device)
        if isinstance(model, DiffusionTransformer):
            _check_levels(model.config.factors, tokenizer)
        if start is not None:
            if start.config != model.config:
                raise CheckpointError(
                    f"{config.start} has another shape or tokenizer than the recipe's; choose weights that fit it"
                )
            model.load_state_dict(start.state_dict())
        super().__init__(
            folder,
            model,
            Optimizers(model, config.optimizer, config.steps),
            config_hash=recipe_hash(fields_of(config) | kind, tokenizer.fingerprint),
            save_every=config.save_every,
            vocab_size=math.prod(self.network.factors),
            other="another recipe or tokenizer; use another --out",
        )

    def run(self, *, minutes: float | None = None) -> nn.Module:
        """Train; returns the averaged network. Stops cleanly after `minutes` or on an interrupt."""
        until = deadline(minutes)
        drawn = self.drawn or {source.name: self._drawn(source) for source in self.config.sources}
        if self.counters.step == 0 and isinstance(self.model, DiffusionTransformer):
            ids = [clip.clean_thw.flatten() for clips in drawn.values() for clip in clips[:MEASURED_CLIPS]]
            self.model.measure_(torch.cat(ids).long().to(self.device))
            self.average.load_state_dict(self.model.state_dict())
        self.go(lambda step: (self._step(step, drawn), None), until)
        return self.average

    def _drawn(self, source: DrawSource) -> list[Drawn]:
        folder = self.folder / "tokens" / self.network.tokenizer[:12]
        return draw(self.plan, source, [self.packs[name] for name in source.data], folder)

    def _step(self, step: int, drawn: dict[str, list[Drawn]]) -> dict[str, float]:
        """One update; returns figures for the log."""
        dice = np.random.default_rng([self.config.seed, step])
        shares = np.array([source.share for source in self.config.sources])
        source = self.config.sources[int(dice.choice(len(shares), p=shares / shares.sum()))]
        clips = drawn[source.name]
        windows = [self._window(clips[int(dice.integers(len(clips)))], dice) for _ in range(source.batch)]
        self.model.train()
        torch.manual_seed(int(dice.integers(2**31)))
        loss, figures = self._loss(windows, dice)
        loss.backward()
        figures["gradient_norm"] = self.update(step)
        return figures

    def _window(self, clip: Drawn, dice: np.random.Generator) -> Window:
        """A stretch of a clip with a task."""
        names, shares = zip(*self.config.task_shares, strict=True)
        name = names[int(dice.choice(len(names), p=np.array(shares) / sum(shares)))]
        length = self.network.latent_frames
        room = clip.clean_thw.shape[0] - length
        # Something is left to be made, also in short windows.
        most_given = max(1, min(MAX_LATENTS_GIVEN, length - 1))
        words_P = torch.zeros_like(clip.words_P)
        if name not in DERIVED_TASKS:
            among = [one for one in clip.conditions if name in ("encoded", ENCODED_TASKS[one[0]])]
            if not among:
                raise ConfigError(f"a clip was not encoded for {name}; encode it, or let task_shares say encoded")
            index, whole_thw = among[int(dice.integers(len(among)))]
            name = ENCODED_TASKS[index]
            start = int(dice.integers(0, room + 1)) if whole_thw.shape[0] > length else 0
            clean_thw, condition_thw = (ids[start : start + length].long() for ids in (clip.clean_thw, whole_thw))
            exact_thw = torch.zeros_like(clean_thw, dtype=torch.bool)
            if start and dice.random() < CONTINUED_SHARE:
                settled = int(dice.integers(1, most_given + 1))
                condition_thw = torch.cat([clean_thw[:settled], condition_thw[settled:]])
                exact_thw[:settled] = True
        else:
            start = int(dice.integers(1, room + 1)) if room and dice.random() < INSIDE_SHARE else 0
            clean_thw = clip.clean_thw[start : start + length].long()
            latents_given = int(dice.integers(1, most_given + 1)) if start or dice.random() < 0.3 else 1
            frames, rows, columns = clean_thw.shape
            exact_thw = TASKS[name].region(frames, rows, columns, latents_given)
            condition_thw = torch.where(exact_thw, clean_thw, HIDDEN)
            if TASKS[name].takes_class and dice.random() >= self.config.word_dropout:
                words_P = clip.words_P
        return Window(clean_thw, condition_thw, self.network.tasks.index(name), words_P, start == 0, exact_thw)

    def _loss(self, windows: Sequence[Window], dice: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        batch = TokenBatch(
            torch.stack([window.clean_thw for window in windows]).to(self.device),
            torch.stack([window.condition_thw for window in windows]).to(self.device),
            torch.stack([window.exact_thw for window in windows]).to(self.device),
            torch.tensor([window.task for window in windows], device=self.device),
            torch.stack([window.words_P for window in windows]).to(self.device),
            torch.tensor([window.first for window in windows], device=self.device),
        )
        smoothing = self.config.label_smoothing
        if isinstance(self.model, AutoregressiveTransformer):
            return autoregressive_loss(self.model, batch, label_smoothing=smoothing)
        if isinstance(self.model, DiffusionTransformer):
            return diffusion_loss(self.model, batch)
        assert isinstance(self.model, MaskedTransformer)
        corrupt_Bthw = torch.stack([_corrupted(window.clean_thw.shape, dice) for window in windows]).to(self.device)
        config = self.config
        return masked_loss(
            self.model,
            batch,
            corrupt_Bthw,
            corruption=config.corruption,
            losses=config.losses,
            label_smoothing=smoothing,
        )


def _corrupted(grid: tuple[int, ...], dice: np.random.Generator) -> Tensor:
    """Which positions of one sample lose their token: a share by the cosine schedule, at least one."""
    total = math.prod(grid)
    count = max(1, math.floor(SCHEDULES["cosine"](dice.random()) * total))
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[torch.from_numpy(dice.permutation(total)[:count])] = True
    return chosen.reshape(grid)


def _check_levels(levels: tuple[int, ...], tokenizer: VideoTokenizer) -> None:
    """Raises ConfigError unless ids of this tokenizer stand for the levels that the network makes."""
    quantizer = tokenizer.model.quantizer
    ids = torch.linspace(0, tokenizer.vocab_size - 1, 64).long()
    theirs_CN = quantizer.latents_from_ids(ids.view(1, 1, 1, 1, -1).to(tokenizer.device))[0, :, 0, 0].cpu()
    ours_CN = latents_from_ids(ids, levels).T
    if theirs_CN.shape != ours_CN.shape or not torch.allclose(theirs_CN, ours_CN, atol=1e-6):
        raise ConfigError(
            f"latents of levels {levels} are not those of a {type(quantizer).__name__} of {tokenizer}; "
            "diffusion needs the levels of a finite scalar or lookup-free quantizer as its factors"
        )

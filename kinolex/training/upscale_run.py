"""Train super-resolution: large tokens, some hidden, are told from the others and from the small tokens beneath them.

    Pair --stretch--> large ids --hide some-----> SuperResolution --> nats of what was hidden
                      small ids --some wrong, sometimes none--^

Small ids are made by a generator when the network is at work, so some are replaced by others in training; sometimes all
are left out, which is what guidance pushes away from.

Source: VideoPoet, arXiv 2312.14125, section 3.4; masks: MAGVIT, arXiv 2212.05199.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from kinolex.errors import ConfigError
from kinolex.layers.precision import fast_arithmetic
from kinolex.masks import HIDDEN, SCHEDULES
from kinolex.models.factors import split_ids
from kinolex.models.super_resolution import SuperResolution, SuperResolutionConfig
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training.config import OptimizerConfig
from kinolex.training.loop import NetworkLoop, Taken, deadline, fields_of, recipe_hash
from kinolex.training.optimizer import Optimizers
from kinolex.training.upscale_draws import Pair, PairPlan, PairSource, draw_pairs

INSIDE_SHARE = 0.35
"""Of the stretches begin inside a stream, after latent frames that are settled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UpscaleTrainConfig:
    """A recipe for super-resolution."""

    tokenizer: str
    """Shipped name, folder or hub repository; every process that draws tokens loads it."""
    network: SuperResolutionConfig
    """Its field tokenizer is filled in by the trainer."""
    source: PairSource
    steps: int
    batch: int
    """Pairs per step."""
    clip_latents: int
    """Latent frames per drawn clip; more than the network's, so that stretches can begin inside a stream."""
    small_noise: float = 0.15
    """At most this share of the small ids of a pair is replaced by ids drawn from all; the share is drawn."""
    small_dropout: float = 0.1
    """Share of the pairs whose small ids are all left out, for guidance."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(muon_lr=0.02, adam_lr=2e-3, ema_decay=0.998, warmup_steps=100)
    )
    save_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1 or self.clip_latents < self.network.latent_frames:
            raise ConfigError(
                f"super-resolution needs steps, a batch and clips of at least {self.network.latent_frames} latent "
                f"frames, got {self.steps}, {self.batch} and {self.clip_latents}"
            )
        if not (0 <= self.small_noise <= 1 and 0 <= self.small_dropout < 1):
            raise ConfigError(
                f"small_noise and small_dropout are shares, got {self.small_noise} and {self.small_dropout}"
            )

    @property
    def data(self) -> tuple[str, ...]:
        """Collections that it draws from: none, worlds are rendered."""
        return ()


@dataclass(frozen=True, slots=True, eq=False)
class UpscaleBatch:
    """Stretches of one size, with what the network is shown of them."""

    large_Bthw: Tensor
    shown_Bthw: Tensor
    """The large ids, HIDDEN where they are to be told."""
    small_Bthw: Tensor
    """The small ids as shown: some wrong, or all HIDDEN."""
    first_B: Tensor


class UpscaleTrainer(NetworkLoop[SuperResolution]):
    """One run; `run` can be called again, also by another process, to go on.

    Args:
        config: the whole recipe.
        tokenizer: the one that config names.
        folder: tokens, state and log.
        pairs: where they are not to be drawn below folder.

    Raises:
        CheckpointError: the folder holds a run of another recipe or tokenizer.
        ConfigError: a network that does not fit the tokenizer, or a tokenizer that is not causal.
    """

    def __init__(
        self,
        config: UpscaleTrainConfig,
        tokenizer: VideoTokenizer,
        folder: Path,
        *,
        device: str = "cpu",
        pairs: list[Pair] | None = None,
    ) -> None:
        self.config, self.device, self.pairs = config, torch.device(device), pairs
        if math.prod(config.network.factors) != tokenizer.vocab_size or tokenizer.num_levels != 1:
            raise ConfigError(
                f"factors {config.network.factors} do not make the {tokenizer.vocab_size} ids of {config.tokenizer}"
            )
        if not tokenizer.config.causal:
            raise ConfigError(
                f"{config.tokenizer} is not causal, and stretches could not be joined; choose one that is"
            )
        self.network = replace(config.network, tokenizer=tokenizer.fingerprint)
        frames = 1 + tokenizer.pixels_per_token[0] * (config.clip_latents - 1)
        self.plan = PairPlan(config.tokenizer, config.source, frames, config.seed)
        torch.manual_seed(config.seed)
        model = SuperResolution(self.network).to(self.device)
        super().__init__(
            folder,
            model,
            Optimizers(model, config.optimizer, config.steps),
            config_hash=recipe_hash(fields_of(config), tokenizer.fingerprint),
            save_every=config.save_every,
            vocab_size=tokenizer.vocab_size,
            other="another recipe or tokenizer; use another --out",
        )

    def run(self, *, minutes: float | None = None) -> SuperResolution:
        """Train; returns the averaged network. Stops cleanly after `minutes` or on an interrupt."""
        until = deadline(minutes)
        if self.counters.step < self.total:
            if self.pairs is None:
                self.pairs = draw_pairs(self.plan, self.folder / "tokens" / self.network.tokenizer[:12])
            self.go(self._step, until, self.device)
        return self.average

    def batch(self, step: int) -> UpscaleBatch:
        """What a step learns from: a function of the step and the pairs alone."""
        assert self.pairs is not None
        config, length = self.config, self.network.latent_frames
        dice = np.random.default_rng([config.seed, step])
        stretches: list[tuple[Tensor, Tensor, Tensor, bool]] = []
        for _ in range(config.batch):
            pair = self.pairs[int(dice.integers(len(self.pairs)))]
            room = len(pair.large_thw) - length
            start = int(dice.integers(1, room + 1)) if room and dice.random() < INSIDE_SHARE else 0
            part = slice(start, start + length)
            large_thw, small_thw = pair.large_thw[part].long(), pair.small_thw[part].long()
            # At work, what comes after the first stretch goes on from latent frames that are settled.
            settled = int(dice.integers(1, length)) if start and length > 1 else 0
            shown_thw = torch.where(hidden_part(large_thw.shape, settled, dice), HIDDEN, large_thw)
            if dice.random() < config.small_dropout:
                small_thw = torch.full_like(small_thw, HIDDEN)
            else:
                wrong_thw = torch.from_numpy(dice.random(small_thw.shape) < dice.random() * config.small_noise)
                any_thw = torch.from_numpy(dice.integers(math.prod(self.network.factors), size=small_thw.shape))
                small_thw = torch.where(wrong_thw, any_thw, small_thw)
            stretches.append((large_thw, shown_thw, small_thw, start == 0))
        large, shown, small, first = zip(*stretches, strict=True)
        return UpscaleBatch(torch.stack(large), torch.stack(shown), torch.stack(small), torch.tensor(first))

    def _step(self, step: int) -> Taken:
        """One update; returns figures for the log."""
        batch = self.batch(step)
        self.model.train()
        loss = upscale_loss(self.model, batch, self.device)
        loss.backward()
        bits = float(loss.detach()) / math.log(2)
        return {"loss": float(loss.detach()), "bits_per_position": bits, "gradient_norm": self.update(step)}, None


def upscale_loss(model: SuperResolution, batch: UpscaleBatch, device: torch.device) -> Tensor:
    """Mean nats of the hidden large ids."""
    shown_Bthw = batch.shown_Bthw.to(device)
    target_BLF = split_ids(rearrange(batch.large_Bthw.to(device), "b t h w -> b (t h w)"), model.config.factors)
    with fast_arithmetic(device):
        nats_BL = model(shown_Bthw, batch.small_Bthw.to(device), batch.first_B.to(device), target_BLF)
    hidden_BL = (shown_Bthw == HIDDEN).flatten(1)
    return (nats_BL * hidden_BL).sum() / hidden_BL.sum()


def hidden_part(grid: tuple[int, ...], settled: int, dice: np.random.Generator) -> Tensor:
    """bool [t, h, w], which tokens are hidden: a share by the cosine schedule, at least one, none of the settled
    leading latent frames."""
    time, rows, columns = grid
    open_count = (time - settled) * rows * columns
    count = max(1, math.floor(SCHEDULES["cosine"](dice.random()) * open_count))
    hidden_L = torch.zeros(time * rows * columns, dtype=torch.bool)
    hidden_L[settled * rows * columns + torch.from_numpy(dice.permutation(open_count)[:count])] = True
    return hidden_L.reshape(time, rows, columns)

"""Train a sound tokenizer: one loop, seeded, killed at any time and resumed to the same bits.

packs, worlds --(seed, step)--> crops --SoundStream--> spectral and waveform terms --> weights and their average

The network begins without its quantizer; after warm_steps the codes start from k-means over many crops at once, since
one batch has fewer latents than there are codes; for the last adversarial_steps discriminators join.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import torch
from einops import rearrange

from kinolex.data.sound_loader import SoundLoader, SoundLoaderConfig
from kinolex.data.sounds import SoundPack
from kinolex.errors import ConfigError
from kinolex.layers.conv3d import channels_last
from kinolex.layers.precision import fast_arithmetic
from kinolex.tokenizers.soundstream import SoundStream, SoundStreamConfig
from kinolex.training.config import OptimizerConfig
from kinolex.training.loop import NetworkLoop, Taken, deadline, fields_of, recipe_hash
from kinolex.training.optimizer import Optimizers
from kinolex.training.sound_adversarial import SoundAdversary, SoundDiscriminatorConfig
from kinolex.training.sound_losses import SoundLossWeights, spectral_terms

Precision = Literal["bfloat16", "float32"]
LATENTS_PER_CODE = 8
"""From which the codes of a level start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundTrainConfig:
    """A recipe for a sound tokenizer."""

    model: SoundStreamConfig
    data: tuple[str, ...]
    """Names of the collections below the data folder."""
    steps: int
    crop_frames: int
    """Latent frames per crop."""
    batch: int
    warm_steps: int = 0
    """Steps before the quantizer starts."""
    adversarial_steps: int = 0
    """Last steps, in which discriminators teach the decoder."""
    world_fraction: float = 0.0
    shares: tuple[float, ...] | None = None
    """Of the collections; None draws them by the root of their lengths."""
    precision: Precision = "bfloat16"
    """Of the arithmetic of a step. The rounding of bfloat16 is a hiss 50 decibels below the signal, under which nothing
    is learned; float32 takes 1.4 times as long on a CPU with bfloat16 instructions."""
    losses: SoundLossWeights = field(default_factory=SoundLossWeights)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    discriminator: SoundDiscriminatorConfig = field(default_factory=SoundDiscriminatorConfig)
    save_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.crop_frames, self.batch, self.save_every) < 1:
            raise ConfigError(f"steps, crop_frames, batch and save_every must be above 0, got {self}")
        if min(self.warm_steps, self.adversarial_steps) < 0 or self.warm_steps + self.adversarial_steps > self.steps:
            raise ConfigError(
                f"warm_steps and adversarial_steps are parts of {self.steps} steps, got {self.warm_steps} and "
                f"{self.adversarial_steps}"
            )
        if self.precision not in get_args(Precision):
            raise ConfigError(f"precision must be one of {', '.join(get_args(Precision))}, got {self.precision!r}")
        if not 0.0 <= self.world_fraction <= 1.0:
            raise ConfigError(f"world_fraction must be in 0..1, got {self.world_fraction}")


class SoundTrainer(NetworkLoop[SoundStream]):
    """One run; `run` can be called again, also by another process, to go on.

    Args:
        packs: of config.data, at the network's rate.
        model: trained weights to start from; their codes are kept, so there is no warm-up without a quantizer.

    Raises:
        CheckpointError: the folder holds a run of another recipe.
    """

    def __init__(
        self, config: SoundTrainConfig, packs: Sequence[SoundPack], folder: Path, *, model: SoundStream | None = None
    ) -> None:
        self.config = config
        torch.manual_seed(config.seed)
        model = channels_last(SoundStream(config.model) if model is None else model).train()
        self.adversary = SoundAdversary(config.discriminator)
        loader = SoundLoaderConfig(
            crop=config.crop_frames * config.model.hop,
            batch=config.batch,
            seed=config.seed,
            world_fraction=config.world_fraction,
            shares=config.shares,
        )
        self.loader = SoundLoader(packs, loader, rate_hz=config.model.rate_hz)
        super().__init__(
            folder,
            model,
            Optimizers(model, config.optimizer, config.steps),
            more_modules={"discriminator": self.adversary.network},
            more_optimizers={"discriminator_adam": self.adversary.optimizer},
            config_hash=recipe_hash(fields_of(config)),
            save_every=config.save_every,
            vocab_size=config.model.quantizer.vocab_size,
        )

    def run(self, *, minutes: float | None = None) -> SoundStream:
        """Train; returns the averaged network. Stops cleanly after `minutes` or on an interrupt."""
        self.go(self._step, deadline(minutes))
        return self.average

    def _step(self, step: int) -> Taken:
        """One update of everything that learns at this step; with the ids it saw of the first level."""
        config = self.config
        torch.manual_seed(_step_seed(config.seed, step))
        started = self._quantizer_is_started()
        if not started and step >= config.warm_steps:
            self._start_codes()
            started = True
        adversarial = step >= config.steps - config.adversarial_steps
        real_B1S = self.loader.batch(step)
        with self._arithmetic():
            if started:
                made_B1S, quantized = self.model(real_B1S)
                ids_BQthw, terms = quantized.ids_BQthw, {"commitment": quantized.losses["commitment"]}
            else:
                made_B1S, ids_BQthw, terms = self.model.synthesise(self.model.latents(real_B1S)), None, {}
        terms |= spectral_terms(made_B1S, real_B1S, config.model.rate_hz, quiet=config.losses.quiet)
        if adversarial:
            terms |= self.adversary.generator_terms(made_B1S, real_B1S)
        loss = torch.stack([getattr(config.losses, name) * term for name, term in terms.items()]).sum()
        loss.backward()
        figures = {name: float(term.detach()) for name, term in terms.items()} | {"loss": float(loss.detach())}
        self.update(step)
        if adversarial:
            figures |= self.adversary.train_step(made_B1S, real_B1S)
        # The first level alone: levels are vocabularies of their own.
        return figures, None if ids_BQthw is None else ids_BQthw[:, :1]

    def _arithmetic(self) -> torch.autocast:
        return fast_arithmetic() if self.config.precision == "bfloat16" else torch.autocast("cpu", enabled=False)

    def _quantizer_is_started(self) -> bool:
        return all(bool(level.is_initialised) for level in self.model.quantizer.levels)

    @torch.no_grad()
    def _start_codes(self) -> None:
        """k-means of every level over latents of batches that no step draws."""
        config = self.config
        wanted = LATENTS_PER_CODE * config.model.quantizer.vocab_size
        batches = -(-wanted // (config.batch * config.crop_frames))
        latents = []
        for index in range(batches):
            with self._arithmetic():
                latents_BDt11 = self.model.latents(self.loader.batch(config.steps + index))
            latents.append(rearrange(latents_BDt11, "b d t 1 1 -> 1 d (b t) 1 1"))
        # One long row of frames; the quantizer does not look at neighbours.
        self.model.quantizer(torch.cat(latents, dim=2))


def _step_seed(seed: int, step: int) -> int:
    return int.from_bytes(hashlib.sha256(f"sound/{seed}/{step}".encode()).digest()[:7], "little")

"""Train a sound tokenizer: one loop, seeded, killed at any time and resumed to the same bits.

packs, worlds --(seed, step)--> crops --SoundStream--> spectral and waveform terms --> weights and their average

The network begins without its quantizer; after warm_steps the codes start from k-means over many crops at once, since
one batch has fewer latents than there are codes; for the last adversarial_steps discriminators join.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from kinolex.data.sound_loader import SoundLoader, SoundLoaderConfig
from kinolex.data.sounds import SoundPack
from kinolex.errors import CheckpointError, ConfigError
from kinolex.layers.conv3d import channels_last
from kinolex.tokenizers.soundstream import SoundStream, SoundStreamConfig
from kinolex.training.config import OptimizerConfig
from kinolex.training.engine import stop_requests
from kinolex.training.optimizer import Optimizers, gradient_norm_
from kinolex.training.progress import Progress
from kinolex.training.sound_adversarial import SoundAdversary, SoundDiscriminatorConfig
from kinolex.training.sound_losses import SoundLossWeights, spectral_terms
from kinolex.training.state import Counters, load_state, save_state

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
    precision: Literal["bfloat16", "float32"] = "bfloat16"
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
        if not 0.0 <= self.world_fraction <= 1.0:
            raise ConfigError(f"world_fraction must be in 0..1, got {self.world_fraction}")


class SoundTrainer:
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
        self.config, self.folder = config, folder
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        self.model = channels_last(SoundStream(config.model) if model is None else model).train()
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizers = Optimizers(self.model, config.optimizer, config.steps)
        self.adversary = SoundAdversary(config.discriminator)
        loader = SoundLoaderConfig(
            crop=config.crop_frames * config.model.hop,
            batch=config.batch,
            seed=config.seed,
            world_fraction=config.world_fraction,
            shares=config.shares,
        )
        self.loader = SoundLoader(packs, loader, rate_hz=config.model.rate_hz)
        described = {name: value for name, value in asdict(config).items() if name != "save_every"}
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
        self.counters = Counters(config_hash=digest)
        if self.state_path.is_file():
            found = load_state(self.state_path, self._modules(), self._optimizers())
            if found.config_hash != digest:
                raise CheckpointError(f"{folder} holds a run of another recipe; give another --out")
            self.counters = found

    @property
    def state_path(self) -> Path:
        return self.folder / "state.safetensors"

    def run(self, *, minutes: float | None = None) -> SoundStream:
        """Train; returns the averaged network. Stops cleanly after `minutes` or on an interrupt."""
        config, counters = self.config, self.counters
        deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
        if counters.step >= config.steps:
            return self.average
        progress = Progress(self.folder, config.steps, counters.step, vocab_size=config.model.quantizer.vocab_size)
        with stop_requests() as stop:
            while counters.step < config.steps and not stop.is_set() and time.monotonic() < deadline:
                figures, ids_BQthw = self._step(counters.step)
                # The first level alone: levels are vocabularies of their own.
                progress.step(counters.step, figures, None if ids_BQthw is None else ids_BQthw[:, :1])
                counters.step += 1
                if counters.step % config.save_every == 0:
                    self.save()
            self.save()
            progress.close()
            if stop.is_set():
                raise KeyboardInterrupt
        return self.average

    def save(self) -> None:
        save_state(self.state_path, self._modules(), self._optimizers(), self.counters)

    def _step(self, step: int) -> tuple[dict[str, float], Tensor | None]:
        """One update of everything that learns at this step; returns its figures and the ids it saw."""
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
        norm = gradient_norm_(self.model.parameters(), config.optimizer.clip_norm)
        if math.isfinite(norm):
            self.optimizers.step(step)
        else:
            self.counters.skipped += 1
        self.model.zero_grad(set_to_none=True)
        if adversarial:
            figures |= self.adversary.train_step(made_B1S, real_B1S)
        self._follow(step)
        return figures, ids_BQthw

    def _arithmetic(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bfloat16")

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

    def _follow(self, step: int) -> None:
        decay = min(self.config.optimizer.ema_decay, (1 + step) / (10 + step))
        for ours, theirs in zip(self.average.parameters(), self.model.parameters(), strict=True):
            ours.lerp_(theirs.detach(), 1 - decay)
        for ours, theirs in zip(self.average.buffers(), self.model.buffers(), strict=True):
            ours.copy_(theirs)

    def _modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "average": self.average, "discriminator": self.adversary.network}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        pair = self.optimizers
        return {"muon": pair.muon, "adam": pair.adam, "discriminator_adam": self.adversary.optimizer}


def _step_seed(seed: int, step: int) -> int:
    return int.from_bytes(hashlib.sha256(f"sound/{seed}/{step}".encode()).digest()[:7], "little")

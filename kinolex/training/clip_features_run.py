"""Train the clip feature network on rendered worlds: one loop, seeded, killed at any time and resumed to the same bits.

worlds, kept in memory --(seed, step)--> batch --ClipFeatures--> one loss per attribute --> weights and their average
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from kinolex import hub
from kinolex.errors import CheckpointError, ConfigError
from kinolex.layers.conv3d import channels_last
from kinolex.models.clip_features import ClipFeatures, ClipFeaturesConfig
from kinolex.training.clip_features_data import HEADS, VELOCITY, Batch, WorldSet, draw
from kinolex.training.config import OptimizerConfig
from kinolex.training.engine import stop_requests
from kinolex.training.optimizer import Optimizers, gradient_norm_
from kinolex.training.progress import Progress
from kinolex.training.state import Counters, load_state, save_state

FIRST_SEED = 20_000_000
"""Of the worlds that are learned from; tests and measurements use seeds below."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipFeaturesTrainConfig:
    """A recipe for clip features. No collection is needed: worlds are rendered."""

    model: ClipFeaturesConfig
    worlds: int
    steps: int
    batch: int = 32
    tokenizers: tuple[str, ...] = ()
    """Shipped names or folders; worlds are also shown as these decode them."""
    decoded_share: float = 0.0
    """Of the worlds that are also kept decoded, split among the tokenizers."""
    velocity_weight: float = 4.0
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(muon_lr=0.02, adam_lr=2e-3, ema_decay=0.995)
    )
    save_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.worlds, self.steps, self.batch, self.save_every) < 1 or not 0.0 <= self.decoded_share <= 1.0:
            raise ConfigError(f"worlds, steps, batch and save_every must be above 0, decoded_share in 0..1, got {self}")
        if self.model.heads != HEADS:
            raise ConfigError(f"the network's heads must be those that worlds have labels for: {HEADS}")


class ClipFeaturesTrainer:
    """One run; `run` can be called again, also by another process, to go on.

    Raises:
        CheckpointError: the folder holds a run of another recipe.
    """

    def __init__(self, config: ClipFeaturesTrainConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        self.model = channels_last(ClipFeatures(config.model))
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizers = Optimizers(self.model, config.optimizer, config.steps)
        described = {name: value for name, value in asdict(config).items() if name != "save_every"}
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
        self.counters = Counters(config_hash=digest)
        if self.state_path.is_file():
            found = load_state(self.state_path, self._modules(), self._pair())
            if found.config_hash != digest:
                raise CheckpointError(f"{folder} holds a run of another recipe; give another --out")
            self.counters = found

    @property
    def state_path(self) -> Path:
        return self.folder / "state.safetensors"

    def run(self, *, minutes: float | None = None) -> ClipFeatures:
        """Train; returns the averaged network. Stops cleanly after `minutes` or on an interrupt."""
        config, counters = self.config, self.counters
        deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
        if counters.step >= config.steps:
            return self.average
        tokenizers = [hub.load(name) for name in config.tokenizers]
        seeds = range(FIRST_SEED, FIRST_SEED + config.worlds)
        worlds = WorldSet(seeds, tokenizers, share=config.decoded_share)
        progress = Progress(self.folder, config.steps, counters.step, vocab_size=1)
        with stop_requests() as stop:
            while counters.step < config.steps and not stop.is_set() and time.monotonic() < deadline:
                batch = draw(worlds, config.batch, config.seed, counters.step)
                progress.step(counters.step, self._step(batch, counters.step), None)
                counters.step += 1
                if counters.step % config.save_every == 0:
                    self.save()
            self.save()
            progress.close()
            if stop.is_set():
                raise KeyboardInterrupt
        return self.average

    def save(self) -> None:
        save_state(self.state_path, self._modules(), self._pair(), self.counters)

    def _step(self, batch: Batch, step: int) -> dict[str, float]:
        """One update; returns the loss, and the share of right answers per head."""
        with torch.autocast("cpu", torch.bfloat16):
            features_BD = self.model(batch.pixels_BCTHW)
        answers = {name: answer.float() for name, answer in self.model.heads(features_BD).items()}
        velocity_B2 = answers.pop(VELOCITY)
        wrong_B = F.smooth_l1_loss(velocity_B2, batch.velocity_B2, reduction="none", beta=0.1).sum(dim=1)
        # A batch may, however rarely, ask nothing of a head; then it teaches that head nothing.
        terms = {
            VELOCITY: self.config.velocity_weight * (wrong_B * batch.intact_B).sum() / batch.intact_B.sum().clamp(1)
        }
        figures: dict[str, float] = {}
        for name, logits_BV in answers.items():
            wanted_B = batch.classes[name]
            asked_B = wanted_B >= 0
            terms[name] = F.cross_entropy(logits_BV, wanted_B, reduction="sum") / asked_B.sum().clamp(1)
            figures[name] = float(((logits_BV.argmax(1) == wanted_B) & asked_B).sum() / asked_B.sum().clamp(1))
        loss = torch.stack(list(terms.values())).sum()
        loss.backward()
        norm = gradient_norm_(self.model.parameters(), self.config.optimizer.clip_norm)
        if math.isfinite(norm):
            self.optimizers.step(step)
        else:
            self.counters.skipped += 1
        self.model.zero_grad(set_to_none=True)
        decay = min(self.config.optimizer.ema_decay, (1 + step) / (10 + step))
        for ours, theirs in zip(self.average.parameters(), self.model.parameters(), strict=True):
            ours.lerp_(theirs.detach(), 1 - decay)
        return figures | {"loss": float(loss.detach()), VELOCITY: float(terms[VELOCITY].detach())}

    def _modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "average": self.average}

    def _pair(self) -> dict[str, torch.optim.Optimizer]:
        return {"muon": self.optimizers.muon, "adam": self.optimizers.adam}

"""Train the clip feature network on rendered worlds: one loop, seeded, killed at any time and resumed to the same bits.

worlds, kept in memory --(seed, step)--> batch --ClipFeatures--> one loss per attribute --> weights and their average
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F

from kinolex import hub
from kinolex.errors import ConfigError
from kinolex.layers.conv3d import channels_last
from kinolex.layers.precision import fast_arithmetic
from kinolex.models.clip_features import ClipFeatures, ClipFeaturesConfig
from kinolex.training.clip_features_data import HEADS, VELOCITY, Batch, WorldSet, draw
from kinolex.training.config import OptimizerConfig
from kinolex.training.loop import NetworkLoop, deadline, fields_of, recipe_hash
from kinolex.training.optimizer import Optimizers

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


class ClipFeaturesTrainer(NetworkLoop[ClipFeatures]):
    """One run; `run` can be called again, also by another process, to go on.

    Raises:
        CheckpointError: the folder holds a run of another recipe.
    """

    def __init__(self, config: ClipFeaturesTrainConfig, folder: Path) -> None:
        self.config = config
        torch.manual_seed(config.seed)
        model = channels_last(ClipFeatures(config.model))
        optimizers = Optimizers(model, config.optimizer, config.steps)
        super().__init__(
            folder, model, optimizers, config_hash=recipe_hash(fields_of(config)), save_every=config.save_every
        )

    def run(self, *, minutes: float | None = None) -> ClipFeatures:
        """Train; returns the averaged network. Stops cleanly after `minutes` or on an interrupt."""
        config, until = self.config, deadline(minutes)
        if self.counters.step < config.steps:
            tokenizers = [hub.load(name) for name in config.tokenizers]
            seeds = range(FIRST_SEED, FIRST_SEED + config.worlds)
            worlds = WorldSet(seeds, tokenizers, share=config.decoded_share)
            batch = lambda step: draw(worlds, config.batch, config.seed, step)  # noqa: E731
            self.go(lambda step: (self._step(batch(step), step), None), until)
        return self.average

    def _step(self, batch: Batch, step: int) -> dict[str, float]:
        """One update; returns the loss, and the share of right answers per head."""
        with fast_arithmetic():
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
        self.update(step)
        return figures | {"loss": float(loss.detach()), VELOCITY: float(terms[VELOCITY].detach())}

"""Train SPAE: one loop, seeded, killed at any time and resumed to the same bits.

    pictures --(seed, step)--> batch --Spae--> appearance + alpha * w * semantic --> weights and their average

    w = appearance / semantic, without gradient: however large either is, the semantic term weighs alpha of the other

Half of a batch is decoded from all layers, the other half from the first 1, 2, ... of them, so that every prefix
decodes.

Source: SPAE, Yu et al. 2023, arXiv 2306.17842; papers.md section 5.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from kinolex.errors import CheckpointError, ConfigError
from kinolex.layers.conv3d import channels_last
from kinolex.layers.precision import fast_arithmetic
from kinolex.metrics.perceptual import SqueezeNetFeatures
from kinolex.models.frozen_lm import FrozenLM
from kinolex.tokenizers.spae import Spae, SpaeConfig, codebook_from, semantic_loss
from kinolex.training.config import OptimizerConfig
from kinolex.training.loop import NetworkLoop, deadline, fields_of, recipe_hash
from kinolex.training.losses import PerceptualLoss, squeezenet_loss
from kinolex.training.optimizer import Optimizers
from kinolex.training.spae_data import Batch, PictureSet, imagenet_teacher

FEATURES, LABELS = "perceptual/squeezenet_v1_0_imagenet.safetensors", "perceptual/imagenet_labels.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class SpaeTrainConfig:
    """A recipe for a word tokenizer of pictures."""

    language_model: str
    """Whose words and embeddings make the codebook: shipped name, folder or hub repository."""
    start: str = ""
    """A trained word tokenizer of the same shape and words to go on from; empty: from nothing."""
    layers: tuple[tuple[int, int, int], ...]
    channels: tuple[int, ...]
    down: tuple[tuple[int, int], ...]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    middle_blocks: int
    fold: int = 4
    norm_groups: int = 32
    sets: tuple[tuple[str, float], ...]
    """(sub-folder of the data folder or "worlds", share of a batch)."""
    worlds: int
    """How many are rendered."""
    steps: int
    batch: int
    thresholds: tuple[float, ...] = (0.95, 0.6, 0.3)
    """Score that a word needs in the first layers; as many layers are taught words."""
    semantic: float = 0.5
    """alpha."""
    squared: float = 1.0
    absolute: float = 1.0
    perceptual: float = 0.3
    perceptual_pictures: int = 8
    commitment: float = 0.25
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(muon_lr=0.02, adam_lr=2e-3, ema_decay=0.995)
    )
    save_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.worlds, self.steps, self.batch, self.save_every) < 1 or not self.sets:
            raise ConfigError(f"worlds, steps, batch and save_every must be above 0 and sets not empty, got {self}")
        if any(layer[0] != 1 for layer in self.layers) or any(time != 1 for time, _ in self.down):
            raise ConfigError(f"recipes train on single pictures: layers and down need time 1, got {self.layers}")
        falling = all(a >= b for a, b in zip(self.thresholds, self.thresholds[1:], strict=False))
        if not falling or len(self.thresholds) > len(self.layers):
            raise ConfigError(f"thresholds must not rise and are of layers: {self.thresholds}")

    def network(self, lm: FrozenLM) -> SpaeConfig:
        """The network's config, with the words of a language model."""
        return SpaeConfig(
            words=tuple(lm.decode([index])[1:] for index in lm.word_ids()),
            language_model=lm.fingerprint,
            dim=lm.embeddings_VD.shape[1],
            layers=self.layers,
            channels=self.channels,
            down=self.down,
            encoder_blocks=self.encoder_blocks,
            decoder_blocks=self.decoder_blocks,
            middle_blocks=self.middle_blocks,
            fold=self.fold,
            norm_groups=self.norm_groups,
        )


class SpaeTrainer(NetworkLoop[Spae]):
    """One run; `run` can be called again, also by another process, to go on.

    Args:
        data: folder of the sets; perceptual/ in it makes the teacher and the perceptual loss, without it words are
            the told ones alone and appearance is pixels alone.
        start: weights to go on from.

    Raises:
        MissingFile, DataError: a set is not there.
        CheckpointError: the folder holds a run of another recipe or language model, or start has another shape.
    """

    def __init__(
        self, config: SpaeTrainConfig, lm: FrozenLM, data: Path, folder: Path, *, start: Spae | None = None
    ) -> None:
        self.config = config
        torch.manual_seed(config.seed)
        model = channels_last(Spae(config.network(lm)))
        if start is not None:
            if start.config != model.config:
                raise CheckpointError(
                    f"{config.start} has another shape or other words than the recipe's; choose weights that fit it"
                )
            model.load_state_dict(start.state_dict())
        model.quantizer.set_codebook(codebook_from(lm.embeddings_VD[lm.word_ids()]))
        self.perceptual: PerceptualLoss | None = None
        teacher = None
        words = model.config.words
        if (data / FEATURES).is_file():
            network = SqueezeNetFeatures(data / FEATURES)
            self.perceptual = squeezenet_loss(network)
            teacher = imagenet_teacher(network, data / LABELS, words)
        super().__init__(
            folder,
            model,
            Optimizers(model, config.optimizer, config.steps),
            config_hash=recipe_hash(fields_of(config), lm.fingerprint, teacher is not None),
            save_every=config.save_every,
            vocab_size=len(words),
            other="another recipe or language model; use another --out folder",
        )
        side = model.config.pixels[1]
        self.pictures = PictureSet(data, config.sets, words, side=side, worlds=config.worlds, teacher=teacher)

    def run(self, *, minutes: float | None = None) -> Spae:
        """Train; returns the averaged network. Stops cleanly after `minutes` or on an interrupt."""
        config = self.config
        batch = lambda step: self.pictures.batch(config.seed, step, config.batch)  # noqa: E731
        self.go(lambda step: self._step(batch(step), step), deadline(minutes))
        return self.average

    def _step(self, batch: Batch, step: int) -> tuple[dict[str, float], Tensor]:
        """One update; figures, and the words of the first layer."""
        config = self.config
        dice = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        size, layers = len(batch.pixels_BCTHW), len(config.layers)
        with fast_arithmetic():
            latents_BDthw = self.model.encode(batch.pixels_BCTHW)
        quantized = self.model.quantizer(latents_BDthw.float())
        # The first half of the batch keeps all layers.
        depth_B = torch.randint(0, max(1, layers - 1), (size,), generator=dice)
        depth_B[: (size + 1) // 2] = layers - 1
        all_LBDthw = torch.stack(quantized.prefixes_BDthw)
        with fast_arithmetic():
            output_BCTHW = self.model.decode(all_LBDthw[depth_B, torch.arange(size)]).float()
        error_BCTHW = output_BCTHW - batch.pixels_BCTHW
        appearance = config.squared * error_BCTHW.square().mean() + config.absolute * error_BCTHW.abs().mean()
        appearance = appearance + config.commitment * quantized.commitment
        if self.perceptual is not None and config.perceptual:
            few = slice(0, min(config.perceptual_pictures, size))
            distance_B = self.perceptual(output_BCTHW[few, :, 0], batch.pixels_BCTHW[few, :, 0])
            appearance = appearance + config.perceptual * distance_B.mean()
        semantic = semantic_loss(self.model.quantizer, quantized.states_BLD, batch.scores_BV, config.thresholds, dice)
        weight = (appearance / semantic.clamp(min=1e-6)).detach()
        loss = appearance + config.semantic * weight * semantic
        loss.backward()
        self.update(step)
        whole = float((error_BCTHW[: (size + 1) // 2] / 2).square().mean().detach())
        top_B = quantized.ids[0].flatten(1)[:, 0]
        taught_B = batch.scores_BV.amax(dim=1) > 0
        told_B = batch.scores_BV[torch.arange(size), top_B] >= config.thresholds[0]
        figures = {
            "loss": float(appearance.detach()),
            "semantic": float(semantic.detach()),
            "commitment": float(quantized.commitment.detach()),
            "psnr_db": -10 * math.log10(max(whole, 1e-9)),
            "top_word_told": float((told_B & taught_B).sum() / taught_B.sum().clamp(min=1)),
        }
        return figures, quantized.ids[0]

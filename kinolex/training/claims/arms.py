"""What is compared: recipes that differ from one base in what a claim is about and in nothing else.

scale -> base recipe --replace--> arms        operations of an arm = steps x training_flops (+ its tokenizer's)

Every arm sees the same worlds. Where a network costs more per step, it takes fewer steps, so that all arms of a claim
cost the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from kinolex import checkpoint
from kinolex.data.worlds.scene import ACTIONS, COLOURS, FLOORS, NUMBERS, SHAPES, SIZES
from kinolex.models.masked import MaskedConfig
from kinolex.tasks.video import TASK_NAMES, TASKS
from kinolex.tokenizers.autoencoder3d import Autoencoder3D, AutoencoderConfig
from kinolex.tokenizers.quantizers import QuantizerConfig
from kinolex.training.baselines import NetworkKind, training_flops, with_network
from kinolex.training.claims.scales import Scale
from kinolex.training.config import LossWeights, OptimizerConfig, StageConfig, TrainConfig
from kinolex.training.generator_run import GeneratorTrainConfig
from kinolex.training.token_draws import DrawSource

PIXEL_TASKS = tuple(name for name, task in TASKS.items() if task.gives_pixels and not task.takes_class)
"""MAGVIT's eight tasks without classes."""
ENCODED = tuple(name for name in PIXEL_TASKS if TASKS[name].fill != "repeat")
"""Of these, the tasks whose condition is encoded by itself."""
WORDS = (
    *SIZES,
    *COLOURS,
    *SHAPES,
    *(word for action in ACTIONS for word in (action, action + "s")),
    *("once", "twice", *NUMBERS[3:]),
    *FLOORS,
)
MAX_WORDS = 16
STATES = 3
"""Saved states of a run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One side of a comparison. Arms with the same recipes share their trained networks."""

    name: str
    config: GeneratorTrainConfig
    """With seed 0; every seed replaces it."""
    passes: int
    """Of decoding, where the network takes a number of passes."""
    tokenizer: TrainConfig | None = None
    """Trained first, with the same seed, where the arm has a tokenizer of its own."""

    def with_seed(self, seed: int) -> Arm:
        tokenizer = None if self.tokenizer is None else replace(self.tokenizer, seed=seed)
        return replace(self, config=replace(self.config, seed=seed), tokenizer=tokenizer)


def base_recipe(scale: Scale) -> GeneratorTrainConfig:
    """COMMIT with its three losses on the eight tasks, all equally often: MAGVIT as published."""
    network = MaskedConfig(
        tokenizer="",
        factors=scale.factors,
        digits=scale.digits,
        width=scale.width,
        depth=scale.depth,
        heads=scale.heads,
        tasks=TASK_NAMES,
        latent_frames=scale.latent_frames,
    )
    return GeneratorTrainConfig(
        tokenizer=scale.tokenizer,
        network=network,
        sources=(DrawSource(name="worlds", clips=scale.clips, crop=scale.side, batch=scale.batch, share=1.0),),
        steps=scale.steps,
        task_shares=(("frame-prediction", 1.0), *((name, 1.0) for name in ENCODED)),
        clip_latents=scale.latent_frames,
        save_every=max(1, scale.steps // STATES),
    )


def base_arm(scale: Scale, name: str) -> Arm:
    return Arm(name=name, config=base_recipe(scale), passes=scale.passes)


def of_equal_cost(config: GeneratorTrainConfig, kind: NetworkKind, scale: Scale) -> GeneratorTrainConfig:
    """The recipe for a network of another kind, with as many steps as cost what the masked one's do."""
    other = with_network(config, kind)
    steps = round(generator_flops(config, scale) / _step_flops(other, scale))
    return replace(other, steps=max(1, steps), save_every=max(1, steps // STATES))


def words_arm(scale: Scale, name: str, quantizer: QuantizerConfig, vocabulary: int) -> Arm:
    """A tokenizer of its own and a transformer that makes its tokens from captions.

    One softmax over all ids for every quantizer: cut into factors, ids that are not made of digits would be harder.
    """
    base = base_recipe(scale)
    fields = {"factors": (vocabulary,), "digits": (), "words": WORDS, "max_words": MAX_WORDS}
    config = replace(
        base,
        tokenizer="own",
        network=replace(base.network, **fields),
        task_shares=(("class", 1.0),),
        steps=scale.vocabulary_steps,
        save_every=max(1, scale.vocabulary_steps // STATES),
    )
    return Arm(name=name, config=config, passes=scale.passes, tokenizer=tokenizer_recipe(scale, quantizer))


def tokenizer_recipe(scale: Scale, quantizer: QuantizerConfig) -> TrainConfig:
    """A small causal autoencoder of 4x8x8 pixels per token. Pixels alone teach: there is no perceptual network here."""
    model = AutoencoderConfig(
        channels=scale.tokenizer_channels,
        down=((2, 2), (2, 1)),
        encoder_blocks=(1, 1, 2),
        decoder_blocks=(1, 2, 2),
        middle_blocks=1,
        quantizer=quantizer,
        causal=True,
        fold=4,
        norm="position",
        factorised=True,
    )
    stage = StageConfig(
        name="worlds",
        steps=scale.tokenizer_steps,
        clip_frames=scale.frames,
        crop=scale.side,
        batch_video=scale.tokenizer_batch,
        batch_image=0,
    )
    return TrainConfig(
        model=model,
        stages=(stage,),
        data=(),
        losses=LossWeights(perceptual=0.0, entropy_steps=max(1, scale.tokenizer_steps // 2)),
        optimizer=OptimizerConfig(ema_decay=0.99),
        save_every=max(1, scale.tokenizer_steps // STATES),
        grid_every=10**9,
    )


def arm_flops(arm: Arm, scale: Scale) -> int:
    """Operations of training an arm once, its own tokenizer included, without drawing tokens and without optimizers."""
    own = 0 if arm.tokenizer is None else tokenizer_flops(arm.tokenizer)
    return generator_flops(arm.config, scale) + own


def arm_parameters(arm: Arm) -> int:
    """Of its transformer. Flow matching has fewer than a masked network of the same sizes: no tables of ids."""
    with torch.device("meta"):
        network = checkpoint.KINDS[type(arm.config.network)].build(arm.config.network)
    return sum(parameter.numel() for parameter in network.parameters())


def generator_flops(config: GeneratorTrainConfig, scale: Scale) -> int:
    return config.steps * _step_flops(config, scale)


def tokenizer_flops(config: TrainConfig) -> int:
    """Forward counted by torch on a network without memory; backward is twice that."""
    (stage,) = config.stages
    one = _autoencoder_flops(config.model, stage.clip_frames, stage.crop)  # type: ignore[arg-type]  # see above
    return 3 * stage.steps * stage.batch_video * one


def _step_flops(config: GeneratorTrainConfig, scale: Scale) -> int:
    (source,) = config.sources
    return training_flops(config.network, scale.grid, source.batch)


@lru_cache(maxsize=64)
def _autoencoder_flops(config: AutoencoderConfig, frames: int, side: int) -> int:
    with torch.device("meta"), torch.no_grad():
        model = Autoencoder3D(config)
        pixels_BCTHW = torch.empty(1, 3, frames, side, side)
        with FlopCounterMode(display=False) as counter:
            model.decode(model.encode(pixels_BCTHW))
    return counter.get_total_flops()

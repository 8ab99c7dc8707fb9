"""One recipe, three networks: the masked generator's recipe with another network of the same sizes, and what a step of
each costs.

    GeneratorTrainConfig of a MaskedConfig --with_network--> the same recipe for an autoregressive or diffusion network

Costs are of matrix products and attention, two operations a multiplication with its addition, as they are carried out:
masked positions are paid for, what flash attention computes again on the way back is not counted. Backward costs twice
what forward does, except where nothing that learns lies behind.

Source: the comparison is MAGVIT's, arXiv 2212.05199, table 6.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

from kinolex.errors import UsageError
from kinolex.models.autoregressive import AutoregressiveConfig
from kinolex.models.diffusion import DiffusionConfig
from kinolex.models.masked import MaskedConfig
from kinolex.models.places import FOURIER
from kinolex.training.generator_run import GeneratorTrainConfig

NetworkKind = Literal["masked", "autoregressive", "diffusion"]
KINDS: tuple[NetworkKind, ...] = ("masked", "autoregressive", "diffusion")
NetworkConfig = MaskedConfig | AutoregressiveConfig | DiffusionConfig


def with_network(config: GeneratorTrainConfig, kind: NetworkKind) -> GeneratorTrainConfig:
    """The recipe of a masked generator for a network of another kind: same data, tasks, optimizer and steps.

    Raises:
        UsageError: a recipe of another network, or as network_of.
    """
    if not isinstance(config.network, MaskedConfig):
        raise UsageError(f"only a masked generator's recipe becomes another's, got {type(config.network).__name__}")
    return replace(config, network=network_of(config.network, kind))


def network_of(masked: MaskedConfig, kind: NetworkKind) -> NetworkConfig:
    """A config of the same sizes, tasks and words; parameters agree within 2 %.

    Raises:
        UsageError: an unknown kind, or diffusion where the masked network was not told the digits of its ids.
    """
    if kind not in KINDS:
        raise UsageError(f"no network {kind!r}; choose one of {', '.join(KINDS)}")
    if kind == "masked":
        return masked
    shared = {
        name: getattr(masked, name)
        for name in (
            *("tokenizer", "width", "depth", "heads", "tasks", "words", "max_words", "latent_frames"),
            *("marks_first", "dropout"),
        )
    }
    if kind == "autoregressive":
        return AutoregressiveConfig(factors=masked.factors, digits=masked.digits, chained=masked.chained, **shared)
    if not masked.digits:
        raise UsageError("diffusion moves the latents of a finite scalar quantizer: give its levels as digits")
    return DiffusionConfig(factors=masked.digits, **shared)


def training_flops(network: NetworkConfig, grid: tuple[int, int, int], batch: int) -> int:
    """Floating-point operations of forward and backward of one step, without the optimizer.

    Args:
        grid: latent frames, rows and columns of the windows.
        batch: windows.
    """
    length, width, depth = math.prod(grid), network.width, network.depth
    prefix = 1 + network.max_words
    whereabouts = 2 * length * 6 * FOURIER * width
    if isinstance(network, MaskedConfig):
        positions = prefix + length
        forward = depth * _block(positions, positions, width) + _heads(network, length)
        once = 0 if network.learned_positions else whereabouts
        return 3 * batch * forward + 2 * once
    if isinstance(network, AutoregressiveConfig):
        given = prefix + length
        read = _block(given, given, width)
        forward = depth * (read + _block(length, given + length, width)) + _heads(network, length)
        # Of the condition the last block's keys and values are all that is looked at.
        unused = read - 2 * given * width * 3 * width
        return batch * (3 * forward - 2 * unused) + 2 * 2 * whereabouts
    channels = len(network.factors)
    positions = prefix + 1 + length
    data = 2 * length * (2 * channels + 1) * width + 2 * width * 2 * width
    inside = (
        depth * _block(positions, positions, width)
        + 2 * length * width * width
        + 2 * 2 * width * width
        + 2 * length * width * (width + channels)
    )
    return batch * (3 * inside + 2 * data) + 2 * whereabouts


def training_flops_per_token(network: NetworkConfig, grid: tuple[int, int, int]) -> float:
    """Of one token of one window in a large batch."""
    return training_flops(network, grid, 1) / math.prod(grid)


def _block(queries: int, keys: int, width: int) -> int:
    """Forward operations of a transformer block: projections, perceptron, attention."""
    return 24 * queries * width**2 + 4 * queries * keys * width


def _heads(network: MaskedConfig | AutoregressiveConfig, length: int) -> int:
    chain = len(network.factors) - 1 if network.chained else 0
    return 2 * length * network.width * (sum(network.factors) + (len(network.factors) + chain) * network.width)

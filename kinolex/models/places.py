"""Where tokens lie, and the positions before them that say what is wanted: shared by all generators.

grid t, h, w --> places [L, 3] --waves--> what a token is told of its place in the whole        places --> rotary
task, words --> [task, word, word ...], one position each
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from kinolex.errors import ConfigError

FOURIER = 8
"""Waves per axis that tell a token where it lies in the whole."""
STD = 0.02
"""Of what networks begin with."""


class Sizes(Protocol):
    """What the configs of the generators have in common."""

    @property
    def factors(self) -> tuple[int, ...]: ...
    @property
    def width(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def tasks(self) -> tuple[str, ...]: ...
    @property
    def words(self) -> tuple[str, ...]: ...
    @property
    def max_words(self) -> int: ...
    @property
    def latent_frames(self) -> int: ...
    @property
    def dropout(self) -> float: ...


def check_sizes(what: str, config: Sizes) -> None:
    """Raises ConfigError for sizes of which no generator can be built."""
    sizes = (config.width, config.depth, config.heads, config.max_words, config.latent_frames)
    if min(sizes) < 1 or config.width % (2 * config.heads) or not config.factors or not config.tasks:
        raise ConfigError(
            f"{what} needs factors, tasks, positive sizes and an even width per head; got width {config.width}, "
            f"depth {config.depth}, {config.heads} heads, factors {config.factors}, {len(config.tasks)} tasks, "
            f"{config.max_words} words, {config.latent_frames} latent frames"
        )
    if min(config.factors) < 2:
        raise ConfigError(f"a vocabulary needs factors of at least two ids each, got {config.factors}")
    if len(set(config.tasks)) < len(config.tasks) or len(set(config.words)) < len(config.words):
        raise ConfigError("names of tasks and words must differ from one another")
    if not 0.0 <= config.dropout < 1.0:
        raise ConfigError(f"dropout must be in 0..1, got {config.dropout}")


def grid_places(time: int, height: int, width: int, device: torch.device) -> Tensor:
    """Frame, row and column [L, 3] of every token, float, in t, h, w order."""
    axes = [torch.arange(size, device=device, dtype=torch.float32) for size in (time, height, width)]
    return rearrange(torch.stack(torch.meshgrid(*axes, indexing="ij")), "three t h w -> (t h w) three")


def grid_shares(places_L3: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Places as shares 0..1 of the whole, at the middles of the tokens."""
    return (places_L3 + 0.5) / places_L3.new_tensor(grid)


def waves(shares_L3: Tensor) -> Tensor:
    """Sines and cosines [L, 6 FOURIER] of places in 0..1 on each axis."""
    rates_K = torch.arange(1, FOURIER + 1, device=shares_L3.device) * torch.pi
    turns = repeat(shares_L3, "l three -> l three k", k=FOURIER) * rates_K
    return rearrange(torch.cat([turns.sin(), turns.cos()], dim=-1), "l three k -> l (three k)")


class Prefix(nn.Module):
    """Positions before the tokens: a task, words, and `extra` positions that the caller brings."""

    def __init__(self, config: Sizes, *, extra: int = 0) -> None:
        super().__init__()
        self.task_table = nn.Parameter(STD * torch.randn(len(config.tasks), config.width))
        # Row 0 is "nothing said".
        self.word_table = nn.Parameter(STD * torch.randn(len(config.words) + 1, config.width))
        self.slots = nn.Parameter(STD * torch.randn(1 + config.max_words + extra, config.width))

    @property
    def length(self) -> int:
        return len(self.slots)

    def forward(self, tasks_B: Tensor, words_BP: Tensor, extra_BED: Tensor | None = None) -> Tensor:
        """[B, length, D]."""
        parts = [self.task_table[tasks_B][:, None], F.embedding(words_BP, self.word_table)]
        if extra_BED is not None:
            parts.append(extra_BED)
        return torch.cat(parts, dim=1) + self.slots

    def places(self) -> Tensor:
        """Places [length, 3] for rotary positions: before the first frame, row and column."""
        return self.slots.new_full((self.length, 3), -1.0, dtype=torch.float32)


def initialise(network: nn.Module) -> None:
    """Truncated normal matrices, no biases."""
    for name, parameter in network.named_parameters():
        if name.endswith("weight") and parameter.ndim == 2:
            nn.init.trunc_normal_(parameter, std=STD, a=-2 * STD, b=2 * STD)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)

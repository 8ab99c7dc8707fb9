"""Probes: small networks that read classes from features of positions. How well they read says what the features hold.

    features_BLC --standardise--> cells of 2x2 positions --linear--> + places --attentive | transformer--> logits
    features_BLC --standardise--> mean over positions --linear--> logits of every attribute

The body is the same whatever the features are: patches of pixels, latents of tokens or their digits. Only the width of
the first layer follows them, so accuracies can be compared. The transformer can also be taught to predict hidden
tokens before it is taught classes.

Source: attentive probes: Bardes et al. 2024, arXiv 2404.08471 (V-JEPA); tubelets: Arnab et al. 2021, arXiv 2103.15691
(ViViT); prediction of hidden tokens before fine-tuning: Wang et al. 2022, arXiv 2112.01529 (BEVT).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinolex.errors import ConfigError, ShapeError
from kinolex.layers.attention import TransformerBlock, rotary_angles
from kinolex.models.factors import FactoredTokens, split_ids
from kinolex.models.places import FOURIER, STD, grid_places, grid_shares, initialise, waves

ProbeKind = Literal["linear", "attentive", "transformer"]
KINDS: tuple[ProbeKind, ...] = ("linear", "attentive", "transformer")
SMALLEST_SCALE = 0.02
"""Features that hardly vary are not blown up further than this."""
MERGE = 2
"""Rows and columns of positions that are read as one cell; a quarter of the cells costs a quarter of the time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadsConfig:
    """What a probe was trained on, for whoever feeds it; the network itself never looks at it."""

    input: str
    """As kinolex.understanding.features names it: "raw", "decoded", "latents" or "digits"."""
    tokenizer: str
    """Fingerprint of the tokenizer; of raw pixels the one whose patches they are cut into."""
    frames: int
    side: int
    """Of the square picture, in pixels."""
    frames_per_second: float

    def __post_init__(self) -> None:
        if min(self.frames, self.side, self.frames_per_second) < 1:
            raise ConfigError(f"a probe reads a positive number of frames, pixels and frames per second, got {self}")


@dataclass(frozen=True, kw_only=True, slots=True)
class HearsConfig:
    """The same of a probe of sounds."""

    input: str
    """As of ReadsConfig; "raw" and "decoded" are log-mel frames."""
    tokenizer: str
    """Fingerprint of the tokenizer."""
    levels: int
    """First codebook levels of its tokens that are read."""
    seconds: float
    """Length of a sound; longer ones are heard piece by piece."""
    word: bool = False
    """A sound is one word: quiet before and after it is cut off, and its peak brought to 1."""

    def __post_init__(self) -> None:
        if self.levels < 1 or not 0.0 < self.seconds < float("inf"):
            raise ConfigError(f"a probe hears one level or more of sounds of some length, got {self}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeConfig:
    """Everything needed to rebuild the network; saved as JSON beside the weights."""

    kind: ProbeKind
    features: int
    """Numbers per position."""
    outputs: tuple[tuple[str, tuple[str, ...]], ...]
    """Attributes, each with its classes in the order of their numbers."""
    width: int = 64
    depth: int = 2
    """Blocks of the transformer; no other kind has any."""
    heads: int = 4
    queries: int = 4
    """Of the attentive probe."""
    dropout: float = 0.1
    reads: ReadsConfig | HearsConfig | None = None

    def __post_init__(self) -> None:
        sizes = (self.features, self.width, self.depth, self.heads, self.queries)
        if min(sizes) < 1 or self.width % (2 * self.heads) or not 0.0 <= self.dropout < 1.0:
            raise ConfigError(
                f"a probe needs positive sizes, an even width per head and dropout in 0..1, got {self.features} "
                f"features, width {self.width}, depth {self.depth}, {self.heads} heads, {self.queries} queries, "
                f"dropout {self.dropout}"
            )
        names = [name for name, _ in self.outputs]
        if not names or len(set(names)) < len(names) or not all(map(str.isidentifier, names)):
            raise ConfigError(f"a probe needs attributes with different plain names, got {names}")
        for name, classes in self.outputs:
            if len(set(classes)) < max(2, len(classes)):
                raise ConfigError(f"attribute {name} needs two different classes or more, got {classes}")


class Probe(nn.Module):
    """Called with features it gives the logits of every attribute."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: ProbeConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.features))
        self.register_buffer("scale", torch.ones(config.features))
        pooled = config.features
        if config.kind != "linear":
            self.stem = nn.Linear(MERGE**2 * config.features, config.width)
            self.whereabouts = nn.Linear(6 * FOURIER, config.width)
            self.drop = nn.Dropout(config.dropout)
            self.norm = nn.LayerNorm(config.width)
            pooled = config.width
        if config.kind == "attentive":
            self.queries = nn.Parameter(STD * torch.randn(config.queries, config.width))
            self.key_value = nn.Linear(config.width, 2 * config.width)
            pooled = config.queries * config.width
        if config.kind == "transformer":
            # Without dropout inside: on CPUs that takes attention off its fast path and triples the time of a step.
            self.blocks = nn.ModuleList(
                TransformerBlock(config.width, config.heads, post_norm=False, normalised=True, dropout=0.0)
                for _ in range(config.depth)
            )
            self.hidden_mark = nn.Parameter(STD * torch.randn(config.width))
        self.readers = nn.ModuleDict({name: nn.Linear(pooled, len(classes)) for name, classes in config.outputs})
        initialise(self)
        if config.kind != "linear":
            # Standardised features then arrive with unit variance, however many there are.
            nn.init.normal_(self.stem.weight, std=self.stem.in_features**-0.5)

    @torch.no_grad()
    def standardise(self, features_NLC: Tensor) -> None:
        """Take mean and spread of every feature from examples, so that inputs of any kind arrive alike."""
        flat_NC = features_NLC.flatten(0, 1).float()
        self.mean.copy_(flat_NC.mean(dim=0))
        self.scale.copy_(flat_NC.std(dim=0).clamp(min=SMALLEST_SCALE))

    def forward(self, features_BLC: Tensor, grid: tuple[int, int, int]) -> dict[str, Tensor]:
        """Logits [B, classes] of every attribute, float32.

        Args:
            features_BLC: positions in t, h, w order.
            grid: t, h and w; their product is L.

        Raises:
            ShapeError: features of another width, or positions that are not those of the grid.
        """
        if self.config.kind == "linear":
            self._check(features_BLC, grid)
            pooled_BD = (features_BLC.mean(dim=1) - self.mean) / self.scale
        elif self.config.kind == "attentive":
            pooled_BD = self._attended(self.norm(F.gelu(self._placed(features_BLC, grid))))
        else:
            pooled_BD = self.drop(self.hidden(features_BLC, grid).mean(dim=1))
        return {name: reader(pooled_BD).float() for name, reader in self.readers.items()}

    def hidden(self, features_BLC: Tensor, grid: tuple[int, int, int], hide_BL: Tensor | None = None) -> Tensor:
        """What the transformer makes of every cell [B, cells, D]; of those in hide_BL it sees the place alone."""
        assert self.config.kind == "transformer", "only the transformer has hidden states"
        hidden_BLD = self._placed(features_BLC, grid, hide_BL)
        angles_LJ = rotary_angles(
            grid_places(*cells_of(grid), features_BLC.device), self.config.width // self.config.heads
        )
        for block in self.blocks:
            hidden_BLD = block(hidden_BLD, angles_LJ)
        return self.norm(hidden_BLD)

    def _check(self, features_BLC: Tensor, grid: tuple[int, int, int]) -> None:
        wanted = (grid[0] * grid[1] * grid[2], self.config.features)
        if features_BLC.ndim != 3 or features_BLC.shape[1:] != wanted:
            raise ShapeError(
                f"this probe needs features (B, {wanted[0]}, {wanted[1]}) for a grid of "
                f"{'x'.join(map(str, grid))} positions, got {tuple(features_BLC.shape)}"
            )

    def _placed(self, features_BLC: Tensor, grid: tuple[int, int, int], hide_BL: Tensor | None = None) -> Tensor:
        self._check(features_BLC, grid)
        standard_BLC = (features_BLC - self.mean).div_(self.scale)
        hidden_BLD = self.stem(merged(standard_BLC, grid))
        if hide_BL is not None:
            hidden_BLD = torch.where(hide_BL[..., None], self.hidden_mark.to(hidden_BLD.dtype), hidden_BLD)
        cells = cells_of(grid)
        shares_L3 = grid_shares(grid_places(*cells, features_BLC.device), cells)
        return self.drop(hidden_BLD + self.whereabouts(waves(shares_L3)))

    def _attended(self, hidden_BLD: Tensor) -> Tensor:
        """What every query finds, side by side [B, queries x D]."""
        heads = self.config.heads
        keys, values = rearrange(self.key_value(hidden_BLD), "b l (two n k) -> two b n l k", two=2, n=heads)
        queries = rearrange(self.queries, "q (n k) -> 1 n q k", n=heads).expand(len(hidden_BLD), -1, -1, -1)
        mixed = F.scaled_dot_product_attention(queries.to(values.dtype), keys, values)
        return self.drop(rearrange(mixed, "b n q k -> b (q n k)"))


def cells_of(grid: tuple[int, int, int]) -> tuple[int, int, int]:
    """The grid of cells over a grid of positions."""
    return grid[0], -(-grid[1] // MERGE), -(-grid[2] // MERGE)


def merged(values_BLC: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Positions of every cell side by side [B, cells, MERGE^2 C]; what a cell reaches over the edge is zero."""
    time, height, width = grid
    grid_BthwC = rearrange(values_BLC, "b (t h w) c -> b t h w c", t=time, h=height)
    padded_BthwC = F.pad(grid_BthwC, (0, 0, 0, -width % MERGE, 0, -height % MERGE))
    return rearrange(padded_BthwC, "b t (h y) (w x) c -> b (t h w) (y x c)", y=MERGE, x=MERGE)


class HiddenTokenReader(nn.Module):
    """A transformer probe with heads that predict the ids of hidden cells; only for training before fine-tuning."""

    def __init__(self, probe: Probe, factors: tuple[int, ...], digits: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.probe = probe
        width = probe.config.width
        self.spread = nn.Linear(width, MERGE**2 * width)
        self.tokens = FactoredTokens(factors, width, chained=True, digits=digits)

    def forward(self, features_BLC: Tensor, grid: tuple[int, int, int], ids_BL: Tensor, hide_BL: Tensor) -> Tensor:
        """Mean cross-entropy in nats of the ids of hidden cells, over all factors together.

        Args:
            ids_BL: of every position; rows and columns of the grid must be whole cells.
            hide_BL: bool, of every cell; at least one must be hidden.
        """
        ids_MY = merged(ids_BL[..., None], grid)[hide_BL]
        hidden_MD = self.spread(self.probe.hidden(features_BLC, grid, hide_BL)[hide_BL])
        hidden_MYD = rearrange(hidden_MD, "m (y d) -> m y d", y=MERGE**2)
        factors_MYF, total = split_ids(ids_MY, self.tokens.sizes), hidden_MD.new_zeros((), dtype=torch.float32)
        for factor in range(len(self.tokens.sizes)):
            logits_MYV = self.tokens.logits(hidden_MYD, factor, factors_MYF)
            total = total + F.cross_entropy(logits_MYV.flatten(0, 1), factors_MYF[..., factor].flatten())
        return total

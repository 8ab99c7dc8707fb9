"""A small network that says what moves in a clip, and how: its penultimate vector is a feature for distances.

    pixels_BCTHW --size 64, windows of 17 frames--> stem --stages of (space, time) convolutions--> mean and maximum
        --> features_BD --> one linear head per attribute (action, shape, colour, ..., frame order)

Time is mixed in the first layer and in every block after it, and one head tells clips that run from clips whose frames
were shuffled, repeated or exchanged: features of single frames cannot see that, these must.

Source: factorised space and time convolutions, Tran et al. 2018, arXiv 1711.11248; order of frames as a task, Misra et
al. 2016, arXiv 1603.08561.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinolex.errors import ConfigError, ShapeError
from kinolex.layers.conv3d import SpaceToDepth
from kinolex.layers.norm import PositionNorm, norm_silu

SIDE = 64
"""Height and width, in pixels, that the network sees; other sizes are scaled to it."""
MIN_FRAMES, MAX_FRAMES = 4, 17
"""Longer clips are seen in windows of MAX_FRAMES, whose features are averaged."""
FOLD = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipFeaturesConfig:
    """Everything needed to rebuild the network; saved as JSON beside the weights."""

    widths: tuple[int, ...]
    """Channels of each stage; every stage after the first halves rows, columns and frames."""
    blocks: tuple[int, ...]
    """Residual blocks of each stage."""
    dim: int
    """Width of the feature vector."""
    heads: tuple[tuple[str, int], ...]
    """Name and number of outputs of each head: classes, or components of a vector."""

    def __post_init__(self) -> None:
        if not self.widths or len(self.widths) != len(self.blocks) or min(*self.widths, *self.blocks, self.dim) < 1:
            raise ConfigError(f"every stage needs a width and a number of blocks above 0, and dim too, got {self}")
        names = [name for name, _ in self.heads]
        if len(set(names)) != len(names) or not all(name.isidentifier() and count > 0 for name, count in self.heads):
            raise ConfigError(f"heads need different plain names and at least one output each, got {self.heads}")


class Block(nn.Module):
    """Residual: a convolution over space, then one over time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = PositionNorm(channels)
        self.space = nn.Conv3d(channels, channels, (1, 3, 3), padding=(0, 1, 1))
        self.time = nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return x_BCTHW + self.time(F.silu(self.space(norm_silu(self.norm, x_BCTHW))))


class ClipFeatures(nn.Module):
    """Called with pixels it gives features; `heads` reads attributes from them."""

    def __init__(self, config: ClipFeaturesConfig) -> None:
        super().__init__()
        self.config = config
        self.fold = SpaceToDepth(FOLD)
        self.stem = nn.Conv3d(3 * FOLD**2, config.widths[0], 3, stride=2, padding=1)
        layers: list[nn.Module] = []
        for index, (width, count) in enumerate(zip(config.widths, config.blocks, strict=True)):
            if index:
                before = config.widths[index - 1]
                layers += [PositionNorm(before), nn.Conv3d(before, width, 3, stride=2, padding=1)]
            layers += [Block(width) for _ in range(count)]
        self.stages = nn.Sequential(*layers)
        self.norm = PositionNorm(config.widths[-1])
        self.project = nn.Linear(2 * config.widths[-1], config.dim)
        self.readers = nn.ModuleDict({name: nn.Linear(config.dim, count) for name, count in config.heads})

    def forward(self, pixels_BCTHW: Tensor) -> Tensor:
        """Features of clips of any size.

        Args:
            pixels_BCTHW: RGB in [-1, 1], at least 4 frames; the network was trained at 24 frames per second.

        Returns:
            features_BD, float32.

        Raises:
            ShapeError: another rank or number of channels, or too few frames.
        """
        if pixels_BCTHW.ndim != 5 or pixels_BCTHW.shape[1] != 3 or pixels_BCTHW.shape[2] < MIN_FRAMES:
            raise ShapeError(
                f"clip features need pixels (B, 3, T, H, W) of at least {MIN_FRAMES} frames, "
                f"got {tuple(pixels_BCTHW.shape)}"
            )
        small_BCTHW = _scaled(pixels_BCTHW)
        frames = small_BCTHW.shape[2]
        if frames <= MAX_FRAMES:
            return self._window(small_BCTHW)
        count = math.ceil(frames / MAX_FRAMES)
        starts = [round(index * (frames - MAX_FRAMES) / (count - 1)) for index in range(count)]
        windows = [self._window(small_BCTHW[:, :, start : start + MAX_FRAMES]) for start in starts]
        return torch.stack(windows).mean(dim=0)

    def heads(self, features_BD: Tensor) -> dict[str, Tensor]:
        """What each head says of features: (B, outputs) of the config."""
        return {name: reader(features_BD) for name, reader in self.readers.items()}

    def _window(self, pixels_BCTHW: Tensor) -> Tensor:
        folded_BCTHW = self.fold(pixels_BCTHW).contiguous(memory_format=torch.channels_last_3d)
        x_BCTHW = norm_silu(self.norm, self.stages(self.stem(folded_BCTHW)))
        pooled_BD = torch.cat([x_BCTHW.mean(dim=(2, 3, 4)), x_BCTHW.amax(dim=(2, 3, 4))], dim=1)
        return self.project(pooled_BD).float()


def _scaled(pixels_BCTHW: Tensor) -> Tensor:
    """To SIDE x SIDE: by areas where it shrinks, between pixels where it grows."""
    frames, height, width = pixels_BCTHW.shape[2:]
    if (height, width) == (SIDE, SIDE):
        return pixels_BCTHW
    pixels_NCHW = rearrange(pixels_BCTHW, "b c t h w -> (b t) c h w")
    if min(height, width) >= SIDE:
        pixels_NCHW = F.interpolate(pixels_NCHW, (SIDE, SIDE), mode="area")
    else:
        pixels_NCHW = F.interpolate(pixels_NCHW, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
    return rearrange(pixels_NCHW, "(b t) c h w -> b c t h w", t=frames)

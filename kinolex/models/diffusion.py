"""The baseline that turns noise into latents: flow matching over the same grids, tasks and words.

    [time, task, words ...] [latents at time t | condition latents | known]  --bidirectional transformer--> velocity

Latents are the values, in [-1, 1] a channel, that ids of finite scalar or lookup-free quantization stand for, scaled to
unit variance. On the way from noise at time 0 to data at time 1 every latent moves on a straight line; the network
predicts its velocity. The end of the way is rounded to ids and decoded as any other tokens.

Source: flow matching, arXiv 2210.02747; rectified flow: 2209.03003; times drawn logit-normal: 2403.03206.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinolex.layers.attention import TransformerBlock, rotary_angles
from kinolex.masks import HIDDEN
from kinolex.models.factors import join_ids, split_ids
from kinolex.models.places import FOURIER, STD, Prefix, check_sizes, grid_places, grid_shares, initialise, waves

FASTEST = 1000.0
"""Radians that the fastest of the waves that tell the time turns from 0 to 1; the slowest turns about one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffusionConfig:
    """Everything needed to rebuild the network; other fields mean what they mean in MaskedConfig."""

    tokenizer: str
    """Fingerprint of the tokenizer whose latents these are."""
    factors: tuple[int, ...]
    """Levels of every latent channel; their product is the tokenizer's vocabulary."""
    width: int
    depth: int
    heads: int
    tasks: tuple[str, ...]
    words: tuple[str, ...] = ()
    max_words: int = 1
    latent_frames: int
    marks_first: bool = True
    dropout: float = 0.0
    times: Literal["logit-normal", "uniform"] = "logit-normal"
    """How times are drawn in training."""

    def __post_init__(self) -> None:
        check_sizes("a diffusion transformer", self)


class DiffusionTransformer(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        width, channels = config.width, len(config.factors)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        # Latents, condition latents and whether there are any.
        self.read = nn.Sequential(nn.Linear(2 * channels + 1, width), nn.GELU(), nn.Linear(width, width))
        self.time = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.prefix = Prefix(config, extra=1)
        self.first_mark = nn.Parameter(STD * torch.randn(width)) if config.marks_first else None
        self.whereabouts = nn.Linear(6 * FOURIER, width)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, config.heads, post_norm=False, normalised=True, dropout=config.dropout)
            for _ in range(config.depth)
        )
        self.norm_out, self.dense, self.norm = nn.LayerNorm(width), nn.Linear(width, width), nn.LayerNorm(width)
        self.velocity = nn.Linear(width, channels)
        initialise(self)
        nn.init.zeros_(self.velocity.weight)

    @torch.no_grad()
    def measure_(self, ids: Tensor) -> None:
        """From now on scale latents so that those of these ids have mean 0 and variance 1 a channel."""
        values_NC = latents_from_ids(ids, self.config.factors).flatten(0, -2).double()
        self.mean.copy_(values_NC.mean(dim=0))
        # A channel that never changes is left alone.
        deviation_C = values_NC.std(dim=0, correction=0)
        self.std.copy_(torch.where(deviation_C > 0, deviation_C, 1.0))

    def latents(self, ids_Bthw: Tensor) -> Tensor:
        """Scaled latents [B, L, C] of ids, in t, h, w order; 0, the mean, where HIDDEN."""
        ids_BL = rearrange(ids_Bthw, "b t h w -> b (t h w)")
        scaled_BLC = (latents_from_ids(ids_BL, self.config.factors) - self.mean) / self.std
        return scaled_BLC.masked_fill((ids_BL == HIDDEN)[..., None], 0.0)

    def ids(self, latents_BLC: Tensor) -> Tensor:
        """Ids [B, L] that scaled latents are nearest to."""
        return ids_from_latents(latents_BLC.float() * self.std + self.mean, self.config.factors)

    def forward(
        self,
        latents_BLC: Tensor,
        times_B: Tensor,
        condition_Bthw: Tensor,
        tasks_B: Tensor,
        words_BP: Tensor,
        first_B: Tensor,
    ) -> Tensor:
        """Velocity [B, L, C] of scaled latents, float32.

        Args:
            latents_BLC: (1 - t) noise + t data.
            times_B: t, from 0 (noise) to 1 (data).
            condition_Bthw: int64 ids of the tokenizer, HIDDEN where nothing is known.
            tasks_B: index into config.tasks.
            words_BP: index into config.words plus one, 0 where nothing is said; P is config.max_words.
            first_B: bool, whether the grid begins a stream of a causal tokenizer.
        """
        grid = (condition_Bthw.shape[1], condition_Bthw.shape[2], condition_Bthw.shape[3])
        known_BL1 = (condition_Bthw != HIDDEN).flatten(1)[..., None].to(latents_BLC.dtype)
        given_BLC = self.latents(condition_Bthw).to(latents_BLC.dtype)
        tokens_BLD = self.read(torch.cat([latents_BLC, given_BLC, known_BL1], dim=-1))
        places_L3 = grid_places(*grid, condition_Bthw.device)
        time_B1D = self.time(time_waves(times_B, self.config.width).to(latents_BLC.dtype))[:, None]
        tokens_BLD = tokens_BLD + time_B1D + self.whereabouts(waves(grid_shares(places_L3, grid)).to(time_B1D.dtype))
        if self.first_mark is not None:
            in_first_L = places_L3[:, 0] == 0
            tokens_BLD = tokens_BLD + (first_B[:, None] & in_first_L)[..., None] * self.first_mark
        hidden_BLD = torch.cat([self.prefix(tasks_B, words_BP, time_B1D), tokens_BLD], dim=1)
        head_width = self.config.width // self.config.heads
        angles_LJ = rotary_angles(torch.cat([self.prefix.places(), places_L3]), head_width)
        for block in self.blocks:
            hidden_BLD = block(hidden_BLD, angles_LJ)
        features_BLD = self.dense(self.norm_out(hidden_BLD[:, self.prefix.length :]))
        return self.velocity(self.norm(F.gelu(features_BLD))).float()


def latents_from_ids(ids: Tensor, levels: tuple[int, ...]) -> Tensor:
    """Values in [-1, 1], float32, channels last, that ids [...] of levels mean to the decoder; HIDDEN means nothing."""
    top_C = torch.tensor(levels, device=ids.device) - 1
    return split_ids(ids, levels).float() * 2.0 / top_C.float() - 1.0


def ids_from_latents(latents_C: Tensor, levels: tuple[int, ...]) -> Tensor:
    """Ids [...] of the nearest levels of values [..., C]."""
    top_C = (torch.tensor(levels, device=latents_C.device) - 1).float()
    digits_C = ((latents_C.float() + 1.0) * top_C / 2.0).round()
    return join_ids(digits_C.clamp(min=torch.zeros_like(top_C), max=top_C).long(), levels)


def time_waves(times_B: Tensor, width: int) -> Tensor:
    """Sines and cosines [B, width] of times in 0..1, float32."""
    count = width // 2
    rates_K = FASTEST ** (1 - torch.arange(count, device=times_B.device) / count)
    turns_BK = times_B.float()[:, None] * rates_K
    return torch.cat([turns_BK.sin(), turns_BK.cos()], dim=1)


def draw_times(config: DiffusionConfig, batch: int) -> Tensor:
    """Times [B] to train at, from torch's own generator."""
    return torch.rand(batch) if config.times == "uniform" else torch.randn(batch).sigmoid()


def straight(noise_BLC: Tensor, data_BLC: Tensor, times_B: Tensor) -> Tensor:
    """Latents on the straight way from noise to data."""
    return torch.lerp(noise_BLC, data_BLC, times_B[:, None, None].to(data_BLC.dtype))

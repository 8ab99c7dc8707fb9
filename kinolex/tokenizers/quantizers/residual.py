"""Residual quantization: each level quantizes what the levels before it left over; any prefix of levels decodes.

    z -> q0 -> z - q0 -> q1 -> ...          latents = s0*q0 + s1*q1 + ... up to the last level kept

Bounded quantizers (LFQ, FSQ) see the remainder divided by a scale that shrinks from level to level, so that a later
level refines instead of repeating the first.

Source: SoundStream, Zeghidour et al. 2021, arXiv 2107.03312 (quantizer dropout); papers.md section 6.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from kinolex.errors import ConfigError, ShapeError
from kinolex.tokenizers.quantizers.base import Quantized, check_ids, check_latents
from kinolex.tokenizers.quantizers.fsq import FiniteScalarQuantizer, FSQConfig
from kinolex.tokenizers.quantizers.lfq import LFQConfig, LookupFreeQuantizer
from kinolex.tokenizers.quantizers.vq import VectorQuantizer, VQConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class ResidualConfig:
    level: VQConfig | LFQConfig | FSQConfig
    """Quantizer of every level; levels do not share weights."""
    num_levels: int
    scale: float = 0.5
    """Range of a level over the range of the level before; used by bounded quantizers, learned codebooks need none."""
    dropout: bool = True
    """In training keep only the first n levels, n drawn per sample, so that every prefix decodes well."""

    def __post_init__(self) -> None:
        if self.num_levels < 1 or not 0 < self.scale <= 1:
            raise ConfigError(f"need num_levels >= 1 and 0 < scale <= 1, got {self.num_levels} and {self.scale}")

    @property
    def vocab_size(self) -> int:
        return self.level.vocab_size


class ResidualQuantizer(nn.Module):
    """num_levels quantizers in a row. All levels give ids; the latents keep the levels that dropout kept."""

    def __init__(self, config: ResidualConfig) -> None:
        super().__init__()
        self.config = config
        levels = [_build_level(config.level) for _ in range(config.num_levels)]
        self.levels = nn.ModuleList(levels)
        self.latent_dim: int = levels[0].latent_dim
        self.vocab_size: int = levels[0].vocab_size
        self.num_levels = config.num_levels
        bounded = not isinstance(config.level, VQConfig)
        self.scales = [config.scale**index if bounded else 1.0 for index in range(config.num_levels)]

    def forward(self, latents_BDthw: Tensor, *, keep: int | None = None) -> Quantized:
        """Quantize with all levels and reconstruct from the first `keep` (all, or a random number each in training)."""
        check_latents(latents_BDthw, self.latent_dim)
        if keep is not None and not 1 <= keep <= self.num_levels:
            raise ShapeError(f"keep must be in 1..{self.num_levels}, got {keep}")
        kept_B = torch.full((len(latents_BDthw),), self.num_levels if keep is None else keep)
        if keep is None and self.training and self.config.dropout:
            kept_B = torch.randint(1, self.num_levels + 1, (len(latents_BDthw),))
        shares_Q = [float((kept_B > index).float().mean()) for index in range(self.num_levels)]
        kept_B1111 = rearrange(kept_B, "b -> b 1 1 1 1").to(latents_BDthw.device)
        with torch.autocast(latents_BDthw.device.type, enabled=False):
            left_BDthw = latents_BDthw.float()
            if isinstance(self.config.level, FSQConfig):
                # Levels work in the bounded space; tanh inside a level is undone below so that remainders are exact.
                left_BDthw = torch.tanh(left_BDthw)
            total_BDthw = torch.zeros_like(left_BDthw)
            ids, losses = [], {}
            for index, (level, scale) in enumerate(zip(self.levels, self.scales, strict=True)):
                quantized = level(self._enter(left_BDthw / scale))
                ids.append(quantized.ids_BQthw)
                if shares_Q[index] > 0:
                    taken_BDthw = quantized.latents_BDthw * scale
                    if shares_Q[index] < 1:
                        taken_BDthw = taken_BDthw * (kept_B1111 > index)
                    total_BDthw = total_BDthw + taken_BDthw
                    for name, loss in quantized.losses.items():
                        losses[name] = losses.get(name, 0.0) + loss * (shares_Q[index] / sum(shares_Q))
                left_BDthw = left_BDthw - quantized.latents_BDthw.detach() * scale
        return Quantized(total_BDthw.to(latents_BDthw.dtype), torch.cat(ids, dim=1), losses)

    def _enter(self, left_BDthw: Tensor) -> Tensor:
        if not isinstance(self.config.level, FSQConfig):
            return left_BDthw
        return torch.atanh(left_BDthw.clamp(-0.9999, 0.9999))

    def latents_from_ids(self, ids_BQthw: Tensor) -> Tensor:
        """Sum of the first Q levels, float32; Q may be smaller than num_levels."""
        check_ids(ids_BQthw, self.vocab_size, self.num_levels)
        total_BDthw = torch.zeros(())
        for level, scale, ids_B1thw in zip(self.levels, self.scales, ids_BQthw.split(1, dim=1), strict=False):
            assert isinstance(level, VectorQuantizer | LookupFreeQuantizer | FiniteScalarQuantizer)
            total_BDthw = total_BDthw + level.latents_from_ids(ids_B1thw) * scale
        return total_BDthw


def _build_level(
    config: VQConfig | LFQConfig | FSQConfig,
) -> VectorQuantizer | LookupFreeQuantizer | FiniteScalarQuantizer:
    match config:
        case VQConfig():
            return VectorQuantizer(config)
        case LFQConfig():
            return LookupFreeQuantizer(config)
        case FSQConfig():
            return FiniteScalarQuantizer(config)

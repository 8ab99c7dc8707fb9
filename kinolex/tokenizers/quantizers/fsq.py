"""Finite scalar quantization: every latent channel is rounded to one of a few levels; no codebook, no losses.

    latents --tanh--> (-1, 1) --scale--> [0, levels) --round--> digits --mixed radix--> id

Source: Mentzer et al. 2023, arXiv 2309.15505.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from kinolex.errors import ConfigError
from kinolex.tokenizers.quantizers.base import Quantized, check_ids, check_latents, straight_through

EDGE = 1.001
"""The bounded range reaches slightly past the outermost levels, so that both stay reachable in bfloat16."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FSQConfig:
    levels: tuple[int, ...]
    """Values per latent channel; their product is the vocabulary. (8, 8, 8, 8, 8, 8) is 18 bits."""

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 2 or math.prod(self.levels) > 2**48:
            raise ConfigError(f"levels must each be at least 2 with a product of at most 2**48, got {self.levels}")

    @property
    def vocab_size(self) -> int:
        return math.prod(self.levels)


class FiniteScalarQuantizer(nn.Module):
    """Rounds each channel to `levels` values spread evenly over [-1, 1]."""

    levels: Tensor
    radix: Tensor

    def __init__(self, config: FSQConfig) -> None:
        super().__init__()
        self.config = config
        self.latent_dim, self.vocab_size, self.num_levels = len(config.levels), config.vocab_size, 1
        radix = [math.prod(config.levels[:index]) for index in range(len(config.levels))]
        for name, values in (("levels", config.levels), ("radix", radix)):
            self.register_buffer(name, rearrange(torch.tensor(values), "d -> 1 d 1 1 1"), persistent=False)

    def forward(self, latents_BDthw: Tensor) -> Quantized:
        """ids_BQthw has Q = 1; there are no losses."""
        check_latents(latents_BDthw, self.latent_dim)
        with torch.autocast(latents_BDthw.device.type, enabled=False):
            top = (self.levels - 1).float()
            place_BDthw = self._bounded(latents_BDthw)
            digits_BDthw = place_BDthw.round().clamp(min=torch.zeros_like(top), max=top)
            values_BDthw = straight_through(place_BDthw, digits_BDthw) * 2.0 / top - 1.0
        return Quantized(values_BDthw.to(latents_BDthw.dtype), self._ids(digits_BDthw), {})

    def at_digits(self, digits_BDthw: Tensor) -> Quantized:
        """What stands for these digits, each an integer within [0, levels - 1]; float32, without gradient."""
        ids_B1thw = self._ids(digits_BDthw)
        return Quantized(self.latents_from_ids(ids_B1thw), ids_B1thw, {})

    def digits(self, values_BDhw: Tensor) -> Tensor:
        """int64 digits of quantized values in [-1, 1], of the first channels as many as are given."""
        top = (self.levels - 1)[:, : values_BDhw.shape[1], 0]
        return ((values_BDhw.float() + 1.0) * top / 2.0).round().long()

    def latents_at(self, digits_Bhw: Tensor, *, digit: int) -> Tensor:
        """Latents [B, 1, h, w] that the quantizer rounds to these values of one digit, float32."""
        top = float(self.levels[0, digit] - 1)
        return torch.atanh((digits_Bhw.float() * 2.0 / top - 1.0) / EDGE).unsqueeze(1)

    def _ids(self, digits_BDthw: Tensor) -> Tensor:
        return (digits_BDthw.long() * self.radix).sum(dim=1, keepdim=True)

    def places(self, latents_BDthw: Tensor) -> Tensor:
        """Before rounding, within [0, levels - 1], float32: rounded they are the digits of the ids."""
        check_latents(latents_BDthw, self.latent_dim)
        with torch.autocast(latents_BDthw.device.type, enabled=False):
            top = (self.levels - 1).float()
            return self._bounded(latents_BDthw).clamp(min=torch.zeros_like(top), max=top)

    def _bounded(self, latents_BDthw: Tensor) -> Tensor:
        # From (-1, 1) to (-edge, top + edge): an odd or even number of levels alike lies symmetric around 0.
        return (torch.tanh(latents_BDthw.float()) * EDGE + 1.0) * (self.levels - 1).float() / 2.0

    def latents_from_ids(self, ids_BQthw: Tensor) -> Tensor:
        """Values in [-1, 1], float32. Raises TokenError for ids outside the vocabulary."""
        check_ids(ids_BQthw, self.vocab_size, self.num_levels)
        digits_BDthw = (ids_BQthw // self.radix) % self.levels
        return digits_BDthw.float() * 2.0 / (self.levels - 1).float() - 1.0

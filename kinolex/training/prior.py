"""The float twin of a codec's prior: trained in floating point, quantized as it will be, exported as integers.

    digits --> the layers of codec.network, weights and activations rounded --> bits of every digit

The twin rounds its weights to int8 times a power of two and its activations to 1/32 in every step (gradients pass
straight through), so what is exported computes what was trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinolex.codec.network import EXACT, FRAMES_BACK, GROUPS, ONE, STRIDE, TOP, IntegerLayer, NetworkConfig
from kinolex.tokenizers.quantizers.base import straight_through

MAX_SHIFT = 14


class RoundedLayer(nn.Module):
    """The float twin of codec.network.IntegerLayer; weight [outputs, inputs, side, side] as convolutions hold it."""

    def __init__(self, taps: int, inputs: int, outputs: int) -> None:
        super().__init__()
        side = math.isqrt(taps)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, side, side) * math.sqrt(2.0 / (inputs * taps)))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def exponent_O(self) -> Tensor:
        """Bits after the point of every output's weights: as many as int8 and the exactness bound allow."""
        with torch.no_grad():
            flat_OI = self.weight.detach().float().flatten(1)
            fits_int8 = torch.log2(TOP / flat_OI.abs().amax(dim=1).clamp(min=2.0**-MAX_SHIFT)).floor()
            reach_O = (flat_OI.abs().sum(dim=1) + flat_OI.shape[1] * 2.0**-7) * TOP + self.bias.abs() * ONE
            fits_exact = torch.log2(0.9 * EXACT / reach_O).floor()
            return torch.minimum(fits_int8, fits_exact).clamp(0, MAX_SHIFT)

    def integer_weight(self) -> tuple[Tensor, Tensor]:
        """(rounded weight in -127..127, exponent_O), without gradient."""
        exponent_O = self.exponent_O()
        scale = torch.pow(2.0, exponent_O)[:, None, None, None]
        return (self.weight.detach() * scale).round().clamp(-TOP, TOP), exponent_O

    def forward(self, inputs_BIHW: Tensor, stride: int = 1, padding: int | None = None) -> Tensor:
        integers, exponent_O = self.integer_weight()
        rounded = integers * torch.pow(2.0, -exponent_O)[:, None, None, None]
        weight = straight_through(self.weight, rounded)
        padding = self.weight.shape[-1] // 2 if padding is None else padding
        return F.conv2d(inputs_BIHW, weight, self.bias, stride=stride, padding=padding)

    @torch.no_grad()
    def follow_(self, layer: IntegerLayer, extra_shift: int) -> None:
        """Become what was exported, up to rounding of the bias."""
        shift_O = -torch.log2(layer.scale_O)
        exponent_O = shift_O - extra_shift
        scale_O = torch.pow(2.0, exponent_O)
        weight = rearrange(layer.weight_KIO, "(y x) i o -> o i y x", y=self.weight.shape[-1])
        self.weight.copy_(weight / scale_O[:, None, None, None])
        self.bias.copy_((layer.bias_O - torch.pow(2.0, shift_O - 1).floor()) / (ONE * scale_O))

    def export(self, extra_shift: int) -> dict[str, Tensor]:
        """weight, bias and shift as codec.network.integer_layers wants them."""
        integers, exponent_O = self.integer_weight()
        shift_O = exponent_O + extra_shift
        # Adding half of the divisor turns the floor of the integer network into rounding.
        bias_O = (self.bias.detach() * ONE * torch.pow(2.0, exponent_O)).round() + torch.pow(2.0, shift_O - 1).floor()
        return {
            "weight": rearrange(integers, "o i y x -> (y x) i o").to(torch.int8).contiguous(),
            "bias": bias_O.to(torch.int32),
            "shift": shift_O.to(torch.uint8),
        }


def rounded_activation(sums: Tensor) -> Tensor:
    """Clamp to 0..TOP / ONE and round to 1 / ONE."""
    clamped = sums.clamp(0.0, TOP / ONE)
    return straight_through(clamped, (clamped * ONE).round() / ONE)


class PriorTwin(nn.Module):
    """What codec.network computes, in floating point, for whole batches of latent frames."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleDict(
            {name.replace(".", "_"): RoundedLayer(*shape) for name, shape in config.layer_shapes().items()}
        )

    def bits(self, digits_BDhw: Tensor, previous_BFhw: Tensor) -> Tensor:
        """Bits of every digit.

        Args:
            digits_BDhw: int64 digits of latent frames.
            previous_BFhw: one-hot of the FRAMES_BACK frames before each, nearest first; zeros where there is none.

        Returns:
            [B, D, h, w], float32.
        """
        levels, current_BPhw = self.config.levels, one_hot_BPhw(digits_BDhw, self.config.levels, previous_BFhw.dtype)
        trunk = previous_BFhw
        for index in range(self.config.trunk_layers):
            trunk = rounded_activation(self._layer(f"trunk.{index}")(trunk))
        known_B1hw = torch.zeros_like(current_BPhw[:, :1])
        mixed_BChw = torch.zeros_like(trunk)
        for quarter, (row, column) in ((q, place) for q, places in enumerate(GROUPS) for place in places):
            where = (..., slice(row, None, STRIDE), slice(column, None, STRIDE))
            if not known_B1hw[where].numel():
                continue
            context = rounded_activation(self._layer(f"context.{quarter}")(current_BPhw * known_B1hw))
            both = F.pad(torch.cat([trunk, context], dim=1), (1, 1, 1, 1))[:, :, row:, column:]
            mixed_BChw[where] = rounded_activation(self._layer(f"mix.{quarter}")(both, STRIDE, 0))
            known_B1hw[where] = 1.0
        bits = []
        for digit in range(len(levels)):
            first = sum(levels[:digit])
            before = torch.cat([current_BPhw[:, :first], torch.zeros_like(current_BPhw[:, first:])], dim=1)
            hidden = rounded_activation(self._layer(f"hidden.{digit}")(torch.cat([mixed_BChw, before], dim=1)))
            # Logits are base 2.
            nats_per_bit = math.log(2.0)
            logits = self._layer(f"logits.{digit}")(hidden).float() * nats_per_bit
            bits.append(F.cross_entropy(logits, digits_BDhw[:, digit], reduction="none") / nats_per_bit)
        return torch.stack(bits, dim=1)

    def _layer(self, name: str) -> RoundedLayer:
        layer = self.layers[name.replace(".", "_")]
        assert isinstance(layer, RoundedLayer)
        return layer

    def export(self) -> dict[str, Tensor]:
        """The integers, named as codec.network.integer_layers wants them."""
        tensors = {}
        for name in self.config.layer_shapes():
            parts = self._layer(name).export(_extra_shift(name))
            tensors.update({f"{name}.{part}": value for part, value in parts.items()})
        return tensors

    def follow_(self, layers: Mapping[str, IntegerLayer]) -> None:
        """Become the network whose integers these are, to go on from it."""
        for name, layer in layers.items():
            self._layer(name).follow_(layer, _extra_shift(name))


def _extra_shift(name: str) -> int:
    """Activations step by 1/32 of 1.0; logits by 1/16 of a bit, hence one bit more to drop."""
    return 1 if name.startswith("logits") else 0


def one_hot_BPhw(digits_BDhw: Tensor, levels: Sequence[int], dtype: torch.dtype) -> Tensor:
    """1 where a digit has a value: [B, sum(levels), h, w]."""
    planes = torch.zeros(digits_BDhw.shape[0], sum(levels), *digits_BDhw.shape[2:], dtype=dtype)
    first = torch.tensor([sum(levels[:digit]) for digit in range(len(levels))])
    return planes.scatter_(1, digits_BDhw + first[:, None, None], 1.0)


def previous_frames(digits_tDhw: Tensor, levels: Sequence[int], dtype: torch.dtype) -> Tensor:
    """One-hot of the frames before each of a chunk's frames: [t, FRAMES_BACK x sum(levels), h, w]."""
    planes = one_hot_BPhw(digits_tDhw, levels, dtype)
    before = torch.cat([torch.zeros_like(planes[:1])] * FRAMES_BACK + [planes])
    return torch.cat([before[FRAMES_BACK - back :][: len(planes)] for back in range(1, FRAMES_BACK + 1)], dim=1)

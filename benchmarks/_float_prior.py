"""The control of same_everywhere: a learned prior as an ordinary float network, coded in the same way.

    integers --weight x 2**-shift--> float weights --conv2d, linear, clamp--> logits --softmax--> frequencies, sum 2**24

It predicts what the integer network predicts, up to rounding, and walks through a latent frame in the same order.
Nothing is rounded on the way, so the last bits of its probabilities are whatever the machine makes of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from kinolex.codec.entropy import TOTAL, UNITS_PER_BIT
from kinolex.codec.network import FRAMES_BACK, GROUPS, ONE, STRIDE, TOP, NetworkConfig, one_hot
from kinolex.codec.priors import Choose, LearnedPrior, prior_fingerprint


class FloatPrior:
    """A kinolex.codec.priors.Prior whose frequencies depend on the machine.

    Args:
        config: of the network.
        tensors: the integers of the learned prior, see codec.network.integer_layers.
        device: where it is evaluated.
    """

    def __init__(self, config: NetworkConfig, tensors: Mapping[str, Tensor], *, device: str = "cpu") -> None:
        self.config, self.levels, self.device = config, config.levels, device
        self.fingerprint = prior_fingerprint(config, tensors)
        self._vocab_size = LearnedPrior(config, tensors).vocab_size
        self._layers = {name: _float_layer(name, tensors, device) for name in config.layer_shapes()}

    def vocab_size(self, num_levels: int) -> int:
        return self._vocab_size(num_levels)

    @torch.no_grad()
    def walk(self, history_thwD: Sequence[Tensor], size_hw: tuple[int, int], choose: Choose) -> Tensor:
        known_hw = torch.zeros(size_hw, device=self.device)
        digits_hwD = torch.zeros(*size_hw, len(self.levels), dtype=torch.int64, device=self.device)
        trunk = self._past(history_thwD, size_hw)
        for index in range(self.config.trunk_layers):
            trunk = self._conv(f"trunk.{index}", trunk)
        for quarter, (row, column) in ((q, place) for q, places in enumerate(GROUPS) for place in places):
            where = (slice(row, None, STRIDE), slice(column, None, STRIDE))
            if not known_hw[where].numel():
                continue
            context = self._conv(f"context.{quarter}", self._planes(digits_hwD) * known_hw)
            both = F.pad(torch.cat([trunk, context], dim=1), (1, 1, 1, 1))[:, :, row:, column:]
            mixed_1Cij = self._conv(f"mix.{quarter}", both, stride=STRIDE, padding=0)
            rows, columns = mixed_1Cij.shape[2:]
            inputs_NI = rearrange(mixed_1Cij, "1 c i j -> (i j) c")
            for digit, size in enumerate(self.levels):
                rest = inputs_NI.new_zeros(len(inputs_NI), sum(self.levels[digit:]))
                hidden_NC = self._head(f"hidden.{digit}", torch.cat([inputs_NI, rest], dim=1)).clamp(0.0, TOP / ONE)
                logits_NV = self._head(f"logits.{digit}", hidden_NC)
                values_N = choose(digit, where, softmax_frequencies_NV(logits_NV)).to(self.device)
                digits_hwD[where][:, :, digit] = values_N.view(rows, columns)
                inputs_NI = torch.cat([inputs_NI, F.one_hot(values_N, size).to(inputs_NI.dtype)], dim=1)
            known_hw[where] = 1.0
        return digits_hwD.cpu()

    def _conv(self, name: str, inputs: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
        weight, bias = self._layers[name]
        return F.conv2d(inputs, weight, bias, stride=stride, padding=padding).clamp(0.0, TOP / ONE)

    def _head(self, name: str, inputs_NI: Tensor) -> Tensor:
        weight, bias = self._layers[name]
        return F.linear(inputs_NI, weight[:, :, 0, 0], bias)

    def _planes(self, digits_hwD: Tensor) -> Tensor:
        return rearrange(one_hot(digits_hwD, self.levels) / ONE, "h w p -> 1 p h w")

    def _past(self, history_thwD: Sequence[Tensor], size_hw: tuple[int, int]) -> Tensor:
        none = torch.zeros(1, self.config.one_hot_channels, *size_hw, device=self.device)
        planes = [
            self._planes(history_thwD[-back].to(self.device)) if back <= len(history_thwD) else none
            for back in range(1, FRAMES_BACK + 1)
        ]
        return torch.cat(planes, dim=1)


def softmax_frequencies_NV(logits_NV: Tensor) -> Tensor:
    """Frequencies in the form of codec.entropy.frequencies_NV, but from float logits, whose unit is one bit."""
    probabilities_NV = torch.softmax(logits_NV.float() * math.log(2.0), dim=1)
    frequencies = 1 + (probabilities_NV.double() * (TOTAL - logits_NV.shape[1])).long()
    best_N1 = frequencies.argmax(dim=1, keepdim=True)
    return frequencies.scatter_add_(1, best_N1, TOTAL - frequencies.sum(dim=1, keepdim=True))


def _float_layer(name: str, tensors: Mapping[str, Tensor], device: str) -> tuple[Tensor, Tensor]:
    """Weight as convolutions hold it, and bias, where 1.0 is 1.0: activations are in 1/ONE, logits in 1/16 bit."""
    weight_KIO, bias_O, shift_O = (tensors[f"{name}.{part}"].double() for part in ("weight", "bias", "shift"))
    scale_O = torch.pow(2.0, -shift_O)
    unit = UNITS_PER_BIT if name.startswith("logits") else ONE
    weight = weight_KIO * scale_O * ONE / unit
    # Half of the divisor, which an exported bias holds to turn the integer network's floor into rounding, goes.
    bias_O = (bias_O - torch.pow(2.0, shift_O - 1).floor()) * scale_O / unit
    side = math.isqrt(len(weight_KIO))
    return rearrange(weight, "(y x) i o -> o i y x", y=side).float().to(device), bias_O.float().to(device)

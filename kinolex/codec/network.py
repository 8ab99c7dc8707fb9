"""The integer network behind a learned prior: exact on every machine, at the speed of a matrix product.

    previous two latent frames --one-hot--> trunk --+
    groups already known       --one-hot--> context +--> mix, at a group's positions --> heads, one per digit --> logits

Weights and activations are small integers held in float32. Every partial sum of a layer is an integer below 2**24 (a
bound over the weights proves it when they are loaded), so the sums are exact in any order, with or without fused
multiply-add, on any processor. docs/bitstream.md defines the same arithmetic in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from kinolex.errors import CheckpointError, ConfigError

ONE = 32
"""The integer that stands for 1.0 in activations."""
TOP = 127
"""Largest activation, just below 4.0; also the largest magnitude of a weight."""
EXACT = 2**24
"""Integers up to here are exact in float32."""
QUARTERS = ((0, 0), (1, 1), (0, 1), (1, 0))
"""(row, column) modulo 2 of the positions that share weights, in order."""
STRIDE = 4
GROUPS = tuple(
    tuple((row + 2 * block_row, column + 2 * block_column) for block_row, block_column in QUARTERS)
    for row, column in QUARTERS
)
"""(row, column) modulo STRIDE of the positions decoded together, in order, four groups to a quarter. Where tokens carry
something for blocks of 2x2, as motion, all but the first group of a quarter know it of blocks beside theirs."""
POSITIONS_AT_ONCE = 2**12
"""Windows that are laid out for one matrix product: copies of their inputs, nine times as large."""
FRAMES_BACK = 2
"""Previous latent frames that the trunk sees."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    levels: tuple[int, ...]
    """Values per digit of an id, least significant digit first; their product is the tokenizer's vocabulary."""
    channels: int = 128
    trunk_layers: int = 3

    def __post_init__(self) -> None:
        if not self.levels or not all(2 <= size <= 256 for size in self.levels) or len(self.levels) > 64:
            raise ConfigError(f"a prior needs 1 to 64 digits of 2 to 256 values each, got {self.levels}")
        if not 1 <= self.channels <= 1024 or not 1 <= self.trunk_layers <= 16:
            raise ConfigError(
                f"a prior needs 1 to 1024 channels and 1 to 16 trunk layers, "
                f"got {self.channels} and {self.trunk_layers}"
            )

    @property
    def one_hot_channels(self) -> int:
        return sum(self.levels)

    def layer_shapes(self) -> dict[str, tuple[int, int, int]]:
        """Name -> (taps, inputs, outputs); 9 taps are a 3x3 convolution, 1 tap is a matrix."""
        channels, one_hot = self.channels, self.one_hot_channels
        shapes = {"trunk.0": (9, FRAMES_BACK * one_hot, channels)}
        for index in range(1, self.trunk_layers):
            shapes[f"trunk.{index}"] = (9, channels, channels)
        for quarter in range(len(QUARTERS)):
            shapes[f"context.{quarter}"] = (9, one_hot, channels)
            shapes[f"mix.{quarter}"] = (9, 2 * channels, channels)
        for digit, size in enumerate(self.levels):
            shapes[f"hidden.{digit}"] = (1, channels + one_hot, channels)
            shapes[f"logits.{digit}"] = (1, channels, size)
        return shapes


@dataclass(frozen=True, slots=True)
class IntegerLayer:
    """output = floor((sum of weight x input + bias) / 2**shift), everything integers held in float32."""

    weight_KIO: Tensor
    bias_O: Tensor
    scale_O: Tensor
    """2**-shift."""

    def sums(self, inputs_hwI: Tensor) -> Tensor:
        """Of 9 taps, before clamping, with zeros beyond the border: [h, w, O]."""
        return self.scaled(self.totals(bordered(inputs_hwI)))

    def activations(self, inputs_hwI: Tensor) -> Tensor:
        """sums, clamped to 0..TOP."""
        return self.sums(inputs_hwI).clamp_(0, TOP)

    def totals(self, bordered_hwI: Tensor, offset: tuple[int, int] = (0, 0), stride: int = 1) -> Tensor:
        """Of 9 taps before the division, at every stride-th position from offset: [h', w', O]."""
        _, inputs, outputs = self.weight_KIO.shape
        corner_hwI = bordered_hwI[offset[0] :, offset[1] :]
        if min(corner_hwI.shape[:2]) < 3:
            return corner_hwI.new_zeros(0, 0, outputs)
        windows_hwIyx = corner_hwI.unfold(0, 3, stride).unfold(1, 3, stride)
        rows, columns = windows_hwIyx.shape[:2]
        parts = windows_hwIyx.permute(0, 1, 3, 4, 2).split(max(1, POSITIONS_AT_ONCE // columns))
        weight = self.weight_KIO.flatten(0, 1)
        found = [torch.addmm(self.bias_O, part.reshape(-1, 9 * inputs), weight) for part in parts]
        return torch.cat(found).view(rows, columns, outputs)

    def scaled(self, totals: Tensor) -> Tensor:
        """floor(totals / 2**shift), in a tensor of its own."""
        return (totals * self.scale_O).floor_()


class GrowingContext:
    """A layer of 9 taps over a grid that becomes known bit by bit: what is new is added to the totals so far.

    Args:
        layer: of 9 taps.
        known_hwI: inputs that are known at first, 0 elsewhere.
    """

    def __init__(self, layer: IntegerLayer, known_hwI: Tensor) -> None:
        self._layer = layer
        self._totals = bordered(layer.totals(bordered(known_hwI)))
        self._weight = rearrange(layer.weight_KIO, "k i o -> i (k o)")

    def add(self, inputs_ijI: Tensor, offset: tuple[int, int], stride: int) -> None:
        """Inputs at every stride-th position from offset, not known before."""
        (rows, columns, inputs), outputs = inputs_ijI.shape, self._totals.shape[2]
        parts = (inputs_ijI.reshape(-1, inputs) @ self._weight).view(rows, columns, 9, outputs)
        for tap in range(9):
            # An input stands under tap (y, x) of the output at (1 - y, 1 - x) from it; one more for the border.
            top, left = offset[0] + 2 - tap // 3, offset[1] + 2 - tap % 3
            there = self._totals[top : top + stride * rows : stride, left : left + stride * columns : stride]
            there += parts[:, :, tap]

    def activations(self) -> Tensor:
        """Of all positions, given what is known: [h, w, O]."""
        return self._layer.scaled(self._totals[1:-1, 1:-1]).clamp_(0, TOP)


class Heads:
    """The layers that give the digits of a group, one digit after the other, at N positions.

    mixed --hidden layers of all digits at once--> totals; a digit's value adds its weights to the totals after it

    In NumPy but for the products: where positions are few, a tensor library takes longer to be called than to compute.
    Products are torch's, because two libraries' threads would wait for one another.
    """

    def __init__(self, config: NetworkConfig, layers: Mapping[str, IntegerLayer]) -> None:
        channels = self._channels = config.channels
        digits = range(len(config.levels))
        hidden, logits = ([layers[f"{name}.{digit}"] for digit in digits] for name in ("hidden", "logits"))
        weight_IK = torch.cat([layer.weight_KIO[0] for layer in hidden], dim=1).cpu()
        self._weight_CK = weight_IK[:channels].contiguous()
        self._bias_K = torch.cat([layer.bias_O for layer in hidden]).cpu()
        self._scales = [layer.scale_O.cpu().numpy() for layer in hidden]
        ends = np.cumsum([channels, *config.levels])
        self._known = [
            np.ascontiguousarray(ONE * weight_IK[first:end, (digit + 1) * channels :].numpy())
            for digit, (first, end) in enumerate(pairwise(ends))
        ]
        self._logits = [
            (layer.weight_KIO[0].cpu(), layer.bias_O.cpu(), layer.scale_O.cpu().numpy()) for layer in logits
        ]

    def totals(self, mixed_NC: Tensor) -> NDArray[np.float32]:
        """Sums of the hidden layers of all digits before the division, while no digit is known: [N, D x C]."""
        return torch.addmm(self._bias_K, mixed_NC.cpu(), self._weight_CK).numpy()

    def logits(self, totals_NK: NDArray[np.float32], digit: int) -> NDArray[np.float32]:
        """Of a digit's values, given the digits that the totals know: [N, V]."""
        start = digit * self._channels
        hidden_NC = totals_NK[:, start : start + self._channels] * self._scales[digit]
        np.floor(hidden_NC, out=hidden_NC).clip(0, TOP, out=hidden_NC)
        weight_CV, bias_V, scale_V = self._logits[digit]
        return np.floor(torch.addmm(bias_V, torch.from_numpy(hidden_NC), weight_CV).numpy() * scale_V)

    def learn_(self, totals_NK: NDArray[np.float32], digit: int, values_N: NDArray[np.int64]) -> None:
        """Tell the totals what a digit is."""
        totals_NK[:, (digit + 1) * self._channels :] += self._known[digit][values_N]


def bordered(inputs_hwI: Tensor) -> Tensor:
    """With zeros around: [h + 2, w + 2, I]."""
    return F.pad(inputs_hwI, (0, 0, 1, 1, 1, 1))


def integer_layers(
    config: NetworkConfig, tensors: Mapping[str, Tensor], device: str = "cpu"
) -> dict[str, IntegerLayer]:
    """Stored integers as layers, after proving that no sum can leave float32's exact range.

    Args:
        config: names and shapes of the layers.
        tensors: NAME.weight int8 [taps, inputs, outputs], NAME.bias int32 [outputs], NAME.shift uint8 [outputs].

    Raises:
        CheckpointError: a tensor is missing, foreign or misshapen, or a layer's bound reaches 2**24.
    """
    layers, shapes = {}, config.layer_shapes()
    wanted = {f"{name}.{part}" for name in shapes for part in ("weight", "bias", "shift")}
    if tensors.keys() != wanted:
        odd = ", ".join(sorted(tensors.keys() ^ wanted)[:3])
        raise CheckpointError(f"the prior's tensors are not those of its config: {odd}")
    for name, (taps, inputs, outputs) in shapes.items():
        weight, bias, shift = (tensors[f"{name}.{part}"] for part in ("weight", "bias", "shift"))
        facts = (weight.dtype, tuple(weight.shape), bias.dtype, tuple(bias.shape), shift.dtype, tuple(shift.shape))
        if facts != (torch.int8, (taps, inputs, outputs), torch.int32, (outputs,), torch.uint8, (outputs,)):
            raise CheckpointError(f"the prior's layer {name} has the wrong shapes or types: {facts}")
        bound_O = weight.long().abs().sum(dim=(0, 1)) * TOP + bias.long().abs()
        if int(bound_O.max()) >= EXACT or int(shift.max()) > 24:
            raise CheckpointError(
                f"the prior's layer {name} can reach {int(bound_O.max())} with shifts to {int(shift.max())}; sums must "
                f"stay below {EXACT} and shifts at most 24 to be exact in float32; export it again with smaller weights"
            )
        scale = torch.pow(2.0, -shift.double()).float()  # a power of two: exact
        layers[name] = IntegerLayer(weight.float().to(device), bias.float().to(device), scale.to(device))
    return layers


def one_hot(digits_hwD: Tensor, levels: Sequence[int]) -> Tensor:
    """ONE where a digit has a value, 0 elsewhere: [h, w, sum(levels)]."""
    planes = torch.zeros(*digits_hwD.shape[:2], sum(levels), device=digits_hwD.device)
    first = torch.tensor([sum(levels[:digit]) for digit in range(len(levels))], device=digits_hwD.device)
    return planes.scatter_(2, digits_hwD + first, float(ONE))

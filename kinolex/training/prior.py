"""Train the network of a codec's prior in floating point, quantized as it will be, and export its integers.

    latent places --random rounding--> digits --> float twin of codec.network, weights and activations rounded --> bits

The twin rounds its weights to int8 times a power of two and its activations to 1/32 in every step (gradients pass
straight through), so what is exported computes what was trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinolex.codec.network import EXACT, FRAMES_BACK, GROUPS, ONE, TOP, NetworkConfig
from kinolex.layers.conv3d import channels_last
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
        for group, (row, column) in enumerate(GROUPS):
            context = rounded_activation(self._layer(f"context.{group}")(current_BPhw * known_B1hw))
            both = F.pad(torch.cat([trunk, context], dim=1), (1, 1, 1, 1))[:, :, row:, column:]
            mixed_BChw[:, :, row::2, column::2] = rounded_activation(self._layer(f"mix.{group}")(both, 2, 0))
            known_B1hw[:, :, row::2, column::2] = 1.0
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

    def _layer(self, name: str) -> nn.Module:
        return self.layers[name.replace(".", "_")]

    def export(self) -> dict[str, Tensor]:
        """The integers, named as codec.network.integer_layers wants them."""
        tensors = {}
        for name in self.config.layer_shapes():
            layer = self._layer(name)
            assert isinstance(layer, RoundedLayer)
            # Activations step by 1/32 of 1.0; logits by 1/16 of a bit, hence one bit more to drop.
            parts = layer.export(extra_shift=1 if name.startswith("logits") else 0)
            tensors.update({f"{name}.{part}": value for part, value in parts.items()})
        return tensors


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


# --- data ---


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorTrainConfig:
    network: NetworkConfig
    steps: int = 6000
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    crop: int = 20
    """Side, in latent positions, of training crops."""
    video_chunks: int = 6
    images: int = 24
    """Per step; images teach the first frame of chunks."""
    hold: tuple[float, float] = (0.5, 1.1)
    """In part of the chunks a digit stays as in the frame before while its place is closer than this to it, which is
    how a rate-controlled encoder chooses; 0.5 is plain rounding."""
    seed: int = 0


def random_digits(places_thwD: np.ndarray, config: PriorTrainConfig, rng: np.random.Generator) -> np.ndarray:
    """A cropped, mirrored and rounded sample of a chunk: int64 digits [t, D, h, w].

    Args:
        places_thwD: places on the digits' axes before rounding, in 1/32, uint8.
    """
    _, rows, columns, _ = places_thwD.shape
    top = rng.integers(0, max(rows - config.crop, 0) + 1)
    left = rng.integers(0, max(columns - config.crop, 0) + 1)
    places = places_thwD[:, top : top + config.crop, left : left + config.crop].astype(np.float32) / 32.0
    if rng.random() < 0.5:
        places = places[:, :, ::-1]
    hold = rng.uniform(*config.hold) if rng.random() < 0.6 else 0.5
    digits = np.rint(places)
    if hold > 0.5:
        for frame in range(1, len(digits)):
            stays = np.abs(places[frame] - digits[frame - 1]) < hold
            digits[frame] = np.where(stays, digits[frame - 1], digits[frame])
    return rearrange(digits.astype(np.int64), "t h w d -> t d h w")


def train_prior(
    videos: Sequence[np.ndarray],
    images: Sequence[np.ndarray],
    config: PriorTrainConfig,
    *,
    report: Callable[[int, PriorTwin, float], None],
) -> PriorTwin:
    """Train from places (see random_digits) of video chunks and of images; `report` sees step, network, bits per id."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    twin = channels_last(PriorTwin(config.network))
    optimizer = torch.optim.AdamW(
        twin.parameters(), config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
    )
    warmup = max(1, config.steps // 50)
    weights = np.array([np.prod(places.shape[:3]) for places in videos], dtype=np.float64)
    weights /= weights.sum()
    for step in range(config.steps):
        progress = step / config.steps
        rate = config.learning_rate * min(1.0, (step + 1) / warmup) * (0.5 + 0.5 * math.cos(math.pi * progress) + 0.01)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = [
            random_digits(videos[index], config, rng)
            for index in rng.choice(len(videos), config.video_chunks, p=weights)
        ]
        batch += [random_digits(images[index], config, rng) for index in rng.integers(0, len(images), config.images)]
        total, count = torch.zeros(()), 0
        for digits, previous in by_size(batch, config.network.levels):
            with torch.autocast("cpu", torch.bfloat16):
                bits = twin.bits(digits, previous).sum()
            bits.backward()
            total, count = total + bits.detach(), count + digits[:, 0].numel()
        for parameter in twin.parameters():
            assert parameter.grad is not None
            parameter.grad /= count
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 2.0)
        optimizer.step()
        optimizer.zero_grad()
        report(step, twin, float(total) / count)
    return twin


def by_size(batch: Sequence[np.ndarray], levels: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Samples of equal height and width joined along the frames: (digits_BDhw, previous_BFhw)."""
    sizes: dict[tuple[int, ...], list[np.ndarray]] = {}
    for digits in batch:
        sizes.setdefault(digits.shape[2:], []).append(digits)
    for samples in sizes.values():
        tensors = [torch.from_numpy(digits) for digits in samples]
        previous = torch.cat([previous_frames(digits, levels, torch.bfloat16) for digits in tensors])
        yield torch.cat(tensors), previous.contiguous(memory_format=torch.channels_last)

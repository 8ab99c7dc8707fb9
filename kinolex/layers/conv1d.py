"""Causal convolutions over sound whose left context can be carried, so that chunks equal one long sound.

    one shot:  [zeros] x0 x1 x2 x3 x4 ...   --conv-->  y0 y1 y2 ...
    chunked:   [zeros] x0 x1 | x2 x3 | x4     the cache keeps what the next chunk still looks back at

Before the first sample there is silence, hence zeros. Signals have an empty axis of one row, x_BC1S: convolutions of
CPUs in bfloat16 with channels last are two to three times as fast over two axes as over one, and `channels_last` and
Muon know kernels of four axes.

Source: SoundStream, Zeghidour et al. 2021, arXiv 2107.03312, section III.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinolex.errors import ConfigError, ShapeError
from kinolex.layers.conv3d import StreamCache


class Conv1d(nn.Conv2d):
    """Convolution that sees no later sample: S samples in, S / stride out, and a stream of chunks equals one sound.

    Args:
        kernel: samples it spans before dilation; at least the stride.
        stride: every chunk must hold a multiple of it.

    Raises:
        ConfigError: the kernel skips samples.
        ShapeError: (forward) a chunk that is no multiple of the stride.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> None:
        self.left = (kernel - 1) * dilation + 1 - stride
        if self.left < 0:
            raise ConfigError(f"a kernel of {kernel} over a stride of {stride} skips samples; widen it")
        super().__init__(in_channels, out_channels, (1, kernel), (1, stride), dilation=(1, dilation))

    def forward(self, x_BC1S: Tensor, cache: StreamCache | None = None) -> Tensor:  # type: ignore[override]
        if x_BC1S.shape[3] % self.stride[1]:
            raise ShapeError(f"chunks must hold a multiple of {self.stride[1]} samples, got {x_BC1S.shape[3]}")
        return super().forward(with_left_context(self, x_BC1S, self.left, cache))


class ConvTranspose1d(nn.Module):
    """The causal transposed convolution of kernel 2 * stride: S samples in, S * stride out.

    Every output looks at its own input and the one before, so it is computed as a convolution of kernel 2 that gives
    all `stride` outputs of an input as channels; in channels-last memory laying them out in time costs nothing.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = Conv1d(in_channels, out_channels * stride, 2)

    def forward(self, x_BC1S: Tensor, cache: StreamCache | None = None) -> Tensor:
        return rearrange(self.conv(x_BC1S, cache), "b (p c) 1 s -> b c 1 (s p)", p=self.stride)


def with_left_context(layer: nn.Module, x_BC1S: Tensor, left: int, cache: StreamCache | None) -> Tensor:
    """x with `left` samples in front: zeros at the start of a stream, afterwards the end of the chunk before."""
    if left == 0:
        return x_BC1S
    if cache is None or layer not in cache:
        joined_BC1S = F.pad(x_BC1S, (left, 0))
    else:
        joined_BC1S = torch.cat([cache[layer].to(x_BC1S.dtype), x_BC1S], dim=3)
    if cache is not None:
        cache[layer] = joined_BC1S[..., joined_BC1S.shape[3] - left :].clone()
    return joined_BC1S


class Snake(nn.Module):
    """x + sin(a x)^2 / a with one learned a per channel: periodic, which suits sound.

    Source: Ziyin et al. 2020, arXiv 2006.08195; in sound decoders, Lee et al. 2022, arXiv 2206.04658.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.ones(channels))

    def forward(self, x_BC1S: Tensor) -> Tensor:
        # A frequency near zero would divide by it; the function is the identity there.
        return _Snake.apply(x_BC1S, self.frequency.clamp_min(1e-2).to(x_BC1S.dtype).view(-1, 1, 1))  # type: ignore[no-any-return]


class _Snake(torch.autograd.Function):
    """By hand: half the time and memory of the composed operations."""

    @staticmethod
    def forward(ctx, x: Tensor, a: Tensor) -> Tensor:  # type: ignore[no-untyped-def, override]
        squared = (x * a).sin_().square_()
        ctx.save_for_backward(x, a, squared)
        return torch.addcmul(x, squared, a.reciprocal())

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def, override]
        x, a, squared = ctx.saved_tensors
        slope = (x * (2 * a)).sin_()
        toward_x = torch.addcmul(gradient, gradient, slope)
        # d/da = x sin(2ax) / a - sin(ax)^2 / a^2
        by_a = torch.addcmul(slope.mul_(x).mul_(a), squared, squared.new_tensor(-1.0)).mul_(gradient)
        total_C11 = by_a.sum(dim=(0, 2, 3), dtype=torch.float32).view_as(a) / a.float().square()
        return toward_x, total_C11.to(a.dtype)

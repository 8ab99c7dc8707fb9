"""Convolutions over video whose left context in time can be carried, so that chunks equal one long clip.

    one shot:  [first frame repeated] x0 x1 x2 x3 x4 ...   --conv-->  y0 y1 y2 ...
    chunked:   [first frame repeated] x0 x1 | x2 x3 | x4     the cache keeps what the next chunk still looks back at

Before the first frame the first frame itself is repeated (not zeros): a still image and a clip that stands still
then give the same features, which is what makes 2D-to-3D inflation exact.

Source: causal 3D convolution, Yu et al. 2023, arXiv 2310.05737; papers.md section 4.2.
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


class StreamCache(dict[nn.Module, Tensor]):
    """Left context of every temporal layer of one network, filled by the first chunk and carried to the next.

    A layer that is absent has not seen a frame yet. One cache belongs to one stream.
    """


class Conv3d(nn.Conv3d):
    """3D convolution, zero padding in space, first-frame (and, if not causal, last-frame) padding in time.

    Args:
        kernel: (time, rows, columns); odd sizes.
        stride: (time, rows, columns). A causal layer with temporal stride s maps 1 + s*n frames to 1 + n.
        causal: pad before only; needed for streaming.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int, int],
        *,
        stride: tuple[int, int, int] = (1, 1, 1),
        causal: bool,
        bias: bool = True,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel, stride, padding=(0, kernel[1] // 2, kernel[2] // 2), bias=bias
        )
        self.causal = causal

    def forward(self, x_BCTHW: Tensor, cache: StreamCache | None = None) -> Tensor:  # type: ignore[override]
        size, step = self.kernel_size[0], self.stride[0]
        if size > 1:
            x_BCTHW = self._with_left_context(x_BCTHW, cache, size, step)
            if not self.causal:
                last_BC1HW = x_BCTHW[:, :, -1:]
                x_BCTHW = torch.cat([x_BCTHW, last_BC1HW.expand(-1, -1, size // 2, -1, -1)], dim=2)
        return super().forward(x_BCTHW)

    def _with_left_context(self, x_BCTHW: Tensor, cache: StreamCache | None, size: int, step: int) -> Tensor:
        if cache is not None and self in cache:
            context = cache[self]
        else:
            context = x_BCTHW[:, :, :1].expand(-1, -1, size - 1 if self.causal else size // 2, -1, -1)
        joined = torch.cat([context, x_BCTHW], dim=2)
        if cache is not None:
            # After 1 + step*n frames the next output starts `step` frames later, so size - step frames stay in view.
            cache[self] = joined[:, :, joined.shape[2] - (size - step) :].clone()
        return joined


class SpaceToDepth(nn.Module):
    """Fold blocks of fold x fold pixels into channels: B C T H W -> B C*fold*fold T H/fold W/fold."""

    def __init__(self, fold: int) -> None:
        super().__init__()
        self.fold = fold

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return rearrange(x_BCTHW, "b c t (h p) (w q) -> b (p q c) t h w", p=self.fold, q=self.fold)


class DepthToSpace(nn.Module):
    """Unfold channels into blocks of time x space x space; the exact inverse order of SpaceToDepth in space.

    In a causal network the first frame of a stream keeps only its last copy, so 1 + n frames become 1 + time*n.
    """

    def __init__(self, time: int, space: int, *, causal: bool) -> None:
        super().__init__()
        self.time, self.space, self.causal = time, space, causal

    def forward(self, x_BCTHW: Tensor, cache: StreamCache | None = None) -> Tensor:
        x_BCTHW = rearrange(
            x_BCTHW, "b (s p q c) t h w -> b c (t s) (h p) (w q)", s=self.time, p=self.space, q=self.space
        )
        return drop_first_copies(self, x_BCTHW, self.time, cache) if self.causal else x_BCTHW


def drop_first_copies(module: nn.Module, x_BCTHW: Tensor, time: int, cache: StreamCache | None) -> Tensor:
    """Drop the first time - 1 frames at the start of a stream; later chunks stay whole."""
    if time == 1:
        return x_BCTHW
    if cache is None:
        return x_BCTHW[:, :, time - 1 :]
    if module in cache:
        return x_BCTHW
    cache[module] = x_BCTHW.new_zeros(())
    return x_BCTHW[:, :, time - 1 :]


def channels_last(module: Module) -> Module:
    """Lay the weights of convolutions out channels-last, in place: twice as fast on CPUs in bfloat16."""
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.ndim in layouts:
            parameter.data = parameter.data.contiguous(memory_format=layouts[parameter.ndim])
    return module


def average_pool(x_BCTHW: Tensor, time: int, space: int) -> Tensor:
    return F.avg_pool3d(x_BCTHW, (time, space, space))


def inflate_kernel(kernel_OIHW: Tensor, time: int, mode: str) -> Tensor:
    """A 3D kernel that does to still frames what the 2D kernel does to the image.

    Args:
        kernel_OIHW: weights of a 2D convolution.
        time: temporal size of the 3D kernel.
        mode: "central" puts the kernel in the middle slice, "last" in the last (the causal choice of MAGVIT-v2),
            "average" in every slice divided by their number.

    Source: MAGVIT, papers.md 2.4; "last": MAGVIT-v2, papers.md 4.2.
    """
    kernel_OITHW = kernel_OIHW.new_zeros(*kernel_OIHW.shape[:2], time, *kernel_OIHW.shape[2:])
    if mode == "average":
        kernel_OITHW += kernel_OIHW.unsqueeze(2) / time
    elif mode in ("central", "last"):
        kernel_OITHW[:, :, time // 2 if mode == "central" else -1] = kernel_OIHW
    else:
        raise ValueError(f"inflation mode must be central, last or average, got {mode!r}")
    return kernel_OITHW

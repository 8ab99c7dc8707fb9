"""Pictures and features moved along displacement fields, and a correlation that tells where things went.

Source: spatial transformer, Jaderberg et al. 2015, arXiv 1506.02025; several displacements per position as in
deformable convolution, Dai et al. 2017, arXiv 1703.06211.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def warp(x_BCHW: Tensor, shift_B2HW: Tensor) -> Tensor:
    """Look up x at every position plus its shift, bilinearly; beyond the border the border is seen.

    Args:
        x_BCHW: float.
        shift_B2HW: (right, down) in positions of x, float32.

    Returns:
        [B, C, H, W], dtype of x. The sampling is float32 whatever the autocast.
    """
    height, width = x_BCHW.shape[2:]
    with torch.autocast(x_BCHW.device.type, enabled=False):
        rows_H = torch.arange(height, device=x_BCHW.device, dtype=torch.float32)
        columns_W = torch.arange(width, device=x_BCHW.device, dtype=torch.float32)
        right_BHW, down_BHW = shift_B2HW.float().unbind(dim=1)
        # grid_sample without align_corners counts from -1 at the left edge of the first position to 1 at the right
        # edge of the last.
        x_BHW = (2.0 * (columns_W + right_BHW) + 1.0) / width - 1.0
        y_BHW = (2.0 * (rows_H.unsqueeze(1) + down_BHW) + 1.0) / height - 1.0
        grid_BHW2 = torch.stack([x_BHW, y_BHW], dim=-1)
        warped = F.grid_sample(x_BCHW.float(), grid_BHW2, padding_mode="border", align_corners=False)
    return warped.to(x_BCHW.dtype)


def warp_groups(x_BCHW: Tensor, shifts_BGHW: Tensor) -> Tensor:
    """Warp equal groups of channels each by its own field: shifts hold (right, down) of group after group."""
    batch, groups = x_BCHW.shape[0], shifts_BGHW.shape[1] // 2
    moved = warp(
        rearrange(x_BCHW, "b (g c) h w -> (b g) c h w", g=groups),
        rearrange(shifts_BGHW, "b (g two) h w -> (b g) two h w", two=2),
    )
    return rearrange(moved, "(b g) c h w -> b (g c) h w", b=batch)

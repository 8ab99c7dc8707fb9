"""Pictures and features moved along displacement fields, and a search that tells where things came from.

Source: spatial transformer, Jaderberg et al. 2015, arXiv 1506.02025; several displacements per position as in
deformable convolution, Dai et al. 2017, arXiv 1703.06211; full search as in every block-based video encoder.
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


BLOCK = 16
"""Side in pixels of the blocks that a search gives one displacement each."""
REACH = 12
"""Farthest displacement that a search looks at, in steps of STRIDE pixels."""
STRIDE = 2
STAY = 2e-3
"""What a step of displacement must gain per pixel value in [-1, 1], so that flat areas stay where they are."""
AGREE = 1e-2
"""The same for a step away from the median of the neighbours; where little tells the truth, a smooth field is both
nearer to it and cheaper to write down."""
AGREEMENTS = 2
"""Times that the neighbours are asked."""


@torch.no_grad()
def search(new_BCHW: Tensor, old_BCHW: Tensor) -> Tensor:
    """Where each 16x16 block of a picture came from: full search over half-size grey pictures, 24x24 windows.

    Args:
        new_BCHW, old_BCHW: float in [-1, 1], sides at least 16.

    Returns:
        [B, 2, H//16, W//16] float32: the displacement (right, down) in pixels at which the old picture looks like the
        new, little motion and motion like the neighbours' preferred, refined below STRIDE by a parabola through the
        neighbouring costs.
    """
    with torch.autocast(new_BCHW.device.type, enabled=False):
        new_B1HW, old_B1HW = (F.avg_pool2d(x.float().mean(dim=1, keepdim=True), STRIDE) for x in (new_BCHW, old_BCHW))
        height, width = new_B1HW.shape[2:]
        padded = F.pad(old_B1HW, (REACH,) * 4, mode="replicate")
        across = 2 * REACH + 1
        costs = []
        for down in range(across):
            # Views of all displacements to the side, as channels.
            views = padded[:, :, down : down + height].unfold(3, width, 1).squeeze(1).transpose(1, 2)
            costs.append(F.avg_pool2d((new_B1HW - views).abs(), 12, stride=8, padding=2, count_include_pad=False))
        steps = torch.arange(-REACH, REACH + 1, device=new_BCHW.device, dtype=torch.float32)
        steps_M2 = torch.stack([steps.repeat(across), steps.repeat_interleave(across)], dim=1)
        still_B2hw = torch.zeros(1, 2, 1, 1, device=steps.device)
        seen_BMhw = torch.cat(costs, dim=1) + STAY * _length_BMhw(steps_M2, still_B2hw)
        found_B2hw = _lowest_B2hw(seen_BMhw, steps_M2)
        for _ in range(AGREEMENTS):
            around = F.pad(found_B2hw, (1, 1, 1, 1), mode="replicate").unfold(2, 3, 1).unfold(3, 3, 1)
            median_B2hw = around.flatten(4).median(dim=4).values
            found_B2hw = _lowest_B2hw(seen_BMhw + AGREE * _length_BMhw(steps_M2, median_B2hw), steps_M2)
        return found_B2hw * STRIDE


def _length_BMhw(steps_M2: Tensor, from_B2hw: Tensor) -> Tensor:
    """Steps to the right and down of every displacement from those given."""
    return (steps_M2[None, :, :, None, None] - from_B2hw[:, None]).abs().sum(dim=2)


def _lowest_B2hw(cost_BMhw: Tensor, steps_M2: Tensor) -> Tensor:
    """Displacement of the least cost in steps, finer than a step by a parabola through the costs beside it."""
    best_Bhw = cost_BMhw.argmin(dim=1)
    found = []
    for position_M, apart in zip(steps_M2.unbind(dim=1), (1, 2 * REACH + 1), strict=True):
        inside_Bhw = position_M[best_Bhw].abs() < REACH
        before, here, after = (
            cost_BMhw.gather(1, (best_Bhw + offset).clamp(0, len(steps_M2) - 1).unsqueeze(1)).squeeze(1)
            for offset in (-apart, 0, apart)
        )
        bend = (before + after - 2 * here).clamp(min=1e-6)
        finer = ((before - after) / (2 * bend)).clamp(-0.5, 0.5) * inside_Bhw
        found.append(position_M[best_Bhw] + finer)
    return torch.stack(found, dim=1)

"""A picture of how far training is: originals above reconstructions, a few frames of a few clips."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from kinolex.media import write
from kinolex.types import Clip

COLUMNS = 4


def save_grid(pixels_BCTHW: Tensor, output_BCTHW: Tensor, path: Path) -> None:
    """Write a PNG; rows alternate between original and reconstruction, columns are frames spread over the clip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = torch.linspace(0, pixels_BCTHW.shape[2] - 1, min(COLUMNS, pixels_BCTHW.shape[2])).round().long()
    both = torch.stack([pixels_BCTHW[:, :, times].float(), output_BCTHW[:, :, times].float()], dim=1)
    sheet_CHW = rearrange(both, "b two c t h w -> c (b two h) (t w)")
    frame_CHW = ((sheet_CHW + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()
    write(Clip(frame_CHW.unsqueeze(0).contiguous(), Fraction(1)), path)

"""How far apart two clips are, pixel by pixel."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kinolex.errors import ShapeError

PSNR_CAP_DB = 100.0
"""Given for equal clips, whose PSNR is infinite: JSON has no infinity, and a mean needs a number."""


def psnr_db(a_TCHW: Tensor, b_TCHW: Tensor) -> float:
    """Peak signal-to-noise ratio of the clip's total mean squared error, in dB, at most PSNR_CAP_DB.

    Args:
        a_TCHW, b_TCHW: values in 0..255, uint8 or float, same shape.

    Raises:
        ShapeError: other shapes.

    One error for the whole clip: a single perfect frame does not lift it. See psnr_db_frame_mean for the other habit.
    """
    return _decibels(float(_squared_error_T(a_TCHW, b_TCHW).mean()))


def psnr_db_frame_mean(a_TCHW: Tensor, b_TCHW: Tensor) -> float:
    """PSNR of every frame (each at most PSNR_CAP_DB), then averaged; never below psnr_db but for the cap."""
    return sum(map(_decibels, _squared_error_T(a_TCHW, b_TCHW).tolist())) / a_TCHW.shape[0]


def _squared_error_T(a_TCHW: Tensor, b_TCHW: Tensor) -> Tensor:
    """Mean squared error of every frame, float64; one frame at a time, so long clips need no more memory."""
    check_pair(a_TCHW, b_TCHW)
    errors = [(a_CHW.double() - b_CHW.double()).square().mean() for a_CHW, b_CHW in zip(a_TCHW, b_TCHW, strict=True)]
    return torch.stack(errors)


def _decibels(mean_squared_error: float) -> float:
    if mean_squared_error <= 0.0:
        return PSNR_CAP_DB
    return min(PSNR_CAP_DB, 10.0 * math.log10(255.0**2 / mean_squared_error))


def check_pair(a_TCHW: Tensor, b_TCHW: Tensor) -> None:
    if a_TCHW.shape != b_TCHW.shape or a_TCHW.ndim != 4 or 0 in a_TCHW.shape:
        raise ShapeError(
            f"two clips of one shape (T, C, H, W) are compared, got {tuple(a_TCHW.shape)} and {tuple(b_TCHW.shape)}; "
            "crop or resize one of them first"
        )

"""How far apart two clips are, pixel by pixel and frame by frame, without any network.

    psnr_db             error power of the whole clip            psnr_db_frame_mean   of every frame, then averaged
    ssim, ms_ssim       local structure, at one or several scales (kinolex.metrics.structure)
    flicker             change from frame to frame that the original does not have
    seam                error at chunk boundaries against error elsewhere

Every function takes two clips of one shape, values in 0..255, uint8 or float, works one frame at a time, and returns
a finite number for any finite input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kinolex.errors import ShapeError, UsageError

PSNR_CAP_DB = 100.0
"""Given for equal clips, whose PSNR is infinite: JSON has no infinity, and a mean needs a number."""

ROUNDING_ERROR = 1.0 / 12.0
"""Mean squared error of rounding to whole grey levels; keeps seam finite where a reconstruction is perfect."""


def psnr_db(a_TCHW: Tensor, b_TCHW: Tensor) -> float:
    """Peak signal-to-noise ratio of the clip's total mean squared error, in dB, at most PSNR_CAP_DB.

    One error for the whole clip: a few perfect frames do not lift it, as they do psnr_db_frame_mean.

    Args:
        a_TCHW, b_TCHW: values in 0..255, uint8 or float, same shape.

    Raises:
        ShapeError: other shapes.
    """
    return _decibels(float(_squared_error_T(a_TCHW, b_TCHW).mean()))


def psnr_db_frame_mean(a_TCHW: Tensor, b_TCHW: Tensor) -> float:
    """PSNR of every frame (each at most PSNR_CAP_DB), then averaged; the habit of the video coding literature.

    Never below psnr_db, and equal to it when every frame has the same error. Arguments and errors as there.
    """
    return sum(map(_decibels, _squared_error_T(a_TCHW, b_TCHW).tolist())) / a_TCHW.shape[0]


def flicker(original_TCHW: Tensor, rebuilt_TCHW: Tensor) -> float:
    """Mean absolute difference between the frame-to-frame changes of two clips, in grey levels (0..510).

    A reconstruction whose error stands still has flicker 0, however large the error; 0 for a single frame.

    Raises:
        ShapeError: other shapes.
    """
    check_pair(original_TCHW, rebuilt_TCHW)
    if original_TCHW.shape[0] == 1:
        return 0.0
    changes = []
    previous_CHW = rebuilt_TCHW[0].double() - original_TCHW[0].double()
    for index in range(1, original_TCHW.shape[0]):
        error_CHW = rebuilt_TCHW[index].double() - original_TCHW[index].double()
        changes.append((error_CHW - previous_CHW).abs().mean())
        previous_CHW = error_CHW
    return float(torch.stack(changes).mean())


def seam(original_TCHW: Tensor, rebuilt_TCHW: Tensor, starts: Sequence[int]) -> float:
    """Squared error of the frames that open a chunk, divided by that of all other frames.

    Args:
        original_TCHW, rebuilt_TCHW: values in 0..255, uint8 or float, same shape.
        starts: frames that begin a chunk, each in 1..T-1; the first frame of the clip opens no seam and is not given.

    Returns:
        1.0 when chunk boundaries cannot be told from other frames, also when there are none; above 1 they are worse.
        The error of rounding to grey levels is added to both sides, so that a perfect reconstruction gives 1.0.

    Raises:
        ShapeError: other shapes. UsageError: a start outside the clip.
    """
    error_T = _squared_error_T(original_TCHW, rebuilt_TCHW)
    outside = [start for start in starts if not 1 <= start < len(error_T)]
    if outside:
        raise UsageError(f"chunks of a clip of {len(error_T)} frames start at 1..{len(error_T) - 1}, got {outside}")
    opens_T = torch.zeros(len(error_T), dtype=torch.bool)
    opens_T[list(starts)] = True
    if not bool(opens_T.any()) or bool(opens_T.all()):
        return 1.0
    return float((error_T[opens_T].mean() + ROUNDING_ERROR) / (error_T[~opens_T].mean() + ROUNDING_ERROR))


def _squared_error_T(a_TCHW: Tensor, b_TCHW: Tensor) -> Tensor:
    """Mean squared error of every frame, float64 on the CPU."""
    check_pair(a_TCHW, b_TCHW)
    errors = [(a_CHW.double() - b_CHW.double()).square().mean() for a_CHW, b_CHW in zip(a_TCHW, b_TCHW, strict=True)]
    return torch.stack(errors).cpu()


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

"""Structural similarity at one scale and at several, as numbers and as a training loss.

Gaussian window of 11x11 with sigma 1.5, no padding, values 0..255, K1 = 0.01, K2 = 0.03; every colour channel by
itself, then averaged. The several scales halve the picture by averaging 2x2 pixels (an odd last row or column is left
out) and enter with the published exponents. A picture too small for all five takes as many as leave at least 11 lines,
with the exponents scaled to sum to 1: 4 scales at 128 lines, 3 at 64. `num_scales` tells how many; results state it.

Source: Wang et al. 2004 (SSIM), Wang, Simoncelli and Bovik 2003 (MS-SSIM).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from kinolex.errors import ShapeError
from kinolex.metrics.fidelity import check_pair

WINDOW = 11
SIGMA = 1.5
C1, C2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MIN_LOSS_TERM = 1e-3
"""Terms are held above this in the loss: below 0 a power is not defined, and at 0 its slope is infinite."""

_FRAMES_AT_ONCE = 8


def num_scales(height: int, width: int) -> int:
    """How many of the five scales fit: the last still has 11 rows and columns; at least 1."""
    scales = 1
    while scales < len(EXPONENTS) and min(height, width) >> scales >= WINDOW:
        scales += 1
    return scales


def ssim(a_TCHW: Tensor, b_TCHW: Tensor) -> float:
    """Mean structural similarity of two clips over frames, channels and positions, at full size.

    Args:
        a_TCHW, b_TCHW: values in 0..255, uint8 or float, same shape. A side below 11 shrinks the window to that side.

    Returns:
        At most 1, which means equal; 0 unrelated, negative inverted.

    Raises:
        ShapeError: other shapes.
    """
    check_pair(a_TCHW, b_TCHW)
    return _mean_over_frames(a_TCHW, b_TCHW, lambda a, b: _terms(a, b)[0].mean(dim=1))


def ms_ssim(a_TCHW: Tensor, b_TCHW: Tensor) -> float:
    """Multi-scale structural similarity of two clips; arguments and errors as ssim, number of scales as num_scales.

    Returns:
        In 0..1, 1 means equal. Negative terms count as 0.
    """
    check_pair(a_TCHW, b_TCHW)
    return _mean_over_frames(a_TCHW, b_TCHW, lambda a, b: _ms_ssim_B(a, b, floor=0.0))


def ms_ssim_loss_B(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    """1 - MS-SSIM of each pair of pictures in [-1, 1]; differentiable in both.

    Args:
        a_BCHW, b_BCHW: float in [-1, 1], same shape; computed in float32 under any autocast.

    Returns:
        (B,) float32 in [0, 1). Terms below MIN_LOSS_TERM are held there, so value and gradient are always finite.

    Raises:
        ShapeError: other shapes.
    """
    check_pair(a_BCHW, b_BCHW)
    with torch.autocast(a_BCHW.device.type, enabled=False):
        a_BCHW, b_BCHW = ((pixels_BCHW.float() + 1.0) * 127.5 for pixels_BCHW in (a_BCHW, b_BCHW))
        return 1.0 - _ms_ssim_B(a_BCHW, b_BCHW, floor=MIN_LOSS_TERM)


def _mean_over_frames(a_TCHW: Tensor, b_TCHW: Tensor, measure: Callable[[Tensor, Tensor], Tensor]) -> float:
    chunks = zip(a_TCHW.split(_FRAMES_AT_ONCE), b_TCHW.split(_FRAMES_AT_ONCE), strict=True)
    with torch.no_grad():
        total = sum(float(measure(a_BCHW.float(), b_BCHW.float()).double().sum()) for a_BCHW, b_BCHW in chunks)
    return total / a_TCHW.shape[0]


def _ms_ssim_B(a_BCHW: Tensor, b_BCHW: Tensor, *, floor: float) -> Tensor:
    scales = num_scales(*a_BCHW.shape[2:])
    exponents = EXPONENTS[:scales]
    product_BC = torch.ones(a_BCHW.shape[:2], device=a_BCHW.device)
    for scale, exponent in enumerate(exponents):
        if scale:
            a_BCHW, b_BCHW = F.avg_pool2d(a_BCHW, 2), F.avg_pool2d(b_BCHW, 2)
        similarity_BC, contrast_BC = _terms(a_BCHW, b_BCHW)
        # Brightness is compared at the coarsest scale only.
        term_BC = similarity_BC if scale == scales - 1 else contrast_BC
        product_BC = product_BC * term_BC.clamp(min=floor) ** (exponent / sum(exponents))
    return product_BC.mean(dim=1)


def _terms(a_BCHW: Tensor, b_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """(similarity, contrast-and-structure alone) of every picture and channel, averaged over positions."""
    if not a_BCHW.is_floating_point():
        raise ShapeError(f"structure is measured on float pictures, got {a_BCHW.dtype}")
    # Centred at mid-grey: variances come out of smaller numbers, which float32 subtracts more exactly.
    a, b = (rearrange(x - 127.5, "b c h w -> (b c) h w") for x in (a_BCHW, b_BCHW))
    mean_a, mean_b, square_a, square_b, product = _blurred(torch.cat([a, b, a * a, b * b, a * b])).chunk(5)
    variance_a, variance_b = square_a - mean_a.square(), square_b - mean_b.square()
    covariance = product - mean_a * mean_b
    contrast = (2.0 * covariance + C2) / (variance_a + variance_b + C2)
    mean_a, mean_b = mean_a + 127.5, mean_b + 127.5
    brightness = (2.0 * mean_a * mean_b + C1) / (mean_a.square() + mean_b.square() + C1)
    batch = a_BCHW.shape[0]
    per_picture = (rearrange(x.mean(dim=(1, 2)), "(b c) -> b c", b=batch) for x in (brightness * contrast, contrast))
    similarity_BC, contrast_BC = per_picture
    return similarity_BC, contrast_BC


def _blurred(x_BHW: Tensor) -> Tensor:
    """Gaussian blur without padding, as two products with band matrices: ten times as fast as convolving."""
    rows_HH, columns_WW = (_band(size, x_BHW.device) for size in x_BHW.shape[1:])
    return rows_HH.T @ x_BHW @ columns_WW


def _band(size: int, device: torch.device) -> Tensor:
    """(size, size - taps + 1): column i holds the window over places i to i + taps - 1."""
    taps = min(WINDOW, (size - 1) // 2 * 2 + 1)
    place = torch.arange(size, device=device, dtype=torch.float32)
    offset = place[:, None] - place[None, : size - taps + 1] - taps // 2
    band = torch.exp(-offset.square() / (2.0 * SIGMA**2)) * (offset.abs() <= taps // 2)
    return band / band.sum(dim=0)

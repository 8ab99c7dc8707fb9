"""Clips to another size: every output pixel averages the input area it covers, upscaling is bilinear."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from kinolex.errors import ShapeError
from kinolex.types import Clip

CHUNK_PIXELS = 4_000_000
"""Frames are resized in groups of about this many input pixels, so that float copies stay small."""


def resize_frames(frames_TCHW: Tensor, height: int, width: int) -> Tensor:
    """Resize uint8 frames.

    Args:
        frames_TCHW: uint8.
        height, width: wanted size in pixels, at least 1.

    Returns:
        uint8 frames_TCHW; the input itself if it has the wanted size.

    Raises:
        ShapeError: another dtype or rank, or a size below 1.
    """
    if frames_TCHW.ndim != 4 or frames_TCHW.dtype != torch.uint8:
        raise ShapeError(
            f"resizing needs uint8 frames_TCHW, got {frames_TCHW.dtype} with shape {tuple(frames_TCHW.shape)}"
        )
    if height < 1 or width < 1:
        raise ShapeError(f"cannot resize to {width}x{height}; both sides need at least 1 pixel")
    if frames_TCHW.shape[2:] == (height, width):
        return frames_TCHW
    group = max(1, CHUNK_PIXELS // max(frames_TCHW.shape[2] * frames_TCHW.shape[3], height * width))
    resized = [_resize_float(part.float(), height, width) for part in frames_TCHW.split(group)]
    return torch.cat(resized) if resized else frames_TCHW.new_empty((0, frames_TCHW.shape[1], height, width))


def _resize_float(frames_TCHW: Tensor, height: int, width: int) -> Tensor:
    # Antialiased bilinear is a triangle as wide as two output pixels when it shrinks, and plain bilinear when it grows.
    frames_TCHW = F.interpolate(frames_TCHW, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
    return frames_TCHW.round_().clamp_(0, 255).to(torch.uint8)


def resize(clip: Clip, height: int, width: int) -> Clip:
    """The same clip at another size; rate and sound stay. Raises ShapeError for a size below 1."""
    return replace(clip, frames_TCHW=resize_frames(clip.frames_TCHW, height, width))


def fit_short_side(clip: Clip, size: int) -> Clip:
    """Scale so that the shorter side is `size` pixels, keeping the aspect to the nearest pixel.

    Raises:
        ShapeError: size below 1.
    """
    if size < 1:
        raise ShapeError(f"the short side needs at least 1 pixel, got {size}")
    short, long = sorted((clip.height, clip.width))
    scaled = (long * size + short // 2) // short
    height, width = (size, scaled) if clip.height <= clip.width else (scaled, size)
    return resize(clip, height, width)

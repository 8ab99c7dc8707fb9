"""One number to minimise, and the terms it is made of.

    loss = absolute*|y - x| + squared*(y - x)^2 + perceptual*d(y, x) + quantizer terms + adversarial*g(y)

Source: MAGVIT, papers.md section 2.3; MAGVIT-v2, papers.md section 4.2. Deviation: the perceptual network is the one
that is
passed in (SqueezeNet features) instead of ResNet-50 logits; without one, 1 - MS-SSIM takes its place.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from kinolex.layers.precision import fast_arithmetic
from kinolex.metrics.perceptual import SqueezeNetFeatures, perceptual_distance_B
from kinolex.training.config import LossWeights

PerceptualLoss = Callable[[Tensor, Tensor], Tensor]
"""(a_BCHW, b_BCHW) in [-1, 1] -> distance_B, differentiable in a."""


def squeezenet_loss(network: SqueezeNetFeatures) -> PerceptualLoss:
    def loss_B(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
        # A frozen network may run in bfloat16: in float32 it costs as much as the autoencoder itself.
        with fast_arithmetic(a_BCHW.device):
            return perceptual_distance_B(network, a_BCHW, b_BCHW)

    return loss_B


def reconstruction_terms(
    output_BCTHW: Tensor,
    pixels_BCTHW: Tensor,
    weights: LossWeights,
    perceptual: PerceptualLoss,
    perceptual_frames: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Weighted pixel and perceptual terms, float32."""
    error_BCTHW = output_BCTHW.float() - pixels_BCTHW
    if weights.colourful:
        error_BCTHW = error_BCTHW * (1.0 + weights.colourful * _colour_B1THW(pixels_BCTHW))
    terms = {}
    if weights.absolute:
        terms["absolute"] = weights.absolute * error_BCTHW.abs().mean()
    if weights.squared:
        terms["squared"] = weights.squared * error_BCTHW.square().mean()
    if weights.perceptual:
        frames = _frame_choice(pixels_BCTHW, perceptual_frames, generator)
        a_BCHW, b_BCHW = (_take(clip, frames) for clip in (output_BCTHW.float(), pixels_BCTHW))
        terms["perceptual"] = weights.perceptual * perceptual(a_BCHW, b_BCHW).mean()
    return terms


def quantizer_terms(losses: dict[str, Tensor], weights: LossWeights, step: int) -> dict[str, Tensor]:
    """Weighted commitment, codebook and entropy terms of whatever the quantizer reports."""
    terms = {}
    if "commitment" in losses:
        terms["commitment"] = weights.commitment * losses["commitment"]
    if "codebook" in losses:
        terms["codebook"] = weights.codebook * losses["codebook"]
    if "entropy_sample" in losses:
        annealed = 1.0 + (weights.entropy_start - 1.0) * max(0.0, 1.0 - step / weights.entropy_steps)
        terms["entropy"] = weights.entropy * annealed * (losses["entropy_sample"] - losses["entropy_batch"])
    if "rate" in losses:
        terms["rate"] = weights.rate * losses["rate"]
    return terms


def _colour_B1THW(pixels_BCTHW: Tensor) -> Tensor:
    """How far the channels of a pixel or its neighbours lie apart, 0 to 1: edges of a body count as it does."""
    apart_B1THW = (pixels_BCTHW.amax(dim=1, keepdim=True) - pixels_BCTHW.amin(dim=1, keepdim=True)) / 2
    return F.max_pool3d(apart_B1THW, (1, 5, 5), stride=1, padding=(0, 2, 2))


def _frame_choice(pixels_BCTHW: Tensor, number: int, generator: torch.Generator) -> Tensor:
    batch, total = pixels_BCTHW.shape[0], pixels_BCTHW.shape[2]
    order_BT = torch.rand(batch, total, generator=generator).argsort(dim=1)
    return order_BT[:, : min(number, total)].to(pixels_BCTHW.device)


def _take(clip_BCTHW: Tensor, frames_BN: Tensor) -> Tensor:
    clip_BTCHW = rearrange(clip_BCTHW, "b c t h w -> b t c h w")
    rows_B1 = torch.arange(len(clip_BTCHW), device=clip_BTCHW.device).unsqueeze(1)
    return rearrange(clip_BTCHW[rows_B1, frames_BN], "b n c h w -> (b n) c h w").contiguous(
        memory_format=torch.channels_last
    )

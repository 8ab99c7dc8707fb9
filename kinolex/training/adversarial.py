"""The discriminator and what it asks of both sides.

    clip -> conv -> [residual block, halve t h w] x 4 -> conv -> dense -> dense -> one logit

Source: MAGVIT, papers.md sections 2.2 and 2.3 (StyleGAN-style 3D network, non-saturating loss, R1, LeCAM); MAGVIT-v2,
section
4.2 (blur pooling); adaptive weight after Esser et al. 2021, arXiv 2012.09841; LeCAM: Tseng et al. 2021, arXiv
2104.03310.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinolex.layers.conv3d import SpaceToDepth
from kinolex.layers.precision import fast_arithmetic
from kinolex.tokenizers.networks import Network
from kinolex.tokenizers.quantizers.base import mean_over_processes
from kinolex.training.config import DiscriminatorConfig, TrainConfig
from kinolex.training.processes import average_gradients_
from kinolex.training.state import Counters

LECAM_DECAY = 0.99
MAX_ADAPTIVE_WEIGHT = 10.0
BINOMIAL = (1.0, 2.0, 1.0)
POOLED_SIDE = 4
"""Rows and columns before the dense layers, as 128 pixels give after five halvings (8 after four)."""


class Discriminator(nn.Module):
    """One logit per clip of any length and size; time is averaged before the dense layers.

    Args:
        side: rows and columns that the dense layers see; larger maps are averaged down to it.
    """

    def __init__(self, config: DiscriminatorConfig, *, side: int = POOLED_SIDE) -> None:
        super().__init__()
        self.side = side
        self.fold = SpaceToDepth(config.fold)
        widths = [config.base, *(config.base * multiplier for multiplier in config.multipliers)]
        self.stem = nn.Conv3d(3 * config.fold**2, widths[0], 3, padding=1)
        pairs = itertools.pairwise(widths)
        self.blocks = nn.ModuleList(_Block(a, b, config.blur_pool) for a, b in pairs)
        self.out = nn.Conv3d(widths[-1], widths[-1], 3, padding=1)
        self.dense = nn.Linear(widths[-1] * side * side, widths[-1])
        self.logit = nn.Linear(widths[-1], 1)

    def forward(self, pixels_BCTHW: Tensor) -> Tensor:
        """Logits of shape B for pixels in [-1, 1]."""
        x_BCTHW = F.leaky_relu(self.stem(self.fold(pixels_BCTHW)), 0.2)
        for block in self.blocks:
            x_BCTHW = block(x_BCTHW)
        x_BCTHW = F.leaky_relu(self.out(x_BCTHW), 0.2)
        x_BCHW = F.adaptive_avg_pool2d(x_BCTHW.mean(dim=2), self.side)
        hidden_BD = F.leaky_relu(self.dense(rearrange(x_BCHW, "b c h w -> b (c h w)")), 0.2)
        return self.logit(hidden_BD).squeeze(1)


class _Block(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, blur: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, in_channels, 3, padding=1)
        self.conv2 = nn.Conv3d(in_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv3d(in_channels, out_channels, 1, bias=False)
        self.blur = blur

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        y_BCTHW = F.leaky_relu(self.conv1(x_BCTHW), 0.2)
        y_BCTHW = F.leaky_relu(self.conv2(halve(y_BCTHW, self.blur)), 0.2)
        return (y_BCTHW + self.skip(halve(x_BCTHW, self.blur))) * 0.5**0.5


def halve(x_BCTHW: Tensor, blur: bool) -> Tensor:
    """Half of every axis that is longer than one: binomial blur and every other sample, or average pooling."""
    if not blur:
        return F.avg_pool3d(x_BCTHW, [2 if size > 1 else 1 for size in x_BCTHW.shape[2:]])
    channels = x_BCTHW.shape[1]
    for axis in (2, 3, 4):
        if x_BCTHW.shape[axis] == 1:
            continue
        stride, pad, view = [1, 1, 1], [0, 0, 0], [1, 1, 1, 1, 1]
        stride[axis - 2], pad[axis - 2], view[axis] = 2, 1, 3
        weight = (x_BCTHW.new_tensor(BINOMIAL) / 4.0).view(view).expand(channels, 1, *view[2:]).contiguous()
        x_BCTHW = F.conv3d(x_BCTHW, weight, stride=stride, padding=pad, groups=channels)
    return x_BCTHW


class Adversary:
    """The discriminator with its optimizer, and the generator's term."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.losses = config.discriminator, config.losses
        self.network = Discriminator(config.discriminator).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.discriminator.lr, betas=(0.0, 0.99))

    def generator_terms(self, output_BCTHW: Tensor, terms: dict[str, Tensor], model: Network) -> dict[str, Tensor]:
        """Non-saturating loss, scaled so that its gradient at the decoder's last layer matches the other terms'."""
        self.network.requires_grad_(False)
        with fast_arithmetic(output_BCTHW.device):
            logits_B = self.network(output_BCTHW)
        self.network.requires_grad_(True)
        adversarial = F.softplus(-logits_B.float()).mean()
        pixel = torch.stack([terms[name] for name in ("absolute", "squared", "perceptual") if name in terms]).sum()
        weight = adaptive_weight(pixel, adversarial, model.decoder.out.weight)
        return {"adversarial": self.losses.adversarial * weight * adversarial}

    def train_step(self, pairs: list[tuple[Tensor, Tensor]], step: int, counters: Counters) -> dict[str, float]:
        """One update on (real, fake) clips; returns its figures. Skips itself when its gradient is not finite."""
        self.optimizer.zero_grad(set_to_none=True)
        figures: dict[str, float] = {}
        right = total = 0
        for real_BCTHW, fake_BCTHW in pairs:
            with fast_arithmetic(real_BCTHW.device):
                real_B, fake_B = self.network(real_BCTHW).float(), self.network(fake_BCTHW.to(real_BCTHW.dtype)).float()
            loss = F.softplus(-real_B).mean() + F.softplus(fake_B).mean()
            if self.losses.lecam:
                loss = loss + self.losses.lecam * lecam(real_B, fake_B, counters.lecam_real, counters.lecam_fake)
                counters.lecam_real += (1 - LECAM_DECAY) * (
                    float(mean_over_processes(real_B.detach().mean())) - counters.lecam_real
                )
                counters.lecam_fake += (1 - LECAM_DECAY) * (
                    float(mean_over_processes(fake_B.detach().mean())) - counters.lecam_fake
                )
            loss.backward()
            right += int((real_B > 0).sum()) + int((fake_B < 0).sum())
            total += 2 * len(real_B)
            figures.setdefault("discriminator_loss", float(loss.detach()))
        if self.losses.r1 and step % self.config.r1_every == 0:
            # Lazy regularisation: rarer and so much stronger.
            penalty = r1_penalty(self.network, pairs[0][0]) * (self.losses.r1 / 2 * self.config.r1_every)
            penalty.backward()
            figures["r1"] = float(penalty.detach())
        average_gradients_(self.network.parameters())
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), 1.0))
        if math.isfinite(norm):
            self.optimizer.step()
        figures["discriminator_accuracy"] = right / total
        return figures


def r1_penalty(network: nn.Module, real_BCTHW: Tensor) -> Tensor:
    """Mean over clips of the squared norm of the logit's gradient at real clips, float32."""
    real_BCTHW = real_BCTHW.detach().float().requires_grad_(True)
    (gradient,) = torch.autograd.grad(network(real_BCTHW).sum(), real_BCTHW, create_graph=True)
    return gradient.square().flatten(1).sum(dim=1).mean()


def lecam(real_B: Tensor, fake_B: Tensor, average_real: float, average_fake: float) -> Tensor:
    """Distance of real logits from the fake average and of fake logits from the real average (one-sided)."""
    return F.relu(real_B - average_fake).square().mean() + F.relu(average_real - fake_B).square().mean()


def adaptive_weight(pixel: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """Ratio of the two gradients' norms at the decoder's last layer, clamped, without gradient."""
    (toward_pixels,) = torch.autograd.grad(pixel, last_layer, retain_graph=True)
    (toward_fooling,) = torch.autograd.grad(adversarial, last_layer, retain_graph=True)
    return (toward_pixels.norm() / (toward_fooling.norm() + 1e-4)).clamp(0.0, MAX_ADAPTIVE_WEIGHT).detach()

"""Discriminators of sound and what they ask of both sides.

    samples at x1, x1/2, x1/4 --convolutions over time--> logits per stretch      hinge; the features of real and made
    complex spectrogram --convolutions over time and frequency--> logits           sounds are to agree in every layer

Source: SoundStream, Zeghidour et al. 2021, arXiv 2107.03312, sections III-D and III-E; papers.md section 6. Narrower
and ungrouped here, so that two CPU cores can train against them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinolex.errors import ConfigError
from kinolex.layers.conv3d import channels_last
from kinolex.layers.precision import fast_arithmetic

SLOPE = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundDiscriminatorConfig:
    scales: tuple[int, ...] = (1, 2, 4)
    """Samples are averaged over this many before a waveform network sees them."""
    widths: tuple[int, ...] = (16, 32, 64, 128)
    """Of the waveform networks; every one after the first divides the rate by four."""
    window: int = 512
    spectral_widths: tuple[int, ...] = (16, 32, 32, 64)
    """Of the network over the spectrogram; every one after the first halves the frequencies."""
    lr: float = 3e-4

    def __post_init__(self) -> None:
        if min(self.scales, default=0) < 1 or len(self.widths) < 2 or len(self.spectral_widths) < 2:
            raise ConfigError(f"a discriminator of sound needs scales and at least two widths each, got {self}")
        if self.window < 16 or self.window % 4 or self.lr <= 0:
            raise ConfigError(f"window must be a multiple of 4 from 16 on and lr positive, got {self}")


class WaveformDiscriminator(nn.Module):
    """Features of every layer, the logits last."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, widths[0], (1, 15), padding=(0, 7))
        self.layers = nn.ModuleList(nn.Conv2d(a, b, (1, 9), (1, 4), padding=(0, 4)) for a, b in pairwise(widths))
        self.out = nn.Conv2d(widths[-1], widths[-1], (1, 5), padding=(0, 2))
        self.logits = nn.Conv2d(widths[-1], 1, (1, 3), padding=(0, 1))

    def forward(self, x_B11S: Tensor) -> list[Tensor]:
        return _features((self.stem, *self.layers, self.out), self.logits, x_B11S)


class SpectralDiscriminator(nn.Module):
    """Features of every layer, the logits last, over real and imaginary parts; axes are frames and frequencies."""

    hann: Tensor

    def __init__(self, window: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.window = window
        self.register_buffer("hann", torch.hann_window(window), persistent=False)
        self.stem = nn.Conv2d(2, widths[0], (3, 7), padding=(1, 3))
        strides = [(1 + index % 2, 2) for index in range(len(widths) - 1)]
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, (3, 4), stride, padding=1) for (a, b), stride in zip(pairwise(widths), strides, strict=True)
        )
        self.logits = nn.Conv2d(widths[-1], 1, (3, 3), padding=1)

    def forward(self, x_B11S: Tensor) -> list[Tensor]:
        padded_BS = F.pad(rearrange(x_B11S, "b 1 1 s -> b s").float(), (self.window // 2, self.window // 2))
        framed = padded_BS.unfold(-1, self.window, self.window // 4) * self.hann
        spectrum = torch.view_as_real(torch.fft.rfft(framed))
        # Unit variance for white noise of unit variance, so that the first layer sees numbers about one.
        scaled = rearrange(spectrum, "b t f c -> b c t f") / float(self.window) ** 0.5
        return _features((self.stem, *self.layers), self.logits, scaled.contiguous(memory_format=torch.channels_last))


def _features(layers: tuple[nn.Module, ...], logits: nn.Module, x: Tensor) -> list[Tensor]:
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), SLOPE)
        features.append(x)
    return [*features, logits(x)]


class SoundDiscriminator(nn.Module):
    """All networks; one list of features for each."""

    def __init__(self, config: SoundDiscriminatorConfig) -> None:
        super().__init__()
        self.scales = config.scales
        self.waveform = nn.ModuleList(WaveformDiscriminator(config.widths) for _ in config.scales)
        self.spectral = SpectralDiscriminator(config.window, config.spectral_widths)

    def forward(self, samples_B1S: Tensor) -> list[list[Tensor]]:
        found = [
            network(rearrange(F.avg_pool1d(samples_B1S, scale), "b c s -> b c 1 s"))
            for scale, network in zip(self.scales, self.waveform, strict=True)
        ]
        return [*found, self.spectral(rearrange(samples_B1S, "b c s -> b c 1 s"))]


class SoundAdversary:
    """The discriminator with its optimizer, and the terms it adds for the other side."""

    def __init__(self, config: SoundDiscriminatorConfig) -> None:
        self.network = channels_last(SoundDiscriminator(config))
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.lr, betas=(0.5, 0.9))

    def generator_terms(self, made_B1S: Tensor, real_B1S: Tensor) -> dict[str, Tensor]:
        """Hinge term of the decoder, and how unlike the features are: mean over layers of |difference| / |real|."""
        self.network.requires_grad_(False)
        with fast_arithmetic():
            with torch.no_grad():
                real = self.network(real_B1S)
            made = self.network(made_B1S)
        self.network.requires_grad_(True)
        fooling = torch.stack([F.relu(1 - features[-1].float()).mean() for features in made]).mean()
        unlike = [
            (a.float() - b.float()).abs().mean() / b.float().abs().mean().clamp_min(1e-3)
            for theirs, ours in zip(made, real, strict=True)
            for a, b in zip(theirs[:-1], ours[:-1], strict=True)
        ]
        return {"adversarial": fooling, "feature": torch.stack(unlike).mean()}

    def train_step(self, made_B1S: Tensor, real_B1S: Tensor) -> dict[str, float]:
        """One update; returns its figures. Skips itself when its gradient is not finite."""
        self.optimizer.zero_grad(set_to_none=True)
        with fast_arithmetic():
            made = self.network(made_B1S.detach())
            real = self.network(real_B1S)
        losses = [
            F.relu(1 - b[-1].float()).mean() + F.relu(1 + a[-1].float()).mean() for a, b in zip(made, real, strict=True)
        ]
        loss = torch.stack(losses).mean()
        loss.backward()
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), 1.0))
        if math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        right = [float((b[-1] > 0).float().mean() + (a[-1] < 0).float().mean()) / 2 for a, b in zip(made, real)]  # noqa: B905
        return {"discriminator_loss": float(loss.detach()), "discriminator_accuracy": sum(right) / len(right)}

"""What a sound autoencoder is asked for: the spectrum at several scales, some waveform, latents near their codes.

Source: SoundStream, papers.md section 6; scales and bands after Kumar et al. 2023, arXiv 2306.06546.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kinolex.metrics.sound import WINDOWS_AND_BANDS, magnitudes, mel_filters


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundLossWeights:
    log_mel: float = 1.0
    mel: float = 0.2
    """Of the difference of mel magnitudes themselves, relative to the real ones: it looks at what is loud."""
    waveform: float = 0.5
    """Of the mean absolute difference of samples, relative to the real ones."""
    commitment: float = 0.05
    adversarial: float = 0.02
    feature: float = 0.1
    quiet: float = 1e-4
    """Added to mel magnitudes before their logarithm: differences below it are not learned. Their logarithms are steep
    and noisy enough to drown everything else at first; a trained network can go down to metrics.sound.FLOOR, and
    then learns not to hiss where nothing sounds."""


def spectral_terms(made_B1S: Tensor, real_B1S: Tensor, rate_hz: int, *, quiet: float) -> dict[str, Tensor]:
    """log_mel: mean over scales of the mean |difference| of log10 (mel magnitudes + quiet). mel: of the magnitudes,
    relative. waveform: mean |difference| over mean |real|."""
    made_BS, real_BS = made_B1S.squeeze(1), real_B1S.squeeze(1)
    logs, linears = [], []
    for window, bands in WINDOWS_AND_BANDS:
        filters = mel_filters(window, bands, rate_hz)
        made, real = magnitudes(made_BS, window) @ filters, magnitudes(real_BS, window) @ filters
        logs.append(((made + quiet).log10() - (real + quiet).log10()).abs().mean())
        linears.append((made - real).abs().mean() / real.mean().clamp_min(1e-4))
    return {
        "log_mel": torch.stack(logs).mean(),
        "mel": torch.stack(linears).mean(),
        "waveform": (made_BS - real_BS).abs().mean() / real_BS.abs().mean().clamp_min(1e-3),
    }

"""How near one sound is to another: by spectra at several scales, by waveform, and as judges of speech hear it.

All take samples_BS, float32, of one rate; sounds compared must be equally long.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kinolex.errors import MissingExtra, ShapeError, UsageError

WINDOWS_AND_BANDS = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))
"""Samples per window and mel bands, of every scale; the choice of Kumar et al. 2023, arXiv 2306.06546."""

FLOOR = 1e-5
"""Smaller mel magnitudes count as this."""

SI_SDR_CAP_DB = 100.0


def multi_scale_mel_distance(samples_BS: Tensor, reference_BS: Tensor, rate_hz: int) -> Tensor:
    """distance_B, in log10 units: mean over scales of the mean absolute difference of log10 mel magnitudes.

    For each of the seven scales of WINDOWS_AND_BANDS: magnitudes of the Fourier transform of Hann windows a quarter of
    a window apart, zeros padded half a window at both ends, no normalisation; summed by triangular filters, Slaney's
    mel scale and area normalisation, from 0 to rate_hz / 2; clamped below at 1e-5; log10. Lower is nearer, 0 is equal;
    0.05 is one decibel.

    Raises:
        ShapeError: sounds of unlike shapes.
    """
    _check(samples_BS, reference_BS)
    scales = [
        (log_mel(samples_BS, window, bands, rate_hz) - log_mel(reference_BS, window, bands, rate_hz))
        .abs()
        .mean(dim=(1, 2))
        for window, bands in WINDOWS_AND_BANDS
    ]
    return torch.stack(scales).mean(dim=0)


def log_mel(samples_BS: Tensor, window: int, bands: int, rate_hz: int) -> Tensor:
    """log10 of mel magnitudes, B frames bands; frames are a quarter of a window apart."""
    return (magnitudes(samples_BS, window) @ mel_filters(window, bands, rate_hz)).clamp_min(FLOOR).log10()


def magnitudes(samples_BS: Tensor, window: int) -> Tensor:
    """Of the Fourier transform of Hann windows, B frames window/2+1."""
    padded_BS = F.pad(samples_BS, (window // 2, window // 2))
    framed = padded_BS.unfold(-1, window, window // 4) * _hann(window)
    spectrum = torch.view_as_real(torch.fft.rfft(framed))
    # The root of exactly zero has no finite slope.
    return spectrum.square().sum(dim=-1).add(1e-14).sqrt()


@cache
def _hann(window: int) -> Tensor:
    return torch.hann_window(window)


@cache
def mel_filters(window: int, bands: int, rate_hz: int) -> Tensor:
    """Triangles over the bins of a window, window/2+1 by bands: Slaney's scale, each of area one in hertz.

    Source: Slaney 1998, Auditory Toolbox (linear below 1 kHz, logarithmic above).
    """
    top = _mel(torch.tensor(rate_hz / 2, dtype=torch.float64))
    edges = _hertz(torch.linspace(0, 1, bands + 2, dtype=torch.float64) * top)
    bins = torch.linspace(0, rate_hz / 2, window // 2 + 1, dtype=torch.float64).unsqueeze(1)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    triangles = torch.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)).clamp_min(0)
    return (triangles * 2 / (high - low)).float()


def _mel(hertz: Tensor) -> Tensor:
    return torch.where(hertz < 1000, hertz * 3 / 200, 15 + torch.log(hertz.clamp_min(1) / 1000) * 27 / 1.8562979903656)


def _hertz(mel: Tensor) -> Tensor:
    return torch.where(mel < 15, mel * 200 / 3, 1000 * torch.exp((mel - 15) * 1.8562979903656 / 27))


def si_sdr_db(samples_BS: Tensor, reference_BS: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio of every sound, decibels within +-SI_SDR_CAP_DB; higher is nearer.

    Both lose their mean, then the reference is scaled to the sound by least squares. Silence against anything is at the
    lower cap, also against silence: there is no signal to speak of.

    Raises:
        ShapeError: sounds of unlike shapes.

    Source: Le Roux et al. 2018, arXiv 1811.02508.
    """
    _check(samples_BS, reference_BS)
    estimate_BS, target_BS = (x.double() - x.double().mean(dim=1, keepdim=True) for x in (samples_BS, reference_BS))
    energy_B1 = target_BS.square().sum(dim=1, keepdim=True)
    scale_B1 = (estimate_BS * target_BS).sum(dim=1, keepdim=True) / energy_B1.clamp_min(1e-30)
    signal_BS = scale_B1 * target_BS
    signal_B, distortion_B = signal_BS.square().sum(dim=1), (estimate_BS - signal_BS).square().sum(dim=1)
    least = 10 ** (-SI_SDR_CAP_DB / 10)
    # 1e-30 stands for silence on both sides: nothing over nothing is at the lower cap.
    ratio_B = torch.where(signal_B > 1e-30, signal_B / distortion_B.clamp_min(1e-30), least)
    return (10 * ratio_B.log10()).clamp(-SI_SDR_CAP_DB, SI_SDR_CAP_DB).float()


def stoi(samples_S: Tensor, reference_S: Tensor, rate_hz: int) -> float:
    """Short-time objective intelligibility of speech, about 0 to 1. Needs `pip install pystoi`.

    Raises:
        MissingExtra: pystoi is not installed. ShapeError: sounds of unlike shapes.

    Source: Taal et al. 2011, IEEE TASLP 19(7).
    """
    _check(samples_S.unsqueeze(0), reference_S.unsqueeze(0))
    judge = _import("pystoi").stoi
    return float(judge(reference_S.double().numpy(), samples_S.double().numpy(), rate_hz))


def pesq_mos(samples_S: Tensor, reference_S: Tensor, rate_hz: int) -> float:
    """Wide-band PESQ, a predicted opinion score of about 1 to 4.6. Needs `pip install pesq` and speech at 16 kHz.

    Raises:
        MissingExtra: pesq is not installed. ShapeError: sounds of unlike shapes, another rate.
        UsageError: no utterance is found in one of them, or they are too short to judge.

    Source: ITU-T P.862.2.
    """
    _check(samples_S.unsqueeze(0), reference_S.unsqueeze(0))
    if rate_hz != 16_000:
        raise ShapeError(f"wide-band PESQ is defined at 16000 Hz, got {rate_hz}; resample first")
    judge = _import("pesq")
    try:
        return float(judge.pesq(rate_hz, reference_S.double().numpy(), samples_S.double().numpy(), "wb"))
    except judge.PesqError as error:
        raise UsageError(f"PESQ cannot judge this ({error}); give longer speech") from error


def _import(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtra(f"this figure needs {package}: pip install {package}") from error


def _check(samples_BS: Tensor, reference_BS: Tensor) -> None:
    if samples_BS.ndim != 2 or samples_BS.shape != reference_BS.shape or samples_BS.shape[1] == 0:
        raise ShapeError(
            f"sounds are compared as two samples_BS of one shape, got {tuple(samples_BS.shape)} and "
            f"{tuple(reference_BS.shape)}; resample or cut one of them"
        )

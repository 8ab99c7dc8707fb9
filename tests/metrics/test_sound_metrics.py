"""Distances of sounds: zero for equal ones, known values for known changes, and the definitions they claim."""

from __future__ import annotations

import importlib.util
import math

import pytest
import torch

from kinolex.errors import MissingExtra, ShapeError
from kinolex.metrics.sound import (
    SI_SDR_CAP_DB,
    WINDOWS_AND_BANDS,
    magnitudes,
    mel_filters,
    multi_scale_mel_distance,
    pesq_mos,
    si_sdr_db,
    stoi,
)


def noise_BS(seed: int = 0, samples: int = 8_000) -> torch.Tensor:
    return torch.randn(2, samples, generator=torch.Generator().manual_seed(seed)) * 0.1


def test_equal_sounds_are_at_no_distance_and_the_order_does_not_matter() -> None:
    a_BS, b_BS = noise_BS(0), noise_BS(1)
    assert torch.equal(multi_scale_mel_distance(a_BS, a_BS, 16_000), torch.zeros(2))
    assert bool((multi_scale_mel_distance(a_BS, b_BS, 16_000) > 0.05).all())
    torch.testing.assert_close(
        multi_scale_mel_distance(a_BS, b_BS, 16_000), multi_scale_mel_distance(b_BS, a_BS, 16_000)
    )


def test_a_gain_moves_every_band_by_its_logarithm() -> None:
    a_BS = noise_BS()
    torch.testing.assert_close(
        multi_scale_mel_distance(a_BS * 10 ** (6 / 20), a_BS, 16_000), torch.full((2,), 6 / 20), atol=2e-3, rtol=0
    )


def test_magnitudes_are_those_of_torch_stft() -> None:
    a_BS = noise_BS()
    window = torch.hann_window(512)
    expected = torch.stft(a_BS, 512, 128, window=window, pad_mode="constant", return_complex=True).abs()
    torch.testing.assert_close(magnitudes(a_BS, 512), expected.transpose(1, 2), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("window", "bands"), WINDOWS_AND_BANDS[2:])
def test_filters_have_area_one_and_peaks_in_slaneys_places(window: int, bands: int) -> None:
    filters = mel_filters(window, bands, 16_000)
    assert filters.shape == (window // 2 + 1, bands) and float(filters.min()) >= 0
    wide = filters[:, -bands // 4 :]  # of many bins each, so that the sum is close to the area
    torch.testing.assert_close(wide.sum(dim=0) * 16_000 / window, torch.ones(wide.shape[1]), atol=0.1, rtol=0)
    # Slaney: linear below 1 kHz, 200/3 Hz a mel, then a factor of 6.4 in 27 mels.
    top = 15 + 27 * math.log(8) / math.log(6.4)
    mels = [top * (band + 1) / (bands + 1) for band in range(bands)]
    hertz = [mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27) for mel in mels]
    peaks = filters.argmax(dim=0) * 16_000 / window
    assert float((peaks - torch.tensor(hertz)).abs().max()) <= 16_000 / window


def test_si_sdr_is_the_ratio_of_signal_to_added_noise_whatever_the_gain() -> None:
    generator = torch.Generator().manual_seed(0)
    clean_BS = torch.randn(1, 100_000, generator=generator)
    noisy_BS = clean_BS + 10 ** (-12 / 20) * torch.randn(1, 100_000, generator=generator)
    assert float(si_sdr_db(noisy_BS, clean_BS)) == pytest.approx(12.0, abs=0.1)
    torch.testing.assert_close(si_sdr_db(0.01 * noisy_BS - 3.0, clean_BS), si_sdr_db(noisy_BS, clean_BS))


def test_si_sdr_stays_finite() -> None:
    a_BS, silence_BS = noise_BS(), torch.zeros(2, 8_000)
    assert torch.equal(si_sdr_db(a_BS, a_BS), torch.full((2,), SI_SDR_CAP_DB))
    for pair in ((silence_BS, a_BS), (a_BS, silence_BS), (silence_BS, silence_BS)):
        assert torch.equal(si_sdr_db(*pair), torch.full((2,), -SI_SDR_CAP_DB))


def test_unlike_or_empty_sounds_are_refused() -> None:
    with pytest.raises(ShapeError, match="resample or cut"):
        multi_scale_mel_distance(noise_BS(), noise_BS(samples=7_999), 16_000)
    with pytest.raises(ShapeError):
        si_sdr_db(torch.zeros(1, 0), torch.zeros(1, 0))


@pytest.mark.parametrize(("judge", "package"), [(stoi, "pystoi"), (pesq_mos, "pesq")])
def test_judges_of_speech_prefer_the_clean_one_or_name_the_package_they_need(judge, package: str) -> None:  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(0)
    # Like speech in loudness: bursts of noise and tone, three a second.
    times = torch.arange(32_000) / 16_000
    voice_S = torch.sin(2 * torch.pi * 220 * times) + 0.5 * torch.randn(32_000, generator=generator)
    speech_S = 0.3 * voice_S * torch.sin(2 * torch.pi * 1.5 * times).square()
    if importlib.util.find_spec(package) is None:
        with pytest.raises(MissingExtra, match=f"pip install {package}"):
            judge(speech_S, speech_S, 16_000)
        return
    noisy_S = speech_S + 0.3 * torch.randn(32_000, generator=generator)
    assert judge(speech_S, speech_S, 16_000) > judge(noisy_S, speech_S, 16_000)

"""Resampling: tones keep their pitch, lengths are as stated, pieces make no difference."""

from __future__ import annotations

import pytest
import torch

from kinolex.errors import UsageError
from kinolex.media.resample import Resampler, resample_sound
from kinolex.types import Sound


def tone(hertz: float, rate_hz: int, samples: int) -> torch.Tensor:
    return 0.5 * torch.sin(2 * torch.pi * hertz * torch.arange(samples) / rate_hz).unsqueeze(0)


@pytest.mark.parametrize(("from_hz", "to_hz"), [(8_000, 16_000), (44_100, 16_000), (48_000, 16_000), (16_000, 44_100)])
def test_a_tone_is_the_same_tone_at_the_other_rate_in_place(from_hz: int, to_hz: int) -> None:
    made = resample_sound(Sound(tone(440, from_hz, from_hz), from_hz), to_hz)
    assert made.rate_hz == to_hz and made.num_samples == to_hz
    inner = slice(to_hz // 10, -to_hz // 10)  # where no edge is heard
    torch.testing.assert_close(made.samples_CS[:, inner], tone(440, to_hz, to_hz)[:, inner], atol=2e-3, rtol=0)


@pytest.mark.parametrize("samples", [0, 1, 2, 999, 11_025, 30_001])
def test_lengths_are_those_of_the_duration_to_the_nearest_sample(samples: int) -> None:
    made = resample_sound(Sound(torch.rand(2, samples) - 0.5, 44_100), 16_000)
    assert made.samples_CS.shape == (2, int(samples * 16_000 / 44_100 + 0.5))


@pytest.mark.parametrize("cut", [1_000, 4_001, 50_000])
def test_pieces_give_the_same_samples_as_the_whole(cut: int) -> None:
    torch.manual_seed(0)
    sound = Sound(torch.rand(2, 40_000) - 0.5, 44_100)
    resampler = Resampler(44_100, 16_000, 2)
    parts = [resampler.push(part) for part in sound.samples_CS.split(cut, dim=1)]
    joined_CS = torch.cat([*parts, resampler.flush()], dim=1)
    assert torch.equal(joined_CS, resample_sound(sound, 16_000).samples_CS)


def test_the_same_rate_changes_nothing() -> None:
    sound = Sound(torch.rand(1, 1_234), 16_000)
    assert torch.equal(resample_sound(sound, 16_000).samples_CS, sound.samples_CS)


def test_no_rate_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1 Hz"):
        resample_sound(Sound(torch.rand(1, 10), 16_000), 0)

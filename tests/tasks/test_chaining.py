"""Windows of a long stream: equally long, overlapping in what is given, and never apart in time."""

from __future__ import annotations

import itertools

import pytest
import torch

from kinolex.errors import ConfigError, UsageError
from kinolex.tasks.chaining import chain_of

CHAIN = chain_of(5, 71, 50 / 3)


def test_a_step_is_the_longest_that_lasts_a_whole_number_of_sound_frames() -> None:
    assert (CHAIN.latent_stride, CHAIN.sound_stride, CHAIN.given_latents, CHAIN.given_sound) == (3, 50, 2, 21)
    assert chain_of(3, 8, 3.0).latent_stride == 2
    with pytest.raises(ConfigError, match="cannot be chained"):
        chain_of(3, 19, 6.25)


def test_a_window_begins_with_what_the_one_before_it_ends_with() -> None:
    video_thw, sound_Qt = torch.arange(11).view(11, 1, 1), torch.arange(2 * 171).view(2, 171)
    assert CHAIN.windows(11, 171) == 3
    windows = [CHAIN.window(number, video_thw, sound_Qt) for number in range(3)]
    for (earlier_thw, earlier_Qt), (later_thw, later_Qt) in itertools.pairwise(windows):
        assert torch.equal(earlier_thw[CHAIN.latent_stride :], later_thw[: CHAIN.given_latents])
        assert torch.equal(earlier_Qt[:, CHAIN.sound_stride :], later_Qt[:, : CHAIN.given_sound])
    assert all(part_thw.shape == (5, 1, 1) and part_Qt.shape == (2, 71) for part_thw, part_Qt in windows)
    assert CHAIN.windows(4, 71) == 0 and CHAIN.windows(5, 71) == 1 and CHAIN.windows(11, 170) == 2
    with pytest.raises(UsageError, match="no window 3"):
        CHAIN.window(3, video_thw, sound_Qt)


def test_pictures_and_sound_stay_together_for_ten_minutes() -> None:
    frames_per_latent, rate_hz, sound_hz = 4, 12, 50
    for number in range(600):
        latent, heard = number * CHAIN.latent_stride, number * CHAIN.sound_stride
        # The last picture of latent frame n is picture 4 n: it begins when the window's sound does.
        assert frames_per_latent * latent * sound_hz == heard * rate_hz

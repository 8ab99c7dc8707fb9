"""Digits chosen by cost: what they take is what is written, and some of them are not free."""

from __future__ import annotations

import pytest
import torch

from kinolex.codec.rate import DigitChooser
from kinolex.codec.stream import estimate_bits
from tests.codec.codec_examples import random_prior

LEVELS = (5, 4, 3)
PRIOR = random_prior(LEVELS)


def places_thwD(frames: int) -> torch.Tensor:
    places = torch.rand(frames, 5, 6, len(LEVELS), generator=torch.Generator().manual_seed(1))
    return places * (torch.tensor(LEVELS) - 1)


@pytest.mark.parametrize("rounded", [0, 1, 2])
def test_frame_after_frame_takes_the_bits_that_the_whole_is_estimated_at(rounded: int) -> None:
    chooser, places = DigitChooser(PRIOR, 0.5), places_thwD(4)
    digits = torch.stack([chooser(places_hwD, rounded) for places_hwD in places])
    assert chooser.bits == pytest.approx(estimate_bits(digits, PRIOR), rel=1e-6)


@pytest.mark.parametrize("rounded", [0, 1, 3])
def test_digits_that_are_not_free_are_rounded_and_the_others_get_cheaper(rounded: int) -> None:
    places = places_thwD(3)
    plain, weighing, changed = DigitChooser(PRIOR, 0.0), DigitChooser(PRIOR, 4.0), 0
    for places_hwD in places:
        nearest = places_hwD.round().long()
        assert torch.equal(plain(places_hwD, rounded), nearest)
        chosen = weighing(places_hwD, rounded)
        assert torch.equal(chosen[..., :rounded], nearest[..., :rounded])
        changed += int((chosen != nearest).sum())
    assert (changed == 0) == (rounded == len(LEVELS))
    assert weighing.bits < 0.97 * plain.bits or rounded == len(LEVELS)

from __future__ import annotations

import sys
from fractions import Fraction

import pytest
import torch

from kinolex.errors import ShapeError
from kinolex.media import fit_short_side, resize, resize_frames
from kinolex.types import Clip, Sound


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (32, 48), (100, 31)])
def test_flat_frames_stay_flat_at_any_size(size) -> None:
    frames_TCHW = torch.full((2, 3, 32, 48), 77, dtype=torch.uint8)

    resized = resize_frames(frames_TCHW, *size)

    assert resized.shape == (2, 3, *size) and resized.dtype == torch.uint8
    assert (resized == 77).all()


def test_shrinking_averages_and_does_not_skip() -> None:
    checker_HW = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * 255
    frames_TCHW = checker_HW.to(torch.uint8).expand(1, 3, 64, 64)

    small = resize_frames(frames_TCHW, 8, 8)

    assert (small.int() - 127).abs().max() <= 2


def test_shrinking_keeps_the_mean_of_noise() -> None:
    torch.manual_seed(0)
    frames_TCHW = torch.randint(0, 256, (3, 3, 96, 128), dtype=torch.uint8)

    small = resize_frames(frames_TCHW, 24, 32)

    assert abs(float(small.float().mean()) - float(frames_TCHW.float().mean())) < 1


def test_the_same_size_returns_the_same_frames() -> None:
    frames_TCHW = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    assert resize_frames(frames_TCHW, 5, 7) is frames_TCHW


def test_groups_of_frames_equal_one_by_one(monkeypatch) -> None:
    torch.manual_seed(0)
    frames_TCHW = torch.randint(0, 256, (5, 3, 20, 30), dtype=torch.uint8)
    together = resize_frames(frames_TCHW, 13, 17)
    monkeypatch.setattr(sys.modules[resize_frames.__module__], "CHUNK_PIXELS", 1)

    assert torch.equal(resize_frames(frames_TCHW, 13, 17), together)


@pytest.mark.parametrize(("height", "width", "expected"), [(40, 60, (20, 30)), (61, 40, (31, 20)), (20, 20, (20, 20))])
def test_fit_short_side_keeps_the_aspect_rate_and_sound(height, width, expected) -> None:
    sound = Sound(torch.zeros(1, 10), 8000)
    clip = Clip(torch.zeros(2, 3, height, width, dtype=torch.uint8), Fraction(30000, 1001), sound)

    fitted = fit_short_side(clip, 20)

    assert (fitted.height, fitted.width) == expected
    assert fitted.fps == clip.fps and fitted.sound is sound


def test_impossible_sizes_are_named() -> None:
    clip = Clip(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), Fraction(1))
    for call in (lambda: resize(clip, 0, 4), lambda: fit_short_side(clip, 0)):
        with pytest.raises(ShapeError, match="at least 1 pixel"):
            call()
    with pytest.raises(ShapeError, match="uint8"):
        resize_frames(clip.frames_TCHW.float(), 2, 2)

"""Fidelity metrics against references and their stated properties."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kinolex.errors import ShapeError, UsageError
from kinolex.metrics import (
    PSNR_CAP_DB,
    flicker,
    ms_ssim,
    ms_ssim_loss_B,
    num_scales,
    psnr_db,
    psnr_db_frame_mean,
    seam,
    ssim,
)

ALL = [psnr_db, psnr_db_frame_mean, ssim, ms_ssim, flicker, lambda a, b: seam(a, b, [1])]
BEST = [PSNR_CAP_DB, PSNR_CAP_DB, 1.0, 1.0, 0.0, 1.0]


def picture_pair(height: int, width: int, frames: int = 2, noise: float = 20.0) -> tuple[Tensor, Tensor]:
    """A smooth picture and the same with noise, uint8."""
    generator = torch.Generator().manual_seed(height * width)
    coarse = torch.rand(frames, 3, height // 8 + 2, width // 8 + 2, generator=generator) * 255
    smooth = F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 255)
    noisy = smooth + noise * torch.randn(smooth.shape, generator=generator)
    return smooth.round().to(torch.uint8), noisy.clamp(0, 255).round().to(torch.uint8)


@pytest.mark.parametrize(("metric", "best"), list(zip(ALL, BEST, strict=True)))
@pytest.mark.parametrize("level", [0, 128, 255])
def test_equal_clips_get_the_best_value(metric, best: float, level: int) -> None:
    clip_TCHW = torch.full((3, 3, 16, 20), level, dtype=torch.uint8)

    assert metric(clip_TCHW, clip_TCHW) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("shape", [(3, 3, 16, 16), (1, 3, 1, 1), (2, 1, 5, 40), (2, 3, 11, 12)])
def test_extremes_give_finite_numbers(metric, shape: tuple[int, ...]) -> None:
    if metric is ALL[5] and shape[0] == 1:
        pytest.skip("one frame has no chunk boundary to be given")
    black, white = torch.zeros(shape, dtype=torch.uint8), torch.full(shape, 255, dtype=torch.uint8)

    assert math.isfinite(metric(black, white)) and math.isfinite(metric(black, black))


@pytest.mark.parametrize("metric", ALL[:5])
def test_other_shapes_are_refused(metric) -> None:
    with pytest.raises(ShapeError, match="one shape"):
        metric(torch.zeros(2, 3, 16, 16), torch.zeros(1, 3, 16, 16))


def test_psnr_of_a_known_error() -> None:
    black = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    off = black.clone()
    off[0] = 10  # frame 0 is wrong by 10 everywhere, frame 1 is perfect

    assert psnr_db(black, off) == pytest.approx(10 * math.log10(255**2 / 50))
    assert psnr_db_frame_mean(black, off) == pytest.approx((10 * math.log10(255**2 / 100) + PSNR_CAP_DB) / 2)


@pytest.mark.parametrize("size", [(192, 176), (256, 192)])
def test_ssim_and_ms_ssim_equal_the_reference_implementation(size: tuple[int, int]) -> None:
    reference = pytest.importorskip("pytorch_msssim")
    a, b = picture_pair(*size)

    assert num_scales(*size) == 5
    assert ssim(a, b) == pytest.approx(float(reference.ssim(a.float(), b.float(), data_range=255)), abs=1e-5)
    assert ms_ssim(a, b) == pytest.approx(float(reference.ms_ssim(a.float(), b.float(), data_range=255)), abs=1e-5)


def test_ssim_follows_its_definition_written_plainly() -> None:
    a, b = (clip[:1, :1].double() for clip in picture_pair(12, 13, frames=1))
    place = torch.arange(11.0, dtype=torch.float64) - 5
    window = torch.exp(-(place[:, None] ** 2 + place[None] ** 2) / 4.5)
    window /= window.sum()
    values = []
    for row in range(2):
        for column in range(3):
            x, y = (clip[0, 0, row : row + 11, column : column + 11] for clip in (a, b))
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            cov = (window * (x - mx) * (y - my)).sum()
            values.append(
                (2 * mx * my + 6.5025) * (2 * cov + 58.5225) / ((mx**2 + my**2 + 6.5025) * (vx + vy + 58.5225))
            )

    assert ssim(a, b) == pytest.approx(float(sum(values)) / 6, abs=1e-5)


@pytest.mark.parametrize(
    ("side", "scales"), [(5, 1), (11, 1), (21, 1), (22, 2), (64, 3), (128, 4), (176, 5), (1080, 5)]
)
def test_the_number_of_scales_adapts_to_the_size(side: int, scales: int) -> None:
    assert num_scales(side, 2000) == num_scales(2000, side) == scales


def test_one_scale_is_plain_ssim() -> None:
    a, b = picture_pair(20, 20)
    single = torch.stack([torch.tensor(ssim(a[:, c : c + 1], b[:, c : c + 1])) for c in range(3)])

    assert ms_ssim(a, b) == pytest.approx(float(single.mean()), abs=1e-5)


def test_more_noise_means_less_similarity() -> None:
    values = [ms_ssim(*picture_pair(128, 128, noise=noise)) for noise in (2.0, 10.0, 50.0)]

    assert 1.0 > values[0] > values[1] > values[2] > 0.0


def test_the_loss_is_one_minus_the_metric() -> None:
    a, b = picture_pair(64, 64)

    loss_B = ms_ssim_loss_B(a.float() / 127.5 - 1, b.float() / 127.5 - 1)

    assert loss_B.shape == (2,)
    assert float(loss_B.mean()) == pytest.approx(1 - ms_ssim(a, b), abs=1e-4)


@pytest.mark.parametrize("kind", ["inverted", "flat", "equal"])
def test_the_loss_has_finite_gradients_even_at_its_edges(kind: str) -> None:
    target = picture_pair(48, 48, frames=1)[0].float() / 127.5 - 1
    guess = {"inverted": -target, "flat": torch.zeros_like(target), "equal": target.clone()}[kind].requires_grad_(True)

    loss_B = ms_ssim_loss_B(guess, target)
    loss_B.sum().backward()

    assert bool(torch.isfinite(loss_B).all()) and bool(torch.isfinite(guess.grad).all())


def test_descending_the_loss_brings_the_picture_back() -> None:
    target, guess = (clip.float() / 127.5 - 1 for clip in picture_pair(32, 32, frames=1))
    guess.requires_grad_(True)
    optimizer = torch.optim.Adam([guess], lr=0.02)
    before = float(ms_ssim_loss_B(guess.detach(), target))
    for _ in range(40):
        optimizer.zero_grad()
        ms_ssim_loss_B(guess, target).sum().backward()
        optimizer.step()

    assert float(ms_ssim_loss_B(guess.detach(), target)) < 0.3 * before


def test_autocast_does_not_touch_the_loss() -> None:
    a, b = (clip.float() / 127.5 - 1 for clip in picture_pair(32, 32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = ms_ssim_loss_B(a, b)

    assert torch.equal(inside, ms_ssim_loss_B(a, b))


def test_flicker_ignores_errors_that_stand_still_and_counts_those_that_move() -> None:
    original = torch.full((4, 3, 8, 8), 100, dtype=torch.uint8)
    blinking = original.clone()
    blinking[1::2] += 6

    assert flicker(original, original + 30) == 0.0
    assert flicker(original, blinking) == pytest.approx(6.0)
    assert flicker(original[:1], blinking[1:2]) == 0.0


def test_seam_compares_chunk_starts_with_the_rest() -> None:
    original = torch.full((9, 3, 4, 4), 100.0)
    rebuilt = original + 1.0
    even = seam(original, rebuilt, [4, 8])
    rebuilt[4] += 3.0
    rebuilt[8] += 3.0

    assert even == 1.0
    assert seam(original, rebuilt, [4, 8]) == pytest.approx((16 + 1 / 12) / (1 + 1 / 12))
    assert seam(original, rebuilt, []) == 1.0
    with pytest.raises(UsageError, match="9 frames"):
        seam(original, rebuilt, [9])

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kinolex.layers.warp import search, warp, warp_groups


def scene(height: int, width: int) -> Tensor:
    """A smooth random picture."""
    noise = torch.rand(2, 3, height + 6, width + 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return F.avg_pool2d(noise, 7, stride=1)


def field(right: float, down: float, height: int, width: int) -> Tensor:
    return torch.tensor([right, down]).view(1, 2, 1, 1).expand(2, 2, height, width)


@pytest.mark.parametrize(("right", "down"), [(0, 0), (3, -2), (-5, 1)])
def test_whole_shifts_look_up_the_very_values(right: int, down: int) -> None:
    x_BCHW = torch.rand(2, 4, 12, 16)
    rows, columns = (torch.arange(12) + down).clamp(0, 11), (torch.arange(16) + right).clamp(0, 15)
    expected = x_BCHW[:, :, rows][..., columns]
    torch.testing.assert_close(warp(x_BCHW, field(right, down, 12, 16)), expected, atol=1e-5, rtol=0)


def test_half_a_shift_is_the_mean_of_neighbours() -> None:
    x_BCHW = torch.rand(2, 1, 4, 6)
    moved = warp(x_BCHW, field(0.5, 0.0, 4, 6))
    torch.testing.assert_close(moved[..., :-1], (x_BCHW[..., :-1] + x_BCHW[..., 1:]) / 2, atol=1e-5, rtol=0)


def test_every_group_moves_by_its_own_field() -> None:
    x_BCHW = torch.rand(2, 6, 8, 8)
    shifts = torch.cat([field(1, 0, 8, 8), field(0, -2, 8, 8)], dim=1)
    apart = [warp(x_BCHW[:, :3], shifts[:, :2]), warp(x_BCHW[:, 3:], shifts[:, 2:])]
    assert torch.equal(warp_groups(x_BCHW, shifts), torch.cat(apart, dim=1))


def test_sampling_is_exact_inside_autocast() -> None:
    x_BCHW, shifts = torch.rand(2, 3, 8, 8), field(0.3, -0.7, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(warp(x_BCHW, shifts), warp(x_BCHW.clone(), shifts.clone()))
        inside = warp(x_BCHW, shifts)
    assert torch.equal(inside, warp(x_BCHW, shifts))


def test_gradients_reach_picture_and_field() -> None:
    x_BCHW, shifts = torch.rand(2, 3, 8, 8, requires_grad=True), (field(0.3, 0.2, 8, 8) + 0.0).requires_grad_()
    warp(x_BCHW, shifts).square().sum().backward()
    assert x_BCHW.grad is not None and float(x_BCHW.grad.abs().sum()) > 0
    assert shifts.grad is not None and float(shifts.grad.abs().sum()) > 0


@pytest.mark.parametrize(("right", "down"), [(0, 0), (4, -6), (-12, 2), (3, 5), (1, 0)])
def test_search_finds_the_displacement_to_half_a_pixel(right: int, down: int) -> None:
    wide = scene(96, 128)
    new, old = wide[..., 16:80, 16:112], wide[..., 16 - down : 80 - down, 16 - right : 112 - right]
    # old looks like new once one looks `right` further right and `down` further down.
    found_B2hw = search(new, old)
    assert found_B2hw.shape == (2, 2, 4, 6)
    error = (found_B2hw[:, :, 1:-1, 1:-1] - torch.tensor([right, down]).view(1, 2, 1, 1)).abs()
    assert float(error.mean()) < 0.5


def test_where_noise_hides_the_motion_blocks_go_with_their_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    wide = scene(96, 160)
    new, old = (wide[..., 16:80, 16 + right : 144 + right] for right in (0, -4))
    new, old = (view + 0.3 * torch.randn(view.shape, generator=generator) for view in (new, old))

    def mean_error() -> float:
        return float((search(new, old) - torch.tensor([4, 0]).view(1, 2, 1, 1)).abs().mean())

    together = mean_error()
    monkeypatch.setattr("kinolex.layers.warp.AGREEMENTS", 0)
    assert together < 0.7 * mean_error()


def test_what_looks_alike_everywhere_is_taken_to_stay() -> None:
    flat = torch.full((1, 3, 32, 32), 0.25)
    assert torch.equal(search(flat, flat), torch.zeros(1, 2, 2, 2))


@pytest.mark.parametrize(("height", "width"), [(16, 16), (24, 40), (56, 72)])
def test_sides_that_are_no_whole_blocks_lose_their_rest(height: int, width: int) -> None:
    picture = scene(height, width)
    assert search(picture, picture).shape == (2, 2, height // 16, width // 16)

"""The structure of a clip: motion is found to a fraction of a pixel, and nothing of the colours is left."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kinolex.data.worlds import WorldConfig, render
from kinolex.tasks.structure import MAX_SHIFT, optical_flow, structure_clip
from kinolex.types import Clip


def texture(size: int = 64, seed: int = 0) -> Tensor:
    coarse = torch.rand(1, 1, 14, 14, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (size + 32, size + 32), mode="bicubic").clamp(0, 1)


def shifted(picture: Tensor, x: float, y: float, size: int = 64) -> Tensor:
    """A window of the picture whose content has moved by (x, y)."""
    rows, columns = torch.arange(size) + 16.0 - y, torch.arange(size) + 16.0 - x
    whole = picture.shape[-1]
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)[None]
    return F.grid_sample(picture, (2 * grid + 1) / whole - 1, align_corners=False)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (1.5, -0.5), (-3.0, 2.0), (6.0, 0.0)])
def test_the_motion_of_a_texture_is_found(shift: tuple[float, float]) -> None:
    picture = texture()

    flow_12HW = optical_flow(shifted(picture, 0, 0), shifted(picture, *shift))

    inner = flow_12HW[0, :, 12:-12, 12:-12]
    assert (inner - torch.tensor(shift).view(2, 1, 1)).abs().median() < 0.1


def test_what_has_no_texture_does_not_move() -> None:
    grey = torch.full((2, 1, 32, 32), 0.4)

    assert optical_flow(grey, grey + 0.1).abs().max() < 0.05


def test_a_body_moves_against_a_ground_that_stands_still() -> None:
    config = WorldConfig(frames=5, max_bodies=1, camera=False)
    world = next(world for seed in range(100) if (world := render(seed, config)).label == "orbit")
    track_T2, size = world.tracks[0].points_T2, world.clip.height
    maps = structure_clip(world.clip).frames_TCHW.float()
    x, y = (int(value) for value in track_T2[2])
    moved = (maps[2, :2, y, x] / 255 - 0.5) * 2 * MAX_SHIFT * size / 64
    truth = torch.from_numpy(track_T2[3] - track_T2[2]).float()

    assert truth.norm() > 0.5
    assert (moved - truth).norm() < 0.35 * truth.norm() + 0.3
    assert (maps[2, :2, 2, 2] - 127.5).abs().max() < 8


def test_the_structure_does_not_know_the_colours() -> None:
    world = render(3, WorldConfig(frames=5, max_bodies=1))
    grey_T1HW = (world.clip.frames_TCHW.float() * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, True)
    colourless = Clip(grey_T1HW.round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous(), world.clip.fps)

    one, other = structure_clip(world.clip).frames_TCHW.float(), structure_clip(colourless).frames_TCHW.float()

    assert (one - other).abs().mean() < 2.0


def test_an_image_has_edges_and_no_motion() -> None:
    picture = (texture(40)[:, :, :40, :40] * 255).to(torch.uint8).expand(1, 3, -1, -1).contiguous()

    maps_1CHW = structure_clip(Clip(picture, Fraction(1))).frames_TCHW

    assert (maps_1CHW[:, :2] == 128).all() and maps_1CHW[:, 2].float().std() > 5

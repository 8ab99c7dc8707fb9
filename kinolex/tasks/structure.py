"""The structure of a clip as a picture: how it moves and where its edges are, without what it looks like.

    frames --Lucas-Kanade--> flow (x, y)       frames --gradient--> edges        (x, y, edges) -> red, green, blue

Flow stands around grey, 127.5, and half the range is MAX_SHIFT pixels a frame; edges are the length of the gradient.

Source: VideoPoet, arXiv 2312.14125, stylisation from optical flow and depth; ours has edges in the place of depth, and
Lucas and Kanade 1981 over a pyramid in the place of a network. Maps made elsewhere may take its place.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from kinolex.types import Clip

MAX_SHIFT = 8.0
"""Pixels a frame, at a height of 64, that fill the range."""
LEVELS = 3
"""Of the pyramid."""
ROUNDS = 2
"""Refinements per level."""
SIGMA = 2.0
"""Of the window over which motion is taken to be one."""
GROUND = 1e-3
"""Added to the window's matrix: where there is no texture, nothing moves."""
EDGE_GAIN = 4.0


def structure_clip(clip: Clip) -> Clip:
    """A clip of the same size whose colours are flow and edges.

    Frame t holds the flow from frame t to frame t + 1; the last repeats the one before. An image does not move.
    """
    grey_T1HW = _grey(clip.frames_TCHW)
    flow_T2HW = torch.zeros(clip.num_frames, 2, clip.height, clip.width)
    if clip.num_frames > 1:
        flow_T2HW[:-1] = optical_flow(grey_T1HW[:-1], grey_T1HW[1:])
        flow_T2HW[-1] = flow_T2HW[-2]
    reach = MAX_SHIFT * clip.height / 64
    slope_T2HW = _gradient(grey_T1HW)
    edges_T1HW = slope_T2HW.square().sum(dim=1, keepdim=True).sqrt() * EDGE_GAIN
    maps_T3HW = torch.cat([0.5 + 0.5 * flow_T2HW / reach, edges_T1HW], dim=1)
    return Clip((maps_T3HW.clamp(0, 1) * 255).round().to(torch.uint8), clip.fps)


def optical_flow(first_T1HW: Tensor, second_T1HW: Tensor) -> Tensor:
    """Motion (x, y) in pixels [T, 2, H, W] of every pixel of the first pictures, grey in 0..1."""
    pyramid = [(first_T1HW, second_T1HW)]
    while len(pyramid) < LEVELS and min(pyramid[-1][0].shape[2:]) >= 16:
        pyramid.append((F.avg_pool2d(pyramid[-1][0], 2), F.avg_pool2d(pyramid[-1][1], 2)))
    flow_T2HW = torch.zeros(len(first_T1HW), 2, *pyramid[-1][0].shape[2:])
    for one_T1HW, two_T1HW in reversed(pyramid):
        size = (one_T1HW.shape[2], one_T1HW.shape[3])
        if flow_T2HW.shape[2:] != size:
            flow_T2HW = 2.0 * F.interpolate(flow_T2HW, size=size, mode="bilinear", align_corners=False)
        for _ in range(ROUNDS):
            flow_T2HW = flow_T2HW + _step(one_T1HW, _moved(two_T1HW, flow_T2HW))
    return flow_T2HW


def _step(one_T1HW: Tensor, two_T1HW: Tensor) -> Tensor:
    """The shift that explains, in every window, what is left between two pictures."""
    slope_T2HW = (_gradient(one_T1HW) + _gradient(two_T1HW)) / 2
    x_T1HW, y_T1HW = slope_T2HW.split(1, dim=1)
    change_T1HW = one_T1HW - two_T1HW
    products = torch.cat(
        [x_T1HW * x_T1HW, x_T1HW * y_T1HW, y_T1HW * y_T1HW, x_T1HW * change_T1HW, y_T1HW * change_T1HW], dim=1
    )
    xx, xy, yy, xc, yc = _smooth(products).unbind(dim=1)
    xx, yy = xx + GROUND, yy + GROUND
    area = xx * yy - xy * xy
    shift_T2HW = torch.stack([yy * xc - xy * yc, xx * yc - xy * xc], dim=1) / area[:, None]
    return shift_T2HW.clamp(-2.0, 2.0)


def _moved(pictures_T1HW: Tensor, flow_T2HW: Tensor) -> Tensor:
    height, width = pictures_T1HW.shape[2:]
    y_H, x_W = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    x_THW, y_THW = x_W[None, None] + flow_T2HW[:, 0], y_H[None, :, None] + flow_T2HW[:, 1]
    grid_THW2 = torch.stack([2 * x_THW / width - 1, 2 * y_THW / height - 1], dim=-1)
    return F.grid_sample(pictures_T1HW, grid_THW2, padding_mode="border", align_corners=False)


def _gradient(grey_T1HW: Tensor) -> Tensor:
    """Central differences (x, y), the border repeated."""
    wide = F.pad(grey_T1HW, (1, 1, 1, 1), mode="replicate")
    x_T1HW = (wide[:, :, 1:-1, 2:] - wide[:, :, 1:-1, :-2]) / 2
    y_T1HW = (wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1]) / 2
    return torch.cat([x_T1HW, y_T1HW], dim=1)


def _smooth(maps_TCHW: Tensor) -> Tensor:
    """Gaussian window, one axis after the other."""
    reach = round(3 * SIGMA)
    weights_K = torch.exp(-(torch.arange(-reach, reach + 1).float() ** 2) / (2 * SIGMA**2))
    weights_K = weights_K / weights_K.sum()
    frames = len(maps_TCHW)
    planes = rearrange(maps_TCHW, "t c h w -> (t c) 1 h w")
    planes = F.pad(planes, (reach, reach, reach, reach), mode="replicate")
    planes = F.conv2d(F.conv2d(planes, weights_K.view(1, 1, 1, -1)), weights_K.view(1, 1, -1, 1))
    return rearrange(planes, "(t c) 1 h w -> t c h w", t=frames)


def _grey(frames_TCHW: Tensor) -> Tensor:
    weights_C = torch.tensor([0.299, 0.587, 0.114])
    return (frames_TCHW.float() / 255 * weights_C.view(1, 3, 1, 1)).sum(dim=1, keepdim=True)

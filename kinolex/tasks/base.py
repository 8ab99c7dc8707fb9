"""A task as a value: which part of a clip is given, and what stands in for the rest while the given part is encoded.

    clip --region, fill--> padded clip --encode--> ids --hide where nothing is given--> Posed     (COMMIT's condition)

Source: MAGVIT, arXiv 2212.05199, sections 3.2 and B.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from kinolex.errors import ShapeError, UsageError
from kinolex.masks import HIDDEN
from kinolex.types import Clip, Extent, Tokens

Region = Callable[[int, int, int, int], Tensor]
"""(frames, rows, columns, leading frames given) -> known [T, H, W], bool. The same function serves pixels and tokens:
its fractions are of the whole."""

Fill = Literal["repeat", "blend", "edge", "zero"]
"""What stands in for unknown pixels: the last known frame; a blend in time of the first and the last frame; the nearest
known pixel; black."""

Encode = Callable[[Clip], Tokens]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    name: str
    summary: str
    """One line for people."""
    region: Region
    fill: Fill
    takes_class: bool = False
    """A class or caption says what to make."""

    @property
    def gives_pixels(self) -> bool:
        return bool(self.region(2, 4, 4, 1).any())


@dataclass(frozen=True, slots=True, eq=False)
class Posed:
    """A task on one clip, in tokens.

    Args:
        task: its name.
        condition_thw: int64 ids of the padded clip where a token covers anything given, HIDDEN elsewhere.
        exact_thw: bool, ids that saw no padding and are those of the clip itself.
        extent: of the clip asked for.
    """

    task: str
    condition_thw: Tensor
    exact_thw: Tensor
    extent: Extent

    @property
    def known_thw(self) -> Tensor:
        return self.condition_thw != HIDDEN


def pose(task: Task, clip: Clip, encode: Encode, pixels_per_token: tuple[int, int, int], *, given: int = 1) -> Posed:
    """Both halves of a task.

    Args:
        clip: of the size asked for; pixels outside the task's region are not looked at.
        encode, pixels_per_token: of a causal tokenizer, whose first latent frame holds one frame.
        given: leading frames that are known, where the task is to go on; rounded down to whole latent frames.

    Raises:
        UsageError: a clip too short for the task.
    """
    time = pixels_per_token[0]
    latents = 1 + (given - 1) // time
    check_length(task, clip.num_frames, given)
    if not task.gives_pixels:
        frames, rows, columns = _sizes(clip)
        grid = (1 + -(-(frames - 1) // time), -(-rows // pixels_per_token[1]), -(-columns // pixels_per_token[2]))
        return Posed(task.name, torch.full(grid, HIDDEN), torch.zeros(grid, dtype=torch.bool), clip.extent)
    known_THW = task.region(*_sizes(clip), 1 + time * (latents - 1))
    ids_thw = _one_level(encode(padded(clip, known_THW, task.fill)))
    frames, rows, columns = ids_thw.shape
    known_thw = task.region(frames, rows, columns, latents)
    # A causal tokenizer has not seen the padding yet when it encodes what comes before it.
    exact_thw = known_thw if task.fill == "repeat" else torch.zeros_like(known_thw)
    return Posed(task.name, torch.where(known_thw, ids_thw, HIDDEN), exact_thw, clip.extent)


def pose_mask(
    name: str, clip: Clip, known_THW: Tensor, encode: Encode, pixels_per_token: tuple[int, int, int]
) -> Posed:
    """A task whose known region somebody drew: a token counts as known if it covers any known pixel.

    Args:
        known_THW: bool, of the clip's frames, rows and columns.
        pixels_per_token: frames, rows and columns behind one token of a causal tokenizer (its first latent frame holds
            one frame).

    Raises:
        ShapeError: a mask of another size or dtype than the clip's.
    """
    if known_THW.dtype != torch.bool or tuple(known_THW.shape) != _sizes(clip):
        raise ShapeError(
            f"a mask for {clip.num_frames} frames of {clip.width}x{clip.height} must be bool of shape {_sizes(clip)}, "
            f"got {known_THW.dtype} of shape {tuple(known_THW.shape)}"
        )
    ids_thw = _one_level(encode(padded(clip, known_THW, "zero")))
    known_thw = tokens_known(known_THW, pixels_per_token)
    return Posed(name, torch.where(known_thw, ids_thw, HIDDEN), torch.zeros_like(known_thw), clip.extent)


def check_length(task: Task, frames: int, given: int) -> None:
    """Raises UsageError for a clip too short for the task, or nothing given where something must be."""
    if given < 1:
        raise UsageError(f"{task.name} needs at least one given frame, got {given}")
    if task.fill == "repeat" and frames <= given:
        raise UsageError(
            f"{task.name} with {given} given frames needs a longer clip than that, got {frames}; give fewer, or ask "
            "for more frames"
        )
    if task.fill == "blend" and frames < 3:
        raise UsageError(f"{task.name} makes what lies between two frames, so it needs at least 3, got {frames}")


def padded(clip: Clip, known_THW: Tensor, fill: Fill) -> Clip:
    """The clip with everything unknown filled in; its sound goes."""
    frames_TCHW, known_T1HW = clip.frames_TCHW, known_THW[:, None]
    if fill == "repeat":
        last = int(known_THW.flatten(1).any(dim=1).nonzero().max())
        index_T = torch.arange(len(frames_TCHW)).clamp(max=last)
        return Clip(frames_TCHW[index_T], clip.fps)
    if fill == "blend":
        share_T111 = torch.linspace(0.0, 1.0, len(frames_TCHW)).view(-1, 1, 1, 1)
        mixed_TCHW = frames_TCHW[:1].float().lerp(frames_TCHW[-1:].float(), share_T111)
        return Clip(torch.where(known_T1HW, frames_TCHW, mixed_TCHW.round().to(torch.uint8)), clip.fps)
    if fill == "edge":
        rows, columns = (known_THW.any(dim=0).any(dim=axis).nonzero()[:, 0] for axis in (1, 0))
        row_H = torch.arange(clip.height).clamp(int(rows.min()), int(rows.max()))
        column_W = torch.arange(clip.width).clamp(int(columns.min()), int(columns.max()))
        return Clip(frames_TCHW[:, :, row_H][:, :, :, column_W].contiguous(), clip.fps)
    return Clip(torch.where(known_T1HW, frames_TCHW, 0), clip.fps)


def tokens_known(known_THW: Tensor, pixels_per_token: tuple[int, int, int]) -> Tensor:
    """Which tokens of a causal tokenizer cover any known pixel, [t, h, w]; edges are padded as the tokenizer pads."""
    time, space, _ = pixels_per_token
    height, width = known_THW.shape[1:]
    pad = (0, -width % space, 0, -height % space, 0, 0)
    grid_THW = F.pad(known_THW[None].float(), pad, mode="replicate")[0]
    grid_Thw = F.max_pool2d(grid_THW[:, None], space)[:, 0]
    late_Thw = grid_Thw[1:]
    late_Thw = (
        F.pad(late_Thw[None], (0, 0, 0, 0, 0, -len(late_Thw) % time), mode="replicate")[0]
        if len(late_Thw)
        else late_Thw
    )
    late_thw = rearrange(late_Thw, "(t n) h w -> t n h w", n=time).amax(dim=1)
    return torch.cat([grid_Thw[:1], late_thw]) > 0


def _sizes(clip: Clip) -> tuple[int, int, int]:
    return clip.num_frames, clip.height, clip.width


def _one_level(tokens: Tokens) -> Tensor:
    if tokens.ids_Qthw.shape[0] != 1:
        raise ShapeError(f"generators know tokenizers of one level, this one has {tokens.ids_Qthw.shape[0]}")
    return tokens.ids_Qthw[0]

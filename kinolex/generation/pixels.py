"""Around a generated picture: the canvas before, known pixels put back after, and the picture while it grows."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from kinolex.errors import ShapeError, UsageError
from kinolex.masks import HIDDEN
from kinolex.media import read, resize_frames, write
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip, Extent, Tokens

FEATHER = 8
"""Pixels over which known pixels fade into generated ones."""
GREY = 118
"""Of what is not settled yet in a growing picture."""


def on_canvas(clip: Clip, rows: int, columns: int, top: int, left: int) -> tuple[Clip, Tensor]:
    """The clip on a black canvas of this size, its first row and column there, and where it lies: known [T, H, W]."""
    inside = (..., slice(top, top + clip.height), slice(left, left + clip.width))
    frames_TCHW = torch.zeros(clip.num_frames, 3, rows, columns, dtype=torch.uint8)
    frames_TCHW[inside] = clip.frames_TCHW
    known_THW = torch.zeros(clip.num_frames, rows, columns, dtype=torch.bool)
    known_THW[inside] = True
    return Clip(frames_TCHW, clip.fps, clip.sound), known_THW


def enlarged(clip: Clip, task: str) -> Clip:
    """The clip in the middle of a canvas of which it is the part that an outpainting task gives.

    Raises:
        UsageError: a task that does not outpaint a part that stands still.
    """
    scale = {"outpaint-central": (2, 2), "outpaint-vertical": (1, 2), "outpaint-horizontal": (2, 1)}.get(task)
    if scale is None:
        raise UsageError(f"only outpaint-central, -vertical and -horizontal can grow the picture, not {task}")
    rows, columns = scale[0] * clip.height, scale[1] * clip.width
    top, left = (rows // 4 if scale[0] == 2 else 0), (columns // 4 if scale[1] == 2 else 0)
    return on_canvas(clip, rows, columns, top, left)[0]


def read_mask(path: Path, frames: int, height: int, width: int) -> Tensor:
    """What an image or video mask leaves known, bool [T, H, W]: black is known, white is to be made.

    An image serves every frame. The size may be a multiple or fraction of the clip's with the same proportions.

    Raises:
        ShapeError: other proportions than the clip's, or a video mask that is shorter than the clip.
        KinolexError: as kinolex.read.
    """
    mask = read(path, max_frames=frames)
    if abs(mask.width * height - mask.height * width) > max(mask.width, mask.height):
        raise ShapeError(
            f"{path} is {mask.width}x{mask.height}, which does not have the proportions of a clip of {width}x{height}; "
            "make the mask as large as the video"
        )
    if mask.num_frames not in (1, frames) and mask.num_frames < frames:
        raise ShapeError(f"{path} has {mask.num_frames} frames for a clip of {frames}; give one frame, or as many")
    grey_THW = resize_frames(mask.frames_TCHW, height, width).float().mean(dim=1)
    return (grey_THW < 128).expand(frames, -1, -1).clone()


def put_back(made_TCHW: Tensor, original_TCHW: Tensor, known_THW: Tensor) -> Tensor:
    """Known pixels over generated ones; within FEATHER pixels of the unknown they fade into each other."""
    known_T1HW = known_THW[:, None].float()
    side = 2 * FEATHER + 1
    # The picture's own border is no border of what is known.
    padded = F.pad(known_T1HW, (FEATHER,) * 4, mode="replicate")
    inside_T1HW = (2 * F.avg_pool2d(padded, side, stride=1) - 1).clamp(0, 1) * known_T1HW
    mixed_TCHW = made_TCHW.float().lerp(original_TCHW.float(), inside_T1HW)
    return mixed_TCHW.round().clamp(0, 255).to(torch.uint8)


class Growth:
    """Collects the passes of the first window and shows them as one picture: a row per pass, frames side by side."""

    def __init__(self, tokenizer: VideoTokenizer, height: int, width: int, fps: Fraction) -> None:
        self.tokenizer, self.height, self.width, self.fps = tokenizer, height, width, fps
        self.rows: list[Tensor] = []
        self._finished = False

    def __call__(self, number: int, passes: int, ids_thw: Tensor) -> None:
        if self._finished:
            return
        self._finished = number == passes
        time, space, _ = self.tokenizer.pixels_per_token
        hidden_thw = ids_thw == HIDDEN
        neutral = int(ids_thw[~hidden_thw].median()) if bool((~hidden_thw).any()) else 0
        frames = 1 + time * (len(ids_thw) - 1)
        extent = Extent(frames=frames, height=self.height, width=self.width, fps=self.fps)
        shown_thw = torch.where(hidden_thw, neutral, ids_thw)
        clip = self.tokenizer.decode(Tokens(shown_thw[None], "video", self.tokenizer.fingerprint, extent))
        hidden_tHW = hidden_thw.repeat_interleave(space, 1).repeat_interleave(space, 2)
        hidden_tHW = hidden_tHW[:, : self.height, : self.width]
        # The last frame of every latent frame.
        frames_tCHW = clip.frames_TCHW[::time]
        self.rows.append(torch.where(hidden_tHW[:, None], GREY, frames_tCHW).permute(1, 2, 0, 3).flatten(2))

    def save(self, path: Path) -> None:
        """All passes, the first on top."""
        write(Clip(torch.cat(self.rows, dim=1).to(torch.uint8)[None].contiguous(), Fraction(1)), path)

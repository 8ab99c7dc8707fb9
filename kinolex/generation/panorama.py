"""Panoramas: a picture that is looked beyond on both sides again and again, in tokens.

    source --encode--> [ hidden ... | source | ... hidden ]
    windows, first step                  [ fixed | made ]       then    [ made | fixed ]
    second step                                  [ fixed | made ] ...
    all of them --> ids [t, h, w], decoded as one stream

A window is as large as the source: its inner half is settled, its outer half is made. So a network sees grids of one
size however wide the picture becomes, and what it made is never decoded and encoded again. In time every window goes on
as kinolex.generation.windows says, with tokens taken over.

Source: MAGVIT, arXiv 2212.05199, outpainting repeated sideways.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from kinolex.errors import ShapeError, UsageError
from kinolex.generation.pixels import on_canvas
from kinolex.generation.windows import GenerateConfig, MaskedGenerator, OnWindow
from kinolex.masks import HIDDEN
from kinolex.tasks.base import Posed
from kinolex.tasks.video import FREE_FORM
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip, Extent

GROWS = {"outpaint-vertical": 2, "outpaint-horizontal": 1}
"""The axis of [t, h, w] along which a task's panorama grows."""

MAX_SIDE = 16_384
"""Pixels of a panorama along the axis that grows: what H.264 and WebP hold."""

WINDOW_TASK = FREE_FORM
"""What windows ask a network for: the task with which it saw most often what it sees here, one hidden half on one side.

outpaint-vertical hides a quarter on both sides, outpaint-dynamic is one-sided in its first and last frames only: hidden
there and here is a third of what is hidden there or here. Of the regions that training draws for free-form (boxes in
any place, most of them through all frames), 38 of 100 come above a half with one of the four halves, and 13 above 0.6.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Panorama:
    """A source in the middle of a grid of which nothing else is known."""

    posed: Posed
    axis: int
    """1: rows are added, 2: columns."""
    steps: int
    """To each side."""
    tokens: int
    """Of the source, and of a window, along the axis."""
    window: Extent
    """Of what the network sees: the source, in whole tokens along the axis."""

    def on_canvas(self, clip: Clip) -> tuple[Clip, Tensor]:
        """The source's pixels where they lie in the whole, on black, and where they are: known [T, H, W]."""
        extent, window = self.posed.extent, self.window
        top, left = (extent.height - window.height) // 2, (extent.width - window.width) // 2
        return on_canvas(clip, extent.height, extent.width, top, left)


def check_panorama(task: str, steps: int) -> None:
    """Raises UsageError for a task that does not widen to two sides, or no step."""
    if task not in GROWS:
        raise UsageError(f"a panorama is made by {' or '.join(GROWS)}, not by {task}; choose one of them")
    if steps < 1:
        raise UsageError(f"a panorama needs 1 step or more to each side, got {steps}")


def pose_panorama(clip: Clip, task: str, steps: int, tokenizer: VideoTokenizer) -> Panorama:
    """The question in tokens.

    Args:
        clip: encoded once; along the axis that grows its right or lower edge is repeated up to whole tokens, which then
            belong to the picture.
        task: outpaint-vertical adds columns, outpaint-horizontal rows.
        steps: to each side; every one adds half of the source's tokens, rounded down.

    Returns:
        A panorama of n + 2 * steps * (n // 2) tokens along the axis, where n is the source's number of them.

    Raises:
        UsageError: as check_panorama, or more than MAX_SIDE pixels.
        ShapeError: a source narrower than two tokens along the axis.
    """
    check_panorama(task, steps)
    axis = GROWS[task]
    size, space = (clip.height, clip.width)[axis - 1], tokenizer.pixels_per_token[axis]
    tokens = -(-size // space)
    if tokens < 2:
        raise ShapeError(
            f"{task} goes on from half of the source, which needs at least two tokens of {space} pixels; this source "
            f"has {size} {'rows' if axis == 1 else 'columns'}: take a larger one, or scale it up first"
        )
    around = steps * (tokens // 2)
    wide = space * (tokens + 2 * around)
    if wide > MAX_SIDE:
        most = (MAX_SIDE // space - tokens) // (2 * (tokens // 2))
        raise UsageError(
            f"a panorama of {steps} steps from {size} {'rows' if axis == 1 else 'columns'} has {wide} of them, and "
            f"{MAX_SIDE} is the limit; ask for {most} steps at most"
        )
    ids_thw = tokenizer.encode(clip).ids_Qthw[0]
    rest = (around, around) if axis == 2 else (0, 0, around, around)
    condition_thw = F.pad(ids_thw, rest, value=HIDDEN)
    posed = Posed(task, condition_thw, condition_thw != HIDDEN, _sized(clip.extent, axis, wide))
    return Panorama(posed, axis, steps, tokens, _sized(clip.extent, axis, space * tokens))


def make_panorama(
    generator: MaskedGenerator,
    panorama: Panorama,
    config: GenerateConfig | None = None,
    *,
    on_window: OnWindow | None = None,
) -> Tensor:
    """Ids [t, h, w] of the whole; those of the source are what they were.

    Args:
        on_window: told ids of windows, each as large as panorama.window.

    Raises:
        UsageError: a model that was not trained for free-form.
    """
    config = config or GenerateConfig()
    ids_thw = panorama.posed.condition_thw.clone()
    for number, window in enumerate(_windows(panorama)):
        window_thw = ids_thw[window]
        posed = Posed(WINDOW_TASK, window_thw, window_thw != HIDDEN, panorama.window)
        tokens = generator.generate(posed, replace(config, seed=_seed(config.seed, number)), on_window=on_window)
        ids_thw[window] = tokens.ids_Qthw[0]
    return ids_thw


def _windows(panorama: Panorama) -> Iterator[tuple[slice, ...]]:
    """Where windows lie in [t, h, w]: to the right or down, then to the left or up, step by step."""
    half = panorama.tokens // 2
    for step in range(1, panorama.steps + 1):
        for start in ((panorama.steps + step) * half, (panorama.steps - step) * half):
            yield (*[slice(None)] * panorama.axis, slice(start, start + panorama.tokens))


def _sized(extent: Extent, axis: int, size: int) -> Extent:
    return replace(extent, height=size) if axis == 1 else replace(extent, width=size)


def _seed(seed: int, number: int) -> int:
    """Both sides of every step have noise of their own."""
    return int.from_bytes(hashlib.sha256(f"panorama {seed}/{number}".encode()).digest()[:7], "little")

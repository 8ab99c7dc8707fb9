"""Token grids as flat sequences and back, and the layout of a sequence that holds several of them.

    video  t h w  --rows, frame by frame-->  L
    sound  Q t    --level by level, frame by frame, or delayed-->  L        (Q levels, t frames of sound)

    Layout: [marker marker | text | marker | video ...] [marker | video ... | marker | sound ... | marker]
             `---------------- input ----------------'   `-------------------- output ------------------'

Every order is a permutation of the grid, so it is inverted exactly.

Source: VideoPoet, arXiv 2312.14125 (raster, level by level); delay: MusicGen, arXiv 2306.05284, without blank corners.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import torch
from einops import rearrange
from torch import Tensor

from kinolex.errors import ShapeError, UsageError

SoundOrder = Literal["levels", "frames", "delay"]
"""levels: the first level of the whole clip, then the second. frames: all levels of a frame, then the next frame.
delay: level q of frame t stands together with level 0 of frame t + q."""
SOUND_ORDERS: tuple[SoundOrder, ...] = get_args(SoundOrder)
Kind = Literal["marker", "text", "video", "sound"]
Role = Literal["input", "output"]


def flatten_video(ids_thw: Tensor) -> Tensor:
    """[..., t, h, w] -> [..., L], frame by frame and row by row."""
    return rearrange(ids_thw, "... t h w -> ... (t h w)")


def unflatten_video(ids_L: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """The inverse of flatten_video. Raises ShapeError for another number of tokens than the grid has."""
    _check_length(ids_L, math.prod(grid), f"a grid of {grid}")
    time, height, width = grid
    return rearrange(ids_L, "... (t h w) -> ... t h w", t=time, h=height, w=width)


def flatten_sound(ids_Qt: Tensor, order: SoundOrder = "levels") -> Tensor:
    """[..., Q, t] -> [..., L] in one of the orders."""
    levels, frames = ids_Qt.shape[-2:]
    return ids_Qt.flatten(-2)[..., _sound_order(levels, frames, order)]


def unflatten_sound(ids_L: Tensor, levels: int, order: SoundOrder = "levels") -> Tensor:
    """The inverse of flatten_sound. Raises ShapeError for a number of tokens that is no multiple of the levels."""
    if levels < 1 or ids_L.shape[-1] % levels:
        raise ShapeError(f"{ids_L.shape[-1]} sound tokens cannot be {levels} levels of one length")
    frames = ids_L.shape[-1] // levels
    back_L = _sound_order(levels, frames, order).argsort()
    return ids_L[..., back_L].unflatten(-1, (levels, frames))


def sound_places(levels: int, frames: int, order: SoundOrder = "levels") -> Tensor:
    """Level and frame [L, 2] of every token of a flat sequence."""
    places_L = _sound_order(levels, frames, order)
    return torch.stack([places_L // max(frames, 1), places_L % max(frames, 1)], dim=-1)


def _sound_order(levels: int, frames: int, order: SoundOrder) -> Tensor:
    """Which element of the grid [Q, t], counted row by row, stands at each place of the sequence."""
    if order not in SOUND_ORDERS:
        raise UsageError(f"no order of sound tokens {order!r}; choose one of {', '.join(SOUND_ORDERS)}")
    grid_Qt = torch.arange(levels * frames).reshape(levels, frames)
    if order == "levels":
        return grid_Qt.flatten()
    if order == "frames":
        return grid_Qt.T.flatten()
    step_Qt = torch.arange(frames) + torch.arange(levels)[:, None]
    level_Qt = torch.arange(levels)[:, None].expand(levels, frames)
    return (step_Qt * levels + level_Qt).flatten().argsort()


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A run of tokens of one kind.

    Raises:
        ShapeError: a grid that does not fit the kind, or an empty one.
    """

    kind: Kind
    role: Role
    grid: tuple[int, ...]
    """(tokens,) of markers and text, (t, h, w) of video, (levels, frames) of sound."""
    start: int = 0
    """Frames of the whole clip before the first one here: latent frames of video, frames of sound."""
    order: SoundOrder = "levels"
    begins: bool = True
    """Whether frame 0 of the whole clip begins a stream of the video tokenizer; false for windows out of the middle."""

    def __post_init__(self) -> None:
        axes = {"marker": 1, "text": 1, "video": 3, "sound": 2}
        if len(self.grid) != axes[self.kind] or min(self.grid) < 1 or self.start < 0:
            raise ShapeError(f"a segment of {self.kind} cannot have the grid {self.grid} from {self.start} on")

    @property
    def length(self) -> int:
        return math.prod(self.grid)

    @property
    def sampled(self) -> bool:
        """Whether its tokens are to be made, and not given or forced."""
        return self.role == "output" and self.kind != "marker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A segment and where it lies in its sequence: tokens start ... stop - 1."""

    segment: Segment
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Layout:
    """All of a sequence but its ids. Sequences of equal layouts make a batch.

    Raises:
        ShapeError: nothing to be made, something given after it, or nothing before it.
    """

    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        roles = [segment.role for segment in self.segments]
        if not any(segment.sampled for segment in self.segments) or self.segments[0].sampled:
            raise ShapeError("a sequence needs something that is given and then something to be made")
        if roles != sorted(roles):
            raise ShapeError("in a sequence all input comes before all output")

    @property
    def length(self) -> int:
        return sum(segment.length for segment in self.segments)

    @property
    def prefix(self) -> int:
        """Tokens before the first that is to be made; these see each other in both directions."""
        return next(iter(self.outputs())).start

    @property
    def stop(self) -> int:
        """One past the last token that is to be made."""
        return max(span.stop for span in self.outputs())

    def spans(self) -> tuple[Span, ...]:
        return _spans(self)

    def outputs(self) -> Iterator[Span]:
        """What is to be made, in order."""
        return (span for span in _spans(self) if span.segment.sampled)


@lru_cache(maxsize=1024)
def _spans(layout: Layout) -> tuple[Span, ...]:
    spans, start = [], 0
    for segment in layout.segments:
        spans.append(Span(segment=segment, start=start, stop=start + segment.length))
        start += segment.length
    return tuple(spans)


def _check_length(ids_L: Tensor, wanted: int, what: str) -> None:
    if ids_L.shape[-1] != wanted:
        raise ShapeError(f"{what} has {wanted} tokens, got {ids_L.shape[-1]}")

"""One space of ids for everything a sequence may hold.

    | special | task | text | video | sound level 0 | sound level 1 | ... |
      markers   one id per kind of output    ids of each tokenizer, moved by where its range begins

Whoever needs an id asks here: nothing else knows where a range begins.

Source: VideoPoet, arXiv 2312.14125, section 3 (special tokens, disjoint ids for every level of sound).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kinolex.errors import ConfigError, ShapeError, UsageError

MARKERS = (
    "pad",
    "hidden",
    "bos",
    "eos",
    "text_begin",
    "text_end",
    "video_in_begin",
    "video_in_end",
    "sound_in_begin",
    "sound_in_end",
    "video_out_begin",
    "video_out_end",
    "sound_out_begin",
    "sound_out_end",
)
"""Special ids of every vocabulary. `pad` fills a text up to the length of its place; `hidden` stands for video tokens
of which nothing is known."""

OUTPUTS = ("video", "sound", "video-and-sound", "text")
"""Tasks are told apart by what they make alone, as in the paper: what is given says the rest."""

RANGES = ("special", "task", "text", "video", "sound")


@dataclass(frozen=True, slots=True)
class Range:
    """Ids start ... stop - 1."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __contains__(self, token: int) -> bool:
        return self.start <= token < self.stop


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """Sizes of the ranges, and ids both ways.

    Raises:
        ConfigError: empty ranges, factors that do not multiply to the video vocabulary, or a name that is there twice.
    """

    text_size: int
    """Ids of the text tokenizer, or words of the closed list."""
    video_size: int
    """Ids of the video tokenizer."""
    video_factors: tuple[int, ...] = ()
    """Into which ids of a large video vocabulary are split, least significant first; none: not split."""
    sound_codes: int
    """Ids of one level of the sound tokenizer."""
    sound_levels: int
    sources: tuple[str, ...] = ()
    """Names of where clips come from; each has a marker."""
    resolutions: tuple[str, ...] = ()
    """Names of picture sizes other than the usual one, which needs no marker."""

    def __post_init__(self) -> None:
        sizes = (self.text_size, self.video_size, self.sound_codes, self.sound_levels)
        if min(sizes) < 1:
            raise ConfigError(
                f"a vocabulary needs text, video ids, sound codes and levels, at least one each, got {sizes}"
            )
        if self.video_factors and (min(self.video_factors) < 2 or math.prod(self.video_factors) != self.video_size):
            raise ConfigError(
                f"video_factors must be above 1 and multiply to {self.video_size}, got {self.video_factors}"
            )
        names = (*MARKERS, *self.sources, *self.resolutions)
        if len(set(names)) < len(names):
            raise ConfigError(
                f"names of sources and resolutions must differ from one another and from markers: {names}"
            )

    @property
    def factors(self) -> tuple[int, ...]:
        """Of a video id: its parts, or the whole."""
        return self.video_factors or (self.video_size,)

    @property
    def special(self) -> Range:
        return Range(0, len(MARKERS) + len(self.sources) + len(self.resolutions))

    @property
    def task(self) -> Range:
        return _after(self.special, len(OUTPUTS))

    @property
    def text(self) -> Range:
        return _after(self.task, self.text_size)

    @property
    def video(self) -> Range:
        return _after(self.text, self.video_size)

    @property
    def sound(self) -> Range:
        return _after(self.video, self.sound_codes * self.sound_levels)

    @property
    def size(self) -> int:
        return self.sound.stop

    def sound_level(self, level: int) -> Range:
        """Ids of one level. Raises UsageError for a level that there is not."""
        if not 0 <= level < self.sound_levels:
            raise UsageError(f"sound has levels 0..{self.sound_levels - 1}, got {level}")
        start = self.sound.start + level * self.sound_codes
        return Range(start, start + self.sound_codes)

    def range_named(self, name: str) -> Range:
        """Raises UsageError for a name that is not in RANGES."""
        if name not in RANGES:
            raise UsageError(f"no range {name!r}; choose one of {', '.join(RANGES)}")
        found = getattr(self, name)
        assert isinstance(found, Range)
        return found

    def marker(self, name: str) -> int:
        """Id of a marker, a source or a resolution. Raises UsageError for any other name."""
        names = (*MARKERS, *self.sources, *self.resolutions)
        if name not in names:
            raise UsageError(f"this vocabulary has no marker {name!r}; it has {', '.join(names)}")
        return self.special.start + names.index(name)

    def task_id(self, output: str) -> int:
        """Id that asks for a kind of output. Raises UsageError for a name that is not in OUTPUTS."""
        if output not in OUTPUTS:
            raise UsageError(f"no output {output!r}; choose one of {', '.join(OUTPUTS)}")
        return self.task.start + OUTPUTS.index(output)

    def text_ids(self, own: Tensor) -> Tensor:
        """Ids of the text tokenizer -> ids here. Raises ShapeError for ids that it does not have."""
        return _moved(own, "text", Range(0, self.text_size), self.text.start)

    def own_text(self, ids: Tensor) -> Tensor:
        """The inverse of text_ids. Raises ShapeError for ids of another range."""
        return _moved(ids, "text", self.text, -self.text.start)

    def video_ids(self, own: Tensor) -> Tensor:
        """Ids of the video tokenizer -> ids here. Raises ShapeError for ids that it does not have."""
        return _moved(own, "video", Range(0, self.video_size), self.video.start)

    def own_video(self, ids: Tensor) -> Tensor:
        """The inverse of video_ids. Raises ShapeError for ids of another range."""
        return _moved(ids, "video", self.video, -self.video.start)

    def sound_ids(self, codes_Qt: Tensor) -> Tensor:
        """Codes [..., Q, t] of the first Q levels -> ids here, another range for every level.

        Raises:
            ShapeError: more levels than there are, or codes that a level does not have.
        """
        starts_Q1 = self._level_starts(codes_Qt)
        return _moved(codes_Qt, "sound", Range(0, self.sound_codes), 0) + starts_Q1

    def own_sound(self, ids_Qt: Tensor) -> Tensor:
        """The inverse of sound_ids. Raises ShapeError for ids that are not of their level's range."""
        codes_Qt = ids_Qt - self._level_starts(ids_Qt)
        return _moved(codes_Qt, "sound (counted within its level)", Range(0, self.sound_codes), 0)

    def allowed(self, *ranges: Range) -> Tensor:
        """Mask [V], bool, of the ids in any of these ranges. Raises UsageError for ids that there are not."""
        allowed_V = torch.zeros(self.size, dtype=torch.bool)
        for span in ranges:
            if not 0 <= span.start <= span.stop <= self.size:
                raise UsageError(f"this vocabulary has ids 0..{self.size - 1}, got the range {span}")
            allowed_V[span.start : span.stop] = True
        return allowed_V

    def _level_starts(self, grid_Qt: Tensor) -> Tensor:
        if grid_Qt.ndim < 2 or not 1 <= grid_Qt.shape[-2] <= self.sound_levels:
            raise ShapeError(
                f"sound needs 1 to {self.sound_levels} levels on the last axis but one, got {tuple(grid_Qt.shape)}"
            )
        levels_Q1 = torch.arange(grid_Qt.shape[-2], device=grid_Qt.device)[:, None]
        return self.sound.start + self.sound_codes * levels_Q1


def _after(before: Range, length: int) -> Range:
    return Range(before.stop, before.stop + length)


def _moved(ids: Tensor, what: str, span: Range, by: int) -> Tensor:
    if ids.dtype != torch.int64:
        raise ShapeError(f"{what} ids must be int64, got {ids.dtype}")
    if ids.numel() and not (span.start <= int(ids.min()) and int(ids.max()) < span.stop):
        raise ShapeError(
            f"{what} ids must be in {span.start}..{span.stop - 1}, got {int(ids.min())}..{int(ids.max())}; were they "
            "made by the tokenizer of this vocabulary?"
        )
    return ids + by

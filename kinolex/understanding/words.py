"""Pictures and clips as words, and the verb `describe`.

clip or file -> pictures (one, or several evenly spaced in a video) -> pyramid of words
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from kinolex import hub
from kinolex.data.pictures import square
from kinolex.errors import UsageError
from kinolex.media import VideoReader
from kinolex.tokenizers.spae import Spae
from kinolex.types import Clip

DEFAULT = "spae-nano"

OnFrames = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True, eq=False)
class Described:
    frames: tuple[int, ...]
    """Numbers of the frames that were looked at: one, or those of a short clip."""
    picture_HWC: NDArray[np.uint8]
    """What was looked at, cropped and scaled; of a short clip its middle frame."""
    layers: tuple[NDArray[np.str_], ...]
    """Words (t, h, w) of each layer, from the top."""
    prefixes_HWC: tuple[NDArray[np.uint8], ...]
    """What the first 1, 2, ... layers decode to."""


def describe(
    source: str | Path | Clip,
    model: str | Path | Spae = DEFAULT,
    *,
    pictures: int = 4,
    on_frames: OnFrames = lambda _done, _total: None,
) -> list[Described]:
    """The words of a picture, or of several pictures of a video.

    Args:
        source: any file FFmpeg reads, of which no more than the chosen frames is kept, or a clip; the square in the
            middle is looked at.
        model: a word tokenizer: shipped name, folder, hub repository, or one that is loaded.
        pictures: of a video, evenly spaced, at most; a tokenizer of clips takes its number of frames instead.
        on_frames: called as frames of a file are read.

    Raises:
        UsageError: no pictures wanted. UnknownModel: no such tokenizer. KinolexError: of the media layer.
    """
    spae = model if isinstance(model, Spae) else hub.load_spae(model)[0]
    if isinstance(source, Clip):
        chosen = _chosen(source.num_frames, spae, pictures)
        return _described(torch.stack(_squares(source, chosen.tolist(), spae)), chosen, spae)
    kept, done, last = list[Tensor](), 0, None
    with VideoReader(source) as reader:
        total = reader.info.frames or sum(clip.num_frames for clip in reader)
        chosen = _chosen(total, spae, pictures)
        for clip in reader:
            here = [int(index) - done for index in chosen[len(kept) :] if index < done + clip.num_frames]
            kept += _squares(clip, here, spae)
            done, last = done + clip.num_frames, clip
            on_frames(done, total)
    assert last is not None  # a reader gives at least one frame or raises
    # Where a file gives fewer frames than it says, its last one stands for those that are not there.
    kept += _squares(last, [-1] * (len(chosen) - len(kept)), spae)
    return _described(torch.stack(kept), chosen.clip(max=done - 1), spae)


def _chosen(frames: int, spae: Spae, pictures: int) -> NDArray[np.int64]:
    """Numbers of the frames that are looked at: the middle of each of so many equal stretches."""
    if pictures < 1:
        raise UsageError(f"describing needs at least 1 picture, got {pictures}")
    length = spae.config.pixels[0]
    count = length if length > 1 else min(pictures, frames)
    return ((np.arange(count) + 0.5) * frames / count).astype(np.int64)


def _squares(clip: Clip, chosen: list[int], spae: Spae) -> list[Tensor]:
    """The middle squares (C, H, W) of some frames, as large as the tokenizer takes them."""
    if not chosen:
        return []
    shown = Clip(clip.frames_TCHW[chosen].contiguous(), clip.fps)
    return [*square(shown, spae.config.pixels[1]).frames_TCHW]


def _described(frames_TCHW: Tensor, chosen: NDArray[np.int64], spae: Spae) -> list[Described]:
    """The words of frames of the tokenizer's size, and their numbers."""
    device, length = next(spae.parameters()).device, spae.config.pixels[0]
    pixels_BCTHW = rearrange(frames_TCHW, "(b t) c h w -> b c t h w", t=length).to(device).float() / 127.5 - 1.0
    ids = spae.encode_ids(pixels_BCTHW)
    words = np.array(spae.config.words)
    decoded = [spae.decode_ids(ids[:count]) for count in range(1, len(ids) + 1)]
    found = []
    for number in range(len(pixels_BCTHW)):
        frames = tuple(int(index) for index in chosen[number * length : (number + 1) * length])
        found.append(
            Described(
                frames,
                _to_uint8(pixels_BCTHW[number]),
                tuple(words[layer[number].cpu().numpy()] for layer in ids),
                tuple(_to_uint8(prefix_BCTHW[number]) for prefix_BCTHW in decoded),
            )
        )
    return found


def _to_uint8(pixels_CTHW: Tensor) -> NDArray[np.uint8]:
    """The middle frame."""
    middle_CHW = pixels_CTHW[:, pixels_CTHW.shape[1] // 2]
    return ((middle_CHW + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()

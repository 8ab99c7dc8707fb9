"""What a picture or clip becomes as words: printed layer by layer, and as a page with words over picture regions.

clip or file -> pictures (one, or several evenly spaced in a video) -> pyramid of words -> text, page
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from kinolex.data.pictures import square
from kinolex.errors import UsageError
from kinolex.evaluation.page import Html, figure, image_data_uri, note, page, section
from kinolex.media import VideoReader
from kinolex.tokenizers.spae import Spae
from kinolex.types import Clip

LAYERS = note(
    "Each layer adds words at evenly spaced positions. The first layers are drawn to what the picture shows; the "
    "last two correct how it looks, and their words mean nothing."
)

LAYERS_SHOWN = 4
"""In print, where the tokenizer has so many and no other number is asked for."""

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


def describe(clip: Clip, spae: Spae, *, pictures: int = 4) -> list[Described]:
    """The words of a picture, or of several pictures of a video.

    Args:
        clip: any size; the square in the middle is looked at.
        pictures: of a video, evenly spaced, at most; a tokenizer of clips takes its number of frames instead.

    Raises:
        UsageError: no pictures wanted.
    """
    chosen = _chosen(clip.num_frames, spae, pictures)
    return _described(torch.stack(_squares(clip, chosen.tolist(), spae)), chosen, spae)


def describe_file(
    source: str | Path, spae: Spae, *, pictures: int = 4, on_frames: OnFrames = lambda _done, _total: None
) -> list[Described]:
    """As describe, of a file of any length, of which no more than the chosen frames is kept.

    Args:
        source: any file FFmpeg reads.
        on_frames: called as frames are read.

    Raises:
        UsageError: no pictures wanted. KinolexError: of the media layer.
    """
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


def layers_to_show(spae: Spae, asked: int | None = None) -> int:
    """How many layers are printed. Raises UsageError where the tokenizer has no such number of them."""
    there = len(spae.config.layers)
    if asked is not None and not 1 <= asked <= there:
        raise UsageError(f"this tokenizer has {there} layers, and --layers is one of 1..{there}, got {asked}")
    return min(LAYERS_SHOWN, there) if asked is None else asked


def as_text(described: Sequence[Described], *, layers: int) -> str:
    """The first layers as rows of words, picture by picture."""
    blocks = []
    for one in described:
        lines = [f"frame {', '.join(map(str, one.frames))}"] if len(described) > 1 else []
        for words_thw in one.layers[:layers]:
            width = max(len(word) for word in words_thw.flat)
            for row in rearrange(words_thw, "t h w -> (t h) w"):
                lines.append("  ".join(f"{word:{width}}" for word in row).rstrip())
            lines.append("")
        blocks.append("\n".join(lines))
    return "\n".join(blocks).rstrip() + "\n"


def describe_page(described: Sequence[Described], title: str) -> str:
    """Words over the regions that they stand for, and what each prefix decodes to."""
    sections = []
    for one in described:
        named = "frames " if len(one.frames) > 1 else "frame "
        sections.append(section(named + ", ".join(map(str, one.frames)), *word_pictures(one)))
    return page(title, [*sections, LAYERS], lead="A picture as words of a language model, layer by layer.")


def word_pictures(one: Described) -> tuple[Html, Html]:
    """The words of every layer over the picture, and what each prefix of the layers decodes to."""
    shown = [
        (f"{len(prefix)} of {len(one.layers)} layers", image_data_uri(picture_HWC))
        for prefix, picture_HWC in ((one.layers[: count + 1], p) for count, p in enumerate(one.prefixes_HWC))
    ]
    parts = [_overlay(one.picture_HWC, words_thw[len(words_thw) // 2]) for words_thw in one.layers]
    seen = Html('<div class="row">' + "".join(f"<div>{part}</div>" for part in parts) + "</div>")
    looked = figure([("looked at", image_data_uri(one.picture_HWC)), *shown], caption="Decoded from its words")
    return seen, looked


def _overlay(picture_HWC: NDArray[np.uint8], words_hw: NDArray[np.str_]) -> Html:
    """A picture with a grid of words over it."""
    rows, columns = words_hw.shape
    size = max(3.0, min(22.0, 40.0 / columns))
    cells = "".join(
        '<span style="display:flex;align-items:center;justify-content:center;overflow:hidden;color:#fff;margin:0;'
        f'font-size:{size:.1f}px;text-shadow:0 0 3px #000,0 0 3px #000;outline:1px solid #fff3">'
        f"{html.escape(str(word))}</span>"
        for word in words_hw.flat
    )
    return Html(
        f'<div style="display:grid;grid-template:repeat({rows},1fr)/repeat({columns},minmax(0,1fr));aspect-ratio:1;'
        f'min-width:300px;background:url({image_data_uri(picture_HWC)}) 0 0/100% 100%">{cells}</div>'
    )


def _to_uint8(pixels_CTHW: Tensor) -> NDArray[np.uint8]:
    """The middle frame."""
    middle_CHW = pixels_CTHW[:, pixels_CTHW.shape[1] // 2]
    return ((middle_CHW + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()

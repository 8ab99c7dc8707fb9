"""What a picture or clip becomes as words: printed layer by layer, and as a page with words over picture regions.

clip -> pictures (one, or several evenly spaced in a video) -> pyramid of words -> text, page
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray

from kinolex.data.pictures import square
from kinolex.errors import UsageError
from kinolex.evaluation.page import Html, figure, image_data_uri, note, page, section
from kinolex.tokenizers.spae import Spae
from kinolex.types import Clip

LAYERS = note(
    "Each layer adds words at evenly spaced positions. The first layers are drawn to what the picture shows; the "
    "last two correct how it looks, and their words mean nothing."
)


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
    if pictures < 1:
        raise UsageError(f"describing needs at least 1 picture, got {pictures}")
    device, (length, side, _) = next(spae.parameters()).device, spae.config.pixels
    count = length if length > 1 else min(pictures, clip.num_frames)
    # The middle of each of `count` equal stretches.
    chosen = ((np.arange(count) + 0.5) * clip.num_frames / count).astype(int)
    cut = square(Clip(clip.frames_TCHW[torch.from_numpy(chosen)].contiguous(), clip.fps), side)
    pixels_BCTHW = rearrange(cut.frames_TCHW, "(b t) c h w -> b c t h w", t=length).to(device).float() / 127.5 - 1.0
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


def _to_uint8(pixels_CTHW: torch.Tensor) -> NDArray[np.uint8]:
    """The middle frame."""
    middle_CHW = pixels_CTHW[:, pixels_CTHW.shape[1] // 2]
    return ((middle_CHW + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()

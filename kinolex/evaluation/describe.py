"""What a picture or clip becomes as words: printed layer by layer, and as a page with words over picture regions.

understanding.words.Described -> text, page
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from kinolex.errors import UsageError
from kinolex.evaluation.page import Html, figure, image_data_uri, note, page, section
from kinolex.tokenizers.spae import Spae
from kinolex.understanding.words import Described

LAYERS = note(
    "Each layer adds words at evenly spaced positions. The first layers are drawn to what the picture shows; the "
    "last two correct how it looks, and their words mean nothing."
)

LAYERS_SHOWN = 4
"""In print, where the tokenizer has so many and no other number is asked for."""


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

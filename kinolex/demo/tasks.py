"""Ten tasks of one masked network on the clip's first window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import torch

from kinolex.demo.pictures import SHOWN_FRAMES, rows
from kinolex.evaluation.page import animation_data_uri, figure
from kinolex.generation import MaskedGenerator, Wish, compose
from kinolex.media import fit_short_side, write
from kinolex.tasks.video import TASKS
from kinolex.types import Clip

UNKNOWN = 118
"""Grey of what a task does not give."""
CAPTION = "a large red circle bounces"


def task_parts(
    clip: Clip, generator: MaskedGenerator, folder: Path, on_frames: Callable[[int, int | None], None]
) -> Sequence[str]:
    """Every task on the clip's first window: a video each, a contact sheet, and what a page shows of them."""
    folder.mkdir(exist_ok=True)
    window = 1 + generator.tokenizer.pixels_per_token[0] * (generator.config.latent_frames - 1)
    short = fit_short_side(Clip(clip.frames_TCHW[:window], clip.fps), generator.config.lines)
    side = min(short.height, short.width)
    top, left = (short.height - side) // 2, (short.width - side) // 2
    square = Clip(short.frames_TCHW[:, :, top : top + side, left : left + side].contiguous(), short.fps)
    figures, strips = [], []
    for number, task in enumerate(TASKS.values()):
        words = _class_for(generator) if task.takes_class else ""
        given = 1 if task.fill == "repeat" else None
        size = (side, side) if task.name == "class" else None
        wish = Wish(task=task.name, text=words, given=given, frames=window, size=size)
        composition = compose(None if task.name == "class" else square, wish, generator)
        made = generator.tokenizer.decode(generator.generate(composition.posed, text=words))
        known_THW = task.region(window, side, side, 1)
        given_TCHW = torch.where(known_THW[:, None], square.frames_TCHW, UNKNOWN)
        write(made, folder / f"{task.name}.mp4")
        pictures = [
            ("given", animation_data_uri(rows(given_TCHW), made.fps)),
            ("made", animation_data_uri(rows(made.frames_TCHW), made.fps)),
        ]
        figures.append(figure(pictures, caption=f"{task.name}: {task.summary}{words and f' ({words})'}"))
        shown = torch.linspace(0, window - 1, SHOWN_FRAMES).round().long()
        pair = [frames_TCHW[shown].permute(1, 2, 0, 3).flatten(2) for frames_TCHW in (given_TCHW, made.frames_TCHW)]
        strips.append(torch.cat(pair, dim=2).to(torch.uint8))
        on_frames(number + 1, len(TASKS))
    write(Clip(torch.cat(strips, dim=1)[None].contiguous(), Fraction(1)), folder / "sheet.png")
    return figures


def _class_for(generator: MaskedGenerator) -> str:
    """A caption for generators that know worlds, for others the last of their classes."""
    words = generator.config.words
    return CAPTION if "bounces" in words else words[-1] if words else ""

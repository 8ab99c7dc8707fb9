"""Pictures and words: what a probe reads in tokens, a picture as words of a language model, and words made visible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from einops import rearrange

from kinolex.data.worlds import asked_of, judge_each
from kinolex.errors import UsageError
from kinolex.evaluation.describe import LAYERS, word_pictures
from kinolex.evaluation.page import Strong, figure, file_data_uri, image_data_uri, note, table
from kinolex.generation.multimodal import USUAL, MultimodalGenerator, Request, make_of
from kinolex.media import write
from kinolex.tokenizers.spae import Spae
from kinolex.types import Clip
from kinolex.understanding import Classifier, classify, describe

ACTIONS = "probe-weizmann-nano"
"""Of what people do: the probe for videos that are no worlds."""
CAPTIONS = (
    "a large red circle bounces twice on wood",
    "a large blue square falls on metal",
    "a large yellow star slides above glass",
)
SEED = 0
SHOWN = 6
"""Frames of a made clip beside its player, in two rows."""
SHOWN_CLASSES = 3


def class_parts(source: Path, classifier: Classifier, name: str) -> Sequence[str]:
    """What the probe says of a file, the likeliest classes first."""
    try:
        found = classify(source, classifier)
    except UsageError as error:  # a video that is too short for the probe
        return [note(str(error))]
    rows: list[list[object]] = []
    for attribute, classes in found.classes.items():
        likely = [f"{label} {share:.0%}" for label, share in list(classes.items())[:SHOWN_CLASSES]]
        rows.append([attribute, Strong(likely[0]), *likely[1:], *[None] * (SHOWN_CLASSES - len(likely))])
    return [
        table(["asked", "likeliest", "second", "third"], rows),
        note(f"{name} reads tokens, never pixels; probabilities are means over {found.windows} stretches of the clip."),
    ]


def pyramid_parts(clip: Clip, spae: Spae) -> Sequence[str]:
    """One picture of the clip in words, layer by layer, and what they decode to."""
    (one,) = describe(clip, spae, pictures=1)
    return [*word_pictures(one), LAYERS]


def made_of_words(
    generator: MultimodalGenerator, folder: Path, on_captions: Callable[[int, int | None], None]
) -> Sequence[str]:
    """A file with picture and sound for every caption, players for them, and what an independent judge sees in them."""
    folder.mkdir(exist_ok=True)
    figures, rows = [], []
    for number, caption in enumerate(CAPTIONS):
        config = replace(USUAL, seed=SEED + number)
        made, _ = make_of(Request(task="text-to-both", text=caption), generator, config)
        assert made.clip is not None
        write(made.clip.with_sound(made.sound), path := folder / f"{number + 1}.mp4")
        shown = torch.linspace(0, made.clip.num_frames - 1, SHOWN).round().long()
        strip_HWC = rearrange(made.clip.frames_TCHW[shown], "(a t) c h w -> (a h) (t w) c", a=2)
        label = f"{made.tokens} tokens in {made.passes} passes"
        frames = f"frames {', '.join(map(str, shown.tolist()))}"
        pictures = [(label, file_data_uri(path)), (frames, image_data_uri(strip_HWC.contiguous()))]
        figures.append(figure(pictures, caption=f"\u201c{caption}\u201d"))
        (asked,) = asked_of(caption)
        (seen,) = judge_each(made.clip, [asked])
        right = [seen.number, seen.colour, seen.shape, seen.size, seen.motion, seen.floor]
        often = None if asked.times is None else seen.times
        rows.append([caption, *map(_said, [*right, often])])
        on_captions(number + 1, len(CAPTIONS))
    return [
        note("One sequence holds the words, the tokens of the picture and those of its sound. Press play: they sound."),
        *figures,
        table(["asked", "number", "colour", "shape", "size", "motion", "floor", "how often"], rows),
        note("Right or not as measured in the pixels by code that knows no network; the network learned for minutes."),
    ]


def _said(right: bool | None) -> Strong | str | None:
    return right if right is None else Strong("yes") if right else "no"

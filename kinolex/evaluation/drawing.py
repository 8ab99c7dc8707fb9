"""Pictures changed by a language model that never saw one, from a few examples, beside copying the last of them.

pictures --change--> before, after --words--> examples: before -> after; a query: before -> ?
query --FrozenLM--> words made --decode--> nearer to the right answer, or to what was copied?

The right answer is the true picture as its own words decode, which a model that writes every word rightly reaches
exactly. Controls, judged alike: the last example's answer (copy), the same prompt with another picture as its query
(shuffled), and the query's own words (unchanged). Distances are mean squared errors of pixels in 0..1.

Two kinds have no change of pixels. frame-prediction: before and after are two frames of a video or world.
digit-from-condition: before is the name of a digit; what is asked for is one of those shown, not the last, so the right
answer is that picture; shuffled asks for a digit that was not shown. A classifier trained here on real digits says
besides which digit is seen.

Source: in-context transformations of SPAE, Yu et al. 2023, arXiv 2306.17842; papers.md section 5.3.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from kinolex.data.pictures import DIGITS, WORLDS, Picture, list_pictures, load_earlier_and_later, moves
from kinolex.errors import DataError
from kinolex.evaluation.digits import PictureJudge, handwriting, train_picture_judge
from kinolex.evaluation.fewshot import pixels_of, words_of_pixels
from kinolex.evaluation.page import figure, image_data_uri, note, page, section, table, write_text
from kinolex.evaluation.protocol import (
    COVERAGE,
    Hashed,
    check_fields,
    heading,
    summarise,
    write_result,
)
from kinolex.generation.incontext import Writing, draw, transform
from kinolex.models.frozen_lm import FrozenLM
from kinolex.tokenizers.spae import Spae, prefix_lengths
from kinolex.types import Clip

NUM_WORLDS = 500
"""Of the test split."""
SHOWN = 3
"""Questions of each kind whose pictures stand on the page."""
MADE, COPY, SHUFFLED, UNCHANGED, RIGHT = "made", "copy", "shuffled", "unchanged", "right"

Drawn = Sequence[Mapping[str, Tensor]]
"""Pictures (C, H, W) in -1..1 of each question, by what they are."""


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to a picture, and whether the model is asked to do it or to take it back."""

    make: Callable[[Tensor, torch.Generator], Tensor]
    """pixels_BCHW in [-1, 1] -> pixels_BCHW."""
    taken_back: bool


def _noise(pixels_BCHW: Tensor, dice: torch.Generator) -> Tensor:
    return (pixels_BCHW + 0.5 * torch.randn(pixels_BCHW.shape, generator=dice)).clamp(-1, 1)


def _hole(pixels_BCHW: Tensor, _: torch.Generator) -> Tensor:
    changed_BCHW, side = pixels_BCHW.clone(), pixels_BCHW.shape[-1]
    changed_BCHW[:, :, side // 4 : side - side // 4, side // 4 : side - side // 4] = 0.0
    return changed_BCHW


def _frame(pixels_BCHW: Tensor, _: torch.Generator) -> Tensor:
    changed_BCHW, side = torch.zeros_like(pixels_BCHW), pixels_BCHW.shape[-1]
    inside = slice(side // 4, side - side // 4)
    changed_BCHW[:, :, inside, inside] = pixels_BCHW[:, :, inside, inside]
    return changed_BCHW


def _blur(pixels_BCHW: Tensor, _: torch.Generator) -> Tensor:
    side = pixels_BCHW.shape[-1]
    return F.interpolate(F.adaptive_avg_pool2d(pixels_BCHW, max(1, side // 8)), size=side, mode="bilinear")


def _dark(pixels_BCHW: Tensor, _: torch.Generator) -> Tensor:
    return 0.4 * (pixels_BCHW + 1.0) - 1.0


def _turned(pixels_BCHW: Tensor, _: torch.Generator) -> Tensor:
    return pixels_BCHW.rot90(1, dims=(2, 3))


def _shifted(pixels_BCHW: Tensor, _: torch.Generator) -> Tensor:
    return pixels_BCHW.roll(pixels_BCHW.shape[-1] // 4, dims=3)


FRAME, DIGIT = "frame-prediction", "digit-from-condition"
CHANGES: dict[str, Change] = {
    "denoise": Change(_noise, taken_back=True),
    "inpaint": Change(_hole, taken_back=True),
    "outpaint": Change(_frame, taken_back=True),
    "deblur": Change(_blur, taken_back=True),
    "brighten": Change(_dark, taken_back=True),
    "rotate": Change(_turned, taken_back=False),
    "shift": Change(_shifted, taken_back=False),
}
KINDS = (*CHANGES, FRAME, DIGIT)


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawingProtocol(Hashed):
    """Which pictures are changed, and how the model is shown it."""

    sets: tuple[str, ...] = ("digits", "worlds")
    changes: tuple[str, ...] = KINDS
    """Each is asked of the sets that can answer: frame-prediction of what moves, digit-from-condition of digits."""
    examples: int = 3
    layers: int = 3
    """Of the pyramid, from the top: what is shown, written and decoded."""
    episodes: int = 50
    """Of each set; every change is asked of the same pictures."""
    seed: int = 0
    bootstrap_draws: int = 10_000
    language_model: str = ""
    tokenizer: str = ""
    version: int = 1

    def __post_init__(self) -> None:
        needs = {
            "sets": (self.sets, f"folders of pictures, or {WORLDS}"),
            "changes": (self.changes and set(self.changes) <= set(KINDS), f"some of {', '.join(KINDS)}"),
            "examples": (self.examples >= 1, "at least 1"),
            "layers": (self.layers >= 1, "at least 1"),
            "episodes": (self.episodes >= 2, "at least 2"),
            "seed": (self.seed >= 0, "at least 0"),
        }
        check_fields("drawing", self, needs)


@dataclass(frozen=True, slots=True, eq=False)
class Questions:
    """Pictures of a set, and which of them every episode shows (all but the last) and asks about (the last)."""

    pictures: tuple[Picture, ...]
    episodes_NK: NDArray[np.int64]
    hash: str
    """16 hexadecimal digits over the names of what is shown and asked."""


def pictures_of(data: Path | None, name: str) -> list[Picture]:
    """The pictures of a set that questions are made of.

    Raises:
        MissingFile, DataError: the set is not there.
    """
    if data is None and name != WORLDS:
        raise DataError(f"drawing pictures of {name} needs the data folder; give --data")
    return list_pictures(data or Path(), name, "test", worlds=NUM_WORLDS)


def can_answer(pictures: Sequence[Picture], change: str) -> bool:
    """Whether a kind of question can be asked of a set."""
    if change == FRAME:
        return all(map(moves, pictures))
    return change != DIGIT or all(picture.label in DIGITS for picture in pictures)


def questions_of(pictures: Sequence[Picture], set_name: str, change: str, protocol: DrawingProtocol) -> Questions:
    """The episodes of a set: the same pictures for every change; for digit-from-condition the last number is that of
    the shown picture which is asked for, and what is shown has different labels.

    Raises:
        DataError: too few pictures.
    """
    size = protocol.examples + 1
    if len(pictures) < size:
        raise DataError(
            f"{protocol.examples} examples and a query need {size} pictures; {set_name} has {len(pictures)}"
        )
    dice = np.random.default_rng([zlib.crc32(set_name.encode()), protocol.examples, protocol.seed])
    if change == DIGIT:
        chosen_NK = _conditions(pictures, protocol, dice)
    else:
        chosen_NK = np.stack([dice.choice(len(pictures), size, replace=False) for _ in range(protocol.episodes)])
    names = [[pictures[index].name for index in row] for row in chosen_NK]
    used, places = np.unique(chosen_NK, return_inverse=True)
    digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]
    return Questions(tuple(pictures[index] for index in used), places.reshape(chosen_NK.shape), digest)


def _conditions(pictures: Sequence[Picture], protocol: DrawingProtocol, dice: np.random.Generator) -> NDArray[np.int64]:
    by_label: dict[str, list[int]] = {}
    for index, picture in enumerate(pictures):
        by_label.setdefault(picture.label or "", []).append(index)
    if not 2 <= protocol.examples < len(by_label):
        raise DataError(
            f"{DIGIT} needs 2 examples or more, and fewer than the {len(by_label)} digits that there are, "
            f"got {protocol.examples}; choose other examples, or leave it out"
        )
    rows = []
    for _ in range(protocol.episodes):
        labels = dice.choice(sorted(by_label), protocol.examples, replace=False)
        shown = [int(dice.choice(by_label[label])) for label in labels.tolist()]
        rows.append([*shown, shown[int(dice.integers(protocol.examples - 1))]])
    return np.array(rows)


def evaluate_change(
    lm: FrozenLM,
    spae: Spae,
    questions: Questions,
    name: str,
    protocol: DrawingProtocol,
    on_episode: Callable[[int], None] | None = None,
) -> tuple[list[dict[str, Any]], Drawn]:
    """One row per episode, and the pictures of the first ones.

    Args:
        name: of the change, or frame-prediction.
        on_episode: called with the number of episodes done.
    """
    before, after = _before_and_after(spae, questions.pictures, name, protocol)
    writing = Writing(layers=protocol.layers)
    rows, drawn = list[dict[str, Any]](), list[dict[str, Tensor]]()
    for number, row_K in enumerate(questions.episodes_NK.tolist()):
        *shown, query = row_K
        other = int(questions.episodes_NK[(number + 1) % len(questions.episodes_NK), -1])
        pairs = [(before[index], after[index]) for index in shown]
        words = {
            MADE: transform(lm, spae.config, pairs, before[query], writing),
            SHUFFLED: transform(lm, spae.config, pairs, before[other], writing),
            COPY: after[shown[-1]],
            UNCHANGED: before[query],
            RIGHT: after[query],
        }
        pixels = _decoded(spae, [*words.values(), before[shown[-1]]])
        of = dict(zip(words, pixels, strict=False))
        rows.append({"name": f"{name}/{number}"} | judged(words, of))
        if number < SHOWN:
            seen = {"last example": pixels[-1], "its answer: copy": of[COPY], "asked": of[UNCHANGED]}
            drawn.append(seen | {"right": of[RIGHT], "made": of[MADE]})
        if on_episode:
            on_episode(number + 1)
    return rows, drawn


def _before_and_after(
    spae: Spae, pictures: Sequence[Picture], name: str, protocol: DrawingProtocol
) -> tuple[list[list[str]], list[list[str]]]:
    """Words of every picture before and after a change."""
    side = spae.config.pixels[1]
    if name == FRAME:
        frames_B2HWC = np.stack([load_earlier_and_later(picture, side) for picture in pictures])
        pixels_B2CHW = torch.from_numpy(frames_B2HWC).permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0
        before, after = (words_of_pixels(spae, pixels_B2CHW[:, place], protocol.layers) for place in (0, 1))
        return before, after
    change, pixels_BCHW = CHANGES[name], pixels_of(pictures, side)
    dice = torch.Generator().manual_seed(protocol.seed)
    plain, changed = (
        words_of_pixels(spae, each_BCHW, protocol.layers) for each_BCHW in (pixels_BCHW, change.make(pixels_BCHW, dice))
    )
    return (changed, plain) if change.taken_back else (plain, changed)


def evaluate_digits(
    lm: FrozenLM,
    spae: Spae,
    questions: Questions,
    judge: PictureJudge,
    protocol: DrawingProtocol,
    on_episode: Callable[[int], None] | None = None,
) -> tuple[list[dict[str, Any]], Drawn]:
    """As evaluate_change, of digit-from-condition; NAME_digit besides: 1.0 where the judge sees the digit asked for."""
    labels = [picture.label or "" for picture in questions.pictures]
    words_B = words_of_pixels(spae, pixels_of(questions.pictures, spae.config.pixels[1]), protocol.layers)
    writing, dice = Writing(layers=protocol.layers), np.random.default_rng(protocol.seed)
    rows, drawn = list[dict[str, Any]](), list[dict[str, Tensor]]()
    for number, row_K in enumerate(questions.episodes_NK.tolist()):
        *shown, wanted = row_K
        absent = sorted(set(DIGITS) - {labels[index] for index in shown})
        pairs = [(labels[index], words_B[index]) for index in shown]
        words = {
            MADE: draw(lm, spae.config, pairs, labels[wanted], writing),
            SHUFFLED: draw(lm, spae.config, pairs, str(dice.choice(absent)), writing),
            COPY: words_B[shown[-1]],
            RIGHT: words_B[wanted],
        }
        of = dict(zip(words, _decoded(spae, [*words.values()]), strict=True))
        seen = {f"{key}_digit": float(DIGITS[_digit(judge, of[key])] == labels[wanted]) for key in words}
        rows.append({"name": f"{DIGIT}/{number}"} | judged(words, of) | seen)
        if number < SHOWN:
            names = {"last example: copy": COPY, f"{labels[wanted]}: right": RIGHT, "made": MADE}
            drawn.append({title: of[key] for title, key in names.items()})
        if on_episode:
            on_episode(number + 1)
    return rows, drawn


@torch.inference_mode()
def _digit(judge: PictureJudge, pixels_CHW: Tensor) -> int:
    return int(judge(handwriting(Clip(_to_uint8(pixels_CHW)[None], Fraction(1)))).argmax())


def judged(words: Mapping[str, Sequence[str]], pixels: Mapping[str, Tensor]) -> dict[str, float]:
    """Figures of one episode.

    Args:
        words, pixels: of MADE, SHUFFLED, COPY, RIGHT and, where there is one, UNCHANGED; pixels in [-1, 1].

    Returns:
        NAME_success: 1.0 where nearer to the right answer than to the copy; NAME_error: distance to the right answer;
        NAME_words: share of words that are the right ones.
    """
    found = {}
    for name in [each for each in (MADE, SHUFFLED, UNCHANGED, COPY) if each in words]:
        error = apart(pixels[name], pixels[RIGHT])
        if name != COPY:
            found[f"{name}_success"] = float(error == 0.0 or error < apart(pixels[name], pixels[COPY]))
        found[f"{name}_error"] = error
        found[f"{name}_words"] = float(np.mean([a == b for a, b in zip(words[name], words[RIGHT], strict=True)]))
    return found


def apart(one: Tensor, other: Tensor) -> float:
    """Mean squared error of pixels in [-1, 1], as if they were in 0..1."""
    return float((one - other).square().mean()) / 4


def over_copy(rows: Sequence[Mapping[str, Any]], protocol: DrawingProtocol) -> dict[str, float]:
    """Mean error of what was made over that of the copy, with an interval over episodes drawn with replacement."""
    errors_2N = np.array([[row[f"{name}_error"] for row in rows] for name in (MADE, COPY)])
    count = errors_2N.shape[1]
    dice = np.random.default_rng(protocol.seed)
    picks_RN = dice.integers(0, count, size=(protocol.bootstrap_draws, count))
    smallest = 1e-3 * float(errors_2N[1].mean()) or 1e-9
    above_R, below_R = errors_2N[:, picks_RN].mean(axis=2)
    tail = 100.0 * (1.0 - COVERAGE) / 2.0
    low, high = np.percentile(above_R / below_R.clip(min=smallest), [tail, 100.0 - tail])
    mean = float(errors_2N[0].mean()) / max(float(errors_2N[1].mean()), smallest)
    return {"mean": mean, "low": float(low), "high": float(high)}


def evaluate_drawing(
    lm: FrozenLM,
    spae: Spae,
    data: Path | None,
    protocol: DrawingProtocol,
    out: Path,
    *,
    name: str = "drawing",
    command: str | None = None,
    on_episodes: Callable[[int, int | None], None] | None = None,
) -> dict[str, Any]:
    """Ask every change of every set; writes out/NAME.json and out/NAME.html and returns the result.

    Raises:
        MissingFile, DataError: a set is not there. UsageError: prompts longer than the model reads, or more layers than
        the tokenizer has. TokenError: the tokenizer's words are not of this model.
    """
    pictures = {set_name: pictures_of(data, set_name) for set_name in protocol.sets}
    asked = [
        (one, change, questions_of(pictures[one], one, change, protocol))
        for one in protocol.sets
        for change in protocol.changes
        if can_answer(pictures[one], change)
    ]
    if not asked:
        raise DataError(
            f"{', '.join(protocol.changes)} cannot be asked of {', '.join(protocol.sets)}: {FRAME} needs videos or "
            f"worlds, {DIGIT} needs digits"
        )
    total, done, tasks, drawn = len(asked) * protocol.episodes, 0, dict[str, Any](), dict[str, Drawn]()
    judge = None
    for set_name, change, questions in asked:
        on_episode = None if on_episodes is None else lambda k, done=done: on_episodes(done + k, total)
        if change == DIGIT:
            judge = judge or train_picture_judge(data or Path(), seed=protocol.seed)
            rows, shown = evaluate_digits(lm, spae, questions, judge, protocol, on_episode)
        else:
            rows, shown = evaluate_change(lm, spae, questions, change, protocol, on_episode)
        drawn[f"{set_name} {change}"] = shown
        done += len(rows)
        tasks[f"{set_name} {change}"] = {
            "n": len(rows),
            "episodes_hash": questions.hash,
            "mean": summarise(rows, protocol) | {"error_over_copy": over_copy(rows, protocol)},
        }
    result = heading(name, protocol, command) | {
        "words": prefix_lengths(spae.config)[protocol.layers - 1],
        "tasks": tasks,
    }
    write_result(out / f"{name}.json", result)
    write_text(out / f"{name}.html", drawing_page(result, drawn))
    return result


def drawing_page(result: dict[str, Any], drawn: Mapping[str, Drawn]) -> str:
    """The figures of a result, and the first pictures of every kind of question."""
    share = [f"{name}_success" for name in (MADE, SHUFFLED, UNCHANGED)] + [f"{name}_words" for name in (MADE, COPY)]
    rows = []
    for name, task in result["tasks"].items():
        percent = [_interval(task["mean"].get(key), 100, 0) for key in share]
        digits = [_interval(task["mean"].get(f"{key}_digit"), 100, 0) for key in (MADE, RIGHT)]
        error = _interval(task["mean"]["error_over_copy"], 1, 2)
        rows.append([name, task["n"], *percent[:3], error, *percent[3:], *digits])
    headers = ["set and change", "n", "success", "shuffled", "unchanged", "error over copy", "words right", "of copy"]
    headers += ["digit seen", "of right"]
    explained = (
        "success: percent of pictures nearer to the right answer than to the last example's, which a model that copies "
        "would give. shuffled: the same of prompts with another picture as their query. unchanged: the same of the "
        "query's own words. error over copy: mean squared error over that of the last example's answer; below 1 is "
        "better. words right: percent. digit seen: percent of pictures in which a classifier of real digits sees the "
        "one that was asked for; of right: the same of the right answers."
    )
    shown = []
    for name, several in drawn.items():
        for pictures in several:
            shown.append(figure([(title, _uri(pixels)) for title, pixels in pictures.items()], caption=name))
    return page(
        "Pictures changed by a language model that reads and writes words",
        [section("Figures", table(headers, rows, caption="95 % intervals"), note(explained)), section("Seen", *shown)],
        lead=f"{result['command']} at {result['commit'][:12]}, {result['date']}; {result['words']} words a picture; "
        f"protocol {result['protocol_hash']}.",
    )


def _decoded(spae: Spae, words: Sequence[Sequence[str]]) -> list[Tensor]:
    """Pixels (C, H, W) of each."""
    device = next(spae.parameters()).device
    return list(spae.decode_ids([layer.to(device) for layer in spae.read(words)])[:, :, 0].cpu())


def _interval(value: Mapping[str, float] | None, scale: float, places: int) -> str:
    if value is None:
        return ""
    mean, low, high = (f"{scale * value[key]:.{places}f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def _uri(pixels_CHW: Tensor) -> str:
    return image_data_uri(_to_uint8(pixels_CHW).permute(1, 2, 0).numpy())


def _to_uint8(pixels_CHW: Tensor) -> Tensor:
    return ((pixels_CHW + 1.0) * 127.5).round().clamp(0, 255).byte()

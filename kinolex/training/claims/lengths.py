"""One layout a step wastes nothing: sequences of VideoPoet's tasks grouped by length, padded, and packed.

tasks drawn --one task a step--> batch of one layout           --drawn at random--> padded to the longest, or packed
seconds of a training step of every layout, in turns --> tokens that count per second of each way

A padded batch costs what a batch of its longest layout costs. A packed row costs what a row of its length costs,
however many sequences it holds, since attention computes what a mask then hides. So steps of each layout are timed and
all ways are composed of them; nothing is trained, so this claim stands beside those of claims/run.py.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kinolex.evaluation.protocol import Hashed
from kinolex.evaluation.row_store import RowStore, row_key
from kinolex.models.multimodal import PRESETS, MultimodalConfig, MultimodalTransformer
from kinolex.sequences import Layout, Segment, flatten_sound
from kinolex.tasks.multimodal import TASKS, Material, compose
from kinolex.training.claims.beside import Told, result_of, write_verdict
from kinolex.training.claims.lab import Say
from kinolex.training.claims.rules import COVERAGE, Finding, log_ratios, more_than
from kinolex.training.claims.scales import scale_among
from kinolex.training.config import OptimizerConfig
from kinolex.training.multimodal_losses import multimodal_loss
from kinolex.training.optimizer import Optimizers
from kinolex.vocab import Vocabulary

TOLD = Told(
    name="length-groups",
    source="VideoPoet, arXiv 2312.14125, section 4 (alternating gradient descent)",
    statement="Grouping tasks by the length of their sequences leaves almost no padding, and trains on more tokens a "
    "second than padding to the longest sequence, or packing sequences into rows of one length",
    rule="padding of grouped batches at most 2 % of their tokens; tokens that are no padding per second of training "
    "over those of padded and of packed batches: 95 % t-intervals over seeds of all log ratios above 0; fail if one "
    "lies below 0",
)
NAME = TOLD.name
GROUPED, PADDED, PACKED = "one layout a step", "padded to the longest", "packed into rows"
ARMS = (GROUPED, PADDED, PACKED)
SPEED, PADDING = "tokens_per_second", "padding"
MOST_PADDING = 0.02
VERSION = 1
"""Raised when the meaning of a figure changes."""
ROW = 2.0
"""A packed row is so many times as long as the longest sequence."""
POOL = 1.1
"""Times as many tokens are looked at as rows have places, to find sequences that fill them."""
PACKED_TIMED = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthScale:
    name: str
    network: MultimodalConfig
    grid: tuple[int, int, int]
    """Latent frames, rows and columns of a clip."""
    shortest_text: int
    """Words of a text are drawn from here up to all places there are."""
    batch: int
    """Sequences of a padded batch; a step of any way has about as many places."""
    steps: int
    """Of each way, drawn by each seed."""
    rounds: int
    """In which every layout is timed once."""
    seeds: tuple[int, ...] = (0, 1, 2)


_VOCABULARY = Vocabulary(text_size=64, video_size=4096, video_factors=(64, 64), sound_codes=1024, sound_levels=4)
_CLIP: dict[str, Any] = {"vocabulary": _VOCABULARY, "latent_frames": 5, "sound_frames": 71} | {
    "sound_frames_per_latent": 50 / 3,
    "text_length": 12,
}
SCALES: dict[str, LengthScale] = {
    scale.name: scale
    for scale in (
        LengthScale(
            name="tiny",
            network=replace(PRESETS["nano"], **_CLIP, width=32, depth=1, heads=2),
            grid=(2, 2, 2),
            shortest_text=8,
            batch=2,
            steps=4,
            rounds=1,
        ),
        LengthScale(
            name="nano",
            network=replace(PRESETS["nano"], **_CLIP),
            grid=(5, 8, 8),
            shortest_text=8,
            batch=8,
            steps=200,
            rounds=3,
        ),
        LengthScale(
            name="small",
            network=replace(PRESETS["small"], **_CLIP),
            grid=(5, 16, 16),
            shortest_text=8,
            batch=16,
            steps=1000,
            rounds=9,
            seeds=(0, 1, 2, 3, 4),
        ),
    )
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthProtocol(Hashed):
    """All that must agree before two results may be compared."""

    scale: LengthScale
    claim: str = NAME
    interval: str = f"Student's t over seeds, paired by seed, coverage {COVERAGE:g}"
    seed: int = 0
    bootstrap_draws: int = 10_000
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Step:
    """A batch: rows of one layout, and how many of its tokens are no padding."""

    layout: Layout
    rows: int
    useful: int

    @property
    def places(self) -> int:
        return self.rows * self.layout.length


scale_named = partial(scale_among, SCALES)


def reproduce_lengths(
    scale: LengthScale,
    folder: Path,
    results: Path | None = None,
    *,
    device: str = "cpu",
    command: str | None = None,
    say: Say = lambda _line: None,
) -> dict[str, Any]:
    """Test the claim, or go on where an earlier call stopped. Nothing else should run meanwhile.

    Args:
        folder: keeps finished seeds.
        results: gets reproduce_length-groups.json and its page; None writes nothing.

    Returns:
        A result in the schema of kinolex.evaluation.protocol with `verdict` and `findings`.
    """
    store, rows = RowStore(folder / f"{NAME}-{scale.name}" / "rows.jsonl"), list[dict[str, Any]]()
    for seed in scale.seeds:
        key = row_key(VERSION, asdict(scale) | {"seeds": None}, seed, device, torch.get_num_threads())
        if (row := store.get(key)) is None:
            row = store.put(key, {"figures": figures_of_seed(scale, seed, device, say)})
        rows += [{"name": f"{arm}, seed {seed}", "arm": arm, "seed": seed} | row["figures"][arm] for arm in ARMS]
    means = {
        arm: {key: statistics.fmean(row[key] for row in rows if row["arm"] == arm) for key in (SPEED, PADDING)}
        for arm in ARMS
    }
    result = result_of(TOLD, rows, findings_of(rows), means, LengthProtocol(scale=scale), scale.seeds, command)
    if results is not None:
        write_verdict(results, TOLD, result, "tokens that are no padding, over draws of tasks and timed steps")
    return result


def findings_of(rows: Sequence[dict[str, Any]]) -> list[Finding]:
    grouped, *others = ([row for row in rows if row["arm"] == arm] for arm in ARMS)
    padding = [max(row[PADDING], 1e-6) for row in grouped]
    return [
        more_than(f"padding allowed over that of {GROUPED}", log_ratios([MOST_PADDING] * len(padding), padding)),
        *(
            more_than(
                f"{SPEED} of {GROUPED} over those of {name}",
                log_ratios([row[SPEED] for row in grouped], [row[SPEED] for row in rows_of]),
            )
            for name, rows_of in zip(ARMS[1:], others, strict=True)
        ),
    ]


def figures_of_seed(scale: LengthScale, seed: int, device: str, say: Say) -> dict[str, dict[str, float]]:
    """Speed and padding of every way, from steps drawn by the seed and layouts timed in turns."""
    drawn = drawn_steps(scale, seed)
    timed = sorted({(step.layout, step.rows) for steps in drawn.values() for step in steps}, key=repr)
    seconds = seconds_of(scale, timed, device, lambda done: say(f"{NAME}, seed {seed}: round {done} of {scale.rounds}"))
    return {
        way: {
            SPEED: sum(step.useful for step in steps) / sum(seconds[step.layout, step.rows] for step in steps),
            PADDING: 1 - sum(step.useful for step in steps) / sum(step.places for step in steps),
        }
        for way, steps in drawn.items()
    }


def drawn_steps(scale: LengthScale, seed: int) -> dict[str, list[Step]]:
    """Steps of every way; all tasks are equally often posed."""
    dice = np.random.default_rng([seed, 14])
    layouts = {name: layout_of(scale, name) for name in TASKS}
    longest = max(layouts.values(), key=lambda layout: layout.length)
    budget = scale.batch * longest.length

    def useful(name: str) -> int:
        text = sum(segment.length for segment in layouts[name].segments if segment.kind == "text")
        words = int(dice.integers(scale.shortest_text, scale.network.text_length + 1))
        return layouts[name].length - (scale.network.text_length - words if text else 0)

    names = [*TASKS]
    found: dict[str, list[Step]] = {way: [] for way in ARMS}
    for _ in range(scale.steps):
        name = names[int(dice.integers(len(names)))]
        rows = budget // layouts[name].length
        found[GROUPED].append(Step(layouts[name], rows, sum(useful(name) for _ in range(rows))))
        mixed = [names[int(index)] for index in dice.integers(len(names), size=scale.batch)]
        widest = max((layouts[name] for name in mixed), key=lambda layout: layout.length)
        found[PADDED].append(Step(widest, scale.batch, sum(useful(name) for name in mixed)))
        row = round(ROW * longest.length)
        pool, rows = list[str](), max(1, budget // row)
        while sum(layouts[name].length for name in pool) < POOL * rows * row:
            pool.append(names[int(dice.integers(len(names)))])
        found[PACKED].append(_packed(layouts, pool, row, rows, useful))
    # Rows of one length cost nearly the same whatever they hold; a few stand for all.
    few = [step.layout for step in found[PACKED][:PACKED_TIMED]]
    found[PACKED] = [replace(step, layout=few[number % len(few)]) for number, step in enumerate(found[PACKED])]
    return found


def layout_of(scale: LengthScale, name: str) -> Layout:
    """Of a task on a whole clip, with a text where it takes one."""
    levels, frames = scale.network.vocabulary.sound_levels, scale.network.sound_frames
    video_thw = torch.zeros(scale.grid, dtype=torch.long)
    material = Material(
        text_P=torch.zeros(scale.shortest_text, dtype=torch.long),
        video_thw=video_thw,
        masked_thw=video_thw,
        structure_thw=video_thw,
        sound_Qt=torch.zeros(levels, frames, dtype=torch.long),
    )
    return compose(TASKS[name], material, scale.network.vocabulary, text_length=scale.network.text_length).layout


def seconds_of(
    scale: LengthScale, timed: Sequence[tuple[Layout, int]], device: str, on_round: Callable[[int], None]
) -> dict[tuple[Layout, int], float]:
    """Median seconds of a training step of every layout and number of rows, taken in turns."""
    torch.manual_seed(0)
    model = MultimodalTransformer(scale.network).to(device).train()
    optimizers = Optimizers(model, OptimizerConfig(muon_lr=0.02, adam_lr=2e-3), 1000)
    batches = {one: _random_ids(scale.network, *one).to(device) for one in timed}
    taken: dict[tuple[Layout, int], list[float]] = {one: [] for one in timed}
    for number in range(scale.rounds + 1):
        for one, ids_BL in batches.items():
            _wait(device)
            began = time.perf_counter()
            loss, _ = multimodal_loss(model, one[0], ids_BL)
            loss.backward()
            optimizers.step(number)
            model.zero_grad(set_to_none=True)
            _wait(device)
            # The first round warms up.
            if number:
                taken[one].append(time.perf_counter() - began)
        if number:
            on_round(number)
    return {one: statistics.median(values) for one, values in taken.items()}


def _packed(
    layouts: dict[str, Layout], names: Sequence[str], length: int, rows: int, useful: Callable[[str], int]
) -> Step:
    """Rows filled by sequences of some tasks, the longest first, each into the first row with room; what fits nowhere
    waits for another step, and what is left over in a row is padding.

    All rows of a step count as those of its first: they are as long, and differ little in what they hold.
    """
    room, held, counted = [length] * rows, [list[str]() for _ in range(rows)], 0
    for name in sorted(names, key=lambda name: -layouts[name].length):
        fits = next((row for row in range(rows) if layouts[name].length <= room[row]), None)
        if fits is not None:
            room[fits] -= layouts[name].length
            held[fits].append(name)
            counted += useful(name)
    segments = [segment for name in held[0] for segment in layouts[name].segments]
    if room[0]:
        segments.append(Segment(kind="text", role="input", grid=(room[0],)))
    # A layout has what is given before what is made; for the time that a row takes the order does not matter.
    return Step(Layout(tuple(sorted(segments, key=lambda segment: segment.role))), rows, counted)


def _random_ids(network: MultimodalConfig, layout: Layout, rows: int) -> Tensor:
    """Ids [B, L] that may stand in a layout."""
    vocabulary, dice, parts = network.vocabulary, torch.Generator().manual_seed(0), []
    for segment in layout.segments:
        size = (rows, segment.length)
        if segment.kind == "video":
            parts.append(torch.randint(vocabulary.video.start, vocabulary.video.stop, size, generator=dice))
        elif segment.kind == "text":
            parts.append(torch.randint(vocabulary.text.start, vocabulary.text.stop, size, generator=dice))
        elif segment.kind == "sound":
            codes = torch.randint(vocabulary.sound_codes, (rows, *segment.grid), generator=dice)
            levels = vocabulary.sound_codes * torch.arange(segment.grid[0])[:, None]
            parts.append(vocabulary.sound.start + flatten_sound(codes + levels, segment.order))
        else:
            parts.append(torch.full(size, vocabulary.marker("eos")))
    return torch.cat(parts, dim=1)


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()

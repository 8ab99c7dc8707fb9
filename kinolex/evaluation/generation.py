"""How good a generator's tasks are: beside the truth, beside what needs no network, and beside what its tokens allow.

    clip --task--> made          trivial: the condition clip itself (last frame, blend, edges, nearest pixels)
         --tokenizer--> ceiling  trivial through the tokenizer: the same blur as what is made
    sets of clips --features--> distances between sets        captions --class--> worlds --judge--> right or wrong

A distance to the one true clip punishes every other possible future; distances between sets do not. Both are told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kinolex import hub, metrics
from kinolex.data import worlds
from kinolex.data.worlds.scene import ACTIONS, COLOURS, SHAPES, SIZES
from kinolex.data.worlds.truth import Asked, judge
from kinolex.errors import UsageError
from kinolex.evaluation.generation_page import Sample, generation_page
from kinolex.evaluation.page import write_text
from kinolex.evaluation.protocol import (
    Hashed,
    ReconstructionProtocol,
    make_result,
    select_entries,
    summarise,
    write_result,
)
from kinolex.generation import GenerateConfig, MaskedGenerator
from kinolex.generation.pixels import put_back
from kinolex.media import fit_short_side, read
from kinolex.metrics import SqueezeNetFeatures
from kinolex.metrics.distribution import Features, distance, features_of, squeezenet_features
from kinolex.sampling.parallel import ParallelConfig
from kinolex.tasks.base import Posed, padded, pose
from kinolex.tasks.video import TASKS
from kinolex.types import Clip, Tokens

WORLDS = "worlds"
PIXEL_TASKS = tuple(name for name, task in TASKS.items() if task.gives_pixels and not task.takes_class)
FIRST_WORLD = 10**6
"""Seeds from here on are never trained on."""
SAMPLES_PER_TASK = 6
"""Clips shown on the page."""

OnClips = Callable[[int, int | None], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationProtocol(Hashed):
    """Which clips, which tasks, which way of drawing."""

    sets: tuple[str, ...] = ("clips", "sequences")
    """Folders below the data folder, test split; or "worlds" alone."""
    tasks: tuple[str, ...] = PIXEL_TASKS
    side: int = 128
    """Clips are scaled to this short side and cut to a square in the middle."""
    frames: int = 17
    windows: int = 3
    """At most so many windows are cut from one video, evenly spaced."""
    worlds: int = 48
    """Rendered for the tasks, where the set is worlds."""
    captions: int = 100
    """Worlds of one body asked for by caption alone; 0 for none."""
    steps: int = 12
    schedule: str = "cosine"
    order: str = "even"
    guidance: float = 0.0
    caption_guidance: float = 3.0
    """Of the worlds asked for by caption: words need it more than pixels do."""
    seed: int = 0
    bootstrap_draws: int = 10_000
    version: int = 3
    """1 asked for an action by a word that captions of one body do not have ("bounce", not "bounces"); 2 settled the
    surest tokens first."""

    def __post_init__(self) -> None:
        if (WORLDS in self.sets) != (self.sets == (WORLDS,)):
            raise UsageError(f"worlds are measured by themselves, got sets {self.sets}")
        if min(self.side, self.frames, self.windows, self.worlds, self.steps) < 1 or self.captions < 0:
            raise UsageError(f"a protocol needs positive sizes, got {self}")

    @property
    def config(self) -> GenerateConfig:
        sampling = ParallelConfig(steps=self.steps, schedule=self.schedule)
        return GenerateConfig(sampling=sampling, guidance=self.guidance, order=self.order, seed=self.seed)


def evaluate_generation(
    generator: MaskedGenerator,
    data: str | Path | None,
    protocol: GenerationProtocol,
    out: str | Path | None = None,
    *,
    features_path: str | Path | None = None,
    name: str = "generation",
    command: str | None = None,
    on_clips: OnClips = lambda _done, _total: None,
) -> dict[str, Any]:
    """Pose every task on every clip, make it, and measure.

    Args:
        data: folder with the protocol's sets; not looked at for worlds.
        out: gets {name}.json and {name}.html; None writes nothing.
        features_path: SqueezeNet weights for squeezenet_distance and one of the feature sets.

    Returns:
        A result in the schema of kinolex.evaluation.protocol with `tasks` (means and distances per task) and, for
        worlds, `captions`.

    Raises:
        UsageError: a task that the generator does not know. Reading errors as kinolex.read.
    """
    for task in protocol.tasks:
        generator.check_task(task)
    clips = list(_world_clips(protocol) if protocol.sets == (WORLDS,) else _cut(data, protocol))
    net = SqueezeNetFeatures(features_path) if features_path is not None else None
    feature_nets = _feature_nets(net)
    ceilings = [generator.tokenizer.decode(generator.tokenizer.encode(clip)) for _, clip in clips]
    total, done = len(clips) * len(protocol.tasks) + protocol.captions * (protocol.sets == (WORLDS,)), 0
    rows: list[dict[str, Any]] = []
    samples: list[Sample] = []
    tasks: dict[str, Any] = {}
    truth = {key: features_of([clip.frames_TCHW for _, clip in clips], f) for key, f in feature_nets.items()}
    of_ceiling = _distances({"ceiling": [clip.frames_TCHW for clip in ceilings]}, truth, feature_nets)
    for task_name in protocol.tasks:
        made_clips, trivial_clips, these = [], [], []
        for number, (clip_name, clip) in enumerate(clips):
            made, condition, row = _one(generator, clip, ceilings[number], task_name, number, protocol, net)
            these.append({"name": f"{task_name}: {clip_name}", "task": task_name} | row)
            made_clips.append(made.frames_TCHW)
            trivial_clips.append(generator.tokenizer.decode(generator.tokenizer.encode(condition)).frames_TCHW)
            if number < SAMPLES_PER_TASK:
                samples.append(Sample(task_name, clip_name, clip, condition, made))
            done += 1
            on_clips(done, total)
        sets = {"made": made_clips, "trivial_through_tokenizer": trivial_clips}
        distances = _distances(sets, truth, feature_nets) + of_ceiling
        tasks[task_name] = {"mean": summarise(these, protocol), "distances": distances}
        rows += these
    result = make_result(name, rows, protocol, command=command)
    result["generator"] = {"fingerprint": generator.fingerprint, "tokenizer": generator.tokenizer.fingerprint}
    result["tasks"] = tasks
    if protocol.sets == (WORLDS,) and protocol.captions:
        judged = []
        for number in range(protocol.captions):
            judged.append(_ask(generator, number, protocol))
            done += 1
            on_clips(done, total)
        result["captions"] = {"mean": summarise(judged, protocol), "worlds": judged}
    if out is not None:
        write_result(Path(out) / f"{name}.json", result)
        write_text(Path(out) / f"{name}.html", generation_page(result, samples))
    return result


def _one(
    generator: MaskedGenerator,
    clip: Clip,
    ceiling: Clip,
    task_name: str,
    number: int,
    protocol: GenerationProtocol,
    net: SqueezeNetFeatures | None,
) -> tuple[Clip, Clip, dict[str, Any]]:
    """(what was made, the condition, figures) of one task on one clip."""
    task, tokenizer = TASKS[task_name], generator.tokenizer
    posed = pose(task, clip, tokenizer.encode, tokenizer.pixels_per_token)
    config = replace(protocol.config, seed=protocol.seed * 10**6 + number)
    made = tokenizer.decode(generator.generate(posed, config))
    known_THW = task.region(clip.num_frames, clip.height, clip.width, 1)
    condition = trivial(clip, known_THW, task.fill)
    back = Clip(put_back(made.frames_TCHW, clip.frames_TCHW, known_THW), clip.fps)
    through = tokenizer.decode(tokenizer.encode(condition))
    row: dict[str, Any] = {}
    for label, other in (
        ("", made),
        ("put_back_", back),
        ("trivial_", condition),
        ("trivial_through_tokenizer_", through),
        ("ceiling_", ceiling),
    ):
        row[f"{label}psnr_db"] = metrics.psnr_db(clip.frames_TCHW, other.frames_TCHW)
        if net is not None:
            row[f"{label}squeezenet_distance"] = metrics.squeezenet_distance(
                net, clip.frames_TCHW, other.frames_TCHW, every_nth=4
            )
    return made, condition, row


def trivial(clip: Clip, known_THW: Tensor, fill: str) -> Clip:
    """What needs no network: the task's own padding, but the nearest known pixel of the row where that is black."""
    if fill != "zero":
        return padded(clip, known_THW, fill)  # type: ignore[arg-type]
    frames_TCHW = clip.frames_TCHW.clone()
    for frame_CHW, known_HW in zip(frames_TCHW, known_THW, strict=True):
        for row, known_W in enumerate(known_HW):
            places = known_W.nonzero()[:, 0]
            if 0 < len(places) < len(known_W):
                nearest_W = (torch.arange(len(known_W))[:, None] - places).abs().argmin(dim=1)
                frame_CHW[:, row] = frame_CHW[:, row, places[nearest_W]]
    return Clip(frames_TCHW, clip.fps)


def _ask(generator: MaskedGenerator, number: int, protocol: GenerationProtocol) -> dict[str, Any]:
    """One world of one body, asked for by its caption, and whether it came."""
    dice = np.random.default_rng([protocol.seed, number, 77])
    size, colour, shape, action = (str(dice.choice(list(names))) for names in (SIZES, COLOURS, SHAPES, ACTIONS))
    black = Clip(
        torch.zeros(protocol.frames, 3, protocol.side, protocol.side, dtype=torch.uint8), worlds.WorldConfig().fps
    )
    posed: Posed = pose(TASKS["class"], black, generator.tokenizer.encode, generator.tokenizer.pixels_per_token)
    config = replace(protocol.config, guidance=protocol.caption_guidance, seed=protocol.seed * 10**6 + number)
    text = f"a {size} {colour} {shape} {action}s"
    tokens: Tokens = generator.generate(posed, config, text=text)
    found = judge(generator.tokenizer.decode(tokens), Asked(action=action, shape=shape, colour=colour, size=size))
    right = {key: float(getattr(found, key)) for key in ("number", "colour", "shape", "size", "motion")}
    together = float(found.colour and found.shape and found.motion)
    return {"name": text, "seen": found.seen, **right, "shape_colour_motion": together}


def _distances(
    sets: dict[str, list[Tensor]], truth: dict[str, Tensor], feature_nets: dict[str, Features]
) -> list[dict[str, Any]]:
    found = []
    for key, features in feature_nets.items():
        for label, clips in sets.items():
            vectors = features_of(clips, features)
            for kind in ("frechet_distance", "kernel_distance"):
                one = distance(kind, vectors, truth[key], features=key)
                found.append({"of": label} | asdict(one))
    return found


def _feature_nets(net: SqueezeNetFeatures | None) -> dict[str, Features]:
    nets: dict[str, Features] = {"clip-features-nano": hub.load_clip_features()}
    return nets if net is None else nets | {"squeezenet": squeezenet_features(net)}


def _world_clips(protocol: GenerationProtocol) -> Iterator[tuple[str, Clip]]:
    for number in range(protocol.worlds):
        config = worlds.WorldConfig(
            frames=protocol.frames, height=protocol.side, width=protocol.side, max_bodies=1 + number % 2
        )
        world = worlds.render(FIRST_WORLD + number, config)
        yield world.caption, world.clip.with_sound(None)


def _cut(data: str | Path | None, protocol: GenerationProtocol) -> Iterator[tuple[str, Clip]]:
    """Square windows of the test videos, evenly spaced in each."""
    if data is None:
        raise UsageError(f"sets {', '.join(protocol.sets)} need a data folder; give one with --data")
    for entry in select_entries(data, ReconstructionProtocol(sets=protocol.sets, max_frames=None)):
        if entry.kind != "video":
            continue
        clip = fit_short_side(read(entry.path, max_frames=300).with_sound(None), protocol.side)
        top, left = (clip.height - protocol.side) // 2, (clip.width - protocol.side) // 2
        square_TCHW = clip.frames_TCHW[:, :, top : top + protocol.side, left : left + protocol.side].contiguous()
        fitting = min(protocol.windows, clip.num_frames // protocol.frames)
        for start in np.linspace(0, clip.num_frames - protocol.frames, fitting).round().astype(int) if fitting else ():
            window_TCHW = square_TCHW[start : start + protocol.frames].clone()
            yield f"{entry.name} from {start}", Clip(window_TCHW, clip.fps)

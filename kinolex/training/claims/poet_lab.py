"""Where networks of claims about VideoPoet are trained and measured: tokens, networks and rows, each made once.

worlds 0 ... --draw_worlds--> tokens --MultimodalTrainer(arm, seed)--> network
worlds FIRST_HELD_OUT ... --draw_worlds--> tokens --network, teacher-forced--> bits per token of every task and kind
captions of these --network, drawn token by token--> pictures --clip-features-nano--> distance to their worlds

Killed at any time, the next call goes on: a training resumes, and rows are found by what made them.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kinolex import checkpoint, hub
from kinolex.data import worlds
from kinolex.data.worlds.labels import WORDS
from kinolex.evaluation.protocol import Hashed
from kinolex.evaluation.row_store import RowStore, row_key
from kinolex.generation.decoding import DecodeConfig, decode_sequence
from kinolex.layers.precision import fast_arithmetic
from kinolex.masks import HIDDEN
from kinolex.metrics.distribution import features_of, kernel_distance
from kinolex.models.multimodal import MultimodalTransformer
from kinolex.tasks.multimodal import TASKS, Material, compose, outcome
from kinolex.tasks.multimodal import Sequence as Posed
from kinolex.training.claims.lab import Say
from kinolex.training.claims.measures import DISTANCE, FEATURES, hub_features
from kinolex.training.claims.pairs import at_once
from kinolex.training.claims.poets import ASKS, BARE, Ask, PoetArm, PoetScale, arm_flops
from kinolex.training.claims.rules import COVERAGE
from kinolex.training.claims.worlds import FIRST_HELD_OUT, decode_many
from kinolex.training.multimodal_draws import HIDES, Drawn, MaterialPlan, read_clips, tokens_of
from kinolex.training.multimodal_run import HIDDEN_BY, MultimodalTrainer, heard_beside
from kinolex.training.shards import drawn, paths_of, write_shard
from kinolex.types import Clip

SHARD = 100
"""Worlds per file of tokens."""
AT_ONCE = 20
"""Sequences that are measured, or drawn, together."""
HIDE_EVERY = 2
"""Of so many worlds that are trained on one is encoded with a part hidden, and as its structure, too."""
GIVEN_FRAMES = 2
"""Latent frames from which the future is predicted."""
VERSION = 1
"""Raised when the meaning of a figure changes."""
MADE = f"{DISTANCE} of pictures made"
TRAIN_SECONDS = "train_seconds"

Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class PoetProtocol(Hashed):
    """All that must agree before two results may be compared."""

    claim: str
    scale: PoetScale
    arms: dict[str, str]
    """Hash of every arm's recipe."""
    tokenizers: tuple[str, str]
    """Fingerprints, of pictures and of sound."""
    features: str
    """Fingerprint of the feature network."""
    asks: tuple[Ask, ...] = ASKS
    interval: str = f"Student's t over seeds, paired by seed, coverage {COVERAGE:g}"
    seed: int = 0
    bootstrap_draws: int = 10_000
    version: int = VERSION


def rows_of(
    arms: Sequence[PoetArm],
    scale: PoetScale,
    folder: Path,
    *,
    device: str = "cpu",
    workers: int = 1,
    say: Say = lambda _line: None,
) -> list[dict[str, Any]]:
    """A row of figures for every seed and arm, trained and measured now where that was not done before.

    Args:
        folder: keeps tokens, networks and rows of all claims of this scale.
        workers: networks that are trained at once, each in a process.

    Raises:
        KeyboardInterrupt: asked to stop; nothing that was finished is lost.
    """
    lab = PoetLab(scale, folder, device)
    store = RowStore(lab.folder / "rows.jsonl")
    pairs = [(arm, seed) for seed in scale.seeds for arm in arms]
    todo = {key: pair for pair in pairs if store.get(key := lab.key(*pair)) is None}
    if todo:
        say(f"tokens of {scale.clips + scale.eval_clips} worlds of {scale.side} lines")
        _ = lab.tokens  # drawn once, before several processes read them
    for number, (key, row) in enumerate(_made(lab, todo, workers), start=1):
        arm, seed = todo[key]
        store.put(key, row)
        say(f"{number}/{len(todo)}: {arm.name}, seed {seed}: {row[TRAIN_SECONDS]:.0f} s of training")
    found = []
    for arm, seed in pairs:
        row = store.get(lab.key(arm, seed))
        assert row is not None
        # Claims that share a network call it by names of their own.
        found.append({"name": f"{arm.name}, seed {seed}", "arm": arm.name, "seed": seed} | row)
    return found


def _made(lab: PoetLab, todo: dict[str, tuple[PoetArm, int]], workers: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Keys and rows as they are done."""
    if workers == 1 or len(todo) < 2:
        yield from ((key, lab.measured(*pair)) for key, pair in todo.items())
        return
    work = partial(_work, lab.scale, lab.folder.parent, lab.device)
    # The most expensive first, so that the last to be done is a short one.
    jobs = sorted(todo.items(), key=lambda job: -arm_flops(job[1][0].config))
    yield from ((job[0], row) for job, row in at_once(work, jobs, workers))


def _work(scale: PoetScale, folder: Path, device: str, job: tuple[str, tuple[PoetArm, int]]) -> dict[str, Any]:
    return PoetLab(scale, folder, device).measured(*job[1])


class PoetLab:
    """Everything at one scale.

    Args:
        folder: where all is kept; call again with the same to go on.
    """

    def __init__(self, scale: PoetScale, folder: Path, device: str = "cpu") -> None:
        self.scale, self.folder, self.device = scale, folder / f"poets-{scale.name}", device
        self.video = hub.load(scale.video_tokenizer).to(device)
        self.sound = hub.load_sound(scale.sound_tokenizer).to(device)

    @cached_property
    def tokens(self) -> tuple[list[Drawn], list[Drawn]]:
        """Worlds that are trained on, and worlds that are held out."""
        prints = (self.video.fingerprint, self.sound.fingerprint)
        return draw_worlds(self.scale, self.folder / "tokens", prints)

    def key(self, arm: PoetArm, seed: int) -> str:
        """Of the figures of an arm: 16 hexadecimal digits of all that they depend on."""
        asks = [asdict(ask) for ask in ASKS]
        return row_key(VERSION, self._network_key(arm, seed), self.scale.eval_clips, asks, _features())

    def _network_key(self, arm: PoetArm, seed: int) -> str:
        return row_key(asdict(arm.seeded(seed)), HIDE_EVERY, self.video.fingerprint, self.sound.fingerprint)

    def protocol(self, claim: str, arms: Sequence[PoetArm]) -> PoetProtocol:
        return PoetProtocol(
            claim=claim,
            scale=self.scale,
            arms={arm.name: self.key(arm, 0) for arm in arms},
            tokenizers=(self.video.fingerprint, self.sound.fingerprint),
            features=_features(),
        )

    def measured(self, arm: PoetArm, seed: int) -> dict[str, Any]:
        """Figures of one arm and seed, trained now if it was not; seconds are those of this call."""
        began = time.monotonic()
        model = self.network(arm, seed)
        trained = time.monotonic()
        figures = bits_of_asks(model, self.tokens[1], reads=arm.reads) | self._distance(model, arm, seed)
        return figures | {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            TRAIN_SECONDS: trained - began,
            "measure_seconds": time.monotonic() - trained,
        }

    def network(self, arm: PoetArm, seed: int) -> MultimodalTransformer:
        """The arm's network, trained now if it was not.

        Raises:
            KeyboardInterrupt: asked to stop; what was done is saved.
        """
        folder = self.folder / "networks" / self._network_key(arm, seed)
        if not (folder / "weights").is_dir():
            clips, config = self.tokens[0], arm.seeded(seed)
            sources = {
                source.name: [replace(clip, text_P=None) for clip in clips] if source.name == BARE else clips
                for source in config.sources
            }
            run = MultimodalTrainer(config, self.video, self.sound, folder, device=self.device, drawn=sources)
            run.run()
            run.save_weights(folder / "weights", f"# {arm.name}, seed {seed}\n")
            run.state_path.unlink()
        model, _ = checkpoint.load_module(folder / "weights", checkpoint.MULTIMODAL)
        assert isinstance(model, MultimodalTransformer)
        return model.to(self.device).eval().requires_grad_(False)

    def _distance(self, model: MultimodalTransformer, arm: PoetArm, seed: int) -> Figures:
        """Kernel distance between held-out worlds and what is made of their captions, or of nothing."""
        ids_Nthw = made_pictures(model, self.tokens[1], said=arm.reads, seed=seed)
        true_NTCHW = torch.stack(
            [_world(self.scale, FIRST_HELD_OUT + number).clip.frames_TCHW for number in range(len(ids_Nthw))]
        )
        made_ND, true_ND = (
            features_of(clips, hub_features()) for clips in (decode_many(self.video, ids_Nthw), true_NTCHW)
        )
        return {MADE: kernel_distance(made_ND, true_ND)}


def draw_worlds(scale: PoetScale, folder: Path, fingerprints: tuple[str, str]) -> tuple[list[Drawn], list[Drawn]]:
    """Tokens of the worlds that are trained on, with the seeds 0, 1 ..., and of held-out ones from FIRST_HELD_OUT on.

    Args:
        fingerprints: of the tokenizers, which the names of files depend on.

    Raises:
        CheckpointError: a file is damaged.
    """
    facts = [VERSION, *fingerprints, scale.side, scale.frames, scale.fps, scale.vocabulary.sound_levels, HIDE_EVERY]
    ranges: list[tuple[int, int]] = []
    paths: list[Path] = []
    for start, count in ((0, scale.clips), (FIRST_HELD_OUT, scale.eval_clips)):
        ranges += [(start + at, min(SHARD, count - at)) for at in range(0, count, SHARD)]
        paths += paths_of(folder, "worlds", [*facts, start, count], count, SHARD)
    write = partial(_draw_shard, scale, tuple(ranges))
    clips = drawn(paths, write, read_clips, f"tokens of worlds, {SHARD} clips each")
    return clips[: scale.clips], clips[scale.clips :]


def _draw_shard(scale: PoetScale, ranges: tuple[tuple[int, int], ...], number: int, path: Path) -> None:
    """Held-out worlds all have a part hidden, in turns by every way."""
    video, sound = hub.load(scale.video_tokenizer), hub.load_sound(scale.sound_tokenizer)
    levels = scale.vocabulary.sound_levels
    plan = MaterialPlan(scale.video_tokenizer, scale.sound_tokenizer, levels, WORDS, 12, 0)
    first, count = ranges[number]
    every = 1 if first >= FIRST_HELD_OUT else HIDE_EVERY
    tensors: dict[str, Tensor] = {}
    for index in range(count):
        seed = first + index
        world = _world(scale, seed)
        assert world.clip.sound is not None
        hide = "" if seed % every else HIDES[seed // every % len(HIDES)]
        silent = Clip(world.clip.frames_TCHW, world.clip.fps)
        made = tokens_of(plan, video, sound, silent, world.clip.sound, world.caption, hide)
        tensors |= {f"{index}.{name}": ids for name, ids in made.items()}
    write_shard(path, tensors)


def _world(scale: PoetScale, seed: int) -> worlds.World:
    return worlds.render(
        seed,
        worlds.WorldConfig(
            frames=scale.frames, height=scale.side, width=scale.side, fps=Fraction(scale.fps), max_bodies=1
        ),
    )


def posed(model: MultimodalTransformer, clips: Sequence[Drawn], ask: Ask, *, said: bool) -> list[Posed]:
    """Whole sequences of a task, of the clips that serve it; all of one layout.

    Args:
        said: whether captions are given, where the task takes them.
    """
    config, task = model.config, TASKS[ask.task]
    given = GIVEN_FRAMES if ask.task == "future-prediction" else 1
    starts = HIDDEN_BY.get(ask.task, "")
    return [
        compose(
            task,
            Material(
                text_P=clip.text_P,
                video_thw=clip.video_thw,
                masked_thw=clip.masked_thw,
                sound_Qt=clip.sound_Qt,
                given_latents=given,
                given_sound=heard_beside(given, clip.video_thw.shape[0], clip.sound_Qt.shape[1]),
            ),
            config.vocabulary,
            text_length=config.text_length,
            drop=() if said else ("text",),
        )
        for clip in clips
        if clip.hidden_by.startswith(starts)
    ]


def bits_of_asks(model: MultimodalTransformer, clips: Sequence[Drawn], *, reads: bool) -> Figures:
    """Bits per token of what every task of ASKS makes, of all its tokens and of each kind: see figure_name."""
    found: Figures = {}
    for ask in ASKS:
        bits = bits_per_token(model, posed(model, clips, ask, said=ask.said and reads))
        found |= {figure_name(ask.task, kind): value for kind, value in bits.items()}
    return found


def figure_name(task: str, kind: str = "all") -> str:
    return f"bits {task}" if kind == "all" else f"{kind} bits {task}"


@torch.no_grad()
def bits_per_token(model: MultimodalTransformer, sequences: Sequence[Posed]) -> Figures:
    """Mean bits of the tokens that are made, each with those before it known: by kind, and of "all" kinds together."""
    layout, device = sequences[0].layout, model.markers.device
    pad = model.config.vocabulary.marker("pad")
    nats, counts = defaultdict[str, float](float), defaultdict[str, int](int)
    for start in range(0, len(sequences), AT_ONCE):
        ids_BL = torch.stack([one.ids_L for one in sequences[start : start + AT_ONCE]]).to(device)
        with fast_arithmetic(device):
            nats_BM = model(ids_BL, layout)
        for span in layout.outputs():
            for kind in ("all", span.segment.kind):
                nats[kind] += float(nats_BM[:, span.start - layout.prefix : span.stop - layout.prefix].sum())
                counts[kind] += int((ids_BL[:, span.start : span.stop] != pad).sum())
    return {kind: nats[kind] / counts[kind] / math.log(2) for kind in nats}


def made_pictures(model: MultimodalTransformer, clips: Sequence[Drawn], *, said: bool, seed: int) -> Tensor:
    """Video ids [N, t, h, w] drawn by text-to-both, which every arm learns with captions or without.

    The true sound stands where sound would be made, after the picture, so that none is drawn.
    """
    vocabulary, parts = model.config.vocabulary, []
    ask = next(one for one in ASKS if one.task == "text-to-both")
    sequences = posed(model, clips, ask, said=said)
    layout = sequences[0].layout
    span = next(one for one in layout.outputs() if one.segment.kind == "video")
    for start in range(0, len(sequences), AT_ONCE):
        ids_BL = torch.stack([one.ids_L for one in sequences[start : start + AT_ONCE]])
        ids_BL[:, span.start : span.stop] = HIDDEN
        decoded = decode_sequence(model, Posed(layout, ids_BL), DecodeConfig(seed=1000 * seed + start))
        parts += [outcome(layout, ids_L, vocabulary).video_thw for ids_L in decoded.ids_BL.cpu()]
    return torch.stack([ids_thw for ids_thw in parts if ids_thw is not None])


def _features() -> str:
    return checkpoint.read_description(hub.locate(FEATURES))["fingerprint"]

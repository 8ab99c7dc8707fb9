"""What one network makes together belongs together: the sound of a made clip strikes when its picture does.

caption --text-to-both--> clip, sound        the same caption drawn again --> another sound
impacts seen --one to one--> onsets heard: with its own sound, with the other's, with that of another caption

Shipped weights are asked and nothing is trained, so this claim stands beside those of claims/run.py. A sound that a
second drawing made of the same caption is what two separate networks, one for pictures and one for sound, would give.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from kinolex.data.worlds import WorldConfig, render
from kinolex.evaluation.ask import ask, through_tokenizers
from kinolex.evaluation.protocol import Hashed
from kinolex.evaluation.row_store import RowStore, row_key
from kinolex.evaluation.world_sync import SILENT, watched
from kinolex.generation.decoding import DecodeConfig
from kinolex.generation.multimodal import DEFAULT, MultimodalGenerator, load_multimodal
from kinolex.metrics.sync import Sync, Watched, shuffled, sync
from kinolex.sampling.choose import Choice
from kinolex.training.claims.beside import Told, result_of, write_verdict
from kinolex.training.claims.lab import Say
from kinolex.training.claims.rules import COVERAGE, Finding, log_ratios, more_than
from kinolex.training.claims.scales import scale_among

TOLD = Told(
    name="sync",
    source="VideoPoet, arXiv 2312.14125, section 5 (video and sound in one model)",
    statement="Picture and sound that one network makes of a caption in one sequence agree in time better than the "
    "picture does with the sound of another caption, and with a sound that was made of the same caption separately",
    rule="F1 of impacts seen and onsets heard within 40 ms, over captions of actions that strike: 95 % t-intervals "
    "over seeds, each of captions of its own, of the log ratios to both controls above 0; fail if one lies below 0",
)
NAME = TOLD.name
OWN, OTHERS, SEPARATE, TRUE = "made together", "sound of another caption", "sound made separately", "true worlds"
ARMS = (OWN, SEPARATE, OTHERS, TRUE)
F1 = "f1"
FIGURES = (F1, "precision", "recall", "pitch_within_50_cents", "seen", "heard")
FIRST_SEED = 6_000_000
"""Of the worlds whose captions are asked for; below lie those that networks learn from or are measured on."""
FLOOR = 0.01
"""An F1 below it counts as this much: a ratio needs something to divide by, and so little is noise."""
VERSION = 1
"""Raised when the meaning of a figure changes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncScale:
    name: str
    captions: int
    """Of actions that strike, for each seed."""
    model: str = DEFAULT
    temperature: float = 0.9
    top_p: float = 0.95
    guidance: float = 3.0
    window: int = 16
    """Of coupled Jacobi decoding."""
    seeds: tuple[int, ...] = (0, 1, 2)

    def decoding(self, seed: int) -> DecodeConfig:
        choice = Choice(temperature=self.temperature, top_p=self.top_p)
        return DecodeConfig(
            text=choice, video=choice, sound=choice, guidance=self.guidance, window=self.window, seed=seed
        )


SCALES: dict[str, SyncScale] = {
    scale.name: scale
    for scale in (
        SyncScale(name="tiny", captions=2, guidance=0.0),
        SyncScale(name="nano", captions=32),
        SyncScale(name="small", captions=128, seeds=(0, 1, 2, 3, 4)),
    )
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncProtocol(Hashed):
    """All that must agree before two results may be compared."""

    scale: SyncScale
    generator: str
    """Fingerprint."""
    claim: str = NAME
    interval: str = f"Student's t over seeds, paired by seed, coverage {COVERAGE:g}"
    seed: int = 0
    bootstrap_draws: int = 10_000
    version: int = VERSION


scale_named = partial(scale_among, SCALES)


def reproduce_sync(
    scale: SyncScale,
    folder: Path,
    results: Path | None = None,
    *,
    device: str = "cpu",
    command: str | None = None,
    say: Say = lambda _line: None,
    generator: MultimodalGenerator | None = None,
) -> dict[str, Any]:
    """Test the claim, or go on where an earlier call stopped.

    Args:
        folder: keeps finished seeds.
        results: gets reproduce_sync.json and its page; None writes nothing.
        generator: asked in place of the scale's shipped weights.

    Returns:
        A result in the schema of kinolex.evaluation.protocol with `verdict` and `findings`.
    """
    generator = (generator or load_multimodal(scale.model)).to(device)
    store, rows = RowStore(folder / f"{NAME}-{scale.name}" / "rows.jsonl"), list[dict[str, Any]]()
    for seed in scale.seeds:
        key = row_key(VERSION, generator.fingerprint, asdict(scale) | {"seeds": None}, seed)
        if (row := store.get(key)) is None:
            row = store.put(key, {"figures": sync_of_seed(generator, scale, seed, say)})
        rows += [{"name": f"{arm}, seed {seed}", "arm": arm, "seed": seed} | row["figures"][arm] for arm in ARMS]
    means = {arm: _means([row for row in rows if row["arm"] == arm]) for arm in ARMS}
    protocol = SyncProtocol(scale=scale, generator=generator.fingerprint)
    result = result_of(TOLD, rows, findings_of(rows), means, protocol, scale.seeds, command)
    if results is not None:
        write_verdict(
            results, TOLD, result, "events seen and heard, pooled over the captions of a seed; mean over seeds"
        )
    return result


def sync_of_seed(generator: MultimodalGenerator, scale: SyncScale, seed: int, say: Say) -> dict[str, dict[str, float]]:
    """Figures of every arm over the captions of one seed."""
    lines, decoding = generator.model.config.lines, scale.decoding(seed)
    config = WorldConfig(frames=generator.frames, height=lines, width=lines, fps=generator.fps)
    watching: dict[str, list[Watched]] = {OWN: [], SEPARATE: [], TRUE: []}
    number = FIRST_SEED + 100_000 * seed
    while len(watching[OWN]) < scale.captions:
        world = render(number, config)
        number += 1
        if world.label in SILENT:
            continue
        say(f"{NAME}, seed {seed}: caption {len(watching[OWN]) + 1} of {scale.captions}")
        both, other = (
            ask(generator, replace(decoding, seed=number + more), "text-to-both", text=world.caption)
            for more in (0, 10_000_000)
        )
        assert both.clip is not None
        watching[OWN].append(watched(both.clip.with_sound(both.sound)))
        watching[SEPARATE].append(watched(both.clip.with_sound(other.sound)))
        watching[TRUE].append(watched(through_tokenizers(generator, world.clip)))
    watching[OTHERS] = shuffled(watching[OWN])
    return {arm: _figures(sync(watching[arm])) for arm in ARMS}


def findings_of(rows: list[dict[str, Any]]) -> list[Finding]:
    own, separate, others = (
        [max(FLOOR, row[F1]) for row in rows if row["arm"] == arm] for arm in (OWN, SEPARATE, OTHERS)
    )
    return [
        more_than(f"F1 {OWN} over that with the {SEPARATE}", log_ratios(own, separate)),
        more_than(f"F1 {OWN} over that with the {OTHERS}", log_ratios(own, others)),
    ]


def _figures(found: Sync) -> dict[str, float]:
    """Where nothing was seen or heard there is nothing right."""
    told = found.as_json()
    return {key: float(told[key] or 0.0) for key in FIGURES}


def _means(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {key: statistics.fmean(row[key] for row in rows) for key in FIGURES}

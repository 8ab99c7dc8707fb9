"""How often worlds that are right by construction are judged right: rendered, blurred, and decoded by a tokenizer.

python -m kinolex.evaluation.world_truth > results/worlds_truth_ceiling.json

A generator of a tokenizer's tokens cannot be expected to score above that tokenizer's row: this is its ceiling. The
same run says how well impacts and onsets are found, and what sync is measured where sync is perfect.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from kinolex import hub
from kinolex.data.worlds import World, WorldConfig, asked_of, judge_each, render
from kinolex.evaluation.through import through
from kinolex.evaluation.world_sync import OPUS_KBPS, events_against_truth, sync_scores, through_opus, watched
from kinolex.types import Clip

FRAMES, SIDES = 17, (64, 128)
FIRST_SEED = 5_000_000
"""Below the seeds that networks learn from."""
RENDERED, DECODED = 200, 60
"""Worlds; those that tokenizers decode are the first of one body."""
TOKENIZERS = ("magvit-nano", "magvit2-nano", "magvit2-world-nano")
BLUR_PX, NOISE_LEVELS = 0.7, 4.0
SYNC_CLIPS = ((17, 24), (33, 24), (17, 12))
"""Frames and frames per second of the clips whose sync is measured, 64x64, one body."""
ATTRIBUTES = ("number", "colour", "shape", "size", "motion", "times", "floor", "all_right")


def ceiling(worlds: Sequence[World], clips: Sequence[Clip]) -> dict[str, Any]:
    """Shares of bodies judged right, asked for what the captions of their worlds say.

    Args:
        worlds: of any number of bodies.
        clips: the worlds' own, or as a tokenizer decodes them.

    Returns:
        Shares per attribute; the share whose closest action is the world's; confusions; the median track error in
        picture heights; and beside `count` the number of bodies.
    """
    hits, confused, errors = Counter[str](), Counter[str](), []
    for world, clip in zip(worlds, clips, strict=True):
        judgements = judge_each(clip, asked_of(world.caption), [track.points_T2 for track in world.tracks])
        for judgement in judgements:
            hits.update(name for name in ATTRIBUTES if getattr(judgement, name))
            errors.append(judgement.track_error)
            if judgement.seen == world.label:
                hits["action"] += 1
            else:
                confused[f"{world.label} taken for {judgement.seen or 'none'}"] += 1
    count = len(errors)
    shares = {name: round(hits[name] / count, 4) for name in (*ATTRIBUTES, "action")}
    # Without a body there is no error; those bodies count in the shares.
    found_errors = [error for error in errors if not np.isnan(error)]
    middle = round(float(np.median(found_errors)), 5) if found_errors else None
    return shares | {"confused": dict(confused), "track_error_median": middle, "count": count}


def blurred(clip: Clip, seed: int, *, blur_px: float = BLUR_PX, noise_levels: float = NOISE_LEVELS) -> Clip:
    """A clip as a mild codec leaves it: Gaussian blur, then Gaussian noise."""
    reach = int(4 * blur_px) + 1
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / blur_px) ** 2)
    taps /= taps.sum()
    channels = clip.frames_TCHW.shape[1]
    frames_TCHW = functional.pad(clip.frames_TCHW.float(), (reach, reach, reach, reach), mode="replicate")
    for view in ((1, 1, 1, -1), (1, 1, -1, 1)):
        frames_TCHW = functional.conv2d(frames_TCHW, taps.view(view).repeat(channels, 1, 1, 1), groups=channels)
    generator = torch.Generator().manual_seed(seed)
    frames_TCHW = frames_TCHW + noise_levels * torch.randn(frames_TCHW.shape, generator=generator)
    return replace(clip, frames_TCHW=frames_TCHW.round().clamp(0, 255).to(torch.uint8))


def _of_side(side: int, seeds: range) -> dict[str, dict[str, Any]]:
    """Rows of one size of picture."""
    rows: dict[str, dict[str, Any]] = {}
    config = WorldConfig(frames=FRAMES, height=side, width=side, max_bodies=1)
    worlds = [render(seed, config) for seed in seeds]
    rows[f"rendered, {side}x{side}"] = ceiling(worlds, [world.clip for world in worlds])
    soft = [blurred(world.clip, seed) for seed, world in zip(seeds, worlds, strict=True)]
    rows[f"blurred and noisy, {side}x{side}"] = ceiling(worlds, soft)
    pairs = [render(seed, replace(config, max_bodies=2)) for seed in seeds]
    pairs = [world for world in pairs if len(world.tracks) == 2]
    rows[f"two bodies, rendered, {side}x{side}"] = ceiling(pairs, [world.clip for world in pairs])
    few = worlds[:DECODED]
    frames_NTHWC = np.stack([world.clip.frames_TCHW.permute(0, 2, 3, 1).numpy() for world in few])
    for name in TOKENIZERS:
        decoded_NTCHW = torch.from_numpy(through(hub.load(name), frames_NTHWC)).permute(0, 1, 4, 2, 3)
        clips = [Clip(frames.contiguous(), config.fps) for frames in decoded_NTCHW]
        rows[f"{name}, {side}x{side}"] = ceiling(few, clips)
    return rows


def _sync_of(frames: int, fps: int, seeds: range) -> dict[str, dict[str, Any]]:
    """Rows of one length and rate: the sound as it is, and through Opus."""
    worlds = [render(seed, WorldConfig(frames=frames, fps=Fraction(fps), max_bodies=1)) for seed in seeds]
    labels = [world.label for world in worlds]
    rows = {}
    for name, change in (("rendered", lambda clip: clip), (f"Opus {OPUS_KBPS:g} kbit/s", through_opus)):
        clips = [watched(change(world.clip)) for world in worlds]
        scores = sync_scores(clips, labels)
        rows[f"{name}, {frames} frames at {fps} per second"] = scores | {
            "against the truth": events_against_truth(worlds, clips)
        }
    return rows


def main() -> None:
    """python -m kinolex.evaluation.world_truth > results/worlds_truth_ceiling.json"""
    seeds = range(FIRST_SEED, FIRST_SEED + RENDERED)
    rows: dict[str, dict[str, Any]] = {}
    for side in SIDES:
        rows |= _of_side(side, seeds)
        print(f"done: {side}x{side}", file=sys.stderr)
    in_time: dict[str, dict[str, Any]] = {}
    for frames, fps in SYNC_CLIPS:
        in_time |= _sync_of(frames, fps, seeds)
        print(f"done: sync of {frames} frames at {fps} per second", file=sys.stderr)
    command = "python -m kinolex.evaluation.world_truth > results/worlds_truth_ceiling.json"
    about = {"name": "rendered and decoded worlds, 17 frames, judged against their captions; sync against their events"}
    print(json.dumps(about | {"command": command, "values": rows, "sync": in_time}, indent=1))


if __name__ == "__main__":
    main()

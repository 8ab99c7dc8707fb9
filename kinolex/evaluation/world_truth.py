"""How often worlds that are right by construction are judged right: rendered, and decoded by a tokenizer.

python -m kinolex.evaluation.world_truth > results/worlds_truth_ceiling.json

A generator of a tokenizer's tokens cannot be expected to score above that tokenizer's row: this is its ceiling.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from kinolex import hub
from kinolex.data.worlds import Asked, World, WorldConfig, judge, render
from kinolex.evaluation.through import through
from kinolex.types import Clip

FRAMES, SIDES = 17, (64, 128)
FIRST_SEED = 5_000_000
"""Below the seeds that networks learn from."""
RENDERED, DECODED = 300, 100
"""Worlds of one body each."""
TOKENIZERS = ("magvit-nano", "magvit2-nano")


def ceiling(worlds: Sequence[World], clips: Sequence[Clip]) -> dict[str, Any]:
    """Shares of clips judged right, asked for what their worlds are.

    Args:
        worlds: of one body each.
        clips: the worlds' own, or as a tokenizer decodes them.

    Returns:
        Shares per attribute; the share whose closest action is the world's; confusions; the median track error in
        picture heights; and beside `count` the number of clips.
    """
    attributes = ("number", "colour", "shape", "size", "motion", "all_right")
    hits, confused, errors = Counter[str](), Counter[str](), []
    for world, clip in zip(worlds, clips, strict=True):
        track = world.tracks[0]
        asked = Asked(action=world.label, shape=track.shape, colour=track.colour, size=track.size)
        judgement = judge(clip, asked, track.points_T2)
        hits.update(name for name in attributes if getattr(judgement, name))
        errors.append(judgement.track_error)
        if judgement.seen == world.label:
            hits["action"] += 1
        else:
            confused[f"{world.label} taken for {judgement.seen or 'none'}"] += 1
    shares = {name: round(hits[name] / len(worlds), 4) for name in (*attributes, "action")}
    # Without a body there is no error; those clips count in the shares.
    found_errors = [error for error in errors if not np.isnan(error)]
    middle = round(float(np.median(found_errors)), 5) if found_errors else None
    return shares | {"confused": dict(confused), "track_error_median": middle, "count": len(worlds)}


def main() -> None:
    """python -m kinolex.evaluation.world_truth > results/worlds_truth_ceiling.json"""
    rows: dict[str, dict[str, Any]] = {}
    for side in SIDES:
        config = WorldConfig(frames=FRAMES, height=side, width=side, max_bodies=1)
        worlds = [render(seed, config) for seed in range(FIRST_SEED, FIRST_SEED + RENDERED)]
        rows[f"rendered, {side}x{side}"] = ceiling(worlds, [world.clip for world in worlds])
        few = worlds[:DECODED]
        frames_NTHWC = np.stack([world.clip.frames_TCHW.permute(0, 2, 3, 1).numpy() for world in few])
        for name in TOKENIZERS:
            decoded_NTCHW = torch.from_numpy(through(hub.load(name), frames_NTHWC)).permute(0, 1, 4, 2, 3)
            clips = [Clip(frames.contiguous(), config.fps) for frames in decoded_NTCHW]
            rows[f"{name}, {side}x{side}"] = ceiling(few, clips)
        print(f"done: {side}x{side}", file=sys.stderr)
    command = "python -m kinolex.evaluation.world_truth > results/worlds_truth_ceiling.json"
    about = {"name": "rendered and decoded worlds of one body, 17 frames, judged against their truth"}
    print(json.dumps(about | {"command": command, "values": rows}, indent=1))


if __name__ == "__main__":
    main()

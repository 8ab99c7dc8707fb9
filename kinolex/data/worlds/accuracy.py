"""How well the measurements recover the truth of rendered worlds.

python -m kinolex.data.worlds.accuracy > results/worlds_measure.json
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch

from kinolex.data.worlds import WorldConfig, measure, render
from kinolex.types import Clip


def accuracy(seeds: Sequence[int], *, noise: float = 0.0) -> dict[str, float]:
    """How well measure recovers the truth of rendered worlds of 49 frames, 128x128.

    Args:
        seeds: one world each.
        noise: standard deviation of Gaussian noise added to the picture, in grey levels.

    Returns:
        Shares of bodies and worlds that are right, and medians of errors.
    """
    hits: dict[str, list[float]] = {name: [] for name in ("count", "colour", "shape")}
    errors: dict[str, list[float]] = {name: [] for name in ("track_px", "picture_ms", "sound_ms", "pitch_cents")}
    found_sounds = all_sounds = 0
    for seed in seeds:
        world = render(seed, WorldConfig(frames=49, height=128, width=128))
        clip = world.clip
        if noise:
            clip = _noisy(clip, noise, seed)
        result = measure(clip)
        hits["count"].append(len(result.bodies) == len(world.tracks))
        by_colour = {body.colour: body for body in result.bodies}
        for track in world.tracks:
            body = by_colour.get(track.colour)
            hits["colour"].append(body is not None)
            hits["shape"].append(body is not None and body.shape == track.shape)
            if body is not None:
                errors["track_px"].append(float(np.nanmedian(np.hypot(*(body.track_T2 - track.points_T2).T))))
        for event in world.events:
            all_sounds += 1
            near = min(result.onsets, key=lambda onset: abs(onset.time_s - event.time_s), default=None)
            if near is not None and abs(near.time_s - event.time_s) < 0.025:
                found_sounds += 1
                errors["sound_ms"].append(1000 * abs(near.time_s - event.time_s))
                errors["pitch_cents"].append(1200 * abs(np.log2(near.pitch_hz / event.pitch_hz)))
            seen = [
                abs(impact.time_s - event.time_s)
                for impact in result.impacts
                if result.bodies[impact.body].colour == world.tracks[event.body].colour
            ]
            if seen:
                errors["picture_ms"].append(1000 * min(seen))
    shares = {f"{name}_accuracy": float(np.mean(values)) for name, values in hits.items()}
    medians = {f"{name}_median": float(np.nanmedian(values)) for name, values in errors.items() if values}
    return shares | medians | {"sounds_found": found_sounds / max(1, all_sounds)}


def _noisy(clip: Clip, noise: float, seed: int) -> Clip:
    generator = torch.Generator().manual_seed(seed)
    grain = torch.randn(clip.frames_TCHW.shape, generator=generator) * noise
    frames_TCHW = (clip.frames_TCHW.float() + grain).round().clamp(0, 255).to(torch.uint8)
    return Clip(frames_TCHW, clip.fps, clip.sound)


def main() -> None:
    """python -m kinolex.data.worlds.accuracy > results/worlds_measure.json"""
    seeds = range(1000, 1200)
    values = {"clean": accuracy(seeds), "noise of 8 grey levels": accuracy(seeds, noise=8.0)}
    command = "python -m kinolex.data.worlds.accuracy > results/worlds_measure.json"
    print(
        json.dumps({"name": "worlds measured by classical processing", "command": command, "n": 200, "values": values})
    )


if __name__ == "__main__":
    main()

"""Batches for the clip feature network: rendered worlds with their labels, spoiled as generated clips are spoiled.

    seeds --render--> worlds --tokenizers--> worlds decoded      once, kept in memory
    (seed, step) -> choose --> break the order of frames --> flip, scale, colour, blur, noise --> Batch

A batch is a function of the recipe's seed and the step, so a resumed run sees what an uninterrupted one sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from rich.console import Console
from rich.progress import track
from torch import Tensor

from kinolex.data.worlds.labels import CLASSES, UNASKED, labelled
from kinolex.data.worlds.scene import WorldConfig
from kinolex.evaluation.through import AT_ONCE, through, to_pixels
from kinolex.tokenizers.video import VideoTokenizer

FRAMES, SIDE = 17, 64
ORDERS = ("intact", "shuffled", "held", "exchanged")
"""Frames as they were; in random order; one shown again and again; two stretches of the clip in each other's place."""
VELOCITY = "velocity"
"""Mean velocity (x, y) of the largest body in picture heights per clip of 17 frames."""
HEADS = (*((name, len(values)) for name, values in CLASSES.items()), ("order", len(ORDERS)), (VELOCITY, 2))
MIN_CLIP = 5


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    pixels_BCTHW: Tensor
    """Float in [-1, 1]."""
    classes: dict[str, Tensor]
    """(B,) int64 per attribute, UNASKED where the clip does not tell."""
    velocity_B2: Tensor
    intact_B: Tensor
    """Whether the velocity can be asked for."""


class WorldSet:
    """Worlds in memory, some also as they look after a tokenizer.

    Args:
        seeds: one world each.
        tokenizers: each decodes its share of the worlds.
        share: of the worlds that are also kept decoded.
    """

    def __init__(self, seeds: Sequence[int], tokenizers: Sequence[VideoTokenizer] = (), *, share: float = 0.0) -> None:
        config = WorldConfig(frames=FRAMES, height=SIDE, width=SIDE)
        self.frames_NTHWC = np.empty((len(seeds), FRAMES, SIDE, SIDE, 3), np.uint8)
        self.tracks_NT2 = np.empty((len(seeds), FRAMES, 2))
        self.classes = {name: np.empty(len(seeds), np.int64) for name in CLASSES}
        console = Console(stderr=True)
        for index, seed in enumerate(track(seeds, "worlds", console=console, transient=True)):
            self.frames_NTHWC[index], labels = labelled(seed, config)
            self.tracks_NT2[index] = labels.track_T2
            for name, value in labels.classes.items():
                self.classes[name][index] = value
        self.decoded: dict[int, np.ndarray] = {}
        each = round(share * len(seeds) / max(1, len(tokenizers)))
        for number, tokenizer in enumerate(tokenizers):
            chosen = range(number * each, (number + 1) * each)
            parts = [chosen[at : at + AT_ONCE] for at in range(0, len(chosen), AT_ONCE)]
            for part in track(parts, "worlds through a tokenizer", console=console, transient=True):
                decoded = through(tokenizer, self.frames_NTHWC[part.start : part.stop])
                self.decoded |= dict(zip(part, decoded, strict=True))

    def __len__(self) -> int:
        return len(self.frames_NTHWC)


def draw(worlds: WorldSet, size: int, seed: int, step: int) -> Batch:
    """The batch of a step."""
    dice = np.random.default_rng([seed, step])
    generator = torch.Generator().manual_seed(int(dice.integers(2**62)))
    length = FRAMES if dice.random() < 0.7 else int(dice.integers(MIN_CLIP, FRAMES + 1))
    clips, chosen, velocities, orders = [], dice.integers(0, len(worlds), size), [], []
    for index in chosen:
        frames_THWC = worlds.frames_NTHWC[index]
        if index in worlds.decoded and dice.random() < 0.6:
            frames_THWC = worlds.decoded[index]
        start = int(dice.integers(0, FRAMES - length + 1))
        track_T2 = worlds.tracks_NT2[index, start : start + length]
        velocities.append((track_T2[-1] - track_T2[0]) * (FRAMES - 1) / (length - 1))
        order = "intact" if dice.random() < 0.55 else str(dice.choice(ORDERS[1:]))
        orders.append(ORDERS.index(order))
        clips.append(torch.from_numpy(frames_THWC[start : start + length][_frame_order(order, length, dice)]))
    pixels_BCTHW = to_pixels(torch.stack(clips))
    velocity_B2 = torch.tensor(np.stack(velocities), dtype=torch.float32)
    flipped_B = torch.rand(size, generator=generator) < 0.5
    pixels_BCTHW = torch.where(flipped_B.view(-1, 1, 1, 1, 1), pixels_BCTHW.flip(-1), pixels_BCTHW)
    velocity_B2[flipped_B, 0] *= -1
    order_B = torch.tensor(orders)
    intact_B = order_B == 0
    classes = {name: torch.from_numpy(values[chosen]) for name, values in worlds.classes.items()}
    classes["action"] = classes["action"].where(intact_B, UNASKED)
    classes["order"] = order_B
    return Batch(spoil(pixels_BCTHW, generator), classes, velocity_B2, intact_B)


def _frame_order(order: str, length: int, dice: np.random.Generator) -> np.ndarray:
    """Numbers of the frames to show."""
    steps = np.arange(length)
    if order == "shuffled":
        return dice.permutation(length)
    if order == "held":
        held = int(dice.integers(0, length))
        return np.full(length, held) if dice.random() < 0.5 else np.minimum(steps, held // 2)
    if order == "exchanged":
        cut = int(dice.integers(2, length - 1))
        return np.roll(steps, cut)
    return steps


def spoil(pixels_BCTHW: Tensor, generator: torch.Generator) -> Tensor:
    """Colours shifted, edges blurred, grain added: each to some of the clips, the same for all frames but the grain."""
    size = pixels_BCTHW.shape[0]

    def some(share: float) -> Tensor:
        return (torch.rand(size, 1, 1, 1, 1, generator=generator) < share).float()

    gain = 1 + 0.12 * some(0.5) * torch.randn(size, 3, 1, 1, 1, generator=generator).clamp(-2, 2) * 0.5
    offset = 0.06 * some(0.5) * torch.randn(size, 3, 1, 1, 1, generator=generator).clamp(-2, 2)
    pixels_BCTHW = pixels_BCTHW * gain + offset
    blurred_B, grainy_B = (torch.rand(size, generator=generator) < share for share in (0.3, 0.35))
    side = int(torch.randint(28, 57, (1,), generator=generator))
    if blurred_B.any():
        flat_NCHW = rearrange(pixels_BCTHW[blurred_B], "b c t h w -> (b t) c h w")
        small_NCHW = F.interpolate(flat_NCHW, (side, side), mode="bilinear", align_corners=False, antialias=True)
        back_NCHW = F.interpolate(small_NCHW, (SIDE, SIDE), mode="bilinear", align_corners=False)
        pixels_BCTHW[blurred_B] = rearrange(back_NCHW, "(b t) c h w -> b c t h w", b=int(blurred_B.sum()))
    if grainy_B.any():
        grain_BCTHW = torch.randn(pixels_BCTHW[grainy_B].shape, generator=generator)
        level = 0.08 * torch.rand(len(grain_BCTHW), 1, 1, 1, 1, generator=generator)
        pixels_BCTHW[grainy_B] += level * grain_BCTHW
    return pixels_BCTHW.clamp_(-1, 1).contiguous(memory_format=torch.channels_last_3d)

"""What is measured of a trained arm: distances between what it makes and the truth, and how long that takes.

made clips, true clips --clip-features-nano--> kernel and Frechet distance of the two sets; squared distance and PSNR of
each clip and its truth

The truths are the worlds that the conditions were taken from: equal sets have distance 0, and every arm is measured
against the same clips.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
from torch import Tensor

from kinolex import hub, metrics
from kinolex.metrics.distribution import features_of, frechet_distance, kernel_distance
from kinolex.training.claims.arms import PIXEL_TASKS, Arm, base_arm
from kinolex.training.claims.lab import Lab, sample
from kinolex.training.claims.worlds import decode_many, encode_many

VERSION = 2
"""Raised when the meaning of a figure changes. 1: parallel decoding settled the surest tokens first."""
FEATURES = hub.CLIP_FEATURES
DISTANCE = f"kernel_distance[{FEATURES}]"
"""The figure that rules look at: a Frechet distance would need more clips than there are dimensions."""
FRECHET = f"frechet_distance[{FEATURES}]"
TO_TRUTH = f"distance_to_truth[{FEATURES}]"
HIGHEST_DB = 100.0

Figures = dict[str, float]


def eight_tasks(lab: Lab, arm: Arm, seed: int) -> Figures:
    """Means over the eight pixel tasks, and the distance of each."""
    each = {task: compared(lab, lab.make(arm, seed, task)) for task in PIXEL_TASKS}
    means = {key: statistics.fmean(one[key] for one in each.values()) for key in each[PIXEL_TASKS[0]]}
    return means | {f"{DISTANCE} {task}": one[DISTANCE] for task, one in each.items()}


def prediction_by_passes(lab: Lab, arm: Arm, seed: int) -> Figures:
    """Frame prediction by a masked network, and its distance at every number of passes of the scale's curve."""
    figures = compared(lab, lab.make(arm, seed, "frame-prediction"))
    for passes in lab.scale.curve:
        made = lab.make(arm, seed, "frame-prediction", passes=passes)
        figures[f"{DISTANCE} {passes} passes"] = compared(lab, made)[DISTANCE]
    return figures


def prediction_and_seconds(lab: Lab, arm: Arm, seed: int) -> Figures:
    """Frame prediction token by token, and the seconds of one clip beside those of parallel decoding.

    Measured in turns, medians. The autoregressive network may run in float32 or as the other does, whichever is faster.
    """
    figures = compared(lab, lab.make(arm, seed, "frame-prediction"))
    parallel = base_arm(lab.scale, "parallel")
    networks = {"parallel": lab.network(parallel, seed), "token by token": lab.network(arm, seed)}
    tokenizer = lab.tokenizer(arm, seed)
    condition_Nthw, exact_thw = lab.posed(arm, seed, "frame-prediction")
    words_NP = lab.words(arm, "frame-prediction")

    def one(name: str) -> None:
        generator = torch.Generator().manual_seed(seed)
        sample(
            networks[name],
            tokenizer,
            "frame-prediction",
            condition_Nthw[:1],
            exact_thw,
            words_NP[:1],
            lab.scale.passes,
            generator,
        )
        if tokenizer.device.type == "cuda":
            torch.cuda.synchronize()

    ways: dict[str, tuple[str, Callable[[], contextlib.AbstractContextManager[object]]]] = {
        "parallel": ("parallel", contextlib.nullcontext),
        "float32": ("token by token", contextlib.nullcontext),
        "like the other": ("token by token", tokenizer.autocast),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(lab.scale.timed_rounds + 1):
        for way, (name, context) in ways.items():
            with context():
                began = time.perf_counter()
                one(name)
                # The first round warms up.
                if number:
                    seconds[way].append(time.perf_counter() - began)
    medians = {way: statistics.median(values) for way, values in seconds.items()}
    slow = min(medians["float32"], medians["like the other"])
    return figures | {"seconds": slow, "seconds in parallel": medians["parallel"]}


def reconstruction_and_generation(lab: Lab, arm: Arm, seed: int) -> Figures:
    """Worlds made from captions, and the same worlds through the tokenizer alone."""
    made = compared(lab, lab.make(arm, seed, "class"))
    tokenizer = lab.tokenizer(arm, seed)
    ids_Nthw = encode_many(tokenizer, lab.held_out.frames_NTCHW)
    through = compared(lab, decode_many(tokenizer, ids_Nthw))
    used = len(ids_Nthw.unique()) / min(tokenizer.vocab_size, ids_Nthw.numel())
    return made | {f"reconstruction {key}": value for key, value in through.items()} | {"share of ids in use": used}


def compared(lab: Lab, made_NTCHW: Tensor) -> Figures:
    """Distances of clips to the held-out worlds that they were made of."""
    true_NTCHW = lab.held_out.frames_NTCHW
    made_ND, true_ND = (features_of(clips, hub_features()) for clips in (made_NTCHW, true_NTCHW))
    decibels = (metrics.psnr_db(true, made) for true, made in zip(true_NTCHW, made_NTCHW, strict=True))
    return {
        DISTANCE: kernel_distance(made_ND, true_ND),
        FRECHET: frechet_distance(made_ND, true_ND),
        TO_TRUTH: float((made_ND - true_ND).square().mean()),
        "psnr_db": statistics.fmean(min(value, HIGHEST_DB) for value in decibels),
    }


@lru_cache(maxsize=1)
def hub_features() -> Callable[[Tensor], Tensor]:
    return hub.load_clip_features()


def readable(figures: Figures) -> Iterator[tuple[str, float]]:
    """Figures of the table of a page: those without a task or a number of passes."""
    return ((key, value) for key, value in figures.items() if not key.startswith(f"{DISTANCE} "))

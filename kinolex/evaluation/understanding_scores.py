"""From what probes said of every clip to accuracies: intervals over clips and seeds, ratios, classes, confusions.

probabilities of windows --mean--> of clips --largest--> said_SN        S seeds of training, N clips of the test split
said_SN, wanted_N --> hits_SN --bootstrap over clips and seeds--> accuracy, ratio to another input's
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kinolex.errors import UsageError
from kinolex.evaluation.protocol import COVERAGE

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def said_of_items(probabilities_NV: NDArray[np.float32], items_N: Ints) -> Ints:
    """The class of every clip, in the order of their numbers: that of the largest mean over its windows."""
    numbers = np.unique(items_N)
    return np.array([probabilities_NV[items_N == number].mean(axis=0).argmax() for number in numbers], np.int64)


def wanted_of_items(labels_N: Ints, items_N: Ints) -> Ints:
    """The label of every clip; windows of one clip have one label."""
    return labels_N[np.unique(items_N, return_index=True)[1]]


def accuracy(hits_SN: Floats, *, seed: int, draws: int) -> dict[str, float]:
    """Share of right answers and its 95 % interval, over clips and seeds drawn with replacement."""
    means_R = _drawn(hits_SN, seed, draws)
    low, high = _interval(means_R)
    return {"mean": float(hits_SN.mean()), "low": low, "high": high}


def ratio(hits_SN: Floats, base_SN: Floats, *, seed: int, draws: int) -> dict[str, float]:
    """Accuracy over that of another input on the same clips, with an interval over the same draws.

    Raises:
        UsageError: another number of clips, or the other never right: nothing to divide by.
    """
    if hits_SN.shape[1] != base_SN.shape[1] or not base_SN.any():
        raise UsageError("a ratio of accuracies needs the same clips on both sides and a base that is right at times")
    above_R, below_R = (_drawn(values, seed, draws) for values in (hits_SN, base_SN))
    ratios_R = above_R / np.maximum(below_R, 0.5 / hits_SN.shape[1])
    low, high = _interval(ratios_R)
    return {"mean": float(hits_SN.mean() / base_SN.mean()), "low": low, "high": high}


def confusion(wanted_N: Ints, said_SN: Ints, classes: int) -> Ints:
    """How often a clip of class [row] was said to be of class [column], over all seeds."""
    counts_VV = np.zeros((classes, classes), np.int64)
    for said_N in said_SN:
        np.add.at(counts_VV, (wanted_N, said_N), 1)
    return counts_VV


def _drawn(hits_SN: Floats, seed: int, draws: int) -> Floats:
    """Means [R] of drawn clips and seeds; the same seed draws the same clips."""
    seeds, count = hits_SN.shape
    dice = np.random.default_rng(seed)
    clips_RN = dice.multinomial(count, np.full(count, 1 / count), size=draws) / count
    seeds_RS = np.random.default_rng([seed, 1]).multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    return np.einsum("rn,sn,rs->r", clips_RN, hits_SN, seeds_RS, optimize=True)


def _interval(values_R: Floats) -> tuple[float, float]:
    tail = 100.0 * (1.0 - COVERAGE) / 2.0
    low, high = np.percentile(values_R, [tail, 100.0 - tail])
    return float(low), float(high)

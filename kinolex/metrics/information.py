"""Mutual information of words and labels in bits, beside what it comes to when the labels are dealt out anew.

    one symbol a picture, labels          --counts--> I(symbol; label)                                  of_symbols
    words present in a picture, labels    --counts--> I(word present; label), word by word              of_words
                                          --naive Bayes--> held-out guesses --> I(guess; label)         of_words
    the same with labels permuted, R times --> mean, 95 % quantile, p of each

Mutual information counted from few samples is too high: 500 pictures of 10 kinds and as many different words would
tell everything. Every figure therefore stands beside its permutation null, which has the same words, the same labels,
the same number of pictures, and no connection: what the figure has over the null's mean is the connection.

Of many words together no table can be counted. A guess of the label from them is a function of them, so it tells no
more than they do (data processing inequality) and I(guess; label) is a lower bound, however crude the guess is. The
guess is naive Bayes on words present and absent, made of each fold by the pictures of the others, with all labels
equally likely beforehand. A word's share within a label is drawn to its share within all pictures with the weight of
one picture, so that words say little where they were seen little. Folds do not depend on labels; so the labels are
exchangeable if words tell nothing, and p is exact.

Source: Ojala and Garriga 2010 (permutation tests of classifiers); p as Phipson and Smyth 2010, never 0; words at once
by the largest of all words, Westfall and Young 1993; Cover and Thomas, Elements of Information Theory, chapter 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinolex.errors import ShapeError, UsageError

FOLDS = 5
_CELLS = 500_000
"""Numbers of a table of words, labels and permutations that are held at once."""
_SAME_BITS, _SAME_SCORE = 1e-9, 1e-6
"""Closer than this they are equal but for rounding."""

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Information:
    """Bits measured, and the same of permuted labels."""

    bits: float
    """At least 0 and at most the entropy of the labels."""
    null_mean: float
    null_95: float
    p: float
    """Share of all deals, the true one among them, that reach these bits; at least 1 / (1 + number of permutations)."""


@dataclass(frozen=True, slots=True, eq=False)
class WordsInformation:
    together: Information
    """Of the guess made from all words."""
    bits_V: NDArray[np.float64]
    """I(word present; label) of every word alone; 0 where it is in every picture or in none."""
    p_V: NDArray[np.float64]
    """Share of all deals in which any of the words reaches these bits: right for however many words are looked at."""


def entropy_bits(labels_N: Ids) -> float:
    """Entropy of labels 0, 1, ..., as they occur."""
    shares = np.unique(labels_N, return_counts=True)[1] / len(labels_N)
    return max(0.0, float(-(shares * np.log2(shares)).sum()))


def permutations(count: int, length: int, *, seed: int) -> Ids:
    """orders_RN: so many random orders of 0..length-1.

    Raises:
        UsageError: none wanted.
    """
    if count < 1:
        raise UsageError(f"a null needs at least 1 permutation, got {count}; 1000 tell p down to 0.001")
    return np.random.default_rng(seed).permuted(np.tile(np.arange(length), (count, 1)), axis=1)


def of_symbols(symbols_N: Ids, labels_N: Ids, orders_RN: Ids) -> Information:
    """I(symbol; label), counted.

    Args:
        symbols_N: one symbol of each picture, any integers.
        labels_N: its label, 0 to K-1.
        orders_RN: permutations of the labels.

    Raises:
        ShapeError: not one label and one place in every order for each symbol, or labels below 0.
    """
    _check(symbols_N, labels_N, orders_RN)
    places_N = np.unique(symbols_N, return_inverse=True)[1]
    return _against_null(_counted_bits(places_N[None], _deals(labels_N, orders_RN)))


def of_words(present_NV: NDArray[np.bool_], labels_N: Ids, orders_RN: Ids, *, seed: int = 0) -> WordsInformation:
    """I(word present; label) of every word, and I(guess; label) of the guess from all of them (see the module).

    Args:
        present_NV: whether the word is in the picture.
        labels_N: labels 0 to K-1.
        orders_RN: permutations of the labels.
        seed: of the folds.

    Raises:
        ShapeError: as of_symbols. UsageError: fewer pictures than folds.
    """
    _check(present_NV, labels_N, orders_RN)
    if len(labels_N) < FOLDS:
        raise UsageError(f"guesses are made in {FOLDS} folds, which {len(labels_N)} pictures do not fill; give more")
    tells_V = present_NV.any(axis=0) & ~present_NV.all(axis=0)
    deals_RN = _deals(labels_N, orders_RN)
    bits_RV, guesses_RN = np.zeros((len(deals_RN), int(tells_V.sum()))), np.zeros_like(deals_RN)
    folds_N = np.random.default_rng(seed).permutation(len(labels_N)) % FOLDS
    for some, counts in _in_parts(present_NV[:, tells_V], deals_RN, folds_N):
        bits_RV[some] = _bits_of_presence(counts.sum(axis=0), np.bincount(labels_N), len(labels_N))
        guesses_RN[some] = _guesses(counts, present_NV[:, tells_V], deals_RN[some], folds_N)
    highest_R = bits_RV.max(axis=1, initial=0.0)
    bits_V, p_V = np.zeros(present_NV.shape[1]), np.ones(present_NV.shape[1])
    bits_V[tells_V] = bits_RV[0]
    # The true deal is the first of all; its own largest word counts for every word.
    ordered_R = np.sort(highest_R)
    p_V[tells_V] = 1.0 - np.searchsorted(ordered_R, bits_RV[0] - _SAME_BITS) / len(ordered_R)
    return WordsInformation(_against_null(_counted_bits(guesses_RN, deals_RN)), bits_V, p_V)


def _check(of_pictures: NDArray[np.generic], labels_N: Ids, orders_RN: Ids) -> None:
    if len(of_pictures) != len(labels_N) or orders_RN.ndim != 2 or orders_RN.shape[1] != len(labels_N):
        raise ShapeError(
            f"information needs a label and a place in every order for each picture, got {len(of_pictures)} pictures, "
            f"{len(labels_N)} labels and orders {orders_RN.shape}"
        )
    if not len(labels_N) or labels_N.min() < 0:
        raise ShapeError("information needs pictures, and labels that count from 0")


def _deals(labels_N: Ids, orders_RN: Ids) -> Ids:
    """Labels as they are, then permuted: (1 + R, N)."""
    return np.concatenate([labels_N[None], labels_N[orders_RN]])


def _against_null(bits_R: NDArray[np.float64]) -> Information:
    """The first against the others."""
    bits, null_R = float(bits_R[0]), bits_R[1:]
    reached = int((null_R >= bits - _SAME_BITS).sum())
    return Information(bits, float(null_R.mean()), float(np.percentile(null_R, 95)), (1 + reached) / (1 + len(null_R)))


def _n_log_n(count: int) -> NDArray[np.float64]:
    """n log2 n of 0..count: entropies of counts are sums of these."""
    numbers = np.arange(count + 1, dtype=np.float64)
    return numbers * np.log2(np.maximum(numbers, 1.0))


def _counted_bits(symbols_RN: Ids, labels_RN: Ids) -> NDArray[np.float64]:
    """Mutual information of symbols 0, 1, ... and labels in every row; one row of symbols serves all."""
    rows, count = labels_RN.shape
    num_symbols, num_labels = int(symbols_RN.max()) + 1, int(labels_RN.max()) + 1
    pairs_RN = symbols_RN * num_labels + labels_RN
    table = _n_log_n(count)
    bits_R = np.zeros(rows)
    for row in range(rows):
        joint_SK = np.bincount(pairs_RN[row], minlength=num_symbols * num_labels).reshape(num_symbols, num_labels)
        margins = table[joint_SK.sum(axis=0)].sum() + table[joint_SK.sum(axis=1)].sum()
        bits_R[row] = (table[count] + table[joint_SK].sum() - margins) / count
    return bits_R.clip(min=0.0)


def _in_parts(
    present_NV: NDArray[np.bool_], deals_RN: Ids, folds_N: Ids
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Stretches of deals, and how many pictures with a word have a label: counts (folds, V, deals, K)."""
    num_labels, words = int(deals_RN.max()) + 1, present_NV.shape[1]
    step = max(1, _CELLS // (max(1, words) * num_labels))
    folds = [present_NV[folds_N == fold].T.astype(np.float32) for fold in range(FOLDS)]
    for start in range(0, len(deals_RN), step):
        some = slice(start, start + step)
        labels_NRK = _one_hot(deals_RN[some].T, num_labels)
        counts = [
            each_VN @ labels_NRK[folds_N == fold].reshape(each_VN.shape[1], -1) for fold, each_VN in enumerate(folds)
        ]
        yield some, np.stack(counts).reshape(FOLDS, words, labels_NRK.shape[1], num_labels)


def _one_hot(labels: Ids, count: int) -> NDArray[np.float32]:
    return (labels[..., None] == np.arange(count)).astype(np.float32)


def _bits_of_presence(counts_VRK: NDArray[np.float32], of_label_K: Ids, count: int) -> NDArray[np.float64]:
    """(R, V): I(word present; label)."""
    table = _n_log_n(count)
    with_VRK = counts_VRK.astype(np.int64)
    joint_VR = (table[with_VRK] + table[of_label_K - with_VRK]).sum(axis=-1)
    with_VR = with_VRK.sum(axis=-1)
    margins_VR = table[with_VR] + table[count - with_VR] + table[of_label_K].sum()
    return ((table[count] + joint_VR - margins_VR) / count).clip(min=0.0).T


def _guesses(counts: NDArray[np.float32], present_NV: NDArray[np.bool_], deals_RN: Ids, folds_N: Ids) -> Ids:
    """(R, N): of every picture the label that the pictures of the other folds find likeliest; the first of equals."""
    share_V11 = present_NV.mean(axis=0)[:, None, None]
    total_VRK, num_labels = counts.sum(axis=0), counts.shape[-1]
    guesses_RN = np.zeros_like(deals_RN)
    for fold, held_VRK in enumerate(counts):
        of_label_RK = _one_hot(deals_RN[:, folds_N != fold], num_labels).sum(axis=1)
        with_VRK = total_VRK - held_VRK
        log_with_VRK = np.log(with_VRK + share_V11)
        log_without_VRK = np.log(of_label_RK - with_VRK + (1.0 - share_V11))
        absent_RK = log_without_VRK.sum(axis=0) - len(share_V11) * np.log(of_label_RK + 1.0)
        weights_VL = (log_with_VRK - log_without_VRK).reshape(len(share_V11), of_label_RK.size)
        scores_NL = present_NV[folds_N == fold].astype(np.float64) @ weights_VL + absent_RK.reshape(-1)
        scores_NRK = scores_NL.reshape(len(scores_NL), *of_label_RK.shape)
        likeliest_NRK = scores_NRK >= scores_NRK.max(axis=-1, keepdims=True) - _SAME_SCORE
        guesses_RN[:, folds_N == fold] = likeliest_NRK.argmax(axis=-1).T
    return guesses_RN

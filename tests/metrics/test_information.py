"""What words tell of labels: all of it where they are planted, nothing by chance, and nulls as counted one by one."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from kinolex.errors import ShapeError, UsageError
from kinolex.metrics import information
from kinolex.metrics.information import FOLDS, entropy_bits, of_symbols, of_words, permutations

Ids = NDArray[np.int64]


def by_definition(one: list[int], other: list[int]) -> float:
    """Sum of p(x, y) log2 p(x, y) / p(x) p(y)."""
    count, joint, left, right = len(one), Counter(zip(one, other, strict=True)), Counter(one), Counter(other)
    return sum(n / count * math.log2(n * count / (left[x] * right[y])) for (x, y), n in joint.items())


def guesses_by_definition(present_NV: NDArray[np.bool_], labels: list[int], folds: list[int]) -> list[int]:
    """Naive Bayes, one picture, label and word at a time."""
    found = []
    for asked in range(len(labels)):
        others = [number for number in range(len(labels)) if folds[number] != folds[asked]]
        scores = []
        for label in range(max(labels) + 1):
            of_label = [number for number in others if labels[number] == label]
            score = 0.0
            for word in range(present_NV.shape[1]):
                share = present_NV[:, word].mean()
                if share in (0.0, 1.0):
                    continue
                drawn = (sum(present_NV[number, word] for number in of_label) + share) / (len(of_label) + 1)
                score += math.log(drawn if present_NV[asked, word] else 1 - drawn)
            scores.append(score)
        found.append(next(k for k, score in enumerate(scores) if score > max(scores) - 1e-6))
    return found


def independent(seed: int, pictures: int = 60, words: int = 30, labels: int = 3) -> tuple[NDArray[np.bool_], Ids]:
    dice = np.random.default_rng(seed)
    return dice.random((pictures, words)) < dice.uniform(0.05, 0.6, words), dice.integers(labels, size=pictures)


@pytest.mark.parametrize("labels", [2, 7])
def test_planted_words_tell_exactly_the_entropy_of_the_labels_with_the_smallest_p(labels: int) -> None:
    dice = np.random.default_rng(0)
    labels_N = dice.integers(labels, size=200)
    orders_RN = permutations(99, 200, seed=0)
    noise_NV = dice.random((200, 20)) < 0.3
    present_NV = np.concatenate([labels_N[:, None] == np.arange(labels), noise_NV], axis=1)
    entropy = entropy_bits(labels_N)
    top = of_symbols(labels_N * 5 + 3, labels_N, orders_RN)
    found = of_words(present_NV, labels_N, orders_RN)
    for each in (top, found.together):
        assert each.bits == pytest.approx(entropy, abs=1e-12) and each.p == 0.01
        assert each.null_mean < each.null_95 < 0.5 * entropy
    assert found.bits_V[:labels] == pytest.approx([entropy_bits(1 * (labels_N == k)) for k in range(labels)])
    assert (found.p_V[:labels] == pytest.approx(0.01)) and found.bits_V[labels:].max() < found.bits_V[:labels].min()


def test_independent_words_are_not_significant_and_have_no_bits_over_the_null() -> None:
    layers, tops, words = [], [], []
    for seed in range(100):
        present_NV, labels_N = independent(seed)
        orders_RN = permutations(39, len(labels_N), seed=seed)
        found = of_words(present_NV, labels_N, orders_RN, seed=seed)
        layers.append(found.together)
        tops.append(of_symbols(np.random.default_rng([seed, 1]).integers(12, size=60), labels_N, orders_RN))
        words.append(found.p_V.min())
    for several in (layers, tops):
        excess = np.array([one.bits - one.null_mean for one in several])
        assert abs(excess.mean()) < 3 * excess.std() / math.sqrt(len(excess))
    for p in (np.array([one.p for one in layers]), np.array([one.p for one in tops]), np.array(words)):
        assert 0.41 < p.mean() < 0.59  # uniform: 0.5 and 3 standard errors
        assert (p <= 0.1).mean() < 0.2 and (p <= 0.025).mean() < 0.08


def test_the_null_of_all_permutations_is_that_of_counting_every_one() -> None:
    symbols, labels = [0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 1, 0]
    orders = list(itertools.permutations(range(6)))
    found = of_symbols(np.array(symbols), np.array(labels), np.array(orders))
    null = [by_definition(symbols, [labels[place] for place in order]) for order in orders]
    bits = by_definition(symbols, labels)
    assert found.bits == pytest.approx(bits) and found.null_mean == pytest.approx(np.mean(null))
    assert found.null_95 == pytest.approx(np.percentile(null, 95))
    assert found.p == (1 + sum(one > bits - 1e-9 for one in null)) / 721


@pytest.mark.parametrize("cells", [1, 500_000])
def test_words_and_guesses_are_those_of_counting_one_by_one(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(information, "_CELLS", cells)
    present_NV, labels_N = independent(3, pictures=14, words=6)
    present_NV[:, 1], present_NV[:, 4] = True, present_NV[:, 0]  # a word in every picture, and two words alike
    present_NV[:, 0] |= labels_N == 0
    orders_RN = permutations(40, 14, seed=1)
    found = of_words(present_NV, labels_N, orders_RN, seed=2)
    folds = (np.random.default_rng(2).permutation(14) % FOLDS).tolist()
    deals = [labels_N.tolist(), *labels_N[orders_RN].tolist()]
    together = [by_definition(guesses_by_definition(present_NV, deal, folds), deal) for deal in deals]
    assert found.together.bits == pytest.approx(together[0])
    assert found.together.null_mean == pytest.approx(np.mean(together[1:]))
    assert found.together.p == (1 + sum(one > together[0] - 1e-9 for one in together[1:])) / 41
    alone_RV = np.array([[by_definition(word.tolist(), deal) for word in present_NV.T] for deal in deals])
    assert found.bits_V == pytest.approx(alone_RV[0])
    reached_V = [(alone_RV.max(axis=1) > bits - 1e-9).mean() for bits in alone_RV[0]]
    assert found.p_V == pytest.approx(reached_V)


def test_words_of_every_picture_or_of_none_tell_nothing() -> None:
    labels_N = np.arange(20) % 2
    present_NV = np.stack([np.ones(20, dtype=bool), np.zeros(20, dtype=bool)], axis=1)
    found = of_words(present_NV, labels_N, permutations(9, 20, seed=0))
    assert found.bits_V.tolist() == [0, 0] and found.p_V.tolist() == [1, 1]
    assert (found.together.bits, found.together.null_mean, found.together.p) == (0, 0, 1)
    assert of_symbols(np.zeros(20, dtype=np.int64), labels_N, permutations(9, 20, seed=0)).bits == 0


def test_many_different_words_tell_much_only_until_the_null_is_seen() -> None:
    labels_N = np.arange(40) % 4
    found = of_symbols(np.arange(40), labels_N, permutations(99, 40, seed=0))
    assert found.bits == found.null_mean == found.null_95 == 2.0 and found.p == 1.0


def test_permutations_are_orders_and_follow_the_seed() -> None:
    orders_RN = permutations(5, 8, seed=4)
    assert (np.sort(orders_RN, axis=1) == np.arange(8)).all() and len({tuple(row) for row in orders_RN}) == 5
    assert (orders_RN == permutations(5, 8, seed=4)).all() and (orders_RN != permutations(5, 8, seed=5)).any()


def test_what_does_not_fit_is_refused() -> None:
    labels_N, orders_RN = np.array([0, 1, 0, 1]), permutations(3, 4, seed=0)
    with pytest.raises(UsageError, match="at least 1 permutation"):
        permutations(0, 4, seed=0)
    with pytest.raises(ShapeError, match="3 pictures, 4 labels"):
        of_symbols(np.zeros(3, dtype=np.int64), labels_N, orders_RN)
    with pytest.raises(ShapeError, match="count from 0"):
        of_symbols(labels_N, labels_N - 1, orders_RN)
    with pytest.raises(UsageError, match="5 folds, which 4 pictures"):
        of_words(np.zeros((4, 2), dtype=bool), labels_N, orders_RN)

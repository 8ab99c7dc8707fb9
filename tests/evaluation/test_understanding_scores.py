"""Accuracies and their ratios: right on cases that can be counted, with intervals that hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from kinolex.errors import UsageError
from kinolex.evaluation.understanding_page import CELL, DARK, LIGHT, confusion_picture
from kinolex.evaluation.understanding_scores import accuracy, confusion, ratio, said_of_items, wanted_of_items

DICE = {"seed": 0, "draws": 1000}


def test_windows_of_a_clip_speak_together() -> None:
    probabilities_NV = np.array([[0.6, 0.4], [0.1, 0.9], [0.9, 0.1]], np.float32)
    items_N = np.array([0, 0, 5])
    assert said_of_items(probabilities_NV, items_N).tolist() == [1, 0]
    assert wanted_of_items(np.array([1, 1, 0]), items_N).tolist() == [1, 0]


def test_the_interval_of_an_accuracy_holds_the_truth_about_as_often_as_it_says() -> None:
    dice, held = np.random.default_rng(1), 0
    for _ in range(100):
        found = accuracy((dice.random((1, 80)) < 0.7).astype(float), seed=0, draws=300)
        held += found["low"] <= 0.7 <= found["high"]
    assert 88 <= held <= 100


def test_a_ratio_is_paired_by_clip() -> None:
    hits_SN = (np.random.default_rng(0).random((3, 50)) < 0.6).astype(float)
    assert ratio(hits_SN, hits_SN, **DICE) == pytest.approx({"mean": 1.0, "low": 1.0, "high": 1.0})
    fewer_SN = hits_SN.copy()
    fewer_SN[:, :10] = 0
    found = ratio(fewer_SN, hits_SN, **DICE)
    assert found["high"] <= 1.0 and found["low"] < found["mean"] < found["high"]


def test_ratios_without_a_base_are_refused() -> None:
    with pytest.raises(UsageError, match="right at times"):
        ratio(np.ones((1, 4)), np.zeros((1, 4)), **DICE)
    with pytest.raises(UsageError, match="same clips"):
        ratio(np.ones((1, 4)), np.ones((1, 5)), **DICE)


def test_confusions_count_every_clip_of_every_seed_once() -> None:
    counts_VV = confusion(np.array([0, 1, 1]), np.array([[0, 1, 0], [0, 1, 1]]), 2)
    assert counts_VV.tolist() == [[2, 0], [1, 3]]


def test_the_picture_of_confusions_is_dark_where_all_are_right() -> None:
    picture_HWC = confusion_picture(np.array([[4, 0], [0, 0]]))
    assert picture_HWC.shape == (2 * CELL, 2 * CELL, 3) and picture_HWC.dtype == np.uint8
    assert picture_HWC[0, 0].tolist() == DARK.tolist() and picture_HWC[0, -1].tolist() == LIGHT.tolist()
    assert picture_HWC[-1, 0].tolist() == LIGHT.tolist(), "a class that is not there stays light"

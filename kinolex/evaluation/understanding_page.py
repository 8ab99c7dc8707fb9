"""A page that shows what probes read from tokens and from raw input: accuracies, ratios, pictures of confusions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinolex.evaluation.page import Html, Strong, figure, image_data_uri, note, page, section, table

CELL = 22
"""Pixels of one cell of a confusion matrix."""
LIGHT, DARK = np.array([250.0, 246.0, 240.0]), np.array([168.0, 74.0, 40.0])


def understanding_page(result: dict[str, Any]) -> str:
    """The whole document."""
    sections = [section("Tokens over raw input", *(_ratios(name, one) for name, one in result["sets"].items()))]
    sections += [
        section(
            name,
            note(f"{one['train']} clips to learn from, {one['test']} to be judged, {one['items']} of them different"),
            *(_accuracies(attribute, scores) for attribute, scores in one["attributes"].items()),
            *(_confusions(attribute, scores) for attribute, scores in one["attributes"].items()),
        )
        for name, one in result["sets"].items()
    ]
    seeds = ", ".join(map(str, result["protocol"]["seeds"]))
    lead = f"{result['tokenizer']}; seeds {seeds}; {result['command']}; protocol {result['protocol_hash']}"
    return page(result["name"], sections, lead=lead)


def confusion_picture(counts_VV: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Rows are what a clip is, columns what it was said to be; the darker, the larger the share of the row."""
    shares_VV = counts_VV / np.maximum(counts_VV.sum(axis=1, keepdims=True), 1)
    colours_VV3 = LIGHT + shares_VV[..., None] * (DARK - LIGHT)
    return np.repeat(np.repeat(colours_VV3.round().astype(np.uint8), CELL, axis=0), CELL, axis=1)


def _ratios(name: str, one: dict[str, Any]) -> Html:
    rows = [
        [f"{way['kind']}, {way['input']}", way["accuracy"]["mean"], *_three(way["ratio"])]
        for way in one["overall"]
        if way["ratio"] is not None
    ]
    caption = f"{name}: mean over attributes, and its ratio to the same probe on raw input with a 95 % interval"
    return table(["probe, input", "accuracy", "ratio", "low", "high"], rows, caption=caption)


def _accuracies(attribute: str, scores: dict[str, Any]) -> Html:
    rows = []
    for way in scores["ways"]:
        classes = [way["per_class"][name] for name in scores["classes"]]
        rows.append(
            [f"{way['kind']}, {way['input']}", Strong(way["accuracy"]["mean"]), *_ends(way["accuracy"]), *classes]
        )
    headers = ["probe, input", "accuracy", "low", "high", *scores["classes"]]
    return table(headers, rows, caption=f"{attribute}: share of right answers, of all and of every class")


def _confusions(attribute: str, scores: dict[str, Any]) -> Html:
    pictures = [
        (f"{way['kind']}, {way['input']}", image_data_uri(confusion_picture(np.array(way["confusion"]))))
        for way in scores["ways"]
    ]
    order = ", ".join(scores["classes"])
    return figure(pictures, caption=f"{attribute}: rows are what it is, columns what was said; {order}")


def _three(value: dict[str, float]) -> list[float]:
    return [value["mean"], *_ends(value)]


def _ends(value: dict[str, float]) -> list[float]:
    return [value["low"], value["high"]]

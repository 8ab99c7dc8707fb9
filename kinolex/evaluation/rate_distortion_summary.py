"""Measured rows -> what they say: BD figures, ratios at matched bytes, falls of quality, mean curves."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from kinolex.evaluation.bjontegaard import INTERPOLATION, bd_quality, bd_rate_percent
from kinolex.evaluation.protocol import ReconstructionProtocol, bootstrap_interval, make_result
from kinolex.evaluation.rate_distortion_rows import COUNTINGS, Comparison, Row

METRICS = ("psnr_db", "ms_ssim", "squeezenet_distance", "vmaf")
QUALITY_OF = {
    "psnr_db": "as it is, in dB",
    "ms_ssim": "-10 log10(1 - x), in dB",
    "squeezenet_distance": "-ln(x), so that a difference is the logarithm of a ratio",
    "vmaf": "as it is, in points",
}
DISTANCE_RATIO_AIM = 0.7
_LEAST = 1e-10
"""Keeps logarithms of a perfect picture finite."""


def as_quality(metric: str, value: float) -> float:
    """A figure on the scale on which curves are compared (QUALITY_OF): more is better."""
    if metric == "ms_ssim":
        return -10.0 * math.log10(max(_LEAST, 1.0 - value))
    return -math.log(max(_LEAST, value)) if metric == "squeezenet_distance" else value


def summarise_comparison(
    name: str, comparison: Comparison, rows: Sequence[Row], protocol: ReconstructionProtocol, command: str | None
) -> dict[str, Any]:
    """A result in the one schema, whose `clips` hold one row per clip with its headline figures.

    Added to it: `points`, every measured row; `bd_rate_percent` and `bd_quality` of ours against each other coder, by
    counting and metric; `matched`, at each limit and counting; `falls`, how often more bytes look worse.
    """
    assert comparison.ours is not None
    ours, others = comparison.ours.name, [coder.name for coder in comparison.others]
    metrics = [metric for metric in METRICS if all(metric in row for row in rows)]
    names = list(dict.fromkeys(row["name"] for row in rows))
    curves = {
        (clip, coder): [row for row in rows if (row["name"], row["coder"], row["purpose"]) == (clip, coder, "curve")]
        for clip in names
        for coder in (ours, *others)
    }
    matched = [row for row in rows if row["purpose"] == "matched"]
    clips: dict[str, Row] = {
        clip: {"name": clip, "psnr_db": statistics.fmean(row["psnr_db"] for row in curves[clip, ours])}
        for clip in names
    }
    bd: dict[str, Any] = {"bd_rate_percent": {}, "bd_quality": {}}
    for kind, function in (("bd_rate_percent", bd_rate_percent), ("bd_quality", bd_quality)):
        for counting in COUNTINGS:
            for other in others:
                for metric in metrics:
                    by_clip = {
                        clip: function(*(_curve(curves[clip, coder], counting, metric) for coder in (other, ours)))
                        for clip in names
                    }
                    found = bd[kind].setdefault(counting, {}).setdefault(other, {})
                    found[metric] = _spread(by_clip.values(), protocol) | {"by_clip": by_clip}
    figures = {}
    for limit in comparison.limits_bpp:
        for counting in COUNTINGS:
            chosen = [row for row in matched if (row["limit_bpp"], row["counting"]) == (limit, counting)]
            by_clip = {clip: _at_limit([row for row in chosen if row["name"] == clip], ours) for clip in names}
            figures[f"{counting} {limit:g}"] = _matched_summary(by_clip, limit, counting, protocol)
            for clip, figure in by_clip.items():
                clips[clip][f"distance_ratio_{counting}_{limit:g}_bpp"] = figure["distance_ratio"]
                clips[clip][f"psnr_db_gain_{counting}_{limit:g}_bpp"] = figure["psnr_db_gain"]
    result = make_result(name, list(clips.values()), protocol, command=command)
    result |= {"interpolation": INTERPOLATION, "quality_scales": {metric: QUALITY_OF[metric] for metric in metrics}}
    result |= bd | {"matched": figures, "falls": falls(rows, metrics), "points": list(rows)}
    return result


def falls(rows: Iterable[Row], metrics: Sequence[str]) -> dict[str, dict[str, dict[str, float | int]]]:
    """How often quality falls as the file grows: coder -> metric -> shares, over neighbouring points of every clip."""
    by_clip: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row["purpose"] == "curve":
            by_clip[row["coder"], row["name"]].append(row)
    found: dict[str, dict[str, dict[str, float | int]]] = {}
    for coder in dict.fromkeys(coder for coder, _ in by_clip):
        found[coder] = {}
        for metric in metrics:
            steps = [
                [
                    as_quality(metric, after[metric]) < as_quality(metric, before[metric])
                    for before, after in pairwise(sorted(points, key=lambda row: row["file_bytes"]))
                    if after["file_bytes"] > before["file_bytes"]
                ]
                for (name, _), points in by_clip.items()
                if name == coder
            ]
            pairs = sum(map(len, steps))
            found[coder][metric] = {
                "clips": len(steps),
                "clips_without_fall": sum(not any(step) for step in steps) / len(steps),
                "pairs": pairs,
                "pairs_that_fall": sum(map(sum, steps)) / max(1, pairs),
            }
    return found


def mean_curves(rows: Sequence[Row], counting: str, metric: str) -> dict[str, list[tuple[float, float]]]:
    """Coder -> (bits per pixel, figure) at each of its levels, both the mean over all clips."""
    points: dict[str, dict[float, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["purpose"] == "curve" and metric in row:
            points[row["coder"]][row["level"]].append(row)
    clips = len({row["name"] for row in rows})
    return {
        coder: [
            (
                statistics.fmean(row[f"{counting}_bits_per_pixel"] for row in level),
                statistics.fmean(row[metric] for row in level),
            )
            for level in levels.values()
            if len(level) == clips
        ]
        for coder, levels in points.items()
    }


def _curve(rows: Sequence[Row], counting: str, metric: str) -> list[tuple[float, float]]:
    return [(float(row[f"{counting}_bytes"]), as_quality(metric, row[metric])) for row in rows]


def _spread(values: Iterable[float | None], protocol: ReconstructionProtocol) -> dict[str, Any]:
    """Median, mean and 95 % interval of those that are there, and how many are not."""
    values = list(values)
    there = [value for value in values if value is not None]
    if not there:
        return {"n": 0, "without": len(values), "median": None, "mean": None, "low": None, "high": None}
    low, high = bootstrap_interval(there, seed=protocol.seed, draws=protocol.bootstrap_draws)
    figures = {"median": statistics.median(there), "mean": statistics.fmean(there), "low": low, "high": high}
    return {"n": len(there), "without": len(values) - len(there), **figures}


def _at_limit(rows: Sequence[Row], ours: str) -> dict[str, Any]:
    """Ours beside the best of the others that kept to its bytes, at one limit on one clip."""
    mine = next((row for row in rows if row["coder"] == ours), None)
    fitting = [row for row in rows if row["coder"] != ours and not row["over_target"]]
    if mine is None or not fitting:
        return {"distance_ratio": None, "psnr_db_gain": None, "psnr_db": None, "best": None}
    key = "squeezenet_distance"
    if key not in mine:
        best = max(fitting, key=lambda row: row["psnr_db"])
        return {"distance_ratio": None, "psnr_db_gain": mine["psnr_db"] - best["psnr_db"], "psnr_db": mine["psnr_db"]}
    best = min(fitting, key=lambda row: row[key])
    return {
        "distance_ratio": mine[key] / max(_LEAST, best[key]),
        "distance": mine[key],
        "distance_of_best": best[key],
        "psnr_db_gain": mine["psnr_db"] - best["psnr_db"],
        "psnr_db": mine["psnr_db"],
        "psnr_db_of_best": best["psnr_db"],
        "best": best["coder"],
    }


def _matched_summary(
    by_clip: dict[str, dict[str, Any]], limit: float, counting: str, protocol: ReconstructionProtocol
) -> dict[str, Any]:
    ratios = [figure["distance_ratio"] for figure in by_clip.values()]
    there = [ratio for ratio in ratios if ratio is not None]
    return {
        "limit_bpp": limit,
        "counting": counting,
        "distance_ratio": _spread(ratios, protocol),
        "aim": DISTANCE_RATIO_AIM,
        "clips_that_reach_the_aim": sum(ratio <= DISTANCE_RATIO_AIM for ratio in there) / len(there) if there else None,
        "psnr_db_gain": _spread([figure["psnr_db_gain"] for figure in by_clip.values()], protocol),
        "by_clip": by_clip,
    }

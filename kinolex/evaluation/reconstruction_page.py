"""The page of a reconstruction result: figures beside codecs, original beside rebuilt, use of the vocabulary."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from einops import rearrange
from torch import Tensor

from kinolex.evaluation.page import Html, Strong, bars, code, figure, image_data_uri, note, page, section, table

ERROR_GAIN = 4
HIGHER_IS_BETTER = {"psnr_db": True, "ms_ssim": True, "squeezenet_distance": False}
MEAN_COLUMNS = ("bits_per_pixel", "psnr_db", "ssim", "ms_ssim", "squeezenet_distance", "flicker", "seam")


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame to show."""

    row: dict[str, Any]
    original_CHW: Tensor
    rebuilt_CHW: Tensor
    frame: int


def reconstruction_page(
    result: dict[str, Any], samples: Sequence[Sample], compare: Sequence[dict[str, Any]] = ()
) -> str:
    """HTML of a result of evaluate_reconstruction."""
    protocol = result["protocol"]
    commit = result["commit"][:12]
    frames = f"first {protocol['max_frames']} frames" if protocol["max_frames"] else "all frames"
    lead = (
        f"{result['n']} clips ({', '.join(protocol['sets'])}; split {protocol['split']}), {frames} at "
        f"{protocol['lines']} lines. Protocol {result['protocol_hash']}, commit {commit}, {result['date']}."
    )
    sections = [
        section("Mean over clips", _mean_table([result, *compare]), _reading_help(bool(compare))),
        section(
            "Clip by clip", *(_clip_table(key, result, compare) for key in HIGHER_IS_BETTER if key in result["mean"])
        ),
        section(
            "Original, rebuilt, error",
            note(f"The middle frame of each clip. Error: absolute difference times {ERROR_GAIN}; black is perfect."),
            *map(_sample_figure, sorted(samples, key=lambda sample: sample.row["psnr_db"])),
        ),
        section("Use of the vocabulary", *_codebook_parts(result)),
        section("How this was measured", code(json.dumps(_origin(result), indent=1))),
    ]
    return page(f"Reconstruction: {result['name']}", sections, lead=lead)


def _mean_table(results: Sequence[dict[str, Any]]) -> Html:
    columns = [key for key in MEAN_COLUMNS if any(key in result["mean"] for result in results)]
    rows = [[result["name"], *(_interval(result["mean"].get(key)) for key in columns)] for result in results]
    return table(["", *columns], rows, caption="mean over clips and its 95 % bootstrap interval")


def _interval(figure_: dict[str, float] | None) -> Html | None:
    if figure_ is None:
        return None
    digits = 2 if abs(figure_["mean"]) >= 2 else 3
    mean, low, high = (f"{figure_[key]:.{digits}f}" for key in ("mean", "low", "high"))
    return Html(f"{mean}<small>{low} to {high}</small>")


def _clip_table(key: str, result: dict[str, Any], compare: Sequence[dict[str, Any]]) -> Html:
    """One figure of every clip; the best of a row stands out where there is something to compare with."""
    by_name = [{row["name"]: row.get(key) for row in other["clips"]} for other in (result, *compare)]
    best = max if HIGHER_IS_BETTER[key] else min
    rows = []
    for row in sorted(result["clips"], key=lambda row: row[key], reverse=not HIGHER_IS_BETTER[key]):
        values = [values_by_name.get(row["name"]) for values_by_name in by_name]
        winner = best((value for value in values if value is not None), default=None)
        cells = [
            Strong(f"{value:.3f}") if compare and value == winner else None if value is None else f"{value:.3f}"
            for value in values
        ]
        rows.append([row["name"], *cells])
    return table(["clip", *(other["name"] for other in (result, *compare))], rows, caption=f"{key}, worst first")


def _sample_figure(sample: Sample) -> Html:
    error_CHW = (sample.original_CHW.int() - sample.rebuilt_CHW.int()).abs().mul(ERROR_GAIN).clamp(max=255).byte()
    pictures = [
        (label, image_data_uri(rearrange(picture_CHW, "c h w -> h w c")))
        for label, picture_CHW in (
            ("original", sample.original_CHW),
            ("rebuilt", sample.rebuilt_CHW),
            (f"error x{ERROR_GAIN}", error_CHW),
        )
    ]
    row = sample.row
    distance = f", distance {row['squeezenet_distance']:.3f}" if "squeezenet_distance" in row else ""
    return figure(pictures, caption=f"{row['name']}, frame {sample.frame}: {row['psnr_db']:.2f} dB{distance}")


def _codebook_parts(result: dict[str, Any]) -> list[Html]:
    vocab_size = result["tokenizer"]["vocab_size"]
    rows = [
        [
            f"level {level}",
            figures["tokens"],
            f"{figures['usage']:.2%}",
            f"{figures['reach']:.2%}",
            f"{figures['reach_of_uniform']:.2%}",
            figures["perplexity"],
        ]
        for level, figures in enumerate(result["codebook"])
    ]
    headers = [
        "",
        "tokens",
        f"share of all {vocab_size} ids",
        "of so many tokens",
        "of so many even draws",
        "perplexity",
    ]
    help_text = (
        "Distinct ids as a share of the vocabulary; of the most that so many tokens can show; and of what as many "
        "draws from an evenly used vocabulary would show on average."
    )
    parts = [table(headers, rows), note(help_text)]
    for level, figures in enumerate(result["codebook"]):
        title = f"level {level}: " if len(rows) > 1 else ""
        parts.append(bars(figures["histogram"], caption=f"{title}tokens by id", x_label="id, from 0 to the last"))
        if figures["digit_entropies_bits"]:
            caption = f"{title}entropy of each digit of the ids, in bits (levels {figures['digit_levels']})"
            top = math.log2(max(figures["digit_levels"]))
            parts.append(bars(figures["digit_entropies_bits"], caption=caption, x_label="digit, lowest first", top=top))
    return parts


def _reading_help(compared: bool) -> Html:
    text = (
        "psnr_db: of the clip's total error, capped at 100. squeezenet_distance: 0 is equal, about 0.9 unrelated. "
        "flicker: grey levels of frame-to-frame change that the original does not have. seam: error of frames that "
        "open a chunk against all others, 1 is seamless. bits_per_pixel: tokens written plainly"
    )
    return note(text + ("; for codecs, packet payloads without a container." if compared else "."))


def _origin(result: dict[str, Any]) -> dict[str, Any]:
    return {key: result[key] for key in ("command", "commit", "date", "hardware", "protocol", "tokenizer")}

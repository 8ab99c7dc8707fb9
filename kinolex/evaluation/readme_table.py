"""The README's tables, from results/*.json and benchmarks/*.json: python -m kinolex.evaluation.readme_table

Only results of one protocol stand in one table.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kinolex.errors import DataError
from kinolex.evaluation.page import write_text
from kinolex.evaluation.protocol import read_result

COLUMNS = {
    "bits_per_pixel": "bits/pixel",
    "psnr_db": "PSNR, dB",
    "ms_ssim": "MS-SSIM",
    "squeezenet_distance": "squeezenet_distance",
    "flicker": "flicker",
}
PEER_COLUMNS = {
    "psnr_db": "PSNR, dB",
    "squeezenet_distance": "squeezenet_distance",
    "clips_per_s": "training, clips/s",
    "encode_fps": "encode, frames/s",
    "decode_fps": "decode, frames/s",
    "peak_mib": "peak memory in training, MiB",
}
FRECHET = "frechet_distance[clip-features-nano]"
COUNTED = {"raw": "tokens or packets alone", "file": "whole files"}


def results_table(folder: Path) -> str:
    """Markdown of every reconstruction result in the folder, best distance first, with 95 % intervals."""
    paths = sorted([*folder.glob("reconstruction_*.json"), *folder.glob("codecs_reconstruction_*.json")])
    results = [read_result(path) for path in paths]
    hashes = {result["protocol_hash"] for result in results}
    if len(hashes) != 1:
        raise DataError(f"{folder} holds results of {len(hashes)} protocols; one table needs one, measure them again")
    results.sort(key=lambda result: result["mean"]["squeezenet_distance"]["mean"])
    lines = ["| | " + " | ".join(COLUMNS.values()) + " |", "| --- |" + " ---: |" * len(COLUMNS)]
    lines += [
        f"| {result['name'].removeprefix('reconstruction_')} | " + " | ".join(_cells(result)) + " |"
        for result in results
    ]
    clips, protocol = results[0]["n"], results[0]["protocol"]
    lines += ["", f"{clips} clips of {' and '.join(protocol['sets'])}, first {protocol['max_frames']} frames."]
    return "\n".join(lines)


def _cells(result: dict[str, Any]) -> Sequence[str]:
    cells = []
    for name in COLUMNS:
        figure = result["mean"][name]
        digits = 4 if name == "bits_per_pixel" else 2 if figure["mean"] >= 2 else 3
        mean, low, high = (f"{figure[key]:.{digits}f}" for key in ("mean", "low", "high"))
        cells.append(mean if name == "bits_per_pixel" else f"{mean} ({low} to {high})")
    return cells


def peers_table(path: Path) -> str:
    """Markdown of the benchmark against another tokenizer; behind each figure ours over theirs."""
    record = json.loads(path.read_text())
    ours = record["values"]["kinolex"]
    lines = ["| | " + " | ".join(PEER_COLUMNS.values()) + " |", "| --- |" + " ---: |" * len(PEER_COLUMNS)]
    for name, values in record["values"].items():
        cells = []
        for key in PEER_COLUMNS:
            value = f"{values[key]:.3f}" if key == "squeezenet_distance" else f"{values[key]:.4g}"
            is_speed = values is not ours and key.endswith(("fps", "per_s"))
            cells.append(f"{value} ({ours[key] / values[key]:.1f}x)" if is_speed else value)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"{record['protocol']['training']}; {record['hardware']}."])


def files_table(path: Path) -> str:
    """Markdown of .klx files beside classical codecs: means at matched bytes, and median BD-rates of raw bytes."""
    result = read_result(path)
    heads = ("at most, bits/pixel", "clips", "squeezenet_distance", "of the best codec", "PSNR, dB", "of that codec")
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for limit in result["matched"].values():
        clips = [clip for clip in limit["by_clip"].values() if clip["distance_ratio"] is not None]
        keys = ("distance", "distance_of_best", "psnr_db", "psnr_db_of_best")
        means = [statistics.fmean(clip[key] for clip in clips) for key in keys] if clips else []
        cells = [f"{mean:.2f}" if mean >= 2 else f"{mean:.3f}" for mean in means]
        lines.append(f"| {limit['limit_bpp']:g}, {COUNTED[limit['counting']]} | {len(clips)} | {' | '.join(cells)} |")
    metrics = ("psnr_db", "ms_ssim", "squeezenet_distance")
    lines += ["", "| bytes of files beside | " + " | ".join(f"at equal {metric}" for metric in metrics) + " |"]
    lines.append("| --- |" + " ---: |" * len(metrics))
    for codec, figures in result["bd_rate_percent"]["raw"].items():
        cells = [f"{_signed(figures[metric]['median'])} ({figures[metric]['n']} clips)" for metric in metrics]
        lines.append(f"| {codec} | {' | '.join(cells)} |")
    sets, frames = " and ".join(result["protocol"]["sets"]), result["protocol"]["max_frames"]
    rivals = ", ".join(result["measured"]["rivals"])
    return "\n".join([*lines, "", f"{result['n']} clips of {sets}, first {frames} frames, 128 lines; {rivals}."])


def generation_table(path: Path) -> str:
    """Markdown of a generator's tasks: distances to the true clip, and between sets of clips."""
    result = read_result(path)
    columns = {
        "": "made",
        "put_back_": "known pixels put back",
        "trivial_": "needs no network",
        "trivial_through_tokenizer_": "the same through the tokenizer",
        "ceiling_": "the true clip through the tokenizer",
    }
    heads = [
        "squeezenet_distance to the true clip",
        *columns.values(),
        "Frechet distance of sets: made",
        "needs no network",
    ]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for name, task in result["tasks"].items():
        cells = [f"{task['mean'][f'{label}squeezenet_distance']['mean']:.3f}" for label in columns]
        sets = {one["of"]: one["value"] for one in task["distances"] if one["name"] == FRECHET}
        cells += [f"{sets[of]:.3g}" for of in ("made", "trivial_through_tokenizer")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    count = result["n"] // len(result["tasks"])
    protocol = result["protocol"]
    lines += ["", f"{count} windows of {protocol['frames']} frames, {protocol['side']}x{protocol['side']}, of "]
    lines[-1] += f"{' and '.join(protocol['sets'])}; {protocol['steps']} passes; {FRECHET}."
    if "captions" in result:
        right = {key: value["mean"] for key, value in result["captions"]["mean"].items()}
        shares = ", ".join(f"{key.replace('_', ', ')} {share:.0%}" for key, share in right.items())
        lines[-1] += f" Of {len(result['captions']['worlds'])} captions right: {shares}."
    return "\n".join(lines)


def claims_table(folder: Path) -> str:
    """Markdown of every claim that was tested again: what it says, the verdict, and each ratio with its interval."""
    lines = ["| claim | verdict | ratio (95 % interval over seeds) | needed |", "| --- | --- | ---: | --- |"]
    for path in sorted(folder.glob("reproduce_*.json")):
        result = read_result(path)
        for number, one in enumerate(result["findings"]):
            name = result["name"].removeprefix("reproduce_") if number == 0 else ""
            figures = f"{one['ratio']:.3g} ({one['low']:.3g} to {one['high']:.3g})"
            said = "" if number else result["verdict"]
            lines.append(f"| {name} | {said} | {one['what']}: {figures} | {one['needed']} |")
    return "\n".join(lines)


def _signed(percent: float | None) -> str:
    return "no overlap" if percent is None else f"{percent:+.0f} %"


def with_table(readme: str, name: str, table: str) -> str:
    """The README's text with the table between the two marks of that name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, rest = readme.split(begin)
    return f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"


def with_tables(readme: str, root: Path) -> str:
    readme = with_table(readme, "results", results_table(root / "results"))
    readme = with_table(readme, "files", files_table(root / "results" / "rate_distortion_video-nano.json"))
    for name in ("masked-nano", "masked-world-nano"):
        table = generation_table(root / "results" / f"generation_{name}.json")
        readme = with_table(readme, name, table)
    readme = with_table(readme, "claims", claims_table(root / "results"))
    return with_table(readme, "peers", peers_table(root / "benchmarks" / "peers.json"))


def main() -> None:
    root = Path(__file__).resolve().parents[2]
    readme = root / "README.md"
    write_text(readme, with_tables(readme.read_text(), root))


if __name__ == "__main__":
    main()

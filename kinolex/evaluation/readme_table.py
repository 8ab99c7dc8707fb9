"""The README's table of measurements, from results/*.json: python -m kinolex.evaluation.readme_table

Only results of one protocol stand in one table; the newest reconstruction result decides which.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kinolex.errors import DataError
from kinolex.evaluation.page import write_text
from kinolex.evaluation.protocol import read_result

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
COLUMNS = {
    "bits_per_pixel": "bits/pixel",
    "psnr_db": "PSNR, dB",
    "ms_ssim": "MS-SSIM",
    "squeezenet_distance": "squeezenet_distance",
    "flicker": "flicker",
}


def results_table(folder: Path) -> str:
    """Markdown of every reconstruction result in the folder, best distance first, with 95 % intervals."""
    paths = sorted([*folder.glob("reconstruction_*.json"), *folder.glob("codecs_reconstruction_*.json")])
    results = [read_result(path) for path in paths]
    hashes = {result["protocol_hash"] for result in results}
    if len(hashes) != 1:
        raise DataError(f"{folder} holds results of {len(hashes)} protocols; one table needs one, measure them again")
    results.sort(key=lambda result: result["mean"]["squeezenet_distance"]["mean"])
    lines = ["| | " + " | ".join(COLUMNS.values()) + " |", "| --- |" + " ---: |" * len(COLUMNS)]
    lines += [f"| {result['name']} | " + " | ".join(_cells(result)) + " |" for result in results]
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


def with_table(readme: str, table: str) -> str:
    """The README's text with the table between its two marks."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}"


def main() -> None:
    root = Path(__file__).resolve().parents[2]
    readme = root / "README.md"
    write_text(readme, with_table(readme.read_text(), results_table(root / "results")))


if __name__ == "__main__":
    main()

"""The reader of same_everywhere: decompress every grid of a folder in this process and count the identical ones.

    FOLDER/{manifest.json, prior.safetensors, integer.bin, float.bin} --decompress--> ids --SHA-256--> same or not

Runs in other environments too, so it needs no more than the codec: torch, numpy, constriction, google-crc32c, einops
and safetensors.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks._float_prior import FloatPrior
from benchmarks._progress import steps
from kinolex.codec.priors import Prior, load_prior
from kinolex.codec.stream import decompress
from kinolex.errors import KinolexError

MANIFEST, PRIOR = "manifest.json", "prior.safetensors"
CODERS = ("integer", "float")
SHOWN = 5
"""Failures that are named."""


def digest(ids_Qthw: Tensor) -> str:
    """SHA-256 over shape and ids."""
    text = f"{tuple(ids_Qthw.shape)} {ids_Qthw.flatten().tolist()}"
    return hashlib.sha256(text.encode()).hexdigest()


def priors_in(folder: Path, device: str) -> dict[str, Prior]:
    """The integer prior of the folder and the float network with the same weights."""
    integer = load_prior(folder / PRIOR, device=device)
    control = FloatPrior(integer.config, load_file(folder / PRIOR), device=device)
    return {"integer": integer, "float": control}


def count(blob: bytes, rows: list[dict[str, Any]], prior: Prior, coder: str) -> dict[str, Any]:
    """How many grids come back as they were, and what happened to the others."""
    counts: dict[str, Any] = {"grids": len(rows), "identical": 0, "other_ids": 0, "errors": 0, "first_failures": []}
    for number, row in enumerate(steps(rows, coder)):
        start, length = row[coder]
        try:
            same = digest(decompress(blob[start : start + length], prior).ids_Qthw) == row["sha256"]
            outcome = "identical" if same else "other_ids"
        except KinolexError as error:
            outcome = "errors"
            if counts["errors"] == 0:
                counts["first_error"] = str(error)
        counts[outcome] += 1
        if outcome != "identical" and len(counts["first_failures"]) < SHOWN:
            counts["first_failures"].append(f"grid {number}: {row['kind']} {row['shape']}, {outcome}")
    return counts


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--autocast", action="store_true")
    parser.add_argument("--precision", default="highest")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision(arguments.precision)
    manifest = json.loads((arguments.folder / MANIFEST).read_text())
    autocast = torch.autocast(torch.device(arguments.device).type, torch.bfloat16)
    report: dict[str, Any] = {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if arguments.device != "cpu" else "cpu",
        "autocast": "bfloat16" if arguments.autocast else None,
        "matmul_precision": torch.get_float32_matmul_precision(),
    }
    for coder, prior in priors_in(arguments.folder, arguments.device).items():
        rows = [row for row in manifest["grids"] if coder in row]
        with autocast if arguments.autocast else contextlib.nullcontext():
            report[coder] = count((arguments.folder / f"{coder}.bin").read_bytes(), rows, prior, coder)
    arguments.out.write_text(json.dumps(report))


if __name__ == "__main__":
    main()

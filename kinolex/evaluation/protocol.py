"""What is measured and how: the part of a result that must agree before two numbers may be compared.

    protocol + folder -> entries -> clips -> (something) -> rows -> result JSON

A result names its protocol in full and by hash; figures with different hashes do not stand in one table.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
import sys
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kinolex import media
from kinolex.data.index import Entry, scan
from kinolex.errors import ConfigError, DataError, MissingFile
from kinolex.evaluation.page import write_text
from kinolex.metrics import SqueezeNetFeatures
from kinolex.metrics.perceptual import EVAL_EVERY_NTH
from kinolex.types import Clip

FORMAT = "kinolex-result-1"
RESIZE_KERNEL = "area: antialiased bilinear down, bilinear up, rounded to uint8"
COVERAGE = 0.95


class Hashed:
    """Base of the dataclasses that say what a result was measured by: the same hash, comparable results."""

    __slots__ = ()

    @property
    def hash(self) -> str:
        """16 hexadecimal digits of the SHA-256 of all fields."""
        fields = asdict(self)  # type: ignore[call-overload]  # every subclass is a dataclass
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def check_fields(what: str, config: object, needs: Mapping[str, tuple[object, str]]) -> None:
    """Raise ConfigError for the first field that is not as it must be, with its name and its value.

    Args:
        what: is measured, for the message.
        needs: by field, whether it is good, and in words what it must be.
    """
    for name, (good, needed) in needs.items():
        if not good:
            value = getattr(config, name)
            told = " ".join(map(str, value)) if isinstance(value, tuple) else value
            raise ConfigError(f"{what}: {name} must be {needed}, got {told if told != '' else 'none'}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconstructionProtocol(Hashed):
    """Which frames are compared, and with what."""

    sets: tuple[str, ...] = ("clips", "sequences")
    """Folders below the data folder; "." is the data folder itself."""
    split: str | None = "test"
    """None takes every entry."""
    lines: int = 128
    """Short side that clips are scaled to, up or down."""
    resize: str = RESIZE_KERNEL
    max_frames: int | None = 65
    """Frames from the start of each clip; None takes all. 65 = 1 + 4 x 16 fits causal networks without padding."""
    distance_every_nth: int = EVAL_EVERY_NTH
    features_sha256: str | None = None
    """Of the weights of the perceptual backbone; None measures no perceptual distance."""
    seed: int = 0
    bootstrap_draws: int = 10_000
    version: int = 1
    """Raised when the meaning of a metric changes."""

    def __post_init__(self) -> None:
        if self.resize != RESIZE_KERNEL:
            raise ConfigError(f"this version resizes by {RESIZE_KERNEL!r} only, got {self.resize!r}")
        if not self.sets or min(self.lines, self.distance_every_nth, self.bootstrap_draws, self.max_frames or 1) < 1:
            sizes = f"lines {self.lines}, max_frames {self.max_frames}, distance_every_nth {self.distance_every_nth}"
            raise ConfigError(
                f"a protocol needs at least one set and sizes above 0, got sets {', '.join(self.sets) or 'none'}, "
                f"{sizes}, bootstrap_draws {self.bootstrap_draws}"
            )

    def with_features(self, path: str | Path | None) -> tuple[ReconstructionProtocol, SqueezeNetFeatures | None]:
        """The protocol naming this backbone file, and the network. Errors as SqueezeNetFeatures."""
        if path is None:
            return replace(self, features_sha256=None), None
        features_net = SqueezeNetFeatures(path)
        return replace(self, features_sha256=hashlib.sha256(Path(path).read_bytes()).hexdigest()), features_net


class Identified(typing.Protocol):
    """A dataclass with a hash; all its fields go into the result."""

    @property
    def hash(self) -> str: ...


class Protocol(Identified, typing.Protocol):
    """What every protocol of rows fixes, whose means have intervals."""

    @property
    def seed(self) -> int: ...
    @property
    def bootstrap_draws(self) -> int: ...


def select_entries(folder: str | Path, protocol: ReconstructionProtocol) -> list[Entry]:
    """Entries of the protocol's sets and split, named relative to the data folder, in a fixed order.

    Raises:
        MissingFile: a set is not there. DataError: nothing is left to measure.
    """
    folder = Path(folder)
    entries = []
    for name in protocol.sets:
        if not (folder / name).is_dir():
            raise MissingFile(f"there is no set {folder / name}; --sets names folders below {folder} to measure")
        for entry in scan(folder / name, split=protocol.split):
            entries.append(entry if name == "." else replace(entry, name=f"{name}/{entry.name}"))
    if not entries:
        raise DataError(
            f"no entry of split {protocol.split!r} in {', '.join(protocol.sets)}; "
            f"move some files into a folder {protocol.split}/ or name the split in index.csv, or measure other --sets"
        )
    return entries


def read_entry(entry: Entry, protocol: ReconstructionProtocol) -> Clip:
    """The clip as the protocol wants it: first frames, scaled, without sound. Errors as kinolex.media.read."""
    if entry.array_index is None:
        clip = media.read(entry.path, max_frames=protocol.max_frames).with_sound(None)
    else:
        clip = Clip(torch.from_numpy(entry.load_array()).permute(2, 0, 1).unsqueeze(0).contiguous(), fps=Fraction(1))
    return media.fit_short_side(clip, protocol.lines)


def bootstrap_interval(values: Sequence[float], *, seed: int, draws: int) -> tuple[float, float]:
    """95 % percentile interval of the mean over clips drawn with replacement; of one value, that value twice."""
    values_n = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(0, len(values_n), size=(draws, len(values_n)))
    tail = 100.0 * (1.0 - COVERAGE) / 2.0
    low, high = np.percentile(values_n[picks].mean(axis=1), [tail, 100.0 - tail])
    return float(low), float(high)


def summarise(rows: Sequence[dict[str, Any]], protocol: Protocol) -> dict[str, dict[str, float]]:
    """Mean and 95 % interval over clips of every figure that all rows have."""
    means = {}
    for key in rows[0]:
        values = [row.get(key) for row in rows]
        if not all(isinstance(value, float) and math.isfinite(value) for value in values):
            continue
        low, high = bootstrap_interval(values, seed=protocol.seed, draws=protocol.bootstrap_draws)  # type: ignore[arg-type]
        means[key] = {"mean": float(np.mean(values)), "low": low, "high": high}  # type: ignore[arg-type]
    return means


def heading(name: str, protocol: Identified, command: str | None = None) -> dict[str, Any]:
    """What every result begins with: where it comes from, and by which protocol."""
    return {
        "format": FORMAT,
        "name": name,
        "command": command or command_line(),
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"),
        "hardware": hardware(),
        "protocol": asdict(protocol),  # type: ignore[call-overload]  # protocols are dataclasses
        "protocol_hash": protocol.hash,
    }


def make_result(
    name: str, rows: Sequence[dict[str, Any]], protocol: Protocol, *, command: str | None = None
) -> dict[str, Any]:
    """A result in the one schema of results/*.json: where it comes from, the rows, their means, the worst clips."""
    worst = sorted((row for row in rows if "psnr_db" in row), key=lambda row: row["psnr_db"])[:5]
    return heading(name, protocol, command) | {
        "n": len(rows),
        "mean": summarise(rows, protocol),
        "worst": [row["name"] for row in worst],
        "clips": list(rows),
    }


def write_result(path: str | Path, result: dict[str, Any]) -> None:
    """Write a result as JSON, whole or not at all. Raises ValueError for NaN or infinity, which JSON does not have."""
    write_text(path, json.dumps(result, indent=1, allow_nan=False) + "\n")


def read_result(path: str | Path) -> dict[str, Any]:
    """Read a result. Raises DataError: not there, not JSON, or another format."""
    try:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a result ({error}); make it again with `kinolex eval`") from error
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise DataError(f"{path} is not a result of format {FORMAT}; make it again with `kinolex eval`")
    return result


def command_line() -> str:
    """The running command without the folders of this machine."""
    words = [Path(word).name if os.path.isabs(word) else word for word in sys.argv]
    if (spec := getattr(sys.modules["__main__"], "__spec__", None)) is not None:  # python -m NAME
        words[:1] = ["python", "-m", spec.name.removesuffix(".__main__")]
    return " ".join(words) or "python"


def commit() -> str:
    """Commit of the code, with + if files differ from it; "unknown" outside a repository."""
    folder = Path(__file__).parent
    try:
        run = {"cwd": folder, "capture_output": True, "text": True, "timeout": 10, "check": True}
        sha = subprocess.run(["git", "rev-parse", "HEAD"], **run).stdout.strip()  # type: ignore[call-overload]
        changed = subprocess.run(["git", "status", "--porcelain", "-uno", "--", ".."], **run).stdout.strip()  # type: ignore[call-overload]
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return sha + ("+" if changed else "")


def hardware() -> str:
    """Processor, cores and torch, and nothing that tells one machine from another of its kind."""
    model = platform.machine()
    if (cpuinfo := Path("/proc/cpuinfo")).is_file():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, {torch.get_num_threads()} torch threads, torch {torch.__version__}"

"""Every real file through `kinolex roundtrip`: python -m benchmarks.roundtrip --data DATA

The command runs as a user runs it, a process per file. The result is read again: frame count, size and rate must be the
source's, and its sound as long and in step with it. Writes benchmarks/roundtrip.json after every file, failures
included; called again it goes on with the files that are missing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.progress import track

from kinolex import hub
from kinolex.data.index import scan
from kinolex.errors import KinolexError
from kinolex.evaluation.protocol import hardware
from kinolex.media import VideoReader, read_sound
from kinolex.media.sound import track_of
from kinolex.types import Sound

OUT = Path(__file__).with_suffix(".json")
LONGEST_S = 7200
IN_STEP = 0.95
"""Correlation of the two sounds at lag zero that counts as the same sound, coded again, in sync."""


@dataclass(frozen=True)
class Arguments:
    data: Path
    sets: tuple[str, ...] = ("clips", "sequences", "codec_seq", "grid", "asl_gestures")
    model: str = hub.DEFAULT
    out: Path = OUT
    workers: int = 1
    """Files at a time; set OMP_NUM_THREADS to what each may use."""


def compare(source: Path, result: Path) -> list[str]:
    """What the result has lost, in words."""
    with VideoReader(source) as reader, VideoReader(result) as again:
        before, after = reader.info, again.info
        # On the picture's clock: sound from before the first picture is rightly gone.
        old = track_of(source, start_s=reader.origin_s, length_s=None) if before.sound_rate_hz else None
    lost = [
        f"{name} {getattr(before, name)} became {getattr(after, name)}"
        for name in ("frames", "height", "width", "fps")
        if getattr(before, name) != getattr(after, name)
    ]
    if (old is None) != (after.sound_rate_hz is None):
        return [*lost, "sound came or went"]
    if old is None:
        return lost
    new = read_sound(result)
    if abs(old.duration_s - new.duration_s) > 0.05:
        lost.append(f"{old.duration_s:.3f} s of sound became {new.duration_s:.3f} s")
    if old.rate_hz == new.rate_hz and (likeness := correlation(mono(old), mono(new))) < IN_STEP:
        lost.append(f"sound correlates with the source at {likeness:.3f} only")
    return lost


def mono(sound: Sound) -> np.ndarray:
    return sound.samples_CS.float().mean(dim=0).numpy()


def correlation(old_N: np.ndarray, new_N: np.ndarray) -> float:
    """1 for silence on both sides."""
    length = min(len(old_N), len(new_N))
    old_N, new_N = old_N[:length], new_N[:length]
    power = float((old_N**2).sum() * (new_N**2).sum()) ** 0.5
    return float((old_N * new_N).sum()) / power if power > 1e-6 else 1.0


def run(source: Path, folder: Path, model: str) -> dict[str, Any]:
    result = folder / "result.mp4"
    result.unlink(missing_ok=True)
    began = time.monotonic()
    command = [sys.executable, "-m", "kinolex", "roundtrip", str(source), str(result), "--model", model, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S)
    row: dict[str, Any] = {"seconds": round(time.monotonic() - began, 2)}
    if done.returncode:
        return row | {"lost": [f"exit code {done.returncode}: {done.stderr.strip()[-300:]}"]}
    report = json.loads(done.stdout)
    row |= {key: report[key] for key in ("frames", "height", "width", "fps", "sound", "psnr_db")}
    try:
        return row | {"lost": compare(source, result)}
    except KinolexError as error:
        return row | {"lost": [str(error)]}


def write_record(rows: dict[str, dict[str, Any]], arguments: Arguments, fingerprint: str) -> None:
    record = {
        "name": "roundtrip of every real file",
        "command": f"python -m benchmarks.roundtrip --data DATA --sets {' '.join(arguments.sets)}",
        "date": datetime.now(UTC).date().isoformat(),
        "model": arguments.model,
        "fingerprint": fingerprint,
        "hardware": hardware(),
        "protocol": {"kept": "frames, height, width, fps; sound within 50 ms", "sound_correlation_at_least": IN_STEP},
        "values": {
            "files": len(rows),
            "returned": returned(rows),
            "with_sound": sum("Hz" in row.get("sound", "") for row in rows.values()),
            "frames": sum(row.get("frames", 0) for row in rows.values()),
        },
        "files": rows,
    }
    temporary = arguments.out.with_suffix(".part")
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    temporary.replace(arguments.out)


def returned(rows: dict[str, dict[str, Any]]) -> int:
    return sum(not row["lost"] for row in rows.values())


def rows_so_far(out: Path, fingerprint: str) -> dict[str, dict[str, Any]]:
    """Of an earlier call with the same weights; only files that came back."""
    record = json.loads(out.read_text()) if out.is_file() else {}
    if record.get("fingerprint") != fingerprint:
        return {}
    return {name: row for name, row in record["files"].items() if not row["lost"]}


def main(arguments: Arguments) -> int:
    fingerprint = hub.load(arguments.model).fingerprint
    rows = rows_so_far(arguments.out, fingerprint)
    files = [entry.path for name in arguments.sets for entry in scan(arguments.data / name)]
    missing = [file for file in files if str(file.relative_to(arguments.data)) not in rows]

    def measure(file: Path) -> tuple[str, dict[str, Any]]:
        with tempfile.TemporaryDirectory() as folder:
            return str(file.relative_to(arguments.data)), run(file, Path(folder), arguments.model)

    with ThreadPoolExecutor(arguments.workers) as pool:
        for name, row in track(pool.map(measure, missing), description="roundtrip", total=len(missing)):
            rows[name] = row
            write_record(rows, arguments, fingerprint)
            if row["lost"]:
                print(f"{name}: {'; '.join(row['lost'])}", flush=True)
    print(f"{returned(rows)} of {len(rows)} files came back")
    return 0 if returned(rows) == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))

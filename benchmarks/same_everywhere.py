"""Compressed once, read everywhere: python -m benchmarks.same_everywhere --data DATA --venv FOLDER

One process compresses token grids; others decompress them with 1 and 2 threads, with and without AVX-512, in float32
and under bf16 autocast, with another torch, and on a GPU if there is one. Every id must come back. Beside it the
control, the same prior as an ordinary float network, and how often it fails. Writes benchmarks/same_everywhere.json
after every reader; called again with the same --folder and --out it goes on with the readers that are missing.

The other torch: --other-python names a Python that has it, or --venv a folder where an environment with --other-torch
is made once (its packages come from the registry and take several GB).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import venv
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks._read_grids import CODERS, MANIFEST
from benchmarks._write_grids import WriteSettings
from kinolex import hub
from kinolex.errors import UsageError
from kinolex.evaluation.protocol import commit, hardware

ROOT = Path(__file__).resolve().parents[1]
OUT = Path(__file__).with_suffix(".json")
READER_PACKAGES = ("numpy", "constriction", "google-crc32c", "einops", "safetensors")

SWITCHES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
"""What tells torch, oneDNN (under two names) and MKL which instructions to use."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that wait sleep, so that readers make headway on a machine with other work."""
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
SSE = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}

PROBE = """
import torch
torch.mm(torch.ones(64, 64), torch.ones(64, 64))
torch.nn.functional.conv2d(torch.ones(2, 64, 16, 16), torch.ones(64, 64, 3, 3))
"""
"""A matrix product by MKL and a convolution by oneDNN; both tell on request what they run on."""
TELLS = {"onednn": re.compile(r"cpu,isa:([^\n]+)"), "mkl": re.compile(r"MKL_VERBOSE \S*MKL (.+?) (?:Lnx|Win|OS X)")}


@dataclass(frozen=True)
class Arguments:
    data: Path | None = None
    """Half of the grids are cut out of the tokens of its test clips; without it they are drawn from the prior or at
    random."""
    model: str = hub.DEFAULT
    prior: Path | None = None
    """By default the model's, or an untrained one if it has none."""
    grids: int = 10_000
    control_grids: int = 2_000
    clips: int | None = None
    """Test clips that are tokenized; all if not given."""
    folder: Path | None = None
    """Where the compressed grids stay; by default nowhere."""
    other_python: Path | None = None
    venv: Path | None = None
    other_torch: str = "2.6.0"
    only: tuple[str, ...] = ()
    """Names of readers; all if none is given."""
    out: Path = OUT


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to read the grids."""

    name: str
    python: str = sys.executable
    threads: int = 1
    switches: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()

    def environment(self) -> dict[str, str]:
        """Of the process, without what the caller may have set."""
        kept = {key: value for key, value in os.environ.items() if key not in (*SWITCHES, *THREADS)}
        return kept | WAITING | dict.fromkeys(THREADS, str(self.threads)) | self.switches


def variants(other_python: Path | None) -> list[Variant]:
    """The first is that of the writer."""
    autocast, medium = ("--autocast",), ("--precision", "medium")
    found = [
        Variant(name="as written"),
        Variant(name="2 threads", threads=2),
        Variant(name="no AVX-512", switches=AVX2),
        Variant(name="no AVX-512, 2 threads", switches=AVX2, threads=2),
        Variant(name="no AVX", switches=SSE),
        Variant(name="bf16 autocast", options=autocast),
        Variant(name="matrix products in bf16", options=medium),
    ]
    if other_python is not None:
        other = str(other_python)
        found += [
            Variant(name="other torch", python=other),
            Variant(name="other torch, no AVX-512, 2 threads", python=other, switches=AVX2, threads=2),
            Variant(name="other torch, bf16 autocast", python=other, options=autocast),
        ]
    if torch.cuda.is_available():
        cuda = ("--device", "cuda")
        found += [
            Variant(name="GPU", options=cuda),
            Variant(name="GPU, matrix products in TF32", options=(*cuda, "--precision", "high")),
            Variant(name="GPU, bf16 autocast", options=(*cuda, *autocast)),
        ]
    return found


def environment_with(version: str, folder: Path) -> Path:
    """Python of an environment with this torch, made if it is not there."""
    python = folder / "bin" / "python"
    if not python.is_file():
        print(f"making an environment with torch {version}", flush=True)
        venv.create(folder, with_pip=True)
        pins = [f"{name}=={importlib.metadata.version(name)}" for name in READER_PACKAGES]
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", f"torch=={version}", *pins], check=True)
    return python


def write_grids(arguments: Arguments, folder: Path) -> dict[str, Any]:
    """The manifest of the folder, which is filled in a process of its own unless it holds these very grids."""
    settings = WriteSettings(
        folder=str(folder),
        model=arguments.model,
        prior=str(arguments.prior) if arguments.prior else None,
        data=str(arguments.data) if arguments.data else None,
        grids=arguments.grids,
        control_grids=arguments.control_grids,
        clips=arguments.clips,
    )
    path = folder / MANIFEST
    if not path.is_file() or json.loads(path.read_text())["settings"] != asdict(settings):
        named = {key.replace("_", "-"): value for key, value in asdict(settings).items() if value is not None}
        words = [word for key, value in named.items() for word in (f"--{key}", str(value))]
        command = [sys.executable, "-m", "benchmarks._write_grids", *words]
        subprocess.run(command, check=True, cwd=ROOT, env=variants(None)[0].environment())
    return json.loads(path.read_text())


def run(variant: Variant, folder: Path) -> dict[str, Any]:
    """What a reader reports, and what it ran on."""
    row: dict[str, Any] = {
        "name": variant.name,
        "switches": variant.switches,
        "options": " ".join(variant.options),
        "instructions": probe(variant),
    }
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    words = ["-m", "benchmarks._read_grids", str(folder), str(report), "--threads", str(variant.threads)]
    command = [variant.python, *words, *variant.options]
    done = subprocess.run(command, cwd=ROOT, env=variant.environment(), stderr=subprocess.PIPE, text=True)
    if done.returncode:
        return row | {"failed": f"exit code {done.returncode}: {done.stderr.strip()[-300:]}"}
    return row | json.loads(report.read_text())


def probe(variant: Variant) -> dict[str, str]:
    """The instruction sets that oneDNN and MKL say they use in this environment."""
    environment = variant.environment() | {"ONEDNN_VERBOSE": "1", "MKL_VERBOSE": "1"}
    done = subprocess.run([variant.python, "-c", PROBE], env=environment, capture_output=True, text=True, check=True)
    found = {name: pattern.search(done.stdout) for name, pattern in TELLS.items()}
    return {name: match.group(1).strip() if match else "does not tell" for name, match in found.items()}


def failures(row: dict[str, Any], coder: str) -> int | None:
    """Grids that did not come back, or None if the reader itself failed."""
    return row[coder]["grids"] - row[coder]["identical"] if coder in row else None


def command_of(arguments: Arguments) -> str:
    """The call that gives these figures, whatever the folders are called."""
    counts = f"--grids {arguments.grids} --control-grids {arguments.control_grids}"
    only = " ".join(["", "--only", *map(repr, arguments.only)]) if arguments.only else ""
    return f"python -m benchmarks.same_everywhere --data DATA --venv FOLDER {counts}{only}"


def write_record(
    rows: list[dict[str, Any]], manifest: dict[str, Any], arguments: Arguments, missing: list[str]
) -> None:
    grids = manifest["grids"]
    kinds = sorted({row["kind"] for row in grids})
    record = {
        "name": "the same tokens everywhere",
        "command": command_of(arguments),
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "model": arguments.model,
        "fingerprint": manifest["tokenizer"],
        "prior": manifest["prior"],
        "hardware": hardware(),
        "protocol": {
            "written_with": "1 thread, float32, the torch of this environment",
            "identical": "SHA-256 over shape and ids",
            "control": "the prior's weights as float32, activations not rounded, 24-bit frequencies from a softmax",
            "not_measured": missing,
        },
        "grids_sha256": fingerprint_of(manifest),
        "grids": {
            "count": len(grids),
            "of_each_kind": {kind: sum(row["kind"] == kind for row in grids) for kind in kinds},
            "ids": sum(math.prod(row["shape"]) for row in grids),
            "control_count": sum("float" in row for row in grids),
            "bytes": {coder: sum(row[coder][1] for row in grids if coder in row) for coder in CODERS},
        },
        "values": {
            "readers": len(rows),
            "identical_everywhere": all(failures(row, "integer") == 0 for row in rows),
            "identical": {row["name"]: row.get("integer", {}).get("identical") for row in rows},
            "control_failures": {row["name"]: failures(row, "float") for row in rows},
            "control_failure_rate": {
                row["name"]: round((failures(row, "float") or 0) / max(row["float"]["grids"], 1), 4)
                for row in rows
                if "float" in row
            },
        },
        "readers": rows,
    }
    temporary = arguments.out.with_suffix(".part")
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    temporary.replace(arguments.out)


def fingerprint_of(manifest: dict[str, Any]) -> str:
    """Of the grids and of the prior that codes them, wherever the folder lies."""
    facts = {key: manifest[key] for key in ("tokenizer", "prior", "grids")}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def rows_so_far(out: Path, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Of an earlier call with the same grids; only readers that ran to their end."""
    record = json.loads(out.read_text()) if out.is_file() else {}
    if record.get("grids_sha256") != fingerprint_of(manifest):
        return []
    return [row for row in record["readers"] if "failed" not in row]


def measure(arguments: Arguments, folder: Path, other_python: Path | None) -> int:
    manifest = write_grids(arguments, folder)
    rows, chosen = rows_so_far(arguments.out, manifest), variants(other_python)
    if unknown := set(arguments.only) - {variant.name for variant in chosen}:
        names = ", ".join(repr(variant.name) for variant in chosen)
        raise UsageError(f"no reader is called {', '.join(map(repr, sorted(unknown)))}; there are {names}")
    missing = [] if torch.cuda.is_available() else ["a GPU: there is none"]
    if other_python is None:
        missing.append("another torch: give --other-python or --venv")
    for name in missing:
        print(f"not measured: {name}", flush=True)
    for variant in chosen:
        if variant.name in [row["name"] for row in rows] or (arguments.only and variant.name not in arguments.only):
            continue
        print(f"--- {variant.name}", flush=True)
        rows.append(run(variant, folder))
        write_record(rows, manifest, arguments, missing)
    print(f"{'reader':36} {'torch':12} {'instructions':12} {'integer failures':>16} {'float failures':>15}")
    for row in rows:
        facts = (row.get("torch", "-"), row.get("cpu_capability", "-"))
        counts = [
            f"{failures(row, coder)} of {row[coder]['grids']}" if coder in row else "did not run" for coder in CODERS
        ]
        print(f"{row['name']:36} {facts[0]:12} {facts[1]:12} {counts[0]:>16} {counts[1]:>15}")
    return 0 if rows and all(failures(row, "integer") == 0 for row in rows) else 1


def main(arguments: Arguments) -> int:
    other_python = arguments.other_python
    if other_python is None and arguments.venv is not None:
        other_python = environment_with(arguments.other_torch, arguments.venv)
    if arguments.folder is not None:
        return measure(arguments, arguments.folder.resolve(), other_python)
    with tempfile.TemporaryDirectory() as folder:
        return measure(arguments, Path(folder), other_python)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))

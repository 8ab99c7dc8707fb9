"""The house keeps its shape: imports point one way, nothing goes in circles, no file outgrows a reader."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "kinolex"
MAX_LINES = 600

RING_0 = {"errors", "types", "vocab", "sequences", "masks", "tensor_files"}
RING_1 = {"media", "layers", "tokenizers", "codec", "tasks", "models", "sampling", "metrics", "data", "profiling"}
RING_2 = {
    "checkpoint",
    "hub",
    "compression",
    "soundtracks",
    "api",
    "sound_api",
    "token_folders",
    "generation",
    "training",
    "evaluation",
    "understanding",
}
RING_3 = {"cli", "studio", "demo", "__main__", "recipes"}
ALLOWED_IN_RING_1 = {("tokenizers", "layers"), ("models", "layers"), ("data", "media"), ("tokenizers", "media")}
ALLOWED_IN_RING_3 = {("cli", "demo"), ("__main__", "cli")}
MAY_TRAIN = {"training", "cli", "recipes"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {name_of(path): path for folder in (PACKAGE, ROOT / "recipes") for path in sorted(folder.rglob("*.py"))}


def room_of(module: str) -> str:
    """The folder or file below kinolex/ that a module belongs to."""
    parts = module.split(".")
    return parts[1] if parts[0] == "kinolex" and len(parts) > 1 else parts[0]


def imports_of(path: Path) -> set[str]:
    """Modules of ours that a file imports: at its top, inside functions, relatively, or by import_module("...")."""
    package = name_of(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                submodule = f"{module}.{alias.name}"
                found.add(submodule if submodule in FILES else module)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                found.add(str(node.args[0].value))
    return {name for name in found if name.split(".")[0] in ("kinolex", "recipes")}


def may_import(importer: str, imported: str) -> bool:
    """The whole law; both are rooms. Other than these rooms nothing of ours exists."""
    if importer == imported or imported in RING_0:
        return importer == imported or importer not in RING_0 or imported == "errors"
    if imported == "training":
        return importer in MAY_TRAIN
    if importer in RING_1:
        return (importer, imported) in ALLOWED_IN_RING_1
    if importer in RING_2:
        return imported in RING_1 | RING_2
    if importer in RING_3:
        return imported in RING_1 | RING_2 or (importer, imported) in ALLOWED_IN_RING_3
    return False


@pytest.mark.parametrize("module", [name for name in FILES if name != "kinolex"])
def test_every_import_points_inwards(module: str) -> None:
    importer = room_of(module)
    assert importer in RING_0 | RING_1 | RING_2 | RING_3, f"{module} lies in no ring; add its room to the design first"
    for imported in imports_of(FILES[module]) - {"kinolex"}:
        assert may_import(importer, room_of(imported)), f"{module} must not import {imported}"


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("types", "errors", True),
        ("errors", "types", False),
        ("types", "media", False),
        ("media", "types", True),
        ("data", "media", True),
        ("media", "data", False),
        ("tokenizers", "metrics", False),
        ("metrics", "tokenizers", False),
        ("evaluation", "tokenizers", True),
        ("evaluation", "training", False),
        ("api", "training", False),
        ("api", "hub", True),
        ("api", "cli", False),
        ("media", "api", False),
        ("demo", "training", False),
        ("cli", "training", True),
        ("recipes", "training", True),
        ("demo", "cli", False),
    ],
)
def test_the_law_itself(importer: str, imported: str, allowed: bool) -> None:
    assert may_import(importer, imported) == allowed


def test_hidden_imports_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = PACKAGE / "media" / "invented.py"
    source = tmp_path / "source.py"
    source.write_text(
        "import kinolex.hub as h\nfrom kinolex import api\nfrom . import video\nfrom ..data.packs import Pack\n"
        "def f():\n    from kinolex.training.engine import Trainer\n    importlib.import_module('kinolex.cli')\n"
    )
    monkeypatch.setattr(Path, "read_text", lambda _self, **_: source.read_bytes().decode())
    found = {"hub", "api", "media.video", "data.packs", "training.engine", "cli"}
    assert imports_of(file) == {f"kinolex.{name}" for name in found}


def test_no_module_takes_part_in_a_circle() -> None:
    arrows = {
        module: {target for target in imports_of(path) if target in FILES and target not in (module, "kinolex")}
        for module, path in FILES.items()
    }
    # The package's own lazy table points at everything; it is read when a user asks and not when a module loads.
    arrows["kinolex"] = set()
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"circle: {' -> '.join((*trail[trail.index(module) :], module))}"
        if module in done:
            return
        for target in arrows[module]:
            visit(target, (*trail, module))
        done.add(module)

    for module in arrows:
        visit(module, ())


@pytest.mark.parametrize(
    "path",
    [
        path
        for folder in ("kinolex", "tests", "recipes", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_no_file_is_longer_than_600_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_importing_the_package_is_quick_and_brings_no_torch() -> None:
    code = (
        "import sys; before = set(sys.modules); import kinolex; new = set(sys.modules) - before\n"
        "assert {name for name in new if name.split('.')[0] not in sys.stdlib_module_names} == {'kinolex'}, new\n"
        "assert len(new) < 100, new"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0 and result.stdout == result.stderr == "", result.stderr


def test_importing_any_module_prints_writes_starts_and_changes_nothing(tmp_path: Path) -> None:
    modules = [module for module in FILES if module.startswith("kinolex") and not module.endswith("__main__")]
    code = f"""
import importlib, os, threading
import torch
before = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
environment, rng, threads = dict(os.environ), torch.get_rng_state(), threading.active_count()
for module in {modules}:
    importlib.import_module(module)
assert before == (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled())
assert dict(os.environ) == environment and torch.equal(torch.get_rng_state(), rng)
assert threading.active_count() == threads
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0 and result.stdout == result.stderr == "", result.stderr
    assert not list(tmp_path.iterdir())

"""The house keeps its shape: imports point one way, nothing goes in circles, no file outgrows a reader."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "kinolex"
MAX_LINES = 600

RING_0 = {"errors", "types", "vocab", "sequences", "masks"}
RING_1 = {"media", "layers", "tokenizers", "codec", "tasks", "models", "sampling", "metrics", "data", "profiling"}
RING_2 = {"checkpoint", "hub", "api", "training", "evaluation"}
RING_3 = {"cli", "studio", "demo", "__main__"}
ALLOWED_IN_RING_1 = {("tokenizers", "layers"), ("models", "layers"), ("data", "media")}


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "kinolex"


def imports_of(path: Path) -> set[str]:
    """Modules of ours that a file imports, lazily or not."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "kinolex":
                found |= {f"kinolex.{alias.name}" for alias in node.names}
            else:
                found.add(node.module)
    return {name for name in found if name.split(".")[0] == "kinolex"}


FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def may_import(importer: str, imported: str) -> bool:
    if importer == imported or imported in RING_0:
        return True
    if importer in RING_0:
        return False
    if importer in RING_1:
        return (importer, imported) in ALLOWED_IN_RING_1
    if importer in RING_2:
        return imported in RING_1 | RING_2 and imported != "training"
    return imported not in RING_3 or (importer, imported) in {("cli", "demo"), ("__main__", "cli")}


@pytest.mark.parametrize("module", [name for name in FILES if name != "kinolex"])
def test_every_import_points_inwards(module: str) -> None:
    importer = room_of(module)
    assert importer in RING_0 | RING_1 | RING_2 | RING_3, f"{module} lies in no ring; add its room to the design first"
    for imported in imports_of(FILES[module]):
        if imported == "kinolex" or imported == "kinolex.__version__":
            continue
        assert may_import(importer, room_of(imported)), f"{module} must not import {imported}"


def test_no_module_takes_part_in_a_circle() -> None:
    arrows = {
        module: {target for target in imports_of(path) if target in FILES and target not in (module, "kinolex")}
        for module, path in FILES.items()
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"circle: {' -> '.join((*trail[trail.index(module) :], module))}"
        if module in done:
            return
        for target in arrows[module]:
            # A package that re-exports its own modules is no circle as long as they do not import the package.
            if module != "kinolex":
                visit(target, (*trail, module))
        done.add(module)

    for module in arrows:
        visit(module, ())


@pytest.mark.parametrize("path", sorted([*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]), ids=str)
def test_no_file_is_longer_than_600_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_importing_the_package_has_no_side_effects_and_does_not_import_torch() -> None:
    import subprocess
    import sys

    code = "import kinolex, sys; assert 'torch' not in sys.modules and 'av' not in sys.modules; print(kinolex.__all__)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "load" in result.stdout and result.stderr == ""

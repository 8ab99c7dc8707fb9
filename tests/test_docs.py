"""What the documents point at exists: paths, sections, names, versions."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import kinolex
from kinolex.tokenizers.networks import build_network
from kinolex.training.config import TrainConfig
from kinolex.training.recipes import load_recipe

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SOURCES = sorted([*(ROOT / "kinolex").rglob("*.py"), *(ROOT / "recipes").rglob("*.py")])
PATH = re.compile(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|md|json|toml|txt))`")
OF_USERS = {
    "index.csv",
    "manifest.json",
    "tokens.json",
    "metadata.csv",
    "model.safetensors",
    "config.json",
    "log.jsonl",
}


@pytest.mark.parametrize("document", DOCS, ids=lambda path: path.name)
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    names = set(PATH.findall(document.read_text(encoding="utf-8"))) - OF_USERS
    for name in names:
        places = [ROOT / name, ROOT / "kinolex" / name, ROOT / "docs" / name]
        assert any(place.exists() for place in places) or list((ROOT / "kinolex").rglob(name)), (
            f"{document.name}: {name}"
        )


def test_every_section_of_papers_that_the_code_refers_to_exists() -> None:
    headings = set(re.findall(r"^#+ (\d(?:\.\d)?)\.? ", (ROOT / "docs" / "papers.md").read_text(), flags=re.MULTILINE))
    assert {"2.3", "4.1"} <= headings
    referred = {
        (path.name, number)
        for path in SOURCES
        for words in re.findall(r"papers\.md,?(?: sections?)?((?:[\s,]+(?:and )?\d(?:\.\d)?)+)", path.read_text())
        for number in re.findall(r"\d(?:\.\d)?", words)
    }
    assert len(referred) > 8
    assert not {(name, number) for name, number in referred if number not in headings}


def test_every_row_of_papers_names_a_file_and_every_test_it_names_is_there() -> None:
    text = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    for path in re.findall(r"`((?:kinolex|tests)/[\w/.]+)`", text):
        assert (ROOT / path).is_file(), path


def test_the_tree_in_the_readme_is_the_tree() -> None:
    (tree,) = re.findall(r"```\n(kinolex/\n.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    shown = set()
    for line in tree.splitlines()[1:]:
        inside = line.startswith("  ")
        for name in re.split(r"\s{2,}", line.strip())[0].split():
            assert (ROOT / ("kinolex" if inside else "") / name).exists(), name
            shown |= {name.rstrip("/")} if inside else set()
    rooms = {path.name for path in (ROOT / "kinolex").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms <= shown


def test_one_version_everywhere_and_a_changelog_entry_for_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == kinolex.__version__
    assert f"\n## {kinolex.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_constraints_pin_every_direct_dependency_inside_its_range() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, _, version = line.partition("==")
        assert version and "+" not in version, f"{line}: an exact public version, so that a local build of it fits too"
        pins[canonicalize_name(name)] = version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_the_recipe_of_the_training_page_is_one(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (recipe := tmp_path / "mine.py").write_text(code, encoding="utf-8")
    config = load_recipe(recipe)
    assert isinstance(config, TrainConfig) and config.total_steps == 3000
    build_network(config.model)

"""The README does what it says: its Python and its commands run, its table is the JSON's."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from kinolex.data.worlds import WorldConfig, render
from kinolex.evaluation.readme_table import with_tables
from kinolex.media import read, write, write_sound

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
NEEDS_DATA_OR_SETUP = ("make ", "kinolex train", "kinolex eval", "kinolex data check")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("readme")
    world = render(3, WorldConfig(frames=9, height=64, width=64, fps=Fraction(24)))
    write(world.clip, place / "in.mp4")
    assert world.clip.sound is not None
    write_sound(world.clip.sound, place / "in.wav")
    return place


def test_the_python_example_runs(folder: Path) -> None:
    (code,) = blocks("python")
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, timeout=600)
    original, restored = read(folder / "in.mp4"), read(folder / "out.mp4")
    assert restored.frames_TCHW.shape == original.frames_TCHW.shape and restored.sound is not None


def test_the_commands_run(folder: Path) -> None:
    commands = [line for block in blocks("console") for line in block.splitlines() if line.strip()]
    ran = [line for line in commands if not line.startswith(NEEDS_DATA_OR_SETUP)]
    assert len(ran) >= 4
    for line in ran:
        arguments = shlex.split(line)
        assert arguments[0] == "kinolex"
        subprocess.run([sys.executable, "-m", *arguments], cwd=folder, check=True, timeout=600)
    for line in set(commands) - set(ran):
        if line.startswith("kinolex"):
            words = shlex.split(line)[:3] if line.startswith(("kinolex data", "kinolex eval")) else ["kinolex", "train"]
            subprocess.run([sys.executable, "-m", *words, "--help"], check=True, stdout=subprocess.DEVNULL)


def test_the_tables_are_what_the_results_say() -> None:
    assert with_tables(README, ROOT) == README


def test_every_path_the_readme_links_to_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target

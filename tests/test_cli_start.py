"""What a command says before it begins: targets that cannot be, and an end that comes early."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kinolex.api import write_stream
from kinolex.cli.common import command_of
from kinolex.cli.words import words
from kinolex.errors import MissingFile, UnsupportedMedia
from kinolex.types import Clip


def test_a_target_that_cannot_be_written_is_told_before_the_first_piece_is_made(tmp_path: Path) -> None:
    def pieces() -> Iterator[Clip]:
        raise AssertionError("a piece was made for a target that nothing can be written to")
        yield

    with pytest.raises(UnsupportedMedia, match=r"cannot write \.xyz"):
        write_stream(pieces(), tmp_path / "out.xyz", None)
    with pytest.raises(MissingFile):
        write_stream(pieces(), tmp_path / "nowhere" / "out.mp4", None)


def test_an_interrupt_while_the_commands_are_read_leaves_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "tyro.py").write_text("raise KeyboardInterrupt\n")  # as if the key was struck while tyro is read
    ended = subprocess.run(
        [sys.executable, "-m", "kinolex", "--version"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )
    assert ended.returncode == 130
    assert ended.stderr == "kinolex: interrupted; nothing was begun\n"


def test_the_command_that_a_result_names_repeats_the_call_on_another_machine() -> None:
    usual = {"out": Path("x"), "device": "cuda", "json": True, "data": None, "model": "spae-nano"}
    usual |= {
        "sets": ("imagenet_samples", "cifar10", "digits", "worlds"),
        "pictures": 500,
        "permutations": 1000,
        "seed": 0,
    }
    assert command_of("eval words", words, usual) == "kinolex eval words"
    asked = usual | {"data": Path("/somewhere/data"), "model": "/home/me/words/", "sets": ("a", "b"), "pictures": 9}
    told = "kinolex eval words --data DIR --model words --sets a b --pictures 9"
    assert command_of("eval words", words, asked) == told
    hub = usual | {"model": "somebody/words"}
    assert command_of("eval words", words, hub) == "kinolex eval words --model somebody/words"

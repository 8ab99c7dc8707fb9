"""A sound track in pieces is the sound track of the whole, and asks for no piece before its time."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from kinolex.errors import ShapeError, UsageError
from kinolex.media.writer import VideoWriter
from kinolex.types import Sound

RATE_HZ = 16_000


def tone() -> Sound:
    return Sound(0.5 * torch.sin(torch.arange(2 * RATE_HZ) * 0.2)[None], RATE_HZ)


def written(path: Path, sound: Sound | Iterator[Sound]) -> bytes:
    with VideoWriter(path, fps=Fraction(10), height=16, width=16, sound=sound) as writer:
        for _ in range(20):
            writer.append(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    return path.read_bytes()


@pytest.mark.parametrize("cut", [997, 4096, 31_000])
def test_pieces_are_written_as_the_whole_is(cut: int, tmp_path: Path) -> None:
    pieces = (Sound(part_CS, RATE_HZ) for part_CS in tone().samples_CS.split(cut, dim=1))
    assert written(tmp_path / "pieces.mp4", pieces) == written(tmp_path / "whole.mp4", tone())


def test_a_piece_is_asked_for_when_the_picture_has_come_so_far(tmp_path: Path) -> None:
    asked = 0

    def pieces() -> Iterator[Sound]:
        nonlocal asked
        for part_CS in tone().samples_CS.split(RATE_HZ // 4, dim=1):
            asked += 1
            yield Sound(part_CS, RATE_HZ)

    with VideoWriter(tmp_path / "out.mp4", fps=Fraction(10), height=16, width=16, sound=pieces()) as writer:
        for number in range(1, 21):
            writer.append(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
            assert asked <= 1 + number / 10 * 4


def test_pieces_that_are_unlike_or_absent_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one"):
        written(tmp_path / "none.mp4", iter(()))
    with pytest.raises(ShapeError, match="like the first"):
        written(tmp_path / "odd.mp4", iter([tone(), Sound(tone().samples_CS, 8000)]))
    assert list(tmp_path.iterdir()) == []

"""Drift is what was put into a file: colour that changes, sound that grows louder, and nothing where nothing does."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from kinolex.errors import UsageError
from kinolex.evaluation.drift import FLOOR_DB, drift_of
from kinolex.media import write
from kinolex.types import Clip, Sound

RATE_HZ = 8000


def video(path: Path, grey: list[int], amplitude: list[float] | None, fps: Fraction = Fraction(10)) -> Path:
    """A second of each grey, with a tone of each amplitude."""
    per_second = round(fps)
    frames_TCHW = torch.cat([torch.full((per_second, 3, 16, 16), level, dtype=torch.uint8) for level in grey])
    sound = None
    if amplitude is not None:
        tone_S = torch.sin(torch.arange(RATE_HZ) * 0.3)
        sound = Sound(torch.cat([level * tone_S for level in amplitude])[None], RATE_HZ)
    write(Clip(frames_TCHW, fps, sound), path)
    return path


def test_what_stays_has_no_drift(tmp_path: Path) -> None:
    figures = drift_of(video(tmp_path / "still.mp4", [90] * 5, [0.25] * 5)).as_json()
    assert figures["seconds"] == 5
    assert figures["colour_most"] < 0.5 and abs(figures["colour_per_minute"]) < 2
    assert figures["louder_db_most"] < 0.3 and abs(figures["loudness_db_per_minute"]) < 2
    assert figures["loudness_db_first"] == pytest.approx(20 * torch.tensor(0.25 / 2**0.5).log10().item(), abs=0.5)


def test_colour_and_loudness_are_told_apart_and_measured_in_their_units(tmp_path: Path) -> None:
    figures = drift_of(video(tmp_path / "drifting.mp4", [90, 100, 110, 120], [0.1, 0.2, 0.4, 0.2])).as_json()
    assert figures["colour_most"] == figures["colour_last"] == pytest.approx(30, abs=1.5)
    assert figures["colour_per_minute"] == pytest.approx(600, rel=0.05)
    assert figures["louder_db_most"] == pytest.approx(12.04, abs=0.7)
    assert figures["louder_db_last"] == pytest.approx(6.02, abs=0.7)


def test_silence_and_the_absence_of_sound_are_not_the_same(tmp_path: Path) -> None:
    silent = drift_of(video(tmp_path / "silent.mp4", [90] * 3, [0.0] * 3))
    mute = drift_of(video(tmp_path / "mute.mp4", [90] * 3, None))
    assert silent.loudness_M is not None and silent.loudness_M.tolist() == [FLOOR_DB] * 3
    assert mute.loudness_M is None and "louder_db_most" not in mute.as_json()


def test_what_has_no_second_to_compare_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="shorter than two seconds"):
        drift_of(video(tmp_path / "short.mp4", [90], None))
    with pytest.raises(UsageError, match="whole number of frames"):
        drift_of(video(tmp_path / "odd.mp4", [90] * 3, None, Fraction(25, 2)))

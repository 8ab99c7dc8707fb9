"""Labelled sets: sides do not mix, labels stay with their clips or sounds, flips change pixels and nothing else."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from kinolex.data.index import scan
from kinolex.data.spoken_digits import digit_recordings
from kinolex.errors import ConfigError, DataError
from kinolex.evaluation.understanding_sets import (
    FRAMES,
    PICTURES,
    SETS,
    SIDE,
    SOUNDS,
    LabelledSounds,
    SetConfig,
    flipped,
    labelled_set,
    windows,
)
from tests.tiny_sound import spoken_tones, surroundings


def pictures(folder: Path, *, labels: bool = True) -> Path:
    (folder / "digits").mkdir()
    for split, count in (("train", 6), ("test", 4)):
        images = np.arange(count, dtype=np.uint8)[:, None, None].repeat(28, 1).repeat(28, 2) * 20
        more = {"labels": np.arange(count) % 3} if labels else {}
        np.savez(folder / "digits" / f"digits_{split}.npz", images=images, **more)
    return folder


def test_worlds_of_both_sides_are_different_and_labels_are_theirs() -> None:
    clips = labelled_set(SetConfig(name="worlds", train=4, test=3), None)
    assert clips.train.frames_NTHWC.shape == (4, FRAMES, SIDE, SIDE, 3) and len(clips.test) == 3
    assert [name for name, _ in clips.outputs] == ["action", "shape", "number"]
    for name, classes in clips.outputs:
        assert all(value == -100 or 0 <= value < len(classes) for value in clips.train.labels[name])
    assert not any((one == other).all() for one in clips.train.frames_NTHWC for other in clips.test.frames_NTHWC)


def test_windows_hold_every_nth_frame() -> None:
    frames_TCHW = torch.arange(40, dtype=torch.uint8)[:, None, None, None].expand(40, 3, 2, 2)
    cut = windows(frames_TCHW, 2, 4)
    assert [window[:, 0, 0, 0].tolist()[:2] for window in cut] == [[0, 2], [4, 6]]
    assert len(windows(frames_TCHW[:32], 2, 4)) == 0 and windows(frames_TCHW[:32], 2, 4).shape[1] == FRAMES


def test_pictures_are_scaled_and_keep_their_labels(tmp_path: Path) -> None:
    clips = labelled_set(SetConfig(name="digits"), pictures(tmp_path))
    assert clips.train.frames_NTHWC.shape == (6, 1, SIDE, SIDE, 3)
    assert clips.outputs == (("digit", ("0", "1", "2")),)
    assert clips.test.frames_NTHWC[:, 0, 0, 0, 0].tolist() == [0, 20, 40, 60]
    assert clips.test.labels["digit"].tolist() == [0, 1, 2, 0]
    assert labelled_set(SetConfig(name="digits", train=2), tmp_path).train.labels["digit"].tolist() == [0, 1]


def test_flips_double_the_clips_and_mirror_them(tmp_path: Path) -> None:
    clips = labelled_set(SetConfig(name="worlds", train=2, test=1), None).train
    both = flipped(clips)
    assert np.array_equal(both.frames_NTHWC[2:], clips.frames_NTHWC[..., ::-1, :])
    assert (
        both.items_N.tolist() == [0, 1, 0, 1]
        and both.labels["action"][:2].tolist() == both.labels["action"][2:].tolist()
    )


def test_what_is_not_there_or_has_no_labels_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no labelled set 'kinetics'"):
        SetConfig(name="kinetics")
    with pytest.raises(DataError, match="no set cifar10 below"):
        labelled_set(SetConfig(name="cifar10"), tmp_path)
    with pytest.raises(DataError, match="--data"):
        labelled_set(SetConfig(name="weizmann64"), None)
    with pytest.raises(DataError, match="needs labelled entries"):
        labelled_set(SetConfig(name="digits"), pictures(tmp_path, labels=False))


def test_people_of_the_test_were_never_seen_in_training(data_dir: Path) -> None:
    people = {
        split: {entry.name.split("_")[0] for entry in scan(data_dir / "weizmann64", split=split)}
        for split in ("train", "test")
    }
    assert len(people["train"]) == 5 and len(people["test"]) == 2 and not people["train"] & people["test"]
    clips = labelled_set(SetConfig(name="weizmann64", train=4, test=4), data_dir)
    assert len(clips.outputs[0][1]) == 4 and set(clips.test.labels["action"]) == {0, 1, 2, 3}
    assert len(clips.train) > 2 * 4 and len(np.unique(clips.test.items_N)) == 4


def test_spoken_digits_know_their_digit_and_their_speaker(tmp_path: Path) -> None:
    clips = labelled_set(SetConfig(name="fsdd"), spoken_tones(tmp_path))
    assert clips.outputs == (("digit", ("0", "1", "2")), ("speaker", ("ann", "bob")))
    assert isinstance(clips.train, LabelledSounds) and isinstance(clips.test, LabelledSounds)
    assert clips.train.samples_NS.shape == (12, 12_800) and clips.train.rate_hz == 16_000 and len(clips.test) == 6
    assert clips.test.labels["digit"].tolist() == [0, 0, 1, 1, 2, 2]
    assert clips.test.labels["speaker"].tolist() == [0, 1, 0, 1, 0, 1]
    strongest_N = np.abs(np.fft.rfft(clips.test.samples_NS)).argmax(axis=1) / 0.8
    assert np.allclose(strongest_N, [205, 205, 405, 405, 805, 805], atol=3)
    assert not clips.test.samples_NS[:, 6000:].any(), "silence after the word"
    both = {(digit, speaker) for digit in range(3) for speaker in range(2)}
    few = labelled_set(SetConfig(name="fsdd", train=6), tmp_path).train.labels
    assert set(zip(few["digit"].tolist(), few["speaker"].tolist(), strict=True)) == both


def test_sounds_of_the_surroundings_keep_their_labels(tmp_path: Path) -> None:
    clips = labelled_set(SetConfig(name="esc10", train=4), surroundings(tmp_path))
    assert clips.outputs == (("sound", ("rumble", "whistle")),)
    assert isinstance(clips.train, LabelledSounds) and clips.train.samples_NS.shape == (4, 80_000)
    assert clips.train.labels["sound"].tolist() == [0, 0, 1, 1] and clips.test.labels["sound"].tolist() == [0, 1]
    assert clips.train.items_N.tolist() == [0, 1, 2, 3]
    some = clips.train.some(np.array([3]))
    assert some.labels["sound"].tolist() == [1] and np.array_equal(some.samples_NS, clips.train.samples_NS[3:])


def test_sets_are_of_pictures_or_of_sounds() -> None:
    assert {*PICTURES, *SOUNDS} == set(SETS) and not {*PICTURES} & {*SOUNDS}
    assert [SetConfig(name=name).of_sounds for name in ("fsdd", "worlds")] == [True, False]


@pytest.mark.parametrize("name", SOUNDS)
def test_sounds_that_are_not_there_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="--data"):
        labelled_set(SetConfig(name=name), None)
    with pytest.raises(DataError, match=f"no set {name} below"):
        labelled_set(SetConfig(name=name), tmp_path)
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=r"of both splits|of split train"):
        labelled_set(SetConfig(name=name), tmp_path)


def test_a_speaker_of_the_test_split_alone_and_names_without_one_are_named(tmp_path: Path) -> None:
    spoken_tones(tmp_path)
    content = (tmp_path / "one.flac").read_bytes()
    with zipfile.ZipFile(tmp_path / "fsdd" / "fsdd_test.zip", "a") as archive:
        archive.writestr("1_eve_5.flac", content)
    with pytest.raises(DataError, match=r"1_eve_5\.flac has the label 'eve'"):
        labelled_set(SetConfig(name="fsdd"), tmp_path)
    with zipfile.ZipFile(tmp_path / "fsdd" / "fsdd_test.zip", "a") as archive:
        archive.writestr("1_5.flac", content)
    with pytest.raises(DataError, match="does not name its digit and speaker"):
        labelled_set(SetConfig(name="fsdd"), tmp_path)


def test_no_recording_is_on_both_sides(data_dir: Path) -> None:
    words = {split: digit_recordings(data_dir, split) for split in ("train", "test")}
    assert not {one.content for one in words["train"]} & {one.content for one in words["test"]}
    assert {one.speaker for one in words["train"]} == {one.speaker for one in words["test"]}
    with open(data_dir / "esc10" / "index.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    sources = {split: {row["freesound_id"] for row in rows if row["split"] == split} for split in ("train", "test")}
    assert sources["train"] and sources["test"] and not sources["train"] & sources["test"]

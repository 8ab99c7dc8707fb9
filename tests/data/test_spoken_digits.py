"""Spoken digits: what is seen, heard and said is one digit, and the two splits share nothing."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from kinolex.data.spoken_digits import (
    DIGIT_WORDS,
    POET_WORDS,
    DigitCollection,
    DigitConfig,
    digit_pictures,
    digit_recordings,
    fingerprint,
)
from kinolex.data.worlds.labels import WORDS
from kinolex.errors import ConfigError, DataError, MissingFile
from kinolex.media.sound import write_sound
from kinolex.tasks.words import word_ids
from kinolex.types import Sound

PITCH_HZ = 200


def tone(digit: int, seconds: float = 0.3) -> Sound:
    times_S = torch.arange(int(seconds * 8000)) / 8000
    return Sound(0.5 * torch.sin(2 * torch.pi * PITCH_HZ * (digit + 1) * times_S)[None], 8000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture and a recording per digit and split: a bar as wide as the digit says, a tone as high as it says."""
    root = tmp_path_factory.mktemp("data")
    (root / "digits").mkdir()
    (root / "fsdd").mkdir()
    images = np.zeros((10, 28, 28), np.uint8)
    for digit in range(10):
        images[digit, 4:24, 4 : 6 + 2 * digit] = 255
    for split, number in (("train", 8), ("test", 5)):
        np.savez(root / "digits" / f"digits_{split}10.npz", images=images, labels=np.arange(10))
        with zipfile.ZipFile(root / "fsdd" / f"fsdd_{split}.zip", "w") as archive:
            for digit in range(10):
                file = root / "one.flac"
                write_sound(tone(digit), file)
                archive.writestr(f"{digit}_somebody_{number}.flac", file.read_bytes())
    return root


def test_a_seed_is_a_clip_whose_picture_sound_and_caption_are_one_digit(folder: Path) -> None:
    digits = DigitCollection(folder, "train")
    again = DigitCollection(folder, "train")
    found = set[int]()
    for seed in range(24):
        spoken = digits.draw(seed)
        same = again.draw(seed)
        assert spoken.clip.sound is not None and same.clip.sound is not None
        assert torch.equal(spoken.clip.frames_TCHW, same.clip.frames_TCHW)
        assert torch.equal(spoken.clip.sound.samples_CS, same.clip.sound.samples_CS) and spoken.digit == same.digit
        found.add(spoken.digit)
        assert spoken.caption.split()[-1] == DIGIT_WORDS[spoken.digit]
        first = spoken.clip.frames_TCHW[0].int()
        ink_HW = (first - first[:, :1, :1]).abs().sum(dim=0) > 120
        rows, columns = (int(ink_HW.any(dim=axis).sum()) for axis in (1, 0))
        assert 0.45 * 64 < max(rows, columns) < 0.9 * 64
        assert columns / rows == pytest.approx((2 + 2 * spoken.digit) / 20, abs=0.12)
        samples_S = spoken.clip.sound.samples_CS[0]
        start = int(spoken.heard_s * 16000)
        assert not samples_S[: max(0, start)].any() and samples_S.abs().max() > 0.3
        assert len(samples_S) == round(17 / 12 * 16000)
        strongest = int(torch.fft.rfft(samples_S).abs().argmax()) / (17 / 12)
        assert strongest == pytest.approx(PITCH_HZ * (spoken.digit + 1), abs=5)
    assert len(found) > 6


def test_a_digit_moves_and_stays_whole(folder: Path) -> None:
    spoken = DigitCollection(folder, "test").draw(3, DigitConfig(frames=24))
    frames = spoken.clip.frames_TCHW.int()
    ink_THW = (frames - frames[:, :, :1, :1]).abs().sum(dim=1)
    mass_T = ink_THW.sum(dim=(1, 2)).float()
    assert not torch.equal(frames[0], frames[-1])
    assert float((mass_T / mass_T.mean() - 1).abs().max()) < 0.05


def test_splits_share_no_picture_and_no_recording(data_dir: Path) -> None:
    train, test = (digit_recordings(data_dir, split) for split in ("train", "test"))
    assert not {one.content for one in train} & {one.content for one in test}
    assert {one.digit for one in test} == set(range(10)) and len(train) > 10 * len(test)
    pictures = [{image.tobytes() for image in digit_pictures(data_dir, split)[0]} for split in ("train", "test")]
    assert not pictures[0] & pictures[1]


def test_the_words_of_the_poet_are_those_of_worlds_and_of_digits() -> None:
    assert POET_WORDS[: len(WORDS)] == WORDS and set(DIGIT_WORDS) <= set(POET_WORDS)
    assert len(set(POET_WORDS)) == len(POET_WORDS)
    assert torch.equal(word_ids("an eight", POET_WORDS, 3), word_ids("eight", POET_WORDS, 3))


def test_what_is_missing_or_damaged_is_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(MissingFile, match=r"docs/data\.md"):
        DigitCollection(tmp_path, "train")
    with pytest.raises(ConfigError, match="half a second"):
        DigitConfig(frames=3)
    before = fingerprint(folder)
    for name in ("digits", "fsdd"):
        (tmp_path / name).mkdir()
        for path in (folder / name).iterdir():
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
    assert fingerprint(tmp_path) == before
    archive = tmp_path / "fsdd" / "fsdd_train.zip"
    archive.write_bytes(archive.read_bytes()[:-40])
    assert fingerprint(tmp_path) != before
    with pytest.raises(DataError, match="fetch it again"):
        DigitCollection(tmp_path, "train")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as written:
        written.writestr("seven.flac", b"")
    archive.write_bytes(content.getvalue())
    with pytest.raises(DataError, match="name its digit and speaker"):
        DigitCollection(tmp_path, "train")

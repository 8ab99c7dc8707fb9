"""Files from the wild: every one opens, and those with known counts decode to them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from kinolex.media import VideoReader, probe, read

FOLDERS = ["clips", "sequences", "codec_seq", "grid", "asl_gestures"]
MEDIA = {".mp4", ".webm", ".mkv", ".avi", ".gif", ".mpg"}
SMALL = [
    "clips/cartoon_pigs.gif",
    "clips/eye_makeup.avi",
    "clips/flipping_pancake.mkv",
    "grid/bbaf2n.mpg",
    "sequences/apple_table.mp4",
    "sequences/cat_piano_gif.mp4",
    "asl_gestures/again.mkv",
]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_opens_and_gives_its_first_frames(data_dir: Path, folder: str) -> None:
    files = [file for file in sorted((data_dir / folder).iterdir()) if file.suffix in MEDIA]
    assert files
    for file in files:
        info = probe(file)
        clip = read(file, max_frames=2)
        assert clip.frames_TCHW.shape == (2, 3, info.height, info.width) and clip.fps == info.fps
        assert (clip.sound is not None) == (info.sound_codec is not None)


@pytest.mark.parametrize("name", SMALL)
def test_frame_counts_equal_the_index(data_dir: Path, name: str) -> None:
    folder, file = name.split("/")
    with (data_dir / folder / "index.csv").open(newline="") as lines:
        row = next(row for row in csv.DictReader(lines) if row["file"] == file)

    with VideoReader(data_dir / name) as reader:
        for _ in reader:
            pass

    assert reader.frames_read == reader.info.frames == int(row["frames"])
    assert (reader.info.width, reader.info.height) == (int(row["width"]), int(row["height"]))
    assert float(reader.fps) == pytest.approx(float(row["fps"]), abs=0.01)

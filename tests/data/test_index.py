from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinolex.data.check import check_folder
from kinolex.data.index import scan, scan_some, split_in
from kinolex.data.sounds import scan_all
from kinolex.errors import DataError, MissingFile
from kinolex.media import write, write_sound
from kinolex.types import Clip, Sound


def picture(path: Path, frames: int = 1, side: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames_TCHW = torch.randint(0, 256, (frames, 3, side, side), dtype=torch.uint8)
    write(Clip(frames_TCHW, Fraction(25)), path)
    return path


def test_a_plain_folder_gives_every_medium_with_the_split_its_folder_names(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a.png")
    picture(tmp_path / "test" / "b.png")
    picture(tmp_path / "deep" / "er" / "c.mp4", frames=3)
    (tmp_path / "notes.txt").write_text("not media")
    found = {entry.name: (entry.kind, entry.split) for entry in scan(tmp_path)}
    assert found == {
        "train/a.png": ("image", "train"),
        "test/b.png": ("image", "test"),
        "deep/er/c.mp4": ("video", None),
    }
    assert [entry.name for entry in scan(tmp_path, split="train")] == ["deep/er/c.mp4", "train/a.png"]


@pytest.mark.parametrize("table", ["index.csv", "metadata.csv", "metadata.jsonl"])
def test_tables_give_labels_captions_and_splits(tmp_path: Path, table: str) -> None:
    picture(tmp_path / "a.png")
    column = "file" if table == "index.csv" else "file_name"
    row = {column: "a.png", "split": "test", "label": "wave", "caption": 'a hand, "waving"'}
    if table.endswith("csv"):
        quoted = '"a hand, ""waving"""'
        (tmp_path / table).write_text(f"{column},split,label,caption\na.png,test,wave,{quoted}\n")
    else:
        (tmp_path / table).write_text(json.dumps(row) + "\n")
    (entry,) = scan(tmp_path)
    assert (entry.label, entry.caption, entry.split) == ("wave", 'a hand, "waving"', "test")


def test_array_files_give_one_entry_per_row(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    np.savez(
        tmp_path / "digits_test3.npz", images=images, labels=np.array([2, 0, 1]), classes=np.array(["x", "y", "z"])
    )
    entries = scan(tmp_path)
    assert [(entry.name, entry.label, entry.split) for entry in entries] == [
        ("digits_test3.npz#0", "z", "test"),
        ("digits_test3.npz#1", "x", "test"),
        ("digits_test3.npz#2", "y", "test"),
    ]
    assert np.array_equal(entries[1].load_array()[..., 2], images[1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,label\nnowhere.mp4,x\n", "row 1: nowhere.mp4 is not there"),
        ("name\nx\n", "row 1: needs a value"),
        ("file\n../outside.mp4\n", "row 1: ../outside.mp4 must be a path below"),
        ("file\nindex.csv\n./index.csv\n", "row 2: ./index.csv stands in row 1 already"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "index.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        scan(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", "row 1: needs an object"),
        ('{"file_name": 5}', "row 1: 5 is not there"),
        ('{"file_name": "/dev/null"}', "row 1: /dev/null must be a path below"),
        (f'{{"file_name": "{"x" * 300}"}}', "is not there"),
        ("[" * 100_000, "cannot be read as a table"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "metadata.jsonl").write_text(line)
    with pytest.raises(DataError, match=message):
        scan(tmp_path)


IMAGES_NHW = np.zeros((2, 4, 4), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES_NHW[..., None]}, "3 channels"),
        ({"images": IMAGES_NHW[:, :0]}, "needs an array `images`"),
        ({"images": IMAGES_NHW, "labels": np.zeros(1, int)}, "one label for each of 2 images"),
        ({"images": IMAGES_NHW, "labels": np.array([0, 1]), "classes": np.array(["x"])}, "labels that count"),
        ({"images": IMAGES_NHW, "labels": np.array([0, 0.5]), "classes": np.array(["x"])}, "labels that count"),
    ],
)
def test_arrays_that_do_not_fit_together_are_named(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=message):
        scan(tmp_path)


def test_damaged_array_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, images=IMAGES_NHW)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place])
        with pytest.raises(DataError):
            scan(tmp_path)
    with open(path, "wb") as file:
        np.save(file, IMAGES_NHW)
    with pytest.raises(DataError, match="single array"):
        scan(tmp_path)


def test_a_missing_folder_and_a_foreign_array_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        scan(tmp_path / "nowhere")
    np.savez(tmp_path / "x.npz", other=np.zeros(3))
    with pytest.raises(DataError, match="images"):
        scan(tmp_path)


def test_check_lists_broken_and_short_files(tmp_path: Path) -> None:
    picture(tmp_path / "good.mp4", frames=20)
    picture(tmp_path / "short.mp4", frames=4)
    (tmp_path / "broken.mp4").write_text("this is no video")
    found = {finding.path: finding.problem for finding in check_folder(tmp_path)}
    assert found == {"short.mp4": "short", "broken.mp4": "broken"}


def test_check_finds_cut_files_and_when_asked_damage_anywhere(tmp_path: Path) -> None:
    picture(tmp_path / "good.mp4", frames=20)
    data = (tmp_path / "good.mp4").read_bytes()
    start = data.index(b"mdat") + 4
    middle = (start + len(data)) // 2
    (tmp_path / "cut.mp4").write_bytes(data[:-5])
    (tmp_path / "bad.mp4").write_bytes(data[: start + 40] + bytes(middle - start) + data[start + 40 + middle - start :])

    quick, thorough = (
        {finding.path for finding in check_folder(tmp_path, whole=whole) if finding.problem == "broken"}
        for whole in (False, True)
    )

    assert "cut.mp4" in quick and "good.mp4" not in thorough
    assert thorough >= {"cut.mp4", "bad.mp4"}


def test_every_real_collection_is_understood(data_dir: Path) -> None:
    for name in ("clips", "sequences", "weizmann64", "street_cctv", "bsds", "cifar10", "grid", "asl_gestures"):
        entries = scan(data_dir / name)
        assert entries and len({entry.name for entry in entries}) == len(entries), name
    splits = {entry.split for entry in scan(data_dir / "clips")}
    assert splits == {"train", "test"}


def test_who_needs_entries_hears_that_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no video"):
        scan_some(tmp_path)
    for name in ("train/a.png", "test/b.mp4", "c.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert len(scan_some(tmp_path)) == 3 and [entry.name for entry in scan_some(tmp_path, split="test")] == [
        "test/b.mp4"
    ]
    with pytest.raises(DataError, match=r"nothing of split 'dev'; its splits are test \(1\), train \(2\)"):
        scan_some(tmp_path, split="dev")


def test_links_back_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.png").write_bytes(b"")
    (tmp_path / "a" / "._b.png").write_bytes(b"")
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash" / "c.png").write_bytes(b"")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "a", target_is_directory=True)
    assert [entry.name for entry in scan(tmp_path)] == ["a/b.png", "elsewhere/b.png"]
    for one, other in (("x", "y"), ("y", "x")):  # each in the other, without either above
        (tmp_path / one).mkdir()
        (tmp_path / one / "in").symlink_to(tmp_path / other)
    (tmp_path / "y" / "c.png").write_bytes(b"")
    names = [entry.name for entry in scan(tmp_path)]
    assert names == ["a/b.png", "elsewhere/b.png", "x/in/c.png", "y/c.png"]


def test_a_table_in_the_folder_one_stands_in_does_not_lead_out_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outside.png").write_bytes(b"")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path / "in")
    Path("index.csv").write_text("file\nb/../a.png\n")
    assert [entry.name for entry in scan(".")] == ["a.png"]
    Path("index.csv").write_text("file\n../outside.png\n")
    with pytest.raises(DataError, match="must be a path below"):
        scan(".")


@pytest.mark.parametrize(
    ("told", "split"), [("TRAIN", "train"), ("valid", "test"), ("Dev", "test"), ("fold3", "fold3"), ("", None)]
)
def test_usual_names_of_splits_are_understood(tmp_path: Path, told: str, split: str | None) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    # With the mark that spreadsheets put in front of a table.
    (tmp_path / "metadata.csv").write_text(f"file_name,split\na.png,{told}\n", encoding="utf-8-sig")
    assert [entry.split for entry in scan(tmp_path)] == [split]


@pytest.mark.parametrize(
    ("name", "split"),
    [("digits_train8000", "train"), ("set-TEST", "test"), ("retrieval", None), ("attestation", None)],
)
def test_a_file_tells_its_split_by_a_whole_word(name: str, split: str | None) -> None:
    assert split_in(name) == split


def test_sounds_are_told_apart_and_checked(tmp_path: Path) -> None:
    write_sound(Sound(torch.zeros(1, 800), 16_000), tmp_path / "a.wav")
    (tmp_path / "b.opus").write_bytes(b"no sound")
    with pytest.raises(DataError, match="its sounds are for tokenizers of sound"):
        scan_some(tmp_path)
    assert [(entry.name, entry.kind) for entry in scan_all(tmp_path)] == [("a.wav", "sound"), ("b.opus", "sound")]
    assert [(finding.path, finding.problem) for finding in check_folder(tmp_path)] == [("b.opus", "broken")]
    (tmp_path / "index.csv").write_text("file,split\na.wav,test\n")
    assert [(entry.kind, entry.split) for entry in scan(tmp_path)] == [("sound", "test")]
    assert [entry.name for entry in scan_all(tmp_path, split="test")] == ["a.wav"]
    with pytest.raises(DataError, match=r"its splits are test \(1\)"):
        scan_all(tmp_path, split="train")
    (tmp_path / "index.csv").write_text("file\n")
    with pytest.raises(DataError, match="nothing to see or hear"):
        scan_all(tmp_path)

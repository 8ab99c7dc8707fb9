from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinolex.data.index import scan
from kinolex.data.packs import FORMAT, Pack, build_pack
from kinolex.errors import DataError, UsageError
from kinolex.media import read, resize_frames, write
from kinolex.types import Clip

SIZES = json.dumps({"lines": 128, "max_frames": None}) + "\n"
"""What a journal begins with."""


def collection(folder: Path, number: int = 4, side: int = 40, frames: int = 6) -> Path:
    folder.mkdir(parents=True)
    for seed in range(number):
        generator = torch.Generator().manual_seed(seed)
        frames_TCHW = torch.randint(0, 256, (frames, 3, side, side + 8), generator=generator, dtype=torch.uint8)
        write(Clip(frames_TCHW, Fraction(30000, 1001)), folder / f"clip{seed}.mp4")
    write(Clip(frames_TCHW[:1], Fraction(1)), folder / "image.png")
    return folder


def test_a_pack_holds_the_decoded_frames_scaled_down_and_never_up(tmp_path: Path) -> None:
    media = collection(tmp_path / "media")
    small = build_pack(scan(media), tmp_path / "small", lines=20)
    large = build_pack(scan(media), tmp_path / "large", lines=999)

    clip = read(media / "clip1.mp4")
    assert np.array_equal(large.frames_THWC(1), clip.frames_TCHW.permute(0, 2, 3, 1).numpy())
    expected = resize_frames(clip.frames_TCHW, 20, 24).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(small.frames_THWC(1), expected)
    item = small.items[1]
    assert (item.fps, item.kind, item.frames, len(item.sha256)) == ((30000, 1001), "video", 6, 64)
    assert small.items[-1].kind == "image"


def test_unreadable_files_are_listed_and_strict_refuses_them(tmp_path: Path) -> None:
    media = collection(tmp_path / "media", number=1)
    (media / "broken.mp4").write_bytes(b"not a video")
    pack = build_pack(scan(media), tmp_path / "pack")
    skipped = json.loads((tmp_path / "pack" / "manifest.json").read_text())["skipped"]
    assert len(pack) == 2 and list(skipped) == list(pack.skipped) == ["broken.mp4"]
    with pytest.raises(DataError, match=r"broken\.mp4"):
        build_pack(scan(media), tmp_path / "strict", strict=True)


def test_a_build_killed_with_sigkill_goes_on_and_gives_the_same_bytes(tmp_path: Path) -> None:
    media = collection(tmp_path / "media", number=10, side=64, frames=12)
    build_pack(scan(media), tmp_path / "straight")
    code = (
        "import sys; from kinolex.data.index import scan; from kinolex.data.packs import build_pack\n"
        "build_pack(scan(sys.argv[1]), sys.argv[2])"
    )
    killed = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", code, str(media), str(killed)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    part = killed / "frames.u8.part"
    while not (part.exists() and part.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    assert killed.exists()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    build_pack(scan(media), killed)

    for name in ("frames.u8", "manifest.json"):
        assert (killed / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_a_file_that_could_not_be_read_is_tried_again_and_another_size_begins_anew(tmp_path: Path) -> None:
    media = collection(tmp_path / "media", number=1)
    (media / "image.png").unlink()
    whole = (media / "clip0.mp4").read_bytes()
    (media / "clip0.mp4").write_bytes(whole[:200])
    for lines in (16, 20):  # what the first leaves is no part of the second
        with pytest.raises(DataError, match=r"none of 1 files could be read; clip0\.mp4: .*"):
            build_pack(scan(media), tmp_path / "pack", lines=lines)
    (media / "clip0.mp4").write_bytes(whole)
    assert build_pack(scan(media), tmp_path / "pack", lines=16).items[0].height == 16

    torn = tmp_path / "torn"
    torn.mkdir()
    item = json.loads((tmp_path / "pack" / "manifest.json").read_text())["items"][0]
    (torn / "journal.jsonl").write_text(json.dumps({"lines": 16, "max_frames": None}) + "\n" + json.dumps(item) + "\n")
    (torn / "frames.u8.part").write_bytes((tmp_path / "pack" / "frames.u8").read_bytes())
    assert build_pack(scan(media), torn, lines=20).items[0].height == 20


def test_a_pack_of_nothing_or_of_no_size_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    media = collection(tmp_path / "media", number=1)
    with pytest.raises(DataError, match="no such files"):
        build_pack([], tmp_path / "pack")
    for sizes in ({"lines": 0}, {"max_frames": 0}):
        with pytest.raises(UsageError, match="at least 1 line and 1 frame"):
            build_pack(scan(media), tmp_path / "pack", **sizes)  # type: ignore[arg-type]
    assert not (tmp_path / "pack").exists()


def test_a_half_written_item_is_cut_off_on_resuming(tmp_path: Path) -> None:
    media = collection(tmp_path / "media", number=3)
    build_pack(scan(media), tmp_path / "straight")
    torn = tmp_path / "torn"
    torn.mkdir()
    items = json.loads((tmp_path / "straight" / "manifest.json").read_text())["items"]
    (torn / "journal.jsonl").write_text(SIZES + json.dumps(items[0]) + '\n{"name": "clip1.mp4", "sha')
    first = (tmp_path / "straight" / "frames.u8").read_bytes()[: items[1]["offset"]]
    (torn / "frames.u8.part").write_bytes(first + b"half an item")
    build_pack(scan(media), torn)
    assert (torn / "frames.u8").read_bytes() == (tmp_path / "straight" / "frames.u8").read_bytes()


def test_truncated_foreign_and_missing_packs_are_refused(tmp_path: Path) -> None:
    build_pack(scan(collection(tmp_path / "media", number=1)), tmp_path / "pack")
    frames = tmp_path / "pack" / "frames.u8"
    frames.write_bytes(frames.read_bytes()[:-1])
    with pytest.raises(DataError, match="build the pack again"):
        Pack.open(tmp_path / "pack")
    (tmp_path / "pack" / "manifest.json").write_text('{"format": "other", "items": [], "lines": 1}')
    with pytest.raises(DataError, match="format"):
        Pack.open(tmp_path / "pack")
    with pytest.raises(DataError, match="not a pack"):
        Pack.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": None}, "a whole number of frames"),
        ({"height": "x"}, "a whole number of height"),
        ({"width": 8.5}, "a whole number of width"),
        ({"width": 10**4000}, "a whole number of width"),
        ({"height": -1}, "a whole number of height"),
        ({"offset": []}, "a place in the frames"),
        ({"offset": 65536}, "begins at byte 65536, not 0"),
        ({"fps": [25, 0]}, "fps as two whole numbers"),
        ({"fps": 25}, "no pack item"),
        ({"label": 3}, "as text"),
        ({"colour": "red"}, "no pack item"),
    ],
)
def test_a_damaged_item_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    manifest = write_pack(tmp_path)
    write_pack(tmp_path, items=[manifest["items"][0] | change])
    with pytest.raises(DataError, match=message):
        Pack.open(tmp_path)


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    write_pack(tmp_path, lines="x")
    with pytest.raises(DataError, match="packed at 'x' lines"):
        Pack.open(tmp_path)
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="not a pack"):
        Pack.open(tmp_path)


def write_pack(folder: Path, **changes: Any) -> dict[str, Any]:
    """A pack of one item of 2x3x4 pixels, with entries of its manifest replaced."""
    item = {"name": "a", "sha256": "", "offset": 0, "frames": 2, "height": 3, "width": 4, "fps": [25, 1]}
    item |= {"kind": "video", "label": None, "caption": None, "split": None}
    manifest = {"format": FORMAT, "lines": 3, "items": [item], "skipped": {}} | changes
    (folder / "frames.u8").write_bytes(bytes(72))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return manifest


@pytest.mark.parametrize("line", ["5", '"skipped"', '{"name": "a"}', '{"skipped": "a"}', "[" * 100_000])
def test_a_damaged_journal_is_built_again_from_the_damage_on(tmp_path: Path, line: str) -> None:
    media = collection(tmp_path / "media", number=1)
    whole = build_pack(scan(media), tmp_path / "whole")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "journal.jsonl").write_text(SIZES + line + "\n")
    pack = build_pack(scan(media), tmp_path / "pack")
    assert pack.items == whole.items

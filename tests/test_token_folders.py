"""Whole collections into tokens: everything once, again only where something changed, failures told and not hidden."""

from __future__ import annotations

import csv
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

import kinolex
from kinolex import cli
from kinolex.errors import DataError, UsageError
from kinolex.media import write, write_sound
from kinolex.token_folders import encode_folder, holds_only_sounds
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip, Sound
from tests.tiny_sound import tiny_sound_tokenizer


def moving(frames: int, seed: int) -> Clip:
    generator = torch.Generator().manual_seed(seed)
    return Clip(torch.randint(0, 256, (frames, 3, 24, 32), generator=generator, dtype=torch.uint8), Fraction(25))


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Two videos of one name, a picture, an array of two pictures, a sound, and a file that is broken."""
    folder = tmp_path / "own films"
    (folder / "test").mkdir(parents=True)
    write(moving(6, 0), folder / "a.mp4")
    write(moving(5, 1), folder / "test" / "a.mp4")
    write(moving(1, 2), folder / "test" / "ö.png")
    (folder / "broken.mp4").write_bytes(b"not a film")
    np.savez(folder / "rows.npz", images=np.zeros((2, 16, 16, 3), np.uint8), labels=np.array([3, 1]))
    write_sound(Sound(torch.sin(torch.arange(8000) / 9.0)[None] * 0.5, 16_000), folder / "b.wav")
    return folder


def test_every_entry_becomes_a_file_and_what_fails_is_told(
    tiny_tokenizer: VideoTokenizer, collection: Path, tmp_path: Path
) -> None:
    seen: list[tuple[int, int | None]] = []
    done = encode_folder(collection, out := tmp_path / "t", tiny_tokenizer, on_files=lambda *s: seen.append(s))
    assert (done.made, done.kept, list(done.failed)) == (5, 0, ["broken.mp4"])
    assert seen == [(count, 6) for count in range(1, 7)]
    with open(out / "tokens.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["kind"], row["split"], row["label"]) for row in rows] == [
        ("a.mp4.safetensors", "video", "", ""),
        ("rows.npz#0.safetensors", "image", "", "3"),
        ("rows.npz#1.safetensors", "image", "", "1"),
        ("test/a.mp4.safetensors", "video", "test", ""),
        ("test/ö.png.safetensors", "image", "test", ""),
    ]
    frames = [kinolex.load_tokens(out / row["file"]).extent.frames for row in rows]  # type: ignore[union-attr]
    assert frames == [6, 1, 1, 5, 1]
    alone = tiny_tokenizer.encode(kinolex.read(collection / "a.mp4").with_sound(None))
    assert torch.equal(kinolex.load_tokens(out / "a.mp4.safetensors").ids_Qthw, alone.ids_Qthw)


def test_again_makes_only_what_is_new_or_changed(
    tiny_tokenizer: VideoTokenizer, collection: Path, tmp_path: Path
) -> None:
    out = tmp_path / "t"
    encode_folder(collection, out, tiny_tokenizer, lines=16, split="test")
    before = (out / "test" / "a.mp4.safetensors").read_bytes()
    write(moving(7, 3), collection / "test" / "b.mp4")
    done = encode_folder(collection, out, tiny_tokenizer, lines=16, split="test")
    assert (done.made, done.kept, done.failed) == (1, 2, {})
    assert (out / "test" / "a.mp4.safetensors").read_bytes() == before
    write(moving(5, 4), collection / "test" / "a.mp4")
    later = (out / "test" / "a.mp4.safetensors").stat().st_mtime_ns + 10**9
    os.utime(collection / "test" / "a.mp4", ns=(later, later))
    assert encode_folder(collection, out, tiny_tokenizer, lines=16, split="test").made == 1
    assert (out / "test" / "a.mp4.safetensors").read_bytes() != before
    # The table keeps what another split made, too.
    encode_folder(collection, out, tiny_tokenizer, lines=16, split="train")
    assert (out / "tokens.csv").read_text(encoding="utf-8").count(".safetensors,") == 6


def test_an_interruption_leaves_whole_files_and_the_next_call_goes_on(
    tiny_tokenizer: VideoTokenizer, collection: Path, tmp_path: Path
) -> None:
    def stop(done: int, total: int | None) -> None:
        if done == 3:
            raise KeyboardInterrupt

    out = tmp_path / "t"
    with pytest.raises(KeyboardInterrupt):
        encode_folder(collection, out, tiny_tokenizer, on_files=stop)
    there = sorted(path.name for path in out.rglob("*"))
    assert there == ["a.mp4.safetensors", "rows.npz#0.safetensors", "tokens.csv", "tokens.json"]
    done = encode_folder(collection, out, tiny_tokenizer)
    assert (done.made, done.kept) == (3, 2)


def test_tokens_of_two_kinds_are_never_mixed(tiny_tokenizer: VideoTokenizer, collection: Path, tmp_path: Path) -> None:
    encode_folder(collection, out := tmp_path / "t", tiny_tokenizer, split="test")
    with pytest.raises(UsageError, match=r"made with \{'lines': None\}, and \{'lines': 16\} is asked for"):
        encode_folder(collection, out, tiny_tokenizer, lines=16)
    with pytest.raises(UsageError, match="'tokenizer'"):
        encode_folder(collection, out, tiny_sound_tokenizer())
    (out / "tokens.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        encode_folder(collection, out, tiny_tokenizer)


def test_a_target_that_cannot_be_is_refused(tiny_tokenizer: VideoTokenizer, collection: Path, tmp_path: Path) -> None:
    for inside in (collection, collection / "tokens"):
        with pytest.raises(UsageError, match="outside"):
            encode_folder(collection, inside, tiny_tokenizer)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is a file"):
        encode_folder(collection, tmp_path / "file", tiny_tokenizer)
    with pytest.raises(UsageError, match="levels"):
        encode_folder(collection, tmp_path / "t", tiny_tokenizer, levels=2)
    with pytest.raises(UsageError, match="lines"):
        encode_folder(collection, tmp_path / "t", tiny_sound_tokenizer(), lines=16)
    assert (tmp_path / "file").read_text() == "mine" and not (tmp_path / "t").exists()


def test_sounds_and_the_sound_of_videos(collection: Path, tmp_path: Path) -> None:
    tokenizer = tiny_sound_tokenizer()
    done = encode_folder(collection, out := tmp_path / "t", tokenizer, levels=2)
    assert done.made == 1 and set(done.failed) == {"a.mp4", "broken.mp4", "test/a.mp4"}  # these have no sound
    assert kinolex.load_tokens(out / "b.wav.safetensors").ids_Qthw.shape[0] == 2
    assert not holds_only_sounds(collection)
    (alone := tmp_path / "sounds").mkdir()
    (collection / "b.wav").rename(alone / "b.wav")
    assert holds_only_sounds(alone)
    with pytest.raises(DataError, match="nothing of split 'test'"):
        encode_folder(alone, tmp_path / "u", tokenizer, split="test")


def test_the_command_tells_what_failed_by_its_exit_code(
    tiny_tokenizer: VideoTokenizer,
    collection: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(*arguments: object) -> int:
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(argument) for argument in arguments])
        return int(stopped.value.code or 0)

    monkeypatch.setattr("kinolex.hub.load", lambda name: tiny_tokenizer)
    assert run("encode", collection, tmp_path / "t", "--json") == 1
    told = capsys.readouterr()
    assert '"made": 5, "kept": 0, "failed": 1' in told.out and "failed broken.mp4: " in told.err
    (collection / "broken.mp4").unlink()
    assert run("encode", collection, tmp_path / "t") == 0
    assert run("encode", collection, tmp_path / "t", "--sound-kbps", 2) == 2
    assert "give --levels" in capsys.readouterr().err
    assert run("encode", collection / "a.mp4", tmp_path / "a.safetensors", "--split", "test") == 2
    assert "--split is for folders" in capsys.readouterr().err

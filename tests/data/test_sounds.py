"""Packs of sounds and the crops drawn from them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from kinolex.data.sound_loader import SoundLoader, SoundLoaderConfig
from kinolex.data.sounds import SoundPack, build_sound_pack, scan_sounds
from kinolex.errors import ConfigError, DataError, MissingFile
from kinolex.media import write_sound
from kinolex.types import Sound


def sound(seed: int, samples: int, *, channels: int = 1, rate_hz: int = 8_000) -> Sound:
    generator = torch.Generator().manual_seed(seed)
    return Sound((torch.rand(channels, samples, generator=generator) - 0.5), rate_hz)


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Two files for training, one for the test, a zip of each, a silent file, a broken one, and a text."""
    folder = tmp_path / "set"
    (folder / "test").mkdir(parents=True)
    write_sound(sound(0, 4_000), folder / "a.wav")
    write_sound(sound(1, 3_000, channels=2, rate_hz=16_000), folder / "b.flac")
    write_sound(sound(2, 500), folder / "test" / "c.wav")
    write_sound(Sound(torch.zeros(1, 100), 8_000), folder / "silent.wav")
    (folder / "broken.wav").write_bytes(b"RIFF nothing of the kind")
    (folder / "notes.txt").write_text("no sound")
    for split, seed in (("train", 3), ("test", 4)):
        write_sound(sound(seed, 700), folder / "member.flac")
        with zipfile.ZipFile(folder / f"words_{split}.zip", "w") as archive:
            archive.write(folder / "member.flac", "1_name_0.flac")
        (folder / "member.flac").unlink()
    return folder


def test_files_and_members_of_zips_are_found_with_their_splits(collection: Path) -> None:
    names = {split: [entry.name for entry in scan_sounds(collection, split=split)] for split in ("train", "test")}
    assert names["train"] == ["a.wav", "b.flac", "broken.wav", "silent.wav", "words_train.zip!1_name_0.flac"]
    assert names["test"] == ["test/c.wav", "words_test.zip!1_name_0.flac"]


def test_a_table_decides_labels_and_splits(collection: Path) -> None:
    (collection / "index.csv").write_text("file,label,split\na.wav,dog,train\nb.flac,cat,test\n")
    (entry,) = scan_sounds(collection, split="test")
    assert (entry.name, entry.label, entry.split) == ("b.flac", "cat", "test")


def test_a_pack_holds_mono_samples_at_its_rate_and_says_what_it_skipped(collection: Path, tmp_path: Path) -> None:
    pack = build_sound_pack(scan_sounds(collection, split="train"), tmp_path / "pack", rate_hz=8_000)

    assert [item.name for item in pack.items] == ["a.wav", "b.flac", "words_train.zip!1_name_0.flac"]
    assert [item.samples for item in pack.items] == [4_000, 1_500, 700]
    expected_S = (sound(0, 4_000).samples_CS[0].numpy() * 32768).round()
    assert np.array_equal(pack.samples_S(0), expected_S)
    assert np.array_equal(pack.samples_S(2), (sound(3, 700).samples_CS[0].numpy() * 32768).round())
    skipped = json.loads((tmp_path / "pack" / "manifest.json").read_text())["skipped"]
    assert set(skipped) == {"broken.wav", "silent.wav"} and "silent" in skipped["silent.wav"]


def test_a_build_that_was_cut_goes_on_to_the_same_bytes(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = scan_sounds(collection, split="train")
    whole = build_sound_pack(entries, tmp_path / "whole", rate_hz=8_000)

    def cut(entries_):  # type: ignore[no-untyped-def]
        yield from entries_[:2]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("kinolex.data.sounds.track", lambda found, **_: cut(found))
        with pytest.raises(KeyboardInterrupt):
            build_sound_pack(entries, tmp_path / "cut", rate_hz=8_000)
    with open(tmp_path / "cut" / "sounds.i16.part", "ab") as file:
        file.write(b"half a sample of the next item")
    with pytest.raises(DataError):
        SoundPack.open(tmp_path / "cut")
    build_sound_pack(entries, tmp_path / "cut", rate_hz=8_000)

    for name in ("sounds.i16", "manifest.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (whole.folder / name).read_bytes()


def test_damaged_packs_and_missing_folders_are_named(collection: Path, tmp_path: Path) -> None:
    pack = build_sound_pack(scan_sounds(collection, split="train"), tmp_path / "pack", rate_hz=8_000)
    with open(pack.folder / "sounds.i16", "ab") as file:
        file.write(b"xx")
    with pytest.raises(DataError, match="its manifest needs"):
        SoundPack.open(pack.folder)
    with pytest.raises(MissingFile, match="is not a folder"):
        scan_sounds(tmp_path / "nowhere")
    (collection / "bad.zip").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match="as a zip"):
        scan_sounds(collection)


def test_a_batch_is_a_function_of_seed_and_step(collection: Path, tmp_path: Path) -> None:
    packs = [build_sound_pack(scan_sounds(collection, split="train"), tmp_path / "pack", rate_hz=8_000)]
    config = SoundLoaderConfig(crop=1_000, batch=6, seed=3, world_fraction=0.3)

    first, again = (SoundLoader(packs, config, rate_hz=8_000) for _ in range(2))
    for step in (5, 1):
        batch_B1S = first.batch(step)
        assert batch_B1S.shape == (6, 1, 1_000) and batch_B1S.dtype == torch.float32
        assert float(batch_B1S.abs().max()) <= 1.0
        assert torch.equal(batch_B1S, again.batch(step))
    assert not torch.equal(first.batch(0), first.batch(1))


def test_short_sounds_are_padded_and_loudness_varies(collection: Path, tmp_path: Path) -> None:
    entries = [entry for entry in scan_sounds(collection, split="train") if entry.member]
    packs = [build_sound_pack(entries, tmp_path / "pack", rate_hz=8_000)]
    batch_BS = SoundLoader(packs, SoundLoaderConfig(crop=1_000, batch=32, seed=0), rate_hz=8_000).batch(0).squeeze(1)

    assert set((batch_BS != 0).sum(dim=1).tolist()) <= {698, 699, 700}  # a sample or two may be zero themselves
    starts = (batch_BS != 0).int().argmax(dim=1)
    assert len(set(starts.tolist())) > 16
    peaks = batch_BS.abs().amax(dim=1)
    assert float(peaks.max() / peaks.min()) > 4


def test_worlds_alone_need_no_pack_and_sound() -> None:
    loader = SoundLoader([], SoundLoaderConfig(crop=8_000, batch=8, seed=0, world_fraction=1.0), rate_hz=16_000)
    heard = (loader.batch(0).abs().amax(dim=(1, 2)) > 1e-3).float().mean()
    assert float(heard) >= 0.5


def test_what_cannot_be_drawn_is_refused(collection: Path, tmp_path: Path) -> None:
    packs = [build_sound_pack(scan_sounds(collection, split="train"), tmp_path / "pack", rate_hz=8_000)]
    config = SoundLoaderConfig(crop=10, batch=1, seed=0)
    with pytest.raises(DataError, match="must be at 16000 Hz"):
        SoundLoader(packs, config, rate_hz=16_000)
    with pytest.raises(DataError, match="no pack"):
        SoundLoader([], config, rate_hz=16_000)
    with pytest.raises(ConfigError, match="world_fraction"):
        SoundLoaderConfig(crop=10, batch=1, seed=0, world_fraction=1.5)


def test_shares_say_which_pack_is_heard(collection: Path, tmp_path: Path) -> None:
    loud, quiet = tmp_path / "loud", tmp_path / "quiet"
    for folder, level in ((loud, 0.5), (quiet, 0.001)):
        folder.mkdir()
        write_sound(Sound(torch.full((1, 4_000), level), 8_000), folder / "a.wav")
        build_sound_pack(scan_sounds(folder), tmp_path / f"{folder.name}-pack", rate_hz=8_000)
    packs = [SoundPack.open(tmp_path / f"{folder.name}-pack") for folder in (loud, quiet)]
    for shares, heard in (((1.0, 0.0), 0.4), ((0.0, 1.0), 0.0)):
        config = SoundLoaderConfig(crop=500, batch=16, seed=0, shares=shares, gain_db=(0.0, 0.0))
        batch_B1S = SoundLoader(packs, config, rate_hz=8_000).batch(0)
        assert bool((batch_B1S.amax(dim=-1) > 0.4).all() if heard else (batch_B1S.amax(dim=-1) < 0.01).all())
    with pytest.raises(ConfigError, match="2 packs need as many shares"):
        SoundLoader(packs, SoundLoaderConfig(crop=500, batch=1, seed=0, shares=(1.0,)), rate_hz=8_000)
    with pytest.raises(ConfigError, match="nor all 0"):
        SoundLoaderConfig(crop=500, batch=1, seed=0, shares=(0.0, 0.0))

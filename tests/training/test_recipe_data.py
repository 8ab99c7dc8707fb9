"""What a recipe learns from is what lies in the data folder now, and what a run began from stays what it was."""

from __future__ import annotations

import json
import os
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from kinolex import cli
from kinolex.data.index import scan
from kinolex.data.packs import build_pack
from kinolex.errors import DataError, UsageError
from kinolex.media import write
from kinolex.training.recipes import open_packs, train_from_recipe
from kinolex.types import Clip

sys.path.insert(0, str(Path(__file__).parent))
from test_processes import prepare, whole_config


def pictured(path: Path, seed: int) -> None:
    frames_TCHW = torch.randint(
        0, 256, (9, 3, 24, 32), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )
    write(Clip(frames_TCHW, Fraction(25)), path)


def test_a_pack_of_other_files_is_refused_whether_new_gone_or_changed(tmp_path: Path) -> None:
    prepare(tmp_path)
    config, packs = whole_config(), tmp_path / "packs"
    open_packs(config, tmp_path, packs)
    open_packs(config, tmp_path, packs)
    media = tmp_path / "media"
    kept = (media / "clip0.mp4").read_bytes()
    pictured(media / "more.mp4", 7)
    with pytest.raises(DataError, match=r"1 new \(such as more.mp4\); delete the pack"):
        open_packs(config, tmp_path, packs)
    (media / "more.mp4").unlink()
    (media / "clip0.mp4").unlink()
    with pytest.raises(DataError, match=r"1 gone \(such as clip0.mp4\)"):
        open_packs(config, tmp_path, packs)
    pictured(media / "clip0.mp4", 8)
    os.utime(media / "clip0.mp4", (0, 0))  # other pictures under an older date, as in another copy of the folder
    with pytest.raises(DataError, match=r"1 changed \(such as clip0.mp4\)"):
        open_packs(config, tmp_path, packs)
    (media / "clip0.mp4").write_bytes(kept)
    open_packs(config, tmp_path, packs)
    media.rename(tmp_path / "elsewhere")
    open_packs(config, tmp_path, packs)  # packs are enough where the collection itself is not there


def test_what_cannot_be_packed_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(tmp_path)
    for number in range(12):
        (tmp_path / "media" / f"text{number:02}.mp4").write_text("no film")
    open_packs(whole_config(), tmp_path, tmp_path / "packs")
    told = capsys.readouterr().err
    assert "media: skipped text00.mp4: " in told and "media: skipped 2 more" in told
    open_packs(whole_config(), tmp_path, tmp_path / "packs")  # what was skipped is known and not taken for new


def test_collections_stand_for_those_of_the_recipe(tmp_path: Path) -> None:
    recipe = prepare(tmp_path)
    (tmp_path / "media").rename(tmp_path / "mine")
    with pytest.raises(DataError, match=r"needs .*media; below .* there is mine, pack, run; .*docs/training.md"):
        train_from_recipe(recipe, tmp_path, tmp_path / "run")
    train_from_recipe(recipe, tmp_path, tmp_path / "run", collections=("mine",))
    assert (tmp_path / "run" / "packs" / "mine-128" / "manifest.json").is_file()
    with pytest.raises(UsageError, match=r"a language model, whose sources the recipe itself must name"):
        train_from_recipe(
            Path(__file__).parents[2] / "recipes" / "text_nano.py", tmp_path, tmp_path / "t", collections=("mine",)
        )


def test_the_card_says_what_a_run_began_from_however_it_is_called_again(tmp_path: Path) -> None:
    recipe, packs = prepare(tmp_path), tmp_path / "packs"
    first = train_from_recipe(recipe, tmp_path, tmp_path / "first", cache=packs)
    with pytest.raises(UsageError, match=r"began from random weights .* it cannot begin from video-nano"):
        train_from_recipe(recipe, tmp_path, tmp_path / "first", cache=packs, init="video-nano")
    second = train_from_recipe(recipe, tmp_path, tmp_path / "second", cache=packs, init=first)
    card = (second / "README.md").read_text()
    assert f"from the weights of {first}" in card
    train_from_recipe(recipe, tmp_path, tmp_path / "second", cache=packs)
    assert (second / "README.md").read_text() == card
    train_from_recipe(recipe, tmp_path, tmp_path / "second", cache=packs, init=first)
    with pytest.raises(UsageError, match=r"began from .*first"):
        train_from_recipe(recipe, tmp_path, tmp_path / "second", cache=packs, init="nosuch")


def test_a_pack_never_replaces_a_foreign_manifest_nor_lies_in_its_collection(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(tmp_path)
    (tmp_path / "lo").mkdir()
    (tmp_path / "lo" / "manifest.json").write_text(mine := json.dumps({"items": [], "keep": 1}))
    with pytest.raises(DataError, match="something else than a pack"):
        build_pack(scan(tmp_path / "media"), tmp_path / "lo")
    (tmp_path / "lo" / "manifest.json").write_text('{"keep": 1}')
    with pytest.raises(DataError, match="holds no pack"):
        build_pack(scan(tmp_path / "media"), tmp_path / "lo")
    assert mine and (tmp_path / "lo" / "manifest.json").read_text() == '{"keep": 1}'
    with pytest.raises(SystemExit) as stopped:
        cli.main(["data", "pack", str(tmp_path / "media"), str(tmp_path / "media" / "pack")])
    assert stopped.value.code == 2 and "outside of it" in capsys.readouterr().err

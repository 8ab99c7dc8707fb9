from __future__ import annotations

import stat
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from kinolex.data.token_store import load_picture_tokens, save_tokens
from kinolex.errors import MissingFile, TokenError
from kinolex.types import Extent, Tokens

EXTENT = Extent(frames=9, height=30, width=40, fps=Fraction(30000, 1001))


def tokens_up_to(largest: int) -> Tokens:
    generator = torch.Generator().manual_seed(0)
    ids_Qthw = torch.randint(0, largest + 1, (2, 3, 4, 5), generator=generator)
    ids_Qthw[0, 0, 0, 0] = largest
    return Tokens(ids_Qthw, "video", "a" * 64, EXTENT)


@pytest.mark.parametrize(
    ("largest", "dtype"),
    [(255, torch.uint8), (256, torch.int16), (2**15 - 1, torch.int16), (2**18 - 1, torch.int32), (2**40, torch.int64)],
)
def test_tokens_come_back_exactly_from_the_smallest_integers_that_hold_them(
    tmp_path: Path, largest: int, dtype: torch.dtype
) -> None:
    tokens, path = tokens_up_to(largest), tmp_path / "t.safetensors"
    save_tokens(tokens, path)
    loaded = load_picture_tokens(path)
    assert torch.equal(loaded.ids_Qthw, tokens.ids_Qthw) and loaded.ids_Qthw.dtype == torch.int64
    assert (loaded.kind, loaded.tokenizer, loaded.extent) == (tokens.kind, tokens.tokenizer, tokens.extent)
    with safe_open(path, "pt") as file:
        assert file.get_tensor("ids").dtype == dtype
        assert file.metadata()["format"] == "kinolex-tokens-1"
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_foreign_cut_and_missing_files_are_named_and_an_old_file_survives_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    with pytest.raises(MissingFile):
        load_picture_tokens(path)
    save_file({"ids": torch.zeros(1, 1, 1, 1)}, path)
    with pytest.raises(TokenError, match="holds no tokens"):
        load_picture_tokens(path)
    save_tokens(tokens_up_to(9), path)
    whole = path.read_bytes()
    for cut in (0, 1, 9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(TokenError, match="no whole token file"):
            load_picture_tokens(path)
    path.write_bytes(whole)
    with pytest.raises(MissingFile, match="create it first"):
        save_tokens(tokens_up_to(9), tmp_path / "no" / "t.safetensors")
    assert [item.name for item in tmp_path.iterdir()] == ["t.safetensors"]


@pytest.mark.parametrize(
    "change",
    [
        {"fps": "0/1"},
        {"fps": "1/0"},
        {"fps": "1e999999999"},
        {"frames": "-3"},
        {"frames": "many"},
        {"height": "0"},
        {"format": "kinolex-tokens-2"},
        {"width": None},
    ],
)
def test_impossible_metadata_is_refused(tmp_path: Path, change: dict[str, str | None]) -> None:
    path = tmp_path / "t.safetensors"
    save_tokens(tokens_up_to(9), path)
    with safe_open(path, "pt") as file:
        metadata, ids_Qthw = file.metadata() | change, file.get_tensor("ids")
    save_file({"ids": ids_Qthw}, path, {name: value for name, value in metadata.items() if value is not None})
    with pytest.raises(TokenError):
        load_picture_tokens(path)

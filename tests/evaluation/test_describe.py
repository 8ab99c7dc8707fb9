"""A picture or clip as words: in print, as a page, and from the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinolex import checkpoint, media
from kinolex.cli import main
from kinolex.cli.common import frames_bar
from kinolex.errors import UsageError
from kinolex.evaluation.describe import as_text, describe_page
from kinolex.evaluation.page import write_text
from kinolex.media import VideoReader, read, write
from kinolex.tokenizers.spae import Spae, SpaeConfig, codebook_from
from kinolex.types import Clip
from kinolex.understanding import describe
from tests.tiny_spae import tiny_spae_config

CONFIG = tiny_spae_config(("red", "blue", "star", "ring", "<b>"), layers=((1, 1, 1), (1, 2, 2), (1, 4, 4)))


def model_of(config: SpaeConfig) -> Spae:
    torch.manual_seed(0)
    spae = Spae(config).eval()
    spae.quantizer.set_codebook(codebook_from(torch.randn(5, 4)))
    return spae


def clip_of(frames: int) -> Clip:
    generator = torch.Generator().manual_seed(1)
    return Clip(torch.randint(0, 256, (frames, 3, 24, 40), dtype=torch.uint8, generator=generator), Fraction(8))


def test_words_lie_where_the_tokenizer_puts_them() -> None:
    spae, clip = model_of(CONFIG), clip_of(1)
    (one,) = describe(clip, spae)
    assert [layer.shape for layer in one.layers] == list(CONFIG.layers) and one.frames == (0,)
    pixels = torch.from_numpy(one.picture_HWC).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1
    (spelled,) = spae.spell(spae.encode_ids(pixels))
    assert [word for layer in one.layers for word in layer.flat] == spelled
    assert len(one.prefixes_HWC) == 3 and one.prefixes_HWC[0].shape == (16, 16, 3)


def test_of_a_video_evenly_spaced_frames_are_described() -> None:
    assert [one.frames for one in describe(clip_of(40), model_of(CONFIG), pictures=4)] == [(5,), (15,), (25,), (35,)]
    assert len(describe(clip_of(2), model_of(CONFIG), pictures=4)) == 2


def test_a_tokenizer_of_clips_describes_one_clip() -> None:
    config = replace(CONFIG, layers=((1, 1, 1), (2, 4, 4)))
    (one,) = describe(clip_of(8), model_of(config))
    assert one.frames == (2, 6) and [layer.shape for layer in one.layers] == [(1, 1, 1), (2, 4, 4)]


def test_text_shows_a_row_of_words_for_every_row_of_a_layer() -> None:
    (one,) = describe(clip_of(1), model_of(CONFIG))
    lines = as_text([one], layers=2).splitlines()
    assert [line.split() for line in lines if line] == [
        [one.layers[0][0, 0, 0]],
        [*one.layers[1][0, 0]],
        [*one.layers[1][0, 1]],
    ]


def test_the_page_holds_every_word_escaped_and_fetches_nothing() -> None:
    described = describe(clip_of(1), model_of(CONFIG))
    replaced = replace(described[0], layers=tuple(np.full_like(layer, "<b>") for layer in described[0].layers))
    text = describe_page([replaced], "a <picture>")
    assert text.count("&lt;b&gt;") == 1 + 4 + 16 and "<b>" not in text
    assert "http" not in text.replace("http://www.w3.org", "")
    assert "3 of 3 layers" in text


def test_the_command_prints_words_and_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint.save(tmp_path / "spae", model_of(CONFIG), card="")
    write(clip_of(1), tmp_path / "in.png")
    with pytest.raises(SystemExit) as ended:
        main(
            ["describe", str(tmp_path / "in.png"), "--model", str(tmp_path / "spae"), "--out", str(tmp_path / "p.html")]
        )
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert set(printed.split()) <= set(CONFIG.words) and len(printed.split()) == 21
    assert "<!doctype html>" in (tmp_path / "p.html").read_text().lower()
    with pytest.raises(SystemExit):
        main(["describe", str(tmp_path / "in.png"), "--model", str(tmp_path / "spae"), "--json", "--layers", "2"])
    assert [len(layer) for layer in json.loads(capsys.readouterr().out)[0]] == [1, 4]


@pytest.fixture
def shown(tmp_path: Path) -> tuple[str, ...]:
    """The command on a video of 40 frames, with a tokenizer of three layers."""
    checkpoint.save(tmp_path / "spae", model_of(CONFIG), card="")
    write(clip_of(40), tmp_path / "in.mp4")
    return ("describe", str(tmp_path / "in.mp4"), "--model", str(tmp_path / "spae"))


def refusal(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a refused command says."""
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    printed = capsys.readouterr()
    assert ended.value.code == 2 and printed.out == "" and printed.err.count("\n") == 1
    return printed.err


def test_a_page_does_not_take_the_place_of_what_it_describes(
    shown: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (tmp_path / "in.mp4").read_bytes()
    assert "would be overwritten" in refusal((*shown, "--out", shown[1]), capsys)
    assert (tmp_path / "in.mp4").read_bytes() == before


def test_a_folder_is_no_page_and_no_file_that_nobody_named_is_told_of(
    shown: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "photo.jpg").write_bytes(b"kept")
    assert "is to be a page; name it photo.html" in refusal((*shown, "--out", str(tmp_path / "photo.jpg")), capsys)
    assert (tmp_path / "photo.jpg").read_bytes() == b"kept"
    said = refusal((*shown, "--out", str(tmp_path / "empty")), capsys)
    assert f"{tmp_path / 'empty'} is a folder" in said and ".part" not in said
    with pytest.raises(IsADirectoryError) as raised:
        write_text(tmp_path / "empty", "")
    assert raised.value.filename == str(tmp_path / "empty")


@pytest.mark.parametrize("layers", ["0", "-1", "4", "99"])
def test_layers_that_are_not_there_are_refused(
    layers: str, shown: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"one of 1..3, got {layers}" in refusal((*shown, "--layers", layers), capsys)


def test_a_file_is_described_as_its_clip_is_and_only_the_chosen_frames_are_kept(
    shown: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int | None]] = []
    for config in (CONFIG, replace(CONFIG, layers=((1, 1, 1), (2, 4, 4)))):
        spae = model_of(config)
        whole = describe(read(shown[1]), spae, pictures=3)
        monkeypatch.setattr(media, "read", None)
        piecewise = describe(shown[1], spae, pictures=3, on_frames=lambda *done: seen.append(done))
        monkeypatch.undo()
        assert [one.frames for one in piecewise] == [one.frames for one in whole]
        for one, other in zip(piecewise, whole, strict=True):
            assert all(map(np.array_equal, one.layers, other.layers))
            assert np.array_equal(one.picture_HWC, other.picture_HWC)
    assert seen == [(16, 40), (32, 40), (40, 40)] * 2


def test_a_file_with_fewer_frames_than_it_says_is_described_to_its_end(
    shown: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = VideoReader.__init__

    def promising(self: VideoReader, *arguments: Any) -> None:
        opened(self, *arguments)
        self.info = replace(self.info, frames=80)

    monkeypatch.setattr(VideoReader, "__init__", promising)
    described = describe(shown[1], model_of(CONFIG), pictures=4)
    assert [one.frames for one in described] == [(10,), (30,), (39,), (39,)]


def test_a_bar_is_shown_of_what_takes_its_time_alone(capsys: pytest.CaptureFixture[str]) -> None:
    for after_s, shows in ((0.0, True), (60.0, False)):
        with frames_bar("in.mp4", after_s=after_s) as bar:
            bar(1, 2)
        assert ("in.mp4" in capsys.readouterr().err) == shows


def test_no_pictures_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1 picture"):
        describe(clip_of(1), model_of(CONFIG), pictures=0)

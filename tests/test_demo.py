"""Parts of the demo's page: sound that can be seen and heard, words over pictures, players beside stills."""

from __future__ import annotations

import base64
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from kinolex.data.worlds import asked_of
from kinolex.demo.sounds import BANDS, COLOURS, WAVE_ROWS, picture_of, sound_parts
from kinolex.demo.words import CAPTIONS, class_parts, pyramid_parts
from kinolex.evaluation.page import figure, file_data_uri
from kinolex.media import read_sound, write
from kinolex.tokenizers.spae import Spae, codebook_from
from kinolex.types import Clip, Sound
from kinolex.understanding import load_classifier
from tests.tiny_sound import tiny_sound_tokenizer
from tests.tiny_spae import tiny_spae_config


def tone(channels: int = 1) -> Sound:
    wave_S = torch.cat([torch.zeros(8000), torch.sin(torch.arange(8000) * 0.2) * 0.5])
    return Sound(wave_S.repeat(channels, 1), 16_000)


def test_a_picture_of_sound_shows_when_and_how_high_it_sounds() -> None:
    picture = picture_of(tone(), tone())
    mel = picture[WAVE_ROWS:].astype(int).sum(axis=2)
    assert picture.shape[0] == WAVE_ROWS + 2 * BANDS
    assert np.array_equal(np.unique(mel[:, : mel.shape[1] // 3]), [sum(COLOURS[0])])  # silent
    loudest = int(mel[:, -mel.shape[1] // 4].argmax())
    assert 0.6 < loudest / len(mel) < 0.95  # 509 Hz of 8000, the low notes at the bottom
    silent = picture_of(Sound(torch.zeros(1, 16_000), 16_000), tone())
    assert int(silent[WAVE_ROWS:].astype(int).sum(axis=2).max()) == sum(COLOURS[0])


def test_sound_is_shown_heard_and_measured_at_two_rates(tmp_path: Path) -> None:
    torch.manual_seed(0)
    told: list[tuple[int, int | None]] = []
    parts = sound_parts(
        tone(2), tiny_sound_tokenizer(levels=8), tmp_path / "sound", lambda *numbers: told.append(numbers)
    )
    sounds = re.findall(r'<audio [^>]*src="data:audio/wav;base64,([^"]+)"', parts[0])
    files = sorted((tmp_path / "sound").iterdir())
    assert {base64.b64decode(sound) for sound in sounds} == {file.read_bytes() for file in files}
    assert [file.name for file in files] == ["1.6kbps.wav", "original.wav"]
    assert all(read_sound(file).samples_CS.shape == (2, 16_000) for file in files)
    assert told == [(1, 2), (2, 2)] and "a channel" in parts[1]


def test_a_clip_is_said_in_words_and_what_is_too_short_is_said_to_be() -> None:
    torch.manual_seed(0)
    spae = Spae(tiny_spae_config()).eval()
    spae.quantizer.set_codebook(codebook_from(torch.randn(4, 4)))
    words, pictures, _ = pyramid_parts(Clip(torch.zeros(5, 3, 8, 8, dtype=torch.uint8), Fraction(8)), spae)
    assert len(re.findall(r">(red|blue|star|ring)</span>", words)) == 1 + 4
    assert pictures.count("<img") == 1 + 2


def test_a_video_too_short_for_the_probe_is_a_note_and_no_failure(tmp_path: Path) -> None:
    write(Clip(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), Fraction(24)), tmp_path / "short.mp4")
    (only,) = class_parts(tmp_path / "short.mp4", load_classifier(), "probe")
    assert "give a longer video" in only


def test_captions_of_the_demo_are_captions_of_worlds() -> None:
    assert all(len(asked_of(caption)) == 1 for caption in CAPTIONS)


def test_a_figure_plays_videos_and_sounds_and_shows_pictures(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.wav", "c.png"):
        (tmp_path / name).write_bytes(b"some bytes")
    uris = [file_data_uri(tmp_path / name) for name in ("a.mp4", "b.wav", "c.png")]
    shown = figure([("<label>", *uris)])
    kinds = re.findall(r'<(video|audio|img) [^>]*src="data:([^;]+);', shown)
    assert kinds == [("video", "video/mp4"), ("audio", "audio/wav"), ("img", "image/png")]
    assert "<span>&lt;label&gt;</span>" in shown and "<label>" not in shown

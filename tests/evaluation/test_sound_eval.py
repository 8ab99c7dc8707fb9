"""eval sound: real bytes, prefixes of levels, figures by set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from kinolex.errors import ConfigError, DataError
from kinolex.evaluation.sound import SoundProtocol, evaluate_sound
from kinolex.media import write_sound
from kinolex.media.opus import encode_opus
from kinolex.media.resample import resample_sound
from kinolex.tokenizers.quantizers import ResidualConfig, VQConfig
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.tokenizers.soundstream import SoundStream, SoundStreamConfig
from kinolex.types import Sound


@pytest.fixture
def tokenizer() -> SoundTokenizer:
    torch.manual_seed(0)
    level = VQConfig(codebook_size=32, dim=4, ema_decay=0.9)
    config = SoundStreamConfig(
        rate_hz=16_000,
        strides=(4, 5),
        widths=(4, 8, 8),
        encoder_units=(0, 0, 0),
        decoder_units=(0, 0, 0),
        quantizer=ResidualConfig(level=level, num_levels=2),
    )
    return SoundTokenizer(SoundStream(config), "a" * 64)


def tones(samples: int, rate_hz: int, channels: int = 1) -> Sound:
    times_S = torch.arange(samples) / rate_hz
    return Sound((0.3 * torch.sin(2 * torch.pi * 440 * times_S)).expand(channels, samples).clone(), rate_hz)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for group, rate_hz in (("words", 8_000), ("noises", 44_100)):
        folder = tmp_path / "data" / group / "test"
        folder.mkdir(parents=True)
        for index in range(3):
            write_sound(tones(rate_hz // 2 + 37 * index, rate_hz, 1 + index % 2), folder / f"{index}.wav")
    return tmp_path / "data"


def protocol(**changes: object) -> SoundProtocol:
    values = {"sets": ("words", "noises"), "kbps": (4.0, 8.0), "opus_kbps": (12.0,), "bootstrap_draws": 50}
    return SoundProtocol(**(values | changes))  # type: ignore[arg-type]


def test_rates_are_those_of_real_bytes_and_more_bits_of_opus_are_nearer(
    tokenizer: SoundTokenizer, data: Path, tmp_path: Path
) -> None:
    result = evaluate_sound(tokenizer, data, protocol(opus_kbps=(6.0, 48.0)), tmp_path / "out", model_name="tiny")

    assert json.loads((tmp_path / "out" / "sound_tiny.json").read_text()) == json.loads(json.dumps(result))
    assert result["n"] == 6 and set(result["sets"]) == {"words", "noises"}
    row = result["clips"][0]
    frames = -(-8_000 // 20)
    assert row["tiny 4 kbit/s bytes"] == -(-frames * 5 // 8) and row["tiny 8 kbit/s bytes"] == -(-frames * 10 // 8)
    opus = encode_opus(resample_sound(tones(4_000, 8_000), 16_000), kbps=48.0)
    assert row["opus 48 kbit/s bytes"] == sum(map(len, opus.packets))
    assert row["opus 48 kbit/s kbps"] == pytest.approx(8 * row["opus 48 kbit/s bytes"] / 0.5 / 1000)
    means = result["mean"]
    assert means["opus 48 kbit/s mel_distance"]["mean"] < means["opus 6 kbit/s mel_distance"]["mean"]
    assert means["opus 48 kbit/s si_sdr_db"]["mean"] > 10
    assert {0.0, 1.0} >= {row["tiny 4 kbit/s than opus 6 kbit/s nearer"] for row in result["clips"]}


def test_few_files_are_spread_over_a_set(tokenizer: SoundTokenizer, data: Path) -> None:
    result = evaluate_sound(tokenizer, data, protocol(max_files=2), model_name="tiny")
    assert [row["name"] for row in result["clips"]] == [
        f"{group}/test/{index}.wav" for group in ("words", "noises") for index in (0, 1)
    ]


def test_a_set_without_test_files_and_impossible_protocols_are_refused(tokenizer: SoundTokenizer, data: Path) -> None:
    with pytest.raises(DataError, match="no sounds of split"):
        evaluate_sound(tokenizer, data, protocol(split="train"), model_name="tiny")
    with pytest.raises(ConfigError, match="positive rates"):
        protocol(kbps=(0.0,))
    assert protocol().hash != protocol(max_files=2).hash


def test_the_real_sets_are_found_by_their_test_parts(tokenizer: SoundTokenizer, data_dir: Path) -> None:
    few = SoundProtocol(kbps=(4.0,), opus_kbps=(12.0,), max_files=1, bootstrap_draws=10)
    result = evaluate_sound(tokenizer, data_dir, few, model_name="tiny")
    assert [row["name"].split("/")[0] for row in result["clips"]] == ["fsdd", "esc10"]
    assert result["clips"][0]["name"].startswith("fsdd/fsdd_test.zip!")

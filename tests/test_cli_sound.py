"""The commands on sound, as a user calls them, on a tiny random tokenizer of sound."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from kinolex import checkpoint, cli, hub
from kinolex.data.token_store import load_picture_tokens, load_tokens, save_tokens
from kinolex.errors import TokenError
from kinolex.media import read_sound, write, write_sound
from kinolex.tokenizers.quantizers import ResidualConfig, VQConfig
from kinolex.tokenizers.soundstream import SoundStream, SoundStreamConfig
from kinolex.types import Clip, Extent, Sound, Tokens


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    config = SoundStreamConfig(
        rate_hz=16_000,
        strides=(4, 5),
        widths=(4, 8, 8),
        encoder_units=(0, 0, 0),
        decoder_units=(0, 0, 0),
        quantizer=ResidualConfig(level=VQConfig(codebook_size=32, dim=4, ema_decay=0.9), num_levels=3),
    )
    folder = tmp_path_factory.mktemp("model") / "tiny"
    checkpoint.save(folder, SoundStream(config), card="# tiny")
    return str(folder)


@pytest.fixture
def sound() -> Sound:
    return Sound(torch.sin(torch.arange(22_050) / 10).repeat(2, 1) * 0.5, 44_100)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    return int(stopped.value.code or 0)


@pytest.mark.parametrize("rate", ["nan", "inf", -1, 0])
def test_a_rate_that_cannot_be_is_named(
    model: str, sound: Sound, tmp_path: Path, rate: object, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sound(sound, source := tmp_path / "in.wav")
    assert run("roundtrip", source, tmp_path / "out.wav", "--model", model, "--sound-kbps", rate) == 2
    assert "positive and finite" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "levels"), [((), 3), (("--levels", 2), 2), (("--sound-kbps", 17), 2)])
def test_roundtrip_of_a_sound_brings_back_length_rate_and_channels(
    model: str,
    sound: Sound,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: tuple[object, ...],
    levels: int,
) -> None:
    write_sound(sound, tmp_path / "in.wav")
    assert run("roundtrip", tmp_path / "in.wav", tmp_path / "out.flac", "--model", model, "--json", *option) == 0

    facts = json.loads(capsys.readouterr().out)
    made = read_sound(tmp_path / "out.flac")
    assert made.samples_CS.shape == sound.samples_CS.shape and made.rate_hz == 44_100
    assert facts["levels"] == levels and facts["kbps"] == pytest.approx(2 * levels * 4.0, rel=0.01)
    assert facts["mel_distance"] > 0 and facts["channels"] == 2


def test_the_sound_of_a_video_goes_into_a_sound_file(model: str, sound: Sound, tmp_path: Path) -> None:
    frames_TCHW = torch.zeros(5, 3, 32, 32, dtype=torch.uint8)
    write(Clip(frames_TCHW, Fraction(10), sound), tmp_path / "in.mp4")
    assert run("roundtrip", tmp_path / "in.mp4", tmp_path / "out.wav", "--model", model) == 0
    assert read_sound(tmp_path / "out.wav").duration_s == pytest.approx(0.5, abs=0.05)


def test_sound_and_pictures_are_not_mixed_up(
    model: str, sound: Sound, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sound(sound, tmp_path / "in.wav")
    write(Clip(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), Fraction(1)), tmp_path / "in.png")
    for arguments, message in (
        (("roundtrip", tmp_path / "in.wav", tmp_path / "o.mp4"), "no pictures"),
        (("encode", tmp_path / "in.wav", tmp_path / "o.safetensors", "--model", "video-nano"), "no pictures"),
        (("roundtrip", tmp_path / "in.png", tmp_path / "o.wav", "--model", model), "holds no sound"),
        (("roundtrip", tmp_path / "in.png", tmp_path / "o.png", "--model", model), "tokenizer of sound"),
        (("roundtrip", tmp_path / "in.wav", tmp_path / "o.wav", "--model", "video-nano"), "sound tokenizer"),
        (("roundtrip", tmp_path / "in.png", tmp_path / "o.png", "--levels", 2), "for sound alone"),
        (("encode", tmp_path / "in.png", tmp_path / "o.safetensors", "--sound-kbps", 2), "for sound alone"),
        (("encode", tmp_path / "in.wav", tmp_path / "o.safetensors", "--model", model, "--lines", 64), "for pictures"),
        (("encode", tmp_path / "in.wav", tmp_path / "o.wav", "--model", model), "tokens are written as .safetensors"),
        (("encode", tmp_path / "in.png", tmp_path / "o.safetensors", "--model", model), "holds no sound"),
        (("roundtrip", tmp_path / "in.wav", tmp_path / "o.wav", "--model", model, "--lines", 64), "for pictures"),
        (("roundtrip", tmp_path / "in.wav", tmp_path / "o.wav", "--model", model, "--levels", 9), "1 to 3 levels"),
        (
            ("roundtrip", tmp_path / "in.wav", tmp_path / "o.wav", "--model", model, "--levels", 2, "--sound-kbps", 8),
            "one of them",
        ),
    ):
        assert run(*arguments) == 2
        assert message in capsys.readouterr().err
        assert not list(tmp_path.glob("o.*"))


@pytest.mark.parametrize(("option", "levels"), [((), 3), (("--levels", 1), 1), (("--sound-kbps", 17), 2)])
def test_a_sound_is_encoded_into_a_token_file_and_decoded_from_it(
    model: str, sound: Sound, tmp_path: Path, option: tuple[object, ...], levels: int
) -> None:
    write_sound(sound, source := tmp_path / "in.wav")
    tokens, tokenizer = tmp_path / "t.safetensors", hub.load_sound(model)
    assert run("encode", source, tokens, "--model", model, *option) == 0
    assert run("decode", tokens, tmp_path / "out.wav", "--model", model) == 0

    direct = tokenizer.encode(read_sound(source), levels)
    assert torch.equal(load_tokens(tokens).ids_Qthw, direct.ids_Qthw)
    write_sound(tokenizer.decode(direct), tmp_path / "direct.wav")
    assert (tmp_path / "out.wav").read_bytes() == (tmp_path / "direct.wav").read_bytes()
    assert read_sound(tmp_path / "out.wav").samples_CS.shape == sound.samples_CS.shape


def test_a_file_chooses_its_kind_of_tokens_and_tokens_find_the_shipped_model_that_made_them(
    model: str, sound: Sound, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "PRETRAINED", Path(model).parent)
    monkeypatch.setattr(hub, "SOUND", "tiny")
    write_sound(sound, tmp_path / "in.flac")
    write(Clip(torch.zeros(5, 3, 32, 32, dtype=torch.uint8), Fraction(10), sound), tmp_path / "in.mp4")

    assert run("encode", tmp_path / "in.flac", tmp_path / "a.safetensors") == 0
    assert run("encode", tmp_path / "in.mp4", tmp_path / "b.safetensors", "--model", "tiny") == 0
    for tokens in ("a.safetensors", "b.safetensors"):
        assert load_tokens(tmp_path / tokens).kind == "sound"
        assert run("decode", tmp_path / tokens, tmp_path / "out.wav") == 0
        assert read_sound(tmp_path / "out.wav").duration_s == pytest.approx(0.5, abs=0.05)


def test_tokens_are_not_decoded_as_what_they_are_not(
    model: str, sound: Sound, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tokens(hub.load_sound(model).encode(sound), heard := tmp_path / "heard.safetensors")
    extent = Extent(frames=1, height=8, width=8, fps=Fraction(1))
    save_tokens(
        Tokens(torch.zeros(1, 1, 1, 1, dtype=torch.int64), "video", "f" * 64, extent), tmp_path / "s.safetensors"
    )
    for arguments, message in (
        ((heard, tmp_path / "o.wav"), "no shipped model has fingerprint"),
        ((heard, tmp_path / "o.wav", "--model", "video-nano"), "tokens of sound"),
        ((heard, tmp_path / "o.wav", "--model", "sound-nano"), "made by tokenizer"),
        ((heard, tmp_path / "o.mp4", "--model", model), "cannot write sound as .mp4"),
        ((heard, tmp_path / "o.wav", "--model", model, "--sound-from", heard), "for pictures"),
        ((tmp_path / "s.safetensors", tmp_path / "o.wav", "--model", model), "tokens of pictures"),
    ):
        assert run("decode", *arguments) == 2
        assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("o.*"))


def test_tokens_of_sound_are_stored_and_described(
    model: str, sound: Sound, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = hub.load_sound(model).encode(sound)
    save_tokens(tokens, tmp_path / "t.safetensors")
    again = load_tokens(tmp_path / "t.safetensors")
    assert torch.equal(again.ids_Qthw, tokens.ids_Qthw)
    assert (again.kind, again.extent, again.tokenizer) == (tokens.kind, tokens.extent, tokens.tokenizer)
    with pytest.raises(TokenError, match="tokens of sound"):
        load_picture_tokens(tmp_path / "t.safetensors")

    assert run("info", tmp_path / "t.safetensors", "--json") == 0
    assert json.loads(capsys.readouterr().out)["channels"] == 2


def test_info_describes_a_sound_tokenizer(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", model, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["what"], facts["levels"], facts["kbps_per_level"]) == ("sound tokenizer", 3, 4.0)


def test_eval_sound_writes_its_result(model: str, sound: Sound, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "set" / "test"
    folder.mkdir(parents=True)
    write_sound(sound, folder / "a.wav")
    rates = ("--sound-kbps", 4, 12, "--opus-kbps", 12)
    arguments = ("--data", tmp_path / "data", "--sets", "set", "--model", model, "--out", tmp_path / "out", *rates)
    assert run("eval", "sound", *arguments) == 0
    result = json.loads((tmp_path / "out" / "sound_tiny.json").read_text())
    assert result["mean"]["tiny 12 kbit/s kbps"]["mean"] == pytest.approx(12.0, rel=0.02)


@pytest.mark.parametrize(
    "options",
    [
        ("--sound-for", "a.mp4", "--from", "b.mp4"),
        ("--sound-for", "a.mp4", "--picture-for", "b.wav"),
        ("--picture-for", "a.wav", "--task", "text-to-video"),
        ("--text", "a red ball", "--frames", "9"),
        ("--task", "inpaint-central", "--structure", "a.mp4"),
    ],
)
def test_options_that_ask_for_several_tasks_are_refused(
    options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["generate", str(tmp_path / "out.mp4"), *options])

    assert ended.value.code == 2 and "leave out" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_info_of_a_sound_says_how_long_and_how_it_is(
    sound: Sound, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sound(sound, tmp_path / "a.wav")
    assert run("info", tmp_path / "a.wav", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert {key: facts[key] for key in ("kind", "samples", "rate_hz", "channels", "duration_s")} == {
        "kind": "sound",
        "samples": 22_050,
        "rate_hz": 44_100,
        "channels": 2,
        "duration_s": 0.5,
    }

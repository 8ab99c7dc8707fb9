from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from kinolex.errors import UnsupportedMedia
from kinolex.media import probe, read, read_sound, write, write_sound
from kinolex.types import Clip, Sound


def tone(rate_hz: int, length_s: float, channels: int) -> Sound:
    """A different pitch in every channel."""
    times_S = torch.arange(round(rate_hz * length_s)) / rate_hz
    pitches_hz = [440, 660][:channels]
    return Sound(torch.stack([0.5 * torch.sin(2 * math.pi * pitch * times_S) for pitch in pitches_hz]), rate_hz)


def encode_sound(
    path: Path, samples_CS: torch.Tensor, rate_hz: int, codec: str, layout: str, sample_format: str
) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz, layout=layout)
        resampler = av.AudioResampler(format=sample_format, layout=layout, rate=rate_hz)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples_CS.numpy()), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate_hz", [8000, 22050, 44100, 48000])
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_lossless_sound_comes_back_exactly(tmp_path, suffix, rate_hz, channels) -> None:
    torch.manual_seed(0)
    samples_CS = torch.randint(-32768, 32768, (channels, 70_001)).float() / 32768

    write_sound(Sound(samples_CS, rate_hz), tmp_path / f"a{suffix}")

    back = read_sound(tmp_path / f"a{suffix}")
    assert back.rate_hz == rate_hz and torch.equal(back.samples_CS, samples_CS)


def test_a_sound_without_samples_comes_back_without_samples(tmp_path) -> None:
    write_sound(Sound(torch.zeros(2, 0), 44100), tmp_path / "a.wav")

    back = read_sound(tmp_path / "a.wav")

    assert back.num_samples == 0 and back.rate_hz == 44100


@pytest.mark.parametrize(
    ("name", "codec", "sample_format", "rate_hz"),
    [
        ("a.mp3", "libmp3lame", "fltp", 44100),
        ("a.opus", "libopus", "flt", 48000),
        ("a.ogg", "libopus", "flt", 48000),
        ("a.m4a", "aac", "fltp", 44100),
        ("a.mka", "pcm_f32le", "flt", 16000),
        ("a.flac", "flac", "s32", 96000),
        ("a.aiff", "pcm_s16be", "s16", 22050),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_other_codecs_read_in_time_and_in_channel_order(
    tmp_path, name, codec, sample_format, rate_hz, channels
) -> None:
    sound = tone(rate_hz, 0.5, channels)
    layout = "mono" if channels == 1 else "stereo"
    encode_sound(tmp_path / name, sound.samples_CS, rate_hz, codec, layout, sample_format)

    back = read_sound(tmp_path / name)

    assert back.rate_hz == rate_hz and back.samples_CS.shape[0] == channels
    assert abs(back.duration_s - 0.5) < 0.06
    middle = slice(rate_hz // 10, rate_hz * 4 // 10)
    error_CS = back.samples_CS[:, middle] - sound.samples_CS[:, middle]
    assert error_CS.square().mean() < 0.01 * sound.samples_CS.square().mean()


def test_surround_is_mixed_down_to_stereo(tmp_path) -> None:
    samples_CS = torch.zeros(6, 24000)
    samples_CS[1] = 0.5 * torch.sin(torch.arange(24000) * 0.1)  # front right
    encode_sound(tmp_path / "a.flac", samples_CS, 48000, "flac", "5.1", "s16")

    back = read_sound(tmp_path / "a.flac")

    assert back.samples_CS.shape == (2, 24000)
    assert back.samples_CS[1].abs().max() > 0.1 and back.samples_CS[0].abs().max() < 0.01


@pytest.mark.parametrize("shift_s", [Fraction(-1, 5), Fraction(0), Fraction(3, 10)])
def test_sound_is_aligned_to_the_first_picture(tmp_path, shift_s) -> None:
    """Sound that begins earlier than the picture is cut, sound that begins later comes after silence."""
    rate_hz, first_s = 48000, Fraction(12, 25)
    path = tmp_path / "shifted.mkv"
    samples_S = torch.zeros(rate_hz, dtype=torch.float32)
    samples_S[rate_hz // 2] = 0.9  # a click half a second into the sound
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=25)
        video.width = video.height = 16
        video.pix_fmt = "bgr0"
        track = container.add_stream("pcm_f32le", rate=rate_hz, layout="mono")
        for index in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), index, np.uint8), format="rgb24")
            frame = frame.reformat(format="bgr0")
            frame.pts, frame.time_base = index + 12, Fraction(1, 25)
            container.mux(video.encode(frame))
        for start in range(0, rate_hz, 4800):
            block = av.AudioFrame.from_ndarray(samples_S[None, start : start + 4800].numpy(), "flt", "mono")
            block.sample_rate = rate_hz
            block.pts, block.time_base = start + int((first_s + shift_s) * rate_hz), Fraction(1, rate_hz)
            container.mux(track.encode(block))
        container.mux([*video.encode(None), *track.encode(None)])

    sound = read(path).sound

    assert sound is not None
    assert int(sound.samples_CS[0].abs().argmax()) == pytest.approx((0.5 + float(shift_s)) * rate_hz, abs=48)


def test_a_video_gives_its_sound_and_a_silent_one_says_so(tmp_path, make_scene) -> None:
    sound = tone(44100, 0.4, 2)
    write(Clip(make_scene(10, 16, 16), Fraction(25), sound), tmp_path / "loud.mp4")
    write(Clip(make_scene(10, 16, 16), Fraction(25)), tmp_path / "silent.mp4")

    info = probe(tmp_path / "loud.mp4")
    assert (info.sound_codec, info.sound_rate_hz, info.sound_channels) == ("aac", 44100, 2)
    assert read_sound(tmp_path / "loud.mp4").num_samples == sound.num_samples
    assert probe(tmp_path / "silent.mp4").sound_codec is None and read(tmp_path / "silent.mp4").sound is None
    with pytest.raises(UnsupportedMedia, match="no sound"):
        read_sound(tmp_path / "silent.mp4")


def test_sound_files_have_no_pictures_and_other_suffixes_are_refused(tmp_path) -> None:
    write_sound(tone(8000, 0.1, 1), tmp_path / "a.wav")
    with pytest.raises(UnsupportedMedia, match="sound but no pictures"):
        read(tmp_path / "a.wav")
    with pytest.raises(UnsupportedMedia, match="use one of"):
        write_sound(tone(8000, 0.1, 1), tmp_path / "a.xyz")

    assert [file.name for file in tmp_path.iterdir()] == ["a.wav"]

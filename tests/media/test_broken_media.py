"""Whatever a file holds, reading it gives a clean result or an error with a name."""

from __future__ import annotations

import os
import random
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch

from kinolex.errors import MediaError, MissingFile, UnreadableMedia, UnsupportedMedia
from kinolex.media import VideoReader, probe, read, read_sound, write, write_sound
from kinolex.types import Clip, Sound

VIDEO = [".mp4", ".webm", ".gif"]
IMAGE = [".png", ".jpg", ".webp"]
SOUND = [".wav", ".flac"]


def sample(folder: Path, suffix: str, make_scene) -> Path:
    path = folder / f"whole{suffix}"
    sound = Sound(0.5 * torch.sin(torch.arange(40_000) * 0.05)[None], 44100)
    if suffix in SOUND:
        write_sound(sound, path)
    else:
        frames = 1 if suffix in IMAGE else 40
        write(Clip(make_scene(frames, 32, 48), Fraction(25), sound), path)
    return path


@pytest.mark.parametrize("function", [probe, read, read_sound, VideoReader])
def test_missing_files_folders_and_empty_files_are_named(tmp_path, function) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(MissingFile, match="no file at"):
        function(tmp_path / "missing.mp4")
    with pytest.raises(UnreadableMedia, match="is a folder"):
        function(tmp_path)
    with pytest.raises(UnreadableMedia, match="0 bytes"):
        function(tmp_path / "empty.mp4")


@pytest.mark.parametrize("function", [probe, read, read_sound])
@pytest.mark.parametrize("name", ["a.mp4", "a.txt", "a.png", "a.gif", "a.wav", "a.webm", "a.srt", "a.m3u8"])
def test_text_under_any_name_is_not_media(tmp_path, function, name) -> None:
    text = "#EXTM3U\n#EXTINF:3,\nhttp://127.0.0.1:9/x.ts\n" if name == "a.m3u8" else "Once upon a time.\n" * 200
    (tmp_path / name).write_text(text)
    with pytest.raises(UnreadableMedia):
        function(tmp_path / name)


@pytest.mark.parametrize("function", [probe, read, read_sound])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, function) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(UnreadableMedia, match="is a pipe or device"):
        function(tmp_path / "a.mp4")


@pytest.mark.parametrize("suffix", [".ogg", ".wav"])
def test_a_cut_sound_says_so(tmp_path, suffix) -> None:
    tone_CS = torch.sin(torch.arange(48000) / 20)[None]
    if suffix == ".wav":
        write_sound(Sound(tone_CS, 48000), tmp_path / "a.wav")
    else:
        with av.open(tmp_path / "a.ogg", "w") as container:
            stream = container.add_stream("libopus", rate=48000, layout="mono")
            frame = av.AudioFrame.from_ndarray(tone_CS.numpy(), format="flt", layout="mono")
            frame.sample_rate = 48000
            container.mux([*stream.encode(frame), *stream.encode(None)])
    assert read_sound(tmp_path / f"a{suffix}").duration_s == pytest.approx(1, abs=0.02)
    data = (tmp_path / f"a{suffix}").read_bytes()
    for rest in (len(data) - 1, len(data) * 2 // 3):
        (tmp_path / f"cut{suffix}").write_bytes(data[:rest])
        with pytest.raises(UnreadableMedia, match=r"truncated|cut off"):
            read_sound(tmp_path / f"cut{suffix}")


@pytest.mark.parametrize("suffix", VIDEO)
def test_a_cut_video_gives_its_whole_frames_and_then_says_how_many(tmp_path, make_scene, suffix) -> None:
    whole = sample(tmp_path, suffix, make_scene)
    data, frames_TCHW = whole.read_bytes(), read(whole).frames_TCHW
    cut = tmp_path / f"cut{suffix}"
    counts = []
    for tenths in (3, 5, 7, 9):
        cut.write_bytes(data[: len(data) * tenths // 10])
        got: list[torch.Tensor] = []
        with pytest.raises(UnreadableMedia) as caught, VideoReader(cut) as reader:
            got.extend(clip.frames_TCHW for clip in reader)
        count = sum(part.shape[0] for part in got)
        counts.append(count)
        if count:
            assert f"{count} frames were readable" in str(caught.value)
            assert torch.equal(torch.cat(got)[:-1], frames_TCHW[: count - 1])
            with pytest.raises(UnreadableMedia, match=f"{count} frames were readable"):
                read(cut)
            assert torch.equal(read(cut, max_frames=1).frames_TCHW, frames_TCHW[:1])

    assert counts == sorted(counts) and counts[-1] > 20


@pytest.mark.parametrize("suffix", [*VIDEO, *IMAGE, *SOUND])
def test_a_file_cut_anywhere_is_unreadable_and_nothing_worse(tmp_path, make_scene, suffix) -> None:
    data = sample(tmp_path, suffix, make_scene).read_bytes()
    cut = tmp_path / f"cut{suffix}"
    places = {1, 8, 12, 16, 32, len(data) - 1, *(len(data) * part // 12 for part in range(1, 12))}
    for place in sorted(places & set(range(1, len(data)))):
        cut.write_bytes(data[:place])
        with pytest.raises(UnreadableMedia):
            read_sound(cut) if suffix in SOUND else read(cut)


@pytest.mark.parametrize("suffix", [*VIDEO, *IMAGE, *SOUND])
def test_damaged_bytes_give_a_clip_or_a_named_error(tmp_path, make_scene, suffix) -> None:
    data = sample(tmp_path, suffix, make_scene).read_bytes()
    damaged = tmp_path / f"damaged{suffix}"
    generator = random.Random(0)
    for _ in range(12):
        changed = bytearray(data)
        for _ in range(generator.choice([1, 4, 30])):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
        damaged.write_bytes(changed)
        try:
            if suffix in SOUND:
                assert isinstance(read_sound(damaged), Sound)
            else:
                assert isinstance(read(damaged, max_frames=100), Clip)
        except MediaError:
            continue


def test_sound_of_an_unknown_codec_is_named_and_the_pictures_stay_readable(tmp_path, make_scene) -> None:
    path = sample(tmp_path, ".webm", make_scene)
    path.write_bytes(path.read_bytes().replace(b"A_OPUS", b"A_OXEN"))
    info = probe(path)
    assert (info.sound_codec, info.sound_rate_hz, info.sound_channels) == ("unknown", None, None)
    with VideoReader(path) as reader:
        assert sum(clip.num_frames for clip in reader) == 40
    for function in (read, read_sound):
        with pytest.raises(UnsupportedMedia, match="holds sound in a codec unknown"):
            function(path)


@pytest.mark.parametrize("rate", [b"9e999999", b"-25/0001", b"250/0000"])
def test_an_absurd_rate_tag_is_not_believed(tmp_path, make_scene, rate) -> None:
    path = tmp_path / "a.gif"
    write(Clip(make_scene(3, 16, 16), Fraction(1000001, 40000)), path)
    assert path.read_bytes().count(b"=1000001/40000\0") == 1
    path.write_bytes(path.read_bytes().replace(b"=1000001/40000\0", b"=" + rate.ljust(13, b"\0") + b"\0"))
    assert probe(path).fps == 25


def test_noise_is_not_media(tmp_path) -> None:
    generator = random.Random(1)
    for suffix in (".mp4", ".jpg", ".mp3", ".gif", ".ts"):
        (tmp_path / f"noise{suffix}").write_bytes(generator.randbytes(20_000))
        with pytest.raises(MediaError):
            read(tmp_path / f"noise{suffix}")

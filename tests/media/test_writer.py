from __future__ import annotations

import math
import stat
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch

from kinolex.errors import MissingFile, ShapeError, UnsupportedMedia, UsageError
from kinolex.media import VideoWriter, probe, read, write
from kinolex.types import Clip, Sound

RATES = [Fraction(25), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(7, 3), Fraction(1, 2), Fraction(50)]


def psnr_db(a: torch.Tensor, b: torch.Tensor) -> float:
    return 10 * math.log10(255**2 / max(float(((a.float() - b.float()) ** 2).mean()), 1e-9))


def beep(rate_hz: int, at_s: float, length_s: float, channels: int = 1) -> Sound:
    """Silence with 30 ms of a 1 kHz tone."""
    samples_S = torch.zeros(round(length_s * rate_hz))
    start, count = round(at_s * rate_hz), round(0.03 * rate_hz)
    samples_S[start : start + count] = 0.8 * torch.sin(2 * math.pi * 1000 / rate_hz * torch.arange(1, count + 1))
    return Sound(samples_S.expand(channels, -1).contiguous(), rate_hz)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
@pytest.mark.parametrize("fps", RATES)
def test_frames_size_and_rate_come_back_exactly(tmp_path: Path, make_scene, suffix: str, fps: Fraction) -> None:
    for frames, height, width in ((1, 16, 16), (7, 33, 47), (20, 16, 18), (3, 1, 1)):
        clip = Clip(make_scene(frames, height, width), fps)
        path = tmp_path / f"clip{suffix}"

        write(clip, path)

        info, back = probe(path), read(path)
        assert (back.num_frames, back.height, back.width, back.fps) == (frames, height, width, fps)
        assert (info.frames, info.height, info.width, info.fps) == (frames, height, width, fps)
        assert not info.variable_rate


@pytest.mark.parametrize(("suffix", "least_db"), [(".mp4", 38), (".webm", 38), (".gif", 29)])
@pytest.mark.parametrize("height", [96, 720])
def test_colours_survive_below_and_above_720_lines(tmp_path, make_scene, suffix, least_db, height) -> None:
    clip = Clip(make_scene(2, height, 64), Fraction(25))

    write(clip, tmp_path / f"clip{suffix}")

    back = read(tmp_path / f"clip{suffix}")
    assert psnr_db(back.frames_TCHW, clip.frames_TCHW) > least_db
    assert (back.frames_TCHW.float().mean(dim=(0, 2, 3)) - clip.frames_TCHW.float().mean(dim=(0, 2, 3))).abs().max() < 1


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_colours_are_tagged_for_other_players(tmp_path, make_scene, suffix) -> None:
    for height, matrix in ((96, (5, 6)), (720, (1,))):
        write(Clip(make_scene(1, height, 16), Fraction(25)), tmp_path / f"a{suffix}")
        with av.open(str(tmp_path / f"a{suffix}")) as container:
            frame = next(container.decode(video=0))
            assert frame.colorspace in matrix and frame.color_range == 1


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize(("rate_hz", "channels"), [(44100, 1), (48000, 2), (16000, 1), (22050, 2)])
def test_a_beep_stays_at_its_flash(tmp_path, suffix, rate_hz, channels) -> None:
    fps, flash = Fraction(25), 20
    frames_TCHW = torch.zeros(40, 3, 32, 32, dtype=torch.uint8)
    frames_TCHW[flash] = 255
    clip = Clip(frames_TCHW, fps, beep(rate_hz, flash / 25, 1.6, channels))

    write(clip, tmp_path / f"sync{suffix}")

    back = read(tmp_path / f"sync{suffix}")
    assert back.sound is not None and back.sound.samples_CS.shape[0] == channels
    seen_s = int(back.frames_TCHW.float().mean(dim=(1, 2, 3)).argmax()) / 25
    heard_s = int((back.sound.samples_CS[0].abs() > 0.2).nonzero()[0]) / back.sound.rate_hz
    assert seen_s == flash / 25
    assert abs(heard_s - seen_s) < 0.005
    assert abs(back.sound.duration_s - 1.6) < 0.001


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("sound_s", [0.25, 3.0])
def test_sound_keeps_its_length_beside_a_picture_of_another(tmp_path, make_scene, suffix, sound_s) -> None:
    clip = Clip(make_scene(25, 16, 16), Fraction(25), beep(48000, 0.1, sound_s))

    write(clip, tmp_path / f"a{suffix}")

    back = read(tmp_path / f"a{suffix}")
    assert back.num_frames == 25 and back.sound is not None
    assert abs(back.sound.duration_s - sound_s) < 0.001
    cut = read(tmp_path / f"a{suffix}", start_s=0.2, max_frames=5)
    assert cut.sound is not None and cut.sound.duration_s <= 0.2
    assert cut.sound.samples_CS.shape[1] == min(9600, round((sound_s - 0.2) * 48000))


def test_mp4_begins_with_its_index(tmp_path, make_scene) -> None:
    write(Clip(make_scene(2, 16, 16), Fraction(25)), tmp_path / "a.mp4")
    data = (tmp_path / "a.mp4").read_bytes()

    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_higher_quality_is_closer_and_larger(tmp_path, make_scene) -> None:
    clip = Clip(make_scene(5, 64, 64), Fraction(25))
    results = []
    for quality in (10, 50, 95):
        write(clip, tmp_path / "a.mp4", quality=quality)
        size = (tmp_path / "a.mp4").stat().st_size
        results.append((psnr_db(read(tmp_path / "a.mp4").frames_TCHW, clip.frames_TCHW), size))

    assert results == sorted(results)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
def test_an_interrupted_writer_leaves_nothing_and_keeps_the_old_file(tmp_path, make_scene, error, suffix) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with VideoWriter(path, fps=Fraction(25), height=16, width=16) as writer:
            writer.append(make_scene(30, 16, 16))
            raise error

    with pytest.raises(error):
        interrupted()

    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"


def test_the_file_appears_only_at_the_end_with_ordinary_permissions(tmp_path, make_scene) -> None:
    path = tmp_path / "a.mp4"
    with VideoWriter(path, fps=Fraction(25), height=16, width=16) as writer:
        writer.append(make_scene(3, 16, 16))
        assert not path.exists()
    (tmp_path / "ordinary").touch()

    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "ordinary").stat().st_mode)
    assert len(list(tmp_path.iterdir())) == 2


def test_wrong_calls_are_named_and_leave_nothing(tmp_path, make_scene) -> None:
    scene_TCHW = make_scene(2, 16, 16)
    clip = Clip(scene_TCHW, Fraction(25))
    size = {"fps": Fraction(25), "height": 16, "width": 16}
    for name, error in (("a.xyz", UnsupportedMedia), ("a", UnsupportedMedia), ("none/a.mp4", MissingFile)):
        with pytest.raises(error):
            write(clip, tmp_path / name)
    with pytest.raises(UnsupportedMedia, match="one frame"):
        write(clip, tmp_path / "a.png")
    with pytest.raises(UnsupportedMedia, match="GIF"):
        write(Clip(scene_TCHW, Fraction(60)), tmp_path / "a.gif")
    with pytest.raises(UsageError, match="quality"):
        write(clip, tmp_path / "a.mp4", quality=101)
    with pytest.raises(UsageError, match="without a frame"), VideoWriter(tmp_path / "a.mp4", **size):
        pass
    with pytest.raises(UsageError, match="opened first"):
        VideoWriter(tmp_path / "a.mp4", **size).append(scene_TCHW)
    for wrong in (scene_TCHW.float(), scene_TCHW[:, :, :8], scene_TCHW[0]):
        with pytest.raises(ShapeError, match="uint8 frames_TCHW"), VideoWriter(tmp_path / "a.mp4", **size) as writer:
            writer.append(wrong)

    assert list(tmp_path.iterdir()) == []

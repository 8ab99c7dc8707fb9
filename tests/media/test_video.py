from __future__ import annotations

import resource
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from kinolex.errors import UsageError
from kinolex.media import VideoReader, VideoWriter, probe, read


def greys(frames_TCHW: torch.Tensor) -> list[int]:
    """Which numbered frame each frame is."""
    return [round(float(frame.float().mean()) / 8) for frame in frames_TCHW]


def test_variable_rate_frames_are_chosen_by_timestamp(make_video, numbered) -> None:
    pts = [0, 30, 90, 100, 101, 180, 240, 400, 401, 402]
    path = make_video("vfr.mkv", numbered(10), pts=pts, time_base=Fraction(1, 1000), fps=Fraction(25))

    info, clip = probe(path), read(path)

    assert info.variable_rate and clip.fps == info.fps and clip.num_frames == info.frames
    for tick, shown in enumerate(greys(clip.frames_TCHW)):
        assert shown == max(index for index, stamp in enumerate(pts) if Fraction(stamp, 1000) <= tick / clip.fps)


@pytest.mark.parametrize("fps", [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(30), Fraction(12)])
@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.avi", "a.ts"])
def test_constant_rate_gives_every_frame_once_in_every_container(make_video, numbered, name, fps) -> None:
    codec, pixel_format = ("mpeg4", "yuv420p") if name == "a.avi" else ("libx264", "yuv420p")
    path = make_video(name, numbered(30), codec=codec, pixel_format=pixel_format, fps=fps)

    clip = read(path)

    assert clip.fps == fps
    assert greys(clip.frames_TCHW) == list(range(30))
    assert probe(path).frames == 30 and not probe(path).variable_rate


def test_timestamps_that_do_not_begin_at_zero_do_not_matter(make_video, numbered) -> None:
    pts = [5000 + 40 * index for index in range(12)]
    path = make_video("late.mkv", numbered(12), pts=pts, time_base=Fraction(1, 1000))

    assert greys(read(path).frames_TCHW) == list(range(12))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.mpg"])
def test_seeking_equals_reading_from_the_start(make_video, numbered, name) -> None:
    codec = {"a.avi": "mpeg4", "a.mpg": "mpeg2video"}.get(name, "libx264")
    path = make_video(name, numbered(31), codec=codec, pixel_format="yuv420p", options={"g": "8"})
    whole = read(path).frames_TCHW

    for start in (1, 7, 8, 9, 20, 30):
        part = read(path, start_s=start / 25, max_frames=5).frames_TCHW
        assert torch.equal(part, whole[start : start + 5])


@pytest.mark.parametrize("chunk_frames", [1, 3, 16, 100])
def test_chunks_joined_equal_the_whole(make_video, numbered, chunk_frames: int) -> None:
    path = make_video("a.mkv", numbered(20))

    with VideoReader(path, chunk_frames=chunk_frames) as reader:
        clips = list(reader)
        again = list(reader)

    assert [clip.num_frames for clip in clips[:-1]] == [chunk_frames] * (len(clips) - 1)
    assert torch.equal(torch.cat([clip.frames_TCHW for clip in clips]), read(path).frames_TCHW)
    assert reader.frames_read == 20 and len(again) == len(clips)


def test_one_frame_files_read_as_one_frame(make_video, numbered) -> None:
    for name, codec in (("a.mkv", "libx264"), ("a.mp4", "libx264"), ("a.avi", "mpeg4")):
        clip = read(make_video(name, numbered(1), codec=codec, pixel_format="yuv420p"))
        assert clip.num_frames == 1 and clip.fps == 25


def test_interlaced_video_is_flagged(make_video, make_scene) -> None:
    flags = {"codec": "libx264", "pixel_format": "yuv420p"}
    tff = make_video("tff.mp4", make_scene(4, 64, 64), options={"x264-params": "tff=1"}, **flags)
    progressive = make_video("p.mp4", make_scene(4, 64, 64), **flags)

    assert probe(tff).interlaced and not probe(progressive).interlaced


def test_positions_outside_the_video_are_refused(make_video, numbered) -> None:
    path = make_video("a.mkv", numbered(5))
    for start_s in (-0.1, 0.21, 100):
        with pytest.raises(UsageError, match=r"start_s must lie in the video"):
            read(path, start_s=start_s)
    for call in (lambda: read(path, max_frames=0), lambda: VideoReader(path, chunk_frames=0)):
        with pytest.raises(UsageError, match="must be at least 1"):
            call()


def test_reading_and_writing_need_memory_for_a_few_frames_only(tmp_path: Path, make_scene) -> None:
    scene_TCHW = make_scene(20, 96, 128)
    path = tmp_path / "long.mp4"

    def stream(frames: int) -> int:
        with VideoWriter(path, fps=Fraction(25), height=96, width=128) as writer:
            for _ in range(frames // 20):
                writer.append(scene_TCHW)
        with VideoReader(path) as reader:
            assert sum(clip.num_frames for clip in reader) == frames
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    peak_short_kib = stream(200)
    peak_long_kib = stream(2000)

    # 1800 frames more hold 63 MiB as pixels.
    assert peak_long_kib - peak_short_kib < 16 * 1024

"""VideoPoet's tasks on files: what is given is kept, what is asked for is made, wrong wishes are refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kinolex import checkpoint, hub
from kinolex.data.worlds import WorldConfig, render
from kinolex.errors import ConfigError, KinolexError, UsageError
from kinolex.generation.decoding import DecodeConfig
from kinolex.generation.multimodal import MultimodalGenerator, Request, fulfil, load_multimodal, make_of
from kinolex.media import read, write
from kinolex.media.sound import read_sound, write_sound
from kinolex.models.multimodal import MultimodalTransformer
from kinolex.tasks.multimodal import TASKS
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip, Sound
from tests.tiny_poet import tiny_poet

WORDS = ("red", "circle", "bounces", "twice", "wood")


@pytest.fixture
def generator(tiny_tokenizer: VideoTokenizer) -> MultimodalGenerator:
    """Random weights: 9 frames of 16 lines at 12 a second beside 38 frames of sound."""
    torch.manual_seed(3)
    return tiny_poet(tiny_tokenizer, WORDS)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    world = render(2, WorldConfig(frames=24, height=32, width=40, fps=Fraction(24)))
    write(world.clip, tmp_path / "in.mp4")
    return tmp_path / "in.mp4"


@pytest.mark.parametrize("name", TASKS)
def test_every_task_makes_what_it_is_asked_for(
    name: str, generator: MultimodalGenerator, video: Path, tmp_path: Path
) -> None:
    task = TASKS[name]
    needs_clip = bool(
        set(task.given) & {"clip", "first-frames", "masked-clip", "structure-clip", "first-sound", "sound"}
    )
    request = Request(task=name, text="a red ball", source=video if needs_clip else None)
    suffix = ".txt" if task.asked == ("text",) else ".mp4"

    report = fulfil(request, tmp_path / f"out{suffix}", generator, DecodeConfig(window=8))

    pictures = bool(set(task.asked) & {"clip", "rest-of-clip", "image"})
    heard = bool(set(task.asked) & {"sound", "rest-of-sound"}) or (pictures and needs_clip)
    beside = 24 if name == "video-to-sound" else 0
    assert report.frames == ((1 if name == "text-to-image" else 9) if pictures else beside)
    assert report.sound_s == (0.75 if heard else 0.0)
    assert 1 <= report.passes <= report.tokens
    if suffix == ".mp4":
        made = read(tmp_path / "out.mp4")
        assert (made.sound is not None) == (report.sound_s > 0)
        if name == "video-to-sound":  # beside the pictures of the source
            assert (made.num_frames, made.height, made.width) == (24, 32, 40)
        elif pictures:
            assert made.fps == 12 and made.num_frames == report.frames
            assert (made.height, made.width) == ((16, 20) if needs_clip else (16, 16))


def test_what_is_given_stands_at_the_beginning_of_what_goes_on(generator: MultimodalGenerator, video: Path) -> None:
    made, _ = make_of(Request(task="continuation", source=video, given=5), generator, DecodeConfig())
    clip = generator.clip_of(read(video))
    reconstructed = generator.video.decode(generator.video.encode(Clip(clip.frames_TCHW[:5], clip.fps)))

    assert made.clip is not None and torch.equal(made.clip.frames_TCHW[:5], reconstructed.frames_TCHW)
    assert made.sound is not None
    heard = generator.sound.encode(generator.sound_of(read(video).sound), 2).ids_Qthw[:, :25]
    again = generator.sound.encode(made.sound, 2)
    assert again.ids_Qthw.shape[1] == 38 and heard.shape[1] == 25


def test_the_same_seed_makes_the_same_and_another_does_not(generator: MultimodalGenerator) -> None:
    request = Request(task="text-to-both", text="red circle")
    one, same, other = (make_of(request, generator, DecodeConfig(seed=seed))[0] for seed in (1, 1, 2))

    assert one.clip is not None and same.clip is not None and other.clip is not None
    assert torch.equal(one.clip.frames_TCHW, same.clip.frames_TCHW)
    assert not torch.equal(one.clip.frames_TCHW, other.clip.frames_TCHW)


def test_a_source_is_shown_at_the_rate_length_and_size_of_the_model(generator: MultimodalGenerator) -> None:
    frames_TCHW = torch.arange(60, dtype=torch.uint8).view(60, 1, 1, 1).expand(-1, 3, 24, 48).contiguous()
    fast = generator.clip_of(Clip(frames_TCHW, Fraction(48)))
    short = generator.clip_of(Clip(frames_TCHW[:3], Fraction(12)))

    assert fast.frames_TCHW[:, 0, 0, 0].tolist() == [4 * index for index in range(9)]
    assert (fast.fps, fast.height, fast.width) == (12, 16, 32)
    assert short.frames_TCHW[:, 0, 0, 0].tolist() == [0, 1, 2, 2, 2, 2, 2, 2, 2]
    stereo = Sound(torch.stack([torch.full((48000,), 0.5), torch.zeros(48000)]), 48_000)
    heard = generator.sound_of(stereo)
    assert (heard.samples_CS.shape, heard.rate_hz) == ((1, 6000), 8000)
    assert heard.samples_CS[0, 3000] == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize("name", ["image-to-video", "inpainting", "stylisation", "sound-to-video"])
def test_the_sound_of_a_source_goes_along_as_far_as_the_pictures_go(
    name: str, generator: MultimodalGenerator, video: Path
) -> None:
    loud = Sound(0.5 * torch.sin(torch.arange(32_000) / 5)[None], 16_000)
    write(read(video).with_sound(loud), video)

    made, _ = make_of(Request(task=name, text="red circle", source=video), generator, DecodeConfig(window=8))

    assert made.sound is not None and made.sound.num_samples == 12_000
    assert float((made.sound.samples_CS - loud.samples_CS[:, :12_000]).square().mean()) < 1e-2


def test_pictures_for_a_sound_file_have_that_sound_where_they_can_hold_it(
    generator: MultimodalGenerator, tmp_path: Path
) -> None:
    write_sound(Sound(0.5 * torch.sin(torch.arange(4000) / 5)[None], 8000), tmp_path / "in.wav")
    request = Request(task="sound-to-video", heard=tmp_path / "in.wav")
    config = DecodeConfig(window=8)
    with_sound, without = (fulfil(request, tmp_path / name, generator, config) for name in ("out.mp4", "out.gif"))

    assert (with_sound.sound_s, with_sound.sound) == (0.5, "for the first 0.50 of 0.75 s")
    assert (without.sound_s, without.sound) == (0.0, "none")
    heard = read(tmp_path / "out.mp4").sound
    assert heard is not None and float(heard.samples_CS[:, :3000].square().mean()) > 0.05


def test_sound_for_a_video_is_no_longer_than_it_and_the_report_says_how_much_of_it_has_some(
    generator: MultimodalGenerator, video: Path, tmp_path: Path
) -> None:
    clip = read(video)  # one second, more than a window of 0.75 s
    write(Clip(clip.frames_TCHW[:6], clip.fps), tmp_path / "short.mp4")
    write(Clip(clip.frames_TCHW[:1], clip.fps), tmp_path / "still.png")
    found = {}
    for name, target in (("in.mp4", "a.mp4"), ("short.mp4", "b.mp4"), ("short.mp4", "b.wav"), ("still.png", "c.mp4")):
        request = Request(task="video-to-sound", source=tmp_path / name)
        report = fulfil(request, tmp_path / target, generator, DecodeConfig(window=16))
        found[target] = (report.frames, report.sound, report.source_s)
    assert found == {
        "a.mp4": (24, "for the first 0.75 of 1.00 s", 0.75),
        "b.mp4": (6, "0.25 s", 0.25),
        "b.wav": (0, "0.25 s", 0.25),
        "c.mp4": (1, "0.75 s", 0.0),
    }
    assert read_sound(tmp_path / "b.wav").duration_s == 0.25


def test_a_report_tells_the_size_and_what_was_taken_of_the_source(
    generator: MultimodalGenerator, video: Path, tmp_path: Path
) -> None:
    request = Request(task="future-prediction", source=video, given=7)
    made = fulfil(request, tmp_path / "out.mp4", generator, DecodeConfig(window=16))
    assert (made.frames, made.height, made.width, made.fps) == (9, 16, 20, "12")
    assert (made.frames_given, made.source_s) == (5, pytest.approx(5 / 12))
    for given in (9, 100):
        with pytest.raises(UsageError, match=f"a window of 9 frames, and {given} are given; give 5 at most"):
            fulfil(replace(request, given=given), tmp_path / "no.mp4", generator)


@pytest.mark.parametrize("samples", [0, 159])
def test_a_sound_shorter_than_a_token_is_named(samples: int, generator: MultimodalGenerator, tmp_path: Path) -> None:
    write_sound(Sound(torch.zeros(1, samples), 8000), tmp_path / "in.wav")
    with pytest.raises(UsageError, match=r"in\.wav holds .* s of sound, and sound-to-video needs 0\.020 s"):
        fulfil(Request(task="sound-to-video", heard=tmp_path / "in.wav"), tmp_path / "out.mp4", generator)


def test_of_a_long_source_one_window_is_read(generator: MultimodalGenerator, video: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    asked: list[int | None] = []

    def counting(path: Path, max_frames: int | None = None) -> Clip:
        asked.append(max_frames)
        return read(path, max_frames=max_frames)

    monkeypatch.setattr("kinolex.generation.multimodal.read", counting)
    short, _ = make_of(Request(task="image-to-video", source=video), generator, DecodeConfig(window=16))
    whole, beside = make_of(Request(task="video-to-sound", source=video), generator, DecodeConfig(window=16))

    assert asked == [19, None]  # 9 frames at 12 a second are 18 at 24
    assert short.clip is not None and whole.sound is not None and beside is not None and beside.num_frames == 24


def test_words_by_another_name_are_understood_and_unknown_ones_named(generator: MultimodalGenerator) -> None:
    assert generator.text_ids("A red ball bounces twice on wood.").tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(UsageError, match="'blue'"):
        generator.text_ids("a blue ball")


def test_sound_goes_into_a_sound_file_and_comes_from_one(
    generator: MultimodalGenerator, video: Path, tmp_path: Path
) -> None:
    fulfil(Request(task="video-to-sound", source=video), tmp_path / "out.wav", generator)
    assert read_sound(tmp_path / "out.wav").duration_s == pytest.approx(0.75)
    write_sound(Sound(torch.zeros(1, 4000), 8000), tmp_path / "in.wav")
    report = fulfil(Request(task="sound-to-video", heard=tmp_path / "in.wav"), tmp_path / "out.gif", generator)
    assert report.frames == 9 and read(tmp_path / "out.gif").num_frames == 9


def test_words_are_followed_with_guidance_unless_something_else_is_asked_for(
    generator: MultimodalGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Words matter little to a network that has learned nothing.
    monkeypatch.setattr("kinolex.generation.multimodal.GUIDANCE", 30.0)
    said, silent = Request(task="text-to-both", text="red circle"), Request(task="unconditional")

    def frames(request: Request, guidance: float | None) -> Tensor:
        clip = make_of(request, generator, DecodeConfig(guidance=guidance, window=8))[0].clip
        assert clip is not None
        return clip.frames_TCHW

    usual = frames(said, None)
    assert torch.equal(usual, frames(said, 30.0)) and not torch.equal(usual, frames(said, 0.0))
    assert torch.equal(frames(silent, None), frames(silent, 0.0))


def test_guidance_pushes_away_from_saying_nothing(generator: MultimodalGenerator) -> None:
    said = Request(task="text-to-both", text="red circle")
    plain, guided = (make_of(said, generator, DecodeConfig(guidance=g))[0] for g in (0.0, 6.0))

    assert plain.clip is not None and guided.clip is not None
    assert not torch.equal(plain.clip.frames_TCHW, guided.clip.frames_TCHW)
    with pytest.raises(UsageError, match="without words"):
        make_of(Request(task="unconditional"), generator, DecodeConfig(guidance=1.0))


@pytest.mark.parametrize(
    ("request_fields", "words"),
    [
        ({"task": "text-to-video"}, "needs words"),
        ({"task": "image-to-video"}, "needs a video or image"),
        ({"task": "sound-to-video"}, "needs a sound"),
        ({"task": "stylisation", "text": "red"}, "--structure"),
        ({"task": "text-to-smell"}, "no task"),
        ({"task": "text-to-video", "text": "red", "region": "inpaint-central"}, "hides nothing"),
        ({"task": "inpainting", "region": "outpaint-central"}, "inpaint-central"),
        ({"task": "text-to-video", "text": " ".join(["red"] * 9)}, "say less"),
    ],
)
def test_a_wish_that_cannot_be_granted_is_named_and_leaves_no_file(
    request_fields: dict[str, str], words: str, generator: MultimodalGenerator, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        fulfil(Request(**request_fields), tmp_path / "out.mp4", generator)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_targets_that_cannot_hold_what_is_made_are_refused(
    generator: MultimodalGenerator, video: Path, tmp_path: Path
) -> None:
    for request, target in (
        (Request(task="describe", source=video), "out.mp4"),
        (Request(task="text-to-video", text="red"), "out.txt"),
        (Request(task="text-to-video", text="red"), "out.wav"),
        (Request(task="video-to-sound", source=video), "in.mp4"),
    ):
        before = video.read_bytes()
        with pytest.raises(UsageError):
            fulfil(request, tmp_path / target, generator)
        assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"] and video.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "target", "words"),
    [
        ("text-to-both", "out.gif", r"cannot hold it; name a \.mp4 or \.webm file.*or say --task text-to-video"),
        ("video-to-sound", "out.gif", r"cannot hold it; name a \.mp4 or \.webm file, or \.wav for the sound alone$"),
        ("text-to-both", "out.ogg", "cannot hold it"),
        ("text-to-video", "out.png", r"can hold one frame only, and 9 are made; name a video, such as out\.mp4"),
        ("text-to-video", "out.wav", r"name a video, such as out\.mp4"),
        ("text-to-video", "out.banana", "cannot write .banana"),
        ("text-to-video", "nowhere/out.mp4", "there is no folder"),
        ("describe", "nowhere/out.txt", "there is no folder"),
    ],
)
def test_a_wrong_target_is_told_before_anything_is_read_or_made(
    name: str,
    target: str,
    words: str,
    generator: MultimodalGenerator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kinolex.generation.multimodal.pose_request", lambda *_: pytest.fail("it began"))
    with pytest.raises(KinolexError, match=words):
        fulfil(Request(task=name, text="red"), tmp_path / target, generator)


def test_a_generator_comes_back_from_its_folder_with_the_tokenizers_it_was_made_for(
    generator: MultimodalGenerator, tmp_path: Path
) -> None:
    for name, network in (("video", generator.video.model), ("sound", generator.sound.model)):
        checkpoint.save(tmp_path / name, network, card="")
    video, sound = checkpoint.load(tmp_path / "video"), checkpoint.load_sound(tmp_path / "sound")
    config = replace(generator.model.config, video_tokenizer=video.fingerprint, sound_tokenizer=sound.fingerprint)
    checkpoint.save(tmp_path / "poet", MultimodalTransformer(config), card="")

    loaded = load_multimodal(tmp_path / "poet", tmp_path / "video", tmp_path / "sound")

    assert loaded.model.config == config and loaded.frames == 9 and loaded.fps == 12
    with pytest.raises(ConfigError, match="knows the video ids"):
        MultimodalGenerator(loaded.model, generator.video, sound, "")


def test_the_shipped_generator_finds_its_tokenizers_and_makes_picture_and_sound(tmp_path: Path) -> None:
    poet = load_multimodal()

    report = fulfil(
        Request(task="text-to-both", text="a small red ball bounces twice on wood"),
        tmp_path / "ball.mp4",
        poet,
        DecodeConfig(window=16),
    )

    made = read(tmp_path / "ball.mp4")
    assert (made.num_frames, made.height, made.width, made.fps) == (17, 64, 64, 12)
    assert made.sound is not None and made.sound.duration_s == pytest.approx(17 / 12, abs=0.05)
    assert report.passes < 0.5 * report.tokens
    assert {poet.video.fingerprint, poet.sound.fingerprint} == {
        hub.load("magvit2-world-nano").fingerprint,
        hub.load_sound().fingerprint,
    }

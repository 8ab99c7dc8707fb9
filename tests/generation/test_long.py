"""Videos of any length: windows chained in tokens, decoded as one stream, in memory that does not grow."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from kinolex.api import write_stream
from kinolex.errors import UsageError
from kinolex.generation import long
from kinolex.generation.decoding import DecodeConfig
from kinolex.generation.long import Window, chain_for, chained, fulfil_long, length_of
from kinolex.generation.multimodal import MultimodalGenerator, Request
from kinolex.masks import HIDDEN
from kinolex.media import probe, read, write
from kinolex.models.multimodal import MultimodalConfig, MultimodalTransformer
from kinolex.tasks.multimodal import TASKS, Material
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip, Extent, Sound, SoundExtent, Tokens
from kinolex.vocab import Vocabulary
from tests.tiny_sound import tiny_sound_tokenizer


@pytest.fixture
def generator(tiny_tokenizer: VideoTokenizer) -> MultimodalGenerator:
    """Random weights: windows of 17 frames at 12 a second beside 71 frames of sound, a step of one second."""
    torch.manual_seed(3)
    config = MultimodalConfig(
        video_tokenizer=tiny_tokenizer.fingerprint,
        sound_tokenizer="5" * 64,
        vocabulary=Vocabulary(text_size=2, video_size=64, video_factors=(8, 8), sound_codes=16, sound_levels=1),
        words=("red", "circle"),
        width=16,
        depth=1,
        heads=2,
        latent_frames=5,
        sound_frames=71,
        sound_frames_per_latent=50 / 3,
        text_length=3,
        lines=16,
    )
    model = MultimodalTransformer(config)
    return MultimodalGenerator(model, tiny_tokenizer, tiny_sound_tokenizer(), "a" * 64)


DECODING = DecodeConfig(window=16, seed=4)


def posed(generator: MultimodalGenerator, name: str = "text-to-both") -> Material:
    return generator.material(TASKS[name], text="red circle")


def test_the_first_window_is_what_one_window_is_and_the_next_go_on_from_its_tokens(
    generator: MultimodalGenerator,
) -> None:
    task, material = TASKS["text-to-both"], posed(generator)
    windows = list(chained(generator, task, material, DECODING, 3))
    alone, _, _ = generator.make(task, material, DECODING)

    assert alone.video_thw is not None and alone.sound_Qt is not None and windows[0].sound_Qt is not None
    assert torch.equal(windows[0].video_thw, alone.video_thw) and torch.equal(windows[0].sound_Qt, alone.sound_Qt)
    video_thw, sound_Qt = alone.video_thw, alone.sound_Qt
    for number in (1, 2):
        by_hand = Material(
            text_P=material.text_P,
            video_thw=torch.cat([video_thw[-2:], torch.full((3, 2, 2), HIDDEN)]),
            sound_Qt=torch.cat([sound_Qt[:, -21:], torch.full((1, 50), HIDDEN)], dim=1),
            given_latents=2,
            given_sound=21,
            begins=False,
        )
        made, _, _ = generator.make(
            TASKS["continuation"], by_hand, replace(DECODING, seed=long._seed(DECODING.seed, number))
        )
        found_Qt = windows[number].sound_Qt
        assert made.video_thw is not None and made.sound_Qt is not None and found_Qt is not None
        assert torch.equal(windows[number].video_thw, made.video_thw) and torch.equal(found_Qt, made.sound_Qt)
        video_thw, sound_Qt = torch.cat([video_thw, made.video_thw]), torch.cat([sound_Qt, made.sound_Qt], dim=1)


def test_what_is_written_is_one_stream_of_all_windows_with_sound_as_long_as_its_pictures(
    generator: MultimodalGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Clip] = []

    def keeping(clips: Iterator[Clip], target: Path, sound: Iterable[Sound]) -> Extent:
        frames, heard = list(clips), list(sound)
        samples_CS = torch.cat([piece.samples_CS for piece in heard], dim=1)
        frames_TCHW = torch.cat([clip.frames_TCHW for clip in frames])
        written.append(Clip(frames_TCHW, frames[0].fps, Sound(samples_CS, heard[0].rate_hz)))
        return write_stream(iter(frames), target, iter(heard))

    monkeypatch.setattr(long, "write_stream", keeping)
    told: list[tuple[int, int | None]] = []
    report = fulfil_long(
        Request(task="text-to-both", text="red circle"),
        2.5,
        tmp_path / "long.mp4",
        generator,
        DECODING,
        on_frames=lambda done, total: told.append((done, total)),
    )

    windows = list(chained(generator, TASKS["text-to-both"], posed(generator), DECODING, 3))
    assert (report.frames, report.sound_s) == (30, 2.5) and told[-1] == (30, 30) and len(told) > 5
    assert report.passes == sum(window.passes for window in windows)
    ids_thw = torch.cat([window.video_thw for window in windows])[:9]
    extent = Extent(frames=30, height=16, width=16, fps=Fraction(12))
    pictures = generator.video.decode(Tokens(ids_thw[None], "video", generator.video.fingerprint, extent))
    codes_Qt = torch.cat([window.sound_Qt for window in windows if window.sound_Qt is not None], dim=1)[:, :125]
    tokens = Tokens(codes_Qt[:, :, None, None], "sound", "5" * 64, SoundExtent(samples=20_000, rate_hz=8000))
    heard = written[0].sound
    assert torch.equal(written[0].frames_TCHW, pictures.frames_TCHW) and written[0].fps == 12
    assert heard is not None and torch.equal(heard.samples_CS, generator.sound.decode(tokens).samples_CS)
    stored = read(tmp_path / "long.mp4")
    assert stored.num_frames == 30 and stored.sound is not None and abs(stored.sound.duration_s - 2.5) < 0.15


@pytest.mark.parametrize("name", ["text-to-video", "unconditional"])
def test_without_sound_the_next_windows_have_none(name: str, generator: MultimodalGenerator, tmp_path: Path) -> None:
    text = "red circle" if name == "text-to-video" else ""
    report = fulfil_long(Request(task=name, text=text), 2.0, tmp_path / "out.mp4", generator, DECODING)
    assert report.frames == 24 and report.sound_s == 0.0 and read(tmp_path / "out.mp4").sound is None


def test_given_frames_and_sound_stand_at_the_beginning(generator: MultimodalGenerator) -> None:
    clip = Clip(torch.randint(256, (17, 3, 16, 16), dtype=torch.uint8), Fraction(12))
    sound = generator.sound_of(Sound(torch.rand(1, 12_000) - 0.5, 8000))
    task = TASKS["continuation"]
    material = generator.material(task, clip=clip, sound=sound, given=2)
    first, second = chained(generator, task, material, DECODING, 2)

    ids_thw, codes_Qt = generator.video.encode(clip).ids_Qthw[0], generator.sound.encode(sound, 1).ids_Qthw[:, :, 0, 0]
    assert first.video_thw.shape == (5, 2, 2) and torch.equal(first.video_thw[:2], ids_thw[:2])
    assert first.sound_Qt is not None and first.sound_Qt.shape == (1, 71)
    assert torch.equal(first.sound_Qt[:, : material.given_sound], codes_Qt[:, : material.given_sound])
    assert second.video_thw.shape == (3, 2, 2) and second.sound_Qt is not None and second.sound_Qt.shape == (1, 50)


def test_memory_holds_one_window_more_than_what_is_written(
    generator: MultimodalGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = weakref.WeakSet[torch.Tensor]()
    most = 0

    def windows(_generator, _task, _material, _config, count: int) -> Iterator[Window]:  # type: ignore[no-untyped-def]
        nonlocal most
        for number in range(count):
            video_thw = torch.full((5 if number == 0 else 3, 2, 2), number % 64)
            sound_Qt = torch.full((1, 71 if number == 0 else 50), number % 16)
            alive.add(sound_Qt)
            most = max(most, len(alive))
            yield Window(video_thw, sound_Qt, 1, 1)
            del video_thw, sound_Qt

    monkeypatch.setattr(long, "chained", windows)
    for name, task in (("sounding.mp4", "text-to-both"), ("silent.gif", "text-to-video")):
        most = 0
        fulfil_long(Request(task=task, text="red"), 40.0, tmp_path / name, generator, DECODING)
        assert probe(tmp_path / name).frames == 480
        assert most <= 4


def test_ten_minutes_of_tokens_are_as_long_in_sound_as_in_pictures(generator: MultimodalGenerator) -> None:
    chain, length = chain_for(generator), length_of(600.0, generator)
    latents = chain.latents + (length.windows - 1) * chain.latent_stride
    heard = chain.sound + (length.windows - 1) * chain.sound_stride
    assert length.frames == 7200 and length.samples == 600 * 8000
    assert 0 <= 1 + 4 * (latents - 1) - length.frames < 12
    # Both end within one frame of sound of one another, however many windows there were.
    for windows in (1, 2, 60, length.windows):
        pictures_s = (1 + 4 * (chain.latents - 1 + (windows - 1) * chain.latent_stride)) / 12
        sound_s = (chain.sound + (windows - 1) * chain.sound_stride) / 50
        assert 0 <= sound_s - pictures_s < 1 / 50
    assert heard * 160 >= length.samples

    made = (
        Window(torch.zeros(1), torch.zeros(1, 71 if number == 0 else 50, dtype=torch.int64), 0, 0)
        for number in range(length.windows)
    )
    pieces = list(long.sound_pieces(made, length.samples, generator))
    assert sum(piece.extent.samples for piece in pieces) == length.samples


def test_the_sound_of_a_source_goes_along_beyond_the_first_window(
    generator: MultimodalGenerator, tmp_path: Path
) -> None:
    tone = Sound(0.5 * torch.sin(torch.arange(48_000) / 5)[None], 16_000)
    write(Clip(torch.randint(256, (36, 3, 16, 16), dtype=torch.uint8), Fraction(12), tone), tmp_path / "in.mp4")
    request = Request(task="future-prediction", source=tmp_path / "in.mp4", given=5)
    report = fulfil_long(request, 2.5, tmp_path / "out.mp4", generator, DECODING)
    heard = read(tmp_path / "out.mp4").sound
    assert (report.sound_s, report.sound, report.frames_given) == (2.5, "2.50 s", 5)
    assert heard is not None and float(heard.samples_CS[:, 32_000:36_000].square().mean()) > 0.05


def test_an_interrupt_leaves_no_file(
    generator: MultimodalGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = generator.make
    calls = itertools.count()

    def make(*args, **named):  # type: ignore[no-untyped-def]
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **named)

    monkeypatch.setattr(generator, "make", make)
    with pytest.raises(KeyboardInterrupt):
        fulfil_long(Request(task="text-to-both", text="red"), 5.0, tmp_path / "out.mp4", generator, DECODING)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_go_on_is_refused(generator: MultimodalGenerator, tmp_path: Path) -> None:
    request = Request(task="text-to-both", text="red")
    with pytest.raises(UsageError, match="text-to-image makes one window"):
        fulfil_long(Request(task="text-to-image", text="red"), 3.0, tmp_path / "out.mp4", generator)
    with pytest.raises(UsageError, match="lasts some seconds"):
        fulfil_long(request, 0.0, tmp_path / "out.mp4", generator)
    for seconds in (86_401.0, 1e308):
        with pytest.raises(UsageError, match=r"86400 seconds \(a day\) at most"):
            fulfil_long(request, seconds, tmp_path / "out.mp4", generator)
    with pytest.raises(UsageError, match=r"makes sound, and out\.gif cannot hold it"):
        fulfil_long(request, 3.0, tmp_path / "out.gif", generator)
    with pytest.raises(UsageError, match="written as"):
        fulfil_long(request, 3.0, tmp_path / "out.wav", generator)

"""kinolex classify: a file in, probabilities out, and a named error for whatever cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinolex import checkpoint, cli, hub
from kinolex.errors import CheckpointError, UnknownModel, UnsupportedMedia, UsageError
from kinolex.evaluation.understanding_sets import LabelledSet, LabelledSounds
from kinolex.media import write, write_sound
from kinolex.models.probe import HearsConfig, Probe, ProbeConfig, ReadsConfig
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training.probe_data import Inputs
from kinolex.training.probe_run import SizeConfig, judged, new_probe
from kinolex.types import Clip, Sound
from kinolex.understanding import Classifier, classify, load_classifier
from kinolex.understanding.features import INPUTS
from kinolex.understanding.verb import hear_windows, read_windows
from tests.tiny_sound import tiny_sound_tokenizer

Make = Callable[..., Probe]


@pytest.fixture
def make(tiny_tokenizer: VideoTokenizer) -> Make:
    def made(tokenizer: str = tiny_tokenizer.fingerprint, frames: int = 5) -> Probe:
        torch.manual_seed(0)
        reads = ReadsConfig(input="digits", tokenizer=tokenizer, frames=frames, side=16, frames_per_second=12.5)
        outputs = (("action", ("bend", "jump", "wave")),)
        return Probe(ProbeConfig(kind="linear", features=16, outputs=outputs, reads=reads))

    return made


def video(path: Path, frames: int = 24, fps: int = 25, height: int = 24) -> Path:
    values = torch.arange(frames, dtype=torch.uint8)[:, None, None, None] * 8
    write(Clip(values.expand(frames, 3, height, 32).contiguous(), Fraction(fps)), path, quality=95)
    return path


def test_classes_are_those_of_the_probe_the_likeliest_first(
    tmp_path: Path, make: Make, tiny_tokenizer: VideoTokenizer
) -> None:
    found = classify(video(tmp_path / "in.mp4"), Classifier(make(), tiny_tokenizer))
    shares = list(found.classes["action"].values())
    assert set(found.classes["action"]) == {"bend", "jump", "wave"} and sum(shares) == pytest.approx(1, abs=1e-5)
    assert shares == sorted(shares, reverse=True) and found.windows == 4


@pytest.mark.parametrize(("fps", "step"), [(25, 2), (50, 4), (12, 1)])
def test_frames_are_picked_at_the_rate_of_the_probe(tmp_path: Path, make: Make, fps: int, step: int) -> None:
    reads = make().config.reads
    assert reads is not None
    windows = read_windows(video(tmp_path / "in.mp4", frames=24, fps=fps), reads)
    assert windows.shape[1:] == (5, 16, 16, 3)
    shown = np.round(windows[0].mean(axis=(1, 2, 3)) / 8)
    assert np.abs(shown - np.floor(np.arange(5) * fps / 12.5 + 1e-6)).max() <= 1 and shown[-1] >= 4 * step - 2


def test_what_cannot_be_classified_says_why(tmp_path: Path, make: Make, tiny_tokenizer: VideoTokenizer) -> None:
    classifier = Classifier(make(), tiny_tokenizer)
    with pytest.raises(UsageError, match=r"gives 4 frames at 12.5 a second.* needs 5 \(0.40 s\); give a longer video"):
        classify(video(tmp_path / "short.mp4", frames=8), classifier)
    write(Clip(torch.zeros(1, 3, 16, 16, dtype=torch.uint8), Fraction(1)), tmp_path / "one.png")
    with pytest.raises(UsageError, match="is an image, and this probe reads 5 frames"):
        classify(tmp_path / "one.png", classifier)
    with pytest.raises(UnknownModel, match=r"no probe 'probe-of-nothing': .* shipped \((probe-[a-z0-9-]+(, )?)+\)"):
        classify(tmp_path / "short.mp4", "probe-of-nothing")
    with pytest.raises(CheckpointError, match="which is no probe"):
        load_classifier("magvit2-nano")
    with pytest.raises(CheckpointError, match="reads tokens of tokenizer"):
        Classifier(make(tokenizer="a" * 64), tiny_tokenizer)


def test_a_saved_probe_says_the_same_and_its_tokenizer_can_be_named(
    tmp_path: Path, make: Make, tiny_tokenizer: VideoTokenizer
) -> None:
    checkpoint.save(tmp_path / "tokenizer", tiny_tokenizer.model, card="")
    fingerprint = hub.load(tmp_path / "tokenizer").fingerprint
    checkpoint.save(tmp_path / "probe", make(tokenizer=fingerprint), card="")
    source = video(tmp_path / "in.mp4")
    with pytest.raises(UnknownModel, match="no shipped model has fingerprint"):
        load_classifier(tmp_path / "probe")
    loaded = load_classifier(tmp_path / "probe", tmp_path / "tokenizer")
    direct = classify(source, Classifier(make(), tiny_tokenizer)).classes["action"]
    assert classify(source, loaded).classes["action"] == pytest.approx(direct, abs=1e-5)
    assert classify(source, loaded).probe == "probe"


def test_the_command_prints_a_table_or_json(
    tmp_path: Path, make: Make, tiny_tokenizer: VideoTokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.save(tmp_path / "tokenizer", tiny_tokenizer.model, card="")
    fingerprint = hub.load(tmp_path / "tokenizer").fingerprint
    checkpoint.save(tmp_path / "probe", make(tokenizer=fingerprint), card="")
    source = video(tmp_path / "in.mp4")
    arguments = ["classify", str(source), "--probe", str(tmp_path / "probe"), "--model", str(tmp_path / "tokenizer")]

    def run(*more: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            cli.main([*arguments, *more])
        return int(stopped.value.code or 0), *capsys.readouterr()

    code, out, _ = run("--json")
    assert code == 0 and set(json.loads(out)["classes"]["action"]) == {"bend", "jump", "wave"}
    code, out, _ = run("--top", "2")
    assert code == 0 and "in.mp4" in out and sum(name in out for name in ("bend", "jump", "wave")) == 2
    code, _, err = run("--top", "0")
    assert code == 2 and "--top" in err


# --- sounds ---

RATE_HZ = 16_000


def hearing(*, seconds: float = 0.5, word: bool = False, **changes: Any) -> HearsConfig:
    values = {"input": "decoded", "tokenizer": tiny_sound_tokenizer().fingerprint, "levels": 1}
    return HearsConfig(**values | changes, seconds=seconds, word=word)


def tone(path: Path, seconds: float, *, quiet_s: float = 0.0, rate_hz: int = RATE_HZ, channels: int = 1) -> Path:
    times_S = torch.arange(int(seconds * rate_hz)) / rate_hz
    loud_S = 0.5 * torch.sin(2 * torch.pi * 440 * times_S)
    samples_S = torch.cat([torch.zeros(int(quiet_s * rate_hz)), loud_S, torch.zeros(int(quiet_s * rate_hz))])
    write_sound(Sound(samples_S.expand(channels, -1).contiguous(), rate_hz), path)
    return path


@pytest.mark.parametrize(
    ("seconds", "pieces"), [(0.2, 1), (0.5, 1), (0.53, 1), (0.6, 2), (0.75, 2), (1.0, 3), (1.1, 4), (60.0, 32)]
)
def test_a_sound_is_heard_piece_by_piece_to_its_end(tmp_path: Path, seconds: float, pieces: int) -> None:
    source = tone(tmp_path / "in.wav", seconds, rate_hz=44_100, channels=2)

    heard_NS = hear_windows(source, hearing(), RATE_HZ)

    assert heard_NS.shape == (pieces, RATE_HZ // 2) and heard_NS.dtype == np.float32
    loud = min(seconds, 0.5)
    for heard_S in heard_NS:
        assert heard_S[: int(loud * RATE_HZ)].std() == pytest.approx(0.5 / 2**0.5, rel=0.02)
        assert np.abs(heard_S[int(loud * RATE_HZ) + 100 :]).max(initial=0) < 1e-3


def test_a_word_is_heard_without_the_quiet_around_it(tmp_path: Path) -> None:
    source = tone(tmp_path / "in.wav", 0.3, quiet_s=1.0)

    heard_NS = hear_windows(source, hearing(word=True), RATE_HZ)

    assert len(heard_NS) == 1 and np.abs(heard_NS[0, :4000]).max() == pytest.approx(1, abs=0.02)
    assert not heard_NS[0, 5500:].any()
    silent = tmp_path / "silent.wav"
    noise_S = 3e-4 * (torch.rand(8000, generator=torch.Generator().manual_seed(0)) - 0.5)
    for word, what, samples_S in (
        (True, "words", torch.zeros(8000)),
        (False, "sounds", noise_S),
        (True, "words", noise_S + 0.4),
        (False, "sounds", torch.zeros(1)),
    ):
        write_sound(Sound(samples_S[None], RATE_HZ), silent)
        with pytest.raises(UsageError, match=f"silent, or its channels .* and this probe hears {what}; give one"):
            hear_windows(silent, hearing(word=word), RATE_HZ)


@pytest.mark.parametrize("kind", INPUTS)
def test_sounds_are_classified_by_every_kind_of_input(tmp_path: Path, kind: str) -> None:
    tokenizer = tiny_sound_tokenizer()
    reads = hearing(input=kind)
    samples_NS = np.random.default_rng(0).uniform(-0.5, 0.5, (2, RATE_HZ // 2)).astype(np.float32)
    sounds = LabelledSounds(samples_NS, RATE_HZ, {"what": np.arange(2)}, np.arange(2))
    inputs = Inputs(sounds, tokenizer, levels=1)
    both = LabelledSet("noise", (("what", ("left", "right")),), sounds, sounds)
    probe = new_probe(both, inputs, kind, SizeConfig(kind="attentive", width=16), 0)
    assert probe.config.reads == reads
    wanted = judged(probe, inputs, kind)["what"]

    for number, samples_S in enumerate(samples_NS):
        write_sound(Sound(torch.from_numpy(samples_S)[None], RATE_HZ), tmp_path / "in.flac")
        found = classify(tmp_path / "in.flac", Classifier(probe, tokenizer))
        assert found.classes["what"]["left"] == pytest.approx(float(wanted[number, 0]), abs=0.02)


def test_a_video_without_sound_is_not_heard(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedMedia, match="holds no sound"):
        hear_windows(video(tmp_path / "in.mp4"), hearing(), RATE_HZ)


@pytest.mark.parametrize("name", hub.shipped(checkpoint.PROBE))
def test_shipped_probes_are_small_and_read_a_shipped_tokenizer(name: str) -> None:
    folder = hub.locate(name)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 400_000
    probe, _ = checkpoint.load_module(folder, checkpoint.PROBE)
    assert isinstance(probe, Probe) and probe.config.reads is not None
    assert hub.name_of(probe.config.reads.tokenizer) in hub.shipped(None)


def test_a_person_who_waves_both_hands_is_said_to_do_so(data_dir: Path) -> None:
    found = classify(data_dir / "weizmann64" / "actor5_wave2.mp4", "probe-weizmann-nano")
    assert next(iter(found.classes["action"])) == "wave2"

"""Spoken digits and long videos in the evaluation of a multimodal generator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from kinolex.data.spoken_digits import POET_WORDS, DigitCollection
from kinolex.data.worlds.labels import WORDS
from kinolex.errors import ConfigError, UsageError
from kinolex.evaluation.digits import Judges, PictureJudge, SoundJudge
from kinolex.evaluation.multimodal import MultimodalProtocol, evaluate_multimodal
from kinolex.evaluation.multimodal_digits import evaluate_digits
from kinolex.generation.decoding import DecodeConfig
from kinolex.generation.multimodal import MultimodalGenerator
from kinolex.models.multimodal import MultimodalConfig, MultimodalTransformer
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.vocab import Vocabulary
from tests.tiny_sound import tiny_sound_tokenizer

DECODING = DecodeConfig(window=32)


def generator_of(video: VideoTokenizer, words: tuple[str, ...]) -> MultimodalGenerator:
    """Random weights, windows that can be chained."""
    torch.manual_seed(4)
    config = MultimodalConfig(
        video_tokenizer=video.fingerprint,
        sound_tokenizer="5" * 64,
        vocabulary=Vocabulary(text_size=len(words), video_size=64, sound_codes=16, sound_levels=1),
        words=words,
        width=16,
        depth=1,
        heads=2,
        latent_frames=5,
        sound_frames=71,
        sound_frames_per_latent=50 / 3,
        text_length=12,
        lines=32,
    )
    return MultimodalGenerator(MultimodalTransformer(config), video, tiny_sound_tokenizer(), "a" * 64)


def test_what_is_made_is_judged_beside_what_it_was_made_for(data_dir: Path, tiny_tokenizer: VideoTokenizer) -> None:
    digits, generator = DigitCollection(data_dir, "test"), generator_of(tiny_tokenizer, POET_WORDS)
    judges = Judges(PictureJudge().eval(), SoundJudge().eval())
    told: list[int] = []

    scores = evaluate_digits(generator, judges, digits, 2, DECODING, on_clip=lambda done, _total: told.append(done))

    assert scores.keys() == {"made", "sound for", "picture for", "ceiling", "composed", "described"}
    assert told == [1, 2] and scores["made"]["count"] == 2
    # What is given is judged as it is: the picture that a sound is for, the sound that a picture is for.
    assert scores["sound for"]["picture"] == scores["composed"]["picture"]
    assert scores["picture for"]["sound"] == scores["composed"]["sound"]


def test_a_generator_without_the_words_is_refused(data_dir: Path, tiny_tokenizer: VideoTokenizer) -> None:
    digits = DigitCollection(data_dir, "test")
    judges = Judges(PictureJudge(), SoundJudge())
    with pytest.raises(UsageError, match="'zero'"):
        evaluate_digits(generator_of(tiny_tokenizer, WORDS), judges, digits, 1, DECODING)


def test_a_long_video_is_kept_and_its_drift_reported(tiny_tokenizer: VideoTokenizer, tmp_path: Path) -> None:
    generator = generator_of(tiny_tokenizer, POET_WORDS)
    protocol = MultimodalProtocol(captions=2, long_s=3.0, bootstrap_draws=10)

    evaluate_multimodal(generator, protocol, DECODING, tmp_path, model_name="tiny")

    stored = json.loads((tmp_path / "multimodal_tiny.json").read_text())
    assert stored["drift"]["seconds"] == 3 and stored["drift"]["caption"] == stored["clips"][0]["name"]
    assert (tmp_path / "long_tiny.mp4").is_file() and "spoken digits" not in stored


def test_what_cannot_be_measured_is_refused_before_anything_is_made(tiny_tokenizer: VideoTokenizer) -> None:
    generator = generator_of(tiny_tokenizer, POET_WORDS)
    with pytest.raises(UsageError, match="--data"):
        evaluate_multimodal(generator, MultimodalProtocol(digits=1), DECODING, model_name="tiny")
    with pytest.raises(UsageError, match="give a folder"):
        evaluate_multimodal(generator, MultimodalProtocol(long_s=9.0), DECODING, model_name="tiny")
    with pytest.raises(ConfigError, match="two seconds"):
        MultimodalProtocol(long_s=1.0)

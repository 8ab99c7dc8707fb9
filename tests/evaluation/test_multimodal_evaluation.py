"""A multimodal generator is measured by what its clips show and sound, beside what its tokenizers allow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from kinolex.data.worlds.labels import WORDS
from kinolex.errors import ConfigError
from kinolex.evaluation.multimodal import ATTRIBUTES, MultimodalProtocol, _words_right, evaluate_multimodal
from kinolex.generation.decoding import DecodeConfig
from kinolex.generation.multimodal import MultimodalGenerator
from kinolex.tokenizers.video import VideoTokenizer
from tests.tiny_poet import tiny_poet


@pytest.fixture
def generator(tiny_tokenizer: VideoTokenizer) -> MultimodalGenerator:
    torch.manual_seed(4)
    return tiny_poet(tiny_tokenizer, WORDS, text_length=12, lines=32)


def test_a_generator_that_has_learned_nothing_is_found_out(generator: MultimodalGenerator, tmp_path: Path) -> None:
    protocol = MultimodalProtocol(captions=6, bootstrap_draws=100)

    result = evaluate_multimodal(generator, protocol, DecodeConfig(window=16), tmp_path, model_name="tiny")

    stored = json.loads((tmp_path / "multimodal_tiny.json").read_text())
    assert stored["mean"] == result["mean"] and stored["n"] == 6
    assert {f"{system} {name}" for system in ("made", "ceiling") for name in ATTRIBUTES} <= stored["mean"].keys()
    assert stored["mean"]["made all_right"]["mean"] == 0.0
    assert 0 < stored["mean"]["passes"]["mean"] <= stored["mean"]["tokens"]["mean"]
    assert stored["sync"].keys() == {"made", "sound of another drawing", "sound for", "ceiling"}
    assert stored["sync"]["made"].keys() == {"sync", "shuffled sound", "silent worlds"}
    again = evaluate_multimodal(generator, protocol, DecodeConfig(window=16), model_name="tiny")
    assert again["clips"] == result["clips"] and again["sync"] == result["sync"]


def test_words_are_right_where_both_say_them(generator: MultimodalGenerator) -> None:
    caption = "a small red star bounces twice on wood"

    assert _words_right("small red star bounces twice wood", caption, generator) == 1.0
    assert _words_right("small red star bounces once wood", caption, generator) == pytest.approx(5 / 7)
    assert _words_right("", caption, generator) == 0.0


def test_protocols_that_compare_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="two captions"):
        MultimodalProtocol(captions=1)
    assert MultimodalProtocol(captions=2).hash != MultimodalProtocol(captions=3).hash

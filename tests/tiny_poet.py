"""A multimodal generator with random weights, small enough for tests, over the tiny tokenizers."""

from __future__ import annotations

from typing import Any

from kinolex.generation.multimodal import MultimodalGenerator
from kinolex.models.multimodal import MultimodalConfig, MultimodalTransformer
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.vocab import Vocabulary
from tests.tiny_sound import tiny_sound_tokenizer


def tiny_poet(video: VideoTokenizer, words: tuple[str, ...], **changes: Any) -> MultimodalGenerator:
    """9 frames at 12 a second beside 40 frames of sound; `changes` are fields of MultimodalConfig.

    Weights are drawn from torch's own generator: seed it first.
    """
    fields: dict[str, Any] = {
        "video_tokenizer": video.fingerprint,
        "sound_tokenizer": "5" * 64,
        "vocabulary": Vocabulary(
            text_size=len(words), video_size=64, video_factors=(8, 8), sound_codes=16, sound_levels=2
        ),
        "words": words,
        "width": 32,
        "depth": 1,
        "heads": 2,
        "latent_frames": 3,
        "sound_frames": 40,
        "sound_frames_per_latent": 50 / 3,
        "text_length": 1 + len(words),
        "lines": 16,
    }
    model = MultimodalTransformer(MultimodalConfig(**(fields | changes)))
    return MultimodalGenerator(model, video, tiny_sound_tokenizer(), "a" * 64)

"""A sound tokenizer with random weights, small enough for tests: 8 kHz, 50 latent frames a second."""

from __future__ import annotations

from kinolex.tokenizers.quantizers import ResidualConfig, VQConfig
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.tokenizers.soundstream import SoundStream, SoundStreamConfig


def tiny_sound_tokenizer(fingerprint: str = "5" * 64, *, codes: int = 16, levels: int = 3) -> SoundTokenizer:
    """Weights are drawn from torch's own generator: seed it first."""
    config = SoundStreamConfig(
        rate_hz=8000,
        strides=(4, 5, 8),
        widths=(4, 4, 8, 8),
        encoder_units=(0, 0, 1, 1),
        decoder_units=(0, 0, 1, 1),
        quantizer=ResidualConfig(level=VQConfig(codebook_size=codes, dim=4, ema_decay=0.99), num_levels=levels),
    )
    return SoundTokenizer(SoundStream(config), fingerprint)

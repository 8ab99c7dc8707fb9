"""MAGVIT's 3D-VQ tokenizer: not causal, 16-frame windows, 1024 learned codes.

    16 x 128 x 128 pixels -> 4 x 16 x 16 tokens of 10 bits

Paper presets carry the published parameter counts (40.6M and 157.8M without the discriminator); nano and small keep
the window, the padding and the quantizer, spend their arithmetic on folded pixels and normalise each position.

Source: Yu et al. 2022, arXiv 2212.05199; layer list in papers.md section 2.2. Deviation: in time the first and last
frames are repeated where the released configuration pads zeros, so that inflation is exact on still frames.
"""

from __future__ import annotations

from kinolex.tokenizers.autoencoder3d import AutoencoderConfig
from kinolex.tokenizers.quantizers import VQConfig


def _paper(base: int) -> AutoencoderConfig:
    return AutoencoderConfig(
        channels=(base, 2 * base, 2 * base, 4 * base),
        down=((2, 2), (2, 2), (1, 2)),
        encoder_blocks=(2, 2, 2, 2),
        decoder_blocks=(2, 2, 2, 2),
        middle_blocks=2,
        quantizer=VQConfig(codebook_size=1024, dim=256),
        causal=False,
        resample="pool",
        bias=False,
    )


PRESETS: dict[str, AutoencoderConfig] = {
    "paper-b": _paper(64),
    "paper-l": _paper(128),
    "small": AutoencoderConfig(
        channels=(96, 192, 256, 320),
        down=((1, 2), (2, 1), (2, 1)),
        encoder_blocks=(3, 3, 2, 2),
        decoder_blocks=(4, 4, 3, 3),
        middle_blocks=1,
        quantizer=VQConfig(codebook_size=1024, dim=16),
        causal=False,
        fold=4,
        norm="position",
        factorised=True,
    ),
    "nano": AutoencoderConfig(
        channels=(64, 128, 192, 256),
        down=((1, 2), (2, 1), (2, 1)),
        encoder_blocks=(1, 2, 2, 1),
        decoder_blocks=(2, 2, 3, 1),
        middle_blocks=1,
        quantizer=VQConfig(codebook_size=1024, dim=16),
        causal=False,
        fold=4,
        norm="position",
        factorised=True,
    ),
}
"""Shapes by name."""

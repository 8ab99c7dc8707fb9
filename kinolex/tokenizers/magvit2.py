"""MAGVIT-v2's causal tokenizer: an image is a clip of one frame, any 1 + 4t frames, 18 bits per token, no codebook.

    17 x 128 x 128 pixels -> 5 x 16 x 16 tokens of 18 bits

All changes over MAGVIT (papers.md section 4.2): causal padding, strided convolution down, depth-to-space up, temporal
halving in the last stages, four residual blocks per stage, adaptive group norm, lookup-free quantization. Norms take
the statistics of one frame, because GroupNorm over time would look ahead. nano and small fold 4x4 pixels first,
factorise their convolutions and normalise each position by itself: about one hundredth of the paper's arithmetic per
pixel.

Source: Yu et al. 2023, arXiv 2310.05737. The paper prints no parameter count; ours follow from its table of changes.
"""

from __future__ import annotations

from kinolex.tokenizers.autoencoder3d import AutoencoderConfig
from kinolex.tokenizers.quantizers import FSQConfig, LFQConfig

PRESETS: dict[str, AutoencoderConfig] = {
    "paper": AutoencoderConfig(
        channels=(128, 256, 256, 512),
        down=((1, 2), (2, 2), (2, 2)),
        encoder_blocks=(4, 4, 4, 4),
        decoder_blocks=(4, 4, 4, 4),
        middle_blocks=4,
        quantizer=LFQConfig(num_bits=18),
        causal=True,
        adaptive_norm=True,
    ),
    "small": AutoencoderConfig(
        channels=(96, 192, 256, 320),
        down=((1, 2), (2, 1), (2, 1)),
        encoder_blocks=(3, 3, 2, 2),
        decoder_blocks=(4, 4, 3, 3),
        middle_blocks=1,
        quantizer=FSQConfig(levels=(8, 8, 8, 8, 8, 8)),
        causal=True,
        fold=4,
        norm="position",
        factorised=True,
    ),
    "nano": AutoencoderConfig(
        channels=(64, 128, 192, 256),
        down=((1, 2), (2, 1), (2, 1)),
        encoder_blocks=(1, 2, 2, 2),
        decoder_blocks=(2, 2, 3, 2),
        middle_blocks=1,
        quantizer=FSQConfig(levels=(8, 8, 8, 8, 8, 8)),
        causal=True,
        fold=4,
        norm="position",
        factorised=True,
    ),
}
"""Shapes by name."""

"""Latents <-> ids: learned codes (VQ), one bit per channel (LFQ), rounding (FSQ), and levels over any of them."""

from __future__ import annotations

from kinolex.tokenizers.quantizers.base import Quantize, Quantized, Quantizer
from kinolex.tokenizers.quantizers.fsq import FiniteScalarQuantizer, FSQConfig
from kinolex.tokenizers.quantizers.lfq import LFQConfig, LookupFreeQuantizer
from kinolex.tokenizers.quantizers.residual import ResidualConfig, ResidualQuantizer
from kinolex.tokenizers.quantizers.vq import VectorQuantizer, VQConfig

__all__ = [
    "AnyQuantizer",
    "FSQConfig",
    "FiniteScalarQuantizer",
    "LFQConfig",
    "LookupFreeQuantizer",
    "Quantize",
    "Quantized",
    "Quantizer",
    "QuantizerConfig",
    "ResidualConfig",
    "ResidualQuantizer",
    "VQConfig",
    "VectorQuantizer",
    "build_quantizer",
]

QuantizerConfig = VQConfig | LFQConfig | FSQConfig | ResidualConfig

AnyQuantizer = VectorQuantizer | LookupFreeQuantizer | FiniteScalarQuantizer | ResidualQuantizer


def build_quantizer(config: QuantizerConfig) -> AnyQuantizer:
    """The quantizer that a config describes."""
    match config:
        case VQConfig():
            return VectorQuantizer(config)
        case LFQConfig():
            return LookupFreeQuantizer(config)
        case FSQConfig():
            return FiniteScalarQuantizer(config)
        case ResidualConfig():
            return ResidualQuantizer(config)

"""SPAE: a picture or short clip becomes a pyramid of words of a language model, and any top of it becomes pixels again.

    pixels_BCTHW -> encoder -> + what the whole shows -> latents_BDthw -> streaming average over words -> decoder

Encoder and decoder are those of the autoencoder family. Convolutions see a neighbourhood only, and the one word at the
top stands for everything, so the mean over all positions is added to every position.

Source: SPAE, Yu et al. 2023, arXiv 2306.17842; papers.md section 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinolex.errors import ConfigError, ShapeError, TokenError
from kinolex.tokenizers.autoencoder3d import AutoencoderConfig, Decoder, Encoder
from kinolex.tokenizers.quantizers.pyramid import PyramidConfig, PyramidQuantized, PyramidQuantizer
from kinolex.tokenizers.quantizers.vq import VQConfig

SQUARED_LENGTH = 10.0
"""Of every word's vector: to the semantic loss a word met exactly is e^20 times likelier than an unrelated one."""

Teacher = Callable[[Tensor], Tensor]
"""pixels_BCTHW in [-1, 1] -> scores (B, V) of every word, on any scale; for instance CLIP's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpaeConfig:
    """Everything needed to rebuild the network; saved as JSON beside the weights."""

    words: tuple[str, ...]
    """The codebook's words, without spaces, in the order of their ids here."""
    language_model: str
    """Fingerprint of the language model whose embeddings the words have."""
    dim: int
    """Width of those embeddings."""
    layers: tuple[tuple[int, int, int], ...]
    """(t, h, w) of each layer of the pyramid; the last is the latent grid."""
    channels: tuple[int, ...]
    down: tuple[tuple[int, int], ...]
    """(time, space) factors between stages."""
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    middle_blocks: int
    fold: int = 4
    norm_groups: int = 32

    def __post_init__(self) -> None:
        if len(set(self.words)) != len(self.words):
            raise ConfigError("every word of the codebook must be different")
        _ = self.pyramid, self.body  # raise for what does not fit

    @property
    def pyramid(self) -> PyramidConfig:
        return PyramidConfig(vocab_size=len(self.words), dim=self.dim, layers=self.layers)

    @property
    def body(self) -> AutoencoderConfig:
        """Encoder and decoder. What follows the encoder is a codebook like VQ's, only that it does not learn."""
        timed = math.prod(time for time, _ in self.down) > 1 or self.layers[-1][0] > 1
        return AutoencoderConfig(
            channels=self.channels,
            down=self.down,
            encoder_blocks=self.encoder_blocks,
            decoder_blocks=self.decoder_blocks,
            middle_blocks=self.middle_blocks,
            quantizer=VQConfig(codebook_size=len(self.words), dim=self.dim),
            causal=False,
            fold=self.fold,
            norm="position",
            norm_groups=self.norm_groups,
            factorised=True,
            time_kernel=3 if timed else 1,
        )

    @property
    def pixels(self) -> tuple[int, int, int]:
        """Frames, rows and columns of what it takes."""
        t, h, w = self.layers[-1]
        return t * self.body.time_factor, h * self.body.space_factor, w * self.body.space_factor


class Spae(nn.Module):
    """Called with pixels it gives the reconstruction from all layers and what the pyramid made of the latents."""

    def __init__(self, config: SpaeConfig) -> None:
        super().__init__()
        self.config = config
        width = config.channels[-1]
        self.encoder = Encoder(config.body, width)
        self.whole = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, config.dim))
        self.own = nn.Linear(width, config.dim)
        self.quantizer = PyramidQuantizer(config.pyramid)
        self.decoder = Decoder(config.body, config.dim)
        self._ids = {word: index for index, word in enumerate(config.words)}

    def forward(self, pixels_BCTHW: Tensor) -> tuple[Tensor, PyramidQuantized]:
        quantized = self.quantizer(self.encode(pixels_BCTHW))
        return self.decode(quantized.prefixes_BDthw[-1]), quantized

    def encode(self, pixels_BCTHW: Tensor) -> Tensor:
        """Latents before they become words, of pixels in [-1, 1]. Raises ShapeError for other sizes than config's."""
        if pixels_BCTHW.ndim != 5 or tuple(pixels_BCTHW.shape[2:]) != self.config.pixels:
            frames, height, width = self.config.pixels
            raise ShapeError(
                f"this tokenizer takes {frames} frames of {width}x{height} pixels (B C T H W), got "
                f"{tuple(pixels_BCTHW.shape)}; scale and crop before"
            )
        features_BCthw = self.encoder(pixels_BCTHW.contiguous(memory_format=torch.channels_last_3d), None)
        features_BthwC = rearrange(F.silu(features_BCthw), "b c t h w -> b t h w c")
        whole_BD = self.whole(features_BthwC.mean(dim=(1, 2, 3)))
        return rearrange(self.own(features_BthwC) + rearrange(whole_BD, "b d -> b 1 1 1 d"), "b t h w d -> b d t h w")

    def decode(self, latents_BDthw: Tensor) -> Tensor:
        """Pixels, not clamped."""
        return self.decoder(latents_BDthw.contiguous(memory_format=torch.channels_last_3d), None)

    @torch.no_grad()
    def encode_ids(self, pixels_BCTHW: Tensor) -> tuple[Tensor, ...]:
        """Ids (B, t, h, w) of words, per layer."""
        return self.quantizer(self.encode(pixels_BCTHW)).ids

    @torch.no_grad()
    def decode_ids(self, ids: Sequence[Tensor]) -> Tensor:
        """Pixels in [-1, 1] from the first layers, one or all. Raises as PyramidQuantizer.latents_from_ids."""
        return self.decode(self.quantizer.latents_from_ids(ids)).float().clamp(-1, 1)

    def spell(self, ids: Sequence[Tensor]) -> list[list[str]]:
        """The words of each picture, layer after layer, each in raster order."""
        flat_BL = torch.cat([layer.flatten(1) for layer in ids], dim=1)
        return [[self.config.words[index] for index in row] for row in flat_BL.tolist()]

    def read(self, words: Sequence[Sequence[str]]) -> tuple[Tensor, ...]:
        """The inverse of spell, of whole layers.

        Raises:
            TokenError: a word that is not in the codebook, or a number of words that ends within a layer.
        """
        unknown = {word for row in words for word in row} - self._ids.keys()
        if unknown:
            raise TokenError(f"{sorted(unknown)[0]!r} is not a word of this tokenizer's {len(self._ids)}")
        lengths, ends = {len(row) for row in words}, prefix_lengths(self.config)
        if len(lengths) != 1 or not lengths <= set(ends):
            raise TokenError(f"whole layers need {', '.join(map(str, ends))} words a picture, got {sorted(lengths)}")
        count = ends.index(lengths.pop()) + 1
        flat_BL = torch.tensor([[self._ids[word] for word in row] for row in words])
        parts = flat_BL.split(list(self.config.pyramid.sizes[:count]), dim=1)
        return tuple(part.unflatten(1, layer) for part, layer in zip(parts, self.config.layers, strict=False))


def prefix_lengths(config: SpaeConfig) -> list[int]:
    """Words of the first 1, 2, ... layers."""
    sizes = config.pyramid.sizes
    return [sum(sizes[:count]) for count in range(1, len(sizes) + 1)]


def codebook_from(embeddings_VD: Tensor) -> Tensor:
    """Embeddings as a codebook: centred and of equal length, so that no word is near to everything."""
    centred_VD = embeddings_VD.float() - embeddings_VD.float().mean(dim=0)
    return F.normalize(centred_VD, dim=1) * math.sqrt(SQUARED_LENGTH)


def candidates(scores_BV: Tensor, threshold: float) -> Tensor:
    """Which words (B, V bool) a layer may be drawn to: those whose score, scaled to 0..1 per picture, reaches it."""
    low_B1, high_B1 = scores_BV.amin(dim=1, keepdim=True), scores_BV.amax(dim=1, keepdim=True)
    scaled_BV = (scores_BV - low_B1) / (high_B1 - low_B1).clamp(min=1e-12)
    return scaled_BV >= threshold


def semantic_loss(
    quantizer: PyramidQuantizer,
    states_BLD: Sequence[Tensor],
    scores_BV: Tensor,
    thresholds: Sequence[float],
    generator: torch.Generator,
) -> Tensor:
    """Mean over layers, positions and pictures of -log softmax(-|z_l - e|^2) at a word drawn from the candidates.

    Args:
        states_BLD: z_l of each layer.
        scores_BV: of the teacher; a picture whose scores are all equal is not taught.
        thresholds: of the first layers, falling: deeper layers may be drawn to more words.

    Returns:
        A float32 scalar with gradient; 0 where no picture is taught.
    """
    taught_B = scores_BV.amax(dim=1) > scores_BV.amin(dim=1)
    if not bool(taught_B.any()):
        return states_BLD[0].sum() * 0.0
    per_layer = []
    for state_BLD, threshold in zip(states_BLD, thresholds, strict=False):
        pool_BV = candidates(scores_BV[taught_B], threshold).float().cpu()
        drawn_BL = torch.multinomial(pool_BV, state_BLD.shape[1], replacement=True, generator=generator)
        log_BLV = (-quantizer.distances(state_BLD[taught_B].float())).log_softmax(dim=-1)
        per_layer.append(-log_BLV.gather(2, drawn_BL.to(log_BLV.device).unsqueeze(2)).mean())
    return torch.stack(per_layer).mean()

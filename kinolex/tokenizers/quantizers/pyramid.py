"""Streaming average quantization over a pyramid: few words for the whole, more for the details, any prefix decodes.

    layer l has words at positions P(l), spread evenly over the grid; a position keeps the average of its words so far

    z_l = z + sum over earlier layers i at this position of (z - e(k_i))      k_l = argmin over words of |z_l - e(k)|^2
    prefix of l layers = mean of the e(k_i) at this position, i <= l

The codebook is given, for instance the input embeddings of a language model, and never learns. A position that no
layer has reached yet shows what the nearest token of the latest layer shows, so every prefix fills the grid.

Source: SPAE, Yu et al. 2023, arXiv 2306.17842; papers.md section 5.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from kinolex.errors import ConfigError, ShapeError, TokenError
from kinolex.tokenizers.quantizers.base import check_latents, straight_through

PAPER_LAYERS = ((1, 1, 1), (1, 2, 2), (1, 4, 4), (1, 8, 8), (1, 16, 16), (1, 16, 16))
"""597 words for a grid of 16x16; prefixes of 1, 5, 21, 85, 341."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PyramidConfig:
    vocab_size: int
    """Words in the codebook."""
    dim: int
    """Width of a word's vector."""
    layers: tuple[tuple[int, int, int], ...]
    """(t, h, w) of each layer, from the top; the last is the latent grid and none is larger than the next."""

    def __post_init__(self) -> None:
        if self.vocab_size < 2 or self.dim < 1 or not self.layers:
            raise ConfigError(f"a pyramid needs two words, a width and a layer, got {self}")
        last = self.layers[-1]
        for above, below in zip(self.layers, (*self.layers[1:], last), strict=True):
            if any(a < 1 or a > b or whole % a for a, b, whole in zip(above, below, last, strict=True)):
                raise ConfigError(
                    f"layers of a pyramid must not shrink and must divide the last, {last}; {above} does not fit"
                )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Words of each layer."""
        return tuple(math.prod(layer) for layer in self.layers)


@dataclass(frozen=True, slots=True, eq=False)
class PyramidQuantized:
    prefixes_BDthw: tuple[Tensor, ...]
    """Latents from the first 1, 2, ... layers, of the input's dtype; the gradient passes straight through."""
    ids: tuple[Tensor, ...]
    """Per layer int64 (B, t, h, w)."""
    states_BLD: tuple[Tensor, ...]
    """Per layer the z_l that were compared with the words, float32, with gradient; L in raster order."""
    commitment: Tensor
    """Mean over layers of the squared distance between latents and the prefix, where a layer has words."""


class PyramidQuantizer(nn.Module):
    """Raises ConfigError where the codebook given to set_codebook is not that of the config."""

    codebook: Tensor

    def __init__(self, config: PyramidConfig) -> None:
        super().__init__()
        self.config = config
        self.latent_dim, self.vocab_size = config.dim, config.vocab_size
        self.register_buffer("codebook", torch.zeros(config.vocab_size, config.dim))
        for number, layer in enumerate(config.layers):
            places, nearest = _places(layer, config.layers[-1])
            self.register_buffer(f"places_{number}", places, persistent=False)
            self.register_buffer(f"nearest_{number}", nearest, persistent=False)

    def set_codebook(self, vectors_VD: Tensor) -> None:
        """Give the words their vectors."""
        if vectors_VD.shape != self.codebook.shape:
            raise ConfigError(
                f"this pyramid has {self.vocab_size} words of width {self.latent_dim}, got {tuple(vectors_VD.shape)}"
            )
        self.codebook.copy_(vectors_VD)

    def forward(self, latents_BDthw: Tensor) -> PyramidQuantized:
        check_latents(latents_BDthw, self.latent_dim)
        grid = self.config.layers[-1]
        if tuple(latents_BDthw.shape[2:]) != grid:
            raise ShapeError(f"this pyramid stands on a grid of {grid}, got latents {tuple(latents_BDthw.shape)}")
        with torch.autocast(latents_BDthw.device.type, enabled=False):
            z_BLD = rearrange(latents_BDthw.float(), "b d t h w -> b (t h w) d")
            total_BLD, count_L = torch.zeros_like(z_BLD), z_BLD.new_zeros(z_BLD.shape[1])
            ids, states, prefixes, commitments = [], [], [], []
            for number, layer in enumerate(self.config.layers):
                places_N = self.get_buffer(f"places_{number}")
                here_BND = z_BLD[:, places_N]
                state_BND = here_BND + count_L[places_N].unsqueeze(1) * here_BND - total_BLD[:, places_N]
                ids_BN = self.nearest_words(state_BND.detach())
                total_BLD = total_BLD.index_add(1, places_N, self.codebook[ids_BN])
                count_L = count_L.index_add(0, places_N, torch.ones_like(count_L[places_N]))
                mean_BLD = total_BLD / count_L.clamp(min=1).unsqueeze(1)
                known_L = count_L > 0
                commitments.append((z_BLD[:, known_L] - mean_BLD[:, known_L]).square().mean())
                prefixes.append(self._filled(straight_through(z_BLD, mean_BLD), known_L, number))
                ids.append(ids_BN.unflatten(1, layer))
                states.append(state_BND)
        kept = tuple(prefix.to(latents_BDthw.dtype) for prefix in prefixes)
        return PyramidQuantized(kept, tuple(ids), tuple(states), torch.stack(commitments).mean())

    def nearest_words(self, vectors_BLD: Tensor) -> Tensor:
        """Ids of the words at the least distance."""
        return self.distances(vectors_BLD).argmin(dim=-1)

    def distances(self, vectors_BLD: Tensor) -> Tensor:
        """Squared distances (..., V) to every word, less the vector's own square, which is the same for all."""
        return self.codebook.square().sum(dim=1) - 2 * vectors_BLD @ self.codebook.T

    def latents_from_ids(self, ids: Sequence[Tensor]) -> Tensor:
        """Latents float32 BDthw of the first layers, one or all.

        Raises:
            ShapeError: more layers than there are, or other sizes. TokenError: ids outside the codebook.
        """
        layers = self.config.layers
        if not 1 <= len(ids) <= len(layers):
            raise ShapeError(f"a pyramid of {len(layers)} layers decodes from 1 to {len(layers)} of them: {len(ids)}")
        total_BLD = self.codebook.new_zeros((ids[0].shape[0], math.prod(layers[-1]), self.latent_dim))
        count_L = total_BLD.new_zeros(total_BLD.shape[1])
        for number, (ids_Bthw, layer) in enumerate(zip(ids, layers, strict=False)):
            if tuple(ids_Bthw.shape) != (len(total_BLD), *layer):
                raise ShapeError(f"layer {number + 1} has {layer} words a picture, got ids {tuple(ids_Bthw.shape)}")
            if ids_Bthw.numel() and not 0 <= int(ids_Bthw.min()) <= int(ids_Bthw.max()) < self.vocab_size:
                raise TokenError(f"ids of words must lie in [0, {self.vocab_size}); they belong to another tokenizer")
            places_N = self.get_buffer(f"places_{number}")
            total_BLD = total_BLD.index_add(1, places_N, self.codebook[ids_Bthw.flatten(1)])
            count_L = count_L.index_add(0, places_N, torch.ones_like(count_L[places_N]))
        mean_BLD = total_BLD / count_L.clamp(min=1).unsqueeze(1)
        return self._filled(mean_BLD, count_L > 0, len(ids) - 1)

    def _filled(self, mean_BLD: Tensor, known_L: Tensor, number: int) -> Tensor:
        """The whole grid; positions without words take what the nearest token of layer `number` has."""
        own_L = torch.arange(len(known_L), device=known_L.device)
        source_L = torch.where(known_L, own_L, self.get_buffer(f"nearest_{number}"))
        t, h, w = self.config.layers[-1]
        return rearrange(mean_BLD[:, source_L], "b (t h w) d -> b d t h w", t=t, h=h, w=w)


def positions(size: int, whole: int) -> list[int]:
    """Where a layer with `size` tokens has them along an axis of `whole`, counted from 0: evenly spread and centred."""
    stride = whole // size
    return [stride * number - math.ceil(stride / 2) for number in range(1, size + 1)]


def _places(layer: tuple[int, int, int], grid: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Flat positions of a layer's tokens in raster order, and for each position of the grid that of its token."""
    # In NumPy: arithmetic of tensors under the meta device, where checkpoints are checked, takes seconds to set up.
    axes = [np.array(positions(size, whole)) for size, whole in zip(layer, grid, strict=True)]
    cells = [axis[np.arange(whole) * len(axis) // whole] for axis, whole in zip(axes, grid, strict=True)]
    of_tokens, of_positions = (
        np.ravel_multi_index(np.ix_(*along), grid).astype(np.int64).flatten() for along in (axes, cells)
    )
    return torch.from_numpy(of_tokens), torch.from_numpy(of_positions)

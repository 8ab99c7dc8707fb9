"""Transformer blocks: attention over a flat sequence, rotary positions in time, rows and columns, a cache of the past.

Source: Vaswani et al. 2017, arXiv 1706.03762; rotary positions: arXiv 2104.09864; BERT's order of norms: 1810.04805.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

ROTARY_BASE = 100.0
"""Wave lengths reach from 2 pi to this many times as much; a grid has tens of positions on an axis, not thousands."""
PLAIN_POSITIONS = 640
"""Up to here plain matrix products beat torch's fused attention on a CPU, forward and backward in bfloat16: a step of
masked-world-nano (337 positions) takes 0.72 of its time, one of masked-nano (1297) 0.95 and 0.7 GB more."""


class KeyValueCache:
    """Keys and values of the positions seen so far, one pair a layer; for one forward pass after the other.

    Args:
        capacity: positions that there will be at most; room for them is taken once and nothing is copied again. Only
            without gradients.
    """

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        self._pairs: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self._rooms: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def extend(self, layer: nn.Module, keys_BNLK: Tensor, values_BNLK: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values up to now, these included."""
        before = self._pairs.get(layer)
        if self.capacity is not None:
            keys_BNLK, values_BNLK = self._placed(layer, self.capacity, keys_BNLK, values_BNLK)
        elif before is not None:
            keys_BNLK = torch.cat([before[0], keys_BNLK], dim=2)
            values_BNLK = torch.cat([before[1], values_BNLK], dim=2)
        self._pairs[layer] = keys_BNLK, values_BNLK
        return keys_BNLK, values_BNLK

    def _placed(self, layer: nn.Module, capacity: int, *pair: Tensor) -> tuple[Tensor, Tensor]:
        batch, heads, length, width = pair[0].shape
        start = self._pairs[layer][0].shape[2] if layer in self._pairs else 0
        assert start + length <= capacity, "more positions than the cache has room for"
        if layer not in self._rooms:
            self._rooms[layer] = (
                pair[0].new_empty(batch, heads, capacity, width),
                pair[1].new_empty(batch, heads, capacity, width),
            )
        keys, values = self._rooms[layer]
        keys[:, :, start : start + length], values[:, :, start : start + length] = pair
        return keys[:, :, : start + length], values[:, :, : start + length]

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` positions."""
        assert length <= self.length, "a cache cannot be wound forward"
        self._pairs = {
            layer: (keys[:, :, :length], values[:, :, :length]) for layer, (keys, values) in self._pairs.items()
        }

    @property
    def length(self) -> int:
        return next(iter(self._pairs.values()))[0].shape[2] if self._pairs else 0


def rotary_angles(places_L3: Tensor, head_width: int) -> Tensor:
    """Angles [L, K / 2] of a head: a quarter of its pairs turn with time, the others with rows and columns.

    Args:
        places_L3: time, row and column of every position, float.
    """
    pairs = head_width // 2
    shares = (pairs - 2 * (3 * pairs // 8), 3 * pairs // 8, 3 * pairs // 8)
    angles = []
    for axis, count in enumerate(shares):
        rates = ROTARY_BASE ** -(torch.arange(count, device=places_L3.device) / max(count, 1))
        angles.append(places_L3[:, axis : axis + 1] * rates)
    return torch.cat(angles, dim=1)


def rotate(heads_BNLK: Tensor, angles_LJ: Tensor) -> Tensor:
    """Turn pairs (first half, second half) of every head by the angles of its position."""
    cos_LJ, sin_LJ = angles_LJ.cos().to(heads_BNLK.dtype), angles_LJ.sin().to(heads_BNLK.dtype)
    real, imaginary = heads_BNLK.chunk(2, dim=-1)
    return torch.cat([real * cos_LJ - imaginary * sin_LJ, real * sin_LJ + imaginary * cos_LJ], dim=-1)


class Attention(nn.Module):
    """Self-attention. Keys may turn by other angles than queries: where a token is, and where the next one goes.

    Args:
        normalised: scale queries and keys to unit root mean square, which keeps large learning rates stable.
        fused: by torch's fused kernels, but for training in bfloat16 on a CPU up to PLAIN_POSITIONS, which goes by
            plain matrix products: their scores are rounded to bfloat16 and held in memory. Otherwise these are taken
            there for every length, without training too.
    """

    def __init__(self, width: int, heads: int, *, normalised: bool, dropout: float, fused: bool = True) -> None:
        super().__init__()
        self.heads, self.normalised, self.dropout, self.fused = heads, normalised, dropout, fused
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        inputs_BLD: Tensor,
        angles_LJ: Tensor | None,
        mask_LL: Tensor | None,
        cache: KeyValueCache | None,
        key_angles_LJ: Tensor | None = None,
    ) -> Tensor:
        queries, keys, values = rearrange(
            self.query_key_value(inputs_BLD), "b l (three n k) -> three b n l k", three=3, n=self.heads
        )
        if self.normalised:
            queries, keys = (F.rms_norm(heads, heads.shape[-1:]) for heads in (queries, keys))
        if angles_LJ is not None:
            queries = rotate(queries, angles_LJ)
            keys = rotate(keys, angles_LJ if key_angles_LJ is None else key_angles_LJ)
        queries, keys = queries.to(values.dtype), keys.to(values.dtype)
        if cache is not None:
            keys, values = cache.extend(self, keys, values)
        dropout = self.dropout if self.training else 0.0
        plain = not self.fused or (torch.is_grad_enabled() and inputs_BLD.shape[1] <= PLAIN_POSITIONS)
        if plain and values.device.type == "cpu" and values.dtype == torch.bfloat16 and not dropout:
            mixed = plain_attention(queries, keys, values, mask_LL)
            return self.out(rearrange(mixed, "b n l k -> b l (n k)"))
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask_LL, dropout_p=dropout)
        return self.out(rearrange(mixed, "b n l k -> b l (n k)"))


def plain_attention(queries_BNLK: Tensor, keys_BNLK: Tensor, values_BNLK: Tensor, mask_LL: Tensor | None) -> Tensor:
    """Scaled dot-product attention by two matrix products, all in the values' dtype."""
    batch = queries_BNLK.shape[0]
    queries, keys, values = (rearrange(x, "b n l k -> (b n) l k") for x in (queries_BNLK, keys_BNLK, values_BNLK))
    with torch.autocast(values.device.type, enabled=False):
        bias_LL = values.new_zeros(queries.shape[1], keys.shape[1])
        if mask_LL is not None:
            bias_LL = bias_LL.masked_fill(~mask_LL, -torch.inf)
        scale = queries.shape[-1] ** -0.5
        scores = torch.baddbmm(bias_LL.expand(len(queries), -1, -1), queries, keys.transpose(1, 2), alpha=scale)
        mixed = scores.softmax(dim=-1) @ values
    return rearrange(mixed, "(b n) l k -> b n l k", b=batch)


class TransformerBlock(nn.Module):
    """Attention and a two-layer perceptron, each with a skip.

    Args:
        post_norm: normalise after the skip, as BERT and MAGVIT do, instead of before the layer.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        post_norm: bool,
        normalised: bool,
        dropout: float,
        expansion: int = 4,
        fused: bool = True,
    ) -> None:
        super().__init__()
        self.post_norm = post_norm
        self.attention = Attention(width, heads, normalised=normalised, dropout=dropout, fused=fused)
        self.norm_attention, self.norm_perceptron = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, expansion * width), nn.Linear(expansion * width, width)
        self.drop = nn.Dropout(dropout)

    def forward(
        self,
        inputs_BLD: Tensor,
        angles_LJ: Tensor | None = None,
        mask_LL: Tensor | None = None,
        cache: KeyValueCache | None = None,
        key_angles_LJ: Tensor | None = None,
    ) -> Tensor:
        if self.post_norm:
            mixed = self.drop(self.attention(inputs_BLD, angles_LJ, mask_LL, cache, key_angles_LJ))
            inputs_BLD = self.norm_attention(inputs_BLD + mixed)
            return self.norm_perceptron(inputs_BLD + self.drop(self._perceptron(inputs_BLD)))
        mixed = self.attention(self.norm_attention(inputs_BLD), angles_LJ, mask_LL, cache, key_angles_LJ)
        inputs_BLD = inputs_BLD + self.drop(mixed)
        return inputs_BLD + self.drop(self._perceptron(self.norm_perceptron(inputs_BLD)))

    def _perceptron(self, inputs_BLD: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(inputs_BLD)))

"""Clips as features of positions: what the tokens say, what they decode to, and what stood there before.

    frames_NTHWC --tokenizer--> ids_NQthw --latents | digits--> features_NLC
                                ids_NQthw --decode--> frames --patches--> features_NLC        "decoded"
    frames_NTHWC ------------------------------------patches--> features_NLC                  "raw"

A patch is as large as what one token stands for, so every kind of input has the same number of positions at the same
places; `ClipFrontEnd` has all of it for clips of one length, and kinolex.understanding.sounds the same for sounds. A
causal tokenizer's first latent frame stands for a single frame; its patches repeat that frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from kinolex.errors import UsageError
from kinolex.layers.conv3d import StreamCache
from kinolex.tokenizers.quantizers import FiniteScalarQuantizer, LookupFreeQuantizer
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.tokenizers.video import WINDOW_FRAMES, VideoTokenizer

INPUTS = ("raw", "decoded", "latents", "digits")
OF_PIXELS = ("raw", "decoded")
AT_ONCE = 16
"""Clips or sounds in one pass of a tokenizer."""

OnClips = Callable[[int, int], None]


def grid_of(tokenizer: VideoTokenizer, frames: int, side: int) -> tuple[int, int, int]:
    """Positions t, h, w of a square clip."""
    time, rows, columns = tokenizer.pixels_per_token
    latent_frames = 1 + -(-(frames - 1) // time) if tokenizer.config.causal else -(-frames // time)
    return latent_frames, -(-side // rows), -(-side // columns)


@torch.inference_mode()
def encode_many(
    tokenizer: VideoTokenizer, frames_NTHWC: NDArray[np.uint8], on_clips: OnClips = lambda _done, _total: None
) -> Tensor:
    """Ids [N, Q, t, h, w] of clips of one length, many at once: those of `encode`, by the same blocks.

    The last frame is repeated up to whole tokens.

    Raises:
        UsageError: rows or columns that are not whole tokens.
    """
    time, rows, columns = tokenizer.pixels_per_token
    if frames_NTHWC.shape[2] % rows or frames_NTHWC.shape[3] % columns:
        raise UsageError(f"clips must be whole tokens of {rows}x{columns} pixels, got {frames_NTHWC.shape[2:4]}")
    causal, total, parts = tokenizer.config.causal, frames_NTHWC.shape[1], []
    wanted = 1 + -(-(total - 1) // time) * time if causal else -(-total // time) * time
    for start in range(0, len(frames_NTHWC), AT_ONCE):
        part_NTHWC = torch.from_numpy(frames_NTHWC[start : start + AT_ONCE]).to(tokenizer.device)
        pixels_NCTHW = rearrange(part_NTHWC, "n t h w c -> n c t h w").float() / 127.5 - 1.0
        more_NCTHW = pixels_NCTHW[:, :, -1:].expand(-1, -1, wanted - total, -1, -1)
        pixels_NCTHW = torch.cat([pixels_NCTHW, more_NCTHW], dim=2)
        blocks = [1] + [time] * ((wanted - 1) // time) if causal else WINDOW_FRAMES
        cache = StreamCache() if causal else None
        with tokenizer.autocast():
            ids = [tokenizer.model.encode_ids(block, cache) for block in pixels_NCTHW.split(blocks, dim=2)]
        parts.append(torch.cat(ids, dim=2).cpu())
        on_clips(min(start + AT_ONCE, len(frames_NTHWC)), len(frames_NTHWC))
    return torch.cat(parts)


@torch.inference_mode()
def decode_many(
    tokenizer: VideoTokenizer, ids_NQthw: Tensor, frames: int, on_clips: OnClips = lambda _done, _total: None
) -> NDArray[np.uint8]:
    """Frames [N, T, H, W, C] of ids of encode_many."""
    causal = tokenizer.config.causal
    step = 1 if causal else WINDOW_FRAMES // tokenizer.config.time_factor
    parts: list[Tensor] = []
    for part_NQthw in ids_NQthw.split(AT_ONCE):
        latents_NDthw = tokenizer.model.quantizer.latents_from_ids(part_NQthw.to(tokenizer.device))
        cache = StreamCache() if causal else None
        with tokenizer.autocast():
            blocks = [tokenizer.model.decode(block, cache) for block in latents_NDthw.split(step, dim=2)]
        pixels_NCTHW = torch.cat(blocks, dim=2)[:, :, :frames].float()
        levels_NCTHW = ((pixels_NCTHW + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
        parts.append(rearrange(levels_NCTHW, "n c t h w -> n t h w c").cpu())
        on_clips(sum(map(len, parts)), len(ids_NQthw))
    return torch.cat(parts).numpy()


def patches(frames_NTHWC: NDArray[np.uint8], tokenizer: VideoTokenizer) -> Tensor:
    """uint8 pixels of every position [N, L, C], as many positions as the tokenizer has tokens."""
    time, rows, columns = tokenizer.pixels_per_token
    whole_NTHWC = torch.from_numpy(frames_NTHWC)
    before = time - 1 if tokenizer.config.causal else 0
    after = -(before + whole_NTHWC.shape[1]) % time
    first, last = whole_NTHWC[:, :1], whole_NTHWC[:, -1:]
    whole_NTHWC = torch.cat(
        [first.expand(-1, before, -1, -1, -1), whole_NTHWC, last.expand(-1, after, -1, -1, -1)], dim=1
    )
    return rearrange(whole_NTHWC, "n (t a) (h b) (w e) c -> n (t h w) (a b e c)", a=time, b=rows, e=columns)


def latents(ids_NQthw: Tensor, tokenizer: VideoTokenizer | SoundTokenizer) -> Tensor:
    """What the quantizer stands for its ids [N, L, D], float32."""
    latents_NDthw = tokenizer.model.quantizer.latents_from_ids(ids_NQthw.to(tokenizer.device))
    return rearrange(latents_NDthw, "n d t h w -> n (t h w) d").float().cpu()


def alphabets(tokenizer: VideoTokenizer | SoundTokenizer) -> tuple[int, ...]:
    """Sizes of the digits of an id, least significant first: the quantizer's own where ids are made of digits."""
    quantizer = tokenizer.model.quantizer
    if isinstance(quantizer, FiniteScalarQuantizer):
        return tuple(quantizer.config.levels)
    if isinstance(quantizer, LookupFreeQuantizer):
        return (2,) * quantizer.latent_dim
    return (tokenizer.vocab_size,)


def digits(ids_NQthw: Tensor, tokenizer: VideoTokenizer | SoundTokenizer) -> Tensor:
    """One-hot digits of the ids of every position [N, L, C]: a linear layer on them is a learned embedding of ids."""
    rest_NLQ, parts = rearrange(ids_NQthw, "n q t h w -> n (t h w) q"), []
    for size in alphabets(tokenizer):
        # As booleans: one_hot would take eight bytes for each, and a position of sound has thousands.
        parts.append(rearrange((rest_NLQ % size)[..., None] == torch.arange(size), "n l q s -> n l (q s)"))
        rest_NLQ = rest_NLQ // size
    return torch.cat(parts, dim=2).float()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFrontEnd:
    """Square clips of one length: their ids, what these decode to, and the patches of pixels of every position."""

    tokenizer: VideoTokenizer
    frames: int
    side: int

    @property
    def grid(self) -> tuple[int, int, int]:
        return grid_of(self.tokenizer, self.frames, self.side)

    def encode(self, frames_NTHWC: NDArray[np.uint8], on_clips: OnClips) -> Tensor:
        return encode_many(self.tokenizer, frames_NTHWC, on_clips)

    def decode(self, ids_NQthw: Tensor, on_clips: OnClips) -> NDArray[np.uint8]:
        return decode_many(self.tokenizer, ids_NQthw, self.frames, on_clips)

    def positions(self, frames_NTHWC: NDArray[np.uint8]) -> Tensor:
        return patches(frames_NTHWC, self.tokenizer)

"""Sounds as features of positions: what the tokens say, what they decode to, and what was heard there before.

    samples_NS --tokenizer, first levels--> ids_NQt11 --latents | digits--> features_NLC
                                            ids_NQt11 --decode--> samples_NS --log mel--> features_NLC     "decoded"
    samples_NS -----------------------------------------------------log mel--> features_NLC               "raw"

A position is as long as what one token stands for, whatever the input. Where a clip has rows and columns of positions,
a sound has none: four positions that follow each other stand as two rows and two columns, so what a probe reads as one
cell is four tokens long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from kinolex.errors import UsageError
from kinolex.layers.conv3d import StreamCache
from kinolex.metrics.sound import log_mel
from kinolex.tokenizers.sound import BLOCK_FRAMES, SoundTokenizer
from kinolex.understanding.features import AT_ONCE, OnClips

CELL = (2, 2)
"""Positions of one cell, as rows and columns; see kinolex.models.probe.MERGE."""
BANDS = 64
"""Of the log-mel frames. Their windows are twice as long as what a token stands for, 40 ms at 50 tokens a second, and
two begin at every position."""
RANGE_DB = 40.0
"""What is quieter than this under a sound's loudest counts as this: noise of a room or tokenizer, no part of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundFrontEnd:
    """Mono sounds of one length at the tokenizer's rate: their ids, what these decode to, log-mel frames of positions.

    Sounds are filled with silence to whole cells.

    Args:
        samples: of every sound.
        levels: first codebook levels of the tokens; fewer are fewer bits. None keeps all.

    Raises:
        UsageError: levels that the tokenizer does not have, or tokens of an odd number of samples.
    """

    tokenizer: SoundTokenizer
    samples: int
    levels: int | None = None

    def __post_init__(self) -> None:
        self.tokenizer.levels_kept(self.levels)
        if (hop := self.tokenizer.config.hop) % 2:
            raise UsageError(
                f"two log-mel frames a token need an even number of samples per token, got {hop}; "
                "give a tokenizer with an even stride"
            )

    @property
    def grid(self) -> tuple[int, int, int]:
        """Cells, and the positions of one as rows and columns."""
        return -(-self.samples // (self.tokenizer.config.hop * CELL[0] * CELL[1])), *CELL

    @torch.inference_mode()
    def encode(self, samples_NS: NDArray[np.float32], on_sounds: OnClips) -> Tensor:
        """Ids [N, Q, t, 1, 1], many at once: those of SoundTokenizer.encode, by the same blocks."""
        levels = self.tokenizer.levels_kept(self.levels)
        block, parts = BLOCK_FRAMES * self.tokenizer.config.hop, list[Tensor]()
        for part_NS in self._whole(samples_NS).split(AT_ONCE):
            part_N1S, cache = part_NS[:, None].to(self.tokenizer.device), StreamCache()
            ids = [self.tokenizer.model.encode_ids(piece, cache) for piece in part_N1S.split(block, dim=2)]
            parts.append(rearrange(torch.cat(ids, dim=2)[:, :levels], "n q t -> n q t 1 1").cpu())
            on_sounds(sum(map(len, parts)), len(samples_NS))
        return torch.cat(parts)

    @torch.inference_mode()
    def decode(self, ids_NQthw: Tensor, on_sounds: OnClips) -> NDArray[np.float32]:
        """Samples [N, S] of ids of encode."""
        parts: list[Tensor] = []
        for part_NQt in rearrange(ids_NQthw, "n q t 1 1 -> n q t").split(AT_ONCE):
            cache = StreamCache()
            pieces = part_NQt.to(self.tokenizer.device).split(BLOCK_FRAMES, dim=2)
            made_N1S = torch.cat([self.tokenizer.model.decode(piece, cache) for piece in pieces], dim=2)
            parts.append(made_N1S[:, 0, : self.samples].clamp(-1.0, 1.0).cpu())
            on_sounds(sum(map(len, parts)), len(ids_NQthw))
        return torch.cat(parts).numpy()

    def positions(self, samples_NS: NDArray[np.float32]) -> Tensor:
        """Log-mel frames of every position [N, L, 2 BANDS], float32."""
        hop, rate_hz = self.tokenizer.config.hop, self.tokenizer.config.rate_hz
        parts = list[Tensor]()
        for part_NS in self._whole(samples_NS).split(AT_ONCE):
            # The frame behind the last position is left out.
            levels_NTM = log_mel(part_NS, 2 * hop, BANDS, rate_hz)[:, :-1]
            levels_NTM = levels_NTM.maximum(levels_NTM.amax(dim=(1, 2), keepdim=True) - RANGE_DB / 20)
            parts.append(rearrange(levels_NTM, "n (l two) m -> n l (two m)", two=2))
        return torch.cat(parts)

    def _whole(self, samples_NS: NDArray[np.float32]) -> Tensor:
        whole = self.grid[0] * CELL[0] * CELL[1] * self.tokenizer.config.hop
        return F.pad(torch.from_numpy(samples_NS), (0, whole - samples_NS.shape[1]))

"""Labelled clips through a tokenizer: ids and decoded frames are made once and kept; features are made by the batch.

clips --encode--> ids --decode--> frames        once, in files named after the tokenizer and the pixels
(input, indexes) -> features_BLC                raw | decoded | latents | digits
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kinolex.errors import CheckpointError, UsageError
from kinolex.evaluation.row_store import row_key
from kinolex.evaluation.understanding_sets import LabelledClips
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.understanding.features import (
    INPUTS,
    OnClips,
    decode_many,
    digits,
    encode_many,
    grid_of,
    latents,
    patches,
)


class Inputs:
    """Clips as every kind of input.

    Args:
        cache: folder for ids and decoded frames; None keeps them in memory only.
    """

    def __init__(
        self,
        clips: LabelledClips,
        tokenizer: VideoTokenizer,
        cache: Path | None = None,
        on_clips: OnClips = lambda _done, _total: None,
    ) -> None:
        self.clips, self.tokenizer, self.cache, self.on_clips = clips, tokenizer, cache, on_clips
        _, self.frames, self.side = clips.frames_NTHWC.shape[:3]
        self.grid = grid_of(tokenizer, self.frames, self.side)

    def __len__(self) -> int:
        return len(self.clips)

    def some(self, indexes: NDArray[np.int64]) -> Inputs:
        """A choice of the clips, with their ids; decoded frames are made anew if they are asked for."""
        part = Inputs(self.clips.some(indexes), self.tokenizer)
        part.ids_NQthw = self.ids_NQthw[torch.from_numpy(indexes)]
        return part

    @cached_property
    def ids_NQthw(self) -> Tensor:
        """int64 ids of every clip."""
        made = self._kept("ids", lambda: encode_many(self.tokenizer, self.clips.frames_NTHWC, self.on_clips).int())
        return made.long()

    @cached_property
    def decoded_NTHWC(self) -> NDArray[np.uint8]:
        """What the tokenizer makes of its ids of every clip."""
        made = self._kept(
            "decoded",
            lambda: torch.from_numpy(decode_many(self.tokenizer, self.ids_NQthw, self.frames, self.on_clips)),
        )
        return made.numpy()

    @cached_property
    def raw_NLC(self) -> Tensor:
        """uint8 pixels of every position."""
        return patches(self.clips.frames_NTHWC, self.tokenizer)

    @cached_property
    def rebuilt_NLC(self) -> Tensor:
        """uint8 decoded pixels of every position."""
        return patches(self.decoded_NTHWC, self.tokenizer)

    def features(self, kind: str, indexes: NDArray[np.int64]) -> Tensor:
        """Features [B, L, C] of some clips.

        Raises:
            UsageError: a kind that is not in kinolex.understanding.features.INPUTS.
        """
        if kind == "raw":
            return self.raw_NLC[torch.from_numpy(indexes)].float()
        if kind == "decoded":
            return self.rebuilt_NLC[torch.from_numpy(indexes)].float()
        if kind == "latents":
            return latents(self.ids_NQthw[torch.from_numpy(indexes)], self.tokenizer)
        if kind == "digits":
            return digits(self.ids_NQthw[torch.from_numpy(indexes)], self.tokenizer)
        raise UsageError(f"no input {kind!r}; choose one of {', '.join(INPUTS)}")

    def _kept(self, what: str, make: Callable[[], Tensor]) -> Tensor:
        if self.cache is None:
            return make()
        path = self.cache / f"{what}-{row_key(self.tokenizer.fingerprint, self.digest)}.safetensors"
        if not path.is_file():
            self.cache.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.part")
            save_file({what: make().contiguous()}, temporary)
            os.replace(temporary, path)
        try:
            return load_file(path)[what]
        except (OSError, SafetensorError, KeyError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}); delete it to make it anew") from error

    @cached_property
    def digest(self) -> str:
        """Of the pixels of all clips."""
        frames_NTHWC = self.clips.frames_NTHWC
        digest = hashlib.sha256(str(frames_NTHWC.shape).encode())
        digest.update(np.ascontiguousarray(frames_NTHWC).data)
        return digest.hexdigest()

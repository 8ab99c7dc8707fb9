"""Labelled clips or sounds through a tokenizer: ids and what they decode to are made once and kept, features by batch.

clips --encode--> ids --decode--> clips         once, in files named after the tokenizer and the pixels or samples
(input, indexes) -> features_BLC                raw | decoded | latents | digits
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kinolex.errors import CheckpointError, UsageError
from kinolex.evaluation.row_store import row_key
from kinolex.evaluation.understanding_sets import Labelled, LabelledClips
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.understanding.features import INPUTS, ClipFrontEnd, OnClips, digits, latents
from kinolex.understanding.sounds import SoundFrontEnd


class Inputs:
    """Clips or sounds as every kind of input.

    Args:
        tokenizer: of pictures for clips, of sound for sounds; these are brought to its rate.
        cache: folder for ids and what they decode to; None keeps them in memory only.
        levels: first codebook levels of sound tokens; None keeps all, and clips take no notice.

    Raises:
        UsageError: a tokenizer of the other kind, or levels that it does not have.
    """

    def __init__(
        self,
        clips: Labelled,
        tokenizer: VideoTokenizer | SoundTokenizer,
        cache: Path | None = None,
        on_clips: OnClips = lambda _done, _total: None,
        levels: int | None = None,
    ) -> None:
        self.tokenizer, self.cache, self.on_clips, self.levels = tokenizer, cache, on_clips, levels
        if isinstance(clips, LabelledClips):
            if isinstance(tokenizer, SoundTokenizer):
                raise UsageError("clips need a tokenizer of pictures, and this is one of sound; give one of pictures")
            self.clips: Labelled = clips
            self.media: NDArray[Any] = clips.frames_NTHWC
            _, frames, side = clips.frames_NTHWC.shape[:3]
            self.front_end: ClipFrontEnd | SoundFrontEnd = ClipFrontEnd(tokenizer=tokenizer, frames=frames, side=side)
        else:
            if not isinstance(tokenizer, SoundTokenizer):
                raise UsageError("sounds need a tokenizer of sound, and this is one of pictures; give one of sound")
            self.clips = sounds = clips.at_rate(tokenizer.config.rate_hz)
            self.media = sounds.samples_NS
            self.front_end = SoundFrontEnd(tokenizer=tokenizer, samples=sounds.samples_NS.shape[1], levels=levels)
        self.grid = self.front_end.grid

    def __len__(self) -> int:
        return len(self.clips)

    def some(self, indexes: NDArray[np.int64]) -> Inputs:
        """A choice of the clips, with their ids; what these decode to is made anew if it is asked for."""
        part = Inputs(self.clips.some(indexes), self.tokenizer, levels=self.levels)
        part.ids_NQthw = self.ids_NQthw[torch.from_numpy(indexes)]
        return part

    @cached_property
    def ids_NQthw(self) -> Tensor:
        """int64 ids of every clip."""
        made = self._kept("ids", lambda: self.front_end.encode(self.media, self.on_clips).int())
        return made.long()

    @cached_property
    def decoded(self) -> NDArray[Any]:
        """What the tokenizer makes of its ids of every clip: frames_NTHWC or samples_NS."""
        decode = self.front_end.decode
        return self._kept("decoded", lambda: torch.from_numpy(decode(self.ids_NQthw, self.on_clips))).numpy()

    @cached_property
    def raw_NLC(self) -> Tensor:
        """uint8 pixels, or log-mel frames, of every position."""
        return self.front_end.positions(self.media)

    @cached_property
    def rebuilt_NLC(self) -> Tensor:
        """The same of what is decoded."""
        return self.front_end.positions(self.decoded)

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
        """Of the pixels of all clips, or of all samples and the levels of their tokens."""
        levels = "" if self.levels is None else f" {self.levels} levels"
        digest = hashlib.sha256(f"{self.media.shape}{levels}".encode())
        digest.update(np.ascontiguousarray(self.media).data)
        return digest.hexdigest()

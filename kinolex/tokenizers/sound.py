"""A trained SoundStream as a tokenizer: any sound in, a sound of the same length, rate and channels out.

    samples --resample--> blocks --> network with carried state --> ids per block --> Tokens (Q levels, t, 1, channels)

As with pictures, one-shot and streamed use run the very same blocks whatever pieces the caller gives, so ids and
samples are equal bit for bit and memory does not grow with length. Channels are coded apart, each as its own ids.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from kinolex.errors import ShapeError, TokenError, UsageError
from kinolex.layers.conv3d import StreamCache, channels_last
from kinolex.media.resample import Resampler
from kinolex.tokenizers.base import move
from kinolex.tokenizers.soundstream import SoundStream, SoundStreamConfig
from kinolex.types import Sound, SoundExtent, Tokens, expect

BLOCK_FRAMES = 25
"""Latent frames per pass of the network, half a second at 50 a second: the delay of a stream."""

SoundTokens = Tokens[SoundExtent]


class SoundTokenizer:
    """Tokenizer over a trained network. Everything is float32: ids do not depend on what a machine computes natively.

    Args:
        model: trained network; put into evaluation mode.
        fingerprint: identifies its config and weights, see kinolex.checkpoint.
    """

    def __init__(self, model: SoundStream, fingerprint: str) -> None:
        self.model = channels_last(model.eval().requires_grad_(False))
        self.fingerprint = fingerprint
        self.device = torch.device("cpu")

    def to(self, device: str | torch.device) -> SoundTokenizer:
        """Move the network; returns self. Raises UsageError if the device cannot be used."""
        self.device = move(self.model, device)
        return self

    @property
    def config(self) -> SoundStreamConfig:
        return self.model.config

    @property
    def vocab_size(self) -> int:
        return self.model.quantizer.vocab_size

    @property
    def num_levels(self) -> int:
        return self.model.quantizer.num_levels

    @property
    def frames_per_s(self) -> float:
        return self.config.rate_hz / self.config.hop

    def levels_for(self, kbps: float, channels: int = 1) -> int:
        """The most levels that stay within a rate for all channels together.

        Raises:
            UsageError: a rate that is not positive and finite, or too low for one level.
        """
        if not 0 < kbps < math.inf:
            raise UsageError(f"a rate in kbit/s must be positive and finite, got {kbps:g}")
        level_kbps = self.config.kbps_per_level * channels
        levels = min(self.num_levels, int(kbps / level_kbps + 1e-6))
        if levels < 1:
            of = "one channel" if channels == 1 else f"{channels} channels together"
            raise UsageError(f"this tokenizer needs {level_kbps:.3g} kbit/s at least for {of}, got {kbps:.3g}")
        return levels

    def levels_kept(self, levels: int | None) -> int:
        """How many levels of tokens there will be: those asked for, or all for None.

        Raises:
            UsageError: levels that the tokenizer does not have.
        """
        if levels is None:
            return self.num_levels
        if not 1 <= levels <= self.num_levels:
            raise UsageError(f"this tokenizer has 1 to {self.num_levels} levels, got {levels}")
        return levels

    def encode(self, sound: Sound, levels: int | None = None) -> SoundTokens:
        """Tokens of a sound of any length, rate and channel count.

        Args:
            levels: first codebook levels to keep; fewer are fewer bits and a coarser sound. None keeps all.

        Raises:
            UsageError: levels that the tokenizer does not have.
        """
        expect(sound, Sound, "kinolex.read_sound(path) makes one of a file, Sound(samples_CS, rate_hz) of samples")
        pieces = list(self.encode_stream([sound], levels))
        ids_Qthw = torch.cat([piece.ids_Qthw for piece in pieces], dim=1)
        extent = SoundExtent(samples=sound.num_samples, rate_hz=sound.rate_hz)
        return Tokens(ids_Qthw, "sound", self.fingerprint, extent)

    def decode(self, tokens: SoundTokens) -> Sound:
        """The sound these tokens stand for, at its own rate and length.

        Raises:
            TokenError: tokens of another tokenizer or of pictures, ids outside the vocabulary, or a grid that does not
                fit the extent.
        """
        expect(tokens, Tokens, "encode makes them of a sound, kinolex.load_tokens(path) of a token file")
        pieces = [sound.samples_CS for sound in self.decode_stream([tokens])]
        empty_CS = torch.zeros(tokens.ids_Qthw.shape[3], 0)
        return Sound(torch.cat([empty_CS, *pieces], dim=1), tokens.extent.rate_hz)

    @torch.inference_mode()
    def encode_stream(self, sounds: Iterable[Sound], levels: int | None = None) -> Iterator[SoundTokens]:
        """Tokens block by block from pieces of one sound, cut anywhere.

        Yields:
            Tokens of one block; extent.samples counts what it stands for. Joined along time they equal encode of the
            joined sound; a sound without samples is one frame of tokens.

        Raises:
            ShapeError: a piece of another rate or channel count than the first.
            UsageError: levels that the tokenizer does not have.
        """
        levels = self.levels_kept(levels)
        block, cache = BLOCK_FRAMES * self.config.hop, StreamCache()
        first: Sound | None = None
        waiting_CS = torch.empty(0)
        blocks = given = total = 0
        for like, ready_CS, taken in self._at_own_rate(sounds):
            waiting_CS = ready_CS if first is None else torch.cat([waiting_CS, ready_CS], dim=1)
            first, total = like, taken
            # The last block answers for all that is left, so a block waits until there is a sample after it.
            while waiting_CS.shape[1] > block:
                blocks += 1
                samples = int(Fraction(blocks * block * first.rate_hz, self.config.rate_hz)) - given
                given += samples
                yield self._encode_block(waiting_CS[:, :block], levels, cache, samples, first.rate_hz)
                waiting_CS = waiting_CS[:, block:]
        if first is not None:
            yield self._encode_block(waiting_CS, levels, cache, total - given, first.rate_hz)

    def _at_own_rate(self, sounds: Iterable[Sound]) -> Iterator[tuple[Sound, Tensor, int]]:
        """The first piece, the next samples at the network's rate, and how many samples were taken so far."""
        first: Sound | None = None
        resampler: Resampler | None = None
        taken = 0
        for sound in sounds:
            if first is None or resampler is None:
                first = sound
                resampler = Resampler(sound.rate_hz, self.config.rate_hz, len(sound.samples_CS))
            if (sound.rate_hz, len(sound.samples_CS)) != (first.rate_hz, len(first.samples_CS)):
                raise ShapeError(f"every piece of a stream must be like the first, {first!r}, got {sound!r}")
            taken += sound.num_samples
            yield first, resampler.push(sound.samples_CS), taken
        if first is not None and resampler is not None:
            yield first, resampler.flush(), taken

    @torch.inference_mode()
    def decode_stream(self, tokens: Iterable[SoundTokens]) -> Iterator[Sound]:
        """Samples block by block from pieces of one token stream, cut anywhere along time.

        Raises:
            TokenError: as decode, or pieces that are unlike in levels, channels or rate.
        """
        cache = StreamCache()
        first: SoundTokens | None = None
        resampler: Resampler | None = None
        waiting_Qthw, ready_CS = torch.empty(0), torch.empty(0)
        due = 0
        for piece in tokens:
            self._check_tokens(piece, first)
            if first is None or resampler is None:
                first, waiting_Qthw = piece, piece.ids_Qthw[:, :0]
                channels = piece.ids_Qthw.shape[3]
                resampler = Resampler(self.config.rate_hz, piece.extent.rate_hz, channels)
                ready_CS = torch.zeros(channels, 0)
            due += piece.extent.samples
            waiting_Qthw = torch.cat([waiting_Qthw, piece.ids_Qthw], dim=1)
            while waiting_Qthw.shape[1] >= BLOCK_FRAMES:
                made_CS = self._decode_block(waiting_Qthw[:, :BLOCK_FRAMES], cache)
                waiting_Qthw = waiting_Qthw[:, BLOCK_FRAMES:]
                ready_CS = torch.cat([ready_CS, resampler.push(made_CS)], dim=1)
                if now := min(due, ready_CS.shape[1]):
                    yield Sound(ready_CS[:, :now].clamp(-1.0, 1.0), first.extent.rate_hz)
                    ready_CS, due = ready_CS[:, now:], due - now
        if first is None or resampler is None:
            return
        if waiting_Qthw.shape[1]:
            ready_CS = torch.cat([ready_CS, resampler.push(self._decode_block(waiting_Qthw, cache))], dim=1)
        ready_CS = torch.cat([ready_CS, resampler.flush()], dim=1)
        over = ready_CS.shape[1] - due
        if not -1 <= over <= Fraction(self.config.hop * first.extent.rate_hz, self.config.rate_hz) + 1:
            raise TokenError(
                f"the tokens stand for {abs(over)} samples {'more' if over > 0 else 'fewer'} than their extent; "
                "they were cut or joined wrongly"
            )
        if due:
            ready_CS = F.pad(ready_CS, (0, max(0, due - ready_CS.shape[1])))
            yield Sound(ready_CS[:, :due].clamp(-1.0, 1.0), first.extent.rate_hz)

    def _encode_block(
        self, samples_CS: Tensor, levels: int, cache: StreamCache, samples: int, rate_hz: int
    ) -> SoundTokens:
        hop = self.config.hop
        missing = -samples_CS.shape[1] % hop or (hop if samples_CS.shape[1] == 0 else 0)
        padded_C1S = F.pad(samples_CS, (0, missing)).unsqueeze(1)
        ids_CQt = self.model.encode_ids(padded_C1S.to(self.device), cache)[:, :levels]
        ids_Qthw = rearrange(ids_CQt, "c q t -> q t 1 c").cpu().contiguous()
        return Tokens(ids_Qthw, "sound", self.fingerprint, SoundExtent(samples=samples, rate_hz=rate_hz))

    def _decode_block(self, ids_Qthw: Tensor, cache: StreamCache) -> Tensor:
        ids_CQt = rearrange(ids_Qthw, "q t 1 c -> c q t").to(self.device)
        return self.model.decode(ids_CQt, cache).squeeze(1).cpu()

    def _check_tokens(self, piece: SoundTokens, first: SoundTokens | None) -> None:
        if piece.kind != "sound":
            raise TokenError(f"these are tokens of kind {piece.kind!r}, and a sound tokenizer decodes sound only")
        if piece.tokenizer != self.fingerprint:
            raise TokenError(
                f"these tokens were made by tokenizer {piece.tokenizer[:16]} but this one is {self.fingerprint[:16]}; "
                "load the tokenizer that made them, or encode the sound again with this one"
            )
        if piece.ids_Qthw.shape[0] > self.num_levels or int(piece.ids_Qthw.max()) >= self.vocab_size:
            raise TokenError(
                f"this tokenizer has {self.num_levels} levels of {self.vocab_size} ids, the tokens are {piece!r}; "
                "they are damaged"
            )
        if first is not None:
            ours, theirs = ((p.ids_Qthw.shape[::3], replace(p.extent, samples=0)) for p in (piece, first))
            if ours != theirs:
                raise TokenError(f"every piece of a stream must be like the first, {first!r}, got {piece!r}")

    def __repr__(self) -> str:
        config = self.config
        rate = f"{config.kbps_per_level:g} kbit/s for each of {self.num_levels} levels"
        return f"SoundTokenizer({config.rate_hz} Hz, {self.frames_per_s:g} frames/s, {rate}, {self.fingerprint[:12]})"

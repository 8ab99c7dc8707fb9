"""A trained autoencoder as a tokenizer: any clip in, the exact clip out, in one pass or as a stream.

    frames --blocks--> pad --> network with carried state --> ids per block --> Tokens

One-shot and streamed encoding run the very same blocks (a function of the position in the stream alone, however the
caller cuts it), so their ids are equal bit for bit on every device and in every precision, and memory does not grow
with length. Causal networks carry their left context from block to block; the others see independent windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from kinolex.errors import ShapeError, TokenError, UsageError
from kinolex.layers.conv3d import StreamCache, channels_last
from kinolex.layers.precision import is_bfloat16_native
from kinolex.tokenizers.base import check_fingerprint, move
from kinolex.tokenizers.networks import Network, NetworkConfig
from kinolex.tokenizers.quantizers import FiniteScalarQuantizer, Quantize, Quantized
from kinolex.tokenizers.recurrent import RecurrentAutoencoder
from kinolex.types import Clip, Extent, Tokens, expect

CAUSAL_BLOCK_LATENTS = 1
"""Latent frames per pass of a causal network: the delay of a stream is time_factor frames."""

WINDOW_FRAMES = 16
"""Frames per independent window of a network that is not causal, as in MAGVIT."""

Precision = Literal["auto", "float32", "bfloat16"]


ChooseDigits = Callable[[Tensor, int], Tensor]
"""(places_hwD, float32; rounded) -> digits_hwD, int64. Places lie on the axes of the digits of an id, least significant
first, within [0, levels - 1]; rounding them gives the plain digits. The first `rounded` digits are not free: whatever
comes back, they are rounded."""


class VideoTokenizer:
    """Tokenizer over a trained network.

    Args:
        model: trained network; put into evaluation mode.
        fingerprint: identifies its config and weights, see kinolex.checkpoint.
        precision: of the convolutions; "auto" is bfloat16 where the device computes it natively. Quantization and ids
            are float32 and int64 in any case. Ids may differ between precisions, never between chunkings.

    Source: design of MAGVIT-v2, arXiv 2310.05737: an image is a clip of one frame, 1 + 4t frames are 1 + t latents.
    """

    def __init__(self, model: Network, fingerprint: str, *, precision: Precision = "auto") -> None:
        self.model = channels_last(model.eval().requires_grad_(False))
        self.fingerprint = fingerprint
        self.device = torch.device("cpu")
        self.precision: Precision = precision

    def to(self, device: str | torch.device, *, precision: Precision | None = None) -> VideoTokenizer:
        """Move the network; returns self. Raises UsageError if the device cannot be used."""
        self.device = move(self.model, device)
        self.precision = precision or self.precision
        return self

    @property
    def config(self) -> NetworkConfig:
        return self.model.config

    @property
    def vocab_size(self) -> int:
        return self.model.quantizer.vocab_size

    @property
    def num_levels(self) -> int:
        return self.model.quantizer.num_levels

    @property
    def pixels_per_token(self) -> tuple[int, int, int]:
        return self.config.time_factor, self.config.space_factor, self.config.space_factor

    @property
    def weighs_rate(self) -> bool:
        """Whether rate_weight can be chosen when encoding: networks trained to weigh it."""
        return isinstance(self.model, RecurrentAutoencoder)

    def encode(self, clip: Clip, choose: ChooseDigits | None = None, *, rate_weight: float = 0.0) -> Tokens:
        """Tokens of a clip of any length and size.

        Args:
            clip: the right and bottom edges and the last frame are repeated up to whole tokens; sound is ignored.
            choose, rate_weight: as in encode_stream.

        Returns:
            Tokens whose extent remembers the clip's own frames, size and rate.
        """
        expect(clip, Clip, "kinolex.read(path) makes one of a file, Clip(frames_TCHW, fps) of uint8 pixels")
        pieces = list(self.encode_stream([clip], choose, rate_weight=rate_weight))
        ids_Qthw = torch.cat([piece.ids_Qthw for piece in pieces], dim=1)
        return Tokens(ids_Qthw, "video", self.fingerprint, clip.extent)

    def decode(self, tokens: Tokens) -> Clip:
        """The clip these tokens stand for, cropped to tokens.extent.

        Raises:
            TokenError: tokens of another tokenizer, ids outside the vocabulary, or a grid that does not fit the extent.
        """
        expect(tokens, Tokens, "encode makes them of a clip, kinolex.load_tokens(path) of a token file")
        frames_TCHW = torch.cat([clip.frames_TCHW for clip in self.decode_stream([tokens])])
        return Clip(frames_TCHW, tokens.extent.fps)

    @torch.inference_mode()
    def encode_stream(
        self, clips: Iterable[Clip], choose: ChooseDigits | None = None, *, rate_weight: float = 0.0
    ) -> Iterator[Tokens]:
        """Tokens block by block from pieces of one clip, cut anywhere.

        Args:
            choose: picks the digits of each latent frame instead of rounding, for encoders that weigh error and rate.
            rate_weight: from 0, the best picture, to 1, the tokens that take the fewest bits once entropy-coded;
                decoding is the same. Only where weighs_rate.

        Yields:
            Tokens of one block; extent.frames counts the block's real frames. Joined along time they equal encode of
            the joined clip. The delay is at most one block (4 frames for the causal presets).

        Raises:
            ShapeError: a piece of another size or rate than the first.
            UsageError: `choose` was given but the quantizer does not round digits (only finite scalar quantization
                does), or a rate_weight for a network that does not weigh rate.
        """
        if not 0.0 <= rate_weight <= 1.0:
            raise UsageError(f"rate_weight must be in 0..1, got {rate_weight}")
        if rate_weight and not self.weighs_rate:
            raise UsageError(f"a {type(self.model).__name__} does not weigh rate; leave rate_weight at 0")
        quantize = None if choose is None else self._choosing(choose)
        cache = StreamCache()
        first: Clip | None = None
        waiting_TCHW = torch.empty(0)
        for clip in clips:
            if first is None:
                first, waiting_TCHW = clip, clip.frames_TCHW[:0]
            if (clip.height, clip.width, clip.fps) != (first.height, first.width, first.fps):
                raise ShapeError(f"every piece of a stream must look like the first, {first!r}, got {clip!r}")
            waiting_TCHW = torch.cat([waiting_TCHW, clip.frames_TCHW])
            while len(waiting_TCHW) >= (size := self._block_frames(cache)):
                yield self._encode_block(waiting_TCHW[:size], first, cache, quantize, rate_weight)
                waiting_TCHW = waiting_TCHW[size:]
        if first is not None and len(waiting_TCHW):
            yield self._encode_block(waiting_TCHW, first, cache, quantize, rate_weight)

    def _choosing(self, choose: ChooseDigits) -> Quantize:
        quantizer = self.model.quantizer
        if not isinstance(quantizer, FiniteScalarQuantizer):
            raise UsageError(f"a {type(quantizer).__name__} has no places between its ids; choose a model with FSQ")

        def quantize(latents_BDthw: Tensor, rounded: int) -> Quantized:
            places_thwD = rearrange(quantizer.places(latents_BDthw), "1 d t h w -> t h w d").cpu()
            digits_thwD = torch.stack([choose(places_hwD, rounded) for places_hwD in places_thwD])
            digits_thwD[..., :rounded] = places_thwD[..., :rounded].round().long()
            return quantizer.at_digits(rearrange(digits_thwD, "t h w d -> 1 d t h w").to(self.device))

        return quantize

    @torch.inference_mode()
    def decode_stream(self, tokens: Iterable[Tokens]) -> Iterator[Clip]:
        """Frames block by block from pieces of one token stream, cut anywhere along time.

        Raises:
            TokenError: tokens of another tokenizer, ids outside the vocabulary, or a grid that does not fit the extent.
        """
        cache = StreamCache()
        first: Tokens | None = None
        waiting_Qthw = torch.empty(0)
        frames_due = 0
        block = CAUSAL_BLOCK_LATENTS if self.config.causal else WINDOW_FRAMES // self.config.time_factor
        for piece in tokens:
            self._check_tokens(piece, first)
            if first is None:
                first, waiting_Qthw = piece, piece.ids_Qthw[:, :0]
            frames_due += piece.extent.frames
            waiting_Qthw = torch.cat([waiting_Qthw, piece.ids_Qthw], dim=1)
            while waiting_Qthw.shape[1] >= block and frames_due > 0:
                clip = self._decode_block(waiting_Qthw[:, :block], first.extent, cache, frames_due)
                frames_due -= clip.num_frames
                waiting_Qthw = waiting_Qthw[:, block:]
                yield clip
        if first is not None and waiting_Qthw.shape[1] and frames_due > 0:
            clip = self._decode_block(waiting_Qthw, first.extent, cache, frames_due)
            frames_due -= clip.num_frames
            yield clip
        if frames_due:
            raise TokenError(f"the tokens end {frames_due} frames before their extent; the stream was probably cut")

    def _block_frames(self, cache: StreamCache) -> int:
        if not self.config.causal:
            return WINDOW_FRAMES
        carried = CAUSAL_BLOCK_LATENTS * self.config.time_factor
        return carried if cache else carried - self.config.time_factor + 1

    def _encode_block(
        self, frames_TCHW: Tensor, like: Clip, cache: StreamCache, quantize: Quantize | None, rate_weight: float
    ) -> Tokens:
        time, space = self.config.time_factor, self.config.space_factor
        frames = len(frames_TCHW)
        lead = 1 if self.config.causal and not cache else 0
        pad = (-(frames - lead) % time, -like.height % space, -like.width % space)
        pixels_BCTHW = rearrange(frames_TCHW, "t c h w -> 1 c t h w").to(self.device).float() / 127.5 - 1.0
        if any(pad):
            pixels_BCTHW = F.pad(pixels_BCTHW, (0, pad[2], 0, pad[1], 0, pad[0]), mode="replicate")
        with self.autocast():
            carried = cache if self.config.causal else None
            if isinstance(self.model, RecurrentAutoencoder):
                ids_BQthw = self.model.encode_ids(pixels_BCTHW, carried, quantize, rate_weight)
            else:
                ids_BQthw = self.model.encode_ids(pixels_BCTHW, carried, quantize)
        return Tokens(ids_BQthw[0].cpu(), "video", self.fingerprint, replace(like.extent, frames=frames))

    def _decode_block(self, ids_Qthw: Tensor, extent: Extent, cache: StreamCache, frames_due: int) -> Clip:
        latents_BDthw = self.model.quantizer.latents_from_ids(ids_Qthw.unsqueeze(0).to(self.device))
        with self.autocast():
            pixels_BCTHW = self.model.decode(latents_BDthw, cache if self.config.causal else None)
        pixels_CTHW = pixels_BCTHW[0, :, :frames_due, : extent.height, : extent.width].float()
        frames_CTHW = ((pixels_CTHW + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return Clip(rearrange(frames_CTHW, "c t h w -> t c h w").cpu().contiguous(), extent.fps)

    def _check_tokens(self, piece: Tokens, first: Tokens | None) -> None:
        check_fingerprint(piece, self.fingerprint)
        ids_Qthw, extent = piece.ids_Qthw, piece.extent
        _, space_h, space_w = self.pixels_per_token
        grid = (self.num_levels, -(-extent.height // space_h), -(-extent.width // space_w))
        if (ids_Qthw.shape[0], *ids_Qthw.shape[2:]) != grid:
            raise TokenError(
                f"the token grid {tuple(ids_Qthw.shape)} does not fit {extent.width}x{extent.height} pixels, "
                f"which need "
                f"{grid[0]} levels of {grid[1]}x{grid[2]} tokens; the file is damaged or its extent was changed"
            )
        if int(ids_Qthw.max()) >= self.vocab_size:
            raise TokenError(f"id {int(ids_Qthw.max())} is outside this tokenizer's vocabulary of {self.vocab_size}")
        if first is not None and replace(extent, frames=1) != replace(first.extent, frames=1):
            raise TokenError(f"every piece of a stream must have the extent of the first, {first.extent}, got {extent}")

    def autocast(self) -> torch.autocast:
        native = self.precision == "bfloat16" or (self.precision == "auto" and is_bfloat16_native(self.device))
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=native)

    def __repr__(self) -> str:
        time, rows, columns = self.pixels_per_token
        bits = (self.vocab_size - 1).bit_length() * self.num_levels
        return f"VideoTokenizer({time}x{rows}x{columns} pixels per token, {bits} bits, {self.fingerprint[:12]})"

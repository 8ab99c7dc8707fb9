"""Twice the lines, made in token space: any video in, one of twice its rows and columns out.

    clips --encode_stream--> small tokens --stretch by stretch, sample_parallel--> large tokens --decode_stream--> clips

Stretches overlap in latent frames: what one settled is given to the next as it is. Memory does not grow with the length
of a video, and grows with the size of its pictures only as their number of tokens does.

Source: VideoPoet, arXiv 2312.14125, section 3.4.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from kinolex import checkpoint, hub
from kinolex.api import OnFrames, refuse_same, reported, write_stream
from kinolex.errors import ConfigError, TokenError, UsageError
from kinolex.generation.multimodal import MultimodalGenerator
from kinolex.generation.targets import check_pictures
from kinolex.generation.windows import window_seed
from kinolex.masks import HIDDEN
from kinolex.media import VideoReader
from kinolex.media.sound import track_of
from kinolex.models.factors import join_ids, split_ids
from kinolex.models.super_resolution import FACTOR, SuperResolution, SuperResolutionConfig
from kinolex.sampling.choose import Choice
from kinolex.sampling.parallel import FactorLogits, LogitsFn, ParallelConfig, guided, sample_parallel
from kinolex.tokenizers.base import check_fingerprint
from kinolex.tokenizers.video import Precision, VideoTokenizer
from kinolex.types import Clip, Extent, Tokens

DEFAULT = "upscale-world-nano"
OVERLAP = 1
"""Latent frames that a stretch takes over from the one before."""


def _few_passes() -> ParallelConfig:
    return ParallelConfig(steps=8, choice=Choice(temperature=0.5), settle_temperature=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaleConfig:
    """How large tokens are drawn."""

    sampling: ParallelConfig = field(default_factory=_few_passes)
    guidance: float = 0.0
    """Push away from what would be made without the small tokens; doubles the work."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.guidance < math.inf:
            raise UsageError(f"guidance must be 0 or more and finite, got {self.guidance}")


class Upscaler:
    """A super-resolution network and the tokenizer whose ids it knows.

    Raises:
        ConfigError: they do not belong together.
    """

    def __init__(self, model: SuperResolution, tokenizer: VideoTokenizer, fingerprint: str) -> None:
        if model.config.tokenizer != tokenizer.fingerprint:
            raise ConfigError(
                f"this network knows the ids of tokenizer {model.config.tokenizer[:12]}, not of "
                f"{tokenizer.fingerprint[:12]}; load the one it was trained with"
            )
        if not tokenizer.config.causal or math.prod(model.config.factors) != tokenizer.vocab_size:
            raise ConfigError(
                f"super-resolution of factors {model.config.factors} needs a causal tokenizer with as many ids, got "
                f"{tokenizer}"
            )
        self.model = model.eval().requires_grad_(False)
        self.tokenizer, self.fingerprint = tokenizer, fingerprint

    @property
    def config(self) -> SuperResolutionConfig:
        return self.model.config

    def to(self, device: str | torch.device) -> Upscaler:
        """Move both networks; returns self. Raises UsageError if the device cannot be used."""
        self.tokenizer.to(device)
        self.model.to(device)
        return self

    def upscale(self, tokens: Tokens, config: UpscaleConfig | None = None) -> Tokens:
        """Tokens of a clip of twice the rows and columns. Raises TokenError as upscale_stream does."""
        pieces = list(self.upscale_stream([tokens], config))
        ids_Qthw = torch.cat([piece.ids_Qthw for piece in pieces], dim=1)
        return Tokens(ids_Qthw, "video", tokens.tokenizer, replace(pieces[0].extent, frames=tokens.extent.frames))

    def upscale_stream(
        self,
        pieces: Iterable[Tokens],
        config: UpscaleConfig | None = None,
        *,
        on_pass: Callable[[], None] = lambda: None,
    ) -> Iterator[Tokens]:
        """The same tokens as upscale, stretch by stretch, from pieces of one token stream cut anywhere along time.

        Args:
            on_pass: called after each pass of the network.

        Raises:
            TokenError: tokens of another tokenizer, or pieces of different sizes.
        """
        config, length = config or UpscaleConfig(), self.config.latent_frames
        overlap = min(OVERLAP, length - 1)
        # What is known from latent frame `start` on: all small tokens, and the large ones of the first `settled`.
        small_thw, large_thw, start, settled = torch.empty(0), torch.empty(0), 0, 0
        extent, frames_in, frames_out = None, 0, 0
        for piece in pieces:
            check_fingerprint(piece, self.tokenizer.fingerprint)
            new_thw = piece.ids_Qthw[0]
            if extent is None:
                extent, small_thw = piece.extent, new_thw[:0]
                large_thw = new_thw.new_empty(0, FACTOR * new_thw.shape[1], FACTOR * new_thw.shape[2])
            if replace(piece.extent, frames=1) != replace(extent, frames=1):
                raise TokenError(f"every piece must have the size and rate of the first, {extent}, got {piece.extent}")
            small_thw, frames_in = torch.cat([small_thw, new_thw]), frames_in + piece.extent.frames
            while len(small_thw) - max(0, settled - overlap) >= length:
                first = max(0, settled - overlap)
                made_thw = self._fill(small_thw, large_thw, slice(first, first + length), start, config, on_pass)
                fresh_thw = made_thw[settled - first :]
                yield (out := self._piece(fresh_thw, extent, frames_out, frames_in))
                frames_out += out.extent.frames
                large_thw, settled = torch.cat([large_thw, fresh_thw]), first + length
                # A last stretch that begins earlier needs no more than this.
                gone = max(0, settled - length + 1)
                small_thw, large_thw = small_thw[gone:], large_thw[gone:]
                start, settled = start + gone, settled - gone
        if extent is not None and settled < len(small_thw):
            first = max(0, len(small_thw) - length)
            made_thw = self._fill(small_thw, large_thw, slice(first, len(small_thw)), start, config, on_pass)
            yield self._piece(made_thw[settled - first :], extent, frames_out, frames_in)

    def logits_fn(self, small_Bthw: Tensor, *, first: bool) -> LogitsFn:
        """What sampling asks: factors [B, L, F] of large tokens -> logits."""
        batch, length, rows, columns = small_Bthw.shape
        grid = (length, FACTOR * rows, FACTOR * columns)
        first_B = torch.full((batch,), first, device=small_Bthw.device)

        def logits_fn(ids_BLF: Tensor) -> FactorLogits:
            hidden_BL = (ids_BLF == HIDDEN).any(dim=-1)
            joined_BL = torch.where(hidden_BL, HIDDEN, join_ids(ids_BLF.clamp(min=0), self.config.factors))
            with self.tokenizer.autocast():
                hidden_BLD = self.model.hidden(joined_BL.reshape(batch, *grid), small_Bthw, first_B)

            def factor_logits(factor: int, chosen_BLF: Tensor) -> Tensor:
                with self.tokenizer.autocast():
                    return self.model.logits(hidden_BLD, factor, chosen_BLF)

            return factor_logits

        return logits_fn

    def _fill(
        self,
        small_thw: Tensor,
        large_thw: Tensor,
        part: slice,
        start: int,
        config: UpscaleConfig,
        on_pass: Callable[[], None],
    ) -> Tensor:
        """All large ids of one stretch, `part` of what is known from latent frame `start` of the stream on."""
        device, factors = self.tokenizer.device, self.config.factors
        small_Bthw, known_thw = small_thw[part][None].to(device), large_thw[part]
        _, length, rows, columns = small_Bthw.shape
        shown_thw = known_thw.new_full((length, FACTOR * rows, FACTOR * columns), HIDDEN)
        shown_thw[: len(known_thw)] = known_thw
        first = start + part.start == 0
        logits_fn = self.logits_fn(small_Bthw, first=first)
        if config.guidance:
            nothing = self.logits_fn(torch.full_like(small_Bthw, HIDDEN), first=first)
            logits_fn = guided(logits_fn, nothing, config.guidance)
        filled_BLF = sample_parallel(
            logits_fn,
            split_ids(shown_thw.flatten(), factors)[None].to(device),
            config.sampling,
            torch.Generator().manual_seed(window_seed(config.seed, start + part.start)),
            fixed_L=(shown_thw != HIDDEN).flatten(),
            on_step=lambda _number, _passes, _factors_BLF: on_pass(),
        )
        ids_L = join_ids(filled_BLF[0], factors).cpu()
        return rearrange(ids_L, "(t h w) -> t h w", t=length, h=FACTOR * rows)

    def _piece(self, ids_thw: Tensor, extent: Extent, done: int, known: int) -> Tokens:
        """Large ids as a piece of a stream after `done` of its frames; `known` frames there are at least."""
        factor, space_h, space_w = self.tokenizer.pixels_per_token
        frames = min(len(ids_thw) * factor - (0 if done else factor - 1), known - done)
        extent = replace(extent, frames=frames, height=FACTOR * extent.height, width=FACTOR * extent.width)
        # Small tokens at the edges stand for padding, too; twice as many can be more than the large picture has.
        rows, columns = -(-extent.height // space_h), -(-extent.width // space_w)
        ids_Qthw = ids_thw[None, :, :rows, :columns].contiguous()
        return Tokens(ids_Qthw, "video", self.tokenizer.fingerprint, extent)


class EnlargingTokenizer(VideoTokenizer):
    """The upscaler's tokenizer with a decoder that makes twice the rows and columns: for whatever makes small tokens.

    Its tokens and its encoder are those of the small pictures; extents say the small size, decoded clips have twice it.
    """

    def __init__(self, upscaler: Upscaler, config: UpscaleConfig | None = None) -> None:
        small = upscaler.tokenizer
        super().__init__(small.model, small.fingerprint, precision=small.precision)
        self.device = small.device
        self.upscaler, self.upscale_config = upscaler, config or UpscaleConfig()

    def to(self, device: str | torch.device, *, precision: Precision | None = None) -> EnlargingTokenizer:
        """Move all networks; returns self. Raises UsageError if the device cannot be used."""
        self.upscaler.to(device)
        super().to(device, precision=precision)
        return self

    def decode_stream(self, tokens: Iterable[Tokens]) -> Iterator[Clip]:
        """As VideoTokenizer.decode_stream, at twice the size."""
        return super().decode_stream(self.upscaler.upscale_stream(tokens, self.upscale_config))


def enlarging(
    generator: MultimodalGenerator, upscaler: Upscaler, config: UpscaleConfig | None = None
) -> MultimodalGenerator:
    """A generator that goes on from its small tokens to pictures of twice their size.

    Raises:
        ConfigError: the upscaler knows other tokens than the generator makes.
    """
    video = EnlargingTokenizer(upscaler, config)
    return MultimodalGenerator(generator.model, video, generator.sound, generator.fingerprint)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaleReport:
    """What was made; all figures are of this run."""

    source: str
    target: str
    model: str
    frames: int
    height: int
    """Of the result."""
    width: int
    fps: str
    sound: str
    tokens_given: int
    tokens_made: int
    passes: int
    """Of the network, over all stretches; guidance asks twice and counts once."""
    seed: int
    seconds: float
    frames_per_second: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def load_upscaler(name: str | Path = DEFAULT, tokenizer: str | Path | None = None) -> Upscaler:
    """The upscaler behind a name.

    Args:
        name: shipped name, folder or hub repository.
        tokenizer: the one that it was trained with; None searches the shipped ones.

    Raises:
        UnknownModel: nothing has that name, or its tokenizer is not among the shipped ones.
        CheckpointError, ConfigError: damaged, no super-resolution, or made for another tokenizer.
    """
    model, fingerprint = checkpoint.load_module(
        hub.locate(name, checkpoint.SUPER_RESOLUTION), checkpoint.SUPER_RESOLUTION
    )
    assert isinstance(model, SuperResolution)
    return Upscaler(model, hub.load(tokenizer or hub.name_of(model.config.tokenizer)), fingerprint)


def upscale(
    source: str | Path,
    target: str | Path,
    upscaler: Upscaler,
    config: UpscaleConfig | None = None,
    *,
    model_name: str = "",
    on_frames: OnFrames = lambda _done, _total: None,
) -> UpscaleReport:
    """A file to a file of twice its rows and columns; its sound goes along, coded anew.

    Args:
        source: any video, GIF or image; it is encoded at its own size.
        target: .mp4, .webm, .gif, or an image suffix when the source is an image.
        on_frames: called as frames are finished.

    Raises:
        UsageError: the target is the source.
        KinolexError: of the media and tokenizer layers; no partial target is left.
    """
    source, target, config = Path(source), Path(target), config or UpscaleConfig()
    refuse_same(source, target)
    began, passes, given, made = time.monotonic(), 0, 0, 0

    def on_pass() -> None:
        nonlocal passes
        passes += 1

    def small(reader: VideoReader) -> Iterator[Tokens]:
        nonlocal given
        for piece in upscaler.tokenizer.encode_stream(reader):
            given += piece.num_tokens
            yield piece

    def large(pieces: Iterator[Tokens]) -> Iterator[Tokens]:
        nonlocal made
        for piece in upscaler.upscale_stream(pieces, config, on_pass=on_pass):
            made += piece.num_tokens
            yield piece

    with VideoReader(source) as reader:
        check_pictures(target, reader.info.frames or 1, reader.fps)
        heard = reader.info.sound_codec is not None
        sound = track_of(source, start_s=reader.origin_s, length_s=None) if heard else None
        clips = upscaler.tokenizer.decode_stream(large(small(reader)))
        extent = write_stream(reported(clips, reader.info.frames, on_frames), target, sound)
    seconds = time.monotonic() - began
    return UpscaleReport(
        source=source.name,
        target=target.name,
        model=model_name or upscaler.fingerprint[:12],
        frames=extent.frames,
        height=extent.height,
        width=extent.width,
        fps=str(extent.fps),
        sound="none" if sound is None else f"{sound.duration_s:.2f} s at {sound.rate_hz} Hz",
        tokens_given=given,
        tokens_made=made,
        passes=passes,
        seed=config.seed,
        seconds=seconds,
        frames_per_second=extent.frames / seconds,
    )

"""What every tokenizer offers, and a fake with the same face.

Clip --encode--> Tokens --decode--> Clip        the exact frames, rows, columns and rate come back
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange
from torch import nn

from kinolex.errors import TokenError, UsageError
from kinolex.types import Clip, Tokens


@runtime_checkable
class Tokenizer(Protocol):
    """Clip <-> Tokens. Sound is not looked at; it travels beside the tokens."""

    @property
    def fingerprint(self) -> str:
        """Identifies config and weights; stored in every Tokens and checked by decode."""
        ...

    @property
    def vocab_size(self) -> int:
        """Ids per codebook level."""
        ...

    @property
    def pixels_per_token(self) -> tuple[int, int, int]:
        """(frames, rows, columns) of pixels behind one token."""
        ...

    def encode(self, clip: Clip) -> Tokens:
        """Tokens of a clip of any length, size and rate; pads inside, never resizes."""
        ...

    def decode(self, tokens: Tokens) -> Clip:
        """The clip, cropped to tokens.extent. Raises TokenError for another tokenizer's tokens."""
        ...

    def encode_stream(self, clips: Iterable[Clip]) -> Iterator[Tokens]:
        """The same ids as encode of the joined clip, piece by piece, in constant memory."""
        ...

    def decode_stream(self, tokens: Iterable[Tokens]) -> Iterator[Clip]:
        """The same frames as decode of the joined tokens, piece by piece, in constant memory."""
        ...


class IdentityTokenizer:
    """One token per pixel, the 24-bit colour itself: lossless, for tests of everything around a tokenizer."""

    fingerprint = "identity"
    vocab_size = 2**24
    pixels_per_token = (1, 1, 1)

    def encode(self, clip: Clip) -> Tokens:
        weights_C = torch.tensor([65536, 256, 1])
        ids_THW = (clip.frames_TCHW.long() * rearrange(weights_C, "c -> 1 c 1 1")).sum(dim=1)
        return Tokens(rearrange(ids_THW, "t h w -> 1 t h w"), "video", self.fingerprint, clip.extent)

    def decode(self, tokens: Tokens) -> Clip:
        check_fingerprint(tokens, self.fingerprint)
        ids_T1HW = rearrange(tokens.ids_Qthw, "1 t h w -> t 1 h w")
        frames_TCHW = torch.cat([ids_T1HW >> 16, (ids_T1HW >> 8) & 255, ids_T1HW & 255], dim=1).to(torch.uint8)
        return Clip(frames_TCHW, tokens.extent.fps)

    def encode_stream(self, clips: Iterable[Clip]) -> Iterator[Tokens]:
        return map(self.encode, clips)

    def decode_stream(self, tokens: Iterable[Tokens]) -> Iterator[Clip]:
        return map(self.decode, tokens)


def check_fingerprint(tokens: Tokens, fingerprint: str) -> None:
    if tokens.tokenizer != fingerprint:
        raise TokenError(
            f"these tokens were made by tokenizer {tokens.tokenizer[:16]} but this one is {fingerprint[:16]}; "
            "load the tokenizer that made them, or encode the clip again with this one"
        )


def move(model: nn.Module, device: str | torch.device) -> torch.device:
    """A network onto a device, which is returned. Raises UsageError if it cannot be used."""
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {device} cannot be used here ({error}); try --device cpu") from error
    return torch.device(device)

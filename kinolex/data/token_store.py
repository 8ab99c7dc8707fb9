"""Tokens in a safetensors file: ids in the smallest integer type, everything else as metadata.

    ids (Q t h w) + {"format", "kind": "video", "tokenizer", "frames", "height", "width", "fps"}
                  + {"format", "kind": "sound", "tokenizer", "samples", "rate_hz"}

Nothing is entropy-coded here; the file is for exchange with other programs. Tokens of pictures carry no sound.
"""

from __future__ import annotations

import re
from dataclasses import fields
from fractions import Fraction
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from kinolex.errors import KinolexError, MissingFile, TokenError
from kinolex.media.opening import replacing
from kinolex.tensor_files import tensor_bytes
from kinolex.types import Extent, SoundExtent, Tokens

FORMAT = "kinolex-tokens-1"
DTYPES = (torch.uint8, torch.int16, torch.int32, torch.int64)


def save_tokens(tokens: Tokens | Tokens[SoundExtent], path: str | Path) -> None:
    """Write tokens; the file appears whole or not at all."""
    path, extent = Path(path), tokens.extent
    largest = int(tokens.ids_Qthw.max())
    dtype = next(dtype for dtype in DTYPES if largest <= torch.iinfo(dtype).max)
    metadata = {
        "format": FORMAT,
        "kind": tokens.kind,
        "tokenizer": tokens.tokenizer,
    } | {field.name: str(getattr(extent, field.name)) for field in fields(extent)}
    with replacing(path) as temporary:
        # Not save_file, whose files only their owner may read.
        temporary.write_bytes(tensor_bytes({"ids": tokens.ids_Qthw.to(dtype).contiguous()}, metadata))


def load_picture_tokens(path: str | Path) -> Tokens:
    """Read tokens of pictures.

    Raises:
        MissingFile: no such file.
        TokenError: the file is damaged or holds something else, such as tokens of sound.
    """
    tokens = load_tokens(path)
    if isinstance(tokens.extent, SoundExtent):
        raise TokenError(f"{path} holds tokens of sound, and those of pictures are needed; decode it into a .wav file")
    return tokens  # type: ignore[return-value]  # their extent was looked at


def load_tokens(path: str | Path) -> Tokens | Tokens[SoundExtent]:
    """Read tokens of pictures or of sound.

    Raises:
        MissingFile: no such file.
        TokenError: the file is damaged or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"no token file at {path}")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise TokenError(f"{path} is a safetensors file but holds no tokens of format {FORMAT}")
            ids_Qthw = file.get_tensor("ids").long()
        if metadata.get("kind") == "sound":
            samples = SoundExtent(samples=int(metadata["samples"]), rate_hz=int(metadata["rate_hz"]))
            return Tokens(ids_Qthw, "sound", metadata["tokenizer"], samples)
        extent = Extent(
            frames=int(metadata["frames"]),
            height=int(metadata["height"]),
            width=int(metadata["width"]),
            fps=_rate(metadata["fps"]),
        )
        return Tokens(ids_Qthw, "video", metadata["tokenizer"], extent)
    except TokenError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, ZeroDivisionError, KinolexError) as error:
        raise TokenError(f"{path} is no whole token file ({error}); encode the clip again") from error


def _rate(text: str) -> Fraction:
    # Fraction would also take "1e999999999" and work for hours.
    if not re.fullmatch("[0-9]+(/[0-9]+)?", text):
        raise ValueError(f"fps must be a fraction such as 30000/1001, got {text!r}")
    return Fraction(text)

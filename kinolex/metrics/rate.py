"""What a clip costs."""

from __future__ import annotations

import math

from kinolex.errors import UsageError


def bits_per_pixel(num_bytes: int, num_pixels: int) -> float:
    """Bits per pixel of all frames.

    Args:
        num_bytes: of the whole file or payload; say which where the figure is shown.
        num_pixels: frames x rows x columns of the original, see Extent.pixels.

    Raises:
        UsageError: a negative size or no pixels.
    """
    if num_bytes < 0 or num_pixels < 1:
        raise UsageError(f"bits per pixel need num_bytes >= 0 and num_pixels >= 1, got {num_bytes} and {num_pixels}")
    return 8.0 * num_bytes / num_pixels


def raw_token_bytes(num_tokens: int, vocab_size: int) -> int:
    """Bytes of tokens written plainly, log2(vocab_size) bits each: no entropy coding, no header.

    Raises:
        UsageError: a negative number of tokens or a vocabulary of less than 2.
    """
    if num_tokens < 0 or vocab_size < 2:
        raise UsageError(f"need num_tokens >= 0 and vocab_size >= 2, got {num_tokens} and {vocab_size}")
    return math.ceil(num_tokens * math.log2(vocab_size) / 8.0)


def raw_bits_per_pixel(vocab_size: int, pixels_per_token: tuple[int, int, int], *, num_levels: int = 1) -> float:
    """Bits per pixel of plain tokens on a long clip whose sides are whole tokens: 18 bits per 4x8x8 are 0.070."""
    if vocab_size < 2 or min(pixels_per_token) < 1 or num_levels < 1:
        raise UsageError(f"cannot rate {num_levels} levels of {vocab_size} ids per {pixels_per_token} pixels")
    return num_levels * math.log2(vocab_size) / math.prod(pixels_per_token)

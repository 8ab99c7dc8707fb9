"""The exact frame rate as a tag, for containers whose clocks cannot express it.

WebM counts nanoseconds per frame and GIF hundredths of a second, so a short GIF of 29.97 fps looks like one of 30. The
writer therefore leaves the exact fraction in the file's metadata; the reader believes it only if the timestamps agree.
"""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

from av.container import InputContainer

RATE_KEY = "KINOLEX_FPS"
_GIF_HEADER_BYTES = 13
_GIF_COMMENT = b"\x21\xfe"
_HEAD_BYTES = 1024
_BLOCK_BYTES = 1 << 20


def add_to_gif(file: Path, fps: Fraction) -> None:
    """Put a comment block with the rate behind the header and the global palette of a GIF."""
    text = f"{RATE_KEY}={fps}".encode()
    if len(text) > 255:
        return
    comment = _GIF_COMMENT + bytes([len(text)]) + text + b"\0"
    with file.open("r+b") as stream:
        flags = stream.read(_GIF_HEADER_BYTES)[10]
        start = _GIF_HEADER_BYTES + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
        end = stream.seek(0, 2)
        # From the back, so that nothing is overwritten before it has been moved.
        while end > start:
            begin = max(start, end - _BLOCK_BYTES)
            stream.seek(begin)
            block = stream.read(end - begin)
            stream.seek(begin + len(comment))
            stream.write(block)
            end = begin
        stream.seek(start)
        stream.write(comment)


def stated_rate(container: InputContainer, file: Path) -> Fraction | None:
    """The rate that our writer left in a file, or None."""
    text = container.metadata.get(RATE_KEY)
    if container.format.name == "gif":
        with file.open("rb") as stream:
            _, found, rest = stream.read(_HEAD_BYTES).partition(f"{RATE_KEY}=".encode())
        text = rest.split(b"\0")[0].decode("ascii", "replace") if found else None
    # Fraction would also take "1e999999999" and work for hours.
    if text is None or not re.fullmatch("[0-9]{1,99}(/[0-9]{1,99})?", text):
        return None
    try:
        return Fraction(text)
    except ZeroDivisionError:
        return None

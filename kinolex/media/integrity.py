"""Does a file end where its own header says it ends?

FFmpeg reads a truncated file as far as it goes and often reports nothing. The containers below state their size, so
a cut can be told from a short clip without decoding.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_SEGMENT = 0x18538067
_EBML = 0x1A45DFA3
TAIL_BYTES = 64 * 1024
OGG_HEAD = 27
"""Bytes of a page before the sizes of its segments."""


def missing_bytes(file: Path) -> int | None:
    """How many bytes a file lacks at its end: 0 if complete or not tellable, None if it is cut by an unknown amount."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(16)
        stream.seek(0)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
            return _missing_boxes(stream, size)
        if head[:4] == b"\x1a\x45\xdf\xa3":
            return _missing_matroska(stream, size)
        if head[:4] == b"RIFF":
            stated = int.from_bytes(head[4:8], "little") + 8
            return max(stated - size, 0) if 8 < stated < 0xFFFFFFFF else 0
        if head[:4] == b"OggS":
            return 0 if _has_last_page(stream, size) else None
        if head[:4] in (b"GIF8", b"\x89PNG") or head[:3] == b"\xff\xd8\xff":
            return 0 if _has_ending(stream, size, head) else None
    return 0


def _has_last_page(stream: BinaryIO, size: int) -> bool:
    """Ogg: the last page says that it is the last, and is there as a whole. No page is larger than TAIL_BYTES."""
    stream.seek(max(0, size - TAIL_BYTES - OGG_HEAD))
    tail = stream.read()
    start = tail.rfind(b"OggS")
    head = tail[start : start + OGG_HEAD]
    if start < 0 or len(head) < OGG_HEAD or not head[5] & 4:
        return False
    sizes = tail[start + OGG_HEAD : start + OGG_HEAD + head[26]]
    return len(sizes) == head[26] and start + OGG_HEAD + len(sizes) + sum(sizes) <= len(tail)


def is_animated_webp(file: Path) -> bool:
    """True for a WebP file with more than one picture."""
    with file.open("rb") as stream:
        head = stream.read(21)
    return head[8:16] == b"WEBPVP8X" and bool(head[20:] and head[20] & 2)


def _missing_boxes(stream: BinaryIO, size: int) -> int:
    """MP4 and MOV: top-level boxes of 32 bit size and type; size 1 means a 64 bit size follows, 0 means to the end."""
    start = 0
    while start + 8 <= size:
        stream.seek(start)
        head = stream.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length == 0:
            return 0
        if length < 8:
            return 0  # not a box; what follows the media is no concern of ours
        if start + length > size:
            return start + length - size if head[4:8] in (b"mdat", b"moov", b"moof") else 0
        start += length
    return 0


def _missing_matroska(stream: BinaryIO, size: int) -> int:
    """Matroska and WebM: the Segment element states its length unless it was written as a live stream."""
    while True:
        element, _ = _varint(stream, keep_marker=True)
        length, unknown = _varint(stream, keep_marker=False)
        if element is None or length is None or unknown:
            return 0
        if element == _SEGMENT:
            return max(stream.tell() + length - size, 0)
        if element != _EBML or length > size:
            return 0
        stream.seek(length, 1)


def _varint(stream: BinaryIO, *, keep_marker: bool) -> tuple[int | None, bool]:
    """One EBML number and whether all its bits are set, which means "unknown"."""
    first = stream.read(1)
    if not first or first[0] == 0:
        return None, False
    length = 9 - first[0].bit_length()
    raw = first + stream.read(length - 1)
    if len(raw) < length:
        return None, False
    marker = 1 << (7 * length)
    value = int.from_bytes(raw, "big")
    plain = value & (marker - 1)
    return (value if keep_marker else plain), plain == marker - 1


def _has_ending(stream: BinaryIO, size: int, head: bytes) -> bool:
    """GIF, PNG and JPEG close with a fixed mark; some programs write padding behind it."""
    stream.seek(max(size - TAIL_BYTES, 0))
    tail = stream.read()
    if head[:4] == b"GIF8":
        return tail.rstrip(b"\0\r\n").endswith(b";")
    if head[:4] == b"\x89PNG":
        return b"IEND" in tail
    # An end mark before the last start of a scan belongs to a thumbnail.
    return tail.rfind(b"\xff\xd9") > tail.rfind(b"\xff\xda")

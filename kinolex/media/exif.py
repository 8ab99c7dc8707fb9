"""The orientation tag of photographs, read from the file's own bytes.

FFmpeg attaches EXIF data to the frames of an image, of a kind that PyAV cannot list; PyAV then refuses the display
matrix as well. The angle is still to be had, but not whether the picture is mirrored, so we look ourselves.
"""

from __future__ import annotations

import struct
from pathlib import Path

MAX_BYTES = 1 << 26
_ORIENTATION = 0x0112
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG", b"II*\0", b"MM\0*", b"BM")
_IMAGE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
_STARTS = ((b"Exif\0\0", 6), (b"eXIf", 4), (b"EXIF", 8))  # JPEG and most WebP, PNG chunk, WebP chunk


def is_image_file(file: Path) -> bool:
    """Whether a file begins as JPEG, PNG, WebP, TIFF, BMP, AVIF or HEIF do."""
    with file.open("rb") as stream:
        head = stream.read(12)
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    return head.startswith(_IMAGES) or (head[:4] == b"RIFF" and head[8:] == b"WEBP") or brand in _IMAGE_BRANDS


def exif_orientation(file: Path) -> int | None:
    """The tag's value, 1 to 8, or None if there is none."""
    with file.open("rb") as stream:
        data = stream.read(MAX_BYTES)
    if data[4:8] == b"ftyp":  # AVIF and HEIF turn by a box of their own, which FFmpeg gives as the frame's angle
        return None
    for mark, length in _STARTS:
        place = data.find(mark)
        if place >= 0:
            return _orientation_in(data[place + length :][: 1 << 16])
    return None


def _orientation_in(tiff: bytes) -> int | None:
    """Look through the first directory of a TIFF structure."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return None
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    if start + 2 > len(tiff):
        return None
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    for index in range(count):
        entry = start + 2 + 12 * index
        if entry + 12 > len(tiff):
            return None
        tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
        if tag == _ORIENTATION:
            return value if 1 <= value <= 8 else None
    return None

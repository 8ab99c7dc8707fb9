"""CRC-32C of overlapping spans of a stream, in time linear in the stream and not in the lengths of the spans.

    a stream   .....a..|.......|.......|...d....      | every BLOCK bytes, where the sum of all bytes so far is kept
    sum(a, d)       head, middle       , tail         head and tail are read, the middle comes from two kept sums

Two facts: sum(a, c) = moved(sum(a, b), c - b) ^ sum(b, c), where `moved` over zero bytes is linear over GF(2), so a
table for every power of two blocks suffices; and sums of empty spans are 0.

Source: Mark Adler's crc32_combine in zlib, for the polynomial of docs/bitstream.md.
"""

from __future__ import annotations

from array import array
from functools import cache

import google_crc32c

BLOCK = 1024
"""Bytes between two kept sums: 4 bytes are kept for so many, and up to twice as many are read for a span."""


class SpanSums:
    """Checksums of what a buffer begins with, while its front moves through a stream and never goes back."""

    def __init__(self) -> None:
        self._first = 0
        """The number of the block before which the first kept sum stands."""
        self._sums = array("I", [0])
        """Counted from anywhere: only differences matter."""

    def front(self, buffer: bytearray, position: int, length: int) -> int:
        """CRC-32C of the first `length` bytes of a buffer that begins at `position` of the stream."""
        first, last = -(-position // BLOCK), (position + length) // BLOCK
        if last - first < 2:
            return google_crc32c.value(bytes(memoryview(buffer)[:length]))
        self._keep(buffer, position, first, last)
        head = google_crc32c.value(bytes(buffer[: first * BLOCK - position]))
        before, behind = self._sums[first - self._first], self._sums[last - self._first]
        return google_crc32c.extend(
            moved(before ^ head, last - first) ^ behind, bytes(buffer[last * BLOCK - position : length])
        )

    def _keep(self, buffer: bytearray, position: int, first: int, last: int) -> None:
        """Sums from before block `first` to before block `last`; most are known already."""
        passed = first - self._first
        if passed >= len(self._sums):
            self._first, self._sums = first, array("I", [0])
        elif passed > len(self._sums) // 2:
            del self._sums[:passed]
            self._first = first
        for block in range(self._first + len(self._sums) - 1, last):
            at = block * BLOCK - position
            self._sums.append(google_crc32c.extend(self._sums[-1], bytes(buffer[at : at + BLOCK])))


def moved(checksum: int, blocks: int) -> int:
    """What a checksum contributes to that of its bytes and `blocks` more blocks."""
    power = 0
    while blocks:
        if blocks & 1:
            checksum = _apply(_tables(power), checksum)
        blocks, power = blocks >> 1, power + 1
    return checksum


def _apply(tables: list[list[int]], checksum: int) -> int:
    first, second, third, fourth = tables
    return first[checksum & 255] ^ second[checksum >> 8 & 255] ^ third[checksum >> 16 & 255] ^ fourth[checksum >> 24]


@cache
def _tables(power: int) -> list[list[int]]:
    """Of the move over 2^power blocks: what every value of every byte of a checksum becomes."""
    if power == 0:
        zeros = bytes(BLOCK)
        bits = [google_crc32c.extend(1 << bit, zeros) ^ google_crc32c.extend(0, zeros) for bit in range(32)]
    else:
        half = _tables(power - 1)
        bits = [_apply(half, _apply(half, 1 << bit)) for bit in range(32)]
    tables = []
    for byte in range(0, 32, 8):
        table = [0]
        for bit in bits[byte : byte + 8]:
            table += [value ^ bit for value in table]
        tables.append(table)
    return tables

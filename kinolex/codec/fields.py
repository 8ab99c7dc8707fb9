"""Numbers and checksums, the letters of a .klx file: written, and read from bytes that may be cut or hostile.

docs/bitstream.md, section 1.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left

import google_crc32c

from kinolex.errors import DamagedStream, UsageError

MOST_NUMBER = 2**48


def varint(value: int) -> bytes:
    """Seven bits per byte, least significant first; the top bit says that more follow."""
    if not 0 <= value <= MOST_NUMBER:
        raise UsageError(f"a .klx file holds numbers from 0 to {MOST_NUMBER}, got {value}")
    data = bytearray()
    while value >= 128:
        data.append(value & 127 | 128)
        value >>= 7
    data.append(value)
    return bytes(data)


def checksum_bytes(data: bytes) -> bytes:
    """CRC-32C, least significant byte first."""
    return google_crc32c.value(data).to_bytes(4, "little")


class Incomplete(Exception):
    """More bytes are needed."""


class Cursor:
    """Reads fields from the front of a buffer, or of a part of it."""

    def __init__(self, data: bytes | bytearray, position: int = 0, end: int | None = None) -> None:
        self.data, self.start, self.position = data, position, position
        self.end = len(data) if end is None else end

    def skip(self, count: int) -> None:
        if self.position + count > self.end:
            raise Incomplete
        self.position += count

    def take(self, count: int) -> bytes:
        self.skip(count)
        return bytes(memoryview(self.data)[self.position - count : self.position])

    def varint(self, limit: int = MOST_NUMBER) -> int:
        value, position = 0, self.position
        for shift in range(0, 56, 7):
            if position >= self.end:
                raise Incomplete
            byte = self.data[position]
            position += 1
            value |= (byte & 127) << shift
            if byte < 128:
                if (byte == 0 and shift) or value > limit:
                    raise DamagedStream(f"a number of {value} stands where at most {limit} can be; the file is damaged")
                self.position = position
                return value
        raise DamagedStream("a number has more than 56 bits; the file is damaged")


class IndexNumbers:
    """Where the numbers of an index end, each looked at once, in however many bytes they come and false ends overlap.

    A number ends with its first byte below 128, wherever it begins. So numbers of overlapping ends have the same ends.
    """

    def __init__(self) -> None:
        self._stops = array("Q", [0])
        """Where consecutive numbers end in the stream, after where the first one begins."""
        self._error: DamagedStream | None = None
        """What is wrong with the number after them."""

    def skip(self, cursor: Cursor, origin: int, count: int) -> None:
        """Move a cursor, whose data begin at `origin` of the stream and never before, over that many numbers."""
        start = origin + cursor.position
        if not self._stops[0] <= start <= self._stops[-1]:
            self._stops, self._error = array("Q", [start]), None
        passed = bisect_left(self._stops, start)
        if passed > len(self._stops) // 2:
            del self._stops[:passed]
            passed = 0
        ahead = Cursor(cursor.data, self._stops[-1] - origin)
        while len(self._stops) <= passed + count and self._error is None:
            try:
                ahead.varint(2**32)
                self._stops.append(origin + ahead.position)
            except DamagedStream as error:
                self._error = error
        if len(self._stops) <= passed + count:
            raise DamagedStream(str(self._error))
        cursor.position = self._stops[passed + count] - origin

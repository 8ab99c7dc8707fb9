"""The bytes of a .klx file: header, chunks that check themselves, and an index at the end.

    Header, Chunk, Chunk, ..., End --pack--> bytes --Parser.feed--> Header, Chunk, Chunk, ..., End

Written front to back without seeking, read the same way as bytes arrive. docs/bitstream.md is the normative text.
"""

from __future__ import annotations

import os
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import BinaryIO

import google_crc32c

from kinolex.codec.checksum import SpanSums
from kinolex.errors import DamagedStream, StreamError, TruncatedStream, UsageError

MAGIC = b"\x89KLX\r\n\x1a\n"
"""As in PNG: a byte above 127 and both line ends, so that transfers as text or as 7 bits are noticed."""
VERSION = 1
CHUNK_SYNC, END_SYNC = b"\xc5C", b"\xc5E"
TAIL = b"KLX\n"
COLOUR_SRGB = 1
FULL_SCALE = 16
"""Chunks are coded at scale / 16 of the stated size."""
LARGEST_SCALE = 256
PACKET_SAMPLES = 960
"""Samples of one Opus packet, 20 ms at 48 kHz."""
SOUND_RATE_HZ = 48_000
SLOWEST_SECONDS = 60
"""Longest time for which a picture of a video with sound may be shown: sound is given out with its picture."""
MOST_PACKETS, MOST_PACKET_BYTES = 2**20, 2**16
"""Of one chunk; the last chunk of a video holds all sound that goes on after the pictures."""
OPUS_MAGIC, OPUS_HEAD_BYTES = b"OpusHead", 19

_CONTINUED, _GEOMETRY, _SOUND = 1, 2, 4
_SYNC = re.compile(rb"\xc5[CE]")
"""Of a chunk or the end."""
MOST_NUMBER = 2**48
MOST_HEADER_BYTES = 2**12
_FIELD_BYTES = 64
"""More than all fields of a chunk or an end together, but for payload and index."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a reader accepts; a file that asks for more is refused before memory is given to it."""

    frame_pixels: int = 2**26
    """Rows times columns of a frame, at its stated and at its coded size."""
    chunk_bytes: int = 2**26
    """Of a payload."""
    chunks: int = 2**20
    """Of a file: what is kept for its index is 80 bytes for each."""
    chunk_tokens: int = 2**22
    """Ids of a chunk's token grid."""
    gap_frames: int = 2**18
    """Consecutive frames that are concealed where damage is tolerated."""
    gap_seconds: int = 3600

    @property
    def piece_bytes(self) -> int:
        """Of a header, a chunk or an end: more is never held back to wait for its checksum."""
        return max(MOST_HEADER_BYTES, self.chunk_bytes, 10 * self.chunks) + _FIELD_BYTES


@dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """Of one chunk: `frames` pictures are `latents` x `rows` x `columns` positions at `scale` / 16 of full size."""

    frames: int
    latents: int
    rows: int
    columns: int
    scale: int = FULL_SCALE

    @property
    def positions(self) -> int:
        return self.latents * self.rows * self.columns


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What holds for the whole file."""

    tokenizer: str
    """Fingerprint."""
    prior: bytes
    """16 bytes; zeros are the plain prior."""
    height: int
    width: int
    fps: Fraction
    vocab_size: int
    num_levels: int
    geometry: Geometry
    """Of most chunks; the others state their own."""
    opus_head: bytes = b""
    """The track's identification header, or nothing if there is no sound."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """One piece of the video that checks itself."""

    first_frame: int
    geometry: Geometry
    tokens: bytes
    packets: tuple[bytes, ...] = ()
    """Opus packets that complete the sound of this chunk; see packets_before."""
    continued: bool = False
    """The tokenizer and the prior go on from the chunk before; otherwise both begin anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """The index, and what is only known at the end."""

    lengths: tuple[int, ...]
    """Bytes of every chunk, from its sync bytes through its checksum."""
    frames: tuple[int, ...]
    sound_samples: int = 0
    """At 48 kHz, after the pre-skip of the Opus header."""


Item = Header | Chunk | End


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """Bytes that were skipped by a parser that tolerates damage."""

    reason: str


def scaled(size: int, scale: int) -> int:
    """Pixels of a side at scale / 16, at least one, halves rounded up."""
    return max(1, (size * scale + FULL_SCALE // 2) // FULL_SCALE)


def packets_before(frame: int, fps: Fraction, opus_head: bytes) -> int:
    """How many Opus packets it takes to hear everything before a frame: those of earlier chunks."""
    if frame == 0:
        return 0
    pre_skip = int.from_bytes(opus_head[10:12], "little")
    return -(-(frame * SOUND_RATE_HZ + pre_skip * fps) // (fps * PACKET_SAMPLES))


# --- writing ---


def pack_header(header: Header) -> bytes:
    """Magic, version, length, fields, checksum. Raises UsageError for what the fields cannot hold."""
    if len(header.prior) != 16 or len(header.opus_head) > 255 or not 1 <= header.num_levels <= 64:
        raise UsageError(
            f"a prior's fingerprint is 16 bytes, an Opus header at most 255, and ids have 1 to 64 levels, got {header}"
        )
    if reason := _unfit_sound(header.opus_head, header.fps):
        raise UsageError(f"the sound cannot be stored: {reason}")
    body = bytearray()
    tokenizer = _fingerprint_bytes(header.tokenizer)
    body += _varint(len(tokenizer)) + tokenizer + header.prior
    for value in (header.height, header.width, header.fps.numerator, header.fps.denominator, COLOUR_SRGB):
        body += _varint(value)
    body += _varint(header.vocab_size) + _varint(header.num_levels) + _pack_geometry(header.geometry)
    body += _varint(len(header.opus_head)) + header.opus_head
    data = MAGIC + bytes([VERSION]) + _varint(len(body)) + bytes(body)
    return data + _checksum(data)


def pack_chunk(chunk: Chunk, header: Header) -> bytes:
    """Sync bytes, fields, payload, checksum. Raises UsageError for sound that no reader takes."""
    if len(chunk.packets) > MOST_PACKETS or any(len(packet) > MOST_PACKET_BYTES for packet in chunk.packets):
        raise UsageError(f"a chunk holds up to {MOST_PACKETS} Opus packets of {MOST_PACKET_BYTES} bytes each")
    own = chunk.geometry != header.geometry
    flags = chunk.continued * _CONTINUED | own * _GEOMETRY | bool(chunk.packets) * _SOUND
    payload = bytearray()
    if chunk.packets:
        payload += _varint(len(chunk.packets))
        for packet in chunk.packets:
            payload += _varint(len(packet)) + packet
    payload += chunk.tokens
    data = CHUNK_SYNC + bytes([flags]) + _varint(chunk.first_frame)
    data += (_pack_geometry(chunk.geometry) if own else b"") + _varint(len(payload)) + bytes(payload)
    return data + _checksum(data)


def pack_end(end: End) -> bytes:
    """Sync bytes, index, checksum, and for readers that come from the back the length of all this."""
    data = END_SYNC + _varint(len(end.lengths))
    for length, frames in zip(end.lengths, end.frames, strict=True):
        data += _varint(length) + _varint(frames)
    data += _varint(end.sound_samples)
    data += _checksum(data)
    return data + len(data).to_bytes(4, "little") + TAIL


def _unfit_sound(opus_head: bytes, fps: Fraction) -> str:
    """What is wrong with a sound track, or nothing."""
    if opus_head and (len(opus_head) < OPUS_HEAD_BYTES or not opus_head.startswith(OPUS_MAGIC)):
        return f"its header of {len(opus_head)} bytes is not that of Opus"
    if opus_head and fps * SLOWEST_SECONDS < 1:
        return f"beside sound a picture is shown for {SLOWEST_SECONDS} s at most, not for {float(1 / fps):.0f} s"
    return ""


def _pack_geometry(geometry: Geometry) -> bytes:
    values = (geometry.frames, geometry.latents, geometry.rows, geometry.columns, geometry.scale)
    return b"".join(map(_varint, values))


def _fingerprint_bytes(fingerprint: str) -> bytes:
    """A SHA-256 in hex takes 32 bytes; any other name is written as text, which may not be 32 bytes long."""
    if len(fingerprint) == 64 and set(fingerprint) <= set("0123456789abcdef"):
        return bytes.fromhex(fingerprint)
    text = fingerprint.encode()
    if len(text) == 32 or len(text) > 255:
        raise UsageError(f"a tokenizer's fingerprint is 64 hex digits or another name up to 255 bytes, got {text!r}")
    return text


def _varint(value: int) -> bytes:
    """Seven bits per byte, least significant first; the top bit says that more follow."""
    if not 0 <= value <= MOST_NUMBER:
        raise UsageError(f"a .klx file holds numbers from 0 to {MOST_NUMBER}, got {value}")
    data = bytearray()
    while value >= 128:
        data.append(value & 127 | 128)
        value >>= 7
    data.append(value)
    return bytes(data)


def _checksum(data: bytes) -> bytes:
    return google_crc32c.value(data).to_bytes(4, "little")


# --- reading ---


class _Incomplete(Exception):
    """More bytes are needed."""


class _Cursor:
    """Reads fields from the front of a buffer, or of a part of it."""

    def __init__(self, data: bytes | bytearray, position: int = 0, end: int | None = None) -> None:
        self.data, self.position = data, position
        self.end = len(data) if end is None else end

    def skip(self, count: int) -> None:
        if self.position + count > self.end:
            raise _Incomplete
        self.position += count

    def take(self, count: int) -> bytes:
        self.skip(count)
        return bytes(memoryview(self.data)[self.position - count : self.position])

    def varint(self, limit: int = MOST_NUMBER) -> int:
        value, position = 0, self.position
        for shift in range(0, 56, 7):
            if position >= self.end:
                raise _Incomplete
            byte = self.data[position]
            position += 1
            value |= (byte & 127) << shift
            if byte < 128:
                if (byte == 0 and shift) or value > limit:
                    raise DamagedStream(f"a number of {value} stands where at most {limit} can be; the file is damaged")
                self.position = position
                return value
        raise DamagedStream("a number has more than 56 bits; the file is damaged")

    def geometry(self) -> Geometry:
        frames, latents, rows, columns, scale = (self.varint(2**32) for _ in range(5))
        return Geometry(frames=frames, latents=latents, rows=rows, columns=columns, scale=scale)


class _IndexNumbers:
    """Where the numbers of an index end, each looked at once, in however many bytes they come and false ends overlap.

    A number ends with its first byte below 128, wherever it begins. So numbers of overlapping ends have the same ends.
    """

    def __init__(self) -> None:
        self._stops = array("Q", [0])
        """Where consecutive numbers end in the stream, after where the first one begins."""
        self._error: DamagedStream | None = None
        """What is wrong with the number after them."""

    def skip(self, cursor: _Cursor, origin: int, count: int) -> None:
        """Move a cursor, whose data begin at `origin` of the stream and never before, over that many numbers."""
        start = origin + cursor.position
        if not self._stops[0] <= start <= self._stops[-1]:
            self._stops, self._error = array("Q", [start]), None
        passed = bisect_left(self._stops, start)
        if passed > len(self._stops) // 2:
            del self._stops[:passed]
            passed = 0
        ahead = _Cursor(cursor.data, self._stops[-1] - origin)
        while len(self._stops) <= passed + count and self._error is None:
            try:
                ahead.varint(2**32)
                self._stops.append(origin + ahead.position)
            except DamagedStream as error:
                self._error = error
        if len(self._stops) <= passed + count:
            raise DamagedStream(str(self._error))
        cursor.position = self._stops[passed + count] - origin


@dataclass
class Parser:
    """Bytes in, as they come; items out, each as soon as it is whole and its checksum right.

        for item in parser.feed(data): ...      then      for item in parser.finish(): ...

    Args:
        limits: larger files are refused.
        tolerate: skip damaged bytes and give a Damage in their place instead of an error.

    Raises (feed and finish):
        StreamError: not a .klx file, of another version, or over the limits.
        DamagedStream: a checksum or a field does not fit; everything before has been given out.
        TruncatedStream: finish without the end mark; everything whole has been given out.
    """

    limits: Limits = field(default_factory=Limits)
    tolerate: bool = False
    header: Header | None = None
    end: End | None = None
    position: int = 0
    """Bytes given out as items so far."""
    lengths: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    """Of the chunks so far."""
    _buffer: bytearray = field(default_factory=bytearray)
    _searching: bool = False
    """For the next sync, after damage."""
    _checked: int = 0
    """Bytes at the front of the buffer whose checksum fits."""
    _sums: SpanSums = field(default_factory=SpanSums)
    _numbers: _IndexNumbers = field(default_factory=_IndexNumbers)

    def feed(self, data: bytes) -> Iterator[Item | Damage]:
        """Items that these bytes complete."""
        self._buffer += data
        while (item := self._next(last=False)) is not None:
            yield item

    def finish(self) -> Iterator[Item | Damage]:
        """No more bytes will come."""
        while (item := self._next(last=True)) is not None:
            yield item
        if self.end is not None:
            return
        left = f"{len(self._buffer)} bytes of an unfinished piece follow" if self._buffer else "no end mark follows"
        if self.header is None:
            raise TruncatedStream(f"the .klx file ends inside its header; {left}; copy it again")
        message = f"the .klx file is cut after {len(self.lengths)} whole chunks: {left}; copy it again"
        if not self.tolerate:
            raise TruncatedStream(message)
        yield Damage(reason=message)

    def _next(self, *, last: bool) -> Item | Damage | None:
        if self.end is not None:
            if self._buffer and not self.tolerate:
                raise DamagedStream(f"{len(self._buffer)} foreign bytes follow the end of the .klx file")
            self._buffer.clear()
            return None
        if self._searching:
            self._find_sync()
        if self._searching:
            return None
        self._checked = 0
        try:
            item, size = self._parse()
        except _Incomplete:
            # A damaged length may claim bytes that will never come.
            return self._skip("a chunk claims more bytes than there are") if last and self._recoverable() else None
        except DamagedStream as error:
            if not self._recoverable():
                raise
            return self._skip(str(error))
        if isinstance(item, End):
            self._take_end(item)
        elif isinstance(item, Header):
            self.header = item
        else:
            _within(self.limits.chunks, len(self.lengths) + 1, "chunks")
            self.lengths.append(size)
            self.frames.append(item.geometry.frames)
        self._drop(size)
        return item

    def _take_end(self, end: End) -> None:
        same = (list(end.lengths), list(end.frames)) == (self.lengths, self.frames)
        if not ((same and self.lengths) or self.tolerate):
            raise DamagedStream(
                f"the index names {len(end.lengths)} chunks of {sum(end.lengths)} bytes and {sum(end.frames)} "
                f"frames, but {len(self.lengths)} of {sum(self.lengths)} and {sum(self.frames)} were read"
            )
        self.end = end

    def _parse(self) -> tuple[Item, int]:
        if self.header is None:
            return self._parse_header()
        cursor = _Cursor(self._buffer)
        sync = cursor.take(2)
        if sync == CHUNK_SYNC:
            return self._parse_chunk(cursor, self.header)
        if sync == END_SYNC:
            return self._parse_end(cursor)
        raise DamagedStream(f"after {len(self.lengths)} chunks neither a chunk nor the end begins; the file is damaged")

    def _parse_header(self) -> tuple[Header, int]:
        cursor = _Cursor(self._buffer)
        if not MAGIC.startswith(bytes(self._buffer[: len(MAGIC)])):
            raise StreamError("this is no .klx file: it does not begin as one; compress a video to get one")
        version = _Cursor(self._buffer, len(MAGIC)).take(1)[0]
        if version != VERSION:
            raise StreamError(f"this .klx file is of version {version}; this program reads version {VERSION}")
        cursor.position = len(MAGIC) + 1
        length = cursor.varint(MOST_HEADER_BYTES)
        body = _Cursor(cursor.take(length))
        self._check(cursor, "header")
        try:
            return self._header_fields(body), cursor.position
        except (_Incomplete, UnicodeDecodeError, ZeroDivisionError) as error:
            raise DamagedStream("the .klx header's fields do not fit its length; the file is damaged") from error

    def _header_fields(self, body: _Cursor) -> Header:
        name = body.take(body.varint(255))
        tokenizer = name.hex() if len(name) == 32 else name.decode()
        prior = body.take(16)
        height, width, numerator, denominator, colour, vocab_size, num_levels = (body.varint() for _ in range(7))
        geometry = body.geometry()
        opus_head = body.take(body.varint(255))
        if body.position != len(body.data):
            raise DamagedStream("the .klx header is longer than its fields; the file is damaged")
        if colour != COLOUR_SRGB:
            raise StreamError(f"this .klx file uses colour space {colour}; this program knows {COLOUR_SRGB} (sRGB)")
        if min(height, width, numerator, denominator, num_levels) < 1 or vocab_size < 2 or num_levels > 64:
            raise DamagedStream("the .klx header states an empty picture, rate or vocabulary; the file is damaged")
        _within(self.limits.frame_pixels, height * width, "pixels in a frame")
        header = Header(
            tokenizer=tokenizer,
            prior=prior,
            height=height,
            width=width,
            fps=Fraction(numerator, denominator),
            vocab_size=vocab_size,
            num_levels=num_levels,
            geometry=geometry,
            opus_head=opus_head,
        )
        if reason := _unfit_sound(opus_head, header.fps):
            raise DamagedStream(f"the .klx header states a sound that cannot be: {reason}; the file is damaged")
        self._check_geometry(geometry, header)
        return header

    def _parse_chunk(self, cursor: _Cursor, header: Header) -> tuple[Chunk, int]:
        flags = cursor.take(1)[0]
        first_frame = cursor.varint()
        geometry = cursor.geometry() if flags & _GEOMETRY else header.geometry
        length = cursor.varint()
        _within(self.limits.chunk_bytes, length, "bytes in a chunk", DamagedStream)
        payload = _Cursor(self._buffer, cursor.position, cursor.position + length)
        cursor.skip(length)
        self._check(cursor, f"chunk {len(self.lengths) + 1}")
        self._check_geometry(geometry, header)
        if flags & ~(_CONTINUED | _GEOMETRY | _SOUND):
            raise StreamError(f"a chunk has unknown flags {flags:#x}; the file is of a newer version")
        packets: list[bytes] = []
        if flags & _SOUND:
            try:
                packets = [payload.take(payload.varint(MOST_PACKET_BYTES)) for _ in range(payload.varint(MOST_PACKETS))]
            except _Incomplete:
                raise DamagedStream("a chunk's sound is longer than the chunk; the file is damaged") from None
            if not packets:
                raise DamagedStream("a chunk announces sound and has none; the file is damaged")
        chunk = Chunk(
            first_frame=first_frame,
            geometry=geometry,
            tokens=payload.take(payload.end - payload.position),
            packets=tuple(packets),
            continued=bool(flags & _CONTINUED),
        )
        return chunk, cursor.position

    def _parse_end(self, cursor: _Cursor) -> tuple[End, int]:
        count = cursor.varint()
        _within(self.limits.chunks, count, "chunks in its index", DamagedStream)
        pairs = _Cursor(self._buffer, cursor.position)
        self._numbers.skip(cursor, self.position, 2 * count)
        sound_samples = cursor.varint()
        self._check(cursor, "index")
        if cursor.take(4) != (cursor.position - 4).to_bytes(4, "little") or cursor.take(4) != TAIL:
            raise DamagedStream("the .klx file's last 8 bytes do not fit its index; the file is damaged")
        numbers = [pairs.varint() for _ in range(2 * count)]
        end = End(lengths=tuple(numbers[::2]), frames=tuple(numbers[1::2]), sound_samples=sound_samples)
        return end, cursor.position

    def _check(self, cursor: _Cursor, what: str) -> None:
        """Read the checksum over everything before the cursor."""
        stated = int.from_bytes(cursor.take(4), "little")
        if stated != self._sums.front(self._buffer, self.position, cursor.position - 4):
            raise DamagedStream(f"the checksum of the .klx file's {what} does not fit; the file is damaged")
        self._checked = cursor.position

    def _check_geometry(self, geometry: Geometry, header: Header) -> None:
        grid = (geometry.frames, geometry.latents, geometry.rows, geometry.columns)
        largest = scaled(header.height, geometry.scale), scaled(header.width, geometry.scale)
        fits = geometry.latents <= geometry.frames and geometry.rows <= largest[0] and geometry.columns <= largest[1]
        if min(grid) < 1 or not fits or not 1 <= geometry.scale <= LARGEST_SCALE:
            raise DamagedStream(
                f"a chunk of {geometry} does not fit {header.width}x{header.height}; the file is damaged"
            )
        _within(self.limits.frame_pixels, largest[0] * largest[1], "pixels in a coded frame")
        _within(self.limits.chunk_tokens, geometry.positions * header.num_levels, "tokens in a chunk")

    def _recoverable(self) -> bool:
        return self.tolerate and self.header is not None and bool(self._buffer)

    def _skip(self, reason: str) -> Damage:
        """Look for the next piece: behind this one if its checksum fits, otherwise from its second byte."""
        self._drop(max(1, self._checked))
        self._searching = True
        return Damage(reason=reason)

    def _find_sync(self) -> None:
        """Drop bytes up to the next place where something might begin, or all but half a sync."""
        if match := _SYNC.search(self._buffer):
            self._searching = False
            self._drop(match.start())
        else:
            self._drop(len(self._buffer) - self._buffer.endswith(CHUNK_SYNC[:1]))

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self.position += count


def _within(limit: int, value: int, what: str, error: type[StreamError] = StreamError) -> None:
    """DamagedStream is for what no checksum has confirmed yet."""
    if value > limit:
        raise error(
            f"the .klx file states {value} {what}, above the limit of {limit}; raise the limit if you trust the file"
        )


def parse(data: bytes, *, limits: Limits | None = None, tolerate: bool = False) -> Iterator[Item | Damage]:
    """All items of a file in memory. Errors as Parser."""
    parser = Parser(limits=limits or Limits(), tolerate=tolerate)
    yield from parser.feed(data)
    yield from parser.finish()


def read_index(file: BinaryIO, *, limits: Limits | None = None) -> tuple[End, int]:
    """The index of a file that can be sought in, and where it begins.

    Raises:
        TruncatedStream: the file does not end in an index. DamagedStream: its checksum does not fit.
        StreamError: it is larger than the limits.
    """
    parser = Parser(limits=limits or Limits())
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little") + 8
    if tail[4:] != TAIL or length > size:
        raise TruncatedStream("the .klx file does not end in its index; read it from the front, or copy it again")
    _within(parser.limits.piece_bytes, length, "bytes in its index")
    file.seek(size - length)
    parser._buffer += file.read(length)
    cursor = _Cursor(parser._buffer)
    try:
        if cursor.take(2) != END_SYNC:
            raise DamagedStream("the .klx file's last 8 bytes do not point to its index; read the file from the front")
        item, _ = parser._parse_end(cursor)
    except _Incomplete:
        raise DamagedStream("the .klx file's index is damaged; read the file from the front") from None
    if sum(item.lengths) > size - length:
        raise DamagedStream("the .klx file's index names more bytes than there are; read the file from the front")
    return item, size - length


def is_continued(chunk: bytes) -> bool:
    """Whether the packed chunk goes on from the one before."""
    return len(chunk) > 2 and bool(chunk[2] & _CONTINUED)

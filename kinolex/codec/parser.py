"""The bytes of a .klx file as they come, and out of them its records, each as soon as it is whole.

    bytes --Parser.feed--> Header, Chunk, Chunk, ..., End          front to back
    file --read_index--> End                                      from the back

docs/bitstream.md is the normative text, also for what is done about damage.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import BinaryIO

from kinolex.codec.checksum import SpanSums
from kinolex.codec.container import (
    CHUNK_SYNC,
    COLOUR_SRGB,
    CONTINUED,
    END_SYNC,
    GEOMETRY,
    LARGEST_SCALE,
    MAGIC,
    MOST_PACKET_BYTES,
    MOST_PACKETS,
    SOUND,
    TAIL,
    VERSION,
    Chunk,
    End,
    Geometry,
    Header,
    scaled,
)
from kinolex.codec.fields import Cursor, Incomplete, IndexNumbers
from kinolex.codec.sound_track import unfit_sound
from kinolex.errors import DamagedStream, StreamError, TruncatedStream

_SYNC = re.compile(rb"\xc5[CE]")
"""Of a chunk or the end."""
MOST_HEADER_BYTES = 2**12
_FIELD_BYTES = 64
"""More than all fields of a chunk or an end together, but for payload and index."""


NO_KLX = "this is no .klx file: it does not begin as one; compress a video to get one"


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a reader accepts; a file that asks for more is refused before memory is given to it."""

    frame_pixels: int = 2**26
    """Rows times columns of a frame, at its stated and at its coded size."""
    chunk_bytes: int = 2**26
    """Of a payload."""
    chunks: int = 2**20
    """Of a file: what is kept for its index is 80 bytes for each."""
    latent_positions: int = 2**20
    """Rows times columns of a token grid; 8192x4320 pixels at 8x8 a token are 552960."""
    chunk_tokens: int = 2**23
    """Ids of a chunk's token grid: 15 latent frames of that size. No payload is too short for them."""
    gap_frames: int = 2**18
    """Consecutive frames that are concealed where damage is tolerated."""
    gap_seconds: int = 3600

    @property
    def piece_bytes(self) -> int:
        """Of a header, a chunk or an end: more is never held back to wait for its checksum."""
        return max(MOST_HEADER_BYTES, self.chunk_bytes, 10 * self.chunks) + _FIELD_BYTES


Item = Header | Chunk | End


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """Bytes that were skipped by a parser that tolerates damage."""

    reason: str


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
    packets: int = 0
    """Of sound, in the chunks so far."""
    chunks_before: int = 0
    """Chunks that are not part of what is fed."""
    _buffer: bytearray = field(default_factory=bytearray)
    _searching: bool = False
    """For the next sync, after damage."""
    _checked: int = 0
    """Bytes at the front of the buffer whose checksum fits."""
    _sums: SpanSums = field(default_factory=SpanSums)
    _numbers: IndexNumbers = field(default_factory=IndexNumbers)

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
        except Incomplete:
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
            self.packets += len(item.packets)
        self._drop(size)
        return item

    def _take_end(self, end: End) -> None:
        same = (list(end.lengths), list(end.frames)) == (self.lengths, self.frames)
        if not ((same and self.lengths) or self.tolerate):
            raise DamagedStream(
                f"the index names {len(end.lengths)} chunks of {sum(end.lengths)} bytes and {sum(end.frames)} "
                f"frames, but {len(self.lengths)} of {sum(self.lengths)} and {sum(self.frames)} were read"
            )
        track = self.header.track if self.header is not None else None
        held = track.samples_in(self.packets) if track is not None else 0
        if end.sound_samples > held and not self.tolerate:
            raise DamagedStream(
                f"the .klx file promises {end.sound_samples} samples of sound, but its {self.packets} packets hold "
                f"{held} at most; the file is damaged"
            )
        self.end = end

    def _parse(self) -> tuple[Item, int]:
        if self.header is None:
            return self._parse_header()
        cursor = Cursor(self._buffer)
        sync = cursor.take(2)
        if sync == CHUNK_SYNC:
            return self._parse_chunk(cursor, self.header)
        if sync == END_SYNC:
            return self._parse_end(cursor)
        raise DamagedStream(f"after {len(self.lengths)} chunks neither a chunk nor the end begins; the file is damaged")

    def _parse_header(self) -> tuple[Header, int]:
        cursor = Cursor(self._buffer)
        if not MAGIC.startswith(bytes(self._buffer[: len(MAGIC)])):
            raise StreamError(NO_KLX)
        version = Cursor(self._buffer, len(MAGIC)).take(1)[0]
        if version != VERSION:
            raise StreamError(f"this .klx file is of version {version}; this program reads version {VERSION}")
        cursor.position = len(MAGIC) + 1
        length = cursor.varint(MOST_HEADER_BYTES)
        body = Cursor(cursor.take(length))
        self._check(cursor, "header")
        try:
            return self._header_fields(body), cursor.position
        except (Incomplete, UnicodeDecodeError, ZeroDivisionError) as error:
            raise DamagedStream("the .klx header's fields do not fit its length; the file is damaged") from error

    def _header_fields(self, body: Cursor) -> Header:
        name = body.take(body.varint(255))
        tokenizer = name.hex() if len(name) == 32 else name.decode()
        prior = body.take(16)
        height, width, numerator, denominator, colour, vocab_size, num_levels = (body.varint() for _ in range(7))
        geometry = _geometry(body)
        sound_head = body.take(body.varint(255))
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
            sound_head=sound_head,
        )
        if reason := unfit_sound(sound_head, header.fps):
            raise DamagedStream(f"the .klx header states a sound that cannot be: {reason}; the file is damaged")
        self._check_geometry(geometry, header)
        return header

    def _parse_chunk(self, cursor: Cursor, header: Header) -> tuple[Chunk, int]:
        flags = cursor.take(1)[0]
        first_frame = cursor.varint()
        geometry = _geometry(cursor) if flags & GEOMETRY else header.geometry
        length = cursor.varint()
        _within(self.limits.chunk_bytes, length, "bytes in a chunk", DamagedStream)
        payload = Cursor(self._buffer, cursor.position, cursor.position + length)
        cursor.skip(length)
        self._check(cursor, f"chunk {self.chunks_before + len(self.lengths) + 1}")
        self._check_geometry(geometry, header)
        if flags & ~(CONTINUED | GEOMETRY | SOUND):
            raise StreamError(f"a chunk has unknown flags {flags:#x}; the file is of a newer version")
        packets: list[bytes] = []
        if flags & SOUND:
            packets = _packets(payload)
        chunk = Chunk(
            first_frame=first_frame,
            geometry=geometry,
            tokens=payload.take(payload.end - payload.position),
            packets=tuple(packets),
            continued=bool(flags & CONTINUED),
        )
        return chunk, cursor.position

    def _parse_end(self, cursor: Cursor) -> tuple[End, int]:
        count = cursor.varint()
        _within(self.limits.chunks, count, "chunks in its index", DamagedStream)
        pairs = Cursor(self._buffer, cursor.position)
        self._numbers.skip(cursor, self.position, 2 * count)
        sound_samples = cursor.varint()
        self._check(cursor, "index")
        if cursor.take(4) != (cursor.position - 4).to_bytes(4, "little") or cursor.take(4) != TAIL:
            raise DamagedStream("the .klx file's last 8 bytes do not fit its index; the file is damaged")
        numbers = [pairs.varint() for _ in range(2 * count)]
        end = End(lengths=tuple(numbers[::2]), frames=tuple(numbers[1::2]), sound_samples=sound_samples)
        return end, cursor.position

    def _check(self, cursor: Cursor, what: str) -> None:
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
        _within(self.limits.latent_positions, geometry.rows * geometry.columns, "token positions in a latent frame")
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


def _geometry(cursor: Cursor) -> Geometry:
    frames, latents, rows, columns, scale = (cursor.varint(2**32) for _ in range(5))
    return Geometry(frames=frames, latents=latents, rows=rows, columns=columns, scale=scale)


def _packets(payload: Cursor) -> list[bytes]:
    """The sound at the front of a payload."""
    promised, packets = 0, []
    try:
        promised = payload.varint(MOST_PACKETS)
        # A packet takes at least the byte that says how long it is.
        if promised <= payload.end - payload.position:
            packets = [payload.take(payload.varint(MOST_PACKET_BYTES)) for _ in range(promised)]
    except Incomplete:
        packets = []
    if not packets:
        size = payload.end - payload.start
        raise DamagedStream(
            f"a chunk promises {promised} packets of sound, its {size} bytes do not hold them; the file is damaged"
        )
    return packets


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
        StreamError: it is larger than the limits, or no .klx file.
    """
    parser = Parser(limits=limits or Limits())
    file.seek(0)
    if not MAGIC.startswith(file.read(len(MAGIC))):
        raise StreamError(NO_KLX)
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little") + 8
    if tail[4:] != TAIL or length > size:
        raise TruncatedStream("the .klx file does not end in its index; read it from the front, or copy it again")
    _within(parser.limits.piece_bytes, length, "bytes in its index")
    file.seek(size - length)
    parser._buffer += file.read(length)
    cursor = Cursor(parser._buffer)
    try:
        if cursor.take(2) != END_SYNC:
            raise DamagedStream("the .klx file's last 8 bytes do not point to its index; read the file from the front")
        item, _ = parser._parse_end(cursor)
    except Incomplete:
        raise DamagedStream("the .klx file's index is damaged; read the file from the front") from None
    if sum(item.lengths) > size - length:
        raise DamagedStream("the .klx file's index names more bytes than there are; read the file from the front")
    return item, size - length

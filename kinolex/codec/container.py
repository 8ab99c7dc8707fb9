"""The records of a .klx file and the bytes they are written as: header, chunks that check themselves, index at the end.

    Header, Chunk, Chunk, ..., End --pack--> bytes --codec.parser--> Header, Chunk, Chunk, ..., End

Written front to back without seeking. docs/bitstream.md is the normative text.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from kinolex.codec.fields import checksum_bytes, varint
from kinolex.codec.sound_track import SoundTrack, track_of, unfit_sound
from kinolex.errors import UsageError

MAGIC = b"\x89KLX\r\n\x1a\n"
"""As in PNG: a byte above 127 and both line ends, so that transfers as text or as 7 bits are noticed."""
VERSION = 1
CHUNK_SYNC, END_SYNC = b"\xc5C", b"\xc5E"
TAIL = b"KLX\n"
COLOUR_SRGB = 1
FULL_SCALE = 16
"""Chunks are coded at scale / 16 of the stated size."""
LARGEST_SCALE = 256
MOST_PACKETS, MOST_PACKET_BYTES = 2**20, 2**16
"""Of one chunk; the last chunk of a video holds all sound that goes on after the pictures."""

CONTINUED, GEOMETRY, SOUND = 1, 2, 4
"""Flags of a chunk."""


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
    sound_head: bytes = b""
    """The track's identification header, see codec.sound_track, or nothing if there is no sound."""

    @property
    def track(self) -> SoundTrack | None:
        """The sound that the head speaks of."""
        return track_of(self.sound_head) if self.sound_head else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """One piece of the video that checks itself."""

    first_frame: int
    geometry: Geometry
    tokens: bytes
    packets: tuple[bytes, ...] = ()
    """Of sound, those that complete what is heard in this chunk; see SoundTrack.packets_before."""
    continued: bool = False
    """The tokenizer and the prior go on from the chunk before; otherwise both begin anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """The index, and what is only known at the end."""

    lengths: tuple[int, ...]
    """Bytes of every chunk, from its sync bytes through its checksum."""
    frames: tuple[int, ...]
    sound_samples: int = 0
    """At the rate of the sound track, after its pre-skip."""


def scaled(size: int, scale: int) -> int:
    """Pixels of a side at scale / 16, at least one, halves rounded up."""
    return max(1, (size * scale + FULL_SCALE // 2) // FULL_SCALE)


# --- writing ---


def pack_header(header: Header) -> bytes:
    """Magic, version, length, fields, checksum. Raises UsageError for what the fields cannot hold."""
    if len(header.prior) != 16 or len(header.sound_head) > 255 or not 1 <= header.num_levels <= 64:
        raise UsageError(
            "a prior's fingerprint is 16 bytes, a header of sound at most 255, and ids have 1 to 64 levels, "
            f"got {header}"
        )
    if reason := unfit_sound(header.sound_head, header.fps):
        raise UsageError(f"the sound cannot be stored: {reason}")
    body = bytearray()
    tokenizer = _fingerprint_bytes(header.tokenizer)
    body += varint(len(tokenizer)) + tokenizer + header.prior
    for value in (header.height, header.width, header.fps.numerator, header.fps.denominator, COLOUR_SRGB):
        body += varint(value)
    body += varint(header.vocab_size) + varint(header.num_levels) + _pack_geometry(header.geometry)
    body += varint(len(header.sound_head)) + header.sound_head
    data = MAGIC + bytes([VERSION]) + varint(len(body)) + bytes(body)
    return data + checksum_bytes(data)


def pack_chunk(chunk: Chunk, header: Header) -> bytes:
    """Sync bytes, fields, payload, checksum. Raises UsageError for sound that no reader takes."""
    if len(chunk.packets) > MOST_PACKETS or any(len(packet) > MOST_PACKET_BYTES for packet in chunk.packets):
        raise UsageError(f"a chunk holds up to {MOST_PACKETS} packets of sound of {MOST_PACKET_BYTES} bytes each")
    own = chunk.geometry != header.geometry
    flags = chunk.continued * CONTINUED | own * GEOMETRY | bool(chunk.packets) * SOUND
    payload = bytearray()
    if chunk.packets:
        payload += varint(len(chunk.packets))
        for packet in chunk.packets:
            payload += varint(len(packet)) + packet
    payload += chunk.tokens
    data = CHUNK_SYNC + bytes([flags]) + varint(chunk.first_frame)
    data += (_pack_geometry(chunk.geometry) if own else b"") + varint(len(payload)) + bytes(payload)
    return data + checksum_bytes(data)


def pack_end(end: End) -> bytes:
    """Sync bytes, index, checksum, and for readers that come from the back the length of all this."""
    data = END_SYNC + varint(len(end.lengths))
    for length, frames in zip(end.lengths, end.frames, strict=True):
        data += varint(length) + varint(frames)
    data += varint(end.sound_samples)
    data += checksum_bytes(data)
    return data + len(data).to_bytes(4, "little") + TAIL


def is_continued(chunk: bytes) -> bool:
    """Whether the packed chunk goes on from the one before."""
    return len(chunk) > 2 and bool(chunk[2] & CONTINUED)


def _pack_geometry(geometry: Geometry) -> bytes:
    values = (geometry.frames, geometry.latents, geometry.rows, geometry.columns, geometry.scale)
    return b"".join(map(varint, values))


def _fingerprint_bytes(fingerprint: str) -> bytes:
    """A SHA-256 in hex takes 32 bytes; any other name is written as text, which may not be 32 bytes long."""
    if len(fingerprint) == 64 and set(fingerprint) <= set("0123456789abcdef"):
        return bytes.fromhex(fingerprint)
    text = fingerprint.encode()
    if len(text) == 32 or len(text) > 255:
        raise UsageError(f"a tokenizer's fingerprint is 64 hex digits or another name up to 255 bytes, got {text!r}")
    return text

"""A second .klx decoder, written from docs/bitstream.md alone: pure Python and NumPy, nothing of kinolex.

    decode(file bytes, prior bytes) -> header, chunks with their ids and packets, end

It is slow and simple; tests compare it with the codec on every golden file. Section numbers are those of the document.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, prod
from typing import Any

import numpy as np

Grid = np.ndarray[Any, np.dtype[np.int64]]

MAGIC = bytes.fromhex("894B4C580D0A1A0A")
CHUNK, END, TAIL = bytes.fromhex("C543"), bytes.fromhex("C545"), bytes.fromhex("4B4C580A")
MASK = 2**64 - 1
TOTAL = 2**24


class Damaged(Exception):
    """The file breaks a rule of the document."""


class Truncated(Exception):
    """The file ends before its end is whole."""


class Unsupported(Exception):
    """Another version, colour space or prior."""


@dataclass(frozen=True)
class Geometry:
    frames: int
    latents: int
    rows: int
    columns: int
    scale: int


@dataclass(frozen=True)
class Sound:
    rate: int
    packet_samples: int
    pre_skip: int
    shape: tuple[int, int, int, int] | None
    """Latent frames, channels, levels and bits of a packet of sound tokens; None is Opus."""


@dataclass(frozen=True)
class Header:
    tokenizer: str
    prior: bytes
    height: int
    width: int
    rate: Fraction
    vocabulary: int
    levels: int
    geometry: Geometry
    sound_head: bytes
    sound: Sound | None


@dataclass(frozen=True)
class Chunk:
    first_frame: int
    geometry: Geometry
    continued: bool
    packets: list[bytes]
    coded: bytes
    size: int
    ids_Qthw: Grid = field(default_factory=lambda: np.zeros((0, 0, 0, 0), np.int64))


@dataclass(frozen=True)
class End:
    index: list[tuple[int, int]]
    samples: int


@dataclass(frozen=True)
class Decoded:
    header: Header
    chunks: list[Chunk]
    end: End


# --- 1. numbers ---


def crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC_TABLE = crc_table()


def crc32c(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register = register >> 8 ^ CRC_TABLE[(register ^ byte) & 255]
    return register ^ 0xFFFFFFFF


class Reader:
    """Fields from the front of bytes."""

    def __init__(self, data: bytes, position: int = 0, too_short: type[Exception] = Truncated) -> None:
        self.data, self.position, self.too_short = data, position, too_short

    def take(self, count: int) -> bytes:
        if self.position + count > len(self.data):
            raise self.too_short(f"{count} bytes are needed at {self.position} of {len(self.data)}")
        self.position += count
        return self.data[self.position - count : self.position]

    def varint(self, limit: int = 2**48) -> int:
        value = 0
        for index in range(8):
            byte = self.take(1)[0]
            value |= (byte & 127) << (7 * index)
            if byte < 128:
                if (index > 0 and byte == 0) or value > limit:
                    break
                return value
        raise Damaged("not a varint, or beyond its limit")

    def little(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def checksum(self, start: int) -> None:
        right = crc32c(self.data[start : self.position])
        if self.little(4) != right:
            raise Damaged("checksum")

    @property
    def rest(self) -> bytes:
        return self.data[self.position :]


# --- 2. to 5. container ---


def scaled(size: int, scale: int) -> int:
    return max(1, (size * scale + 8) // 16)


def read_geometry(reader: Reader) -> Geometry:
    return Geometry(*(reader.varint(2**32) for _ in range(5)))


def check_geometry(geometry: Geometry, height: int, width: int) -> None:
    g = geometry
    if min(g.frames, g.latents, g.rows, g.columns, g.scale) < 1 or g.scale > 256 or g.latents > g.frames:
        raise Damaged(f"{g}")
    if g.rows > scaled(height, g.scale) or g.columns > scaled(width, g.scale):
        raise Damaged(f"{g}")


def read_header(reader: Reader) -> Header:
    magic = reader.take(8)
    if magic != MAGIC:
        raise Unsupported("no .klx file")
    if (version := reader.take(1)[0]) != 1:
        raise Unsupported(f"version {version}")
    body = Reader(reader.take(reader.varint(4096)), too_short=Damaged)
    reader.checksum(0)
    name = body.take(body.varint(255))
    try:
        tokenizer = name.hex() if len(name) == 32 else name.decode()
    except UnicodeDecodeError as error:
        raise Damaged("tokenizer") from error
    prior = body.take(16)
    height, width, numerator, denominator, colour, vocabulary, levels = (body.varint() for _ in range(7))
    geometry = read_geometry(body)
    sound_head = body.take(body.varint(255))
    if body.rest or min(height, width, numerator, denominator) < 1 or vocabulary < 2 or not 1 <= levels <= 64:
        raise Damaged("header")
    if colour != 1:
        raise Unsupported(f"colour {colour}")
    check_geometry(geometry, height, width)
    rate = Fraction(numerator, denominator)
    if sound_head and rate * 60 < 1:
        raise Damaged("sound")
    sound = read_sound_head(sound_head) if sound_head else None
    return Header(tokenizer, prior, height, width, rate, vocabulary, levels, geometry, sound_head, sound)


def read_sound_head(head: bytes) -> Sound:
    if len(head) >= 19 and head[:8] == b"OpusHead":
        frames = head[19] if len(head) == 20 else 1
        if not 1 <= frames <= 6:
            raise Damaged("frames in a packet of Opus")
        return Sound(48000, 960 * frames, head[10] + 256 * head[11], None)
    if len(head) != 58 or head[:9] != b"KlxSound\x01":
        raise Damaged("sound head")
    reader = Reader(head[9:26])
    channels, levels, bits = reader.take(3)
    rate, source_rate, samples, latents = reader.little(4), reader.little(4), reader.little(4), reader.little(2)
    wrong = channels not in (1, 2) or not 1 <= levels <= 64 or not 1 <= bits <= 24
    if wrong or not (1 <= rate <= 2**20 and 1 <= source_rate <= 2**20 and 1 <= samples <= 2**16):
        raise Damaged("sound tokens")
    if not 1 <= latents * channels * levels * bits <= 2**19:
        raise Damaged("packets of sound tokens")
    return Sound(rate, latents * samples, 0, (latents, channels, levels, bits))


def read_chunk(reader: Reader, header: Header) -> Chunk:
    start = reader.position - 2
    flags = reader.take(1)[0]
    first_frame = reader.varint()
    geometry = read_geometry(reader) if flags & 2 else header.geometry
    payload = Reader(reader.take(reader.varint(2**26)), too_short=Damaged)
    reader.checksum(start)
    if flags & ~7:
        raise Unsupported(f"flags {flags}")
    check_geometry(geometry, header.height, header.width)
    packets = []
    if flags & 4:
        count = payload.varint(2**20)
        if count < 1:
            raise Damaged("no packets")
        packets = [payload.take(payload.varint(2**16)) for _ in range(count)]
    return Chunk(first_frame, geometry, bool(flags & 1), packets, payload.rest, reader.position - start)


def read_end(reader: Reader) -> End:
    start = reader.position - 2
    index = [(reader.varint(2**32), reader.varint(2**32)) for _ in range(reader.varint(2**32))]
    samples = reader.varint()
    reader.checksum(start)
    back = reader.position - start
    if reader.little(4) != back or reader.take(4) != TAIL or reader.rest:
        raise Damaged("end")
    return End(index, samples)


def read_container(data: bytes) -> tuple[Header, list[Chunk], End]:
    reader = Reader(data)
    header = read_header(reader)
    chunks: list[Chunk] = []
    next_frame = 0
    while (sync := reader.take(2)) == CHUNK:
        chunk = read_chunk(reader, header)
        if chunk.first_frame != next_frame or (chunk.continued and not chunks):
            raise Damaged("a chunk is missing")
        next_frame += chunk.geometry.frames
        chunks.append(chunk)
    if sync != END:
        raise Damaged("neither chunk nor end")
    end = read_end(reader)
    if end.index != [(chunk.size, chunk.geometry.frames) for chunk in chunks] or not chunks:
        raise Damaged("the index does not fit")
    packets, sound = sum(len(chunk.packets) for chunk in chunks), header.sound
    held = max(0, sound.packet_samples * packets - sound.pre_skip) if sound else 0
    if end.samples > held:
        raise Damaged("more sound is promised than there are packets for")
    return header, chunks, end


def packets_before(frame: int, header: Header) -> int:
    if frame == 0:
        return 0
    sound = header.sound
    assert sound is not None
    return ceil((Fraction(frame * sound.rate) / header.rate + sound.pre_skip) / sound.packet_samples)


def sound_ids(packets: list[bytes], shape: tuple[int, int, int, int]) -> Grid:
    """Ids in the order latent frame, channel, level (section 10)."""
    latents, channels, levels, bits = shape
    found = []
    for packet in packets:
        if len(packet) != ceil(Fraction(latents * channels * levels * bits, 8)):
            raise Damaged("the size of a packet of sound tokens")
        number = int.from_bytes(packet, "little")
        found += [number >> (bits * index) & (2**bits - 1) for index in range(latents * channels * levels)]
    return np.array(found, np.int64).reshape(-1, channels, levels)


# --- 7.3 and 7.4 frequencies and range coder ---

TABLE = np.array([round(2 ** (20 - k / 16)) for k in range(321)], np.int64)


def frequencies(logits_V: Grid) -> Grid:
    best = int(logits_V.argmax())
    weights_V = TABLE[np.minimum(logits_V[best] - logits_V, 320)]
    found_V = 1 + weights_V * (TOTAL - len(logits_V)) // weights_V.sum()
    found_V[best] += TOTAL - found_V.sum()
    return found_V


class RangeDecoder:
    def __init__(self, coded: bytes) -> None:
        whole = coded + bytes(-len(coded) % 4)
        self.words = (int.from_bytes(whole[at : at + 4], "big") for at in range(0, len(whole), 4))
        self.lower, self.range = 0, MASK
        self.point = next(self.words, 0) << 32 | next(self.words, 0)

    def digit(self, frequencies_V: Grid) -> int:
        scale = self.range >> 24
        quantile = ((self.point - self.lower) & MASK) // scale
        if quantile >= TOTAL:
            raise Damaged("the coded tokens leave the range")
        ends_V = np.cumsum(frequencies_V)
        value = int(np.searchsorted(ends_V, quantile, side="right"))
        self.lower = (self.lower + scale * int(ends_V[value] - frequencies_V[value])) & MASK
        self.range = scale * int(frequencies_V[value])
        if self.range < 2**32:
            self.lower = self.lower << 32 & MASK
            self.range <<= 32
            self.point = (self.point << 32 | next(self.words, 0)) & MASK
        return value


# --- 8. and 9. priors ---


class PlainPrior:
    def __init__(self, vocabulary: int, levels: int) -> None:
        one = []
        while vocabulary > 256:
            one.append(256)
            vocabulary = -(-vocabulary // 256)
        self.levels = [*one, max(vocabulary, 2)] * levels

    def frame(self, history: list[Grid], rows: int, columns: int, coder: RangeDecoder) -> Grid:
        digits_hwD = np.zeros((rows, columns, len(self.levels)), np.int64)
        for digit, size in enumerate(self.levels):
            flat_V = frequencies(np.zeros(size, np.int64))
            for y, x in np.ndindex(rows, columns):
                digits_hwD[y, x, digit] = coder.digit(flat_V)
        return digits_hwD


def read_safetensors(data: bytes) -> tuple[dict[str, str], dict[str, tuple[str, bytes, np.ndarray[Any, Any]]]]:
    """Metadata, and of every tensor its type's name, its bytes and its values."""
    length = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + length])
    tensors = {}
    metadata = entries.pop("__metadata__", {})
    for name, entry in entries.items():
        begin, end = entry["data_offsets"]
        raw = data[8 + length + begin : 8 + length + end]
        kind, torch_name = {"I8": ("i1", "int8"), "I32": ("<i4", "int32"), "U8": ("u1", "uint8")}[entry["dtype"]]
        tensors[name] = (torch_name, raw, np.frombuffer(raw, kind).reshape(entry["shape"]).astype(np.int64))
    return metadata, tensors


@dataclass(frozen=True)
class Layer:
    weight_KIO: Grid
    bias_O: Grid
    shift_O: Grid

    def raw(self, inputs_hwI: Grid) -> Grid:
        rows, columns, _ = inputs_hwI.shape
        sums_hwO = np.broadcast_to(self.bias_O, (rows, columns, len(self.bias_O))).copy()
        if len(self.weight_KIO) == 1:
            return (sums_hwO + inputs_hwI @ self.weight_KIO[0]) >> self.shift_O
        padded = np.pad(inputs_hwI, ((1, 1), (1, 1), (0, 0)))
        for k in range(9):
            sums_hwO += padded[k // 3 : k // 3 + rows, k % 3 : k % 3 + columns] @ self.weight_KIO[k]
        return sums_hwO >> self.shift_O

    def activation(self, inputs_hwI: Grid) -> Grid:
        return np.clip(self.raw(inputs_hwI), 0, 127)


QUARTERS = ((0, 0), (1, 1), (0, 1), (1, 0))
GROUPS = [(q, y + 2 * down, x + 2 * right) for q, (y, x) in enumerate(QUARTERS) for down, right in QUARTERS]


class LearnedPrior:
    def __init__(self, file: bytes) -> None:
        metadata, tensors = read_safetensors(file)
        if metadata.get("format") != "kinolex-prior-2":
            raise Unsupported("no prior")
        config = json.loads(metadata["config"])
        self.levels: list[int] = config["levels"]
        self.trunk_layers: int = config["trunk_layers"]
        self.firsts = [sum(self.levels[:digit]) for digit in range(len(self.levels))]
        self.fingerprint = fingerprint(config, tensors)
        self.layers: dict[str, Layer] = {}
        for name in {name.rpartition(".")[0] for name in tensors}:
            parts = [tensors[f"{name}.{part}"][2] for part in ("weight", "bias", "shift")]
            bounds_O = 127 * abs(parts[0]).sum(axis=(0, 1)) + abs(parts[1])
            if bounds_O.max() >= 2**24 or parts[2].max() > 24:
                raise Damaged(f"layer {name} may leave the exact range")
            self.layers[name] = Layer(*parts)

    def one_hot(self, digits_hwD: Grid, known_hwD: Grid) -> Grid:
        rows, columns, _ = digits_hwD.shape
        planes = np.zeros((rows, columns, sum(self.levels)), np.int64)
        for y, x, digit in np.argwhere(known_hwD):
            planes[y, x, self.firsts[digit] + digits_hwD[y, x, digit]] = 32
        return planes

    def frame(self, history: list[Grid], rows: int, columns: int, coder: RangeDecoder) -> Grid:
        digits_hwD = np.zeros((rows, columns, len(self.levels)), np.int64)
        known_hwD = np.zeros_like(digits_hwD)
        past = []
        for back in (1, 2):
            exists = len(history) >= back
            frame_hwD = history[-back] if exists else digits_hwD
            past.append(self.one_hot(frame_hwD, np.full_like(known_hwD, exists)))
        trunk = np.concatenate(past, axis=2)
        for index in range(self.trunk_layers):
            trunk = self.layers[f"trunk.{index}"].activation(trunk)
        for quarter, row, column in GROUPS:
            positions = [(y, x) for y in range(row, rows, 4) for x in range(column, columns, 4)]
            if not positions:
                continue
            context = self.layers[f"context.{quarter}"].activation(self.one_hot(digits_hwD, known_hwD))
            mixed = self.layers[f"mix.{quarter}"].activation(np.concatenate([trunk, context], axis=2))
            for digit in range(len(self.levels)):
                # Earlier groups' digits in `own` change only positions outside this group: a layer of one tap.
                own = self.one_hot(digits_hwD, known_hwD)
                hidden = self.layers[f"hidden.{digit}"].activation(np.concatenate([mixed, own], axis=2))
                logits = self.layers[f"logits.{digit}"].raw(hidden)
                for y, x in positions:
                    digits_hwD[y, x, digit] = coder.digit(frequencies(logits[y, x]))
                    known_hwD[y, x, digit] = 1
        return digits_hwD


def fingerprint(config: dict[str, Any], tensors: dict[str, tuple[str, bytes, np.ndarray[Any, Any]]]) -> bytes:
    digest = hashlib.sha256(("kinolex-prior-2" + json.dumps(dict(sorted(config.items())))).encode())
    for name, (kind, raw, values) in sorted(tensors.items()):
        shape = ", ".join(map(str, values.shape)) + ("," if values.ndim == 1 else "")
        digest.update(f"{name} torch.{kind} ({shape})".encode() + raw)
    return digest.digest()[:16]


# --- 7. tokens ---


def ids_of(digits_thwD: Grid, header: Header, levels: list[int]) -> Grid:
    each = len(levels) // header.levels
    found = []
    for q in range(header.levels):
        sizes = levels[q * each : (q + 1) * each]
        places = [prod(sizes[:j]) for j in range(each)]
        found.append((digits_thwD[..., q * each : (q + 1) * each] * np.array(places)).sum(axis=-1))
    ids_Qthw = np.stack(found)
    if ids_Qthw.max() >= header.vocabulary:
        raise Damaged("an id outside the vocabulary")
    return ids_Qthw


def decode_tokens(header: Header, chunks: list[Chunk], prior: PlainPrior | LearnedPrior) -> Iterator[Chunk]:
    history: list[Grid] = []
    for chunk in chunks:
        g = chunk.geometry
        if not chunk.continued:
            history = []
        elif history[-1].shape[:2] != (g.rows, g.columns):
            raise Damaged("continued in another size")
        coder = RangeDecoder(chunk.coded)
        for _ in range(g.latents):
            history.append(prior.frame(history, g.rows, g.columns, coder))
        ids_Qthw = ids_of(np.stack(history[-g.latents :]), header, prior.levels)
        yield Chunk(chunk.first_frame, g, chunk.continued, chunk.packets, chunk.coded, chunk.size, ids_Qthw)


def find_prior(header: Header, file: bytes | None) -> PlainPrior | LearnedPrior:
    if header.prior == bytes(16):
        return PlainPrior(header.vocabulary, header.levels)
    if file is None:
        raise Unsupported("the file needs a learned prior")
    prior = LearnedPrior(file)
    if prior.fingerprint != header.prior:
        raise Unsupported("the file was made with another prior")
    return prior


def decode(data: bytes, prior_file: bytes | None = None) -> Decoded:
    """All of a .klx file.

    Args:
        data: the file.
        prior_file: the learned prior that it was made with; not needed for the plain prior.
    """
    header, chunks, end = read_container(data)
    return Decoded(header, list(decode_tokens(header, chunks, find_prior(header, prior_file))), end)

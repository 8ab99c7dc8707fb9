from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import google_crc32c
import independent_decoder
import pytest
import torch
from codec_examples import FINGERPRINT, OPUS_HEAD, TOKENS_HEAD
from hypothesis import given, settings
from hypothesis import strategies as st

from kinolex.codec import checksum, container, fields
from kinolex.codec.checksum import BLOCK, SpanSums
from kinolex.codec.container import (
    CHUNK_SYNC,
    Chunk,
    End,
    Geometry,
    Header,
    pack_chunk,
    pack_end,
    pack_header,
    scaled,
)
from kinolex.codec.parser import Damage, Limits, Parser, parse, read_index
from kinolex.codec.sound_track import track_of
from kinolex.errors import DamagedStream, StreamError, TruncatedStream, UsageError
from tests import fuzz_klx

GEOMETRY = Geometry(frames=5, latents=2, rows=3, columns=4)
HEADER = Header(
    tokenizer=FINGERPRINT,
    prior=bytes(range(16)),
    height=24,
    width=32,
    fps=Fraction(30000, 1001),
    vocab_size=64,
    num_levels=1,
    geometry=GEOMETRY,
    sound_head=OPUS_HEAD,
)


def chunks_of(number: int, payload_bytes: int = 40) -> list[Chunk]:
    """The second has its own geometry, the third continues, every other has sound."""
    generator, first, chunks = torch.Generator().manual_seed(number), 0, []
    for index in range(number):
        tokens = bytes(torch.randint(0, 256, (payload_bytes,), generator=generator).tolist())
        geometry = replace(GEOMETRY, frames=9, latents=3, scale=8, rows=1) if index == 1 else GEOMETRY
        packets = (b"one packet", b"", b"\xc5C") if index % 2 else ()
        chunks.append(Chunk(first_frame=first, geometry=geometry, tokens=tokens, packets=packets, continued=index == 2))
        first += geometry.frames
    return chunks


def held(packets: int, header: Header) -> int:
    """Samples that may be promised."""
    return header.track.samples_in(packets) if header.track is not None else 0


def packed(chunks: list[Chunk], header: Header = HEADER) -> tuple[list[bytes], End]:
    """Header, chunks and end, each as its bytes."""
    pieces = [pack_chunk(chunk, header) for chunk in chunks]
    sound = min(777, held(sum(len(chunk.packets) for chunk in chunks), header))
    end = End(lengths=tuple(map(len, pieces)), frames=tuple(c.geometry.frames for c in chunks), sound_samples=sound)
    return [pack_header(header), *pieces, pack_end(end)], end


def forged(data: bytes) -> bytes:
    """A header or chunk whose last four bytes are made to fit the rest."""
    return data[:-4] + fields.checksum_bytes(data[:-4])


# --- round trips ---

sizes = st.integers(1, 200)
geometries = st.builds(
    Geometry,
    frames=st.integers(4, 10_000),
    latents=st.integers(1, 4),
    rows=st.integers(1, 2),
    columns=st.integers(1, 2),
    scale=st.integers(16, 256),
)
headers = st.builds(
    Header,
    tokenizer=st.one_of(
        st.just("00" * 32), st.text(max_size=40).filter(lambda name: len(name.encode()) not in range(32, 33))
    ),
    prior=st.binary(min_size=16, max_size=16),
    height=st.integers(2, 4000),
    width=st.integers(2, 4000),
    fps=st.fractions(min_value=Fraction(1, 60), max_value=1000, max_denominator=2000),
    vocab_size=st.integers(2, 2**48),
    num_levels=st.integers(1, 64),
    geometry=geometries,
    sound_head=st.one_of(
        st.sampled_from([b"", TOKENS_HEAD]),
        # One byte behind Opus's own head is the number of frames in a packet.
        st.binary(max_size=236)
        .filter(lambda tail: len(tail) != 1 or 1 <= tail[0] <= 6)
        .map(lambda tail: OPUS_HEAD + tail),
    ),
)
chunks = st.builds(
    Chunk,
    first_frame=st.integers(0, 2**48),
    geometry=geometries,
    tokens=st.binary(max_size=300),
    packets=st.lists(st.binary(max_size=200), max_size=4).map(tuple),
    continued=st.booleans(),
)


@settings(max_examples=25, deadline=None)
@given(headers, st.lists(chunks, min_size=1, max_size=3), st.integers(0, 2**48), st.integers(1, 50))
def test_every_item_survives_the_round_trip_however_the_bytes_are_cut(
    header: Header, items: list[Chunk], sound_samples: int, step: int
) -> None:
    pieces = [pack_chunk(chunk, header) for chunk in items]
    frames = tuple(chunk.geometry.frames for chunk in items)
    sound_samples = min(sound_samples, held(sum(len(chunk.packets) for chunk in items), header))
    end = End(lengths=tuple(map(len, pieces)), frames=frames, sound_samples=sound_samples)
    data = b"".join([pack_header(header), *pieces, pack_end(end)])
    parser = Parser(limits=Limits(frame_pixels=64000**2))
    found = [item for at in range(0, len(data), step) for item in parser.feed(data[at : at + step])]
    assert [*found, *parser.finish()] == [header, *items, end]
    assert read_index(io.BytesIO(data)) == (end, len(data) - len(pack_end(end)))


@given(st.integers(0, 2**48))
def test_a_number_comes_back_and_takes_the_fewest_bytes(value: int) -> None:
    data = fields.varint(value)
    assert fields.Cursor(data).varint() == value
    assert len(data) == max(1, -(-value.bit_length() // 7))


@pytest.mark.parametrize("data", [b"\x80\x00", b"\xff" * 8 + b"\x01", b"\xff\xff\xff\xff\xff\xff\xff\x7f"])
def test_numbers_that_are_padded_or_too_large_are_damage(data: bytes) -> None:
    with pytest.raises(DamagedStream):
        fields.Cursor(data).varint()


def test_the_checksum_is_the_crc32c_of_the_document() -> None:
    assert fields.checksum_bytes(b"123456789") == bytes.fromhex("839206E3")


@pytest.mark.parametrize(("payload_bytes", "chunks"), [(600, 1), (1500, 5), (4000, 30), (20_000, 100)])
def test_the_container_adds_less_than_one_percent_and_120_bytes(payload_bytes: int, chunks: int) -> None:
    header = replace(HEADER, sound_head=b"")
    items = [
        Chunk(first_frame=49 * index, geometry=replace(GEOMETRY, frames=49, latents=13), tokens=bytes(payload_bytes))
        for index in range(chunks)
    ]
    header = replace(header, geometry=items[0].geometry)
    added = sum(map(len, packed(items, header)[0])) - payload_bytes * chunks
    assert added < 0.01 * payload_bytes * chunks + 120


# --- truncation, damage, limits ---


def test_a_file_cut_at_any_byte_gives_every_whole_chunk_before_the_cut_and_is_told_to_be_truncated() -> None:
    items = chunks_of(4)
    pieces, _ = packed(items)
    data, ends = b"".join(pieces), [sum(map(len, pieces[: index + 1])) for index in range(len(pieces))]
    for cut in range(len(data)):
        found = []
        with pytest.raises(TruncatedStream):
            found.extend(parse(data[:cut]))
        whole = sum(end <= cut for end in ends)
        assert found == [HEADER, *items][:whole], cut


def test_a_writer_that_was_stopped_between_chunks_can_be_gone_on_from() -> None:
    items = chunks_of(5)
    pieces, end = packed(items)
    parser = Parser()
    assert list(parser.feed(b"".join(pieces[:4]) + pieces[4][:-1])) == [HEADER, *items[:3]]
    with pytest.raises(TruncatedStream):
        list(parser.finish())
    appended = b"".join(pieces)[: parser.position] + b"".join(pieces[4:])
    assert list(parse(appended)) == [HEADER, *items, end]


def test_every_changed_byte_is_noticed_and_all_before_it_is_given_out() -> None:
    items = chunks_of(3)
    pieces, _ = packed(items)
    data = b"".join(pieces)
    ends = [sum(map(len, pieces[: index + 1])) for index in range(len(pieces))]
    for place in range(len(data)):
        found = []
        with pytest.raises(StreamError):
            found.extend(parse(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]))
        whole = sum(end <= place for end in ends)
        assert found == [HEADER, *items][:whole], place


@pytest.mark.parametrize("broken", [1, 2, 3])
@pytest.mark.parametrize("how", ["flip", "cut", "insert", "false sync", "length"])
def test_a_tolerant_parser_finds_the_next_chunk_and_the_end(broken: int, how: str) -> None:
    items = chunks_of(4)
    pieces, end = packed(items)
    piece = pieces[broken]
    pieces[broken] = {
        "flip": piece[:20] + bytes([piece[20] ^ 1]) + piece[21:],
        "cut": piece[:-7],
        "insert": piece[:9] + b"\x00\xff" + piece[9:],
        "false sync": piece[:10] + CHUNK_SYNC + piece[12:],
        "length": piece[:4] + b"\xff\xff\xff\x0f" + piece[8:],
    }[how]
    found = list(parse(b"".join(pieces), tolerate=True))
    whole = [item for item in found if not isinstance(item, Damage)]
    assert whole == [HEADER, *items[: broken - 1], *items[broken:], end]
    assert any(isinstance(item, Damage) and item.reason for item in found)


def test_a_tolerant_parser_tells_that_the_end_is_missing() -> None:
    pieces, _ = packed(chunks_of(2))
    found = list(parse(b"".join(pieces[:-1]), tolerate=True))
    assert isinstance(found[-1], Damage) and "cut after 2 whole chunks" in found[-1].reason


def test_damage_to_the_header_is_an_error_even_where_damage_is_tolerated() -> None:
    pieces, _ = packed(chunks_of(2))
    data = b"".join(pieces)
    with pytest.raises(DamagedStream, match="header"):
        list(parse(data[:30] + b"\xff" + data[31:], tolerate=True))


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"", TruncatedStream, "inside its header"),
        (b"RIFF....WEBP", StreamError, "no .klx file"),
        (container.MAGIC + b"\x02", StreamError, "version 2"),
        (container.MAGIC + b"\x01\xff\xff\x7f", DamagedStream, "at most 4096"),
    ],
)
def test_what_is_no_klx_file_of_version_1_is_refused_by_name(data: bytes, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        list(parse(data))
    assert caught.type is error


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"height": 2**20, "width": 2**20}, "above the limit"),
        ({"height": 0}, "empty picture"),
        ({"vocab_size": 1}, "empty picture, rate or vocabulary"),
        ({"geometry": replace(GEOMETRY, rows=25)}, "does not fit"),
        ({"geometry": replace(GEOMETRY, latents=6)}, "does not fit"),
        ({"geometry": replace(GEOMETRY, scale=257)}, "does not fit"),
        ({"geometry": replace(GEOMETRY, scale=0)}, "does not fit"),
        ({"geometry": replace(GEOMETRY, frames=2**32, latents=2**25, rows=1)}, "above the limit"),
        ({"height": 2**10, "width": 2**10, "geometry": replace(GEOMETRY, scale=256)}, "pixels in a coded frame"),
    ],
)
def test_a_header_that_cannot_be_or_asks_for_too_much_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(StreamError, match=words):
        list(Parser().feed(pack_header(replace(HEADER, **change))))


def test_limits_can_be_raised_and_lowered() -> None:
    data = b"".join(packed(chunks_of(2))[0])
    assert len(list(parse(data, limits=Limits(chunk_tokens=24, frame_pixels=24 * 32)))) == 4
    for limits in (
        Limits(chunk_tokens=23),
        Limits(frame_pixels=24 * 32 - 1),
        Limits(chunk_bytes=30),
        Limits(chunks=1),
    ):
        with pytest.raises(StreamError, match="above the limit"):
            list(parse(data, limits=limits))


def test_a_chunk_of_8k_video_is_read_and_one_of_few_bytes_that_asks_for_more_is_refused_by_name() -> None:
    header = replace(HEADER, height=4320, width=8192, geometry=replace(GEOMETRY, frames=49, latents=13))
    grid = replace(header.geometry, rows=540, columns=1024)
    chunk = Chunk(first_frame=0, geometry=grid, tokens=b"ten bytes!")
    assert list(parse(b"".join(packed([chunk], header)[0])))[1] == chunk
    for asked, words in (
        (
            replace(grid, latents=1, rows=1025),
            "states 1049600 token positions in a latent frame, above the limit of 1048576",
        ),
        (replace(grid, latents=16), "states 8847360 tokens in a chunk, above the limit of 8388608"),
    ):
        with pytest.raises(StreamError, match=words):
            list(parse(b"".join(packed([replace(chunk, geometry=asked)], header)[0])))


def test_a_chunk_coded_above_full_size_may_have_as_many_rows_as_that_size() -> None:
    geometry = replace(GEOMETRY, rows=48, columns=64, scale=32)
    chunk = Chunk(first_frame=0, geometry=geometry, tokens=b"x")
    assert [scaled(HEADER.height, 32), scaled(HEADER.width, 32)] == [48, 64]
    assert list(parse(b"".join(packed([chunk])[0])))[1] == chunk


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (lambda piece: piece[:2] + bytes([piece[2] | 8]) + piece[3:], StreamError),  # a flag of the future
        (lambda piece: piece[:2] + bytes([piece[2] | 4]) + piece[3:], DamagedStream),  # sound that is not there
        (lambda piece: piece[:2] + bytes([piece[2] | 2]) + piece[3:], DamagedStream),  # a geometry that is not there
    ],
)
def test_a_chunk_whose_checksum_fits_and_whose_fields_do_not_is_refused(data, error: type[Exception]) -> None:
    chunk = Chunk(first_frame=0, geometry=GEOMETRY, tokens=b"\x00" * 30)
    pieces = packed([chunk])[0]
    pieces[1] = forged(data(pieces[1]))
    with pytest.raises(error):
        list(parse(b"".join(pieces)))


def test_an_index_that_names_other_chunks_than_were_read_is_refused() -> None:
    pieces, end = packed(chunks_of(3))
    for other in (replace(end, lengths=(1, 2, 3)), replace(end, frames=(1, 1, 1)), End(lengths=(), frames=())):
        with pytest.raises(DamagedStream, match="the index names"):
            list(parse(b"".join([*pieces[:-1], pack_end(other)])))
    with pytest.raises(DamagedStream, match="foreign bytes"):
        list(parse(b"".join([*pieces, b"x"])))
    with pytest.raises(DamagedStream, match="the index names 0 chunks"):
        list(parse(pieces[0] + pack_end(End(lengths=(), frames=()))))


def test_the_index_is_found_from_the_back_and_its_damage_is_named() -> None:
    pieces, end = packed(chunks_of(3))
    data = b"".join(pieces)
    assert read_index(io.BytesIO(data)) == (end, len(data) - len(pieces[-1]))
    for cut in (0, 5, len(data) - 1, len(data) - len(pieces[-1])):
        with pytest.raises(TruncatedStream):
            read_index(io.BytesIO(data[:cut]))
    too_long = pack_end(replace(end, lengths=(*end.lengths[:-1], len(data))))
    with pytest.raises(DamagedStream, match="more bytes than there are"):
        read_index(io.BytesIO(b"".join([*pieces[:-1], too_long])))
    for place in range(len(data) - len(pieces[-1]), len(data)):
        with pytest.raises(StreamError):
            read_index(io.BytesIO(data[:place] + bytes([data[place] ^ 0x11]) + data[place + 1 :]))
    large = pack_end(End(lengths=(9,) * 2000, frames=(1,) * 2000))
    with pytest.raises(StreamError, match="above the limit"):
        read_index(io.BytesIO(b"".join([*pieces[:-1], large])), limits=Limits(chunks=1000))


@pytest.mark.parametrize(
    "header",
    [
        replace(HEADER, tokenizer="x" * 32),
        replace(HEADER, tokenizer="x" * 256),
        replace(HEADER, prior=b"short"),
        replace(HEADER, sound_head=b"not Opus, but long enough"),
        replace(HEADER, fps=Fraction(1, 61)),
        replace(HEADER, num_levels=65),
        replace(HEADER, fps=Fraction(1, 2**48 + 1), sound_head=b""),
    ],
)
def test_a_header_that_no_reader_would_take_is_not_written(header: Header) -> None:
    with pytest.raises(UsageError):
        pack_header(header)


# --- hostile bytes ---


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 6000)), max_size=30), st.integers(0, 3))
def test_sums_of_overlapping_spans_are_those_of_their_bytes(spans: list[tuple[int, int]], jump: int) -> None:
    data = torch.randint(0, 256, (20_000,), generator=torch.Generator().manual_seed(0)).numpy().astype("u1").tobytes()
    sums, position = SpanSums(), 0
    for step, length in spans:
        position += step if step % 7 else jump * BLOCK
        buffer = bytearray(data[position:])
        length = min(length, len(buffer))
        assert sums.front(buffer, position, length) == google_crc32c.value(bytes(buffer[:length]))


class PlainSums(SpanSums):
    def front(self, buffer: bytearray, position: int, length: int) -> int:
        return google_crc32c.value(bytes(buffer[:length]))


def slow_pieces(data: bytes) -> list[tuple[object, int]]:
    """Section 6 word for word: every item behind the header, and where it ends. Each place is tried by itself."""
    at, found = len(pack_header(HEADER)), []
    while at < len(data) and not (found and isinstance(found[-1][0], End)):
        parser = Parser(header=HEADER, _buffer=bytearray(data[at:]), _sums=PlainSums())
        try:
            item, size = parser._parse()
            at += size
            found.append((item, at))
        except (DamagedStream, fields.Incomplete):
            behind = at + max(1, parser._checked)
            places = [data.find(sync, behind) for sync in (CHUNK_SYNC, container.END_SYNC)]
            at = min((place for place in places if place >= 0), default=len(data))
    return found


def false_chunk(claim: int) -> bytes:
    return CHUNK_SYNC + b"\x00\x00" + fields.varint(claim)


def false_end(count: int) -> bytes:
    return container.END_SYNC + fields.varint(count)


def hostile_chunk(inside: bytes, flags: int) -> bytes:
    """A chunk whose checksum fits and whose flags may not."""
    piece = bytearray(pack_chunk(Chunk(first_frame=0, geometry=GEOMETRY, tokens=inside), HEADER))
    piece[2] = flags
    return forged(bytes(piece))


good_pieces = st.integers(0, 3).map(lambda index: packed(chunks_of(4, 1500))[0][index + 1])
segments = st.recursive(
    st.one_of(
        good_pieces,
        good_pieces.map(lambda piece: piece[:-1]),
        st.integers(0, 9000).map(false_chunk),
        st.integers(0, 3000).map(false_end),
        st.binary(max_size=40),
        st.sampled_from([b"\xc5", b"\xc5" * 9, bytes(2000), b"\x80" * 9, packed(chunks_of(2))[0][-1]]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=8).map(b"".join),
        st.builds(hostile_chunk, inner, st.sampled_from([0, 2, 4])),
    ),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None)
@given(segments, st.sampled_from([1, 2, 7, 1000, 10**6]))
def test_a_tolerant_parser_finds_the_pieces_that_a_slow_one_finds_however_the_bytes_are_cut(
    hostile: bytes, step: int
) -> None:
    pieces = packed(chunks_of(3))[0]
    data = b"".join([*pieces[:2], hostile, *pieces[2:]])
    parser, found, count = Parser(tolerate=True), [], 0
    for at in [*range(0, len(data), step), None]:
        for item in parser.finish() if at is None else parser.feed(data[at : at + step]):
            if isinstance(item, Damage):
                count += 1
            elif not isinstance(item, Header):
                found.append((item, parser.position))
    assert found == slow_pieces(data)
    assert count == sum(isinstance(item, Damage) for item in parse(data, tolerate=True))


def work(data: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """How many bytes are summed and how many numbers read by a tolerant parser."""
    summed, numbers = [], []
    counted = SimpleNamespace(
        value=lambda data: summed.append(len(data)) or google_crc32c.value(data),
        extend=lambda crc, data: summed.append(len(data)) or google_crc32c.extend(crc, data),
    )
    varint = fields.Cursor.varint
    with monkeypatch.context() as patches:
        patches.setattr(checksum, "google_crc32c", counted)
        patches.setattr(fields.Cursor, "varint", lambda *words: numbers.append(1) or varint(*words))
        assert sum(isinstance(item, Damage) for item in parse(data, tolerate=True)) > len(data) // 20
    return sum(summed), len(numbers)


@pytest.mark.parametrize(
    "unit",
    [
        pytest.param(lambda size: false_chunk(size // 2), id="chunks that reach over half the file"),
        pytest.param(lambda size: false_end(size // 8), id="ends whose index does"),
        pytest.param(lambda size: hostile_chunk(b"", 2), id="chunks whose checksum fits"),
    ],
)
def test_work_is_linear_in_the_bytes_whatever_they_claim(unit, monkeypatch: pytest.MonkeyPatch) -> None:
    work_of = [
        work(pack_header(HEADER) + unit(size) * (size // len(unit(size))), monkeypatch) for size in (2**14, 2**16)
    ]
    for small, large in zip(*work_of, strict=True):
        assert large <= 5 * small + 1000


def test_a_chunk_whose_checksum_fits_and_whose_fields_do_not_is_passed_over_with_all_inside_it() -> None:
    pieces, _ = packed(chunks_of(2))
    hidden = hostile_chunk(pieces[1], flags=4)
    found = list(parse(b"".join([pieces[0], hidden, *pieces[1:]]), tolerate=True))
    assert [type(item) for item in found] == [Header, Damage, Chunk, Chunk, End]


def test_no_more_is_held_back_than_the_largest_piece() -> None:
    limits = Limits(chunk_bytes=5000, chunks=400)
    assert limits.piece_bytes == max(4096, 5000) + 64
    pieces, _ = packed(chunks_of(2))
    for hostile in (
        false_chunk(5000) * 4000,
        false_end(400) * 4000,
        false_chunk(2**26) * 4000,
        false_end(2**32) * 9000,
    ):
        parser, most = Parser(limits=limits, tolerate=True), 0
        data = b"".join([pieces[0], hostile, *pieces[1:], hostile])
        for at in range(0, len(data), 100):
            list(parser.feed(data[at : at + 100]))
            most = max(most, len(parser._buffer))
        assert most <= limits.piece_bytes and not parser._buffer
        assert parser.end is not None and len(parser.lengths) == 2


def test_a_short_run_of_the_fuzzer_finds_nothing_and_one_that_checks_no_sums_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = fuzz_klx.run_batch(0, seed=0, parses=500, decodes=5)
    assert not batch.findings and sum(batch.outcomes.values()) == 510
    monkeypatch.setattr(Parser, "_check", lambda parser, cursor, what: cursor.take(4))
    assert any("another piece" in reason for _, reason in fuzz_klx.run_batch(0, seed=0, parses=100, decodes=0).findings)


# --- sound ---


@pytest.mark.parametrize(
    "payload", [b"", b"\x03", b"\x02\x01a", b"\x01\x05abcd", b"\x00", b"\xff\xff\x3f" + b"\x00" * 9]
)
def test_a_chunk_that_promises_more_packets_than_it_has_is_refused(payload: bytes) -> None:
    pieces = packed(chunks_of(1))[0]
    pieces[1] = hostile_chunk(payload, flags=4)
    with pytest.raises(DamagedStream, match=r"a chunk promises \d+ packets of sound, its \d+ bytes do not hold them"):
        list(parse(b"".join(pieces)))


def test_an_end_that_promises_more_sound_than_the_packets_hold_is_refused() -> None:
    pieces, end = packed(chunks_of(2))
    held = 3 * 960 - 312
    for samples in (0, held):
        assert list(parse(b"".join([*pieces[:-1], pack_end(replace(end, sound_samples=samples))])))
    too_much = b"".join([*pieces[:-1], pack_end(replace(end, sound_samples=held + 1))])
    with pytest.raises(DamagedStream, match="promises 2569 samples of sound, but its 3 packets hold 2568"):
        list(parse(too_much))
    with pytest.raises(independent_decoder.Damaged, match="more sound is promised"):
        independent_decoder.read_container(too_much)
    assert isinstance(list(parse(too_much, tolerate=True))[-1], End)
    pieces, end = packed(chunks_of(1), replace(HEADER, sound_head=b""))
    with pytest.raises(DamagedStream, match="its 0 packets hold 0"):
        list(parse(b"".join([*pieces[:-1], pack_end(replace(end, sound_samples=1))])))


def test_the_last_chunk_may_hold_hours_of_sound_and_no_chunk_more_than_a_reader_takes() -> None:
    chunk = Chunk(first_frame=0, geometry=GEOMETRY, tokens=b"x", packets=(b"",) * 200_000)
    assert list(parse(b"".join(packed([chunk])[0])))[1] == chunk
    for packets in ((b"",) * (2**20 + 1), (bytes(2**16 + 1),)):
        with pytest.raises(UsageError, match="a chunk holds up to"):
            pack_chunk(replace(chunk, packets=packets), HEADER)


@given(st.integers(1, 10_000), st.fractions(min_value=Fraction(1, 60), max_value=500, max_denominator=1001))
def test_the_packets_before_a_frame_are_the_fewest_that_hold_all_sound_before_it(frame: int, fps: Fraction) -> None:
    pre_skip = 312
    needed = frame * 48_000 / fps + pre_skip
    count = track_of(OPUS_HEAD).packets_before(frame, fps)
    assert count * 960 >= needed > (count - 1) * 960
    assert track_of(OPUS_HEAD).packets_before(0, fps) == 0

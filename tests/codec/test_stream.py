from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from codec_examples import OPUS_HEAD, likely_tokens, packed_bytes, random_prior, random_tokens
from hypothesis import given, settings
from hypothesis import strategies as st

from kinolex.codec import container
from kinolex.codec.container import MAGIC, Chunk, End, pack_chunk, pack_end, pack_header
from kinolex.codec.network import NetworkConfig
from kinolex.codec.parser import Limits, Parser, parse, read_index
from kinolex.codec.priors import History, LearnedPrior, PlainPrior, Prior, to_digits
from kinolex.codec.rate import choose_digits
from kinolex.codec.sound_track import track_of
from kinolex.codec.stream import (
    Gap,
    Piece,
    StreamDecoder,
    StreamEncoder,
    compress,
    decompress,
    encode_digits,
    estimate_bits,
    joined,
    read_at,
    read_pieces,
)
from kinolex.errors import DamagedStream, KinolexError, StreamError, TokenError, TruncatedStream, UsageError
from kinolex.types import Tokens

PRIOR = random_prior()


def same(first: Tokens, second: Tokens) -> bool:
    facts = [(tokens.tokenizer, tokens.kind, tokens.extent) for tokens in (first, second)]
    return facts[0] == facts[1] and torch.equal(first.ids_Qthw, second.ids_Qthw)


def independent_chunks(prior: Prior, number: int, sound_head: bytes = b"") -> tuple[list[Tokens], list[bytes]]:
    """Chunks of three latent frames and nine pictures each, and the file in pieces: header, chunks, end."""
    encoder = StreamEncoder(prior, height=24, width=32, sound_head=sound_head)
    all_tokens = [random_tokens(prior, (1, 3, 3, 4), seed=seed) for seed in range(number)]
    packets = [bytes([number]) * 9 for number in range(100)] if sound_head else []
    pieces = []
    for tokens in all_tokens:
        start, stop = (
            track_of(sound_head).packets_before(frame, Fraction(24)) if sound_head else 0
            for frame in (encoder.next_frame, encoder.next_frame + 9)
        )
        pieces.append(encoder.push(tokens, packets=tuple(packets[start:stop])))
    assert encoder.header is not None
    header = pack_header(encoder.header)
    return all_tokens, [header, pieces[0][len(header) :], *pieces[1:], encoder.finish()]


# --- tokens come back ---


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), st.integers(1, 7), st.integers(0, 1000))
def test_tokens_survive_a_learned_prior_in_chunks_of_any_length(
    latents: int, rows: int, columns: int, chunk_latents: int, seed: int
) -> None:
    tokens = random_tokens(PRIOR, (1, latents, rows, columns), seed=seed)
    data = compress(tokens, PRIOR, chunk_latents=chunk_latents)
    assert same(decompress(data, PRIOR), tokens)
    pieces = list(read_pieces(data, lambda header: PRIOR))
    assert [piece.tokens.ids_Qthw.shape[1] for piece in pieces] == [
        min(chunk_latents, latents - start) for start in range(0, latents, chunk_latents)
    ]
    assert [piece.continued for piece in pieces] == [index > 0 for index in range(len(pieces))]


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 2**20), st.integers(1, 3), st.integers(1, 9), st.integers(0, 1000))
def test_tokens_survive_the_plain_prior_at_any_vocabulary_and_number_of_levels(
    vocab_size: int, levels: int, frames: int, seed: int
) -> None:
    prior = PlainPrior(vocab_size, levels)
    tokens = random_tokens(prior, (levels, -(-frames // 4), 2, 3), frames=frames, seed=seed)
    assert same(decompress(compress(tokens, prior, chunk_latents=2), prior), tokens)


def test_two_levels_of_ids_survive_one_learned_prior() -> None:
    prior = random_prior((4, 7, 4, 7))
    tokens = random_tokens(prior, (2, 4, 3, 3))
    assert same(decompress(compress(tokens, prior), prior), tokens)


def test_bytes_may_come_one_by_one_and_pieces_come_with_their_last_byte() -> None:
    all_tokens, pieces = independent_chunks(PRIOR, 3)
    data, decoder, came = b"".join(pieces), StreamDecoder(lambda header: PRIOR), []
    for at in range(len(data)):
        came += [(at + 1, piece) for piece in decoder.feed(data[at : at + 1])]
    assert not list(decoder.finish())
    ends = [sum(map(len, pieces[: index + 1])) for index in (1, 2, 3)]
    assert [at for at, _ in came] == ends
    for (_, piece), tokens in zip(came, all_tokens, strict=True):
        assert isinstance(piece, Piece) and same(piece.tokens, tokens)


def test_a_continued_chunk_knows_the_frames_before_it() -> None:
    tokens = likely_tokens(PRIOR, 8, 6, 6)
    whole, cut = (compress(tokens, PRIOR, chunk_latents=size) for size in (8, 4))
    digits_thwD = to_digits(tokens.ids_Qthw, PRIOR.levels)
    history = History()
    both = [encode_digits(part_thwD, PRIOR, history) for part_thwD in digits_thwD.split(4)]
    assert [item.tokens for item in parse(cut) if isinstance(item, Chunk)] == both
    assert encode_digits(digits_thwD[4:], PRIOR, History()) != both[1]
    assert len(cut) < len(whole) + 40


# --- bits ---


@pytest.mark.parametrize("likely", [True, False])
def test_estimated_bits_are_within_one_percent_of_the_real_bytes_of_tokens(likely: bool) -> None:
    tokens = likely_tokens(PRIOR, 6, 16, 16) if likely else random_tokens(PRIOR, (1, 6, 16, 16))
    digits_thwD = to_digits(tokens.ids_Qthw, PRIOR.levels)
    real = 8 * len(encode_digits(digits_thwD, PRIOR, History()))
    assert estimate_bits(digits_thwD, PRIOR) == pytest.approx(real, rel=0.01)


def test_a_prior_that_is_right_beats_fixed_length_and_the_plain_one_equals_it() -> None:
    tokens = likely_tokens(PRIOR, 6, 16, 16)
    fixed = packed_bytes(tokens, 60)
    assert len(compress(tokens, PRIOR)) < 0.8 * fixed
    assert len(compress(tokens, PlainPrior(60))) == pytest.approx(fixed + 110, abs=20)


def test_still_content_costs_next_to_nothing_where_the_prior_expects_it() -> None:
    # A hand-made network that expects every digit of the frame before again.
    levels, size = (8, 8), 16
    config = NetworkConfig(levels=levels, channels=size, trunk_layers=1)
    tensors = {
        f"{name}.{part}": torch.zeros(shape if part == "weight" else shape[2:], dtype=dtype)
        for name, shape in config.layer_shapes().items()
        for part, dtype in (("weight", torch.int8), ("bias", torch.int32), ("shift", torch.uint8))
    }
    eye = torch.eye(size, dtype=torch.int8)
    tensors["trunk.0.weight"][4, :size] = 2 * eye  # the middle tap of the nearest frame
    for quarter in range(4):
        tensors[f"mix.{quarter}.weight"][4, :size] = eye
    for digit in range(2):
        tensors[f"hidden.{digit}.weight"][0, :size] = eye
        tensors[f"logits.{digit}.weight"][0, 8 * digit : 8 * digit + 8] = 4 * torch.eye(8, dtype=torch.int8)
    prior = LearnedPrior(config, tensors)
    still = random_tokens(prior, (1, 1, 16, 16)).ids_Qthw.expand(-1, 12, -1, -1)
    tokens = replace(random_tokens(prior, (1, 12, 16, 16)), ids_Qthw=still.contiguous())
    digits_thwD = to_digits(tokens.ids_Qthw, levels)
    first, whole = (len(encode_digits(digits_thwD[:count], prior, History())) for count in (1, 12))
    assert first == pytest.approx(16 * 16 * 6 / 8, abs=3)
    assert whole - first < 0.005 * 11 * first


def test_rate_control_at_weight_zero_rounds_and_above_saves_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    places_thwD = torch.rand(3, 6, 6, 3, generator=generator) * (torch.tensor(PRIOR.levels) - 1)
    plain_thwD, plain_bits = choose_digits(places_thwD, PRIOR, 0.0)
    assert torch.equal(plain_thwD, places_thwD.round().long())
    assert plain_bits == pytest.approx(estimate_bits(plain_thwD, PRIOR))
    bits = [choose_digits(places_thwD, PRIOR, weight)[1] for weight in (0.0, 0.05, 0.2, 1.0)]
    assert bits == sorted(bits, reverse=True) and bits[-1] < 0.8 * bits[0]


# --- the same everywhere ---


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize(
    "circumstances",
    [
        pytest.param(lambda: threads(2), id="two threads"),
        pytest.param(lambda: torch.autocast("cpu", dtype=torch.bfloat16), id="bfloat16 autocast"),
        pytest.param(lambda: torch.backends.mkldnn.flags(enabled=False), id="without oneDNN"),
        pytest.param(lambda: matmul_precision("medium"), id="products in bfloat16"),
        pytest.param(torch.inference_mode, id="inference mode"),
    ],
)
def test_bytes_and_tokens_do_not_depend_on_circumstances(circumstances) -> None:
    prior = random_prior((8, 8, 5), channels=32)
    tokens = random_tokens(prior, (1, 3, 12, 12))
    data = compress(tokens, prior)
    with circumstances():
        assert compress(tokens, prior) == data
        assert torch.equal(decompress(data, prior).ids_Qthw, tokens.ids_Qthw)
        assert torch.equal(decompress(data, random_prior((8, 8, 5), channels=32)).ids_Qthw, tokens.ids_Qthw)


# --- seeking ---


class Recorder(io.BytesIO):
    """A file that remembers which of its bytes were read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.seen: set[int] = set()

    def read(self, size: int | None = -1) -> bytes:
        start = self.tell()
        data = super().read(size)
        self.seen |= set(range(start, start + len(data)))
        return data


def test_a_seek_reads_the_header_the_index_and_that_chunk_only() -> None:
    all_tokens, pieces = independent_chunks(PRIOR, 5)
    data = b"".join(pieces)
    starts = [sum(map(len, pieces[:index])) for index in range(len(pieces) + 1)]
    for frame in range(45):
        file, wanted = Recorder(data), frame // 9
        (piece,) = read_at(file, frame, lambda header: PRIOR)
        assert same(piece.tokens, all_tokens[wanted]) and piece.first_frame == 9 * wanted
        allowed = {*range(starts[1]), *range(starts[wanted + 1], starts[wanted + 2]), *range(starts[-2], starts[-1])}
        assert file.seen <= allowed


def test_a_seek_into_a_continued_run_reads_from_where_it_begins_and_the_flags_of_the_chunks_between() -> None:
    encoder = StreamEncoder(PRIOR, height=24, width=32)
    all_tokens = [random_tokens(PRIOR, (1, 3, 3, 4), seed=seed) for seed in range(6)]
    pushed = [encoder.push(tokens, continued=index in (1, 4, 5)) for index, tokens in enumerate(all_tokens)]
    data = b"".join([*pushed, encoder.finish()])
    for frame, runs in ((0, [0]), (9, [0, 1]), (18, [2]), (28, [3]), (53, [3, 4, 5])):
        found = read_at(io.BytesIO(data), frame, lambda header: PRIOR)
        assert same(joined(found), joined([replace(found[0], tokens=all_tokens[index]) for index in runs]))


def test_a_frame_that_is_not_there_and_a_file_without_its_index_are_named() -> None:
    _, pieces = independent_chunks(PRIOR, 2)
    data = b"".join(pieces)
    for frame in (-1, 18):
        with pytest.raises(UsageError, match="frames 0 to 17"):
            read_at(io.BytesIO(data), frame, lambda header: PRIOR)
    with pytest.raises(TruncatedStream, match="read it from the front"):
        read_at(io.BytesIO(data[:-1]), 3, lambda header: PRIOR)


@pytest.mark.parametrize("change", [{"lengths": (50, 50)}, {"frames": (4, 14)}, {"lengths": (9, 130)}])
def test_a_seek_by_an_index_that_points_elsewhere_is_an_error_or_right(change: dict[str, tuple[int, ...]]) -> None:
    all_tokens, pieces = independent_chunks(PRIOR, 2)
    end, _ = read_index(io.BytesIO(b"".join(pieces)))
    data = b"".join([*pieces[:-1], pack_end(replace(end, **change))])
    refused = 0
    for frame in range(18):
        try:
            found = read_at(io.BytesIO(data), frame, lambda header: PRIOR)
            assert same(found[frame // 9].tokens, all_tokens[frame // 9]) and found[0].first_frame == 0
        except DamagedStream:
            refused += 1
    assert refused > 0


@pytest.mark.parametrize(
    ("before", "end", "words"),
    [
        (2**17, End(lengths=(50, 50), frames=(9, 9)), "larger than the limits"),
        (2**17, End(lengths=(2**17 - 50,), frames=(9,)), "larger than the limits"),
        (150, End(lengths=(100,), frames=(0,)), "names no frames"),
        (50, End(lengths=(), frames=()), "names no frames"),
    ],
)
def test_a_seek_reads_no_more_than_the_limits_whatever_the_index_names(before: int, end: End, words: str) -> None:
    file = Recorder(MAGIC + bytes(before - len(MAGIC)) + pack_end(end))
    with pytest.raises(DamagedStream, match=words):
        read_at(file, 0, lambda header: PRIOR, limits=Limits(chunk_bytes=2**16, chunks=2**12))
    assert len(file.seen) == len(MAGIC) + len(pack_end(end))


# --- damage ---


def read_all(data: bytes, prior: Prior = PRIOR, **options) -> list[Piece | Gap]:
    decoder = StreamDecoder(lambda header: prior, **options)
    return [*decoder.feed(data), *decoder.finish()]


def test_a_cut_file_gives_every_whole_chunk_and_then_the_named_error() -> None:
    all_tokens, pieces = independent_chunks(PRIOR, 3)
    data = b"".join(pieces)
    ends = [sum(map(len, pieces[: index + 1])) for index in (1, 2, 3)]
    for cut in range(0, len(data), 7):
        found, decoder = [], StreamDecoder(lambda header: PRIOR)
        found.extend(decoder.feed(data[:cut]))
        with pytest.raises(TruncatedStream):
            list(decoder.finish())
        assert len(found) == sum(end <= cut for end in ends)
        assert all(same(piece.tokens, tokens) for piece, tokens in zip(found, all_tokens, strict=False))


def test_tolerated_damage_becomes_a_gap_with_its_frames_and_packets() -> None:
    all_tokens, pieces = independent_chunks(PRIOR, 4, OPUS_HEAD)
    whole = read_all(b"".join(pieces))
    pieces[2] = pieces[2][:20] + b"\xff" + pieces[2][21:]
    data = b"".join(pieces)
    found, decoder = [], StreamDecoder(lambda header: PRIOR)
    with pytest.raises(DamagedStream, match="chunk 2"):
        found.extend(decoder.feed(data))
    assert len(found) == 1 and same(found[0].tokens, all_tokens[0])
    first, gap, *rest = read_all(data, tolerate=True)
    assert isinstance(gap, Gap) and (gap.first_frame, gap.frames) == (9, 9) and "chunk 2" in gap.reason
    lost, *kept = (piece for piece in whole[1:] if isinstance(piece, Piece))
    assert gap.packets == len(lost.packets) > 15
    for piece, tokens in zip((first, *rest), (all_tokens[0], *all_tokens[2:]), strict=True):
        assert isinstance(piece, Piece) and same(piece.tokens, tokens)
    assert [piece.packets for piece in rest if isinstance(piece, Piece)] == [piece.packets for piece in kept]


@pytest.mark.parametrize("lost", [0, 1, 2, 3])
def test_a_missing_chunk_is_told_by_frame_numbers_and_the_end(lost: int) -> None:
    all_tokens, pieces = independent_chunks(PRIOR, 4)
    data = b"".join(piece for index, piece in enumerate(pieces) if index != lost + 1)
    with pytest.raises(DamagedStream):
        read_all(data)
    found = read_all(data, tolerate=True)
    assert [(piece.first_frame, isinstance(piece, Gap)) for piece in found] == [
        (9 * index, index == lost) for index in range(4)
    ]
    assert all(same(piece.tokens, all_tokens[piece.first_frame // 9]) for piece in found if isinstance(piece, Piece))


def test_chunks_that_continue_a_lost_one_are_lost_with_it_and_the_next_independent_one_is_not() -> None:
    encoder = StreamEncoder(PRIOR, height=24, width=32)
    all_tokens = [random_tokens(PRIOR, (1, 3, 3, 4), seed=seed) for seed in range(5)]
    pieces = [encoder.push(tokens, continued=index in (1, 2, 4)) for index, tokens in enumerate(all_tokens)]
    data = b"".join([pieces[0], pieces[1][:-1] + b"\x00", *pieces[2:], encoder.finish()])
    found = read_all(data, tolerate=True)
    assert [type(piece) for piece in found] == [Piece, Gap, Gap, Piece, Piece]
    last = found[-1]
    assert isinstance(last, Piece) and same(last.tokens, all_tokens[4])


def test_a_copied_chunk_is_an_error_and_passed_over_where_damage_is_tolerated() -> None:
    all_tokens, pieces = independent_chunks(PRIOR, 3)
    data = b"".join([*pieces[:3], pieces[1], pieces[2], *pieces[3:]])
    with pytest.raises(DamagedStream, match="frame 18 should follow, but 0 does"):
        read_all(data)
    found = read_all(data, tolerate=True)
    assert all(
        isinstance(piece, Piece) and same(piece.tokens, tokens) for piece, tokens in zip(found, all_tokens, strict=True)
    )


def test_a_file_of_which_nothing_is_left_is_an_error_even_where_damage_is_tolerated() -> None:
    _, pieces = independent_chunks(PRIOR, 2)
    for data in (pieces[0], pieces[0] + pieces[1][:-9]):
        with pytest.raises(StreamError, match="can be decoded"):
            read_all(data, tolerate=True)


def test_a_gap_tells_what_was_wrong_at_its_own_place() -> None:
    encoder = StreamEncoder(PRIOR, height=24, width=32)
    all_tokens = [random_tokens(PRIOR, (1, 3, 3, 4), seed=seed) for seed in range(6)]
    chunks = [encoder.push(tokens, continued=index == 2) for index, tokens in enumerate(all_tokens)]
    chunks[1] = chunks[1][:20] + container.CHUNK_SYNC + chunks[1][22:]
    chunks[3] += b"foreign bytes"
    found = read_all(b"".join([*chunks[:4], chunks[5], encoder.finish()]), tolerate=True)
    reasons = [gap.reason for gap in found if isinstance(gap, Gap)]
    assert "checksum" in reasons[0] and "chunk 2" in reasons[0]
    assert "frame 18 continues one that is lost" in reasons[1]
    assert len(reasons) == 3 and "neither a chunk nor the end begins" in reasons[2]


def test_more_missing_frames_than_the_limit_are_not_concealed() -> None:
    _, pieces = independent_chunks(PRIOR, 2)
    header = Parser()
    list(header.feed(pieces[0]))
    assert header.header is not None
    far = Chunk(first_frame=2**40, geometry=header.header.geometry, tokens=b"")
    data = b"".join([*pieces[:3], pack_chunk(far, header.header)])
    with pytest.raises(StreamError, match="above the limits"):
        read_all(data, tolerate=True)
    gap_seconds = Limits(gap_frames=2**50, gap_seconds=2**50)
    assert [type(piece) for piece in read_all(data, tolerate=True, limits=gap_seconds)] == [Piece, Piece, Gap, Piece]


def test_tokens_that_no_encoder_writes_are_an_error_or_a_gap_though_the_checksum_fits() -> None:
    _, pieces = independent_chunks(PRIOR, 2)
    parser = Parser()
    list(parser.feed(pieces[0]))
    header, refused = parser.header, 0
    assert header is not None
    generator = torch.Generator().manual_seed(0)
    noises = [bytes(torch.randint(0, 256, (60,), generator=generator).tolist()) for _ in range(20)]
    for noise in [b"\xff" * 60, *noises]:  # the first leaves the coder's range at once
        chunk = pack_chunk(Chunk(first_frame=0, geometry=header.geometry, tokens=noise), header)
        end = pack_end(End(lengths=(len(chunk), len(pieces[2])), frames=(9, 9)))
        data = b"".join([pieces[0], chunk, pieces[2], end])
        try:
            read_all(data)
        except DamagedStream:
            refused += 1
            assert [type(piece) for piece in read_all(data, tolerate=True)] == [Gap, Piece]
    assert refused > 0


def test_an_id_outside_the_vocabulary_is_damage() -> None:
    prior, other = PlainPrior(300), PlainPrior(512)  # both have digits of 256 and 2 values
    tokens = random_tokens(other, (1, 1, 4, 4))
    assert int(tokens.ids_Qthw.max()) >= 300
    header, chunk, _ = parse(compress(tokens, other))
    assert isinstance(chunk, Chunk)
    data = pack_header(replace(header, vocab_size=300)) + pack_chunk(chunk, header)
    with pytest.raises(DamagedStream, match="outside the vocabulary of 300"):
        read_all(data, prior)


# --- calls that cannot be ---


def test_another_prior_is_refused_by_name() -> None:
    data = compress(random_tokens(PRIOR, (1, 1, 2, 2)), PRIOR)
    with pytest.raises(StreamError, match="needs prior"):
        decompress(data, random_prior(seed=1))
    plain = compress(random_tokens(PlainPrior(60), (1, 1, 2, 2)), PlainPrior(60))
    with pytest.raises(StreamError, match="knows 61 ids, the file 60"):
        decompress(plain, PlainPrior(61))


def test_tokens_that_do_not_fit_are_refused_and_nothing_is_written_for_them() -> None:
    encoder = StreamEncoder(PlainPrior(300), height=24, width=32)
    good = random_tokens(PlainPrior(300), (1, 3, 3, 4))
    with pytest.raises(UsageError, match="can only continue"):
        encoder.push(good, continued=True)
    encoder = StreamEncoder(PlainPrior(300), height=24, width=32)
    encoder.push(good)
    beyond = replace(good, ids_Qthw=good.ids_Qthw.clamp(min=300))
    with pytest.raises(TokenError, match="outside the vocabulary of 300"):
        encoder.push(beyond)
    with pytest.raises(TokenError, match="one tokenizer at one rate"):
        encoder.push(replace(good, tokenizer="another"))
    with pytest.raises(UsageError, match="must be of 16x12"):
        encoder.push(good, scale=8)
    end = next(item for item in parse(_file_of(encoder)) if isinstance(item, End))
    assert end.frames == (9,)


def _file_of(encoder: StreamEncoder) -> bytes:
    again = StreamEncoder(encoder.prior, height=24, width=32)
    return again.push(random_tokens(PlainPrior(300), (1, 3, 3, 4))) + encoder.finish()


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(chunks=2), "up to 2 chunks, and so many are written; begin again with longer chunks"),
        (
            Limits(latent_positions=11),
            "up to 11 token positions in a latent frame, got 3x4; code the video at a smaller",
        ),
        (Limits(chunk_tokens=35), "up to 35 ids in a chunk, got 36 of 9 frames; take shorter chunks"),
    ],
)
def test_a_file_that_readers_refuse_is_not_written(limits: Limits, words: str) -> None:
    tokens, fits = random_tokens(PRIOR, (1, 3, 3, 4)), Limits(chunks=2, latent_positions=12, chunk_tokens=36)
    encoder = StreamEncoder(PRIOR, height=24, width=32, limits=fits)
    data = encoder.push(tokens) + encoder.push(tokens)
    encoder.limits = limits
    with pytest.raises(UsageError, match=words):
        encoder.push(tokens)
    data += encoder.finish()
    assert len(read_all(data, limits=fits)) == 2
    assert StreamEncoder(PRIOR, height=24, width=32).limits == StreamDecoder(lambda header: PRIOR).limits == Limits()


def test_sound_that_no_packet_holds_is_not_promised() -> None:
    encoder = StreamEncoder(PRIOR, height=24, width=32, sound_head=OPUS_HEAD)
    encoder.push(random_tokens(PRIOR, (1, 3, 3, 4)), packets=(b"one", b"two"))
    with pytest.raises(UsageError, match="1609 samples of sound do not fit the 2 packets"):
        encoder.finish(sound_samples=1609)
    assert encoder.finish(sound_samples=1608)


def test_an_empty_stream_and_chunks_of_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="at least one chunk"):
        StreamEncoder(PRIOR, height=8, width=8).finish()
    with pytest.raises(UsageError, match="at least one latent frame"):
        compress(random_tokens(PRIOR, (1, 2, 2, 2)), PRIOR, chunk_latents=0)
    with pytest.raises(UsageError, match="do not make"):
        compress(random_tokens(PRIOR, (1, 4, 2, 2), frames=5), PRIOR)


def test_a_file_of_several_runs_is_not_taken_for_one() -> None:
    _, pieces = independent_chunks(PRIOR, 2)
    with pytest.raises(StreamError, match="several independent runs"):
        decompress(b"".join(pieces), PRIOR)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_whatever_bytes_change_tokens_are_right_or_an_error_comes(data: st.DataObject) -> None:
    all_tokens, pieces = independent_chunks(PRIOR, 2)
    good = b"".join(pieces)
    place = data.draw(st.integers(0, len(good)))
    length = data.draw(st.integers(0, 12))
    bad = good[:place] + data.draw(st.binary(max_size=12)) + good[place + length :]
    for tolerate in (False, True):
        try:
            for piece in read_all(bad, tolerate=tolerate):
                if isinstance(piece, Piece):
                    assert torch.equal(piece.tokens.ids_Qthw, all_tokens[piece.first_frame // 9].ids_Qthw)
        except KinolexError:
            pass

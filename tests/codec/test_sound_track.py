"""Packets of sound tokens: every id comes back, every packet has one size, heads that cannot be are refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from codec_examples import OPUS_HEAD, TOKENS_HEAD, TOKENS_TRACK, sound_ids
from hypothesis import given, settings
from hypothesis import strategies as st

from kinolex.codec.sound_track import (
    SoundTokens,
    SoundTrack,
    pack_head,
    pack_ids,
    tokens_track,
    track_of,
    unfit_sound,
    unpack_ids,
)
from kinolex.errors import DamagedStream, UsageError

TRACKS = st.builds(
    tokens_track,
    st.builds(
        SoundTokens,
        tokenizer=st.just("c3" * 32),
        num_levels=st.integers(1, 12),
        id_bits=st.integers(1, 24),
        source_rate_hz=st.sampled_from([8_000, 44_100, 48_000]),
        latents_per_packet=st.integers(1, 33),
    ),
    rate_hz=st.sampled_from([16_000, 24_000]),
    samples_per_latent=st.sampled_from([320, 480]),
    channels=st.sampled_from([1, 2]),
)


@settings(max_examples=60, deadline=None)
@given(TRACKS, st.integers(0, 70), st.integers(0, 2**31))
def test_ids_and_heads_come_back(track: SoundTrack, latents: int, seed: int) -> None:
    tokens = track.tokens
    assert tokens is not None
    shape = (tokens.num_levels, latents, track.channels)
    ids_Qtc = torch.randint(2**tokens.id_bits, shape, generator=torch.Generator().manual_seed(seed))

    packets = pack_ids(ids_Qtc, track)
    back_Qtc = unpack_ids(packets, track)

    assert track_of(pack_head(track)) == track
    assert {len(packet) for packet in packets} <= {tokens.packet_bytes(track.channels)}
    assert len(packets) == -(-latents // tokens.latents_per_packet)
    assert torch.equal(back_Qtc[:, :latents], ids_Qtc) and not back_Qtc[:, latents:].any()


def test_a_lost_packet_leaves_its_place_empty() -> None:
    first, _, third = pack_ids(sound_ids(12), TOKENS_TRACK)

    ids_Qtc = unpack_ids([first, None, third], TOKENS_TRACK)

    assert torch.equal(ids_Qtc[:, :4], sound_ids(12)[:, :4]) and torch.equal(ids_Qtc[:, 8:], sound_ids(12)[:, 8:])
    assert (ids_Qtc[:, 4:8] == -1).all()


def test_packets_before_a_frame_hold_all_that_is_heard_before_it_and_no_packet_more() -> None:
    for track in (TOKENS_TRACK, track_of(OPUS_HEAD)):
        for fps in (Fraction(24), Fraction(30000, 1001), Fraction(1, 3)):
            for frame in range(1, 40):
                packets, wanted = track.packets_before(frame, fps), frame / fps * track.rate_hz
                assert track.samples_in(packets) >= wanted > track.samples_in(packets - 1) - (packets == 1)


def test_packets_of_another_size_are_damage() -> None:
    packets = pack_ids(sound_ids(8), TOKENS_TRACK)

    with pytest.raises(DamagedStream, match="29 bytes instead of 30"):
        unpack_ids([packets[0], packets[1][:-1]], TOKENS_TRACK)


def test_ids_that_do_not_fit_are_not_written() -> None:
    with pytest.raises(UsageError, match="10 bits"):
        pack_ids(sound_ids(4) + 1000, TOKENS_TRACK)
    with pytest.raises(UsageError, match="3 levels of 2 channels"):
        pack_ids(sound_ids(4)[:2], TOKENS_TRACK)


def test_heads_that_cannot_be_are_refused_by_writer_and_reader() -> None:
    tokens = TOKENS_TRACK.tokens
    assert tokens is not None
    for track in (
        replace(TOKENS_TRACK, channels=3),
        replace(TOKENS_TRACK, rate_hz=0),
        replace(TOKENS_TRACK, tokens=replace(tokens, id_bits=25)),
        replace(TOKENS_TRACK, tokens=replace(tokens, tokenizer="name")),
        replace(TOKENS_TRACK, tokens=replace(tokens, latents_per_packet=2**14)),
        replace(TOKENS_TRACK, tokens=None),
    ):
        with pytest.raises(UsageError):
            pack_head(track)
    for head in (TOKENS_HEAD[:-1], TOKENS_HEAD + b"!", TOKENS_HEAD[:8] + b"\x02" + TOKENS_HEAD[9:], b"neither of both"):
        with pytest.raises(DamagedStream):
            track_of(head)
        assert unfit_sound(head, Fraction(24))
    for position in range(9, 12):
        with pytest.raises(DamagedStream, match="cannot be"):
            track_of(TOKENS_HEAD[:position] + bytes([200]) + TOKENS_HEAD[position + 1 :])
    assert "60 s at most" in unfit_sound(TOKENS_HEAD, Fraction(1, 61))

"""Files of version 1 stay readable for ever, and two decoders that share no line agree on them."""

from __future__ import annotations

from fractions import Fraction

import independent_decoder
import pytest
import torch
from codec_examples import GOLDEN, PRIORS, golden_files, ids_from_text, sound_ids

from kinolex.codec.priors import PLAIN, PlainPrior, Prior, load_prior
from kinolex.codec.sound_track import track_of, unpack_ids
from kinolex.codec.stream import read_pieces

NAMES = ("plain", "one_level", "two_levels", "one_position", "sound_tokens", "long_packets")
PLAIN_LEVELS = {"plain": 3, "sound_tokens": 1, "long_packets": 1}
PRIOR_OF = {"one_level": "one_level", "two_levels": "two_levels", "one_position": "one_level"}


def prior_of(name: str) -> Prior:
    if name in PLAIN_LEVELS:
        return PlainPrior(300, PLAIN_LEVELS[name])
    return load_prior(GOLDEN / f"{PRIOR_OF[name]}.prior.safetensors")


def stored(name: str) -> tuple[bytes, list[torch.Tensor]]:
    return (GOLDEN / f"{name}.klx").read_bytes(), ids_from_text((GOLDEN / f"{name}.ids.txt").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_the_codec_reads_the_stored_ids(name: str) -> None:
    data, all_ids = stored(name)
    pieces = list(read_pieces(data, lambda header: prior_of(name)))
    assert len(pieces) == len(all_ids)
    assert all(torch.equal(piece.tokens.ids_Qthw, ids) for piece, ids in zip(pieces, all_ids, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_independent_decoder_reads_the_stored_ids_and_all_else(name: str) -> None:
    data, all_ids = stored(name)
    prior_file = (GOLDEN / f"{PRIOR_OF[name]}.prior.safetensors").read_bytes() if name in PRIOR_OF else None
    decoded = independent_decoder.decode(data, prior_file)
    pieces = list(read_pieces(data, lambda header: prior_of(name)))
    assert len(decoded.chunks) == len(all_ids)
    for chunk, ids_Qthw, piece in zip(decoded.chunks, all_ids, pieces, strict=True):
        assert torch.equal(torch.from_numpy(chunk.ids_Qthw), ids_Qthw)
        assert (chunk.first_frame, chunk.continued) == (piece.first_frame, piece.continued)
        assert tuple(chunk.packets) == piece.packets and chunk.geometry.scale == piece.scale
    assert decoded.header.prior == prior_of(name).fingerprint
    assert (decoded.header.prior == PLAIN) == (name in PLAIN_LEVELS)


@pytest.mark.parametrize("name", NAMES)
def test_the_encoder_still_writes_the_stored_bytes(name: str) -> None:
    data, _ = stored(name)
    assert golden_files()[name][0] == data


def test_the_golden_files_are_small() -> None:
    assert {path.name for path in GOLDEN.iterdir() if path.is_file()} == {
        *(f"{name}.{suffix}" for name in NAMES for suffix in ("klx", "ids.txt")),
        *(f"{name}.prior.safetensors" for name in PRIORS),
    }
    assert sum(path.stat().st_size for path in GOLDEN.iterdir()) < 100_000


def test_the_independent_decoder_imports_nothing_of_ours() -> None:
    text = (GOLDEN.parent / "codec" / "independent_decoder.py").read_text()
    imports = {line.split()[1].split(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imports == {
        "__future__",
        "hashlib",
        "json",
        "collections",
        "dataclasses",
        "fractions",
        "math",
        "typing",
        "numpy",
    }
    assert len(text.splitlines()) < 500


def test_both_decoders_read_the_sound_tokens_of_the_stored_file() -> None:
    data, _ = stored("sound_tokens")
    decoded = independent_decoder.decode(data, None)
    packets = [packet for chunk in decoded.chunks for packet in chunk.packets]
    track = track_of(decoded.header.sound_head)

    assert decoded.header.sound is not None and decoded.header.sound.shape is not None
    theirs_tcQ = independent_decoder.sound_ids(packets, decoded.header.sound.shape)
    ours_Qtc = unpack_ids(packets, track)

    assert torch.equal(torch.from_numpy(theirs_tcQ).permute(2, 0, 1), ours_Qtc)
    assert torch.equal(ours_Qtc[:, :45], sound_ids(45)) and not ours_Qtc[:, 45:].any()
    for frame in range(21):
        assert independent_decoder.packets_before(frame, decoded.header) == track.packets_before(frame, Fraction(24))


def test_both_decoders_count_packets_of_several_frames_alike() -> None:
    decoded = independent_decoder.decode(stored("long_packets")[0], None)
    track = track_of(decoded.header.sound_head)
    assert track.packet_samples == 5760 and [len(chunk.packets) for chunk in decoded.chunks] == [2, 2, 2, 2]
    for frame in range(200):
        assert independent_decoder.packets_before(frame, decoded.header) == track.packets_before(frame, Fraction(24))

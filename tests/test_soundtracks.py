"""Sound in .klx files, as Opus or as tokens: what was put in is heard again, in time, through loss and damage."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from kinolex import checkpoint
from kinolex.codec.priors import PlainPrior
from kinolex.codec.sound_track import track_of
from kinolex.compression import CompressConfig, compress_stream, decompress, decompress_stream, describe, read_sound
from kinolex.errors import DamagedStream, ShapeError, UnknownModel, UsageError
from kinolex.soundtracks import TOKENS_KBPS, SoundPackets, decode_sound, encode_sound, open_decoder, sound_words
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip, Sound
from tests.tiny_sound import tiny_sound_tokenizer


@pytest.fixture
def sounds() -> SoundTokenizer:
    torch.manual_seed(2)
    return tiny_sound_tokenizer("5c" * 32, codes=1000, levels=8)


def noise(seconds: float, rate_hz: int = 8000, channels: int = 1) -> Sound:
    samples_CS = torch.randn(channels, round(seconds * rate_hz), generator=torch.Generator().manual_seed(0))
    return Sound((0.2 * samples_CS).clamp(-1, 1), rate_hz)


def packed(
    sound: Sound, sounds: SoundTokenizer | None, kbps: float | None = None
) -> tuple[SoundPackets, tuple[bytes, ...]]:
    coded = encode_sound(sound, kbps=kbps, tokenizer=sounds)
    assert coded is not None
    return coded, coded.take()


@pytest.mark.parametrize(("rate_hz", "channels"), [(8000, 1), (8000, 2), (44_100, 2)])
def test_tokens_are_heard_as_their_tokenizer_decodes_them(sounds: SoundTokenizer, rate_hz: int, channels: int) -> None:
    sound = noise(1.03, rate_hz, channels)
    coded, packets = packed(sound, sounds, 4.0 * channels)
    track = track_of(coded.head)

    heard = decode_sound(coded.head, packets, coded.num_samples, sounds)
    tokens = sounds.encode(sound, 8)
    wanted = sounds.decode(replace(tokens, extent=replace(tokens.extent, samples=coded.num_samples, rate_hz=8000)))

    assert track.tokens is not None and track.tokens.num_levels == 8 and track.tokens.source_rate_hz == rate_hz
    assert heard.rate_hz == 8000 and heard.samples_CS.shape == (channels, round(1.03 * 8000))
    assert torch.allclose(heard.samples_CS, wanted.samples_CS, atol=1e-4)
    assert sound_words(coded.head) == f"tokens of 8 levels, {channels} channel{'s' * (channels > 1)}"


@pytest.mark.parametrize("kind", ["opus", "tokens"])
def test_a_sound_in_pieces_is_packed_as_the_whole_and_no_further_than_asked(sounds: SoundTokenizer, kind: str) -> None:
    sound, tokenizer = noise(6.03, 44_100, 2), sounds if kind == "tokens" else None
    whole, packets = packed(sound, tokenizer, 16.0)
    asked = 0

    def pieces() -> Iterator[Sound]:
        nonlocal asked
        for part_CS in sound.samples_CS.split(1000, dim=1):
            asked += part_CS.shape[1]
            yield Sound(part_CS, 44_100)

    coded = encode_sound(pieces(), kbps=16.0, tokenizer=tokenizer)
    assert coded is not None and coded.head == whole.head
    taken = [coded.take(number) for number in (0, 3, 3, 2, 7)]
    assert list(map(len, taken)) == [0, 3, 0, 0, 4]
    assert asked / 44_100 < 7 * coded.track.packet_samples / coded.track.rate_hz + 1.0
    assert (*taken[1], *taken[4], *coded.take()) == packets and coded.num_samples == whole.num_samples
    heard = decode_sound(coded.head, packets, coded.num_samples, tokenizer)
    assert abs(heard.duration_s - 6.03) < 1e-3 and coded.take() == ()


def test_a_sound_without_samples_is_none_and_pieces_must_be_alike() -> None:
    assert encode_sound(noise(0.0)) is None and encode_sound(iter(())) is None
    coded = encode_sound([noise(0.3), noise(0.0), noise(0.3, 16_000)])
    assert coded is not None
    with pytest.raises(ShapeError, match="like the first"):
        coded.take()


def test_opus_says_how_much_a_packet_holds() -> None:
    coded, packets = packed(noise(1.0, 48_000), None)
    assert coded.track.packet_samples == 5760 and len(packets) == 9
    plain = track_of(coded.head[:19])
    assert plain.packet_samples == 960 and plain.pre_skip == coded.track.pre_skip
    for frames in (0, 7):
        with pytest.raises(DamagedStream, match=f"packets of {frames} frames of Opus"):
            track_of(coded.head[:19] + bytes([frames]))


def test_a_rate_is_kept_by_leaving_out_levels(sounds: SoundTokenizer) -> None:
    sound = noise(8.0)
    for kbps in (0.5, 1.0, 2.0, None):
        coded, packets = packed(sound, sounds, kbps)
        tokens = track_of(coded.head).tokens
        assert tokens is not None and tokens.id_bits == 10
        spent_kbps = 8 * sum(map(len, packets)) / 8.0 / 1000
        assert spent_kbps <= max(0.5, kbps or TOKENS_KBPS) * 1.03
        assert tokens.num_levels == min(8, int((kbps or TOKENS_KBPS) / 0.499))
    with pytest.raises(UsageError, match=r"needs 0\.99\d kbit/s at least for 2 channels together, got 0\.1"):
        encode_sound(noise(0.5, channels=2), kbps=0.1, tokenizer=sounds)


def test_a_lost_packet_is_silence_and_sound_goes_on_after_it(sounds: SoundTokenizer) -> None:
    coded, packets = packed(noise(2.0), sounds)
    samples = track_of(coded.head).packet_samples
    lost = [*packets[:2], None, *packets[3:]]

    whole, holed = (decode_sound(coded.head, some, None, sounds).samples_CS for some in (packets, lost))

    assert torch.equal(whole[:, : 2 * samples], holed[:, : 2 * samples])
    assert not holed[:, 2 * samples : 3 * samples].any() and holed[:, 3 * samples :].abs().max() > 0


def test_a_video_with_sound_tokens_gives_them_out_beside_its_pictures(
    sounds: SoundTokenizer, tiny_tokenizer: VideoTokenizer
) -> None:
    frames_TCHW = torch.randint(256, (40, 3, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    sound, fps = noise(40 / 24, 16_000), Fraction(24)
    prior, config = PlainPrior(64), CompressConfig(chunk_frames=9, sound_kbps=2.0)
    clip = Clip(frames_TCHW, fps)
    data = b"".join(compress_stream([clip], tiny_tokenizer, prior, config, sound=sound, sound_tokenizer=sounds))

    def coder(_header: object) -> tuple[VideoTokenizer, PlainPrior]:
        return tiny_tokenizer, prior

    pieces = list(decompress_stream([data[:100], data[100:]], coder, sound_tokenizer=sounds))
    whole = read_sound(io.BytesIO(data), tokenizer=sounds)

    assert whole is not None and whole.num_samples == math.ceil(40 / 24 * 8000)
    joined_CS = torch.cat([piece.sound.samples_CS for piece in pieces if piece.sound is not None], dim=1)
    assert torch.equal(joined_CS, whole.samples_CS[:, : joined_CS.shape[1]])
    assert abs(joined_CS.shape[1] - whole.num_samples) <= 1
    assert describe(io.BytesIO(data))["sound"] == "tokens of 4 levels, 1 channel"
    with pytest.raises(UnknownModel):
        read_sound(io.BytesIO(data))


def test_tracks_that_their_tokenizer_cannot_have_made_are_damage(sounds: SoundTokenizer) -> None:
    coded, packets = packed(noise(0.5), sounds)
    for at, value in ((12, 8001), (20, 161)):  # rate, samples per latent frame
        head = coded.head[:at] + value.to_bytes(4, "little") + coded.head[at + 4 :]
        with pytest.raises(DamagedStream, match="another rate or length"):
            open_decoder(head, sounds)
    with pytest.raises(DamagedStream, match="levels"):
        open_decoder(coded.head[:10] + bytes([9]) + coded.head[11:], sounds)
    full = b"\xff" * len(packets[0])
    with pytest.raises(DamagedStream, match="beyond the 1000 ids"):
        decode_sound(coded.head, [full], None, sounds)


def test_a_file_with_sound_tokens_goes_through_the_commands(
    sounds: SoundTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from kinolex import cli
    from kinolex.media import read, write

    checkpoint.save(tmp_path / "sounds", sounds.model, card="")
    frames_TCHW = torch.full((10, 3, 32, 32), 90, dtype=torch.uint8)
    write(Clip(frames_TCHW, Fraction(10), noise(1.0, 16_000)), tmp_path / "in.mp4")
    model = ["--sound-model", str(tmp_path / "sounds")]

    def run(*arguments: str | Path) -> None:
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        assert ended.value.code == 0

    run("compress", tmp_path / "in.mp4", tmp_path / "a.klx", *model, "--sound-kbps", "1")
    run("decompress", tmp_path / "a.klx", tmp_path / "back.mp4", *model)
    capsys.readouterr()
    run("info", tmp_path / "a.klx", "--json")

    assert "tokens of 2 levels" in capsys.readouterr().out
    back = read(tmp_path / "back.mp4")
    assert back.num_frames == 10 and back.sound is not None and abs(back.sound.duration_s - 1.0) < 0.05
    run("compress", tmp_path / "in.mp4", tmp_path / "silent.klx", "--no-sound")
    silent = decompress((tmp_path / "silent.klx").read_bytes())
    assert silent.sound is None and silent.num_frames == 10
    with pytest.raises(SystemExit) as ended:
        cli.main(["compress", str(tmp_path / "in.mp4"), str(tmp_path / "b.klx"), "--no-sound", *model])
    assert ended.value.code == 2 and not (tmp_path / "b.klx").exists()


def test_the_container_takes_less_than_a_hundredth_beside_sound(tiny_tokenizer: VideoTokenizer) -> None:
    fps, prior = Fraction(4), PlainPrior(64)
    clips = [Clip(torch.full((40, 3, 16, 24), 60 * piece, dtype=torch.uint8), fps) for piece in range(4)]
    for kbps in (24.0, 32.0):
        config = CompressConfig(chunk_frames=9, sound_kbps=kbps)
        data = b"".join(compress_stream(clips, tiny_tokenizer, prior, config, sound=noise(40.0, 48_000, 2)))
        facts = describe(io.BytesIO(data))
        assert facts["container_bytes"] < 0.01 * facts["bytes"] + 120, facts
        assert facts["sound_bytes"] * 8 / 40 / 1000 == pytest.approx(kbps, rel=0.15)


def test_sound_before_damage_ends_with_the_pictures_and_after_the_last_chunk_it_is_whole(
    tiny_tokenizer: VideoTokenizer,
) -> None:
    clip = Clip(torch.full((20, 3, 16, 24), 90, dtype=torch.uint8), Fraction(10))
    config = CompressConfig(chunk_frames=8)
    data = b"".join(compress_stream([clip], tiny_tokenizer, PlainPrior(64), config, sound=noise(3.0, 48_000)))
    whole = read_sound(io.BytesIO(data))
    unended, cut = (read_sound(io.BytesIO(data[:size]), up_to_damage=True) for size in (len(data) - 3, len(data) // 2))

    assert whole is not None and unended is not None and cut is not None
    assert whole.duration_s == 3.0 and 3.0 <= unended.duration_s < 3.12
    assert cut.duration_s in (0.8, 1.6)
    for part in (unended, cut):
        count = min(whole.num_samples, part.num_samples)
        assert torch.equal(part.samples_CS[:, :count], whole.samples_CS[:, :count])

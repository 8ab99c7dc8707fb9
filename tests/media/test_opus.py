from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from kinolex.errors import MediaError, UnreadableMedia
from kinolex.media.opus import PACKET_SAMPLES, RATE_HZ, OpusDecoder, OpusEncoder, decode_opus, encode_opus
from kinolex.media.resample import resample_sound
from kinolex.types import Sound


def tone(rate_hz: int, samples: int, channels: int, pitches_hz: tuple[int, int] = (440, 660)) -> Sound:
    """A different pitch in every channel."""
    times_S = torch.arange(samples) / rate_hz
    return Sound(
        torch.stack([0.5 * torch.sin(2 * math.pi * pitch * times_S) for pitch in pitches_hz[:channels]]), rate_hz
    )


def snr_db(original_CS: torch.Tensor, restored_CS: torch.Tensor) -> float:
    error = float((original_CS - restored_CS).square().mean())
    return 10 * math.log10(float(original_CS.square().mean()) / max(error, 1e-12))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("samples", [1, 647, 648, 649, 960, 4800, 48_000])
def test_the_sound_comes_back_to_the_sample_and_in_time(samples: int, channels: int) -> None:
    sound = tone(RATE_HZ, samples, channels)
    opus = encode_opus(sound, kbps=96)
    back = decode_opus(opus.head, opus.packets, opus.num_samples)
    assert back.samples_CS.shape == sound.samples_CS.shape and back.rate_hz == RATE_HZ
    assert opus.num_samples == samples
    if samples >= 4800:
        # A shift by one sample of a 660 Hz tone alone costs down to 21 dB.
        assert snr_db(sound.samples_CS[:, 480:], back.samples_CS[:, 480:]) > 24


def test_channels_are_not_swapped_or_mixed() -> None:
    sound = tone(RATE_HZ, 24_000, 2)
    silent_left = Sound(sound.samples_CS * torch.tensor([[0.0], [1.0]]), RATE_HZ)
    opus = encode_opus(silent_left, kbps=96)
    left_S, right_S = decode_opus(opus.head, opus.packets, opus.num_samples).samples_CS
    assert float(left_S.abs().max()) < 0.05 and float(right_S.abs().max()) > 0.4
    assert opus.head[9] == 2


@pytest.mark.parametrize("rate_hz", [8000, 22_050, 44_100, 96_000])
@pytest.mark.parametrize("samples", [1, 3001, 20_001])
def test_sound_of_any_rate_keeps_its_length_to_the_nearest_sample(rate_hz: int, samples: int) -> None:
    sound = tone(rate_hz, samples, 2)
    wanted = math.floor(samples * RATE_HZ / rate_hz + 0.5)
    assert resample_sound(sound, RATE_HZ).samples_CS.shape == (2, wanted)
    opus = encode_opus(sound)
    assert decode_opus(opus.head, opus.packets, opus.num_samples).num_samples == wanted


def test_a_resampled_tone_is_the_tone_at_the_other_rate() -> None:
    resampled_CS = resample_sound(tone(44_100, 22_050, 1), RATE_HZ).samples_CS
    assert snr_db(tone(RATE_HZ, 24_000, 1).samples_CS[:, 200:-200], resampled_CS[:, 200:-200]) > 35


def test_packets_are_20_ms_each_and_cover_pre_skip_and_sound() -> None:
    opus = encode_opus(tone(RATE_HZ, 10_000, 1))
    pre_skip = int.from_bytes(opus.head[10:12], "little")
    assert opus.head.startswith(b"OpusHead") and pre_skip > 0
    assert len(opus.packets) >= -(-(10_000 + pre_skip) // PACKET_SAMPLES)
    decoder = OpusDecoder(opus.head)
    lengths = [decoder.push(packet).shape[1] for packet in opus.packets]
    assert lengths == [PACKET_SAMPLES - pre_skip, *[PACKET_SAMPLES] * (len(opus.packets) - 1)]


@pytest.mark.parametrize("frames", [1, 3, 6])
@pytest.mark.parametrize(("rate_hz", "channels"), [(RATE_HZ, 1), (44_100, 2)])
def test_pieces_give_the_packets_of_the_whole_in_any_length(frames: int, rate_hz: int, channels: int) -> None:
    sound = tone(rate_hz, 30_001, channels)
    whole, pieces = (OpusEncoder(rate_hz, channels, kbps=64, frames=frames) for _ in range(2))
    packets = [*whole.push(sound.samples_CS), *whole.finish()]
    coming = [packet for part in sound.samples_CS.split(777, dim=1) for packet in pieces.push(part)]
    assert 0 < len(coming) < len(packets) and [*coming, *pieces.finish()] == packets
    assert pieces.num_samples == whole.num_samples == math.floor(30_001 * RATE_HZ / rate_hz + 0.5)

    decoder = OpusDecoder(whole.head, frames * PACKET_SAMPLES)
    heard = [torch.from_numpy(decoder.push(packet)) for packet in packets]
    pre_skip = int.from_bytes(whole.head[10:12], "little")
    assert sum(part.shape[1] for part in heard) == len(packets) * frames * PACKET_SAMPLES - pre_skip
    back_CS = torch.cat(heard, dim=1)[:, : whole.num_samples]
    assert snr_db(resample_sound(sound, RATE_HZ).samples_CS[:, 480:], back_CS[:, 480:]) > 20
    assert decoder.push(None).shape == (channels, frames * PACKET_SAMPLES)


def test_bytes_follow_the_bit_rate() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = Sound(torch.rand(1, 2 * RATE_HZ, generator=generator) - 0.5, RATE_HZ)
    for kbps in (16.0, 32.0, 96.0):
        assert sum(map(len, encode_opus(noise, kbps=kbps).packets)) * 8 / 2000 == pytest.approx(kbps, rel=0.25)


def test_lost_packets_are_silent_and_everything_else_stays_where_it_was() -> None:
    sound = tone(RATE_HZ, 24_000, 1)
    opus = encode_opus(sound, kbps=96)
    whole = decode_opus(opus.head, opus.packets, opus.num_samples).samples_CS
    packets = [None if index in (8, 9, 10) else packet for index, packet in enumerate(opus.packets)]
    lost = decode_opus(opus.head, packets, opus.num_samples).samples_CS
    pre_skip = int.from_bytes(opus.head[10:12], "little")
    start, stop = 8 * PACKET_SAMPLES - pre_skip, 11 * PACKET_SAMPLES - pre_skip
    assert lost.shape == whole.shape and not bool(lost[:, start:stop].any())
    assert torch.equal(lost[:, :start], whole[:, :start])
    # The decoder finds its way back within a few packets.
    assert snr_db(whole[:, stop + 4 * PACKET_SAMPLES :], lost[:, stop + 4 * PACKET_SAMPLES :]) > 20


def test_a_lost_first_packet_takes_the_pre_skip_with_it() -> None:
    opus = encode_opus(tone(RATE_HZ, 9600, 1))
    packets = [None, *opus.packets[1:]]
    assert decode_opus(opus.head, packets, opus.num_samples).num_samples == 9600


def test_no_sound_gives_no_packets() -> None:
    opus = encode_opus(Sound(torch.zeros(1, 0), RATE_HZ))
    assert opus.packets == () and opus.num_samples == 0
    assert decode_opus(opus.head, (), 0).samples_CS.shape == (1, 0)


def test_loud_sound_is_not_wound_around() -> None:
    square_CS = torch.ones(1, 4800) * torch.where(torch.arange(4800) // 50 % 2 == 0, 1.0, -1.0)
    opus = encode_opus(Sound(square_CS, RATE_HZ))
    assert float(decode_opus(opus.head, opus.packets, opus.num_samples).samples_CS.abs().max()) <= 1.0


def test_what_is_no_opus_is_refused_by_name() -> None:
    opus = encode_opus(tone(RATE_HZ, 960, 1))
    for head in (b"", opus.head[:18], b"x" + opus.head[1:], opus.head[:9] + b"\x06" + opus.head[10:]):
        with pytest.raises(UnreadableMedia, match="not that of mono or stereo Opus"):
            OpusDecoder(head)
    for kbps, channels, possible in (
        (5.9, 1, "6 to 256 are possible for one channel"),
        (513, 2, "6 to 512 .* together"),
    ):
        with pytest.raises(MediaError, match=f"cannot be encoded.*{possible}"):
            encode_opus(tone(RATE_HZ, 960, channels), kbps=kbps)


def test_random_bytes_as_packets_give_sound_or_the_named_error() -> None:
    dice, head, refused = np.random.default_rng(0), encode_opus(tone(RATE_HZ, 960, 2)).head, 0
    for _ in range(200):
        decoder = OpusDecoder(head)
        try:
            samples_CS = decoder.push(dice.bytes(int(dice.integers(0, 60))))
            assert samples_CS.shape[0] == 2 and np.isfinite(samples_CS).all() and np.abs(samples_CS).max(initial=0) <= 1
        except UnreadableMedia:
            refused += 1
    assert 0 < refused < 200

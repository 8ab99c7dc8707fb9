"""Sound <-> Opus packets, for files that carry sound beside tokens.

Sound --48 kHz--> libopus --> identification header + packets of 20 ms          and back, to the sample
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av.error as av_error
import numpy as np
import torch
from av import AudioFrame, CodecContext, Packet
from av.audio.codeccontext import AudioCodecContext
from av.audio.resampler import AudioResampler
from einops import rearrange
from numpy.typing import NDArray

from kinolex.errors import MediaError, UnreadableMedia
from kinolex.media.opening import reason
from kinolex.media.resample import resample_sound
from kinolex.types import Sound

RATE_HZ = 48_000
PACKET_SAMPLES = 960


@dataclass(frozen=True, slots=True)
class Opus:
    """An encoded sound."""

    head: bytes
    """Identification header of RFC 7845, section 5.1: channels, pre-skip, rate of the source."""
    packets: tuple[bytes, ...]
    num_samples: int
    """At 48 kHz, after the pre-skip."""


def encode_opus(sound: Sound, *, kbps: float = 32.0) -> Opus:
    """Opus packets of a sound of one or two channels.

    Raises:
        MediaError: the encoder refuses, e.g. the bit rate.
    """
    channels = sound.samples_CS.shape[0]
    try:
        context = CodecContext.create("libopus", "w")
        assert isinstance(context, AudioCodecContext)
        context.sample_rate, context.layout = RATE_HZ, "mono" if channels == 1 else "stereo"
        context.format, context.bit_rate = "flt", round(kbps * 1000)
        context.time_base = Fraction(1, RATE_HZ)
        context.options = {"application": "audio", "frame_duration": "20", "vbr": "constrained"}
        context.open()
        head = bytes(context.extradata or b"")
        samples_CS = at_opus_rate(sound)
        num_samples = samples_CS.shape[1]
        # The decoder drops the pre-skip at the front, so as much has to follow at the end.
        padded = -(-(num_samples + int.from_bytes(head[10:12], "little")) // PACKET_SAMPLES) * PACKET_SAMPLES
        samples_CS = np.pad(samples_CS, ((0, 0), (0, padded - num_samples)))
        packets = []
        for start in range(0, padded if num_samples else 0, PACKET_SAMPLES):
            part_CS = np.ascontiguousarray(samples_CS[:, start : start + PACKET_SAMPLES])
            frame = AudioFrame.from_ndarray(
                rearrange(part_CS, "c s -> 1 (s c)"), format="flt", layout=context.layout.name
            )
            frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, start, context.time_base
            packets += [bytes(packet) for packet in context.encode(frame)]
        packets += [bytes(packet) for packet in context.encode(None)] if packets else []
    except (av_error.FFmpegError, ValueError) as error:
        raise MediaError(
            f"the sound cannot be encoded as Opus at {kbps:g} kbit/s ({reason(error)}); it takes 6 to 256 a channel"
        ) from error
    return Opus(head, tuple(packets), num_samples)


class OpusDecoder:
    """Packets in, samples out, as they come.

    Args:
        head: identification header.

    Raises:
        UnreadableMedia: it is not that of mono or stereo Opus.
    """

    def __init__(self, head: bytes) -> None:
        if len(head) < 19 or head[:8] != b"OpusHead" or head[9] not in (1, 2):
            raise UnreadableMedia("the sound's header is not that of mono or stereo Opus; the file is damaged")
        self.channels, self._skip = head[9], int.from_bytes(head[10:12], "little")
        context = CodecContext.create("libopus", "r")
        assert isinstance(context, AudioCodecContext)
        # Builds differ in whether the decoder drops the pre-skip; told that there is none, none does.
        context.extradata = head[:10] + bytes(2) + head[12:]
        self._context = context
        self._resampler = AudioResampler(format="fltp", layout="mono" if self.channels == 1 else "stereo", rate=RATE_HZ)

    def push(self, packet: bytes | None) -> NDArray[Any]:
        """samples_CS of the next packet, float32, without the pre-skip; None is one that was lost, heard as silence."""
        pieces = [np.zeros((self.channels, 0 if packet is not None else PACKET_SAMPLES), np.float32)]
        try:
            for frame in self._context.decode(Packet(packet)) if packet is not None else ():
                frame.pts = None
                pieces += [part.to_ndarray() for part in self._resampler.resample(frame)]
        except (av_error.FFmpegError, ValueError) as error:
            raise UnreadableMedia(f"an Opus packet cannot be decoded ({reason(error)}); the file is damaged") from error
        samples_CS = np.concatenate(pieces, axis=1)
        skipped, self._skip = samples_CS[:, self._skip :], max(0, self._skip - samples_CS.shape[1])
        return np.clip(skipped, -1.0, 1.0)


def decode_opus(head: bytes, packets: Iterable[bytes | None], num_samples: int | None) -> Sound:
    """The sound of consecutive packets, cut to num_samples at 48 kHz unless that is None. Errors as OpusDecoder."""
    decoder = OpusDecoder(head)
    samples_CS = np.concatenate([np.zeros((decoder.channels, 0), np.float32), *map(decoder.push, packets)], axis=1)
    return Sound(torch.from_numpy(samples_CS[:, :num_samples].copy()), RATE_HZ)


def at_opus_rate(sound: Sound) -> NDArray[Any]:
    """samples_CS at 48 kHz, as many as its length says to the nearest sample."""
    return resample_sound(sound, RATE_HZ).samples_CS.cpu().numpy().astype(np.float32)

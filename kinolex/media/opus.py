"""Sound <-> Opus packets, for files that carry sound beside tokens.

Sound --48 kHz--> libopus --> identification header + packets of 20 ms or more          and back, to the sample
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
from torch import Tensor

from kinolex.errors import MediaError, UnreadableMedia
from kinolex.media.opening import reason
from kinolex.media.resample import Resampler
from kinolex.types import Sound

RATE_HZ = 48_000
PACKET_SAMPLES = 960
LEAST_KBPS, MOST_KBPS_A_CHANNEL = 6.0, 256.0


@dataclass(frozen=True, slots=True)
class Opus:
    """An encoded sound."""

    head: bytes
    """Identification header of RFC 7845, section 5.1: channels, pre-skip, rate of the source."""
    packets: tuple[bytes, ...]
    num_samples: int
    """At 48 kHz, after the pre-skip."""


class OpusEncoder:
    """Samples in, packets out, as they come.

        packets = [*encoder.push(samples_CS), *encoder.push(more_CS), *encoder.finish()]

    Args:
        rate_hz: of the samples that will be pushed.
        channels: one or two.
        kbps: of all channels together, on average.
        frames: of 20 ms in a packet, 1 to 6. More are fewer bytes around the packets and a longer delay.

    Raises:
        MediaError: a bit rate that Opus does not have, or the encoder fails.
    """

    def __init__(self, rate_hz: int, channels: int, *, kbps: float = 32.0, frames: int = 1) -> None:
        most_kbps = MOST_KBPS_A_CHANNEL * channels
        if not LEAST_KBPS <= kbps <= most_kbps:
            raise MediaError(
                f"the sound cannot be encoded as Opus at {kbps:g} kbit/s: {LEAST_KBPS:g} to {most_kbps:g} are possible "
                f"for {'one channel' if channels == 1 else f'{channels} channels together'}"
            )
        self.num_samples = 0
        """At 48 kHz, without the pre-skip; complete once all has been pushed and finished."""
        self._kbps, self._layout = kbps, "mono" if channels == 1 else "stereo"
        self._packet_samples = frames * PACKET_SAMPLES
        self._resampler = Resampler(rate_hz, RATE_HZ, channels)
        self._waiting_CS, self._given = torch.zeros(channels, 0), 0
        with self._named_errors():
            context = CodecContext.create("libopus", "w")
            assert isinstance(context, AudioCodecContext)
            context.sample_rate, context.layout = RATE_HZ, self._layout
            context.format, context.bit_rate = "flt", round(kbps * 1000)
            context.time_base = Fraction(1, RATE_HZ)
            context.options = {"application": "audio", "frame_duration": str(20 * frames), "vbr": "constrained"}
            context.open()
        self._context, self.head = context, bytes(context.extradata or b"")

    def push(self, samples_CS: Tensor) -> list[bytes]:
        """The packets that are full."""
        return self._encoded(self._resampler.push(samples_CS))

    def finish(self) -> list[bytes]:
        """The packets that are left; none for a sound without samples."""
        packets = self._encoded(self._resampler.flush())
        if not self.num_samples:
            return packets
        # The decoder drops the pre-skip at the front, so as much has to follow at the end. The encoder holds nothing
        # back: asked to flush, it would add a packet of silence.
        held = self.num_samples + int.from_bytes(self.head[10:12], "little")
        missing = -(-held // self._packet_samples) * self._packet_samples - self.num_samples
        silence_CS = torch.zeros(len(self._waiting_CS), missing)
        return packets + self._through(torch.cat([self._waiting_CS, silence_CS], dim=1))

    def _encoded(self, samples_CS: Tensor) -> list[bytes]:
        self.num_samples += samples_CS.shape[1]
        self._waiting_CS = torch.cat([self._waiting_CS, samples_CS], dim=1)
        whole = self._waiting_CS.shape[1] // self._packet_samples * self._packet_samples
        ready_CS, self._waiting_CS = self._waiting_CS[:, :whole], self._waiting_CS[:, whole:]
        return self._through(ready_CS)

    def _through(self, samples_CS: Tensor) -> list[bytes]:
        packets: list[bytes] = []
        for part_CS in samples_CS.split(self._packet_samples, dim=1) if samples_CS.shape[1] else ():
            interleaved = np.ascontiguousarray(rearrange(part_CS.numpy(), "c s -> 1 (s c)"))
            frame = AudioFrame.from_ndarray(interleaved, format="flt", layout=self._layout)
            frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, self._given, Fraction(1, RATE_HZ)
            self._given += part_CS.shape[1]
            with self._named_errors():
                packets += [bytes(packet) for packet in self._context.encode(frame)]
        return packets

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except (av_error.FFmpegError, ValueError) as error:
            raise MediaError(
                f"the sound cannot be encoded as Opus at {self._kbps:g} kbit/s ({reason(error)})"
            ) from error


def encode_opus(sound: Sound, *, kbps: float = 32.0) -> Opus:
    """Opus packets of 20 ms of a whole sound. Arguments and errors as of OpusEncoder."""
    encoder = OpusEncoder(sound.rate_hz, len(sound.samples_CS), kbps=kbps)
    packets = (*encoder.push(sound.samples_CS.cpu().float()), *encoder.finish())
    return Opus(encoder.head, packets, encoder.num_samples)


class OpusDecoder:
    """Packets in, samples out, as they come.

    Args:
        head: identification header.
        packet_samples: of one packet, which is how much silence stands for a lost one.

    Raises:
        UnreadableMedia: it is not that of mono or stereo Opus.
    """

    def __init__(self, head: bytes, packet_samples: int = PACKET_SAMPLES) -> None:
        if len(head) < 19 or head[:8] != b"OpusHead" or head[9] not in (1, 2):
            raise UnreadableMedia("the sound's header is not that of mono or stereo Opus; the file is damaged")
        self.channels, self._skip = head[9], int.from_bytes(head[10:12], "little")
        self._packet_samples = packet_samples
        context = CodecContext.create("libopus", "r")
        assert isinstance(context, AudioCodecContext)
        # Builds differ in whether the decoder drops the pre-skip; told that there is none, none does.
        context.extradata = head[:10] + bytes(2) + head[12:]
        self._context = context
        self._resampler = AudioResampler(format="fltp", layout="mono" if self.channels == 1 else "stereo", rate=RATE_HZ)

    def push(self, packet: bytes | None) -> NDArray[Any]:
        """samples_CS of the next packet, float32, without the pre-skip; None is one that was lost, heard as silence."""
        pieces = [np.zeros((self.channels, 0 if packet is not None else self._packet_samples), np.float32)]
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

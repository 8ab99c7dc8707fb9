"""One sound track of a file being written, encoded in step with the picture so that the muxer never has to wait."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from av import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer

from kinolex.types import Sound

CODEC_RATES_HZ = {
    "aac": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000),
    "libopus": (8000, 12000, 16000, 24000, 48000),
}
BITS_PER_SECOND = {"aac": 96_000, "libopus": 80_000}
"""Per channel."""
BLOCK_SAMPLES = 4096


class SoundTrack:
    """Encodes a Sound into a container, at the nearest rate from its own upwards that the codec knows."""

    def __init__(self, container: OutputContainer, codec: str, sound: Sound) -> None:
        self._container, self._sound = container, sound
        rates = CODEC_RATES_HZ[codec]
        rate_hz = next((rate for rate in rates if rate >= sound.rate_hz), rates[-1])
        channels = sound.samples_CS.shape[0]
        self._layout = "mono" if channels == 1 else "stereo"
        stream = container.add_stream(codec, rate=rate_hz, layout=self._layout)
        assert isinstance(stream, AudioStream)
        stream.bit_rate = BITS_PER_SECOND[codec] * channels
        self._stream = stream
        self._resampler = AudioResampler(format=stream.codec_context.format, layout=self._layout, rate=rate_hz)
        self._position = 0

    def advance(self, until_s: Fraction) -> None:
        """Encode what is heard before this moment."""
        self._encode_until(min(math.ceil(until_s * self._sound.rate_hz), self._sound.num_samples))

    def finish(self) -> None:
        """Encode the rest and drain the encoder."""
        self._encode_until(self._sound.num_samples)
        for frame in self._resampler.resample(None):
            self._container.mux(self._stream.encode(frame))
        self._container.mux(self._stream.encode(None))

    def _encode_until(self, end: int) -> None:
        while self._position < end:
            stop = min(self._position + BLOCK_SAMPLES, end)
            samples_CS = self._sound.samples_CS[:, self._position : stop].cpu().numpy()
            frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples_CS), format="fltp", layout=self._layout)
            frame.sample_rate = self._sound.rate_hz
            frame.pts, frame.time_base = self._position, Fraction(1, self._sound.rate_hz)
            for part in self._resampler.resample(frame):
                self._container.mux(self._stream.encode(part))
            self._position = stop

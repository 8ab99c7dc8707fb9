"""One sound track of a file being written, encoded in step with the picture so that the muxer never has to wait."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import torch
from av import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer

from kinolex.errors import ShapeError, UsageError
from kinolex.types import Sound

CODEC_RATES_HZ = {
    "aac": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000),
    "libopus": (8000, 12000, 16000, 24000, 48000),
}
BITS_PER_SECOND = {"aac": 96_000, "libopus": 80_000}
"""Per channel."""
BLOCK_SAMPLES = 4096


class SoundTrack:
    """Encodes sound into a container, at the nearest rate from its own upwards that the codec knows.

    Args:
        sound: whole, or its pieces, each of which is asked for when the picture has come so far.

    Raises:
        UsageError: no piece at all; ShapeError: pieces of unlike rates or channels.
    """

    def __init__(self, container: OutputContainer, codec: str, sound: Sound | Iterable[Sound]) -> None:
        self._container = container
        self._pieces = iter([sound] if isinstance(sound, Sound) else sound)
        first = next(self._pieces, None)
        if first is None:
            raise UsageError("a track of sound in pieces needs at least one; give None where there is no sound")
        self._first, self._waiting_CS = first, first.samples_CS
        rates = CODEC_RATES_HZ[codec]
        rate_hz = next((rate for rate in rates if rate >= first.rate_hz), rates[-1])
        channels = first.samples_CS.shape[0]
        self._layout = "mono" if channels == 1 else "stereo"
        stream = container.add_stream(codec, rate=rate_hz, layout=self._layout)
        assert isinstance(stream, AudioStream)
        stream.bit_rate = BITS_PER_SECOND[codec] * channels
        self._stream = stream
        self._resampler = AudioResampler(format=stream.codec_context.format, layout=self._layout, rate=rate_hz)
        self._position = 0

    def advance(self, until_s: Fraction) -> None:
        """Encode what is heard before this moment."""
        end = math.ceil(until_s * self._first.rate_hz)
        while self._position < end and self._encode(min(BLOCK_SAMPLES, end - self._position)):
            pass

    def finish(self) -> None:
        """Encode the rest and drain the encoder."""
        while self._encode(BLOCK_SAMPLES):
            pass
        for frame in self._resampler.resample(None):
            self._container.mux(self._stream.encode(frame))
        self._container.mux(self._stream.encode(None))

    def _encode(self, wanted: int) -> int:
        """Encode so many of the next samples; fewer at the end. Returns how many."""
        while self._waiting_CS.shape[1] < wanted and (piece := next(self._pieces, None)) is not None:
            if (piece.rate_hz, len(piece.samples_CS)) != (self._first.rate_hz, len(self._waiting_CS)):
                raise ShapeError(f"every piece of a sound must be like the first, {self._first!r}, got {piece!r}")
            self._waiting_CS = torch.cat([self._waiting_CS, piece.samples_CS], dim=1)
        samples_CS = self._waiting_CS[:, :wanted]
        self._waiting_CS = self._waiting_CS[:, wanted:]
        count = samples_CS.shape[1]
        if count:
            frame = AudioFrame.from_ndarray(
                np.ascontiguousarray(samples_CS.cpu().numpy()), format="fltp", layout=self._layout
            )
            frame.sample_rate = self._first.rate_hz
            frame.pts, frame.time_base = self._position, Fraction(1, self._first.rate_hz)
            for part in self._resampler.resample(frame):
                self._container.mux(self._stream.encode(part))
            self._position += count
        return count

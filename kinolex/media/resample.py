"""Sound at another rate, by FFmpeg's resampler: whole, or piece by piece with the same samples."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from av import AudioFrame
from av.audio.resampler import AudioResampler
from torch import Tensor

from kinolex.errors import UsageError
from kinolex.media.timing import round_half_up
from kinolex.types import Sound

BLOCK_S = Fraction(1, 4)


class Resampler:
    """Samples of one sound from one rate to another, as they come.

    Whatever pieces are pushed, FFmpeg sees the same blocks, so the samples do not depend on how a sound was cut.

    Raises:
        UsageError: a rate that is not positive.
    """

    def __init__(self, from_hz: int, to_hz: int, channels: int) -> None:
        if min(from_hz, to_hz) < 1:
            raise UsageError(f"rates must be at least 1 Hz, got {from_hz} and {to_hz}")
        self.from_hz, self.to_hz = from_hz, to_hz
        self._layout = "mono" if channels == 1 else "stereo"
        self._resampler = AudioResampler(format="fltp", layout=self._layout, rate=to_hz)
        self._block = max(1, round_half_up(BLOCK_S * from_hz))
        self._waiting_CS = torch.zeros(channels, 0)
        self._taken = self._given = 0

    def push(self, samples_CS: Tensor) -> Tensor:
        """The samples that are ready, float32; possibly none."""
        self._taken += samples_CS.shape[1]
        if self.from_hz == self.to_hz:
            return samples_CS
        self._waiting_CS = torch.cat([self._waiting_CS, samples_CS], dim=1)
        whole = self._waiting_CS.shape[1] // self._block * self._block
        blocks = self._waiting_CS[:, :whole].split(self._block, dim=1) if whole else ()
        self._waiting_CS = self._waiting_CS[:, whole:]
        return self._joined([part for block_CS in blocks for part in self._through(block_CS)])

    def flush(self) -> Tensor:
        """The rest; in all there are as many samples as the length says, to the nearest one."""
        if self.from_hz == self.to_hz:
            return self._waiting_CS
        parts = self._through(self._waiting_CS) if self._waiting_CS.shape[1] else []
        if self._taken:
            parts += [part.to_ndarray() for part in self._resampler.resample(None)]
        due = round_half_up(Fraction(self._taken * self.to_hz, self.from_hz)) - self._given
        rest_CS = self._joined(parts)[:, :due]
        return torch.nn.functional.pad(rest_CS, (0, due - rest_CS.shape[1]))

    def _through(self, samples_CS: Tensor) -> list[np.ndarray]:
        frame = AudioFrame.from_ndarray(
            np.ascontiguousarray(samples_CS.cpu().numpy()), format="fltp", layout=self._layout
        )
        frame.sample_rate, frame.pts = self.from_hz, None
        return [part.to_ndarray() for part in self._resampler.resample(frame)]

    def _joined(self, parts: list[np.ndarray]) -> Tensor:
        empty_CS = self._waiting_CS[:, :0]
        joined_CS = torch.cat([empty_CS, *(torch.from_numpy(part.astype(np.float32)) for part in parts)], dim=1)
        self._given += joined_CS.shape[1]
        return joined_CS


def resample_sound(sound: Sound, rate_hz: int) -> Sound:
    """The same sound at rate_hz, as many samples as its length says. Raises UsageError for a rate below 1."""
    resampler = Resampler(sound.rate_hz, rate_hz, sound.samples_CS.shape[0])
    first_CS = resampler.push(sound.samples_CS)
    return Sound(torch.cat([first_CS, resampler.flush()], dim=1), rate_hz)

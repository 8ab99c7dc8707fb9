"""Sound at another rate, by FFmpeg's resampler."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from av import AudioFrame
from av.audio.resampler import AudioResampler

from kinolex.errors import UsageError
from kinolex.media.timing import round_half_up
from kinolex.types import Sound


def resample_sound(sound: Sound, rate_hz: int, *, num_samples: int | None = None) -> Sound:
    """The same sound at rate_hz.

    Args:
        num_samples: of the result; what its length says, to the nearest sample, if None. Missing ones are zeros.

    Raises:
        UsageError: a rate that is not positive.
    """
    if rate_hz < 1:
        raise UsageError(f"a rate must be at least 1 Hz, got {rate_hz}")
    wanted = num_samples
    if wanted is None:
        wanted = round_half_up(Fraction(sound.num_samples * rate_hz, sound.rate_hz))
    samples_CS = sound.samples_CS.cpu().numpy()
    if sound.rate_hz != rate_hz and sound.num_samples:
        layout = "mono" if len(samples_CS) == 1 else "stereo"
        resampler = AudioResampler(format="fltp", layout=layout, rate=rate_hz)
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples_CS), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = sound.rate_hz, 0, Fraction(1, sound.rate_hz)
        parts = [part.to_ndarray() for part in (*resampler.resample(frame), *resampler.resample(None))]
        samples_CS = np.concatenate([samples_CS[:, :0], *parts], axis=1)
    samples_CS = samples_CS[:, :wanted]
    samples_CS = np.pad(samples_CS, ((0, 0), (0, wanted - samples_CS.shape[1])))
    return Sound(torch.from_numpy(samples_CS.astype(np.float32)), rate_hz)

"""Whether a long video stays as it began: loudness and colour of every second, against the first.

    file --second by second--> mean colour, loudness --minus the first second--> drift

What happens in a video changes both, so a video of worlds is measured beside one that a camera or a renderer made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinolex.errors import UsageError
from kinolex.media import VideoReader, probe, read_sound

FLOOR_DB = -80.0
"""Loudness of silence."""


@dataclass(frozen=True, slots=True, eq=False)
class Drift:
    """Of every whole second."""

    colour_M3: NDArray[np.float64]
    """Mean red, green and blue, 0..255."""
    loudness_M: NDArray[np.float64] | None
    """Root mean square in dB below full scale; None for a silent file."""

    def as_json(self) -> dict[str, Any]:
        """The largest and the last distance from the first second, and the slope over all seconds.

        `colour`: mean absolute difference of the three channels, in levels of 255. `loudness_db`: only what is louder
        than the first second, since a world may come to rest; `loudness_db_per_minute`: of the line through all.
        """
        apart_M = np.abs(self.colour_M3 - self.colour_M3[0]).mean(axis=1)
        figures = {
            "seconds": len(apart_M),
            "colour_most": round(float(apart_M.max()), 3),
            "colour_last": round(float(apart_M[-1]), 3),
            "colour_per_minute": _slope_per_minute(self.colour_M3.mean(axis=1)),
        }
        if self.loudness_M is not None:
            over_M = self.loudness_M - self.loudness_M[0]
            figures |= {
                "loudness_db_first": round(float(self.loudness_M[0]), 2),
                "louder_db_most": round(float(over_M.max()), 2),
                "louder_db_last": round(float(over_M[-1]), 2),
                "loudness_db_per_minute": _slope_per_minute(self.loudness_M),
            }
        return figures


def drift_of(path: str | Path) -> Drift:
    """Measured on a file, in constant memory but for its sound.

    Raises:
        UsageError: less than two seconds, or a rate that is no whole number; KinolexError of the media layer.
    """
    path = Path(path)
    info = probe(path)
    if info.fps.denominator != 1:
        raise UsageError(f"{path} has {info.fps} frames per second; seconds of a whole number of frames are needed")
    per_second, sums, means = int(info.fps), [], list[NDArray[np.float64]]()
    with VideoReader(path) as reader:
        for clip in reader:
            for colour_3 in clip.frames_TCHW.double().mean(dim=(2, 3)).numpy():
                sums.append(colour_3)
                if len(sums) == per_second:
                    means.append(np.mean(sums, axis=0))
                    sums = []
    if len(means) < 2:
        raise UsageError(f"{path} is shorter than two seconds; drift needs a longer one")
    return Drift(np.stack(means), _loudness(path, len(means)) if info.sound_rate_hz else None)


def _loudness(path: Path, seconds: int) -> NDArray[np.float64]:
    sound = read_sound(path)
    samples_S = sound.samples_CS.mean(dim=0)
    levels = []
    for second in range(seconds):
        part_S = samples_S[second * sound.rate_hz : (second + 1) * sound.rate_hz]
        power = float(part_S.double().square().mean()) if len(part_S) else 0.0
        levels.append(max(FLOOR_DB, 10 * math.log10(power)) if power > 0 else FLOOR_DB)
    return np.array(levels)


def _slope_per_minute(values_M: NDArray[np.float64]) -> float:
    return round(60 * float(np.polyfit(np.arange(len(values_M)), values_M, 1)[0]), 3)

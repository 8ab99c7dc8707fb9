"""The sound of a scene: one struck tone per impact, its pitch from the body's size, its timbre from the floor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kinolex.data.worlds.scene import Impact

TIMBRES: dict[str, tuple[tuple[float, float, float], ...]] = {
    # (frequency over the fundamental, amplitude, decay in seconds)
    "wood": ((1.0, 1.0, 0.09), (2.57, 0.35, 0.04), (4.9, 0.15, 0.02)),
    "metal": ((1.0, 1.0, 0.45), (2.76, 0.5, 0.30), (5.40, 0.3, 0.20)),
    "glass": ((1.0, 1.0, 0.25), (2.32, 0.45, 0.15), (4.25, 0.3, 0.08)),
    "rubber": ((1.0, 1.0, 0.07), (0.5, 0.25, 0.05)),
}
ATTACK_S = 0.001
LEVEL = 0.45


def synthesise(events: Sequence[Impact], floor: str, duration_s: float, rate_hz: int) -> NDArray[np.float32]:
    """Mono samples in [-1, 1] for the whole duration; silence where nothing hits."""
    total = max(1, round(duration_s * rate_hz))
    samples = np.zeros(total, np.float32)
    for event in events:
        start = int(np.ceil(event.time_s * rate_hz))
        longest = max(decay for _, _, decay in TIMBRES[floor]) * 7
        length = min(total - start, int(longest * rate_hz))
        if length <= 0:
            continue
        since_S = (np.arange(start, start + length) / rate_hz - event.time_s).astype(np.float32)
        tone_S = np.zeros(length, np.float32)
        for ratio, amplitude, decay in TIMBRES[floor]:
            frequency = event.pitch_hz * ratio
            if frequency < 0.45 * rate_hz:
                tone_S += amplitude * np.sin(2 * np.pi * frequency * since_S) * np.exp(-since_S / decay)
        attack_S = (since_S / ATTACK_S).clip(0, 1)
        samples[start : start + length] += LEVEL * event.loudness * attack_S * tone_S
    peak = float(np.abs(samples).max())
    return samples if peak <= 1.0 else samples / peak

"""Struck tones in a sound: when each begins, how high and how loud it is. No network, no access to the truth.

    samples --spectra every millisecond, what grew in 4 ms--> flux --peaks--> about when
        --linear prediction from what rang before--> the first sample that it cannot explain: when
        --less the recursion's own continuation, spectrum--> pitch and loudness

Tones that still ring are sums of decaying sines, which a linear recursion continues exactly; so a new one stands out
from the ringing as sharply as from silence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinolex.data.worlds.scene import PITCH_HZ, PITCH_RADIUS, SIZES
from kinolex.types import Sound

HOP_S, WINDOW_S, LAG_S = 0.001, 0.010, 0.004
MIN_GAP_S = 0.008
MIN_FLUX = 0.02
"""Over the strongest flux of the sound."""
MIN_LEVEL = 0.004
"""Full scale is 1; what stays below is silence."""
LOCAL_S, LOCAL_RATIO = 0.05, 2.0
"""A peak stands out from the median flux around it by this factor."""
ORDER, LEARN_S, RIDGE = 24, 0.040, 1e-10
"""Of the recursion: its order, the time it learns from, and a share of the energy that keeps it tame."""
BEFORE_S, AFTER_S, ATTACK_S, GUARD_S = 0.010, 0.006, 0.002, 0.001
"""Where around a peak of the flux a tone is looked for; for how long it then follows no recursion; and how
much earlier it may have begun."""
MIN_NEWS, NOISES = 0.04, 8.0
"""What cannot be explained must exceed this share of what rang, and what usually is not by this factor."""
SILENCE = 1e-5
MIN_TAIL_S = 0.006
"""A tone that begins later before the end is not heard; codecs fade in and out there."""
RISE_S, MIN_RISE = 0.015, 1.15
"""A tone makes the sound louder: by this factor over such a time. What tokenizers decode jumps between frames."""
PITCH_WINDOW_S, MIN_PITCH_WINDOW_S, LOUDNESS_WINDOW_S = 0.09, 0.025, 0.02
PITCH_RANGE_HZ = (
    PITCH_HZ * PITCH_RADIUS / max(SIZES.values()) / 1.25,
    PITCH_HZ * PITCH_RADIUS / min(SIZES.values()) * 1.25,
)
"""What bodies of all sizes sound like, and a quarter more."""
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Onset:
    time_s: float
    pitch_hz: float
    """NaN where the sound ends too soon to tell."""
    loudness: float
    """Root mean square of what the tone adds in its first 20 ms; full scale is 1."""


def onsets(sound: Sound) -> tuple[Onset, ...]:
    """Every struck tone, in order of time.

    Args:
        sound: any rate from 4 kHz on; channels are averaged.
    """
    samples = sound.samples_CS.mean(dim=0).double().numpy()
    rate_hz = sound.rate_hz
    starts: list[int] = []
    for peak in _peaks(samples, rate_hz):
        start = _start(samples, peak, starts[-1] if starts else None, rate_hz)
        if start is not None and start < len(samples) - int(MIN_TAIL_S * rate_hz) and _rises(samples, start, rate_hz):
            starts.append(start)
    found = []
    for index, start in enumerate(starts):
        following = starts[index + 1] if index + 1 < len(starts) else len(samples)
        added = _added(samples, start, starts[index - 1] if index else None, following, rate_hz)
        loudness = float(np.sqrt((added[: int(LOUDNESS_WINDOW_S * rate_hz)] ** 2).mean()))
        found.append(Onset(start / rate_hz, _pitch(added, rate_hz), loudness))
    return tuple(found)


def _peaks(samples: Array, rate_hz: int) -> list[int]:
    """Samples around which the spectrum grows."""
    hop, window, lag = (max(1, round(length * rate_hz)) for length in (HOP_S, WINDOW_S, LAG_S))
    if len(samples) < window or np.abs(samples).max() < MIN_LEVEL:
        return []
    # No zeros at the end: a sound that is cut while it rings would seem to grow there.
    padded = np.pad(samples, (window + lag, 0))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    spectra = np.abs(np.fft.rfft(frames * np.hanning(window), 2 * window, axis=1)) * (2 / window)
    # Neighbouring lines count as before, so that a line that only wavers does not seem to grow.
    wide = np.maximum(spectra, np.maximum(np.roll(spectra, 1, axis=1), np.roll(spectra, -1, axis=1)))
    steps = max(1, lag // hop)
    flux = (spectra[steps:] - wide[:-steps]).clip(0).sum(axis=1)
    level = np.sqrt((frames[steps:] ** 2).mean(axis=1))
    least = MIN_FLUX * flux.max()
    reach, around = max(1, int(MIN_GAP_S / HOP_S)), int(LOCAL_S / HOP_S)
    found = []
    for index in np.flatnonzero(flux > least):
        near = flux[max(0, index - reach) : index + reach + 1]
        local = flux[max(0, index - around) : index + around]
        if flux[index] < near.max() or flux[index] < LOCAL_RATIO * np.median(local) or level[index] < MIN_LEVEL:
            continue
        # A spectrum is placed at the middle of its window, and grew during the lag before.
        found.append(int((index + steps) * hop + window // 2 - (window + lag) - lag // 2))
    return found


def _start(samples: Array, peak: int, last: int | None, rate_hz: int) -> int | None:
    """The first sample near a peak that what rang before does not explain; None if it explains them all."""
    begin, end = max(0, peak - int(BEFORE_S * rate_hz)), min(len(samples), peak + int(AFTER_S * rate_hz))
    if last is not None:
        begin = max(begin, last + int(MIN_GAP_S * rate_hz))
    if begin >= end:
        return None
    rule, noise = _rule(samples, begin, last, rate_hz)
    if len(rule):
        windows = np.lib.stride_tricks.sliding_window_view(samples[begin - ORDER : end - 1], ORDER)
        size = np.abs(samples[begin:end] - windows @ rule)
    else:
        size = np.abs(samples[begin:end])
    rang = float(np.abs(samples[max(0, begin - int(BEFORE_S * rate_hz)) : begin]).max(initial=0.0))
    strongest = float(size.max())
    if strongest < max(MIN_LEVEL, MIN_NEWS * rang, NOISES * noise):
        return None
    return begin + int(np.flatnonzero(size > 0.3 * strongest)[0])


def _rises(samples: Array, start: int, rate_hz: int) -> bool:
    span = int(RISE_S * rate_hz)
    before = samples[max(0, start - span) : max(0, start - int(GUARD_S * rate_hz))]
    after = samples[start : start + span]
    if not len(before):
        return True
    return bool((after**2).mean() > MIN_RISE**2 * (before**2).mean() + SILENCE**2)


def _learned_from(end: int, last: int | None, rate_hz: int) -> int:
    """Where the ringing before `end` may be learned from: a tone's first milliseconds follow no recursion."""
    first = 0 if last is None else last + int(ATTACK_S * rate_hz)
    return max(first, end - int(LEARN_S * rate_hz))


def _rule(samples: Array, end: int, last: int | None, rate_hz: int) -> tuple[Array, float]:
    """Weights by which what rings before `end` continues, and how far off they are; no weights in silence."""
    learn = _learned_from(end, last, rate_hz)
    if end - learn < 2 * ORDER or np.abs(samples[learn:end]).max() < SILENCE:
        return np.empty(0), 0.0
    windows = np.lib.stride_tricks.sliding_window_view(samples[learn : end - 1], ORDER)
    targets = samples[learn + ORDER : end]
    gram = windows.T @ windows
    gram += np.eye(ORDER) * (RIDGE * np.trace(gram) + SILENCE**2)
    rule = np.linalg.solve(gram, windows.T @ targets)
    return rule, float(np.sqrt(((targets - windows @ rule) ** 2).mean()))


def _added(samples: Array, start: int, last: int | None, following: int, rate_hz: int) -> Array:
    """What follows a start, less what would have rung on without it."""
    least = int(MIN_PITCH_WINDOW_S * rate_hz)
    after = samples[start : start + min(int(PITCH_WINDOW_S * rate_hz), max(following - start, least))]
    # A tone is found once it is loud enough; its first samples lie a little earlier and must not be learned from.
    end = start - int(GUARD_S * rate_hz)
    rule, _ = _rule(samples, end, last, rate_hz)
    if not len(rule):
        return after
    # Its modes, fitted to all that was learned from, are steadier than the recursion run on from its last samples.
    begin = _learned_from(end, last, rate_hz)
    modes = np.roots(np.concatenate([[1.0], -rule[::-1]]))
    modes = modes / np.maximum(np.abs(modes), 1.0)  # what rings dies away
    powers = modes ** np.arange(start - begin + len(after))[:, None]
    known = powers[: end - begin]
    gram = known.conj().T @ known
    gram += np.eye(ORDER) * (RIDGE * np.trace(gram).real + SILENCE**2)
    sizes = np.linalg.solve(gram, known.conj().T @ samples[begin:end])
    return after - (powers[start - begin :] @ sizes).real


def _pitch(tone: Array, rate_hz: int) -> float:
    """Frequency of the strongest line of the spectrum within the range of bodies, between bins by a parabola."""
    if len(tone) < int(MIN_PITCH_WINDOW_S * rate_hz / 2):
        return float("nan")
    size = 1 << 14
    spectrum = np.log(np.abs(np.fft.rfft(tone * np.hanning(2 * len(tone) + 1)[len(tone) + 1 :], size)) + 1e-12)
    low, high = (int(edge * size / rate_hz) for edge in PITCH_RANGE_HZ)
    peak = low + int(np.argmax(spectrum[low:high]))
    a, b, c = spectrum[peak - 1 : peak + 2]
    bend = a - 2 * b + c
    return float((peak + (0.5 * (a - c) / bend if bend < 0 else 0.0)) * rate_hz / size)

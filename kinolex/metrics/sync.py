"""Do picture and sound go together? Events seen against events heard, one to one, with no network as the judge.

    impacts seen, onsets heard --one to one, nearest in time--> offsets, hits, misses, false events, pitch, loudness

Times are compared as they are: a sound that is late everywhere is late, and is not shifted to fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kinolex.errors import UsageError

WINDOW_S = 0.1
"""Events further apart belong to different causes."""
TOLERANCE_S = 0.04
"""What counts as a hit: one frame at 25 per second."""
CLOSE_S = 0.025
PITCH_CENTS = 50.0


class Event(Protocol):
    """Something seen or heard at a time."""

    @property
    def time_s(self) -> float: ...
    @property
    def pitch_hz(self) -> float: ...
    @property
    def loudness(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Watched:
    """The events of one clip."""

    seen: Sequence[Event]
    """Their pitch and loudness are what the picture implies."""
    heard: Sequence[Event]
    until_s: float = math.inf
    """Time of the last frame; what has no partner after it is nobody's fault, since the picture does not show it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """Over all clips; None where there is nothing to take a share or a median of."""

    clips: int
    seen: int
    heard: int
    matched: int
    """Pairs within 100 ms."""
    offset_ms_median: float | None
    """Heard less seen, of the matched: positive where sound is late."""
    distance_ms_median: float | None
    within_25_ms: float | None
    """Share of the events seen that are heard as close as this."""
    within_40_ms: float | None
    precision: float | None
    """Share of the events heard that lie within 40 ms of one seen; the rest are false."""
    recall: float | None
    f1: float | None
    pitch_cents_median: float | None
    """Distance to the pitch implied, of the matched whose pitch is known."""
    pitch_within_50_cents: float | None
    loudness_correlation: float | None
    """Pearson's, of the matched."""

    def as_json(self) -> dict[str, float | int | None]:
        """Rounded to what the numbers can bear."""
        return {
            name: round(value, 2 if name.endswith("median") else 4) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }


def sync(clips: Sequence[Watched], *, window_s: float = WINDOW_S) -> Sync:
    """Match the events of every clip and pool them.

    Args:
        clips: events of each; in any order.
        window_s: the furthest that two events of one cause may lie apart.

    Raises:
        UsageError: no clips, or a window below the tolerance of 40 ms.
    """
    if not clips:
        raise UsageError("sync needs at least one clip, got none")
    if not window_s >= TOLERANCE_S:
        raise UsageError(f"window_s must be at least {TOLERANCE_S}, got {window_s}")
    pairs: list[tuple[Event, Event]] = []
    seen = heard = 0
    for clip in clips:
        found = matches([event.time_s for event in clip.seen], [event.time_s for event in clip.heard], window_s)
        pairs += [(clip.seen[i], clip.heard[j]) for i, j in found]
        seen += _counted(clip.seen, {i for i, _ in found}, clip.until_s)
        heard += _counted(clip.heard, {j for _, j in found}, clip.until_s)
    offsets_ms = np.array([1000 * (sound.time_s - picture.time_s) for picture, sound in pairs])
    distances_ms = np.abs(offsets_ms)
    hits = int((distances_ms <= 1000 * TOLERANCE_S).sum())
    cents = np.array(
        [
            1200 * abs(math.log2(sound.pitch_hz / picture.pitch_hz))
            for picture, sound in pairs
            if sound.pitch_hz > 0 and picture.pitch_hz > 0
        ]
    )
    return Sync(
        clips=len(clips),
        seen=seen,
        heard=heard,
        matched=len(pairs),
        offset_ms_median=_median(offsets_ms),
        distance_ms_median=_median(distances_ms),
        within_25_ms=_share(int((distances_ms <= 1000 * CLOSE_S).sum()), seen),
        within_40_ms=_share(hits, seen),
        precision=_share(hits, heard),
        recall=_share(hits, seen),
        f1=_share(2 * hits, seen + heard),
        pitch_cents_median=_median(cents),
        pitch_within_50_cents=_share(int((cents <= PITCH_CENTS).sum()), len(cents)),
        loudness_correlation=_correlation([(picture.loudness, sound.loudness) for picture, sound in pairs]),
    )


def shuffled(clips: Sequence[Watched]) -> list[Watched]:
    """The control: every picture with the sound of the next clip, the last with the first's; none keeps its own.

    Raises:
        UsageError: fewer than two clips.
    """
    if len(clips) < 2:
        raise UsageError(f"shuffling needs at least two clips, got {len(clips)}")
    others = [*clips[1:], clips[0]]
    return [Watched(clip.seen, other.heard, clip.until_s) for clip, other in zip(clips, others, strict=True)]


def matches(seen_s: Sequence[float], heard_s: Sequence[float], window_s: float) -> list[tuple[int, int]]:
    """One-to-one pairs within a window: as many as possible, and of those the ones with the least total distance.

    Args:
        seen_s, heard_s: times in seconds, in any order.

    Returns:
        Pairs of positions in `seen_s` and `heard_s`, in order of time.

    Source: optimal matchings on a line never cross, so aligning sorted times finds them (Needleman and Wunsch 1970).
    """
    rows, columns = np.argsort(seen_s, kind="stable"), np.argsort(heard_s, kind="stable")
    # One more pair always outweighs the distances saved by doing without it.
    skip = window_s * (1 + len(rows) + len(columns))
    costs = np.zeros((len(rows) + 1, len(columns) + 1))
    costs[1:, 0], costs[0, 1:] = skip * np.arange(1, len(rows) + 1), skip * np.arange(1, len(columns) + 1)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            distance = abs(seen_s[row] - heard_s[column])
            together = costs[i, j] + distance if distance <= window_s else math.inf
            costs[i + 1, j + 1] = min(together, costs[i, j + 1] + skip, costs[i + 1, j] + skip)
    found, i, j = [], len(rows), len(columns)
    while i and j:
        if costs[i, j] == costs[i - 1, j] + skip:
            i -= 1
        elif costs[i, j] == costs[i, j - 1] + skip:
            j -= 1
        else:
            i, j = i - 1, j - 1
            found.append((int(rows[i]), int(columns[j])))
    return found[::-1]


def _counted(events: Sequence[Event], matched: set[int], until_s: float) -> int:
    return sum(index in matched or event.time_s <= until_s for index, event in enumerate(events))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _median(values: NDArray[np.float64]) -> float | None:
    return float(np.median(values)) if len(values) else None


def _correlation(pairs: list[tuple[float, float]]) -> float | None:
    values = np.array(pairs).reshape(-1, 2)
    if len(values) < 3 or np.ptp(values[:, 0]) < 1e-9 or np.ptp(values[:, 1]) < 1e-9:
        return None
    return float(np.corrcoef(values.T)[0, 1])

"""Quality over bytes: .klx files beside classical codecs, point by point and at exactly matched bytes.

    clips x coders x levels --code, decode, measure--> rows --> BD figures, matched figures, charts, a page

Two ways of counting bytes stand beside each other: "raw", the coded pictures alone (packets, token payloads), and
"file", everything on the disk (MP4, AVIF, .klx). Ours is coded as one chunk unless told otherwise, since the codecs too
may take the clip as one group of pictures; sound is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kinolex.data.index import Entry, scan
from kinolex.errors import DataError, UsageError
from kinolex.evaluation.codecs import finest_within
from kinolex.evaluation.coders import CodedClip, Coder
from kinolex.evaluation.measure import measure_pair
from kinolex.evaluation.protocol import ReconstructionProtocol, read_entry
from kinolex.evaluation.row_store import RowStore, clip_digest, row_key
from kinolex.metrics import SqueezeNetFeatures, bits_per_pixel
from kinolex.types import Clip

COUNTINGS = ("raw", "file")
LIMITS_BPP = (0.04, 0.08)
"""Bits per pixel at which coders are compared at exactly matched bytes."""

Row = dict[str, Any]
OnRow = Callable[[int, int, Row], None]
"""(rows finished, rows in all, the last row): for progress bars."""


def _silent(done: int, total: int, row: Row) -> None:
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Who is compared with whom, and where."""

    ours: Coder | None
    """None measures the curves of the others alone."""
    others: Sequence[Coder]
    rivals: tuple[str, ...]
    """Names of the others that are also searched for matched bytes."""
    limits_bpp: tuple[float, ...] = LIMITS_BPP

    def __post_init__(self) -> None:
        names = [coder.name for coder in self.coders]
        if len(set(names)) < len(names) or not set(self.rivals) <= set(names):
            raise UsageError(f"coders need names of their own, and rivals names of coders, got {names}, {self.rivals}")
        if not names or any(limit <= 0 for limit in self.limits_bpp):
            raise UsageError(f"name at least one coder, and limits above 0 bits per pixel, got {self.limits_bpp}")

    @property
    def coders(self) -> list[Coder]:
        return [*([self.ours] if self.ours else []), *self.others]

    @property
    def rows_per_clip(self) -> int:
        """At most: where ours fits no limit, its matched rows are missing."""
        matched = len(self.limits_bpp) * len(COUNTINGS) * (1 + len(self.rivals)) if self.ours else 0
        return sum(len(coder.curve) for coder in self.coders) + matched


def choose_entries(folder: str | Path, protocol: ReconstructionProtocol) -> list[Entry]:
    """Entries of the protocol's sets: those of its split, or all where a set names no split at all.

    Raises:
        MissingFile: a set is not there. DataError: nothing is left to measure.
    """
    chosen = []
    for name in protocol.sets:
        entries = scan(Path(folder) / name)
        whole = protocol.split is None or all(entry.split is None for entry in entries)
        prefix = "" if name == "." else f"{name}/"
        chosen += [
            replace(entry, name=prefix + entry.name)
            for entry in entries
            if whole or (entry.split or "train") == protocol.split
        ]
    if not chosen:
        raise DataError(f"nothing of split {protocol.split!r} lies in {', '.join(protocol.sets)}; name other --sets")
    return chosen


def measure_rows(
    comparison: Comparison,
    entries: Sequence[Entry],
    protocol: ReconstructionProtocol,
    features_net: SqueezeNetFeatures | None,
    store: RowStore,
    *,
    vmaf: Callable[[Clip, Clip], float] | None = None,
    on_row: OnRow = _silent,
) -> list[Row]:
    """Measure every coder on every clip; what the store knows is taken from there.

    Args:
        protocol: with features_sha256 of features_net, see ReconstructionProtocol.with_features.
        vmaf: (original, rebuilt) -> score, if it can be measured.

    Returns:
        Flat rows. purpose "curve": one per clip, coder and level. purpose "matched": one per clip, limit, counting and
        coder; ours is its best picture below the limit, the others are the best that fits into the bytes of ours.

    Raises:
        Reading errors as kinolex.media.read; UnsupportedMedia: an encoder is missing.
    """
    rows: list[Row] = []
    total = len(entries) * comparison.rows_per_clip
    for finished, entry in enumerate(entries, start=1):
        measuring = _Measuring(read_entry(entry, protocol), protocol, features_net, store, vmaf)
        for row in measuring.rows(comparison):
            rows.append({"name": entry.name} | row)
            on_row(len(rows), total, rows[-1])
        total = len(rows) + (len(entries) - finished) * comparison.rows_per_clip
    return rows


class _Measuring:
    """One clip: its rows, from the store or measured now."""

    def __init__(
        self,
        clip: Clip,
        protocol: ReconstructionProtocol,
        features_net: SqueezeNetFeatures | None,
        store: RowStore,
        vmaf: Callable[[Clip, Clip], float] | None,
    ) -> None:
        self.clip, self.protocol, self.features_net, self.store, self.vmaf = clip, protocol, features_net, store, vmaf
        # Searches for several limits meet the same levels: each is coded once, and measured once.
        self.coded: dict[tuple[str, float], CodedClip] = {}
        self.seen: dict[tuple[str, float], Row] = {}
        how = {"nth": protocol.distance_every_nth, "features": protocol.features_sha256, "version": protocol.version}
        self.base = [clip_digest(clip), how, vmaf is not None]

    def rows(self, comparison: Comparison) -> Iterator[Row]:
        """Rows of all coders, the curves first."""
        curves: dict[str, list[Row]] = {}
        for coder in comparison.coders:
            curves[coder.name] = []
            for level in coder.curve:
                row = self._stored(coder, "level", level, lambda v=level: v)
                curves[coder.name].append(row)
                yield {"purpose": "curve"} | row
        if comparison.ours is None:
            return
        rivals = [coder for coder in comparison.others if coder.name in comparison.rivals]
        for limit in comparison.limits_bpp:
            for counting in COUNTINGS:
                yield from self._matched(comparison.ours, rivals, curves, limit, counting)

    def _matched(
        self, ours: Coder, rivals: Sequence[Coder], curves: dict[str, list[Row]], limit: float, counting: str
    ) -> Iterator[Row]:
        max_bytes = int(limit * self.clip.extent.pixels / 8)
        facts = {"purpose": "matched", "limit_bpp": limit, "counting": counting}
        first = self._fitted(ours, curves[ours.name], max_bytes, counting)
        if first[f"{counting}_bytes"] > max_bytes:
            return
        yield facts | first | {"target_bytes": max_bytes, "over_target": False}
        for rival in rivals:
            wanted = first[f"{counting}_bytes"]
            row = self._fitted(rival, curves[rival.name], wanted, counting)
            yield facts | row | {"target_bytes": wanted, "over_target": row[f"{counting}_bytes"] > wanted}

    def _fitted(self, coder: Coder, curve: Sequence[Row], max_bytes: int, counting: str) -> Row:
        """The best level whose bytes fit, searched between the points that are known already."""
        size = f"{counting}_bytes"

        def search() -> float:
            # Bytes need not grow with every level, so the bracket is closed by the first point above, from below.
            low, high = 0, len(coder.grid)
            for row in curve:
                place = coder.grid.index(row["level"])
                if row[size] > max_bytes:
                    high = max(place, 1)
                    break
                low = place
            between = coder.grid[low:high]
            return finest_within(lambda level: self._size(coder, level, size), between, max_bytes, int)[0]

        return self._stored(coder, size, max_bytes, search)

    def _stored(self, coder: Coder, what: str, value: float, find_level: Callable[[], float]) -> Row:
        """The row that the store knows by this name, else that of the level that is found."""
        key = row_key(self.base, coder.name, coder.identity, what, value)
        if (row := self.store.get(key)) is None:
            row = self.store.put(key, self._measured(coder, find_level()))
        self.seen[coder.name, row["level"]] = row
        return row

    def _size(self, coder: Coder, level: float, size: str) -> int:
        known = self.seen.get((coder.name, level))
        return known[size] if known is not None else getattr(self._coded(coder, level), size)

    def _coded(self, coder: Coder, level: float) -> CodedClip:
        place = coder.name, level
        if place not in self.coded:
            self.coded[place] = coder.code(self.clip, level)
        return self.coded[place]

    def _measured(self, coder: Coder, level: float) -> Row:
        if (known := self.seen.get((coder.name, level))) is not None:
            return {name: value for name, value in known.items() if name != "key"}
        coded, extent = self._coded(coder, level), self.clip.extent
        row: Row = {"coder": coder.name, "setting": coder.setting, "level": level}
        row |= {"frames": extent.frames, "height": extent.height, "width": extent.width}
        row |= {"raw_bytes": coded.raw_bytes, "file_bytes": coded.file_bytes}
        row["raw_bits_per_pixel"] = bits_per_pixel(coded.raw_bytes, extent.pixels)
        row["file_bits_per_pixel"] = bits_per_pixel(coded.file_bytes, extent.pixels)
        rebuilt = coded.rebuild()
        row |= measure_pair(self.clip, rebuilt, self.protocol, self.features_net)
        if self.vmaf is not None:
            row["vmaf"] = self.vmaf(self.clip, rebuilt)
        return row


def how_measured(comparison: Comparison, **facts: Any) -> dict[str, Any]:
    """What a result says about its coders."""
    coders = {coder.name: {"identity": coder.identity, "levels": list(coder.curve)} for coder in comparison.coders}
    return {"coders": coders, "rivals": list(comparison.rivals), "limits_bpp": list(comparison.limits_bpp), **facts}

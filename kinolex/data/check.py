"""What is wrong with a collection before a training run trips over it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

from kinolex.data.index import Entry
from kinolex.data.sounds import SoundEntry, scan_all
from kinolex.errors import KinolexError, MediaError
from kinolex.media import VideoReader, probe, read
from kinolex.media.integrity import missing_bytes

SHORT_FRAMES = 17
"""The paper's training clips have this many frames."""


@dataclass(frozen=True, slots=True)
class Finding:
    path: str
    problem: str
    """broken, short, variable rate, rotated or interlaced"""
    detail: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def check_folder(folder: str | Path, *, whole: bool = False) -> list[Finding]:
    """Findings in a collection, in order of its entries.

    Args:
        whole: decode every frame, which finds damage anywhere; without, a file's end and its first frame are looked at.

    Raises:
        MissingFile: no such folder.
        DataError: a table of the collection cannot be read, or there is nothing to check.
    """
    findings = []
    for entry in track(scan_all(folder), description="checking", console=Console(stderr=True)):
        findings += _check_sound(entry) if isinstance(entry, SoundEntry) else _check(entry, whole)
    return findings


def _check(entry: Entry, whole: bool) -> list[Finding]:
    if entry.array_index is not None:
        return _check_array(entry)
    try:
        facts = probe(entry.path)
        if whole:
            with VideoReader(entry.path) as reader:
                for _ in reader:
                    pass
        else:
            read(entry.path, max_frames=1)
        lacking = missing_bytes(entry.path)
    except MediaError as error:
        return [Finding(entry.name, "broken", str(error))]
    if lacking != 0:
        return [Finding(entry.name, "broken", f"cut: {f'{lacking} bytes' if lacking else 'its end'} missing")]
    findings = []
    if entry.kind == "video" and facts.frames is not None and facts.frames < SHORT_FRAMES:
        findings.append(Finding(entry.name, "short", f"{facts.frames} frames, fewer than {SHORT_FRAMES}"))
    if facts.variable_rate:
        findings.append(Finding(entry.name, "variable rate", f"read at a constant {float(facts.fps):.3f} fps"))
    if facts.rotation_deg:
        findings.append(Finding(entry.name, "rotated", f"turned by {facts.rotation_deg} degrees on reading"))
    if facts.interlaced:
        findings.append(Finding(entry.name, "interlaced", "two fields per frame, which are not separated"))
    return findings


def _check_array(entry: Entry) -> list[Finding]:
    try:
        entry.load_array()
    except (KinolexError, IndexError) as error:
        return [Finding(entry.name, "broken", str(error))]
    return []


def _check_sound(entry: SoundEntry) -> list[Finding]:
    try:
        entry.load()
    except KinolexError as error:
        return [Finding(entry.name, "broken", str(error))]
    return []

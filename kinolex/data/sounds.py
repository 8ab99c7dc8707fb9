"""Collections of sound -> packs: everything decoded once to mono int16 at one rate, in one mapped file.

    sound files, zips of them, sound tracks of videos --mono, resample--> sounds.i16 + manifest.json

As with packs of pictures, the manifest keeps a hash of every source; building appends to a journal, can be killed at
any time, and then goes on to the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from kinolex.data.index import SOUND_SUFFIXES, SPLITS, TABLES, VIDEO_SUFFIXES, Entry, of_split, scan, split_in
from kinolex.errors import DataError, MediaError, MissingFile, UnsupportedMedia
from kinolex.media import read_sound
from kinolex.media.resample import resample_sound
from kinolex.types import Sound

FORMAT = "kinolex-sounds-1"
AUDIBLE = 1e-3
"""Smallest peak, of 1: quieter tracks teach nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundEntry:
    name: str
    """Path below the scanned folder, with !member inside a zip; unique."""
    path: Path
    member: str | None = None
    """Of the zip that path is."""
    label: str | None = None
    split: str | None = None
    kind: str = "sound"

    def load(self) -> Sound:
        """The sound as stored. Raises MediaError as read_sound, DataError for a damaged zip."""
        if self.member is None:
            return read_sound(self.path)
        try:
            with zipfile.ZipFile(self.path) as archive:
                content = archive.read(self.member)
        except (OSError, KeyError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{self.path}: {self.member} cannot be unpacked ({error}); fetch the file again") from error
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"sound{Path(self.member).suffix}"
            file.write_bytes(content)
            return read_sound(file)


def scan_sounds(folder: str | Path, *, split: str | None = None) -> list[SoundEntry]:
    """Everything below a folder that may sound, sorted by name.

    Args:
        folder: a collection with a table (as in kinolex.data.index), or sound files, videos and zips of sound files,
            whose split is named by a sub-folder or in the zip's name.
        split: keep only entries of this split; entries without one count as "train".

    Raises:
        MissingFile: no such folder.
        DataError: a damaged table or zip.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFile(f"{folder} is not a folder; give the folder that holds the sounds")
    entries = sorted(_scan(folder), key=lambda entry: entry.name)
    return [entry for entry in entries if split is None or (entry.split or "train") == split]


def scan_all(folder: str | Path, *, split: str | None = None) -> list[Entry | SoundEntry]:
    """Everything below a folder that is to be seen, and then what can be heard alone; as scan and scan_sounds.

    Raises:
        DataError: nothing is there, or nothing of the split.
    """
    seen = [entry for entry in scan(folder) if entry.kind != "sound"]
    heard = [
        entry
        for entry in scan_sounds(folder)
        if entry.member is not None or entry.path.suffix.lower() in SOUND_SUFFIXES
    ]
    if not seen and not heard:
        raise DataError(f"{folder} holds nothing to see or hear; give the folder of a collection")
    return of_split(folder, [*seen, *heard], split)


def _scan(root: Path) -> Iterator[SoundEntry]:
    if any((root / table).is_file() for table in TABLES):
        for entry in scan(root):
            if entry.kind != "image":
                yield SoundEntry(name=entry.name, path=entry.path, label=entry.label, split=entry.split)
        return
    for path in sorted(root.rglob("*")):
        below = path.relative_to(root)
        if any(part.startswith(".") for part in below.parts):
            continue
        name = below.as_posix()
        split = next((SPLITS[part.lower()] for part in below.parts[:-1] if part.lower() in SPLITS), None)
        if path.suffix.lower() == ".zip":
            split = split or split_in(path.stem)
            for member in _members(path):
                yield SoundEntry(name=f"{name}!{member}", path=path, member=member, split=split)
        elif path.suffix.lower() in SOUND_SUFFIXES | VIDEO_SUFFIXES:
            yield SoundEntry(name=name, path=path, split=split)


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return sorted(name for name in archive.namelist() if Path(name).suffix.lower() in SOUND_SUFFIXES)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as a zip ({error}); fetch it again") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundItem:
    name: str
    sha256: str
    offset: int
    """First sample in sounds.i16."""
    samples: int
    label: str | None = None
    split: str | None = None

    @staticmethod
    def from_json(record: dict[str, Any]) -> SoundItem:
        """Raises DataError when the record of a manifest or journal is no item."""
        try:
            item = SoundItem(**record)
        except TypeError as error:
            raise DataError(f"a record is no sound item: {error}") from error
        counts = (item.offset, item.samples)
        texts = (item.name, item.sha256, *filter(None, (item.label, item.split)))
        if not all(type(count) is int and 0 <= count < 2**48 for count in counts) or item.samples == 0:
            raise DataError(f"a sound item needs whole numbers of samples, got {item}")
        if not all(isinstance(text, str) for text in texts):
            raise DataError(f"a sound item needs name, hash, label and split as text, got {item}")
        return item


class SoundPack:
    """Read access; samples are views of the mapped file."""

    def __init__(self, folder: Path, items: list[SoundItem], rate_hz: int) -> None:
        self.folder, self.items, self.rate_hz = folder, items, rate_hz
        self._samples = np.memmap(folder / "sounds.i16", np.dtype("<i2"), "r")

    @staticmethod
    def open(folder: str | Path) -> SoundPack:
        """Raises DataError when the folder is no pack of sounds, or its samples do not match its manifest."""
        folder = Path(folder)
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            items = [SoundItem.from_json(item) for item in manifest["items"]]
            found_format, rate_hz = manifest["format"], manifest["rate_hz"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError, DataError) as error:
            raise DataError(f"{folder} is not a pack of sounds ({error}); delete it to have it built anew") from error
        if found_format != FORMAT or type(rate_hz) is not int or rate_hz < 1:
            raise DataError(
                f"{folder} has format {found_format!r} at {rate_hz!r} Hz, this version reads {FORMAT!r}; "
                "delete it to have it built anew"
            )
        end = 0
        for item in items:
            if item.offset != end:
                raise DataError(f"{folder}: {item.name} begins at sample {item.offset}, not {end}; delete the pack")
            end += item.samples
        have = (folder / "sounds.i16").stat().st_size if (folder / "sounds.i16").is_file() else 0
        if not items or have != 2 * end:
            raise DataError(f"{folder}/sounds.i16 holds {have} bytes but its manifest needs {2 * end}; delete the pack")
        return SoundPack(folder, items, rate_hz)

    def __len__(self) -> int:
        return len(self.items)

    def samples_S(self, index: int) -> NDArray[np.int16]:
        item = self.items[index]
        return self._samples[item.offset : item.offset + item.samples]

    @property
    def num_samples(self) -> int:
        return sum(item.samples for item in self.items)


def build_sound_pack(entries: Iterable[SoundEntry], folder: str | Path, *, rate_hz: int) -> SoundPack:
    """Decode a collection once.

    Args:
        entries: from scan_sounds; order decides the order in the pack. What is silent, unreadable or without sound is
            listed in the manifest under "skipped".
        folder: created; an unfinished build in it is continued.
        rate_hz: of the stored samples.

    Raises:
        DataError: nothing to be heard in any of them, or a damaged zip.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    journal, partial = folder / "journal.jsonl", folder / "sounds.i16.part"
    done, skipped = _resume(journal, partial)
    with open(journal, "a", encoding="utf-8") as log, open(partial, "ab") as file:
        for entry in track(list(entries), description=f"packing {folder.name}", console=Console(stderr=True)):
            if entry.name in done or entry.name in skipped:
                continue
            try:
                samples_S = _decode(entry, rate_hz)
            except MediaError as error:
                skipped[entry.name] = str(error)
                log.write(json.dumps({"skipped": entry.name, "why": str(error)}) + "\n")
                continue
            item = SoundItem(
                name=entry.name,
                sha256=hashlib.sha256(samples_S.tobytes()).hexdigest()
                if entry.member is not None
                else _sha256(entry.path),
                offset=file.tell() // 2,
                samples=len(samples_S),
                label=entry.label,
                split=entry.split,
            )
            file.write(samples_S.tobytes())
            file.flush()
            done[entry.name] = item
            log.write(json.dumps(asdict(item)) + "\n")
            log.flush()
    if not done:
        raise DataError(f"nothing to pack into {folder}: {len(skipped)} files could not be heard, none could")
    os.replace(partial, folder / "sounds.i16")
    items = [asdict(item) for item in done.values()]
    manifest = {"format": FORMAT, "rate_hz": rate_hz, "items": items, "skipped": skipped}
    temporary = folder / "manifest.json.part"
    temporary.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    os.replace(temporary, folder / "manifest.json")
    journal.unlink()
    return SoundPack.open(folder)


def _resume(journal: Path, partial: Path) -> tuple[dict[str, SoundItem], dict[str, str]]:
    """What an interrupted build finished; cuts a half-written last item off the samples and the journal."""
    done: dict[str, SoundItem] = {}
    skipped: dict[str, str] = {}
    end, lines_kept = 0, []
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []:
        try:
            record = json.loads(line)
            if "skipped" in record:
                skipped[str(record["skipped"])] = str(record["why"])
            else:
                item = SoundItem.from_json(record)
                if item.offset != end:
                    break
                done[item.name], end = item, item.offset + item.samples
        except (ValueError, KeyError, TypeError, RecursionError, DataError):
            break
        lines_kept.append(line + "\n")
    journal.write_text("".join(lines_kept), encoding="utf-8")
    with open(partial, "ab") as file:
        file.truncate(2 * end)
    return done, skipped


def _decode(entry: SoundEntry, rate_hz: int) -> NDArray[np.int16]:
    sound = entry.load()
    mono = Sound(sound.samples_CS.mean(dim=0, keepdim=True), sound.rate_hz)
    samples_S = resample_sound(mono, rate_hz).samples_CS[0].numpy()
    if not len(samples_S) or np.abs(samples_S).max() < AUDIBLE:
        raise UnsupportedMedia(f"{entry.name} is silent")
    return np.clip(np.rint(samples_S * 32768), -32768, 32767).astype("<i2")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

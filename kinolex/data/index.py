"""What is in a folder: one entry per video, image or array row, with label, caption and split where a table says so.

Understood, in this order: `index.csv` (column file), `metadata.csv` and `metadata.jsonl` (column file_name, as in the
video-folder and image-folder convention, also inside train/ and test/), `*.npz` image arrays (images, labels, classes),
and otherwise every media file below the folder. A sub-folder train/ or test/ (validation/, val/) names the split.
"""

from __future__ import annotations

import csv
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar
from zipfile import BadZipFile

import numpy as np

from kinolex.errors import DataError, MissingFile

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".webm", ".mkv", ".avi", ".mov", ".gif", ".mpg", ".mpeg", ".m4v", ".ts", ".ogv", ".flv"}
)
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff"})
SOUND_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".wma", ".aiff", ".aif"})
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing", "val", "valid", "validation", "dev", "eval"), "test"),
}
"""What names of sub-folders and values in tables mean, in small letters; others stay what they are."""
TABLES = ("index.csv", "metadata.csv", "metadata.jsonl")


class HasSplit(Protocol):
    @property
    def split(self) -> str | None: ...


AnyEntry = TypeVar("AnyEntry", bound=HasSplit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    name: str
    """Path below the scanned folder, with #row for arrays; unique."""
    path: Path
    kind: str
    """"video", "image", or "sound" where a table names one."""
    label: str | None = None
    caption: str | None = None
    split: str | None = None
    array_index: int | None = None

    def load_array(self) -> np.ndarray:
        """H W C uint8 of an array row."""
        images = _arrays(self.path)["images"]
        image = images[self.array_index]
        return np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image


def scan(folder: str | Path, *, split: str | None = None) -> list[Entry]:
    """Entries below a folder, sorted by name.

    Args:
        folder: a collection as described above.
        split: keep only entries of this split; entries without one count as "train".

    Raises:
        MissingFile: no such folder.
        DataError: a table with a row that names no file, or a file that is not there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFile(f"{folder} is not a folder; give the folder that holds the videos or images")
    entries = sorted(_scan(folder, folder, None), key=lambda entry: (entry.path.as_posix(), entry.array_index or 0))
    return [entry for entry in entries if split is None or (entry.split or "train") == split]


def scan_some(folder: str | Path, *, split: str | None = None) -> list[Entry]:
    """As scan, for who needs something to see.

    Raises:
        DataError: none is there, or none of the split.
    """
    entries = [entry for entry in scan(folder) if entry.kind != "sound"]
    if not entries:
        heard = any(path.suffix.lower() in SOUND_SUFFIXES | {".zip"} for path in Path(folder).rglob("*"))
        hint = "; its sounds are for tokenizers of sound" if heard else "; give the folder of a collection"
        raise DataError(f"{folder} holds no video, picture or array of pictures{hint}")
    return of_split(folder, entries, split)


def of_split(folder: str | Path, entries: Sequence[AnyEntry], split: str | None) -> list[AnyEntry]:
    """Entries of a split, or all; those without one count as "train". Raises DataError where there are none."""
    found = [entry for entry in entries if split is None or (entry.split or "train") == split]
    if entries and not found:
        counts = Counter(entry.split or "train" for entry in entries)
        there = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
        raise DataError(f"{folder} has nothing of split {split!r}; its splits are {there}")
    return found


def _scan(root: Path, folder: Path, split: str | None, above: tuple[Path, ...] = ()) -> Iterator[Entry]:
    """Entries of a folder; above are the real folders that it was reached through."""
    way = (*above, folder.resolve())
    for table in TABLES:
        if (folder / table).is_file():
            yield from _from_table(root, folder, folder / table, split)
            return
    for path in sorted(folder.iterdir()):
        suffix = path.suffix.lower()
        if path.name.startswith("."):  # what systems and unfinished writing leave
            continue
        if path.is_dir():
            if any(real.is_relative_to(path.resolve()) for real in way):  # a link back, or to what holds all this
                continue
            yield from _scan(root, path, SPLITS.get(path.name.lower(), split), way)
        elif suffix == ".npz":
            yield from _from_arrays(root, path, split)
        elif suffix in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
            yield Entry(name=_name(root, path), path=path, kind=_kind(path), split=split)


def _from_table(root: Path, folder: Path, table: Path, split: str | None) -> Iterator[Entry]:
    seen: dict[Path, int] = {}
    for number, row in enumerate(_rows(table), start=1):
        file = row.get("file") or row.get("file_name")
        if not file:
            raise DataError(f"{table}, row {number}: needs a value in the column file or file_name, got {row}")
        name = os.path.normpath(folder.relative_to(root) / file)
        if os.path.isabs(name) or name.split(os.sep)[0] == os.pardir:
            raise DataError(f"{table}, row {number}: {file} must be a path below {root}; make it relative")
        path = root / name
        if not os.path.isfile(path):  # unlike Path.is_file, also False for names that no file can have
            raise DataError(f"{table}, row {number}: {file} is not there; restore it or take the row out")
        if (first := seen.setdefault(path, number)) != number:
            raise DataError(f"{table}, row {number}: {file} stands in row {first} already; take one of them out")
        yield Entry(
            name=_name(root, path),
            path=path,
            kind=_kind(path),
            label=row.get("label") or row.get("action") or row.get("class") or None,
            caption=row.get("caption") or row.get("text") or row.get("transcript") or None,
            split=SPLITS.get((told := row.get("split") or "").lower(), told or split),
        )


def _rows(table: Path) -> list[dict[str, str]]:
    """Rows whose values are text; numbers become text, missing values go."""
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = (
                list(csv.DictReader(file))
                if table.suffix == ".csv"
                else [json.loads(line) for line in file if line.strip()]
            )
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise DataError(f"{table} cannot be read as a table: {error}") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{table}, row {number}: needs an object such as {{'file_name': 'a.mp4'}}, got {row!r}")
    return [{name: str(value) for name, value in row.items() if value is not None} for row in rows]


_ARRAYS: dict[tuple[Path, int], dict[str, np.ndarray]] = {}
"""The array file read last; rows are asked for one after the other."""


def _arrays(path: Path) -> dict[str, np.ndarray]:
    key = (path, path.stat().st_mtime_ns)
    if key not in _ARRAYS:
        try:
            file = np.load(path, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path} is a single array; save it with np.savez(path, images=...)")
            with file:
                loaded = {name: file[name] for name in file.files}
        # What numpy, zipfile and zlib raise for damaged archives.
        except (
            OSError,
            ValueError,
            EOFError,
            KeyError,
            NotImplementedError,
            MemoryError,
            BadZipFile,
            zlib.error,
        ) as error:
            raise DataError(f"{path} cannot be read as an array file: {error}") from error
        _check_arrays(path, loaded)
        _ARRAYS.clear()
        _ARRAYS[key] = loaded
    return _ARRAYS[key]


def _check_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    images, labels, classes = arrays.get("images"), arrays.get("labels"), arrays.get("classes")
    if images is None or images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape[1:]:
        raise DataError(f"{path} needs an array `images` of uint8 N H W or N H W 3, found {sorted(arrays)}")
    if images.ndim == 4 and images.shape[3] != 3:
        raise DataError(f"{path} needs images of 3 channels, got shape {images.shape}; the channels come last")
    if labels is not None and labels.shape != (len(images),):
        raise DataError(f"{path} needs one label for each of {len(images)} images, got shape {labels.shape}")
    if labels is None or classes is None or not len(labels):
        return
    if labels.dtype.kind not in "iu" or classes.ndim != 1 or not 0 <= labels.min() <= labels.max() < len(classes):
        raise DataError(f"{path} needs labels that count {classes.shape} classes from 0; take one of the two out")


def _from_arrays(root: Path, path: Path, split: str | None) -> Iterator[Entry]:
    arrays = _arrays(path)
    labels, classes = arrays.get("labels"), arrays.get("classes")
    for index in range(len(arrays["images"])):
        label = None if labels is None else str(classes[labels[index]] if classes is not None else labels[index])
        yield Entry(
            name=f"{_name(root, path)}#{index}",
            path=path,
            kind="image",
            label=label,
            split=split or split_in(path.stem),
            array_index=index,
        )


def split_in(name: str) -> str | None:
    """The split that a word of a file's name tells, as in digits_train8000."""
    return next((SPLITS[word] for word in re.split("[^a-z]+", name.lower()) if word in SPLITS), None)


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    return "image" if suffix in IMAGE_SUFFIXES else "sound" if suffix in SOUND_SUFFIXES else "video"

"""A pack: a collection decoded once to training resolution, raw frames in one file and a manifest beside it.

    sources --decode, area-scale--> frames.u8 (items one after the other, each T H W C) + manifest.json

The manifest keeps a hash of every source, so a pack can be told from a stale one. Building appends to a journal and
can be killed at any time: the next build keeps what was whole and gives the same bytes as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import track

from kinolex.data.index import Entry
from kinolex.errors import DataError, MediaError, UsageError
from kinolex.media import VideoReader, resize_frames

if TYPE_CHECKING:
    from kinolex.data.sounds import SoundEntry

FORMAT = "kinolex-pack-1"
MANIFEST = "manifest.json"
BYTES_COMPARED = 2**26
"""Of a collection's files, by their hashes, when a pack of it is opened again; of files newer than the pack, all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackItem:
    name: str
    sha256: str
    offset: int
    frames: int
    height: int
    width: int
    fps: tuple[int, int]
    kind: str
    label: str | None = None
    caption: str | None = None
    split: str | None = None

    def __post_init__(self) -> None:
        for name, value in (("frames", self.frames), ("height", self.height), ("width", self.width)):
            if type(value) is not int or not 1 <= value < 2**31:
                raise DataError(f"a pack item needs a whole number of {name} from 1 on, got {value!r}")
        if type(self.offset) is not int or not 0 <= self.offset < 2**63:
            raise DataError(f"a pack item needs a place in the frames from 0 on, got {self.offset!r}")
        if len(self.fps) != 2 or not all(type(part) is int and part >= 1 for part in self.fps):
            raise DataError(f"a pack item needs fps as two whole numbers from 1 on, got {self.fps!r}")
        texts = (self.label, self.caption, self.split)
        if not all(isinstance(text, str) for text in (self.name, self.sha256, self.kind, *filter(None, texts))):
            raise DataError(f"a pack item needs name, hash, kind, label, caption and split as text, got {self}")

    @staticmethod
    def from_json(record: dict[str, Any]) -> PackItem:
        """Raises DataError when the record of a manifest or journal is no item."""
        try:
            return PackItem(**{**record, "fps": tuple(record["fps"])})
        except (KeyError, TypeError) as error:
            raise DataError(f"a record is no pack item: {error}") from error

    @property
    def num_bytes(self) -> int:
        return self.frames * self.height * self.width * 3


class Pack:
    """Read access to a pack; frames are views of the mapped file."""

    def __init__(self, folder: Path, items: list[PackItem], lines: int, skipped: dict[str, str]) -> None:
        self.folder, self.items, self.lines, self.skipped = folder, items, lines, skipped
        path = folder / "frames.u8"
        self._bytes = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)

    @staticmethod
    def open(folder: str | Path) -> Pack:
        """Raises DataError when the folder is no pack, or its frames do not match its manifest."""
        folder = Path(folder)
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
            items = [PackItem.from_json(item) for item in manifest["items"]]
            found_format, lines = manifest["format"], manifest["lines"]
            skipped = dict(manifest.get("skipped", {}))
        except (OSError, ValueError, KeyError, TypeError, RecursionError, DataError) as error:
            raise DataError(f"{folder} is not a pack ({error}); build one with `kinolex data pack`") from error
        if found_format != FORMAT:
            raise DataError(f"{folder} has format {found_format!r}, this version reads {FORMAT!r}; build it again")
        if type(lines) is not int or lines < 1:
            raise DataError(f"{folder} was packed at {lines!r} lines and a number from 1 on is needed; build it again")
        end = 0
        for item in items:
            if item.offset != end:
                raise DataError(f"{folder}: {item.name} begins at byte {item.offset}, not {end}; build the pack again")
            end += item.num_bytes
        have = (folder / "frames.u8").stat().st_size if (folder / "frames.u8").exists() else 0
        if have != end:
            raise DataError(f"{folder}/frames.u8 holds {have} bytes but its manifest needs {end}; build the pack again")
        return Pack(folder, items, lines, skipped)

    def __len__(self) -> int:
        return len(self.items)

    def frames_THWC(self, index: int) -> np.ndarray:
        item = self.items[index]
        flat = self._bytes[item.offset : item.offset + item.num_bytes]
        return flat.reshape(item.frames, item.height, item.width, 3)

    @property
    def num_frames(self) -> int:
        return sum(item.frames for item in self.items)


def build_pack(
    entries: Iterable[Entry],
    folder: str | Path,
    *,
    lines: int = 128,
    max_frames: int | None = None,
    strict: bool = False,
) -> Pack:
    """Decode a collection once.

    Args:
        entries: from kinolex.data.index.scan; order decides the order in the pack.
        folder: created; an unfinished build of the same sizes in it is continued.
        lines: short side of the stored frames; smaller sources stay as they are.
        max_frames: keep only the first frames of long videos.
        strict: raise on the first unreadable file instead of listing it in the manifest under "skipped".

    Raises:
        DataError: nothing readable, a folder of something else, or (strict) an unreadable file.
        UsageError: sizes below 1.
    """
    if lines < 1 or (max_frames is not None and max_frames < 1):
        raise UsageError(f"a pack needs at least 1 line and 1 frame, got {lines} lines and {max_frames} frames")
    folder, entries = Path(folder), list(entries)
    if not entries:
        raise DataError(f"nothing to pack into {folder}: the collection has no such files; check its split and folder")
    if (folder / MANIFEST).is_file() and manifest_of(folder).get("format") != FORMAT:
        raise DataError(f"{folder} holds something else than a pack; give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    journal, partial = folder / "journal.jsonl", folder / "frames.u8.part"
    done, skipped = _resume(journal, partial, {"lines": lines, "max_frames": max_frames}), dict[str, str]()
    with _named(partial), open(journal, "a") as log, open(partial, "ab") as frames_file:
        for entry in track(entries, description=f"packing {folder.name}", console=Console(stderr=True)):
            if entry.name in done:
                continue
            try:
                frames_THWC, fps = _decode(entry, lines, max_frames)
            except MediaError as error:
                if strict:
                    raise DataError(f"{entry.name} cannot be packed: {error}") from error
                skipped[entry.name] = str(error)
                continue
            item = PackItem(
                name=entry.name,
                sha256=_sha256(entry.path) if entry.array_index is None else "",
                offset=frames_file.tell(),
                frames=frames_THWC.shape[0],
                height=frames_THWC.shape[1],
                width=frames_THWC.shape[2],
                fps=(fps.numerator, fps.denominator),
                kind=entry.kind,
                label=entry.label,
                caption=entry.caption,
                split=entry.split,
            )
            frames_file.write(frames_THWC.tobytes())
            frames_file.flush()
            done[entry.name] = item
            log.write(json.dumps(asdict(item)) + "\n")
            log.flush()
    if not done:
        name, why = next(iter(skipped.items()))
        raise DataError(f"nothing to pack into {folder}: none of {len(skipped)} files could be read; {name}: {why}")
    os.replace(partial, folder / "frames.u8")
    manifest = {"format": FORMAT, "lines": lines, "items": [asdict(item) for item in done.values()], "skipped": skipped}
    temporary = folder / "manifest.json.part"
    temporary.write_text(json.dumps(manifest, indent=1))
    os.replace(temporary, folder / MANIFEST)
    journal.unlink()
    return Pack.open(folder)


@contextmanager
def _named(partial: Path) -> Iterator[None]:
    """What fails without a name, as writing onto a full disk does, has the name of the pack's frames."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = f"{partial} (what is packed stays; the same command goes on)"
        raise


def manifest_of(folder: Path) -> dict[str, Any]:
    """Of a pack of pictures or of sounds. Raises DataError where there is none to read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        items = [{**item, "name": str(item["name"]), "sha256": str(item["sha256"])} for item in manifest["items"]]
        return {**manifest, "items": items, "skipped": dict(manifest.get("skipped", {}))}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{folder} holds no pack ({error!r}); delete it if it is to become one, or give another folder"
        ) from error


def refuse_other_files(folder: Path, collection: Path, entries: Sequence[Entry | SoundEntry]) -> None:
    """Raises DataError where a pack was made of other files than the entries of a collection.

    Names must be the same, and contents those of files newer than the pack and of the first BYTES_COMPARED.
    """
    manifest, packed_ns = manifest_of(folder), (folder / MANIFEST).stat().st_mtime_ns
    packed = {item["name"]: item["sha256"] for item in manifest["items"]}
    there = {entry.name: entry for entry in entries}
    known = packed.keys() | manifest["skipped"].keys()
    budget, changed = BYTES_COMPARED, []
    for name in (name for name in packed if name in there):
        path = there[name].path
        if path.suffix.lower() in (".npz", ".zip"):  # of which rows and members are hashed, if anything
            continue
        facts = path.stat()
        if facts.st_mtime_ns > packed_ns or facts.st_size <= budget:
            budget -= min(budget, facts.st_size)
            changed += [name] if _sha256(path) != packed[name] else []
    differ = {"new": there.keys() - known, "gone": known - there.keys(), "changed": changed}
    told = [f"{len(names)} {what} (such as {min(names)})" for what, names in differ.items() if names]
    if told:
        raise DataError(
            f"{folder} was packed from other files than those in {collection}: {', '.join(told)}; delete the pack to "
            "have it built anew, or keep packs of this collection elsewhere"
        )


def _resume(journal: Path, partial: Path, sizes: dict[str, int | None]) -> dict[str, PackItem]:
    """What an interrupted build of the same sizes finished; cuts a half-written last item off frames and journal."""
    done: dict[str, PackItem] = {}
    head = json.dumps(sizes)
    end, lines_kept = 0, [head + "\n"]
    written = journal.read_text().splitlines() if journal.exists() else []
    for line in written[1:] if written[:1] == [head] else []:
        try:
            item = PackItem.from_json(json.loads(line))
            if item.offset != end:
                break
            done[item.name], end = item, item.offset + item.num_bytes
        except (ValueError, KeyError, TypeError, RecursionError, DataError):
            break
        lines_kept.append(line + "\n")
    journal.write_text("".join(lines_kept))
    with open(partial, "ab") as file:
        file.truncate(end)
    return done


def _decode(entry: Entry, lines: int, max_frames: int | None) -> tuple[np.ndarray, Fraction]:
    if entry.array_index is not None:
        return entry.load_array()[None], Fraction(1)
    pieces, fps = [], Fraction(1)
    with VideoReader(entry.path) as reader:
        for clip in reader:
            scale = min(1.0, lines / min(clip.height, clip.width))
            size = (max(1, round(clip.height * scale)), max(1, round(clip.width * scale)))
            frames_TCHW = resize_frames(clip.frames_TCHW, *size)
            pieces.append(frames_TCHW.permute(0, 2, 3, 1).numpy())
            fps = clip.fps
            if max_frames is not None and sum(map(len, pieces)) >= max_frames:
                break
    return np.ascontiguousarray(np.concatenate(pieces)[:max_frames]), fps


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""A whole collection into tokens: one file for every entry, what is there is kept, what fails is told.

    folder --scan--> entries --tokenizer--> TARGET/NAME.safetensors ... TARGET/tokens.csv

A folder of tokens is of one tokenizer used in one way, which its tokens.json names, so that no two kinds are mixed.
Interrupt it anywhere; called again it goes on, and encodes anew only where a source is newer than its tokens.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from einops import rearrange

from kinolex.api import TOKEN_SUFFIX, encode
from kinolex.data.index import Entry, of_split, scan_some
from kinolex.data.sounds import SoundEntry, scan_sounds
from kinolex.data.token_store import save_tokens
from kinolex.errors import DataError, KinolexError, UsageError
from kinolex.media import fit_short_side
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip

FORMAT = "kinolex-token-folder-1"
SETTINGS, TABLE = "tokens.json", "tokens.csv"
COLUMNS = ("file", "source", "kind", "split", "label", "caption")

OnFiles = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a call did."""

    made: int
    kept: int
    """Files that were there already, no older than their sources."""
    failed: dict[str, str]
    """Why, by the name of the entry; nothing is left of these."""


def encode_folder(
    source: str | Path,
    target: str | Path,
    tokenizer: VideoTokenizer | SoundTokenizer,
    *,
    lines: int | None = None,
    levels: int | None = None,
    split: str | None = None,
    on_files: OnFiles = lambda _done, _total: None,
) -> Encoded:
    """Every video, picture and row of an array of pictures below a folder, or everything that sounds, as token files.

    Args:
        source: a collection, as kinolex.data.index and kinolex.data.sounds understand one.
        target: folder of tokens outside of it, made if it is not there; files are named after their sources, suffix
            and all. tokens.csv lists them with split, label and caption.
        tokenizer: of pictures, or of sound.
        lines: scale the short side down to this first. Of pictures.
        levels: codebook levels to keep. Of sound.
        split: only this split.
        on_files: called after every entry: done, and how many there are.

    Raises:
        MissingFile, DataError: no such folder, nothing in it that the tokenizer reads, or a damaged table.
        UsageError: the target lies in the source or holds tokens of other settings; lines or levels of the other kind.
    """
    source, target = Path(source), Path(target)
    of_sound = isinstance(tokenizer, SoundTokenizer)
    if of_sound and lines is not None:
        raise UsageError(f"sounds have no lines to scale, got {lines}; leave lines out")
    if not of_sound and levels is not None:
        raise UsageError(f"tokens of pictures have no levels to choose, got {levels}; leave levels out")
    entries = _entries(source, of_sound, split)
    if target.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{target} lies in the collection {source} itself; give a folder outside of it")
    _claim(target, {"tokenizer": tokenizer.fingerprint, "lines": lines, "levels": levels})
    made, kept, failed = 0, 0, dict[str, str]()
    try:
        for done, entry in enumerate(entries, start=1):
            file = _file_of(target, entry)
            if file.is_file() and file.stat().st_mtime_ns >= entry.path.stat().st_mtime_ns:
                kept += 1
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                try:
                    _encode(entry, file, tokenizer, lines, levels)
                    made += 1
                except KinolexError as error:
                    failed[entry.name] = str(error)
                    file.unlink(missing_ok=True)  # tokens of what the source was before
            on_files(done, len(entries))
    finally:
        _write(target / TABLE, _table(target, _entries(source, of_sound, None)))
    return Encoded(made, kept, failed)


def holds_only_sounds(source: str | Path) -> bool:
    """Whether a collection has things that sound and none to be seen."""
    try:
        scan_some(source)
    except DataError:
        return bool(scan_sounds(source))
    return False


def _entries(source: Path, of_sound: bool, split: str | None) -> Sequence[Entry | SoundEntry]:
    if not of_sound:
        return scan_some(source, split=split)
    entries = scan_sounds(source)
    if not entries:
        raise DataError(f"{source} holds no sound file, video or zip of sounds; give a folder that does")
    return of_split(source, entries, split)


def _encode(
    entry: Entry | SoundEntry,
    file: Path,
    tokenizer: VideoTokenizer | SoundTokenizer,
    lines: int | None,
    levels: int | None,
) -> None:
    if isinstance(entry, SoundEntry):
        assert isinstance(tokenizer, SoundTokenizer)
        save_tokens(tokenizer.encode(entry.load(), levels), file)
        return
    assert isinstance(tokenizer, VideoTokenizer)
    if entry.array_index is None:
        encode(entry.path, file, tokenizer, lines=lines)
        return
    frames_TCHW = rearrange(torch.from_numpy(entry.load_array()), "h w c -> 1 c h w").contiguous()
    clip = Clip(frames_TCHW, Fraction(1))
    save_tokens(tokenizer.encode(clip if lines is None else fit_short_side(clip, lines)), file)


def _file_of(target: Path, entry: Entry | SoundEntry) -> Path:
    return target / (entry.name + TOKEN_SUFFIX)


def _claim(target: Path, settings: dict[str, Any]) -> None:
    """Write down what the folder is for, or refuse one that is for something else."""
    told, path = {"format": FORMAT, **settings}, target / SETTINGS
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file, and a collection becomes a folder of tokens; give another name")
    if path.is_file():
        try:
            found = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise DataError(f"{path} cannot be read ({error}); delete the folder, or give another") from error
        if found != told:
            differ = [key for key in told if found.get(key) != told[key]]
            theirs, ours = ({key: of.get(key) for key in differ} for of in (found, told))
            raise UsageError(f"{target} holds tokens made with {theirs}, and {ours} is asked for; give another folder")
        return
    target.mkdir(parents=True, exist_ok=True)
    _write(path, json.dumps(told, indent=1) + "\n")


def _table(target: Path, entries: Iterable[Entry | SoundEntry]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in entries:
        file = _file_of(target, entry)
        if file.is_file():
            rest = (getattr(entry, name, None) or "" for name in COLUMNS[2:])
            writer.writerow([file.relative_to(target).as_posix(), entry.name, *rest])
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)

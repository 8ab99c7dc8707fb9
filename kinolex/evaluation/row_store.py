"""Measured rows on disk, one JSON object a line, so that nothing is measured twice.

A row is found by what made it: the pixels that went in, the coder with all its options and its version, the level, and
the way of measuring. Where a file lies, and which protocol asked, plays no part.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kinolex.errors import DataError
from kinolex.evaluation.protocol import read_result
from kinolex.types import Clip


class RowStore:
    """Rows by key; new ones are appended to a file as they come, so that an interrupted run loses none.

    Args:
        path: a .jsonl file that is read if it is there and appended to; None keeps rows in memory only.
        reuse: more such files, or results (.json) of earlier runs, that are read.

    Raises:
        DataError: a file to reuse is neither.
    """

    def __init__(self, path: str | Path | None = None, reuse: Iterable[str | Path] = ()) -> None:
        self.path = Path(path) if path is not None else None
        self._rows: dict[str, dict[str, Any]] = {}
        if self.path is not None and self.path.is_file():
            self._rows, whole = _read_lines(self.path)
            os.truncate(self.path, whole)
        for other in map(Path, reuse):
            if other.suffix == ".json":
                self._rows |= {row["key"]: row for row in read_result(other).get("points", []) if "key" in row}
            else:
                self._rows |= _read_lines(other)[0]

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: str) -> dict[str, Any] | None:
        """The row with this key, if it was measured."""
        return self._rows.get(key)

    def put(self, key: str, row: dict[str, Any]) -> dict[str, Any]:
        """Keep a row, in memory and at the end of the file; gives the row with its key."""
        self._rows[key] = row = row | {"key": key}
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, allow_nan=False) + "\n")
        return row


def row_key(*parts: Any) -> str:
    """16 hexadecimal digits for what made a row; parts are anything JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def clip_digest(clip: Clip) -> str:
    """16 hexadecimal digits of a clip's pixels, size and rate."""
    digest = hashlib.sha256(f"{tuple(clip.frames_TCHW.shape)} {clip.fps}".encode())
    digest.update(clip.frames_TCHW.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _read_lines(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Rows of a file, and the bytes of its whole lines: the last may not have been finished."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); give rows of kinolex eval rate-distortion") from error
    whole = data[: data.rfind(b"\n") + 1]
    try:
        rows = [json.loads(line) for line in whole.splitlines()]
        return {row["key"]: row for row in rows}, len(whole)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} does not hold measured rows ({error}); remove it and measure again") from error

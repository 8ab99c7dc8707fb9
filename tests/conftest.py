"""Shared fixtures. Real data is optional: tests that need it skip with a reason where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(int(os.environ.get("KINOLEX_TEST_THREADS", "1")))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real media; set KINOLEX_DATA, or put it at ../shared/data beside the repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("KINOLEX_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set KINOLEX_DATA to a folder laid out as docs/data.md says")
    return folder

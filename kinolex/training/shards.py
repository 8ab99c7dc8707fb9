"""Tokens that several processes draw once, in files that are written whole: what is there already is read.

facts --hash--> paths --missing: write(number, path), one process each--> files --read--> items

A shard is a function of (facts, number); its name tells the facts, so other facts draw other files.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kinolex.errors import CheckpointError

Item = TypeVar("Item")


def paths_of(folder: Path, name: str, facts: object, items: int, per_shard: int) -> list[Path]:
    """Files of so many items.

    Args:
        facts: all that the items depend on but their number and what the folder tells, in plain Python.
    """
    start = f"{name}-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]}"
    return [folder / f"{start}-{number:04d}.safetensors" for number in range(-(-items // per_shard))]


def drawn(
    paths: Sequence[Path],
    write: Callable[[int, Path], None],
    read: Callable[[dict[str, Tensor]], list[Item]],
    described: str,
    *,
    workers: int | None = None,
) -> list[Item]:
    """The items of all shards; shards that are missing are written first.

    Args:
        write: (number of the shard, its path), by write_shard; a function that a new process can import, or a partial
            of one. torch has one thread there.
        read: the items of a shard's tensors.
        described: for the progress bar.
        workers: processes; one per core if None.

    Raises:
        CheckpointError: a shard is damaged.
    """
    todo = [(number, path) for number, path in enumerate(paths) if not path.is_file()]
    if todo:
        todo[0][1].parent.mkdir(parents=True, exist_ok=True)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        # Forked children of a process whose OpenMP threads have run would hang.
        context = multiprocessing.get_context("spawn")
        processes = min(workers or cores or 1, len(todo))
        with ProcessPoolExecutor(processes, context, torch.set_num_threads, (1,)) as pool:
            jobs = [pool.submit(write, number, path) for number, path in todo]
            try:
                for job in track(as_completed(jobs), described, total=len(jobs), console=Console(stderr=True)):
                    job.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return [item for path in paths for item in _read(path, read)]


def write_shard(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Under another name first, so that a path is a whole file."""
    temporary = path.with_suffix(f".{os.getpid()}.part")
    save_file(dict(tensors), temporary)
    os.replace(temporary, path)


def _read(path: Path, read: Callable[[dict[str, Tensor]], list[Item]]) -> list[Item]:
    try:
        return read(load_file(path))
    except (OSError, SafetensorError, KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); delete it to draw it anew") from error

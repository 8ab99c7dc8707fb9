"""Files of tokens that several processes make, once: what is there already is left alone.

(path, number) of what is missing --write(number, path), one process each--> files
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console
from rich.progress import track


def make_missing(
    paths: Sequence[Path], write: Callable[[int, Path], None], described: str, *, workers: int | None = None
) -> None:
    """Write every shard that is missing.

    Args:
        write: (number of the shard, its path); a function that a new process can import, or a partial of one. Writes
            under another name first, so that a path is a whole file.
        described: for the progress bar.
        workers: processes; one per core if None.
    """
    todo = [(number, path) for number, path in enumerate(paths) if not path.is_file()]
    if not todo:
        return
    # Forked children of a process whose OpenMP threads have run would hang.
    context = multiprocessing.get_context("spawn")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ProcessPoolExecutor(min(workers or cores or 1, len(todo)), context) as pool:
        jobs = [pool.submit(write, number, path) for number, path in todo]
        try:
            for job in track(as_completed(jobs), described, total=len(jobs), console=Console(stderr=True)):
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise

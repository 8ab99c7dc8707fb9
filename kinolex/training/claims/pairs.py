"""A row for every pair of arm and seed: trained, then measured; several pairs at once in processes of their own.

(arm, seed, measure) --Lab--> row              pairs --workers--> rows as they are done

What is timed is left to the one process that asked: nothing else runs when it measures.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console

from kinolex.errors import UsageError
from kinolex.training.claims.arms import Arm, arm_flops
from kinolex.training.claims.lab import Lab
from kinolex.training.claims.measures import Figures
from kinolex.training.claims.scales import Scale

Measure = Callable[[Lab, Arm, int], Figures]
"""(lab, arm, seed) -> figures by name. The same function of the same arm is measured once for all claims."""
Pair = tuple[Arm, int, Measure | None]
"""Arm, seed, and what is measured; None: trained only."""

Item = TypeVar("Item")
Made = TypeVar("Made")

MOST_WORKERS = 4
"""If nobody says how many: each holds all worlds."""


def workers_for(device: str, asked: int | None) -> int:
    """Processes that train at once: one per core on a CPU, where a network of this size keeps one core busy.

    Raises:
        UsageError: fewer than one.
    """
    if asked is not None and asked < 1:
        raise UsageError(f"--workers must be at least 1, got {asked}")
    if asked is None:
        return min(_cores(), MOST_WORKERS) if device == "cpu" else 1
    return asked


def measured_pair(lab: Lab, arm: Arm, seed: int, measure: Measure) -> dict[str, Any]:
    """The row of one pair, trained now if it was not."""
    lab.network(arm, seed)
    began = time.monotonic()
    figures = measure(lab, arm, seed)
    return {
        **figures,
        "arm": arm.name,
        "seed": seed,
        "training_flops": arm_flops(arm, lab.scale),
        "train_seconds": lab.train_seconds(arm, seed),
        "measure_seconds": time.monotonic() - began,
    }


def ahead(lab: Lab, pairs: Sequence[Pair], workers: int) -> Iterator[tuple[Pair, dict[str, Any] | None]]:
    """Pairs as they are done, with their rows. Those that share a network stay together. Errors as at_once."""
    groups: dict[str, list[Pair]] = {}
    for arm, seed, measure in pairs:
        # Made once, by all threads, instead of by every process.
        lab.prepare(arm, seed)
        groups.setdefault(lab.key(arm, seed), []).append((arm, seed, measure))
    facts = lab.scale, lab.folder.parent, lab.device
    for group, rows in at_once(_work, [*groups.values()], workers, _open_lab, facts):
        yield from zip(group, rows, strict=True)


def at_once(
    work: Callable[[Item], Made],
    items: Sequence[Item],
    workers: int,
    begin: Callable[..., None] | None = None,
    facts: tuple[Any, ...] = (),
) -> Iterator[tuple[Item, Made]]:
    """What is made of some items, as it is done, each in one of several processes that share the cores.

    Args:
        work, begin: functions that a new process can import; every process first calls begin(*facts), if there is one.

    Raises:
        KeyboardInterrupt: asked to stop; the workers save what they are at first.
    """
    # Forked children of a process whose OpenMP threads have run would hang.
    context = multiprocessing.get_context("spawn")
    settings = (max(1, _cores() // workers), begin, facts)
    with ProcessPoolExecutor(min(workers, len(items)), context, _begin, settings) as pool:
        jobs = {pool.submit(_until_asked, work, item): number for number, item in enumerate(items)}
        try:
            for job in as_completed(jobs):
                yield items[jobs[job]], job.result()
        except BaseException:
            # Their own signal: training stops after the step and saves.
            for child in multiprocessing.active_children():
                child.terminate()
            pool.shutdown(cancel_futures=True)
            raise


@dataclass
class _Worker:
    """This process, where it is one of several."""

    busy: bool = False
    asked: bool = False
    """To stop. A worker that died of it would break the pool, which then ends the others before they have saved."""


_WORKER = _Worker()


def _until_asked(work: Callable[[Item], Made], item: Item) -> Made:
    # The pool fetches items ahead; after a request to stop they are not begun.
    if _WORKER.asked:
        raise KeyboardInterrupt
    _WORKER.busy = True
    try:
        return work(item)
    except KeyboardInterrupt:
        _WORKER.asked = True
        raise
    finally:
        _WORKER.busy = False


def _stop(_signal: int, _frame: object) -> None:
    _WORKER.asked = True
    if _WORKER.busy:
        raise KeyboardInterrupt


def _begin(threads: int, begin: Callable[..., None] | None, facts: tuple[Any, ...]) -> None:
    # Ctrl-C in a terminal is for the process that started this one, which passes it on.
    if hasattr(os, "setsid"):
        os.setsid()
    signal.signal(signal.SIGTERM, _stop)
    torch.set_num_threads(threads)
    if begin is not None:
        begin(*facts)


_LAB: Lab | None = None
"""Of a worker: tokenizers and worlds stay for its next pair."""


def _open_lab(scale: Scale, folder: Path, device: str) -> None:
    global _LAB  # a pool's initializer has no other way to leave something behind
    _LAB = Lab(scale, folder, device=device, say=lambda line: Console(stderr=True).print(line, highlight=False))


def _work(pairs: Sequence[Pair]) -> list[dict[str, Any] | None]:
    assert _LAB is not None
    rows: list[dict[str, Any] | None] = []
    for arm, seed, measure in pairs:
        _LAB.network(arm, seed)
        rows.append(None if measure is None else measured_pair(_LAB, arm, seed, measure))
    return rows


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

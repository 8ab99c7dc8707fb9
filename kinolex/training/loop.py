"""The loop that all trainers share: steps until the last, the time limit or an interrupt; saved, and gone on with.

    step(number) -> figures --Loop--> counters, log, state.safetensors every save_every steps and at the end
    gradients --NetworkLoop.update--> clipped, skipped where not finite --> Optimizers --> moving average

A step draws all its randomness from (seed, number); so a run stopped at any time goes on to the same bits.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from kinolex import checkpoint
from kinolex.errors import CheckpointError
from kinolex.training.optimizer import Optimizers, follow_, gradient_norm_
from kinolex.training.processes import any_process, rank
from kinolex.training.progress import Progress
from kinolex.training.state import Counters, load_state, save_state

Taken = tuple[dict[str, float], Tensor | None]
"""Figures of a step for the log; and ids [B, ...] of it, where their use is to be watched."""
Step = Callable[[int], Taken | None]
"""Takes the step of a number, counted from 0; None if the loop is to go on from where the counters now are."""
Network = TypeVar("Network", bound=nn.Module)
STATE = "state"
OTHER = "another recipe; give another --out"
"""What a state that a trainer cannot go on from is a run of, and what to do."""
CPU = torch.device("cpu")


class Loop:
    """One run and its folder. A trainer is a loop that knows what a step is; it can be run again to go on.

    Args:
        folder: state and log; a state found there is continued.
        total: steps of the run.
        modules, optimizers: all that learns, by the names it has in the state.
        config_hash: of everything that the steps depend on, as recipe_hash gives it.
        save_every: steps between saved states; a killed run loses at most this many.
        vocab_size: of the ids that steps return.
        name: of the state's file.
        other: what a state with another hash is a run of, and what to do then.

    Raises:
        CheckpointError: the folder holds another run, or a damaged state.
    """

    def __init__(
        self,
        folder: Path,
        total: int,
        modules: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        *,
        config_hash: str,
        save_every: int,
        vocab_size: int = 1,
        name: str = STATE,
        other: str = OTHER,
    ) -> None:
        self.folder, self.total, self.save_every = folder, total, save_every
        self.vocab_size, self.other = vocab_size, other
        self.state_path = folder / f"{name}.safetensors"
        self._learning = dict(modules), dict(optimizers)
        self.counters = Counters(config_hash=config_hash)
        folder.mkdir(parents=True, exist_ok=True)
        if self.state_path.is_file():
            self.load()

    def go(self, step: Step, until: float, device: torch.device = CPU) -> None:
        """Take what steps are left. Stops cleanly at the time `until` or on an interrupt, which it then raises."""
        with ending(until, device) as ended:
            self.take(step, ended)

    def take(self, step: Step, ended: Callable[[], bool]) -> None:
        """Take what steps are left, but at least one, until `ended` says so after one of them; then save."""
        if self.counters.step >= self.total:
            return
        self.progress = Progress(
            self.folder, self.total, self.counters.step, vocab_size=self.vocab_size, quiet=rank() > 0
        )
        over = False
        while not over:
            number = self.counters.step
            taken = step(number)
            if taken is not None:
                self.record(number, *taken)
                self.counters.step += 1
                if self.counters.step % self.save_every == 0:
                    self.save()
            over = ended() or self.counters.step >= self.total
        # Only here, between steps: a state saved in the middle of one could not be resumed to the same bits.
        self.save()
        if self.counters.step < self.total:
            self.progress.say(f"saved after step {self.counters.step} of {self.total}; the same command goes on there")
        self.progress.close()

    def record(self, step: int, figures: dict[str, float], ids: Tensor | None) -> list[str]:
        """Log a step; returns the alarms that it raised."""
        return self.progress.step(step, figures, ids)

    def save(self) -> None:
        """Write the state; the file is replaced whole."""
        if rank() == 0:
            save_state(self.state_path, *self._learning, self.counters)

    def load(self) -> None:
        """Go back to the state that was saved last."""
        found = load_state(self.state_path, *self._learning)
        if found.config_hash != self.counters.config_hash:
            raise CheckpointError(f"{self.folder} holds a run of {self.other}")
        self.counters = found


class NetworkLoop(Loop, Generic[Network]):
    """The loop of one network with the moving average of its weights, which is what a run leaves behind.

    Args:
        optimizers: of the network; they know the steps of the run.
        more_modules, more_optimizers: what else learns, by the names it has in the state.
        config_hash, save_every, vocab_size, other: as in Loop.
    """

    def __init__(
        self,
        folder: Path,
        model: Network,
        optimizers: Optimizers,
        *,
        config_hash: str,
        save_every: int,
        vocab_size: int = 1,
        other: str = OTHER,
        more_modules: Mapping[str, nn.Module] | None = None,
        more_optimizers: Mapping[str, torch.optim.Optimizer] | None = None,
    ) -> None:
        self.model, self.optimizers = model, optimizers
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        super().__init__(
            folder,
            optimizers.total_steps,
            {"model": self.model, "average": self.average} | dict(more_modules or {}),
            optimizers.pair | dict(more_optimizers or {}),
            config_hash=config_hash,
            save_every=save_every,
            vocab_size=vocab_size,
            other=other,
        )

    def update(self, step: int) -> float:
        """Move along the gradients, clipped; those that are not finite move nothing. Returns their norm before that."""
        norm = gradient_norm_(self.model.parameters(), self.optimizers.config.clip_norm)
        if math.isfinite(norm):
            self.optimizers.step(step)
        else:
            self.counters.skipped += 1
        self.model.zero_grad(set_to_none=True)
        follow_(self.average, self.model, step, self.optimizers.config.ema_decay)
        return norm

    def save_weights(self, target: Path, card: str) -> str:
        """A checkpoint of the average; returns its fingerprint."""
        return checkpoint.save(target, self.average, card=card)


def begun(folder: Path) -> bool:
    """Whether a folder holds the state of a run."""
    return (folder / f"{STATE}.safetensors").is_file()


def deadline(minutes: float | None) -> float:
    """In so many minutes, by time.monotonic(); None is never."""
    return math.inf if minutes is None else time.monotonic() + 60 * minutes


@contextmanager
def ending(until: float, device: torch.device = CPU) -> Iterator[Callable[[], bool]]:
    """A function that says whether a run should end: it is later than `until`, or in any process an end was asked for.

    Raises:
        KeyboardInterrupt: on leaving, if an end was asked for.
    """
    with stop_requests() as stop:
        yield lambda: any_process(stop.is_set() or time.monotonic() > until, device)
        if stop.is_set():
            raise KeyboardInterrupt


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set instead of interrupting at once; a second one interrupts.

    Only the main thread may set handlers; elsewhere the event is never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(_signal: int, _frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def fields_of(config: Any, leave_out: tuple[str, ...] = ("save_every",)) -> dict[str, Any]:
    """Of a recipe, all that changes the weights."""
    return {name: value for name, value in asdict(config).items() if name not in leave_out}


def recipe_hash(fields: Mapping[str, Any], *facts: object) -> str:
    """16 hexadecimal digits of a recipe's fields and of what else the steps of a run depend on."""
    made_of = json.dumps([fields, *facts] if facts else fields, sort_keys=True)
    return hashlib.sha256(made_of.encode()).hexdigest()[:16]

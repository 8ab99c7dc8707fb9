"""What the commands share: kinds of arguments, the model of a call, and how figures and progress are shown."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import tyro

Source = Annotated[Path, tyro.conf.Positional]
Target = Annotated[Path, tyro.conf.Positional]

DEVICES = ("cpu", "cuda", "mps", "xpu")


def load(model: str, device: str) -> Any:
    """The tokenizer of pictures that a name, folder or hub repository means."""
    from kinolex import hub
    from kinolex.errors import UsageError

    tokenizer, of_sound = load_either(model, device)
    if of_sound:
        raise UsageError(f"{model} is a tokenizer of sound, and pictures need one of theirs, such as {hub.DEFAULT}")
    return tokenizer


def load_either(model: str, device: str) -> tuple[Any, bool]:
    """The tokenizer that a name, folder or hub repository means, and whether it is one of sound."""
    from kinolex import hub
    from kinolex.tokenizers.sound import SoundTokenizer

    check_device(device)
    tokenizer = hub.load(model).to(device)
    return tokenizer, isinstance(tokenizer, SoundTokenizer)


def load_sound(model: str, device: str) -> Any:
    """The tokenizer of sound that a name, folder or hub repository means."""
    from kinolex import hub

    check_device(device)
    return hub.load_sound(model).to(device)


def into_folder(command: Callable[..., None]) -> Callable[..., None]:
    """A command that writes into the folder --out: refused at once, and not when all is measured, where it is none."""

    @wraps(command)
    def checked(**arguments: Any) -> None:
        from kinolex.errors import UsageError

        out: Path = arguments["out"]
        nearest = next(place for place in (out, *out.parents) if place.exists())
        if not nearest.is_dir():
            raise UsageError(f"--out {out} is to be a folder, and {nearest} is a file; give another name")
        command(**arguments)

    return checked


def check_device(device: str) -> None:
    """Raises UsageError where torch knows no such device, or sees none of them here.

    Devices are counted and not used: one that is merely looked at would keep hundreds of megabytes.
    """
    from kinolex.errors import UsageError

    no_such = f"no device {device!r}; give one of {', '.join(DEVICES)}, with an index such as cuda:1"
    if device.partition(":")[0] not in DEVICES:
        raise UsageError(no_such)
    import torch

    try:
        kind, index = (wanted := torch.device(device)).type, wanted.index or 0
    except RuntimeError as error:
        raise UsageError(no_such) from error
    if kind == "cpu":
        return
    there = getattr(torch, kind).device_count()
    if index >= there:
        seen = f"torch sees {there} of that kind, numbered from 0" if there else f"torch sees no {kind} device"
        raise UsageError(f"device {device} cannot be used here ({seen}); try --device cpu")


def to_json(value: Any) -> str:
    """One line, with letters as they are."""
    return json.dumps(value, ensure_ascii=False)


def command_of(verb: str, function: Callable[..., None], options: Mapping[str, Any]) -> str:
    """The command that repeats a call on another machine: its options where they differ from the defaults.

    Args:
        verb: after "kinolex".
        function: the command's own, for its defaults.
        options: its arguments; absolute paths are told by their last name, the data folder is DIR, and where results
            go and on what they are made is left out.
    """
    words = ["kinolex", verb]
    for name, parameter in inspect.signature(function).parameters.items():
        value, option = options[name], name.replace("_", "-")
        if name in ("out", "device", "json") or value == parameter.default:
            continue
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif isinstance(value, tuple):
            words += [f"--{option}", *map(str, value)]
        else:
            folder = Path(str(value))
            words += [f"--{option}", "DIR" if name == "data" else folder.name if folder.is_absolute() else str(value)]
    return " ".join(words)


def show(facts: dict[str, Any], as_json: bool) -> None:
    """Print figures, one a line or as JSON."""
    if as_json:
        print(to_json(facts))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        print(f"{name.replace('_', ' '):{width}}  {shown}")


@contextmanager
def frames_bar(title: str, unit: str = "frames", after_s: float = 0.0) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on stderr, for the callbacks of the verbs: done, and how many there are if that is known.

    Args:
        after_s: what is done sooner has no bar.
    """
    began = time.monotonic()
    with stages_bar(unit) as on_stage:
        yield lambda done, total: on_stage(title, done, total) if time.monotonic() - began >= after_s else None


@contextmanager
def stages_bar(unit: str = "") -> Iterator[Callable[[str, int, int | None], None]]:
    """Progress bars on stderr, one below the other as stages begin: name of the stage, done, how many there are."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit + " {task.fields[rate]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    progress = Progress(*columns, console=Console(stderr=True), transient=False)
    stages: dict[str, TaskID] = {}

    def on_stage(title: str, done: int, total: int | None) -> None:
        progress.start()  # not before the first frames are through: a refused file gives its message and no bar
        if title not in stages:
            stages[title] = progress.add_task(title, total=None, rate="")
        task = stages[title]
        speed = progress.tasks[task].speed
        progress.update(task, completed=done, total=total, rate=f"{speed:.0f}/s" if unit and speed else "")

    try:
        yield on_stage
    finally:
        if progress.live.is_started:
            progress.stop()

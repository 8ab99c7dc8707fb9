"""MAGVIT's ten tasks, and an eleventh for masks that somebody drew.

    frame-prediction      first frames given          outpaint-vertical    the middle half of the columns given
    frame-interpolation   first and last given        outpaint-horizontal  the middle half of the rows given
    outpaint-central      the middle box given        outpaint-dynamic     half of the columns, sliding to the right
    inpaint-central       all but the middle box      inpaint-dynamic      all but a box that slides to the right
    class                 only a class                class-prediction     first frames and a class

Source: MAGVIT, arXiv 2212.05199, appendix B.1; fractions as in docs/papers.md.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kinolex.errors import UsageError
from kinolex.tasks.base import Task


def _nothing(frames: int, rows: int, columns: int, given: int) -> Tensor:
    return torch.zeros(frames, rows, columns, dtype=torch.bool)


def _first(frames: int, rows: int, columns: int, given: int) -> Tensor:
    known_THW = _nothing(frames, rows, columns, given)
    known_THW[:given] = True
    return known_THW


def _first_and_last(frames: int, rows: int, columns: int, given: int) -> Tensor:
    known_THW = _nothing(frames, rows, columns, given)
    known_THW[[0, -1]] = True
    return known_THW


def _middle(size: int) -> slice:
    """The middle half; of few rows at least one."""
    return slice(size // 4, size // 4 + max(1, size // 2))


def _box(frames: int, rows: int, columns: int, given: int) -> Tensor:
    known_THW = _nothing(frames, rows, columns, given)
    known_THW[:, _middle(rows), _middle(columns)] = True
    return known_THW


def _columns(frames: int, rows: int, columns: int, given: int) -> Tensor:
    known_THW = _nothing(frames, rows, columns, given)
    known_THW[:, :, _middle(columns)] = True
    return known_THW


def _rows(frames: int, rows: int, columns: int, given: int) -> Tensor:
    known_THW = _nothing(frames, rows, columns, given)
    known_THW[:, _middle(rows)] = True
    return known_THW


def _starts(frames: int, columns: int) -> list[int]:
    """Left edges of a window of half the columns that slides to the right."""
    return torch.linspace(0, columns / 2, frames).round().int().tolist()


def _sliding_columns(frames: int, rows: int, columns: int, given: int) -> Tensor:
    known_THW = _nothing(frames, rows, columns, given)
    for frame, start in enumerate(_starts(frames, columns)):
        known_THW[frame, :, start : start + max(1, columns // 2)] = True
    return known_THW


def _sliding_box(frames: int, rows: int, columns: int, given: int) -> Tensor:
    known_THW = _nothing(frames, rows, columns, given)
    for frame, start in enumerate(_starts(frames, columns)):
        known_THW[frame, _middle(rows), start : start + max(1, columns // 2)] = True
    return known_THW


def _all_but_box(frames: int, rows: int, columns: int, given: int) -> Tensor:
    return ~_box(frames, rows, columns, given)


def _all_but_sliding_box(frames: int, rows: int, columns: int, given: int) -> Tensor:
    return ~_sliding_box(frames, rows, columns, given)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="frame-prediction",
            summary="go on from the first frames",
            region=_first,
            fill="repeat",
        ),
        Task(
            name="frame-interpolation",
            summary="what lies between the first and the last frame",
            region=_first_and_last,
            fill="blend",
        ),
        Task(name="outpaint-central", summary="everything around the middle", region=_box, fill="edge"),
        Task(name="outpaint-vertical", summary="both sides of a vertical strip", region=_columns, fill="edge"),
        Task(name="outpaint-horizontal", summary="above and below a horizontal strip", region=_rows, fill="edge"),
        Task(
            name="outpaint-dynamic",
            summary="the rest of what a window that slides to the right shows",
            region=_sliding_columns,
            fill="zero",
        ),
        Task(name="inpaint-central", summary="fill a box in the middle", region=_all_but_box, fill="zero"),
        Task(
            name="inpaint-dynamic",
            summary="fill a box that slides to the right",
            region=_all_but_sliding_box,
            fill="zero",
        ),
        Task(name="class", summary="a clip of a class or caption", region=_nothing, fill="zero", takes_class=True),
        Task(
            name="class-prediction",
            summary="go on from the first frames, as a class or caption says",
            region=_first,
            fill="repeat",
            takes_class=True,
        ),
    )
}
FREE_FORM = "free-form"
"""The task id of regions that somebody drew; see kinolex.tasks.base.pose_mask."""
TASK_NAMES = (*TASKS, FREE_FORM)


def task_named(name: str) -> Task:
    """Raises UsageError for a name that is none of the ten."""
    if name not in TASKS:
        raise UsageError(f"no task {name!r}; choose one of {', '.join(TASKS)}, or {FREE_FORM} with a mask")
    return TASKS[name]

"""VideoPoet's tasks as values: what is given, in which order, and what is to be made. Each becomes one flat sequence.

    material (text, clip, masked clip, structure, sound) --compose--> Sequence(layout, ids)
    ids of a finished sequence --outcome--> text, video and sound tokens

    bos task | text_begin text text_end | video_in_begin video video_in_end | sound_in_begin sound sound_in_end |
    source resolution | video_out_begin VIDEO video_out_end | sound_out_begin SOUND sound_out_end | eos

What is absent leaves no marker behind. One id per kind of output; what is given tells such tasks apart.

Source: VideoPoet, arXiv 2312.14125, section 3 and appendix; `describe` and `text-to-both` are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from kinolex.errors import ShapeError, UsageError
from kinolex.masks import HIDDEN
from kinolex.sequences import (
    Kind,
    Layout,
    Role,
    Segment,
    SoundOrder,
    flatten_sound,
    flatten_video,
    unflatten_sound,
    unflatten_video,
)
from kinolex.vocab import Vocabulary

Given = Literal["text", "first-frames", "clip", "masked-clip", "structure-clip", "first-sound", "sound"]
Asked = Literal["text", "image", "clip", "rest-of-clip", "sound", "rest-of-sound"]
Modality = Literal["text", "video", "sound"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MultimodalTask:
    name: str
    summary: str
    """One line for people."""
    output: str
    """Whose task id it has; one of kinolex.vocab.OUTPUTS."""
    given: tuple[Given, ...]
    """In the order of the sequence."""
    asked: tuple[Asked, ...]
    optional: frozenset[Given] = field(default_factory=frozenset)
    """What may be absent."""
    open_ended: bool = False
    """No marker ends the output, so that something can follow: a video goes on after its first frame."""


_TEXT: frozenset[Given] = frozenset({"text"})
TASKS: dict[str, MultimodalTask] = {
    task.name: task
    for task in (
        MultimodalTask(name="unconditional", summary="a clip of anything", output="video", given=(), asked=("clip",)),
        MultimodalTask(
            name="text-to-image",
            summary="a picture of what is said",
            output="video",
            given=("text",),
            asked=("image",),
            open_ended=True,
        ),
        MultimodalTask(
            name="text-to-video", summary="a clip of what is said", output="video", given=("text",), asked=("clip",)
        ),
        MultimodalTask(
            name="image-to-video",
            summary="go on from a picture",
            output="video",
            given=("text", "first-frames"),
            asked=("rest-of-clip",),
            optional=_TEXT,
        ),
        MultimodalTask(
            name="future-prediction",
            summary="go on from the first frames",
            output="video",
            given=("text", "first-frames"),
            asked=("rest-of-clip",),
            optional=_TEXT,
        ),
        MultimodalTask(
            name="inpainting",
            summary="fill a part of the picture",
            output="video",
            given=("text", "masked-clip"),
            asked=("clip",),
            optional=_TEXT,
        ),
        MultimodalTask(
            name="outpainting",
            summary="what lies around the picture",
            output="video",
            given=("text", "masked-clip"),
            asked=("clip",),
            optional=_TEXT,
        ),
        MultimodalTask(
            name="stylisation",
            summary="what is said, with the structure of a clip",
            output="video",
            given=("text", "structure-clip"),
            asked=("clip",),
        ),
        MultimodalTask(
            name="video-to-sound",
            summary="the sound of a silent clip",
            output="sound",
            given=("text", "clip"),
            asked=("sound",),
            optional=_TEXT,
        ),
        MultimodalTask(
            name="sound-to-video",
            summary="the picture that belongs to a sound",
            output="video",
            given=("text", "sound"),
            asked=("clip",),
            optional=_TEXT,
        ),
        MultimodalTask(
            name="continuation",
            summary="go on from the first frames and their sound, with both",
            output="video-and-sound",
            given=("text", "first-frames", "first-sound"),
            asked=("rest-of-clip", "rest-of-sound"),
            optional=_TEXT,
        ),
        MultimodalTask(
            name="text-to-both",
            summary="a clip of what is said and then its sound",
            output="video-and-sound",
            given=("text",),
            asked=("clip", "sound"),
        ),
        MultimodalTask(
            name="describe",
            summary="say what a clip shows",
            output="text",
            given=("clip", "sound"),
            asked=("text",),
            optional=frozenset({"sound"}),
        ),
    )
}


def task_named(name: str) -> MultimodalTask:
    """Raises UsageError for a name that is not in TASKS."""
    if name not in TASKS:
        raise UsageError(f"no task {name!r}; choose one of {', '.join(TASKS)}")
    return TASKS[name]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Material:
    """What a task can be given and what it is to make, in ids of the tokenizers; int64.

    What is to be made and not known is HIDDEN: a clip of HIDDEN is a size. A task looks at what it needs alone.
    """

    text_P: Tensor | None = None
    """Ids of a text, without marker or padding."""
    video_thw: Tensor | None = None
    masked_thw: Tensor | None = None
    """Tokens of the clip with a part of its pixels replaced, HIDDEN where nothing is known: kinolex.tasks.base.pose."""
    structure_thw: Tensor | None = None
    """Tokens of a clip that shows flow, depth or edges."""
    sound_Qt: Tensor | None = None
    given_latents: int = 1
    """Latent frames that are the first."""
    given_sound: int = 1
    """Frames of sound that are the first."""
    begins: bool = True
    """Whether the clip begins a stream of its tokenizer; a window out of the middle does not."""
    source: str | None = None
    resolution: str | None = None
    """Names that the vocabulary has markers for."""


@dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """A task on some material.

    Args:
        ids_L: int64 ids of the vocabulary, HIDDEN where they are to be made and not known.
    """

    layout: Layout
    ids_L: Tensor


def compose(
    task: MultimodalTask,
    material: Material,
    vocabulary: Vocabulary,
    *,
    text_length: int | None = None,
    order: SoundOrder = "levels",
    drop: Collection[Modality] = (),
) -> Sequence:
    """The flat sequence of a task.

    Args:
        text_length: places for a text, which is padded; None: as many as it needs. A text that is to be made needs
            one place for its end.
        order: of sound tokens.
        drop: modalities that are left out of what is given, for guidance.

    Raises:
        UsageError: the task needs material that is absent, or the text is too long.
        ShapeError: ids that are not of the vocabulary, are HIDDEN where they are given, or grids too short to go on.
    """
    builder = _Builder(vocabulary, text_length, order, material)
    builder.mark("input", "bos")
    builder.add("marker", "input", torch.tensor([vocabulary.task_id(task.output)]), (1,))
    for part in task.given:
        modality = _MODALITIES[part]
        if modality in drop or (part in task.optional and builder.absent(part)):
            continue
        place = modality if modality == "text" else f"{modality}_in"
        builder.mark("input", f"{place}_begin")
        builder.give(part)
        builder.mark("input", f"{place}_end")
    for name in (material.source, material.resolution):
        if name is not None:
            builder.mark("input", name)
    for asked in task.asked:
        place = "text" if asked == "text" else f"{_MODALITIES[asked]}_out"
        builder.mark("output", f"{place}_begin")
        builder.ask(asked)
        if not task.open_ended and asked != "text":  # a text holds its own end
            builder.mark("output", f"{place}_end")
    if not task.open_ended:
        builder.mark("output", "eos")
    return builder.built()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Outcome:
    """What a task made, in ids of the tokenizers; None for what it was not asked for."""

    text_P: Tensor | None = None
    """Up to its end."""
    video_thw: Tensor | None = None
    sound_Qt: Tensor | None = None


def outcome(layout: Layout, ids_L: Tensor, vocabulary: Vocabulary) -> Outcome:
    """The made parts of a finished sequence.

    Raises:
        ShapeError: another number of ids than the layout has, or ids of another range than their place asks for.
    """
    if ids_L.shape != (layout.length,):
        raise ShapeError(f"this layout has {layout.length} tokens, got ids of shape {tuple(ids_L.shape)}")
    text_P, video_thw, sound_Qt = None, None, None
    for span in layout.outputs():
        made_L, segment = ids_L[span.start : span.stop], span.segment
        if segment.kind == "video":
            time, height, width = segment.grid
            video_thw = unflatten_video(vocabulary.own_video(made_L), (time, height, width))
        elif segment.kind == "sound":
            sound_Qt = vocabulary.own_sound(unflatten_sound(made_L, segment.grid[0], segment.order))
        else:
            ends_L = (made_L == vocabulary.marker("text_end")).nonzero()[:, 0]
            text_P = vocabulary.own_text(made_L[: int(ends_L[0])] if len(ends_L) else made_L)
    return Outcome(text_P=text_P, video_thw=video_thw, sound_Qt=sound_Qt)


_MODALITIES: dict[str, Modality] = {
    "text": "text",
    "first-frames": "video",
    "clip": "video",
    "masked-clip": "video",
    "structure-clip": "video",
    "image": "video",
    "rest-of-clip": "video",
    "first-sound": "sound",
    "sound": "sound",
    "rest-of-sound": "sound",
}
_FIELDS: dict[str, str] = {"text": "text_P", "masked-clip": "masked_thw", "structure-clip": "structure_thw"}


class _Builder:
    """A sequence that grows."""

    def __init__(self, vocabulary: Vocabulary, text_length: int | None, order: SoundOrder, material: Material) -> None:
        self.vocabulary, self.text_length, self.material = vocabulary, text_length, material
        self.order: SoundOrder = order
        self.segments: list[Segment] = []
        self.ids: list[Tensor] = []

    def built(self) -> Sequence:
        return Sequence(Layout(tuple(self.segments)), torch.cat(self.ids))

    def add(self, kind: Kind, role: Role, ids_L: Tensor, grid: tuple[int, ...], *, start: int = 0) -> None:
        begins = self.material.begins if kind == "video" else True
        order: SoundOrder = self.order if kind == "sound" else "levels"
        self.segments.append(Segment(kind=kind, role=role, grid=grid, start=start, order=order, begins=begins))
        self.ids.append(ids_L.cpu())

    def mark(self, role: Role, name: str) -> None:
        self.add("marker", role, torch.tensor([self.vocabulary.marker(name)]), (1,))

    def absent(self, part: Given) -> bool:
        return self._field(part) is None

    def give(self, part: Given) -> None:
        if part == "text":
            text_P = self._text(self._needed(part))
            self.add("text", "input", text_P, (len(text_P),))
            return
        grid = self._needed(part)
        if part == "first-frames":
            grid = grid[: self._frames(len(grid), self.material.given_latents, "latent frames")]
        elif part == "first-sound":
            grid = grid[:, : self._frames(grid.shape[1], self.material.given_sound, "frames of sound")]
        if part != "masked-clip" and bool((grid == HIDDEN).any()):
            raise ShapeError(f"the {part} is given, but some of its tokens are hidden")
        self._grid(_MODALITIES[part], "input", grid, 0, self.vocabulary.marker("hidden"))

    def ask(self, part: Asked) -> None:
        if part == "text":
            self._ask_text()
            return
        grid, start = self._needed(part), 0
        if part == "image":
            grid = grid[:1]
        elif part == "rest-of-clip":
            start = self._frames(len(grid), self.material.given_latents, "latent frames")
            grid = grid[start:]
        elif part == "rest-of-sound":
            start = self._frames(grid.shape[1], self.material.given_sound, "frames of sound")
            grid = grid[:, start:]
        self._grid(_MODALITIES[part], "output", grid, start, HIDDEN)

    def _grid(self, modality: Modality, role: Role, grid: Tensor, start: int, hidden: int) -> None:
        if modality == "video":
            ids = _with_hidden(grid, self.vocabulary.video_ids, hidden)
            self.add("video", role, flatten_video(ids), tuple(grid.shape), start=start)
        else:
            ids = _with_hidden(grid, self.vocabulary.sound_ids, hidden)
            self.add("sound", role, flatten_sound(ids, self.order), tuple(grid.shape), start=start)

    def _ask_text(self) -> None:
        text_P = self._field("text")
        if text_P is None:
            if self.text_length is None:
                raise UsageError("a text that is to be made needs a text_length")
            self.add("text", "output", torch.full((self.text_length,), HIDDEN), (self.text_length,))
            return
        end_1 = torch.tensor([self.vocabulary.marker("text_end")])
        padded_P = self._padded(torch.cat([self.vocabulary.text_ids(text_P.cpu()), end_1]))
        self.add("text", "output", padded_P, (len(padded_P),))

    def _text(self, text_P: Tensor) -> Tensor:
        return self._padded(self.vocabulary.text_ids(text_P))

    def _padded(self, ids_P: Tensor) -> Tensor:
        length = len(ids_P) if self.text_length is None else self.text_length
        if len(ids_P) > length:
            raise UsageError(f"there are {length} places for a text, but this one needs {len(ids_P)}; say less")
        return torch.nn.functional.pad(ids_P, (0, length - len(ids_P)), value=self.vocabulary.marker("pad"))

    def _field(self, part: str) -> Tensor | None:
        usual = {"video": "video_thw", "sound": "sound_Qt"}.get(_MODALITIES[part], "")
        found = getattr(self.material, _FIELDS.get(part, usual))
        assert found is None or isinstance(found, Tensor)
        return found

    def _needed(self, part: str) -> Tensor:
        found = self._field(part)
        if found is None:
            raise UsageError(f"this task needs {part.replace('-', ' ')}, but the material has none")
        axes = {"text": 1, "video": 3, "sound": 2}[_MODALITIES[part]]
        if found.ndim != axes:
            raise ShapeError(f"{part} needs ids with {axes} axes, got {tuple(found.shape)}")
        return found

    def _frames(self, total: int, given: int, what: str) -> int:
        if not 1 <= given < total:
            raise ShapeError(f"to go on from {given} {what} a clip needs more than these, it has {total}")
        return given


def _with_hidden(grid: Tensor, ids_of: Callable[[Tensor], Tensor], hidden: int) -> Tensor:
    """ids_of the grid, and `hidden` where it is HIDDEN."""
    is_hidden = grid == HIDDEN
    return torch.where(is_hidden, hidden, ids_of(torch.where(is_hidden, 0, grid)))

"""The verb generate: a file and a wish in, a file out; frames are written as windows are finished.

source --scale, canvas--> clip --pose--> Posed --windows--> ids --decode_stream--> frames --put back--> target
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from kinolex.api import OnFrames, refuse_same, reported, write_stream
from kinolex.errors import UsageError
from kinolex.generation.panorama import WINDOW_TASK, Panorama, check_panorama, make_panorama, pose_panorama
from kinolex.generation.pixels import Growth, enlarged, put_back, read_mask
from kinolex.generation.targets import check_growth, check_pictures, first_of
from kinolex.generation.windows import GenerateConfig, MaskedGenerator, longer
from kinolex.media import fit_short_side, read
from kinolex.tasks.base import Posed, pose, pose_mask
from kinolex.tasks.video import FREE_FORM, TASKS, Task, task_named
from kinolex.types import Clip, Extent, Sound, Tokens

PREDICTIONS = tuple(name for name, task in TASKS.items() if task.fill == "repeat")
MAX_FRAMES = 1_000_000
"""Of one result: eleven hours at 24 a second."""
MAX_SIDE = 4096
"""Rows or columns of what is made without a source; windows of this size take more memory than most machines have."""
MORE_LATENTS = 4
"""Latent frames that prediction makes beyond what is given, unless told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What to make."""

    task: str
    """One of the ten, or "free-form" with a mask."""
    text: str = ""
    """A class or caption for the tasks that take one."""
    mask: Path | None = None
    """Image or video, white where something is to be made."""
    frames: int | None = None
    """Of the result: by default as many as the source has, at most a window for interpolation, 16 more than are given
    for prediction, and a window where there is no source."""
    given: int | None = None
    """Leading frames that prediction goes on from: by default all of the source. At the end those that do not fill a
    token are left out: with the shipped models 1, 5, 9, 13 ... count."""
    grow: bool = False
    """Outpainting puts the whole source on a larger canvas, instead of making anew what surrounds its middle."""
    panorama: int | None = None
    """Outpainting keeps the whole source and goes on so often to both sides, each time by half of the source."""
    put_back: bool = False
    """Put the source's own pixels over what was known."""
    lines: int | None = None
    """Scale the short side of the source down to this first; by default to what the model was trained on."""
    size: tuple[int, int] | None = None
    """Rows and columns where there is no source; by default a square of what the model was trained on."""
    fps: Fraction = Fraction(24)
    """Where there is no source, or an image."""

    def __post_init__(self) -> None:
        if self.task != FREE_FORM:
            task = task_named(self.task)
            if self.text and not task.takes_class:
                raise UsageError(f"{self.task} takes no class or caption; class and class-prediction do")
            if self.put_back and not task.gives_pixels:
                raise UsageError(f"{self.task} is given no pixels that could be put back; leave put_back out")
        if self.given is not None and self.task not in PREDICTIONS:
            raise UsageError(f"given is for {' and '.join(PREDICTIONS)}, not for {self.task}; leave it out")
        if self.panorama is not None:
            check_panorama(self.task, self.panorama)
            if self.grow:
                raise UsageError("a panorama keeps the whole source already; leave grow out")
        if (self.task == FREE_FORM) != (self.mask is not None):
            raise UsageError(
                "a mask belongs to the task free-form, and that task needs one; say --task free-form --mask FILE"
            )
        for name, value in (("frames", self.frames), ("given", self.given), ("lines", self.lines)):
            if value is not None and value < 1:
                raise UsageError(f"{name} must be 1 or more, got {value}")
        if self.frames is not None and self.frames > MAX_FRAMES:
            raise UsageError(
                f"a video has {MAX_FRAMES:,} frames at most, and {self.frames:,} are wanted; ask for fewer"
            )
        if self.size is not None and max(self.size) > MAX_SIDE:
            raise UsageError(
                f"a picture has {MAX_SIDE} rows and columns at most, and {self.size[0]} by {self.size[1]} are wanted; "
                "ask for fewer"
            )
        if (self.size is not None and min(self.size) < 16) or self.fps <= 0:
            raise UsageError(f"size needs at least 16 rows and columns and fps must be positive, got {self.size}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateReport:
    """What was made; all figures are of this run."""

    target: str
    task: str
    frames: int
    height: int
    width: int
    frames_given: int
    """Leading frames whose tokens are the source's own."""
    frames_left_out: int
    """Given frames after those, too few to fill a token; they are made anew."""
    passes: int
    """Of the transformer, over all windows."""
    seed: int
    seconds: float
    frames_per_second: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class Composition:
    """A wish made ready: the question in tokens, and the pixels it came from."""

    posed: Posed
    clip: Clip
    known_THW: torch.Tensor | None
    """What may be put back."""
    panorama: Panorama | None = None
    """How the question is taken apart into windows, where it is wider than they are."""
    left_out: int = 0
    """Given frames at the end that do not fill a token."""


def compose(source: Clip | None, wish: Wish, generator: MaskedGenerator) -> Composition:
    """Both halves of a wish on a clip (None where the task needs none).

    Raises:
        UsageError: no source for a task that needs one, one too short, or a task that the model does not know.
    """
    generator.check_task(wish.task if wish.panorama is None else WINDOW_TASK)
    tokenizer = generator.tokenizer
    time_factor = tokenizer.pixels_per_token[0]
    window = 1 + time_factor * (generator.config.latent_frames - 1)
    task = None if wish.task == FREE_FORM else task_named(wish.task)
    if source is None:
        if task is None or task.gives_pixels:
            raise UsageError(f"{wish.task} needs a video or image to start from; give one with --from")
        if wish.lines is not None:
            raise UsageError("lines scale a source, and there is none; give the size of what is made instead")
        size = wish.size or (generator.config.lines, generator.config.lines)
        black_TCHW = torch.zeros(1, 3, *size, dtype=torch.uint8).expand(wish.frames or window, -1, -1, -1)
        source = Clip(black_TCHW, wish.fps)  # a size; no memory stands behind its frames
    elif wish.size is not None:
        raise UsageError(f"size is for {wish.task} without a source, and here the source has one; leave it out")
    elif min(source.height, source.width) > (lines := wish.lines or generator.config.lines):
        source = fit_short_side(source, lines)
    if source.num_frames == 1 and source.fps == 1:  # an image, which has no rate of its own
        source = Clip(source.frames_TCHW, wish.fps)
    if wish.grow:
        source = enlarged(source, wish.task)
    if task is not None and task.fill == "repeat":
        return _going_on(source, task, wish, generator)
    frames = wish.frames or (
        min(window, source.num_frames) if wish.task == "frame-interpolation" else source.num_frames
    )
    if frames > source.num_frames:
        without = "" if task is None or task.gives_pixels else ", or leave out --from"
        raise UsageError(
            f"{wish.task} works on the {source.num_frames} frames of its source, but {frames} are wanted; ask for "
            f"{source.num_frames} at most{without}"
        )
    clip = Clip(source.frames_TCHW[:frames], source.fps, _first_of(source, frames))
    if task is None:
        assert wish.mask is not None
        known_THW = read_mask(wish.mask, frames, clip.height, clip.width)
        posed = pose_mask(FREE_FORM, clip, known_THW, tokenizer.encode, tokenizer.pixels_per_token)
        return Composition(posed, clip, known_THW)
    if wish.panorama is not None:
        panorama = pose_panorama(clip, wish.task, wish.panorama, tokenizer)
        wide, known_THW = panorama.on_canvas(clip) if wish.put_back else (clip, None)
        return Composition(panorama.posed, wide, known_THW, panorama)
    posed = pose(task, clip, tokenizer.encode, tokenizer.pixels_per_token)
    known_THW = task.region(frames, clip.height, clip.width, 1) if task.gives_pixels else None
    return Composition(posed, clip, known_THW)


def _going_on(source: Clip, task: Task, wish: Wish, generator: MaskedGenerator) -> Composition:
    """Prediction: leading frames whose tokens stay, and any number after them."""
    time_factor = generator.tokenizer.pixels_per_token[0]
    there = min(wish.given or source.num_frames, source.num_frames)
    given = 1 + time_factor * ((there - 1) // time_factor)
    frames = wish.frames or given + MORE_LATENTS * time_factor
    if frames <= given:
        rounded = f" (of {there}: 1 and whole steps of {time_factor} count)" if there != given else ""
        raise UsageError(
            f"{given} frames{rounded} are given and {frames} wanted; give fewer with --given, or ask for more with "
            "--frames"
        )
    clip = Clip(source.frames_TCHW[:given], source.fps, _first_of(source, frames))
    ids_thw = generator.tokenizer.encode(clip).ids_Qthw[0]
    posed = Posed(task.name, ids_thw, torch.ones_like(ids_thw, dtype=torch.bool), clip.extent)
    known_THW = torch.ones(given, clip.height, clip.width, dtype=torch.bool)
    longer_posed = longer(posed, frames, 1 + -(-(frames - 1) // time_factor))
    return Composition(longer_posed, clip, known_THW, left_out=there - given)


def _first_of(source: Clip, frames: int) -> Sound | None:
    """The sound of the first frames; all of it where there are not more."""
    sound = source.sound
    return sound if sound is None or frames >= source.num_frames else first_of(sound, frames / source.fps)


def generate(
    source: str | Path | None,
    target: str | Path,
    generator: MaskedGenerator,
    wish: Wish,
    config: GenerateConfig | None = None,
    *,
    growth: str | Path | None = None,
    on_frames: OnFrames | None = None,
) -> GenerateReport:
    """Make a video of a file, or of nothing.

    Args:
        source: any video, GIF or image; None for classes. Its sound goes along.
        target: .mp4, .webm, .gif; an image suffix where one frame is made.
        growth: an image file that shows what was settled after each pass of the first window.
        on_frames: called as frames are finished.

    Raises:
        UsageError: a wish that cannot be granted; KinolexError of the media layer. No partial target is left.
    """
    target, config, began = Path(target), config or GenerateConfig(), time.monotonic()
    for other in (source, wish.mask):
        for made in (target, growth):
            if other is not None and made is not None:
                refuse_same(Path(other), Path(made))
    if growth is not None and Path(growth).resolve() == target.resolve():
        raise UsageError(f"{target} cannot be both what is made and the picture of its growth; give two names")
    check_pictures(target)
    if growth is not None:
        check_growth(Path(growth))
    clip = None if source is None else read(source, max_frames=_wanted(wish))
    composition = compose(clip, wish, generator)
    extent, given = composition.posed.extent, _frames_given(composition, generator)
    check_pictures(target, extent.frames, extent.fps)
    window = extent if composition.panorama is None else composition.panorama.window
    grown = Growth(generator.tokenizer, window.height, window.width, window.fps) if growth is not None else None
    passes = 0

    def on_window(number: int, total: int, ids_thw: torch.Tensor) -> None:
        nonlocal passes
        passes += 1
        if grown is not None:
            grown(number, total, ids_thw)

    clips = reported(_made(composition, generator, wish, config, on_window), extent.frames, on_frames or _silent)
    write_stream(clips, target, composition.clip.sound)
    if grown is not None and growth is not None:
        grown.save(Path(growth))
    seconds = time.monotonic() - began
    return GenerateReport(
        target=target.name,
        task=wish.task,
        frames=extent.frames,
        height=extent.height,
        width=extent.width,
        frames_given=given,
        frames_left_out=composition.left_out,
        passes=passes,
        seed=config.seed,
        seconds=seconds,
        frames_per_second=extent.frames / seconds,
    )


def _made(
    composition: Composition,
    generator: MaskedGenerator,
    wish: Wish,
    config: GenerateConfig,
    on_window: Callable[[int, int, torch.Tensor], None],
) -> Iterator[Clip]:
    """Finished frames, block by block."""
    posed, tokenizer = composition.posed, generator.tokenizer
    done = 0
    if composition.panorama is None:
        ids = generator.stream(posed, config, text=wish.text, on_window=on_window)
    else:
        ids = iter([make_panorama(generator, composition.panorama, config, on_window=on_window)])
    for made in tokenizer.decode_stream(token_pieces(ids, posed.extent, tokenizer)):
        frames_TCHW, stop = made.frames_TCHW, done + made.num_frames
        known_THW = composition.known_THW
        if wish.put_back and known_THW is not None and done < len(known_THW):
            inside = slice(done, min(stop, len(known_THW)))
            count = inside.stop - inside.start
            original_TCHW = composition.clip.frames_TCHW[inside]
            back_TCHW = put_back(frames_TCHW[:count], original_TCHW, known_THW[inside])
            frames_TCHW = torch.cat([back_TCHW, frames_TCHW[count:]])
        yield Clip(frames_TCHW, made.fps)
        done = stop


def token_pieces(ids: Iterator[torch.Tensor], extent: Extent, tokenizer: Any) -> Iterator[Tokens]:
    """Windows of ids as pieces of one token stream, each with the frames it stands for."""
    time_factor, done = tokenizer.pixels_per_token[0], 0
    for ids_thw in ids:
        frames = len(ids_thw) * time_factor - (0 if done else time_factor - 1)
        frames = min(frames, extent.frames - done)
        yield Tokens(ids_thw[None], "video", tokenizer.fingerprint, replace(extent, frames=frames))
        done += frames


def _frames_given(composition: Composition, generator: MaskedGenerator) -> int:
    latents = int(composition.posed.exact_thw.flatten(1).all(dim=1).long().cumprod(dim=0).sum())
    return 1 + generator.tokenizer.pixels_per_token[0] * (latents - 1) if latents else 0


def _silent(done: int, total: int | None) -> None:
    return None


def _wanted(wish: Wish) -> int | None:
    """Frames of the source that can matter."""
    return wish.given if wish.task in PREDICTIONS else wish.frames

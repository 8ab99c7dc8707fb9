"""Long video with sound: windows of a multimodal generator, each going on from the last tokens of the one before.

    window 0 (any task that makes a clip) --last tokens--> continuation --last tokens--> continuation --> ...
         `--new tokens--> decode_stream --> frames, samples --> writer

Nothing is decoded and encoded again, and each tokenizer decodes one stream from beginning to end, so there is no seam.
Only the last window, what the decoders carry and what the writer waits for are in memory, however long it gets.

Source: VideoPoet, arXiv 2312.14125.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from kinolex.api import OnFrames, refuse_same, reported, write_stream
from kinolex.errors import ConfigError, UsageError
from kinolex.generation.decoding import DecodeConfig
from kinolex.generation.multimodal import (
    USUAL,
    MultimodalGenerator,
    MultimodalReport,
    Request,
    check_made,
    pose_request,
    report_of,
)
from kinolex.generation.targets import first_of, holds_sound
from kinolex.generation.verb import token_pieces
from kinolex.masks import HIDDEN
from kinolex.media import VideoReader
from kinolex.media.sound import track_of
from kinolex.media.writer import FORMATS
from kinolex.tasks.chaining import Chain, chain_of
from kinolex.tasks.multimodal import Material, MultimodalTask, task_named
from kinolex.tokenizers.sound import SoundTokens
from kinolex.types import Extent, Sound, SoundExtent, Tokens

LONG_TASKS = (
    "text-to-both",
    "text-to-video",
    "unconditional",
    "image-to-video",
    "future-prediction",
    "continuation",
)
"""Tasks whose clip can go on."""
MAX_SECONDS = 24 * 3600
"""Of one video: a day takes weeks to make."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """What is new in one window, and what it took."""

    video_thw: Tensor
    sound_Qt: Tensor | None
    passes: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """Of a long video: frames, samples beside them, and the windows that hold both."""

    frames: int
    samples: int
    windows: int


def chain_for(generator: MultimodalGenerator) -> Chain:
    """How its windows follow one another. Raises ConfigError for a network whose windows cannot."""
    config = generator.model.config
    return chain_of(config.latent_frames, config.sound_frames, config.sound_frames_per_latent)


def length_of(seconds: float, generator: MultimodalGenerator) -> Length:
    """What a number of seconds takes. Raises UsageError for no time or more than a day, ConfigError as chain_for."""
    if not (seconds > 0 and math.isfinite(seconds)):
        raise UsageError(f"a video lasts some seconds, got {seconds:g}")
    if seconds > MAX_SECONDS:
        raise UsageError(
            f"a video lasts {MAX_SECONDS} seconds (a day) at most, and {seconds:g} are asked for; ask for less"
        )
    chain = chain_for(generator)
    frames = max(1, round(Fraction(seconds) * generator.fps))
    latents = 1 + -(-(frames - 1) // generator.video.pixels_per_token[0])
    samples = round(frames / generator.fps * generator.sound.config.rate_hz)
    windows = 1 + max(0, -(-(latents - chain.latents) // chain.latent_stride))
    return Length(frames=frames, samples=samples, windows=windows)


def chained(
    generator: MultimodalGenerator, task: MultimodalTask, material: Material, config: DecodeConfig, windows: int
) -> Iterator[Window]:
    """Windows one after the other; the first is the task itself, given leading frames and sound before what is made.

    Raises:
        UsageError: a task whose clip cannot go on.
        ConfigError: as chain_for, or for a network that makes other windows than it was trained on.
    """
    _check_long(task)
    chain = chain_for(generator)
    made, passes, tokens = generator.make(task, material, config)
    video_thw, sound_Qt = made.video_thw, made.sound_Qt
    assert video_thw is not None
    if "rest-of-clip" in task.asked and material.video_thw is not None:
        video_thw = torch.cat([material.video_thw[: material.given_latents], video_thw])
    if sound_Qt is not None and "rest-of-sound" in task.asked and material.sound_Qt is not None:
        sound_Qt = torch.cat([material.sound_Qt[:, : material.given_sound], sound_Qt], dim=1)
    if sound_Qt is not None and sound_Qt.shape[1] != chain.sound:
        raise ConfigError(f"windows of {sound_Qt.shape[1]} frames of sound cannot be chained; they need {chain.sound}")
    yield Window(video_thw, sound_Qt, passes, tokens)
    going_on = task_named("future-prediction" if sound_Qt is None else "continuation")
    for number in range(1, windows):
        material = _next(chain, material, video_thw, sound_Qt)
        made, passes, tokens = generator.make(going_on, material, replace(config, seed=_seed(config.seed, number)))
        assert made.video_thw is not None and material.video_thw is not None
        yield Window(made.video_thw, made.sound_Qt, passes, tokens)
        video_thw = torch.cat([material.video_thw[: chain.given_latents], made.video_thw])
        if made.sound_Qt is not None and material.sound_Qt is not None:
            sound_Qt = torch.cat([material.sound_Qt[:, : chain.given_sound], made.sound_Qt], dim=1)


def _check_long(task: MultimodalTask) -> None:
    if task.name not in LONG_TASKS:
        raise UsageError(f"{task.name} makes one window; videos of any length are made by {', '.join(LONG_TASKS)}")


def _next(chain: Chain, material: Material, video_thw: Tensor, sound_Qt: Tensor | None) -> Material:
    """What the next window goes on from, with the same words."""
    made_thw = torch.full((chain.latent_stride, *video_thw.shape[1:]), HIDDEN)
    heard_Qt = None
    if sound_Qt is not None:
        made_Qt = torch.full((len(sound_Qt), chain.sound_stride), HIDDEN)
        heard_Qt = torch.cat([sound_Qt[:, chain.sound_stride :], made_Qt], dim=1)
    return Material(
        text_P=material.text_P,
        video_thw=torch.cat([video_thw[chain.latent_stride :], made_thw]),
        sound_Qt=heard_Qt,
        given_latents=chain.given_latents,
        given_sound=chain.given_sound,
        begins=False,
    )


def _seed(seed: int, number: int) -> int:
    """Every window has noise of its own; the same seed gives the same video."""
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:7], "little")


def fulfil_long(
    request: Request,
    seconds: float,
    target: str | Path,
    generator: MultimodalGenerator,
    config: DecodeConfig | None = None,
    *,
    on_frames: OnFrames | None = None,
) -> MultimodalReport:
    """Make a video of any length of a request; frames and sound are written as windows are finished.

    Args:
        target: .mp4 or .webm; .gif where no sound is made. The source's sound goes along where none is made.
        on_frames: called as frames are finished.

    Raises:
        UsageError: a request that cannot be granted; KinolexError of the media layer. No partial target is left.
    """
    target, config, began = Path(target), config or USUAL, time.monotonic()
    for other in (request.source, request.heard):
        if other is not None:
            refuse_same(other, target)
    if target.suffix.lower() not in FORMATS:
        raise UsageError(f"a long video is written as {', '.join(FORMATS)}, not as {target.name}")
    task, length = task_named(request.task), length_of(seconds, generator)
    _check_long(task)
    check_made(task, target, generator)
    question = pose_request(request, generator)
    lines, like = generator.model.config.lines, question.like
    height, width = (like.height, like.width) if like is not None else (lines, lines)
    extent = Extent(frames=length.frames, height=height, width=width, fps=generator.fps)
    figures = {"passes": 0, "tokens": 0}

    def counted() -> Iterator[Window]:
        for window in chained(generator, task, question.material, config, length.windows):
            figures["passes"] += window.passes
            figures["tokens"] += window.tokens
            yield window

    seen, sound, sound_s = counted(), None, 0.0
    if set(task.asked) & {"sound", "rest-of-sound"}:
        seen, listened = _twice(seen)
        sound = generator.sound.decode_stream(sound_pieces(listened, length.samples, generator))
        sound_s = length.samples / generator.sound.config.rate_hz
    elif holds_sound(target) and (sound := _given_sound(request, question.heard, length.frames / generator.fps)):
        sound_s = sound.duration_s
    pieces = token_pieces((window.video_thw for window in seen), extent, generator.video)
    clips = generator.video.decode_stream(pieces)
    written = write_stream(reported(clips, length.frames, on_frames or (lambda _done, _total: None)), target, sound)
    return report_of(
        target,
        question,
        config,
        extent=written,
        sound_s=sound_s,
        text=request.text,
        tokens=figures["tokens"],
        passes=figures["passes"],
        seconds=time.monotonic() - began,
    )


def _given_sound(request: Request, heard: Sound | None, seconds: Fraction) -> Sound | None:
    """The beginning of the sound that came with a request; of a source more than the window that was read of it."""
    if heard is not None and request.heard is None and request.source is not None:
        with VideoReader(request.source) as reader:
            heard = track_of(request.source, start_s=reader.origin_s, length_s=seconds)
    return None if heard is None else first_of(heard, seconds)


def _twice(windows: Iterator[Window]) -> tuple[Iterator[Window], Iterator[Window]]:
    """The same windows for pictures and for sound; what one of them has not asked for yet is kept for it.

    The writer asks for sound as far as its pictures have come, so neither is far ahead. itertools.tee would keep 57.
    """
    kept = deque[Window](), deque[Window]()

    def branch(own: deque[Window], other: deque[Window]) -> Iterator[Window]:
        while True:
            if not own:
                window = next(windows, None)
                if window is None:
                    return
                other.append(window)
                yield window
                del window
            else:
                yield own.popleft()

    return branch(kept[0], kept[1]), branch(kept[1], kept[0])


def sound_pieces(windows: Iterator[Window], samples: int, generator: MultimodalGenerator) -> Iterator[SoundTokens]:
    """The sound of windows as pieces of one token stream of so many samples; what lies after them is left out."""
    tokenizer, given = generator.sound, 0
    hop, rate_hz = tokenizer.config.hop, tokenizer.config.rate_hz
    for window in windows:
        assert window.sound_Qt is not None
        ids_Qthw = window.sound_Qt[:, : -(-(samples - given) // hop), None, None]
        here = min(ids_Qthw.shape[1] * hop, samples - given)
        if here:
            yield Tokens(ids_Qthw, "sound", tokenizer.fingerprint, SoundExtent(samples=here, rate_hz=rate_hz))
        given += here

"""What is in a video or a sound, by a probe that reads its tokens.

video --read, scale, cut to a square--> windows at the probe's rate --tokenizer--> features --probe--> probabilities
sound --read, mixed to one channel----> pieces of the probe's length ------------------^
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray

from kinolex import checkpoint, hub
from kinolex.data.spoken_digits import RATE_HZ, only_word
from kinolex.errors import CheckpointError, UsageError
from kinolex.media import VideoReader, fit_short_side, read_sound
from kinolex.media.resample import resample_sound
from kinolex.models.probe import HearsConfig, Probe, ReadsConfig
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip, Sound
from kinolex.understanding.features import ClipFrontEnd, digits, latents
from kinolex.understanding.sounds import SoundFrontEnd

DEFAULT = "probe-worlds-nano"
SILENCE = 1e-3
"""Of full scale: what never departs further from its mean is noise of a recorder, not a sound. -60 dB."""
MAX_WINDOWS = 32
"""Evenly spread over a long video or sound."""

OnFrames = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """What a probe says of a video or a sound."""

    source: str
    probe: str
    windows: int
    """Stretches that were looked at or heard; probabilities are their means."""
    classes: dict[str, dict[str, float]]
    """Attribute -> class -> probability, the likeliest first."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Classifier:
    """A probe and the tokenizer whose tokens it reads.

    Raises:
        CheckpointError: the probe reads nothing, or another tokenizer.
    """

    def __init__(self, probe: Probe, tokenizer: VideoTokenizer | SoundTokenizer, name: str = "") -> None:
        """`name` is what results call the probe."""
        self.name = name
        reads = probe.config.reads
        if reads is None:
            raise CheckpointError(
                "this probe does not say what it reads; train one with a recipe of recipes/probe_*.py"
            )
        if reads.tokenizer != tokenizer.fingerprint:
            raise CheckpointError(
                f"this probe reads tokens of tokenizer {reads.tokenizer[:16]}, not of {tokenizer.fingerprint[:16]}; "
                "give the tokenizer it was trained with, or train it again"
            )
        self.probe, self.tokenizer, self.reads = probe.eval().requires_grad_(False), tokenizer, reads
        self.front_end: ClipFrontEnd | SoundFrontEnd
        if isinstance(reads, HearsConfig):
            assert isinstance(tokenizer, SoundTokenizer)
            samples = round(reads.seconds * tokenizer.config.rate_hz)
            self.front_end = SoundFrontEnd(tokenizer=tokenizer, samples=samples, levels=reads.levels)
        else:
            assert isinstance(tokenizer, VideoTokenizer)
            self.front_end = ClipFrontEnd(tokenizer=tokenizer, frames=reads.frames, side=reads.side)

    def __call__(self, windows: NDArray[Any]) -> dict[str, dict[str, float]]:
        """Mean probabilities over windows, the likeliest class first.

        Args:
            windows: frames_NTHWC of read_windows, or samples_NS of hear_windows.
        """
        found = {}
        for name, shares_NV in self.probabilities(windows).items():
            shares_V = shares_NV.mean(axis=0)
            classes = dict(self.probe.config.outputs)[name]
            found[name] = {classes[number]: float(shares_V[number]) for number in np.argsort(-shares_V, kind="stable")}
        return found

    @torch.inference_mode()
    def probabilities(self, windows: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """[N, V] per attribute, in the order of its classes. Argument as of a call."""
        answers = self.probe(self._features(windows), self.front_end.grid)
        return {name: logits_NV.float().softmax(dim=1).cpu().numpy() for name, logits_NV in answers.items()}

    def _features(self, windows: NDArray[Any]) -> torch.Tensor:
        front_end: Any = self.front_end  # windows are of its kind
        if self.reads.input == "raw":
            return front_end.positions(windows).float()
        ids_NQthw = front_end.encode(windows, _unheard)
        if self.reads.input == "decoded":
            return front_end.positions(front_end.decode(ids_NQthw, _unheard)).float()
        return (latents if self.reads.input == "latents" else digits)(ids_NQthw, self.tokenizer)


def _unheard(_done: int, _total: int) -> None:
    """A few windows take no time to speak of."""


def load_classifier(name: str | Path = DEFAULT, tokenizer: str | Path | None = None) -> Classifier:
    """The probe behind a name, with its tokenizer.

    Args:
        tokenizer: name, folder or hub repository; None finds it among those that are shipped.

    Raises:
        UnknownModel: no such probe, or its tokenizer is not shipped. CheckpointError: damaged, no probe, or a probe of
            another tokenizer.
    """
    probe, _ = checkpoint.load_module(hub.locate(name, checkpoint.PROBE), checkpoint.PROBE)
    assert isinstance(probe, Probe)
    if probe.config.reads is None:
        raise CheckpointError(f"{name} does not say what it reads; train a probe with a recipe of recipes/probe_*.py")
    return Classifier(probe, hub.load(tokenizer or hub.name_of(probe.config.reads.tokenizer)), Path(name).name)


def classify(
    source: str | Path,
    probe: str | Path | Classifier = DEFAULT,
    *,
    on_frames: OnFrames = lambda _done, _total: None,
) -> Recognised:
    """What is in a video or a sound.

    Args:
        source: any file FFmpeg reads. For a probe of videos with enough frames, the middle square of the picture is
            looked at; for one of sounds with a sound track.
        probe: shipped name, folder, hub repository, or one that is loaded.
        on_frames: called as frames are read.

    Raises:
        UsageError: an image for a probe of videos, a video that is too short for one window, or silence where something
            is to be heard.
        UnknownModel: no such probe. KinolexError: of the media layer.
    """
    classifier = probe if isinstance(probe, Classifier) else load_classifier(probe)
    reads, tokenizer = classifier.reads, classifier.tokenizer
    windows: NDArray[Any]
    if isinstance(reads, ReadsConfig):
        windows = read_windows(Path(source), reads, on_frames)
    else:
        assert isinstance(tokenizer, SoundTokenizer)
        windows = hear_windows(Path(source), reads, tokenizer.config.rate_hz)
    return Recognised(
        source=Path(source).name, probe=classifier.name, windows=len(windows), classes=classifier(windows)
    )


def read_windows(
    source: Path, reads: ReadsConfig, on_frames: OnFrames = lambda _done, _total: None
) -> NDArray[np.uint8]:
    """Windows [N, T, H, W, C] at the probe's rate, each beginning half a window after the one before.

    Frames are picked, not blended: the one that is shown at each moment of the probe's clock. Errors as classify.
    """
    picked: list[torch.Tensor] = []
    with VideoReader(source) as reader:
        if reader.info.is_image and reads.frames > 1:
            raise UsageError(f"{source} is an image, and this probe reads {reads.frames} frames; give it a video")
        step, seen = max(float(reader.info.fps) / reads.frames_per_second, 1e-6), 0
        if reads.frames == 1:
            step = 1.0
        for clip in reader:
            square = _square(clip, reads.side)
            while (wanted := math.floor(len(picked) * step + 1e-6)) < seen + clip.num_frames:
                picked.append(square[wanted - seen])
            seen += clip.num_frames
            on_frames(seen, reader.info.frames)
    if len(picked) < reads.frames:
        needed_s = reads.frames / reads.frames_per_second
        raise UsageError(
            f"{source} gives {len(picked)} frames at {reads.frames_per_second:g} a second, and this probe needs "
            f"{reads.frames} ({needed_s:.2f} s); give a longer video"
        )
    starts = _spread(range(0, len(picked) - reads.frames + 1, max(1, reads.frames // 2)))
    cut = [torch.stack(picked[start : start + reads.frames]) for start in starts]
    return rearrange(torch.stack(cut), "n t c h w -> n t h w c").contiguous().numpy()


def hear_windows(source: Path, reads: HearsConfig, rate_hz: int) -> NDArray[np.float32]:
    """Pieces [N, S] of the sound at rate_hz, mixed to one channel, each beginning half a piece after the one before.

    The last ends with the sound. Of a word there is one piece; what is too short is filled with silence. Errors as
    classify.
    """
    sound = read_sound(source)
    mono = Sound(sound.samples_CS.mean(dim=0, keepdim=True), sound.rate_hz)
    # Before anything else to the rate at which probes learn to hear, as their recordings were.
    samples_S = resample_sound(mono, RATE_HZ).samples_CS[0]
    if not ((samples_S - samples_S.mean()).abs() > SILENCE).any():
        what = "words" if reads.word else "sounds"
        raise UsageError(
            f"{source} is silent, or its channels cancel each other, and this probe hears {what}; give one"
        )
    if reads.word:
        samples_S = only_word(samples_S)
    length = round(reads.seconds * RATE_HZ)
    last = 0 if reads.word else max(0, len(samples_S) - length)
    starts = [*range(0, last + 1, length // 2)]
    if last - starts[-1] > length // 8:
        starts.append(last)
    starts = _spread(starts)
    cut = [F.pad(piece_S, (0, length - len(piece_S))) for piece_S in (samples_S[at : at + length] for at in starts)]
    pieces = [resample_sound(Sound(piece_S[None], RATE_HZ), rate_hz).samples_CS for piece_S in cut]
    return torch.cat(pieces).numpy()


def _spread(starts: Sequence[int]) -> Sequence[int]:
    """At most MAX_WINDOWS of them, evenly."""
    if len(starts) <= MAX_WINDOWS:
        return starts
    return [starts[number * (len(starts) - 1) // (MAX_WINDOWS - 1)] for number in range(MAX_WINDOWS)]


def _square(clip: Clip, side: int) -> torch.Tensor:
    """The middle square of every frame, scaled to `side` pixels."""
    frames_TCHW = fit_short_side(clip, side).frames_TCHW
    top, left = (frames_TCHW.shape[2] - side) // 2, (frames_TCHW.shape[3] - side) // 2
    return frames_TCHW[:, :, top : top + side, left : left + side]

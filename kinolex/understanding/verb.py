"""What is in a video, by a probe that reads its tokens.

file --read, scale, cut to a square--> windows at the probe's rate --tokenizer--> features --probe--> probabilities
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray

from kinolex import checkpoint, hub
from kinolex.errors import CheckpointError, UsageError
from kinolex.media import VideoReader, fit_short_side
from kinolex.models.probe import Probe, ReadsConfig
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip
from kinolex.understanding.features import decode_many, digits, encode_many, grid_of, latents, patches

DEFAULT = "probe-worlds-nano"
MAX_WINDOWS = 32
"""Evenly spread over a long video."""

OnFrames = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """What a probe says of a video."""

    source: str
    probe: str
    windows: int
    """Stretches of the video that were looked at; probabilities are their means."""
    classes: dict[str, dict[str, float]]
    """Attribute -> class -> probability, the likeliest first."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Classifier:
    """A probe and the tokenizer whose tokens it reads.

    Raises:
        CheckpointError: the probe reads nothing, or another tokenizer.
    """

    def __init__(self, probe: Probe, tokenizer: VideoTokenizer) -> None:
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
        self.grid = grid_of(tokenizer, reads.frames, reads.side)

    @torch.inference_mode()
    def __call__(self, frames_NTHWC: NDArray[np.uint8]) -> dict[str, dict[str, float]]:
        """Mean probabilities over windows, the likeliest class first."""
        features_NLC = self._features(frames_NTHWC)
        found = {}
        for name, logits_NV in self.probe(features_NLC, self.grid).items():
            shares_V = logits_NV.softmax(dim=1).mean(dim=0)
            classes = dict(self.probe.config.outputs)[name]
            order = shares_V.argsort(descending=True).tolist()
            found[name] = {classes[number]: float(shares_V[number]) for number in order}
        return found

    def _features(self, frames_NTHWC: NDArray[np.uint8]) -> torch.Tensor:
        if self.reads.input == "raw":
            return patches(frames_NTHWC, self.tokenizer).float()
        ids_NQthw = encode_many(self.tokenizer, frames_NTHWC)
        if self.reads.input == "decoded":
            return patches(decode_many(self.tokenizer, ids_NQthw, self.reads.frames), self.tokenizer).float()
        return (latents if self.reads.input == "latents" else digits)(ids_NQthw, self.tokenizer)


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
    return Classifier(probe, hub.load(tokenizer or hub.name_of(probe.config.reads.tokenizer)))


def classify(
    source: str | Path,
    probe: str | Path | Classifier = DEFAULT,
    *,
    on_frames: OnFrames = lambda _done, _total: None,
) -> Recognised:
    """What is in a video.

    Args:
        source: any file FFmpeg reads with enough frames; the middle square of the picture is looked at.
        probe: shipped name, folder, hub repository, or one that is loaded.
        on_frames: called as frames are read.

    Raises:
        UsageError: an image for a probe of videos, or a video that is too short for one window.
        UnknownModel: no such probe. KinolexError: of the media layer.
    """
    classifier = probe if isinstance(probe, Classifier) else load_classifier(probe)
    frames_NTHWC = read_windows(Path(source), classifier.reads, on_frames)
    name = Path(probe).name if isinstance(probe, str | Path) else ""
    classes = classifier(frames_NTHWC)
    return Recognised(source=Path(source).name, probe=name, windows=len(frames_NTHWC), classes=classes)


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
    starts = range(0, len(picked) - reads.frames + 1, max(1, reads.frames // 2))
    if len(starts) > MAX_WINDOWS:
        starts = [starts[number * len(starts) // MAX_WINDOWS] for number in range(MAX_WINDOWS)]
    cut = [torch.stack(picked[start : start + reads.frames]) for start in starts]
    return rearrange(torch.stack(cut), "n t c h w -> n t h w c").contiguous().numpy()


def _square(clip: Clip, side: int) -> torch.Tensor:
    """The middle square of every frame, scaled to `side` pixels."""
    frames_TCHW = fit_short_side(clip, side).frames_TCHW
    top, left = (frames_TCHW.shape[2] - side) // 2, (frames_TCHW.shape[3] - side) // 2
    return frames_TCHW[:, :, top : top + side, left : left + side]

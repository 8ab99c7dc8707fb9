"""Pictures for SPAE, in memory, with what a teacher says of each: told words, and scores of a network for photographs.

    sets -> square pixels + scores over the codebook's words      (seed, step) -> Batch

Scores lie in 0..1: 1 for words that are told of a picture (its class, its caption), and up to 0.9 for words that the
teacher sees in a photograph. A batch is a function of (seed, step).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor

from kinolex.data.imagenet_groups import GROUP_OF
from kinolex.data.pictures import list_pictures, load_picture, words_of
from kinolex.errors import DataError
from kinolex.metrics.perceptual import SqueezeNetFeatures
from kinolex.tokenizers.spae import Teacher

NETWORK_SIDE = 227
SEEN = 0.9
"""Score of the word that a teacher sees most; what is told counts more."""
PHOTOGRAPHS = frozenset({"imagenet_samples", "bsds", "clips", "sequences"})
"""Sets whose pictures the teacher network is asked about; it knows nothing of digits and worlds."""
UNFLIPPED = frozenset({"digits"})
STAND_INS = {"zero": "nought"}
"""Words of labels that a small vocabulary may lack, and what to say instead."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    pixels_BCTHW: Tensor
    """Float in [-1, 1], T = 1."""
    scores_BV: Tensor
    """0..1 per word; all 0 where nothing is known."""


def imagenet_teacher(network: SqueezeNetFeatures, labels: Path, words: Sequence[str]) -> Teacher:
    """A teacher that names ImageNet's classes, and the everyday words for them, as far as the codebook has the words.

    Args:
        labels: JSON list of the 1,000 class names.

    Raises:
        DataError: it is not such a list.
    """
    try:
        names = json.loads(labels.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{labels} cannot be read as a list of class names: {error}") from error
    if not isinstance(names, list) or len(names) != 1000:
        raise DataError(f"{labels} must be a list of ImageNet's 1,000 class names")
    known = {word: index for index, word in enumerate(words)}
    meaning_KV = torch.zeros(1000, len(words))
    for number, name in enumerate(names):
        for word in (*words_of(str(name).split(" (")[0]), GROUP_OF.get(number, "")):
            if (index := known.get(word, known.get(word.lower()))) is not None:
                meaning_KV[number, index] = 1.0

    def scores_BV(pixels_BCTHW: Tensor) -> Tensor:
        large_BCHW = F.interpolate(pixels_BCTHW[:, :, 0], NETWORK_SIDE, mode="bilinear", align_corners=False)
        return network.class_scores(large_BCHW).softmax(dim=1) @ meaning_KV

    return scores_BV


class PictureSet:
    """All pictures of a recipe's sets.

    Args:
        data: folder with one sub-folder per set.
        shares: (set, share of a batch).
        words: of the codebook.
        teacher: asked once about every photograph; None leaves told words alone.

    Raises:
        MissingFile, DataError: a set is not there or empty.
    """

    def __init__(
        self,
        data: Path,
        shares: Sequence[tuple[str, float]],
        words: Sequence[str],
        *,
        side: int,
        worlds: int,
        teacher: Teacher | None = None,
    ) -> None:
        self.shares = np.array([share for _, share in shares]) / sum(share for _, share in shares)
        self.flips = [name not in UNFLIPPED for name, _ in shares]
        self.frames: list[np.ndarray] = []
        self.told: list[list[tuple[int, ...]]] = []
        self.seen: list[Tensor | None] = []
        self.num_words = len(words)
        known = {word: index for index, word in enumerate(words)}
        for name, _ in shares:
            pictures = list_pictures(data, name, "train", worlds=worlds)
            shown = track(pictures, f"pictures of {name}", console=Console(stderr=True), transient=True)
            self.frames.append(np.stack([load_picture(picture, side) for picture in shown]))
            self.told.append([_indices(picture.told, known) for picture in pictures])
            self.seen.append(self._ask(teacher, self.frames[-1]) if teacher and name in PHOTOGRAPHS else None)

    def batch(self, seed: int, step: int, size: int) -> Batch:
        """The batch of a step."""
        dice = np.random.default_rng([seed, step])
        sets = dice.choice(len(self.frames), size, p=self.shares)
        pixels, scores_BV = [], torch.zeros(size, self.num_words)
        for row, number in enumerate(sets):
            index = int(dice.integers(len(self.frames[number])))
            frame_HWC = self.frames[number][index]
            flipped = dice.random() < 0.5 and self.flips[number]
            pixels.append(frame_HWC[:, ::-1] if flipped else frame_HWC)
            seen_NV = self.seen[number]
            if seen_NV is not None:
                scores_BV[row] = seen_NV[index].float()
            scores_BV[row, list(self.told[number][index])] = 1.0
        return Batch(to_pixels(np.stack(pixels)), scores_BV)

    @torch.no_grad()
    def _ask(self, teacher: Teacher, frames_NHWC: np.ndarray) -> Tensor:
        parts = [teacher(to_pixels(frames_NHWC[at : at + 16])) for at in range(0, len(frames_NHWC), 16)]
        scores_NV = torch.cat(parts)
        return (SEEN * scores_NV / scores_NV.amax(dim=1, keepdim=True).clamp(min=1e-9)).half()


def _indices(told: Sequence[str], known: Mapping[str, int]) -> tuple[int, ...]:
    """Places in the codebook of the words that it has, or that stand in for those it lacks."""
    found = []
    for word in told:
        forms = (word, word.lower(), STAND_INS.get(word, word))
        found += [known[form] for form in forms if form in known][:1]
    return tuple(found)


def to_pixels(frames_NHWC: np.ndarray) -> Tensor:
    """Float in [-1, 1], B C T H W with T = 1."""
    pixels_BCHW = torch.from_numpy(np.ascontiguousarray(frames_NHWC)).permute(0, 3, 1, 2)
    return (pixels_BCHW.float() / 127.5 - 1.0).unsqueeze(2).contiguous(memory_format=torch.channels_last_3d)

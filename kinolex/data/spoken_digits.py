"""Spoken digits: a handwritten digit moves over the picture, is heard once, and its caption is its name.

    digits/*.npz --a digit, enlarged, coloured, moving--> frames   fsdd/*.zip --the same digit, at a drawn time--> sound
                                   seed --> SpokenDigit(clip with sound, caption, digit)

What belongs together can be told apart by hearing alone and by seeing alone, which worlds cannot offer. Pictures and
recordings of the two splits have nothing in common.
"""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from kinolex.data.sounds import scan_sounds
from kinolex.data.worlds.labels import WORDS
from kinolex.data.worlds.scene import COLOURS
from kinolex.errors import ConfigError, DataError, MissingFile
from kinolex.media import read_sound
from kinolex.media.resample import resample_sound
from kinolex.types import Clip, Sound

COLLECTIONS = ("digits", "fsdd")
"""Folders below the data folder: pictures and recordings."""
DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
POET_WORDS = (*WORDS, *(word for word in DIGIT_WORDS if word not in WORDS))
"""What captions of worlds and of spoken digits are made of."""
Split = Literal["train", "test"]

RATE_HZ = 16_000
HEIGHT = (0.52, 0.66)
"""Of the digit, in heights of the picture."""
EDGE_PX = 1.0
"""The digit keeps so far from the edges."""
INK = 0.5
"""Of a picture's brightest: brighter is ink. Enlarged digits are as sharp as the picture allows."""
AUDIBLE = 0.04
"""Of a recording's peak: quieter is not yet, or no longer, the word."""
FADE_S = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class DigitConfig:
    frames: int = 17
    side: int = 64
    fps: Fraction = Fraction(12)

    def __post_init__(self) -> None:
        if self.side < 32 or self.duration_s < 0.5:
            raise ConfigError(f"a spoken digit needs a side of at least 32 and half a second, got {self}")

    @property
    def duration_s(self) -> float:
        return float(self.frames / self.fps)


@dataclass(frozen=True, slots=True, eq=False)
class SpokenDigit:
    clip: Clip
    """With sound."""
    caption: str
    digit: int
    heard_s: float
    """When its word begins."""


class DigitCollection:
    """Pictures and recordings of one split, read once.

    Raises:
        MissingFile: a collection is not below the folder.
        DataError: a damaged file, or a digit without picture or recording.
    """

    def __init__(self, data: str | Path, split: Split) -> None:
        if split not in get_args(Split):
            raise DataError(f"spoken digits are split into train and test, not {split!r}")
        self.images_NHW, labels_N = digit_pictures(data, split)
        recordings = digit_recordings(data, split)
        self._pictures = [np.flatnonzero(labels_N == digit) for digit in range(10)]
        self._recordings = [[one for one in recordings if one.digit == digit] for digit in range(10)]
        for digit in range(10):
            if not len(self._pictures[digit]) or not self._recordings[digit]:
                raise DataError(f"{data} has no picture or no recording of {digit} in its {split} part")

    def draw(self, seed: int, config: DigitConfig | None = None) -> SpokenDigit:
        """The spoken digit behind a seed; the same seed, config and files give the same one."""
        config = config or DigitConfig()
        dice = np.random.default_rng([seed, 10_101])
        digit = int(dice.integers(10))
        image_HW = self.images_NHW[int(dice.choice(self._pictures[digit]))]
        frames_TCHW = _moving(image_HW, config, dice)
        samples_S, heard_s = _spoken(self._recordings[digit], config, dice)
        caption = DIGIT_WORDS[digit] if dice.random() < 0.5 else _with_article(DIGIT_WORDS[digit])
        clip = Clip(frames_TCHW, config.fps, Sound(samples_S[None], RATE_HZ))
        return SpokenDigit(clip, caption, digit, heard_s)


@lru_cache(maxsize=4)
def collection(data: Path, split: Split) -> DigitCollection:
    """DigitCollection, read once per process."""
    return DigitCollection(data, split)


def fingerprint(data: str | Path) -> str:
    """Of the files behind all spoken digits. Raises MissingFile as DigitCollection."""
    digest = hashlib.sha256()
    for name in COLLECTIONS:
        for path in sorted(_folder(data, name).glob("*.*")):
            if path.suffix in (".npz", ".zip"):
                digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def digit_pictures(data: str | Path, split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Handwritten digits: images_NHW, ink bright on black, and labels. Errors as DigitCollection."""
    images, labels = [], []
    paths = [path for path in sorted(_folder(data, "digits").glob("*.npz")) if split in path.stem]
    for path in paths:
        try:
            with np.load(path) as arrays:
                images.append(arrays["images"].astype(np.uint8))
                labels.append(arrays["labels"].astype(np.int64))
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} holds no images and labels ({error}); fetch it again") from error
    if not paths:
        raise MissingFile(f"no *{split}*.npz in {Path(data) / 'digits'}; docs/data.md says where it comes from")
    return np.concatenate(images), np.concatenate(labels)


@dataclass(frozen=True, slots=True)
class Recording:
    name: str
    digit: int
    speaker: str
    content: bytes
    """Of its file."""

    def word(self) -> Tensor:
        """Samples_S of the word alone, 16 kHz, with a peak of 1, faded at its ends. Raises DataError for silence."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"spoken{Path(self.name).suffix}"
            file.write_bytes(self.content)
            sound = read_sound(file)
        mono = Sound(sound.samples_CS.mean(dim=0, keepdim=True), sound.rate_hz)
        samples_S = resample_sound(mono, RATE_HZ).samples_CS[0]
        if not samples_S.any():
            raise DataError(f"{self.name} is silent; fetch it again")
        return only_word(samples_S)


def only_word(samples_S: Tensor) -> Tensor:
    """What is loud of a sound of RATE_HZ that is not silent, from its first moment to its last.

    The peak becomes 1, and both ends are faded.
    """
    peak = float(samples_S.abs().max())
    loud_M = (samples_S.abs() > AUDIBLE * peak).nonzero()[:, 0]
    fade = int(FADE_S * RATE_HZ)
    word_S = samples_S[max(0, int(loud_M[0]) - fade) : int(loud_M[-1]) + fade] / peak
    ramp_F = torch.linspace(0, 1, min(fade, len(word_S) // 2))
    word_S[: len(ramp_F)] *= ramp_F
    word_S[len(word_S) - len(ramp_F) :] *= ramp_F.flip(0)
    return word_S


def digit_recordings(data: str | Path, split: Split) -> list[Recording]:
    """Recordings of digits, by name. Errors as DigitCollection."""
    found, archives = [], dict[Path, zipfile.ZipFile]()
    try:
        for entry in scan_sounds(_folder(data, "fsdd"), split=split):
            name = Path(entry.member or entry.name).name
            digit, _, rest = name.partition("_")
            speaker, _, take = rest.partition("_")
            if digit not in map(str, range(10)) or not speaker or not take:
                raise DataError(f"{entry.name} does not name its digit and speaker, as 7_george_3.flac does")
            if entry.member is None:
                content = entry.path.read_bytes()
            else:
                # Opening an archive takes longer than reading a recording.
                if entry.path not in archives:
                    archives[entry.path] = zipfile.ZipFile(entry.path)
                content = archives[entry.path].read(entry.member)
            found.append(Recording(name, int(digit), speaker, content))
    except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"a recording in {Path(data) / 'fsdd'} cannot be unpacked ({error}); fetch it again") from error
    finally:
        for archive in archives.values():
            archive.close()
    return found


def _folder(data: str | Path, name: str) -> Path:
    folder = Path(data) / name
    if not folder.is_dir():
        raise MissingFile(f"spoken digits need {folder}; docs/data.md says where it comes from")
    return folder


def _with_article(word: str) -> str:
    return f"an {word}" if word == "eight" else f"a {word}"


def _moving(image_HW: NDArray[np.uint8], config: DigitConfig, dice: np.random.Generator) -> Tensor:
    """Frames: the digit in one colour on one dark tone, to and fro between the edges."""
    side, heights = config.side, dice.uniform(*HEIGHT)
    rows, columns = np.flatnonzero(image_HW.max(axis=1)), np.flatnonzero(image_HW.max(axis=0))
    ink_HW = torch.from_numpy(image_HW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] / 255.0).float()
    scale = heights * side / max(ink_HW.shape)
    tall, wide = (max(1.0, length * scale) for length in ink_HW.shape)
    start, speed = dice.uniform(size=2), dice.uniform(0.15, 0.5, size=2) * dice.choice([-1, 1], size=2)
    times_T = np.arange(config.frames) / float(config.fps)
    room = np.maximum(side - 2 * EDGE_PX - np.array([tall, wide]), 0.0)
    along_T2 = (start * room + speed * side * times_T[:, None]) % np.maximum(2 * room, 1e-6)
    corner_T2 = EDGE_PX + np.minimum(along_T2, 2 * room - along_T2)
    colour = torch.tensor(list(COLOURS.values())[int(dice.integers(len(COLOURS)))]) / 255.0
    backdrop = float(dice.uniform(0.05, 0.25)) * torch.tensor([1.0, 1.0, 1.0])
    frames = []
    for top, left in corner_T2:
        # Of each pixel its place in the ink, in -1 ... 1.
        y_H = (torch.arange(side) + 0.5 - float(top)) / tall * 2 - 1
        x_W = (torch.arange(side) + 0.5 - float(left)) / wide * 2 - 1
        grid_HW2 = torch.stack(torch.meshgrid(y_H, x_W, indexing="ij")[::-1], dim=-1)
        soft_HW = F.grid_sample(ink_HW[None, None], grid_HW2[None], mode="bilinear", align_corners=False)[0, 0]
        cover_HW = ((soft_HW - INK) * scale * 0.7 + 0.5).clamp(0, 1)
        frames.append(backdrop[:, None, None] + cover_HW * (colour - backdrop)[:, None, None])
    return (torch.stack(frames) * 255 + 0.5).clamp(0, 255).to(torch.uint8)


def _spoken(recordings: list[Recording], config: DigitConfig, dice: np.random.Generator) -> tuple[Tensor, float]:
    """Samples of the whole clip and when the word begins; a recording is drawn among those that fit."""
    total = round(config.duration_s * RATE_HZ)
    for number in dice.permutation(len(recordings)):
        word_S = recordings[int(number)].word()
        if len(word_S) <= total:
            break
    else:
        raise DataError(f"no recording of a digit is shorter than {config.duration_s:.2f} s")
    first = int(dice.integers(0, total - len(word_S) + 1))
    samples_S = torch.zeros(total)
    samples_S[first : first + len(word_S)] = word_S * float(dice.uniform(0.35, 0.9))
    return samples_S, first / RATE_HZ

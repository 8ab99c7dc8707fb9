"""Which digit is seen and which is heard, by small classifiers trained here on real digits.

    clip --ink by contrast, cropped and centred as handwriting is--> 28 x 28 --PictureJudge--> digit
    sound --the loudest word, log mel--> bands x frames --SoundJudge--> digit

python -m kinolex.evaluation.digits DATA > results/digits_ceiling.json

says how often spoken digits of the test part are judged right: as composed, and through the tokenizers. A generator
of their tokens cannot be expected to score higher. Nothing is downloaded and no judge is stored: training takes less
than a minute, on the train part, with one seed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinolex import hub
from kinolex.data.spoken_digits import RATE_HZ, DigitCollection, digit_pictures, digit_recordings
from kinolex.errors import UsageError
from kinolex.media.resample import resample_sound
from kinolex.metrics.sound import log_mel
from kinolex.types import Clip, Sound

INK_PX, BOX_PX = 20, 28
"""Handwritten digits are scaled to 20 pixels and centred by their mass in 28."""
RECORDINGS = 1260
"""About so many teach: half of them, since decoding takes as long as learning."""
COUNT = 200
"""Spoken digits of the test part that the ceiling is measured on."""
WINDOW, BANDS = 512, 40
WORD_S = 0.8
"""Of a word that is listened to, from where it begins; later frames are silence."""
LOUD = 0.1
"""Of the loudest 8 ms: where a word begins."""


class PictureJudge(nn.Module):
    """Logits [B, 10] of pictures_B1HW, 28 x 28, ink 1 on 0."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(24, 48, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(48 * 49, 96),
            nn.ReLU(),
            nn.Linear(96, 10),
        )

    def forward(self, pictures_B1HW: Tensor) -> Tensor:
        return self.layers(pictures_B1HW)


class SoundJudge(nn.Module):
    """Logits [B, 10] of spectra, B 1 bands frames, log10 below the loudest."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 24, 3, stride=(2, 1), padding=1),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 48, 3, stride=2, padding=1),
            nn.BatchNorm2d(48),
            nn.ReLU(),
            nn.Conv2d(48, 64, 3, stride=2, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d((3, 6)),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(64 * 18, 10),
        )

    def forward(self, spectra_B1MT: Tensor) -> Tensor:
        return self.layers(spectra_B1MT)


@dataclass(frozen=True, slots=True, eq=False)
class Judges:
    """Both, trained."""

    picture: PictureJudge
    sound: SoundJudge

    @torch.inference_mode()
    def seen(self, clip: Clip) -> int:
        """The digit of a clip: what most of its frames together look like."""
        return int(self.picture(handwriting(clip)).log_softmax(dim=-1).mean(dim=0).argmax())

    @torch.inference_mode()
    def heard(self, sound: Sound) -> int:
        """The digit that is said."""
        return int(self.sound(_spectrum(_word(sound))[None, None]).argmax())


def train_judges(data: str | Path, *, seed: int = 0, picture_steps: int = 500, sound_steps: int = 500) -> Judges:
    """Small classifiers of real digits, trained on the train part of digits/ and fsdd/ below a folder.

    Raises:
        MissingFile, DataError: the collections are absent or damaged.
    """
    spoken = digit_recordings(data, "train")
    spoken = spoken[:: max(1, len(spoken) // RECORDINGS)]
    spectra_NMT = torch.stack([_spectrum(one.word()) for one in spoken])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        picture, sound = PictureJudge(), SoundJudge()
        _learn_to_see(picture, data, picture_steps, seed)
        said_N = torch.tensor([one.digit for one in spoken])
        # What dropout leaves out must not depend on the other judge.
        torch.manual_seed(seed)
        _fit(sound, spectra_NMT[:, None], said_N, sound_steps, seed, _as_said)
    return Judges(picture.eval(), sound.eval())


def train_picture_judge(data: str | Path, *, seed: int = 0, steps: int = 500) -> PictureJudge:
    """The one of train_judges that sees; needs digits/ alone. Errors as train_judges."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        judge = PictureJudge()
        _learn_to_see(judge, data, steps, seed)
    return judge.eval()


def _learn_to_see(judge: PictureJudge, data: str | Path, steps: int, seed: int) -> None:
    images_NHW, labels_N = digit_pictures(data, "train")
    pictures_N1HW = torch.from_numpy(images_NHW).float()[:, None] / 255
    _fit(judge, pictures_N1HW, torch.from_numpy(labels_N), steps, seed, _as_written)


def handwriting(clip: Clip) -> Tensor:
    """pictures_B1HW of the frames: what stands out from the backdrop, scaled and centred as handwritten digits are."""
    frames_TCHW = clip.frames_TCHW.float() / 255
    backdrop_C = frames_TCHW.permute(1, 0, 2, 3).flatten(1).median(dim=1).values
    apart_THW = (frames_TCHW - backdrop_C[:, None, None]).abs().sum(dim=1)
    full = float(apart_THW.flatten().topk(max(1, apart_THW.numel() // 50)).values.mean().clamp_min(1e-3))
    return torch.stack([_centred((apart_HW / full).clamp(0, 1)) for apart_HW in apart_THW])[:, None]


def _centred(ink_HW: Tensor) -> Tensor:
    """One picture as handwriting is stored: ink 20 pixels long, its mass in the middle of 28."""
    solid_HW = ink_HW > 0.4
    if not bool(solid_HW.any()):
        return torch.zeros(BOX_PX, BOX_PX)
    rows, columns = solid_HW.any(dim=1).nonzero()[:, 0], solid_HW.any(dim=0).nonzero()[:, 0]
    cut_HW = ink_HW[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
    scale = INK_PX / max(cut_HW.shape)
    size = [max(1, round(length * scale)) for length in cut_HW.shape]
    small_HW = F.interpolate(cut_HW[None, None], size, mode="bilinear", antialias=True)[0, 0]
    small_HW = torch.where(small_HW > 0.1, small_HW, 0.0)
    places = [torch.arange(length) + 0.5 for length in small_HW.shape]
    total = small_HW.sum().clamp_min(1e-6)
    middle = [float((small_HW.sum(dim=1 - axis) * places[axis]).sum() / total) for axis in (0, 1)]
    top, left = (
        min(max(round(BOX_PX / 2 - at), 0), BOX_PX - length) for at, length in zip(middle, small_HW.shape, strict=True)
    )
    box_HW = torch.zeros(BOX_PX, BOX_PX)
    box_HW[top : top + small_HW.shape[0], left : left + small_HW.shape[1]] = small_HW
    return box_HW


def _word(sound: Sound) -> Tensor:
    """Samples from where the word begins, mono, 16 kHz."""
    mono = Sound(sound.samples_CS.mean(dim=0, keepdim=True), sound.rate_hz)
    samples_S = resample_sound(mono, RATE_HZ).samples_CS[0]
    piece = RATE_HZ // 125
    if len(samples_S) < piece:
        raise UsageError(f"a word is longer than {sound.duration_s:.3f} s")
    loud_M = samples_S[: len(samples_S) // piece * piece].view(-1, piece).square().mean(dim=1).sqrt()
    first = int((loud_M >= LOUD * loud_M.max()).nonzero()[0]) * piece
    return samples_S[max(0, first - piece) :]


def _spectrum(word_S: Tensor) -> Tensor:
    """bands x frames of a word, in log10 under its loudest."""
    wanted = int(WORD_S * RATE_HZ)
    cut_S = F.pad(word_S[:wanted], (0, max(0, wanted - len(word_S))))
    spectrum_MT = F.avg_pool1d(log_mel(cut_S[None], WINDOW, BANDS, RATE_HZ)[0].T, 2)
    # What is 40 dB under the loudest is noise of a room or of a tokenizer, and no part of a word.
    return (spectrum_MT - spectrum_MT.max()).clamp_min(-2.0) / 2 + 1


def _as_written(pictures_B1HW: Tensor, generator: torch.Generator) -> Tensor:
    """Turned, moved, blurred and thinned a little, as moving and decoded digits are."""
    count = len(pictures_B1HW)
    turn_B, slant_B = (0.15 * torch.randn(count, generator=generator) for _ in range(2))
    scale_B = 1 + 0.1 * torch.randn(count, generator=generator)
    rows_B23 = torch.zeros(count, 2, 3)
    rows_B23[:, 0, 0], rows_B23[:, 0, 1] = scale_B, turn_B + slant_B
    rows_B23[:, 1, 0], rows_B23[:, 1, 1] = -turn_B, scale_B
    rows_B23[:, :, 2] = 0.07 * torch.randn(count, 2, generator=generator)
    grid_BHW2 = F.affine_grid(rows_B23, list(pictures_B1HW.shape), align_corners=False)
    moved_B1HW = F.grid_sample(pictures_B1HW, grid_BHW2, align_corners=False)
    soft_B1HW = F.avg_pool2d(F.pad(moved_B1HW, (1, 1, 1, 1)), 3, stride=1)
    mix_B111 = torch.rand(count, 1, 1, 1, generator=generator)
    mixed_B1HW = moved_B1HW + mix_B111 * (soft_B1HW - moved_B1HW)
    sharp_B111 = 1 + 2 * torch.rand(count, 1, 1, 1, generator=generator)
    return (mixed_B1HW * sharp_B111).clamp(0, 1)


def _as_said(spectra_B1MT: Tensor, generator: torch.Generator) -> Tensor:
    """A little earlier or later, higher or lower, with noise."""
    shift = int(torch.randint(-2, 3, (), generator=generator))
    tilt = int(torch.randint(-1, 2, (), generator=generator))
    noise = 0.05 * torch.randn(spectra_B1MT.shape, generator=generator)
    return torch.roll(spectra_B1MT, (tilt, shift), dims=(2, 3)) + noise


def _fit(
    judge: nn.Module,
    inputs_N: Tensor,
    labels_N: Tensor,
    steps: int,
    seed: int,
    vary: Callable[[Tensor, torch.Generator], Tensor],
) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=max(1, steps))
    judge.train()
    for _ in range(steps):
        chosen_B = torch.randint(len(inputs_N), (64,), generator=generator)
        loss = F.cross_entropy(judge(vary(inputs_N[chosen_B], generator)), labels_N[chosen_B])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def digit_scores(judges: Judges, clips: Sequence[Clip], digits: Sequence[int]) -> dict[str, float]:
    """Shares of clips whose digit is seen, heard, and both.

    Args:
        clips: with sound or without; silence says nothing.
        digits: that they should be.

    Returns:
        `picture`, `sound`, `both`; `agree`: picture and sound are judged to be one digit, whichever; and `count`.
    """
    seen = [judges.seen(clip) for clip in clips]
    heard = [None if clip.sound is None else judges.heard(clip.sound) for clip in clips]
    rows = list(zip(seen, heard, digits, strict=True))
    hits = {
        "picture": sum(looks == digit for looks, _, digit in rows),
        "sound": sum(says == digit for _, says, digit in rows),
        "both": sum(looks == says == digit for looks, says, digit in rows),
        "agree": sum(looks == says for looks, says, _ in rows),
    }
    return {name: round(count / len(rows), 4) for name, count in hits.items()} | {"count": len(rows)}


def ceiling(data: str | Path, video: str, sound: str, levels: int, *, count: int = COUNT) -> dict[str, Any]:
    """What digit_scores gives for spoken digits of the test part: as composed, and decoded from tokens.

    Args:
        video, sound: tokenizers, by shipped name, folder or hub repository.
        levels: of sound.
    """
    judges, digits = train_judges(data), DigitCollection(data, "test")
    video_tokenizer, sound_tokenizer = hub.load(video), hub.load_sound(sound)
    composed = [digits.draw(seed) for seed in range(count)]
    decoded = []
    for one in composed:
        assert one.clip.sound is not None
        shown = video_tokenizer.decode(video_tokenizer.encode(Clip(one.clip.frames_TCHW, one.clip.fps)))
        heard = sound_tokenizer.decode(sound_tokenizer.encode(one.clip.sound, levels))
        decoded.append(shown.with_sound(heard))
    names = [one.digit for one in composed]
    return {
        "composed": digit_scores(judges, [one.clip for one in composed], names),
        f"{video}, {sound} at {levels} levels": digit_scores(judges, decoded, names),
    }


def main() -> None:
    """python -m kinolex.evaluation.digits DATA > results/digits_ceiling.json"""
    if len(sys.argv) != 2:
        raise SystemExit("python -m kinolex.evaluation.digits DATA, where DATA holds digits/ and fsdd/")
    print(json.dumps(ceiling(sys.argv[1], "magvit2-world-nano", "sound-nano", 4), indent=1))


if __name__ == "__main__":
    main()

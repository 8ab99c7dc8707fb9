"""A sound tokenizer with random weights, 8 kHz and 50 latent frames a second, and collections of sounds of tones."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch

from kinolex.media import write_sound
from kinolex.tokenizers.quantizers import ResidualConfig, VQConfig
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.tokenizers.soundstream import SoundStream, SoundStreamConfig
from kinolex.types import Sound


def tiny_sound_tokenizer(fingerprint: str = "5" * 64, *, codes: int = 16, levels: int = 3) -> SoundTokenizer:
    """Weights are drawn from torch's own generator: seed it first."""
    config = SoundStreamConfig(
        rate_hz=8000,
        strides=(4, 5, 8),
        widths=(4, 4, 8, 8),
        encoder_units=(0, 0, 1, 1),
        decoder_units=(0, 0, 1, 1),
        quantizer=ResidualConfig(level=VQConfig(codebook_size=codes, dim=4, ema_decay=0.99), num_levels=levels),
    )
    return SoundTokenizer(SoundStream(config), fingerprint)


def write_tone(
    path: Path, pitch_hz: float, *, hoarse: bool = False, seconds: float = 0.25, rate_hz: int = 8000
) -> Path:
    """A tone, with its third harmonic if it is hoarse."""
    times_S = 2 * torch.pi * pitch_hz * torch.arange(int(seconds * rate_hz)) / rate_hz
    samples_S = 0.4 * torch.sin(times_S) + (0.3 * torch.sin(3 * times_S) if hoarse else 0.0)
    write_sound(Sound(samples_S[None], rate_hz), path)
    return path


def spoken_tones(root: Path, *, digits: int = 3, train: int = 2, test: int = 1) -> Path:
    """fsdd/ below root: a digit is a pitch, bob is hoarse and ann is not, and takes differ a little in pitch."""
    (root / "fsdd").mkdir()
    for split, first, takes in (("test", 5, test), ("train", 8, train)):
        with zipfile.ZipFile(root / "fsdd" / f"fsdd_{split}.zip", "w") as archive:
            for name in (
                f"{d}_{who}_{first + take}" for d in range(digits) for who in ("ann", "bob") for take in range(takes)
            ):
                digit, who, take = name.split("_")
                pitch_hz = 200.0 * 2 ** int(digit) + int(take)
                archive.write(write_tone(root / "one.flac", pitch_hz, hoarse=who == "bob"), f"{name}.flac")
    return root


def surroundings(root: Path) -> Path:
    """esc10/ below root: three low and three high tones of the training split, one of each of the test split."""
    (root / "esc10").mkdir()
    rows = ["file,label,split"]
    for label, pitch_hz in (("rumble", 100.0), ("whistle", 2000.0)):
        for number, split in enumerate(("train", "train", "train", "test")):
            file = write_tone(root / "esc10" / f"{label}{number}.wav", pitch_hz + number, seconds=0.5)
            rows.append(f"{file.name},{label},{split}")
    (root / "esc10" / "index.csv").write_text("\n".join(rows), encoding="utf-8")
    return root

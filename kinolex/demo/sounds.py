"""The sound of the clip through sound tokens: seen, heard and measured at two rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kinolex.evaluation.page import figure, file_data_uri, image_data_uri, note, table
from kinolex.media import write_sound
from kinolex.metrics.sound import log_mel, multi_scale_mel_distance, si_sdr_db
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.types import Sound

RATES_KBPS = (6.0, 2.0)
"""Of one channel: all that sound-nano has, and what multimodal sequences hold."""
COLUMNS, BANDS, WAVE_ROWS = 480, 80, 64
DECADES = 4.0
"""Below the loudest band of the original: what a picture of sound shows."""
COLOURS = ((13, 8, 35), (86, 15, 110), (187, 55, 84), (249, 142, 9), (252, 255, 164))
"""From silent to loud."""


def sound_parts(
    sound: Sound, tokenizer: SoundTokenizer, folder: Path, on_sounds: Callable[[int, int | None], None]
) -> Sequence[str]:
    """The sound, and what comes back of it: files in `folder`, pictures with players, and a table."""
    folder.mkdir(exist_ok=True)
    write_sound(sound, folder / "original.wav")
    raw_bits, channels = 16 * sound.samples_CS.numel(), len(sound.samples_CS)
    cells = [("original", image_data_uri(picture_of(sound, sound)), file_data_uri(folder / "original.wav"))]
    rows: list[list[object]] = []
    for number, kbps in enumerate(RATES_KBPS):
        levels = tokenizer.levels_for(kbps)
        tokens = tokenizer.encode(sound, levels)
        made = tokenizer.decode(tokens)
        spent_kbps = levels * tokenizer.config.kbps_per_level
        write_sound(made, path := folder / f"{spent_kbps:g}kbps.wav")
        bits = tokens.num_tokens * math.log2(tokenizer.vocab_size)
        name = f"{spent_kbps:g} kbit/s{' a channel' if channels > 1 else ''}, {levels} levels"
        cells.append((name, image_data_uri(picture_of(made, sound)), file_data_uri(path)))
        pair = made.samples_CS, sound.samples_CS
        distance, ratio_db = multi_scale_mel_distance(*pair, sound.rate_hz).mean(), si_sdr_db(*pair).mean()
        times = f"{raw_bits / bits:.0f} times"
        rows.append([name, tokens.num_tokens, times, float(distance), f"{float(ratio_db):.1f} dB"])
        on_sounds(number + 1, len(RATES_KBPS))
    return [
        figure(cells, caption="waveform above, mel spectrum below (low notes at the bottom); press play to compare"),
        table(["rate", "tokens", "smaller than 16-bit PCM by", "mel distance", "SI-SDR"], rows),
        note(
            f"{tokenizer.frames_per_s:g} times a second a frame of sound becomes one id of {tokenizer.vocab_size} a "
            "level; each level says what the ones before left open: fewer levels are fewer bits and a coarser sound. "
            "Mel distance: 0 is equal, 0.05 is one decibel."
        ),
    ]


def picture_of(sound: Sound, original: Sound) -> NDArray[np.uint8]:
    """Waveform over mel spectrum, rows columns 3; both on the scale of `original`, so that pictures can be compared."""
    wave_S, own_S = sound.samples_CS.mean(dim=0), original.samples_CS.mean(dim=0)
    window = 2 ** round(math.log2(sound.rate_hz / 16))
    top = float(log_mel(own_S[None], window, BANDS, sound.rate_hz).max())
    mel_TB = log_mel(wave_S[None], window, BANDS, sound.rate_hz)[0]
    chosen = torch.linspace(0, len(mel_TB) - 1, COLUMNS).round().long()
    loud = ((mel_TB[chosen] - top) / DECADES + 1).clamp(0, 1).T.flip(0).repeat_interleave(2, dim=0).numpy()
    places = np.linspace(0, 1, len(COLOURS))
    mel = np.stack([np.interp(loud, places, [colour[channel] for colour in COLOURS]) for channel in range(3)], axis=-1)
    wave = np.full((WAVE_ROWS, COLUMNS, 3), COLOURS[0], np.float64)
    peak = max(float(own_S.abs().max()), 1e-6)
    edges = np.linspace(0, len(wave_S), COLUMNS + 1).astype(int)
    for column in range(COLUMNS):
        piece = wave_S[edges[column] : max(edges[column] + 1, edges[column + 1])] / peak
        if not len(piece):
            continue
        high, low = (float(value.clamp(-1, 1)) for value in (piece.max(), piece.min()))
        first, last = (round((1 - value) / 2 * (WAVE_ROWS - 1)) for value in (high, low))
        wave[first : last + 1, column] = COLOURS[3]
    return np.concatenate([wave, mel]).round().astype(np.uint8)

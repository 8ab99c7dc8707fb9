"""How near a sound tokenizer comes at its rates, beside Opus: the same files, mono, compared at one rate, real bytes.

file --mono, resample--> reference --tokenizer, first levels--> sound'          measured: sound' against reference
                                   --48 kHz, libopus, 16 kHz--> sound''
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kinolex import metrics
from kinolex.data.sounds import SoundEntry, scan_sounds
from kinolex.errors import ConfigError, DataError, MediaError, UsageError
from kinolex.evaluation.protocol import Hashed, make_result, summarise, write_result
from kinolex.media.opus import decode_opus, encode_opus
from kinolex.media.resample import resample_sound
from kinolex.metrics.sound import WINDOWS_AND_BANDS, multi_scale_mel_distance, pesq_mos, si_sdr_db, stoi
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.types import Sound, SoundExtent, Tokens


def speech_judges() -> tuple[str, ...]:
    """Those of stoi and pesq_mos whose packages are installed."""
    packages = {"stoi": "pystoi", "pesq_mos": "pesq"}
    return tuple(name for name, package in packages.items() if importlib.util.find_spec(package) is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundProtocol(Hashed):
    """Which files are compared, at which rates, and with what."""

    sets: tuple[str, ...] = ("fsdd", "esc10")
    """Folders below the data folder."""
    split: str = "test"
    rate_hz: int = 16_000
    """Of the mono references that everything is compared with."""
    kbps: tuple[float, ...] = (1.0, 2.0, 4.0, 6.0)
    """Of the tokenizer: as many levels as fit."""
    opus_kbps: tuple[float, ...] = (6.0, 9.0, 12.0, 16.0, 24.0)
    speech_sets: tuple[str, ...] = ("fsdd",)
    """Where the speech judges are asked."""
    judges: tuple[str, ...] = ()
    """Of speech_judges()."""
    windows_and_bands: tuple[tuple[int, int], ...] = WINDOWS_AND_BANDS
    max_files: int | None = None
    """Of each set, spread evenly over it; None takes all."""
    seed: int = 0
    bootstrap_draws: int = 10_000
    version: int = 1
    """Raised when the meaning of a metric changes."""

    def __post_init__(self) -> None:
        if not self.sets or not self.kbps or min(*self.kbps, *self.opus_kbps, self.rate_hz, self.bootstrap_draws) <= 0:
            raise ConfigError(f"a protocol needs at least one set and positive rates, got {self}")
        if self.windows_and_bands != WINDOWS_AND_BANDS:
            raise ConfigError(f"this version measures with {WINDOWS_AND_BANDS} only, got {self.windows_and_bands}")
        if self.max_files is not None and self.max_files < 1:
            raise ConfigError(f"max_files must be at least 1, got {self.max_files}; leave it out for all")


def evaluate_sound(
    tokenizer: SoundTokenizer,
    folder: str | Path,
    protocol: SoundProtocol,
    out_dir: str | Path | None = None,
    *,
    model_name: str,
    command: str | None = None,
    on_files: Callable[[int, int | None], None] = lambda _done, _total: None,
) -> dict[str, Any]:
    """Measure a tokenizer and Opus on every file of the protocol.

    Args:
        folder: data folder that holds the protocol's sets.
        out_dir: writes sound_{model_name}.json there; None writes nothing.
        on_files: called as files are finished.

    Returns:
        The result, in the schema of kinolex.evaluation.protocol.make_result. Figures are named by system, such as
        "sound-nano 2 kbit/s mel_distance"; bytes are those of packed ids, and of Opus packets without any container;
        kbps are those bytes over the duration. `sets` holds the means of each set. "... nearer" is the share of files
        in which the tokenizer's mel distance is below that of the Opus named.

    Raises:
        DataError: nothing to measure. MissingFile: a set is not there. Reading errors as kinolex.media.read_sound.
    """
    entries = _entries(Path(folder), protocol)
    rows: list[dict[str, Any]] = []
    for index, (group, entry) in enumerate(entries):
        sound = entry.load()
        mono = Sound(sound.samples_CS.mean(dim=0, keepdim=True), sound.rate_hz)
        reference = resample_sound(mono, protocol.rate_hz)
        row: dict[str, Any] = {"name": f"{group}/{entry.name}", "seconds": reference.duration_s}
        for name, num_bytes, made in _systems(reference, tokenizer, protocol, model_name):
            row[f"{name} bytes"] = float(num_bytes)
            row[f"{name} kbps"] = 8 * num_bytes / reference.duration_s / 1000
            figures = _compare(made, reference, protocol.judges if group in protocol.speech_sets else ())
            row |= {f"{name} {key}": value for key, value in figures.items()}
        for kbps in protocol.kbps:
            for opus_kbps in protocol.opus_kbps:
                ours, theirs = _name(model_name, kbps), _name("opus", opus_kbps)
                row[f"{ours} than {theirs} nearer"] = float(row[f"{ours} mel_distance"] < row[f"{theirs} mel_distance"])
        rows.append(row)
        on_files(index + 1, len(entries))
    result = make_result(f"sound_{model_name}", rows, protocol, command=command)
    result["tokenizer"] = {
        "fingerprint": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "frames_per_s": tokenizer.frames_per_s,
    }
    result["sets"] = {
        group: summarise([row for row in rows if row["name"].startswith(f"{group}/")], protocol)
        for group in protocol.sets
    }
    if out_dir is not None:
        write_result(Path(out_dir) / f"sound_{model_name}.json", result)
    return result


def _entries(folder: Path, protocol: SoundProtocol) -> list[tuple[str, SoundEntry]]:
    found = []
    for group in protocol.sets:
        entries = scan_sounds(folder / group, split=protocol.split)
        if not entries:
            raise DataError(f"{folder / group} has no sounds of split {protocol.split!r}; choose other sets")
        take = min(len(entries), protocol.max_files or len(entries))
        found += [(group, entries[index * len(entries) // take]) for index in range(take)]
    return found


def _systems(
    reference: Sound, tokenizer: SoundTokenizer, protocol: SoundProtocol, model_name: str
) -> list[tuple[str, int, Sound]]:
    """Name, bytes and sound of every system at every rate."""
    made = []
    levels = [tokenizer.levels_for(kbps) for kbps in protocol.kbps]
    tokens = tokenizer.encode(reference, max(levels))
    extent = SoundExtent(samples=reference.num_samples, rate_hz=reference.rate_hz)
    for kbps, kept in zip(protocol.kbps, levels, strict=True):
        fewer = Tokens(tokens.ids_Qthw[:kept], "sound", tokenizer.fingerprint, extent)
        num_bytes = metrics.raw_token_bytes(fewer.num_tokens, tokenizer.vocab_size)
        made.append((_name(model_name, kbps), num_bytes, tokenizer.decode(fewer)))
    for kbps in protocol.opus_kbps:
        opus = encode_opus(reference, kbps=kbps)
        decoded = resample_sound(decode_opus(opus.head, opus.packets, opus.num_samples), protocol.rate_hz)
        made.append((_name("opus", kbps), sum(map(len, opus.packets)), decoded))
    return made


def _name(system: str, kbps: float) -> str:
    return f"{system} {kbps:g} kbit/s"


def _compare(made: Sound, reference: Sound, judges: tuple[str, ...]) -> dict[str, float]:
    made_1S, reference_1S = _as_long(made.samples_CS, reference.num_samples), reference.samples_CS
    figures = {
        "mel_distance": float(multi_scale_mel_distance(made_1S, reference_1S, reference.rate_hz)),
        "si_sdr_db": float(si_sdr_db(made_1S, reference_1S)),
    }
    for name, judge in (("stoi", stoi), ("pesq_mos", pesq_mos)):
        if name in judges:
            try:
                figures[name] = judge(made_1S[0], reference_1S[0], reference.rate_hz)
            except UsageError:  # nothing that sounds like speech in it
                continue
    return figures


def _as_long(samples_CS: Tensor, num_samples: int) -> Tensor:
    """Resampling twice may end a sample early or late."""
    if abs(samples_CS.shape[1] - num_samples) > 2:
        raise MediaError(f"a decoder gave {samples_CS.shape[1]} samples for {num_samples}")
    samples_CS = samples_CS[:, :num_samples]
    return torch.nn.functional.pad(samples_CS, (0, num_samples - samples_CS.shape[1]))

"""The verbs on sound alone, composed of the rooms below.

roundtrip_sound   file -> tokens -> .wav or .flac      encode_sound   file -> token file
decode_sound      token file -> .wav or .flac
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kinolex.api import check_token_target, refuse_same
from kinolex.data.token_store import load_tokens, save_tokens
from kinolex.errors import TokenError
from kinolex.media.sound import read_sound, write_sound
from kinolex.metrics.sound import SI_SDR_CAP_DB, multi_scale_mel_distance, si_sdr_db
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.types import Extent, Sound, SoundExtent, Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundReport:
    """What a round trip of sound did; all figures are of this run."""

    source: str
    target: str
    model: str
    seconds_of_sound: float
    rate_hz: int
    channels: int
    levels: int
    tokens: int
    kbps: float
    """Raw: log2 of the vocabulary times the tokens of all channels, over the duration; no entropy coding."""
    mel_distance: float
    """Multi-scale, at the file's rate, mean over channels, see kinolex.metrics.sound.multi_scale_mel_distance."""
    si_sdr_db: float
    """Mean over channels."""
    seconds: float
    times_real_time: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def roundtrip_sound(
    source: str | Path,
    target: str | Path,
    tokenizer: SoundTokenizer,
    *,
    model_name: str = "",
    levels: int | None = None,
) -> SoundReport:
    """A sound, or the sound of a video, through the tokenizer and back into a file.

    Args:
        source: anything that sounds and FFmpeg reads.
        target: .wav or .flac.
        levels: codebook levels to keep; None keeps all.

    Raises:
        UsageError: the target is the source, or levels that the tokenizer does not have.
        UnsupportedMedia: another target, a source without sound. KinolexError: of the media and tokenizer layers.
    """
    source, target = Path(source), Path(target)
    refuse_same(source, target)
    sound = read_sound(source)
    began = time.monotonic()
    tokens = tokenizer.encode(sound, levels)
    made = tokenizer.decode(tokens)
    seconds = time.monotonic() - began
    write_sound(made, target)
    pair = made.samples_CS, sound.samples_CS
    heard = sound.num_samples > 0
    return SoundReport(
        source=source.name,
        target=target.name,
        model=model_name or tokenizer.fingerprint[:12],
        seconds_of_sound=sound.duration_s,
        rate_hz=sound.rate_hz,
        channels=sound.samples_CS.shape[0],
        levels=tokens.ids_Qthw.shape[0],
        tokens=tokens.num_tokens,
        kbps=tokens.num_tokens * math.log2(tokenizer.vocab_size) / sound.duration_s / 1000 if heard else 0.0,
        mel_distance=float(multi_scale_mel_distance(*pair, sound.rate_hz).mean()) if heard else 0.0,
        si_sdr_db=float(si_sdr_db(*pair).mean()) if heard else -SI_SDR_CAP_DB,
        seconds=seconds,
        times_real_time=sound.duration_s / seconds,
    )


def encode_sound(
    source: str | Path, target: str | Path, tokenizer: SoundTokenizer, *, levels: int | None = None
) -> Tokens[SoundExtent]:
    """A sound, or the sound of a video, into a token file (.safetensors). Arguments and errors as of roundtrip_sound.

    Raises:
        UsageError: another suffix than .safetensors.
    """
    source, target = Path(source), Path(target)
    check_token_target(target)
    refuse_same(source, target)
    tokens = tokenizer.encode(read_sound(source), levels)
    save_tokens(tokens, target)
    return tokens


def decode_sound(source: str | Path, target: str | Path, tokenizer: SoundTokenizer) -> Sound:
    """A token file into .wav or .flac; returns what was written, before it was rounded to 16 bits.

    Raises:
        UsageError: the target is the source. TokenError: tokens of pictures, of another tokenizer, or damaged.
        KinolexError: of the media layer; no partial target is left.
    """
    refuse_same(Path(source), Path(target))
    tokens = load_tokens(source)
    if isinstance(tokens.extent, Extent):
        raise TokenError(f"{source} holds tokens of pictures, and those of sound are needed; decode it into a video")
    sound = tokenizer.decode(tokens)  # type: ignore[arg-type]  # their extent was looked at
    write_sound(sound, target)
    return sound

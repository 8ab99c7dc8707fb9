"""How well a tokenizer gives clips back: figures per clip, their means, how the vocabulary is used, and a page.

clip --encode--> Tokens --decode--> clip'       measured: clip against clip', Tokens against the vocabulary
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kinolex import metrics
from kinolex.data.index import Entry
from kinolex.errors import DataError
from kinolex.evaluation.measure import measure_pair
from kinolex.evaluation.page import write_text
from kinolex.evaluation.protocol import ReconstructionProtocol, make_result, read_entry, select_entries, write_result
from kinolex.evaluation.reconstruction_page import Sample, reconstruction_page
from kinolex.tokenizers.base import Tokenizer
from kinolex.tokenizers.video import WINDOW_FRAMES

MAX_SAMPLES = 24
"""Clips whose middle frame is shown on the page."""


def evaluate_reconstruction(
    tokenizer: Tokenizer,
    folder_or_entries: str | Path | Sequence[Entry],
    protocol: ReconstructionProtocol,
    features_path: str | Path | None = None,
    out_dir: str | Path | None = None,
    *,
    name: str = "reconstruction",
    compare: Sequence[dict[str, Any]] = (),
    command: str | None = None,
    progress: Callable[[str], None] = lambda _line: None,
) -> dict[str, Any]:
    """Encode and decode every clip of the protocol and measure what came back.

    Args:
        tokenizer: any; its bytes are counted plainly, log2(vocab_size) bits per token.
        folder_or_entries: data folder that holds the protocol's sets, or entries already chosen.
        features_path: weights of the perceptual backbone; without, squeezenet_distance is not measured.
        out_dir: writes {name}.json and {name}.html there; None writes nothing.
        name: of the result and its files.
        compare: results of the same protocol (kinolex.evaluation.read_result), e.g. codecs at the same bytes.
        progress: called with one line per clip.

    Returns:
        The result, in the schema of kinolex.evaluation.protocol.make_result, with `tokenizer` and `codebook` added.

    Raises:
        DataError: nothing to measure, or a result to compare with was made under another protocol.
        CheckpointError: features_path. Reading errors as kinolex.media.read.
    """
    protocol, features_net = protocol.with_features(features_path)
    for other in compare:
        if other["protocol_hash"] != protocol.hash:
            raise DataError(
                f"{other['name']!r} was measured under protocol {other['protocol_hash']}, this one is {protocol.hash}; "
                "figures of different protocols do not compare: measure it again under this one"
            )
    entries = (
        select_entries(folder_or_entries, protocol) if isinstance(folder_or_entries, str | Path) else folder_or_entries
    )
    if not entries:
        raise DataError("no clips were given to measure; pass a folder or at least one entry")
    rows, ids, samples = [], [], []
    for entry in entries:
        clip = read_entry(entry, protocol)
        started = time.perf_counter()
        tokens = tokenizer.encode(clip)
        encoded = time.perf_counter()
        rebuilt = tokenizer.decode(tokens)
        decoded = time.perf_counter()
        num_bytes = metrics.raw_token_bytes(tokens.num_tokens, tokenizer.vocab_size)
        row: dict[str, Any] = {
            "name": entry.name,
            "frames": clip.num_frames,
            "height": clip.height,
            "width": clip.width,
        }
        row |= {"tokens": tokens.num_tokens, "bytes": num_bytes}
        row["bits_per_pixel"] = metrics.bits_per_pixel(num_bytes, clip.extent.pixels)
        starts = chunk_starts(tokenizer, clip.num_frames)
        row |= measure_pair(clip, rebuilt, protocol, features_net, chunk_starts=starts)
        row["encode_frames_per_s"] = clip.num_frames / max(1e-9, encoded - started)
        row["decode_frames_per_s"] = clip.num_frames / max(1e-9, decoded - encoded)
        rows.append(row)
        ids.append(tokens.ids_Qthw.flatten(1))
        if len(samples) < MAX_SAMPLES:
            middle = clip.num_frames // 2
            samples.append(Sample(row, clip.frames_TCHW[middle], rebuilt.frames_TCHW[middle], middle))
        progress(f"{entry.name} {row['psnr_db']:.2f} dB")
    result = make_result(name, rows, protocol, command=command)
    result["tokenizer"] = {
        "fingerprint": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "pixels_per_token": list(tokenizer.pixels_per_token),
    }
    ids_QL = torch.cat(ids, dim=1)
    result["codebook"] = codebook_figures(ids_QL, tokenizer)
    if out_dir is not None:
        write_result(Path(out_dir) / f"{name}.json", result)
        write_text(Path(out_dir) / f"{name}.html", reconstruction_page(result, samples, compare))
    return result


def codebook_figures(ids_QL: Tensor, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Use of the vocabulary by these tokens, one entry per codebook level."""
    vocab_size, digits = tokenizer.vocab_size, digit_levels(tokenizer)
    figures: list[dict[str, Any]] = []
    for ids_L in ids_QL:
        figures.append(
            {
                "tokens": ids_L.numel(),
                "usage": metrics.codebook_usage(ids_L, vocab_size),
                "reach": metrics.codebook_reach(ids_L, vocab_size),
                "reach_of_uniform": metrics.codebook_reach_of_uniform(ids_L, vocab_size),
                "perplexity": metrics.codebook_perplexity(ids_L, vocab_size),
                "histogram": metrics.usage_histogram(ids_L, vocab_size),
                "digit_levels": list(digits) if digits else None,
                "digit_entropies_bits": metrics.digit_entropies_bits(ids_L, digits) if digits else None,
            }
        )
    return figures


def digit_levels(tokenizer: Tokenizer) -> tuple[int, ...] | None:
    """Digits of an id where they mean something: bits of LFQ, levels of FSQ; None for learned codes."""
    config = getattr(getattr(getattr(tokenizer, "model", None), "quantizer", None), "config", None)
    config = getattr(config, "level", config)  # of a residual quantizer
    levels = getattr(config, "levels", None)
    if isinstance(levels, tuple):
        return levels
    if num_bits := getattr(config, "num_bits", None):
        return (2,) * num_bits
    return None


def chunk_starts(tokenizer: Tokenizer, num_frames: int) -> list[int]:
    """Frames after the first that open a pass of the network: every latent frame of a causal one, else every window."""
    time_factor = tokenizer.pixels_per_token[0]
    if not getattr(getattr(tokenizer, "config", None), "causal", True):
        return list(range(WINDOW_FRAMES, num_frames, WINDOW_FRAMES))
    return list(range(1, num_frames, time_factor)) if time_factor > 1 else []

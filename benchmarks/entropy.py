"""How many bits tokens take: python -m benchmarks.entropy --data DATA

Real bytes of the tokens of every test clip, as plain rounding makes them and as `kinolex compress` chooses them, beside
ids of fixed length, zstd and xz, and adaptive coders of order 0 and 2; the adaptive coders begin anew with every clip
and, in their favour, also run over all clips in one stream. Also the estimate of the codec beside its real bytes, and
the bits of every digit. Needs `pip install zstandard` below Python 3.14. Writes benchmarks/entropy.json.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from torch import Tensor

from benchmarks._adaptive import FORGET, AdaptiveDigit, fixed_bytes, general_bytes, zstd
from benchmarks._progress import steps
from benchmarks._write_grids import digit_levels
from kinolex import hub
from kinolex.codec import stream as codec
from kinolex.codec.container import Chunk
from kinolex.codec.entropy import bits_NV
from kinolex.codec.parser import parse
from kinolex.codec.priors import History, Prior, Slices, load_prior, to_digits
from kinolex.compression import FULL_SIZE_QUALITY, compress_stream
from kinolex.errors import KinolexError
from kinolex.evaluation.protocol import (
    ReconstructionProtocol,
    bootstrap_interval,
    commit,
    hardware,
    read_entry,
    select_entries,
)
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip, Tokens

OUT = Path(__file__).with_suffix(".json")
KINDS = ("plain", "chosen")
"""Digits by rounding, and digits that weigh error and rate, at the quality that codes at full size."""
ORDERS = (0, 2)
AIMS = {"against_fixed": 0.40, "against_best_adaptive": 0.25}
"""Share of the bytes that the learned prior saves."""
LARGEST_ESTIMATE_ERROR = 0.01


@dataclass(frozen=True)
class Arguments:
    data: Path
    model: str = hub.DEFAULT
    prior: Path | None = None
    """Instead of the model's."""
    clips: int | None = None
    """Only the first ones."""
    out: Path = OUT


@dataclass(frozen=True, slots=True)
class Run:
    """Latent frames that follow one another."""

    ids: NDArray[np.int64]
    digits_thwD: NDArray[np.int64]
    """By the levels of the tokenizer's quantizer, whatever the prior's digits are."""
    coded_thwD: Tensor
    """By the levels of the prior."""

    @classmethod
    def of(cls, ids_Qthw: Tensor, levels: Sequence[int], coded_levels: Sequence[int]) -> Run:
        digits_thwD = to_digits(ids_Qthw, levels).numpy()
        return cls(ids_Qthw.numpy(), digits_thwD, to_digits(ids_Qthw, coded_levels))


class AdaptiveCoder:
    """An adaptive model for every digit of the ids; keeps what it learned from run to run."""

    def __init__(self, levels: Sequence[int], order: int) -> None:
        self._models = [AdaptiveDigit(size, order=order, forget=FORGET) for size in levels]

    def bits_D(self, run: Run) -> NDArray[np.float64]:
        digits_thwD = run.digits_thwD
        return np.array([model.bits(digits_thwD[..., digit]) for digit, model in enumerate(self._models)])


@dataclass
class Streams:
    """What goes on over all clips of one kind."""

    coders: dict[int, AdaptiveCoder]
    bits_D: dict[int, NDArray[np.float64]]
    """Of the coders that never begin anew."""
    fresh_D: dict[int, NDArray[np.float64]]
    """Of those that begin anew with every clip, summed."""
    learned_D: NDArray[np.float64]
    runs: list[Run] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def empty(cls, levels: Sequence[int], prior: Prior) -> Streams:
        return cls(
            coders={order: AdaptiveCoder(levels, order) for order in ORDERS},
            bits_D={order: np.zeros(len(levels)) for order in ORDERS},
            fresh_D={order: np.zeros(len(levels)) for order in ORDERS},
            learned_D=np.zeros(len(prior.levels)),
        )


def compressed(kind: str, clip: Clip, tokenizer: VideoTokenizer, prior: Prior) -> bytes:
    """The .klx file whose tokens are measured."""
    if kind == "chosen":
        return b"".join(compress_stream([clip], tokenizer, prior))
    return codec.compress(tokenizer.encode(clip), prior, frames_per_latent=tokenizer.pixels_per_token[0])


def tokens_in(data: bytes, prior: Prior) -> Iterator[Tokens]:
    """One for each independent run, as compression.decompress_tokens gives them."""
    runs: list[list[codec.Piece]] = []
    for piece in codec.read_pieces(data, lambda header: prior):
        if not piece.continued:
            runs.append([])
        runs[-1].append(piece)
    return map(codec.joined, runs)


def digit_bits_D(coded_thwD: Tensor, prior: Prior) -> NDArray[np.float64]:
    """What codec.stream.estimate_bits sums up, digit by digit."""
    bits_D, history = np.zeros(len(prior.levels)), History()
    for digits_hwD in coded_thwD:

        def known(digit: int, where: Slices, frequencies: Tensor, frame: Tensor = digits_hwD) -> Tensor:
            values_N = frame[where][:, :, digit].reshape(-1)
            bits_D[digit] += float(bits_NV(frequencies).gather(1, values_N.unsqueeze(1)).sum())
            return values_N

        prior.walk(history, (digits_hwD.shape[0], digits_hwD.shape[1]), known)
        history.append(digits_hwD)
    return bits_D


def measure(data: bytes, tokenizer: VideoTokenizer, prior: Prior, streams: Streams) -> dict[str, Any]:
    """Bytes of one file's tokens in every way; adds to the streams."""
    levels, vocab_size = digit_levels(tokenizer), tokenizer.vocab_size
    runs = [Run.of(tokens.ids_Qthw, levels, prior.levels) for tokens in tokens_in(data, prior)]
    payload = sum(len(item.tokens) for item in parse(data) if isinstance(item, Chunk))
    count = sum(run.ids.size for run in runs)
    sizes = {"fixed": fixed_bytes(count, vocab_size), "klx_payload": payload, "klx_file": len(data)}
    sizes |= general_bytes([(run.ids, run.digits_thwD) for run in runs], vocab_size)
    for order in ORDERS:
        fresh = AdaptiveCoder(levels, order)
        fresh_D = np.sum([fresh.bits_D(run) for run in runs], axis=0)
        streams.fresh_D[order] += fresh_D
        streams.bits_D[order] += np.sum([streams.coders[order].bits_D(run) for run in runs], axis=0)
        sizes[f"order_{order}"] = math.ceil(fresh_D.sum() / 8)
    streams.learned_D += np.sum([digit_bits_D(run.coded_thwD, prior) for run in runs], axis=0)
    streams.runs += runs
    estimated = sum(codec.estimate_bits(run.coded_thwD, prior) for run in runs) / 8
    error = abs(estimated - payload) / max(payload, 1)
    facts = {"ids": count, "runs": len(runs), "estimated": round(estimated, 1), "estimate_error": round(error, 6)}
    return facts | {"bytes": sizes}


def summary(streams: Streams, tokenizer: VideoTokenizer, prior: Prior) -> dict[str, Any]:
    """Sums over clips, and what the learned prior saves against each other way."""
    rows, levels = streams.rows, digit_levels(tokenizer)
    ids = sum(row["ids"] for row in rows)
    by_clip = {name: sum(row["bytes"][name] for row in rows) for name in rows[0]["bytes"]}
    one_stream = general_bytes([(run.ids, run.digits_thwD) for run in streams.runs], tokenizer.vocab_size)
    one_stream |= {f"order_{order}": math.ceil(streams.bits_D[order].sum() / 8) for order in ORDERS}
    sizes = by_clip | {f"{name}, one stream": size for name, size in one_stream.items()}
    best = min((name for name in sizes if name.startswith("order")), key=sizes.__getitem__)
    best_general = min((name for name in sizes if name.startswith(("zstd", "xz"))), key=sizes.__getitem__)
    worst = max(rows, key=lambda row: row["estimate_error"])
    payload = sizes["klx_payload"]
    return {
        "clips": len(rows),
        "ids": ids,
        "bytes": sizes,
        "bits_per_id": {name: round(8 * size / ids, 3) for name, size in sizes.items()},
        "best_adaptive": best,
        "best_general": best_general,
        "saved": {
            "against_fixed": saving(payload, sizes["fixed"]),
            "against_best_adaptive": saving(payload, sizes[best]),
            "against_best_general": saving(payload, sizes[best_general]),
            "whole_file_against_fixed": saving(sizes["klx_file"], sizes["fixed"]),
        },
        "saved_by_clip": {f"against_{name}": spread(rows, name) for name in ("fixed", "order_0", "order_2")},
        "worst_estimate": {"name": worst["name"], "error": worst["estimate_error"]},
        "bits_by_digit": {
            "levels": levels,
            "fixed": [round(math.log2(size), 3) for size in levels],
            "learned_levels": prior.levels,
            "learned": by_position(streams.learned_D, ids, tokenizer),
            **{f"order_{order}": by_position(streams.fresh_D[order], ids, tokenizer) for order in ORDERS},
            **{f"order_{order}, one stream": by_position(streams.bits_D[order], ids, tokenizer) for order in ORDERS},
        },
    }


def saving(ours: float, theirs: float) -> float:
    return round(1.0 - ours / theirs, 4)


def spread(rows: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """Mean saving over clips with its 95 % interval, and the clip that saves least."""
    savings = {row["name"]: saving(row["bytes"]["klx_payload"], row["bytes"][name]) for row in rows}
    protocol = ReconstructionProtocol()
    low, high = bootstrap_interval([*savings.values()], seed=protocol.seed, draws=protocol.bootstrap_draws)
    least = min(savings, key=savings.__getitem__)
    mean = float(np.mean([*savings.values()]))
    return {"mean": round(mean, 4), "low": round(low, 4), "high": round(high, 4), "least": {least: savings[least]}}


def by_position(bits_D: NDArray[np.float64], ids: int, tokenizer: VideoTokenizer) -> list[float]:
    """Mean bits of every digit of a position."""
    return [round(float(bits), 3) for bits in bits_D * tokenizer.num_levels / ids]


def write_record(
    arguments: Arguments, streams: dict[str, Streams], tokenizer: VideoTokenizer, prior: Prior
) -> dict[str, Any]:
    protocol = ReconstructionProtocol()
    values = {kind: summary(streams[kind], tokenizer, prior) for kind in KINDS}
    record = {
        "name": "bits of tokens",
        "command": "python -m benchmarks.entropy --data DATA",
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "model": arguments.model,
        "fingerprint": tokenizer.fingerprint,
        "prior": prior.fingerprint.hex(),
        "hardware": hardware(),
        "protocol": {
            "clips": asdict(protocol),
            "plain": "tokenizer.encode, one run",
            "chosen": f"compress_stream at quality {FULL_SIZE_QUALITY}, independent chunks",
            "fixed": "ids x log2(vocabulary), rounded up to bytes by clip",
            "klx_payload": "coded tokens; klx_file: with header, checksums and index",
            "zstd": "level 19; xz: preset 9e without its container; packed: whole bits; planes: a byte per digit",
            "order_0 and order_2": "exact code lengths of an ideal arithmetic coder, no bytes for a container",
            "saved": "1 - klx_payload / other, of sums over clips",
        },
        "aims": AIMS | {"estimate_error_at_most": LARGEST_ESTIMATE_ERROR},
        "values": values,
        "files": {kind: streams[kind].rows for kind in KINDS},
    }
    temporary = arguments.out.with_suffix(".part")
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    temporary.replace(arguments.out)
    return values


def show(kind: str, values: dict[str, Any]) -> bool:
    """Prints the table of one kind; true if it reaches the aims."""
    print(f"--- {kind}: {values['ids']} ids of {values['clips']} clips, bits per id")
    for name, bits in values["bits_per_id"].items():
        print(f"{name:28} {bits:8.3f}")
    reached = True
    for name, aim in AIMS.items():
        share = values["saved"][name]
        reached &= share >= aim
        print(f"{name}: {share:.1%} saved, the aim is {aim:.0%}")
    print(f"best adaptive coder: {values['best_adaptive']}; best general one: {values['best_general']}")
    worst = values["worst_estimate"]
    print(f"estimate is off by at most {worst['error']:.3%}, on {worst['name']}")
    digits = values["bits_by_digit"]
    for name in digits:
        print(f"{name:24} {' '.join(f'{bits:6}' for bits in digits[name])}")
    return reached and worst["error"] <= LARGEST_ESTIMATE_ERROR


def main(arguments: Arguments) -> int:
    zstd(b"")  # whether it is there, before hours of work
    tokenizer = hub.load(arguments.model)
    prior = load_prior(arguments.prior) if arguments.prior else hub.load_prior(arguments.model, tokenizer)
    protocol = ReconstructionProtocol()
    streams = {kind: Streams.empty(digit_levels(tokenizer), prior) for kind in KINDS}
    for entry in steps(select_entries(arguments.data, protocol)[: arguments.clips], "clips"):
        clip = read_entry(entry, protocol)
        facts = {"name": entry.name, "frames": clip.num_frames, "height": clip.height, "width": clip.width}
        for kind in KINDS:
            data = compressed(kind, clip, tokenizer, prior)
            streams[kind].rows.append(facts | measure(data, tokenizer, prior, streams[kind]))
    values = write_record(arguments, streams, tokenizer, prior)
    reached = [show(kind, values[kind]) for kind in KINDS]
    return 0 if all(reached) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(tyro.cli(Arguments)))
    except KinolexError as error:
        sys.exit(str(error))

"""Damaged .klx files in memory, thousands a second, for tests.fuzz.

    golden file --damaged--> bytes --Parser, StreamDecoder, read_at--> pieces or a KinolexError

A finding is any other error, a second of computing, a byte held back or memory taken beyond the limits, or a piece or
token that differs without an error, unless its checksum was forged to fit. Files are made in batches, each from its
own number, so a long run goes on where it was stopped and is the same with any number of processes.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import resource
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from itertools import accumulate, chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kinolex.codec import container, fields
from kinolex.codec.container import Chunk, Header
from kinolex.codec.parser import Limits, Parser, parse, read_index
from kinolex.codec.priors import PlainPrior, Prior, load_prior
from kinolex.codec.sound_track import unpack_ids
from kinolex.codec.stream import Gap, Piece, StreamDecoder, read_at
from kinolex.errors import DataError, KinolexError
from kinolex.evaluation.page import write_text
from kinolex.evaluation.protocol import command_line, commit, hardware
from tests.codec.codec_examples import GOLDEN, PRIORS, golden_files

FORMAT = "kinolex-damage-1"
LIMITS = Limits(frame_pixels=2**16, chunk_tokens=2**11, chunk_bytes=2**12, chunks=2**8, gap_frames=2**10)
PARSES, DECODES = 5000, 50
"""Of one batch."""
CUTS_EVERY, TRACED_EVERY = 8, 500
"""Of so many files one is fed in small cuts, and of one the memory is traced."""
SLOW_SECONDS, DOUBTFUL_SECONDS = 1.0, 0.1
"""Beyond the second it is repeated to tell computing from waiting for a busy machine."""
TRACED_BYTES, TRACED_TIMES = 2**18, 64
"""Traced memory may be so many bytes and so many times the file, whatever the file claims."""
MEMORY_BYTES = 4 * 2**30
REPORT_SECONDS = 60.0


class Finding(Exception):
    """What a decoder must not do."""


@dataclass(frozen=True)
class GoodFile:
    data: bytes
    prior: Prior
    ids: dict[int, Tensor]
    """By first frame."""
    cuts: list[int]
    """Where header, chunks and end begin, and where the file ends."""
    items: frozenset[Header | Chunk]


@cache
def good_files() -> list[GoodFile]:
    """The golden files."""
    one, two = (load_prior(GOLDEN / f"{name}.prior.safetensors") for name in PRIORS)
    priors = {"plain": PlainPrior(300, 3), "sound_tokens": PlainPrior(300), "two_levels": two}
    found = []
    for name, (data, all_ids) in golden_files().items():
        end, index_place = read_index(io.BytesIO(data))
        starts = accumulate(end.lengths, initial=index_place - sum(end.lengths))
        frames = accumulate(end.frames, initial=0)
        ids = dict(zip(frames, all_ids, strict=False))
        items = frozenset(item for item in parse(data) if isinstance(item, Header | Chunk))
        found.append(GoodFile(data, priors.get(name, one), ids, [0, *starts, len(data)], items))
    return found


# --- injuries ---


def below(limit: int, dice: random.Random) -> int:
    """As randrange, several times as fast."""
    return int(dice.random() * limit)


def false_sync(dice: random.Random) -> bytes:
    """A chunk or an end that claims much."""
    claim = fields.varint(below(2 ** below(30, dice), dice))
    return container.END_SYNC + claim if dice.random() < 0.5 else container.CHUNK_SYNC + b"\x00\x00" + claim


def injured(data: bytes, dice: random.Random) -> bytes:
    """One random injury."""
    place, length = below(len(data) + 1, dice), 1 << below(8, dice)
    before, hit, after = data[:place], data[place : place + length], data[place + length :]
    kind = below(9, dice)
    if kind == 0:
        return before + hit
    if kind == 1:
        return before + after
    if kind == 2:
        return before + hit + hit + after
    if kind == 3:
        return before + bytes(len(hit)) + after
    if kind == 4:
        return before + dice.randbytes(len(hit)) + after
    if kind == 5:
        return before + dice.randbytes(length) + hit + after
    if kind == 6:
        return before + b"\xff" * length + hit + after
    if kind == 7:
        return before + false_sync(dice) + hit + after
    return before + bytes([hit[0] ^ 1 << below(8, dice)]) + hit[1:] + after if hit else data


def mutated(data: bytes, dice: random.Random) -> bytes:
    for _ in range(1 + below(4, dice)):
        data = injured(data, dice)
    return data


def forged(good: GoodFile, dice: random.Random) -> bytes:
    """A file with one damaged piece whose checksum fits all the same."""
    which = below(len(good.cuts) - 1, dice)
    start, stop = good.cuts[which : which + 2]
    is_end = stop == len(good.data)
    kept = start + (len(container.MAGIC) + 1 if which == 0 else 2)
    piece = good.data[start:kept] + mutated(good.data[kept : stop - (12 if is_end else 4)], dice)
    piece += fields.checksum_bytes(piece)
    if is_end:
        piece += len(piece).to_bytes(4, "little") + container.TAIL
    return good.data[:start] + piece + good.data[stop:]


def hostile(good: GoodFile, dice: random.Random) -> bytes:
    """Thousands of bytes of false syncs before one of the pieces."""
    place = good.cuts[1 + below(len(good.cuts) - 1, dice)]
    unit = b"".join(false_sync(dice) for _ in range(1 + below(3, dice)))
    return good.data[:place] + unit * (below(2**14, dice) // len(unit)) + good.data[place:]


def damaged(good: GoodFile, dice: random.Random) -> tuple[str, bytes]:
    """A broken file, and in what way."""
    draw = dice.random()
    if draw < 0.1:
        return "cut", good.data[: below(len(good.data), dice)]
    if draw < 0.35:
        return "forged", forged(good, dice)
    if draw < 0.355:
        return "hostile", hostile(good, dice)
    return "mutated", mutated(good.data, dice)


# --- what is asked of readers ---


def parse_all(data: bytes, kind: str, good: GoodFile, tolerate: bool, step: int) -> None:
    """Every piece through the parser. Raises KinolexError, or Finding."""
    parser = Parser(limits=LIMITS, tolerate=tolerate)
    for at in range(0, len(data) + step, step):
        for item in parser.feed(data[at : at + step]) if at < len(data) else parser.finish():
            if kind != "forged" and isinstance(item, Header | Chunk) and item not in good.items:
                raise Finding(f"another piece at byte {parser.position}, and no error")
        if len(parser._buffer) > LIMITS.piece_bytes:
            raise Finding(f"{len(parser._buffer)} bytes are held back")


def traced(data: bytes, call: Callable[[], None]) -> None:
    tracemalloc.start()
    try:
        call()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if peak > TRACED_BYTES + TRACED_TIMES * len(data):
            raise Finding(f"took {peak} bytes of memory for {len(data)} bytes")


def decode_all(data: bytes, kind: str, good: GoodFile, tolerate: bool, step: int) -> None:
    """Every token through the decoder, from the front. Raises KinolexError, or Finding."""
    decoder = StreamDecoder(lambda header: good.prior, LIMITS, tolerate)
    cuts = (data[at : at + step] for at in range(0, len(data), step))
    for piece in chain(chain.from_iterable(map(decoder.feed, cuts)), decoder.finish()):
        check_tokens(piece, kind, good)
        track = decoder.header.track if decoder.header is not None else None
        if isinstance(piece, Piece) and track is not None and track.tokens is not None:
            unpack_ids(piece.packets, track)


def seek(data: bytes, kind: str, good: GoodFile, frame: int) -> None:
    for piece in read_at(io.BytesIO(data), frame, lambda header: good.prior, limits=LIMITS):
        check_tokens(piece, kind, good)


def check_tokens(piece: Piece | Gap, kind: str, good: GoodFile) -> None:
    if kind == "forged" or isinstance(piece, Gap):
        return
    if not (piece.first_frame in good.ids and torch.equal(piece.tokens.ids_Qthw, good.ids[piece.first_frame])):
        raise Finding(f"other tokens at frame {piece.first_frame}, and no error")


# --- batches ---


def computing_seconds(call: Callable[[], None]) -> float:
    began = time.process_time()
    with suppress(KinolexError, Finding):
        call()
    return time.process_time() - began


@dataclass
class Batch:
    """What came of some files."""

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[bytes, str]] = field(default_factory=list)
    cpu_seconds: float = 0.0
    slowest_seconds: float = 0.0

    def attempt(self, reader: str, kind: str, data: bytes, call: Callable[[], None]) -> None:
        began, result = time.perf_counter(), "read"
        try:
            call()
        except KinolexError as error:
            result = type(error).__name__
        except Exception as error:
            result = "FINDING"
            self.findings.append((data, f"{type(error).__name__}: {error}"))
        took = time.perf_counter() - began
        if took > DOUBTFUL_SECONDS:
            took = computing_seconds(call)
        self.slowest_seconds = max(self.slowest_seconds, took)
        if took > SLOW_SECONDS:
            result = "FINDING"
            self.findings.append((data, f"took {took:.1f} s"))
        self.outcomes[f"{reader}, {kind}, {result}"] += 1


def run_batch(number: int, seed: int, parses: int = PARSES, decodes: int = DECODES) -> Batch:
    """Some files through the parser and a few through the decoder, half of them with tolerance of damage."""
    dice, batch, began = random.Random(f"{seed}/{number}"), Batch(), time.process_time()
    files = good_files()
    for index in range(parses + decodes):
        good, tolerate = files[below(len(files), dice)], dice.random() < 0.5
        kind, data = damaged(good, dice)
        step = 1 + below(256, dice) if index % CUTS_EVERY == 0 else max(1, len(data))
        if index < parses:
            call = partial(parse_all, data, kind, good, tolerate, step)
            reader = "tolerant parser" if tolerate else "parser"
            batch.attempt(reader, kind, data, partial(traced, data, call) if index % TRACED_EVERY == 0 else call)
        else:
            frame = list(good.ids)[below(len(good.ids), dice)]
            reader = "tolerant decoder" if tolerate else "decoder"
            batch.attempt(reader, kind, data, partial(decode_all, data, kind, good, tolerate, step))
            batch.attempt("seek", kind, data, partial(seek, data, kind, good, frame))
    batch.cpu_seconds = time.process_time() - began
    return batch


# --- long runs ---


def code_hash() -> str:
    """Of the codec and of this fuzzer: a run that is gone on with must be of one code."""
    files = [*sorted(Path(container.__file__).parent.glob("*.py")), Path(__file__)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def begin(seed: int, file: Path) -> dict[str, Any]:
    """The report of a new run, or of the one to go on with. Raises DataError: it is of other code or another seed."""
    new: dict[str, Any] = {
        "format": FORMAT,
        "command": command_line(),
        "commit": commit(),
        "code": code_hash(),
        "seed": seed,
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"),
        "hardware": hardware(),
        "batches": 0,
        "parsed_files": 0,
        "decoded_files": 0,
        "findings": 0,
        "cpu_seconds": 0.0,
        "slowest_seconds": 0.0,
        "outcomes": {},
    }
    if not file.is_file():
        return new
    old = json.loads(file.read_text(encoding="utf-8"))
    if any(old.get(key) != new[key] for key in ("format", "code", "seed")):
        raise DataError(f"{file} is of another seed or of other code; move it away to begin anew")
    return old


def results(numbers: Iterable[int], seed: int, workers: int) -> Iterator[Batch]:
    """Batches in order, one process per worker; with one, in this process."""
    work = partial(run_batch, seed=seed)
    if workers == 1:
        yield from map(work, numbers)
        return
    with get_context("spawn").Pool(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.imap(work, numbers)


def long_run(files: int, seed: int, report_file: Path, workers: int, keep: Callable[[bytes, str], None]) -> int:
    """Until so many files went through the parser, and a hundredth of them through the decoder.

    Returns:
        How many findings there were.
    """
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    report = begin(seed, report_file)
    outcomes, done = Counter[str](report["outcomes"]), report["batches"]
    last, began, reported = -(-files // PARSES), time.monotonic(), 0.0
    for number, batch in enumerate(results(range(done, last), seed, workers), done + 1):
        outcomes += batch.outcomes
        for data, reason in batch.findings:
            keep(data, reason)
        report |= {
            "batches": number,
            "parsed_files": number * PARSES,
            "decoded_files": number * DECODES,
            "findings": report["findings"] + len(batch.findings),
            "cpu_seconds": round(report["cpu_seconds"] + batch.cpu_seconds, 1),
            "slowest_seconds": round(max(report["slowest_seconds"], batch.slowest_seconds), 3),
            "outcomes": dict(sorted(outcomes.items())),
        }
        now = time.monotonic() - began
        if now - reported > REPORT_SECONDS or number == last:
            reported = now
            write_text(report_file, json.dumps(report, indent=1) + "\n")
            rate = (number - done) * PARSES / now
            print(
                f"{number * PARSES} of {files} files, {report['findings']} findings, {rate:.0f} files/s, "
                f"{(last - number) * PARSES / rate / 3600:.1f} h left",
                file=sys.stderr,
                flush=True,
            )
    return report["findings"]

"""Damaged .klx files in memory, thousands a second, for tests.fuzz.

Accepted are success and KinolexError. A finding is any other error, a second of computing, or a token that differs
without an error, unless its checksum was forged to fit.
"""

from __future__ import annotations

import io
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, chain

import torch
from torch import Tensor

from kinolex.codec import container
from kinolex.codec.container import Limits, parse, read_index
from kinolex.codec.priors import PlainPrior, Prior, load_prior
from kinolex.codec.stream import Gap, Piece, StreamDecoder, read_at
from kinolex.errors import KinolexError
from tests.codec.codec_examples import GOLDEN, PRIORS, golden_files

LIMITS = Limits(frame_pixels=2**16, chunk_tokens=2**11, chunk_bytes=2**16, gap_frames=2**10)
PARSES, DECODES = 300, 3
"""Of one turn."""
SLOW_SECONDS = 1.0

Damage = Callable[[bytes, random.Random], bytes]


class Finding(Exception):
    """What a decoder must not do; carries the file."""

    def __init__(self, data: bytes, reason: str) -> None:
        super().__init__(reason)
        self.data = data


@dataclass(frozen=True)
class GoodFile:
    data: bytes
    prior: Prior
    ids: dict[int, Tensor]
    """By first frame."""
    cuts: list[int]
    """Where header, chunks and end begin, and where the file ends."""


def good_files() -> list[GoodFile]:
    """The golden files."""
    one, two = (load_prior(GOLDEN / f"{name}.prior.safetensors") for name in PRIORS)
    priors = {"plain": PlainPrior(300, 3), "two_levels": two}
    found = []
    for name, (data, all_ids) in golden_files().items():
        end, index_place = read_index(io.BytesIO(data))
        starts = accumulate(end.lengths, initial=index_place - sum(end.lengths))
        frames = accumulate(end.frames, initial=0)
        ids = dict(zip(frames, all_ids, strict=False))
        found.append(GoodFile(data, priors.get(name, one), ids, [0, *starts, len(data)]))
    return found


def forge(good: GoodFile, damage: Damage, dice: random.Random) -> bytes:
    """A file with one damaged piece whose checksum fits all the same."""
    pieces = [good.data[start:stop] for start, stop in zip(good.cuts, good.cuts[1:], strict=False)]
    which = dice.randrange(len(pieces))
    is_end = which == len(pieces) - 1
    sync = len(container.MAGIC) + 1 if which == 0 else 2
    body = pieces[which][sync : -12 if is_end else -4]
    data = pieces[which][:sync] + damage(body, dice)
    data += container._checksum(data)
    pieces[which] = data + (len(data).to_bytes(4, "little") + container.TAIL if is_end else b"")
    return b"".join(pieces)


def insert(data: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(data) + 1)
    count = 2 ** dice.randrange(7)
    return data[:place] + dice.choice((dice.randbytes(count), b"\xff" * count)) + data[place:]


def parse_all(data: bytes, tolerate: bool) -> None:
    for _ in parse(data, limits=LIMITS, tolerate=tolerate):
        pass


def decode_all(data: bytes, good: GoodFile, tolerate: bool) -> list[Piece | Gap]:
    decoder = StreamDecoder(lambda header: good.prior, LIMITS, tolerate)
    found: list[Piece | Gap] = []
    try:
        found.extend(chain(decoder.feed(data), decoder.finish()))
    except KinolexError:
        found.append(Gap(first_frame=0, frames=0, reason="refused"))
    return found


def check_tokens(data: bytes, pieces: list[Piece | Gap], good: GoodFile) -> None:
    for piece in pieces:
        if isinstance(piece, Piece) and not (
            piece.first_frame in good.ids and torch.equal(piece.tokens.ids_Qthw, good.ids[piece.first_frame])
        ):
            raise Finding(data, f"other tokens at frame {piece.first_frame}, and no error")


def seek(data: bytes, good: GoodFile, frame: int) -> list[Piece | Gap]:
    try:
        return [*read_at(io.BytesIO(data), frame, lambda header: good.prior, limits=LIMITS)]
    except KinolexError:
        return []


def turn(good: GoodFile, damage: Damage, dice: random.Random, outcomes: Counter[str]) -> None:
    """A few hundred damaged files through the parser and a few through the decoder, both with and without tolerance."""
    for number in range(PARSES + DECODES):
        forged, injure = dice.random() < 0.3, dice.choice((damage, insert))
        data = forge(good, injure, dice) if forged else injure(good.data, dice)
        began, tolerate = time.process_time(), dice.random() < 0.5
        try:
            if number < PARSES:
                parse_all(data, tolerate)
                outcomes["klx bytes parsed"] += 1
            else:
                pieces = decode_all(data, good, tolerate) + seek(data, good, dice.choice(list(good.ids)))
                outcomes["klx bytes decoded"] += 1
                if not forged:
                    check_tokens(data, pieces, good)
        except KinolexError:
            outcomes["klx bytes refused by the parser"] += 1
        except Finding:
            raise
        except Exception as error:
            raise Finding(data, f"{type(error).__name__}: {error}") from error
        if time.process_time() - began > SLOW_SECONDS:
            raise Finding(data, f"took {time.process_time() - began:.1f} s")

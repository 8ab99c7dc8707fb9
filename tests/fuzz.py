"""Damaged media and token files: anything but a named error or a clean result is a bug.

python -m tests.fuzz --minutes 2
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import torch

from kinolex.data.token_store import load_tokens, save_tokens
from kinolex.errors import KinolexError
from kinolex.media import probe, read, write
from kinolex.tokenizers.base import IdentityTokenizer
from kinolex.types import Clip, Sound


def seeds(folder: Path) -> list[Path]:
    frames_TCHW = torch.randint(0, 256, (12, 3, 34, 46), dtype=torch.uint8)
    sound = Sound(torch.sin(torch.arange(6000) / 9).unsqueeze(0) * 0.4, 12000)
    clip = Clip(frames_TCHW, Fraction(25), sound)
    for name in ("a.mp4", "a.webm", "a.gif"):
        write(clip, folder / name)
    for name in ("a.png", "a.jpg", "a.webp"):
        write(Clip(frames_TCHW[:1], Fraction(1)), folder / name)
    save_tokens(IdentityTokenizer().encode(clip), folder / "a.safetensors")
    return sorted(folder.iterdir())


def damage(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    kind = rng.randrange(4)
    if kind == 0:
        del data[rng.randrange(len(data)) :]
    elif kind == 1:
        for _ in range(rng.randrange(1, 20)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == 2:
        start = rng.randrange(len(data))
        del data[start : start + rng.randrange(1, 200)]
    else:
        start = rng.randrange(len(data))
        data[start:start] = rng.randbytes(rng.randrange(1, 200))
    return bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, deadline = random.Random(options.seed), time.monotonic() + 60 * options.minutes
    tried = refused = 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        sources = {path: path.read_bytes() for path in seeds(folder)}
        while time.monotonic() < deadline:
            path = rng.choice(list(sources))
            broken = folder / f"broken{path.suffix}"
            broken.write_bytes(damage(sources[path], rng))
            tried += 1
            try:
                if path.suffix == ".safetensors":
                    load_tokens(broken)
                else:
                    probe(broken)
                    read(broken)
            except KinolexError:
                refused += 1
            except Exception as error:
                kept = Path("fuzz_failure" + path.suffix)
                kept.write_bytes(broken.read_bytes())
                print(f"{type(error).__name__}: {error}; the file is kept as {kept}")
                sys.exit(1)
            if tried % 200 == 0:
                print(f"\r{tried} files, {refused} refused with a named error", end="", flush=True)
    print(f"\r{tried} files, {refused} refused with a named error, nothing else happened")


if __name__ == "__main__":
    main()

"""Broken files at random: python -m tests.fuzz --minutes 2 [--seed N]

With --klx-files 10000000 so many .klx files in memory instead, and a report in --json FILE; it may be stopped and gone
on with.

Media, tokens, .klx files, checkpoints, priors, tables and packs are damaged (bytes flipped, cut, doubled, zeroed,
numbers replaced) and read again. Anything but success or a KinolexError is a finding: the file is kept in out/fuzz and
the exit code is 1. So is a result file left behind by a refused call, and memory beyond 8 GB. Most .klx files are
damaged and read in memory, see tests/fuzz_klx.py.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import tyro

from kinolex import api, checkpoint, hub, media
from kinolex.codec.priors import load_prior
from kinolex.compression import CompressConfig, coder_of
from kinolex.data.index import scan
from kinolex.data.packs import Pack, build_pack
from kinolex.data.token_store import load_picture_tokens
from kinolex.data.worlds import WorldConfig, render
from kinolex.errors import KinolexError
from kinolex.tokenizers.autoencoder3d import Autoencoder3D, AutoencoderConfig
from kinolex.tokenizers.quantizers import FSQConfig
from kinolex.types import Clip
from tests import fuzz_klx
from tests.codec.codec_examples import GOLDEN

MEMORY_BYTES = 8 * 2**30
KEPT = Path("out/fuzz")
KLX_PARSES, KLX_DECODES = 300, 3
"""For every file of another kind."""
NUMBERS = (b"0", b"-1", b"65536", b"99999999999999999999", b"1e400", b"null", b'"x"', b"[]", b"0.5")


@dataclass(frozen=True)
class Arguments:
    minutes: float = 2.0
    seed: int = 0
    klx_files: int = 0
    """Above 0: only .klx files, until so many went through the parser and a hundredth through the decoder."""
    json: Path = Path("benchmarks/damage.json")
    """Report of a run with klx_files; one that is there is gone on with."""
    workers: int = 1
    """Processes of such a run."""


@dataclass(frozen=True)
class Target:
    file: Path
    """The good file; its folder is copied, the copy's file is damaged."""
    use: Callable[[Path], object]
    """Reads the damaged file."""


def targets(folder: Path) -> list[Target]:
    """One good file of every kind, and what is done with it."""
    world = render(3, WorldConfig(frames=9, height=48, width=64, fps=Fraction(24)))
    torch.manual_seed(0)
    config = AutoencoderConfig(
        channels=(8, 8),
        down=((4, 2),),
        encoder_blocks=(1, 1),
        decoder_blocks=(1, 1),
        middle_blocks=1,
        quantizer=FSQConfig(levels=(8, 8)),
        causal=True,
        fold=4,
        norm_groups=4,
    )
    checkpoint.save(folder / "model" / "m", Autoencoder3D(config), card="")
    tokenizer = checkpoint.load(folder / "model" / "m")
    found = []
    for name in ("v.mp4", "v.webm", "v.gif", "i.png", "i.jpg", "i.webp", "s.wav", "s.flac"):
        place = folder / name.replace(".", "_")
        place.mkdir()
        if name.startswith("s"):
            assert world.clip.sound is not None
            media.write_sound(world.clip.sound, place / name)
            found.append(Target(place / name, media.read_sound))
            continue
        image = name.startswith("i")
        media.write(Clip(world.clip.frames_TCHW[:1], Fraction(1)) if image else world.clip, place / name)
        result = "out.png" if image else "out.mp4"
        found.append(Target(place / name, lambda path, result=result: through(path, path.parent / result, tokenizer)))
    (folder / "tokens").mkdir()
    api.encode(folder / "v_mp4" / "v.mp4", folder / "tokens" / "t.safetensors", tokenizer)
    found.append(Target(folder / "tokens" / "t.safetensors", lambda path: tokenizer.decode(load_picture_tokens(path))))
    found += [Target(folder / "model" / "m" / name, lambda path: checkpoint.load(path.parent)) for name in MODEL_FILES]
    found += compressed_targets(folder, folder / "model" / "m")
    (folder / "table").mkdir()
    shutil.copy(folder / "v_mp4" / "v.mp4", folder / "table" / "v.mp4")
    (folder / "table" / "index.csv").write_text("file,split,label,caption\nv.mp4,train,falls,a red square falls\n")
    found.append(Target(folder / "table" / "index.csv", lambda path: scan(path.parent)))
    (folder / "lines").mkdir()
    shutil.copy(folder / "v_mp4" / "v.mp4", folder / "lines" / "v.mp4")
    (folder / "lines" / "metadata.jsonl").write_text(json.dumps({"file_name": "v.mp4", "label": 3}) + "\n")
    found.append(Target(folder / "lines" / "metadata.jsonl", lambda path: scan(path.parent)))
    (folder / "arrays").mkdir()
    images_NHWC = world.clip.frames_TCHW.permute(0, 2, 3, 1).numpy()
    labels = {"labels": np.zeros(len(images_NHWC), np.int64), "classes": np.array(["square"])}
    np.savez(folder / "arrays" / "a.npz", images=images_NHWC, **labels)
    found.append(Target(folder / "arrays" / "a.npz", lambda path: scan(path.parent)[0].load_array()))
    build_pack(scan(folder / "table"), folder / "pack" / "p", lines=32)
    found.append(Target(folder / "pack" / "p" / "manifest.json", lambda path: read_pack(path.parent)))
    return found


def compressed_targets(folder: Path, model: Path) -> list[Target]:
    """A .klx file with sound, read in every way, and a prior."""
    (folder / "klx").mkdir()
    tokenizer, file = checkpoint.load(model), folder / "klx" / "c.klx"
    config = CompressConfig(chunk_frames=5)
    api.compress(folder / "v_mp4" / "v.mp4", file, tokenizer, hub.load_prior(model, tokenizer), config)
    find = coder_of(model)
    (folder / "prior").mkdir()
    shutil.copy(GOLDEN / "one_level.prior.safetensors", folder / "prior" / "p.safetensors")
    return [
        Target(file, lambda path: api.decompress(path, path.with_name("out.mp4"), find)),
        Target(file, lambda path: api.decompress(path, path.with_name("out.mp4"), find, on_lost=[].append)),
        Target(file, lambda path: api.decompress_frame(path, path.with_name("out.png"), 6, find)),
        Target(file, api.info),
        Target(folder / "prior" / "p.safetensors", load_prior),
    ]


MODEL_FILES = (checkpoint.CONFIG, checkpoint.WEIGHTS)


def through(source: Path, target: Path, tokenizer: object) -> None:
    try:
        api.roundtrip(source, target, tokenizer)  # type: ignore[arg-type]
    except KinolexError:
        left = {path.name for path in source.parent.iterdir()} - {source.name}
        if left:
            raise RuntimeError(f"a refused call left {sorted(left)}") from None
        raise


def read_pack(folder: Path) -> None:
    pack = Pack.open(folder)
    for index in range(min(3, len(pack))):
        int(pack.frames_THWC(index).sum())


def damage(data: bytes, dice: random.Random) -> bytes:
    """One to four random injuries."""
    for _ in range(dice.randint(1, 4)):
        if not data:
            break
        place, kind = dice.randrange(len(data)), dice.randrange(6)
        length = min(len(data) - place, 2 ** dice.randrange(8))
        if kind == 0:
            data = data[:place] + bytes([data[place] ^ 1 << dice.randrange(8)]) + data[place + 1 :]
        elif kind == 1:
            data = data[:place]
        elif kind == 2:
            data = data[:place] + data[place : place + length] + data[place:]
        elif kind == 3:
            data = data[:place] + bytes(length) + data[place + length :]
        elif kind == 4:
            data = data[:place] + dice.randbytes(length) + data[place + length :]
        elif numbers := list(re.finditer(rb"\d+", data[:65536])):
            number = dice.choice(numbers)
            data = data[: number.start()] + dice.choice(NUMBERS) + data[number.end() :]
    return data


def keep(name: str, data: bytes, number: int) -> None:
    """Store a file that was a finding, and say so; called while its exception is handled."""
    KEPT.mkdir(parents=True, exist_ok=True)
    (KEPT / name).write_bytes(data)
    print(f"finding {number}: {KEPT}/{name}", file=sys.stderr)
    traceback.print_exc()


def keep_klx(data: bytes, reason: str) -> None:
    """Store a .klx file that was a finding, under its own hash."""
    KEPT.mkdir(parents=True, exist_ok=True)
    file = KEPT / f"{hashlib.sha256(data).hexdigest()[:16]}.klx"
    file.write_bytes(data)
    print(f"finding {file}: {reason}", file=sys.stderr)


def main(arguments: Arguments) -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if arguments.klx_files:
        found = fuzz_klx.long_run(arguments.klx_files, arguments.seed, arguments.json, arguments.workers, keep_klx)
        return int(found > 0)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    dice, findings = random.Random(arguments.seed), 0
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        good = Path(temporary) / "good"
        good.mkdir()
        all_targets = targets(good)
        for number, target in enumerate(all_targets):
            place = Path(temporary) / "whole" / str(number)
            shutil.copytree(target.file.parent, place)
            target.use(place / target.file.name)  # what is refused undamaged would find nothing
        until = time.monotonic() + 60 * arguments.minutes
        for turn in itertools.count():
            if time.monotonic() > until:
                break
            batch = fuzz_klx.run_batch(turn, arguments.seed, parses=KLX_PARSES, decodes=KLX_DECODES)
            outcomes += batch.outcomes
            findings += len(batch.findings)
            for data, reason in batch.findings:
                keep_klx(data, reason)
            target = dice.choice(all_targets)
            place = Path(temporary) / "bad"
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(target.file.parent, place)
            file = place / target.file.name
            file.write_bytes(damage(target.file.read_bytes(), dice))
            kept = file.read_bytes()
            try:
                target.use(file)
                outcomes[f"{file.name} read"] += 1
            except KinolexError:
                outcomes[f"{file.name} refused"] += 1
            except Exception:
                findings += 1
                outcomes[f"{file.name} FINDING"] += 1
                keep(f"{arguments.seed}-{findings}-{file.name}", kept, findings)
            if sys.stderr.isatty():
                done, left = sum(outcomes.values()), max(0, round(until - time.monotonic()))
                print(f"\r{done} files, {findings} findings, {left} s left ", end="", file=sys.stderr)
    for name, count in sorted(outcomes.items()):
        print(f"{count:7} {name}")
    print(f"{sum(outcomes.values())} files, {findings} findings")
    return int(findings > 0)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))

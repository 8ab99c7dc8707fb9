"""Against magvit2-pytorch on the same clips, cores and minutes: python -m benchmarks.peers --data DIR ...

The peer lives in an environment of its own, to be thrown away afterwards:

    python -m venv PEER
    PEER/bin/pip install torch==2.13.0 torchvision magvit2-pytorch==0.5.1
    python -m benchmarks.peers --data DIR --cache PACKS --peer-python PEER/bin/python --minutes 5

(torch as pinned in constraints.txt). The architecture of magvit2-nano with its optimizer, and two versions of the peer
described in benchmarks/peer_magvit2_pytorch.py, each train alone for the minutes given on crops of 9x64x64, 12 at a
time, with a pixel loss only. kinolex trains with its own Trainer and Loader; the peer reads from a file what that
Loader draws, in the same order, so decoding costs it nothing. Then all three give back the first 17 frames of the same
centre crops of held-out clips, and their speed is taken in interleaved rounds. Writes benchmarks/peers.json. Takes
three times the minutes, and about ten more, on two CPU cores that do nothing else.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.peer_magvit2_pytorch import peak_mib, serve
from kinolex import metrics
from kinolex.data.loader import Loader, LoaderConfig
from kinolex.data.packs import Pack
from kinolex.errors import DataError, KinolexError
from kinolex.evaluation.protocol import ReconstructionProtocol, commit, hardware, read_entry, select_entries
from kinolex.metrics import SqueezeNetFeatures
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training.config import StageConfig, TrainConfig
from kinolex.training.engine import Trainer
from kinolex.training.recipes import FEATURES, load_recipe, open_packs
from kinolex.types import Clip

OUT = Path(__file__).with_suffix(".json")
ROOT = Path(__file__).parents[1]
FRAMES, CROP, BATCH = 9, 64, 12
TEST_FRAMES, TEST_SIDE = 17, 128
SPEEDS = ("clips_per_s", "encode_fps", "decode_fps")
MARGIN = 0.98
"""Of the steps that the probe foresees, so that the learning rate has come down before the time is over."""


@dataclass(frozen=True)
class Arguments:
    data: Path
    peer_python: Path
    """Interpreter of an environment with magvit2-pytorch."""
    cache: Path = Path("runs/out/packs")
    features: Path | None = None
    """Weights of the perceptual network; in the data folder if None."""
    minutes: float = 5.0
    """Training time of each of the three."""
    batches: int = 600
    """Written for the peer, 1.3 MB each; it begins again after the last."""
    clips: int | None = None
    """Held-out clips to measure; all if None."""
    rounds: int = 5
    round_s: float = 10.0
    """Training time of each in one round of speed."""
    threads: int = 2
    out: Path = OUT


def recipe(steps: int) -> TrainConfig:
    """magvit2-nano's network and optimizer for the one kind of batch that both sides see."""
    stage = StageConfig(name="peers", steps=steps, clip_frames=FRAMES, crop=CROP, batch_video=BATCH, batch_image=0)
    shipped = load_recipe(ROOT / "recipes" / "magvit2_nano.py")
    return replace(
        shipped,
        stages=(stage,),
        world_fraction=0.0,
        losses=replace(shipped.losses, perceptual=0.0),
        save_every=10**9,
        grid_every=10**9,
    )


class Unsaved(Trainer):
    """Writing its state would be timed, and the peer writes none."""

    def save(self) -> None:
        pass


def serve_kinolex(data: str, cache: str, threads: int) -> None:
    """Our side, in a process of its own so that its peak memory is its own; commands as in the peer's script."""
    torch.set_num_threads(threads)
    packs = videos(Path(data), Path(cache))
    folder = tempfile.TemporaryDirectory()
    trainers: dict[str, Trainer] = {}

    def trainer(name: str, steps: int) -> Trainer:
        return Unsaved(recipe(steps), packs, Path(folder.name) / name)

    def timed(run: Trainer, seconds: float) -> dict[str, Any]:
        before, began = run.counters.step, time.monotonic()
        run.run(minutes=seconds / 60)
        steps, passed = run.counters.step - before, time.monotonic() - began
        return {"steps": steps, "seconds": passed, "clips_per_s": steps * BATCH / passed}

    def describe() -> dict[str, Any]:
        model = trainer("described", 1).model
        return {"parameters": sum(parameter.numel() for parameter in model.parameters()), "torch": torch.__version__}

    def train(minutes: float) -> dict[str, Any]:
        probe, probe_s = trainer("probe", 10**6), min(30.0, max(5.0, 6 * minutes))
        timed(probe, probe_s / 3)
        rate = timed(probe, probe_s)["clips_per_s"] / BATCH
        del probe
        gc.collect()
        trainers["run"] = trainer("run", max(1, int(MARGIN * rate * 60 * minutes)))
        done = timed(trainers["run"], 60 * minutes)
        return done | {"skipped": trainers["run"].counters.skipped, "peak_mib": peak_mib()}

    def tokenizer() -> VideoTokenizer:
        return VideoTokenizer(trainers["run"].average, "peers")

    def reconstruct(clips: str, out: str) -> dict[str, Any]:
        shipped = tokenizer()
        given = [Clip(torch.from_numpy(clip_TCHW), Fraction(25)) for clip_TCHW in np.load(clips)]
        np.save(out, np.stack([shipped.decode(shipped.encode(clip)).frames_TCHW.numpy() for clip in given]))
        return {}

    def round_(clips: str, seconds: float) -> dict[str, Any]:
        shipped, clip = tokenizer(), Clip(torch.from_numpy(np.load(clips)[0]), Fraction(25))
        shipped.decode(shipped.encode(clip))
        began = time.perf_counter()
        tokens = shipped.encode(clip)
        middle = time.perf_counter()
        shipped.decode(tokens)
        ended = time.perf_counter()
        speeds = {"encode_fps": clip.num_frames / (middle - began), "decode_fps": clip.num_frames / (ended - middle)}
        if "rounds" not in trainers:
            trainers["rounds"] = trainer("rounds", 10**6)
        return speeds | {"clips_per_s": timed(trainers["rounds"], seconds)["clips_per_s"]}

    with folder:
        serve({"describe": describe, "train": train, "reconstruct": reconstruct, "round": round_})


class Side:
    """A process that answers commands.

    Raises:
        KinolexError: it ended; what it said is on stderr.
    """

    def __init__(self, name: str, command: list[str], threads: int) -> None:
        self.name = name
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        )

    def ask(self, do: str, **details: Any) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **details}) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise KinolexError(f"{self.name} ended with code {self.process.wait()} at {do!r}; its last words are above")
        return json.loads(answer)


@contextmanager
def all_sides(arguments: Arguments) -> Iterator[dict[str, Side]]:
    """The three, by the name they have in the record; gone afterwards."""
    threads = arguments.threads
    where = [str(path.resolve()) for path in (arguments.data, arguments.cache)]
    ours = f"from benchmarks.peers import serve_kinolex; serve_kinolex(*{where!r}, {threads})"
    script = str(Path(__file__).with_name("peer_magvit2_pytorch.py"))
    # Not resolved: the interpreter of an environment is a link, and knows the environment by it.
    python = str(arguments.peer_python.absolute())
    sides = {"kinolex": Side("kinolex", [sys.executable, "-c", ours], threads)}
    for variant in ("readme", "tuned"):
        name = f"magvit2-pytorch {variant}"
        sides[name] = Side(name, [python, script, variant, str(CROP), str(threads)], threads)
    try:
        yield sides
    finally:
        for side in sides.values():
            side.process.kill()
            side.process.wait()


def videos(data: Path, cache: Path) -> list[Pack]:
    packs = open_packs(recipe(1), data, cache)
    return [pack for pack in packs if any(item.frames > 1 for item in pack.items)]


def write_batches(path: Path, packs: list[Pack], number: int) -> None:
    """The batches that our Trainer will draw, one after the other."""
    seed = recipe(1).seed
    config = LoaderConfig(clip_frames=FRAMES, crop=CROP, batch_video=BATCH, batch_image=0, seed=seed)
    loader = Loader(packs, config)
    with path.open("wb") as file:
        for step in range(number):
            clips_BCTHW = loader.batch(step).video_BCTHW
            assert clips_BCTHW is not None
            file.write(clips_BCTHW.contiguous().numpy().tobytes())


def held_out_crops(data: Path, protocol: ReconstructionProtocol, most: int | None) -> tuple[list[str], np.ndarray]:
    """Names and centre crops (N, T, C, H, W) of the held-out clips that are long enough."""
    names, crops = [], []
    for entry in select_entries(data, protocol):
        frames_TCHW = read_entry(entry, protocol).frames_TCHW
        if len(frames_TCHW) < TEST_FRAMES:
            continue
        top, left = ((size - TEST_SIDE) // 2 for size in frames_TCHW.shape[2:])
        names.append(entry.name)
        crops.append(frames_TCHW[:, :, top : top + TEST_SIDE, left : left + TEST_SIDE].numpy())
    if not names:
        raise DataError(f"no held-out clip has {TEST_FRAMES} frames; the benchmark needs some in {protocol.sets}")
    return names[:most], np.stack(crops[:most])


def measure(originals: np.ndarray, rebuilt: np.ndarray, features_net: SqueezeNetFeatures, nth: int) -> dict[str, Any]:
    """Mean over clips of the figures of each clip, and the figures of each."""
    pairs = [
        (torch.from_numpy(a_TCHW), torch.from_numpy(b_TCHW)) for a_TCHW, b_TCHW in zip(originals, rebuilt, strict=True)
    ]
    psnrs_db = [metrics.psnr_db(*pair) for pair in pairs]
    distances = [metrics.squeezenet_distance(features_net, *pair, every_nth=nth) for pair in pairs]
    means = {"psnr_db": statistics.mean(psnrs_db), "squeezenet_distance": statistics.mean(distances)}
    return means | {"psnr_db_of_clips": [round(value, 2) for value in psnrs_db]}


def compared(values: dict[str, dict[str, Any]], peer: str) -> dict[str, float]:
    """kinolex over a peer; decibels and distances as differences."""
    ours, theirs = values["kinolex"], values[peer]
    ratios = {key: ours[key] / theirs[key] for key in ("parameters", *SPEEDS, "peak_mib")}
    return ratios | {f"{key}_difference": ours[key] - theirs[key] for key in ("psnr_db", "squeezenet_distance")}


def main(arguments: Arguments) -> None:
    began = time.monotonic()

    def say(text: str) -> None:
        passed = int(time.monotonic() - began)
        print(f"[{passed // 60:02d}:{passed % 60:02d}] {text}", flush=True)

    torch.set_num_threads(arguments.threads)
    protocol, features_net = ReconstructionProtocol(max_frames=TEST_FRAMES, lines=TEST_SIDE).with_features(
        arguments.features or arguments.data / FEATURES
    )
    assert features_net is not None
    values: dict[str, dict[str, Any]] = {}
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, all_sides(arguments) as sides:
        batches, clips, rebuilt = (Path(folder) / name for name in ("batches.u8", "clips.npy", "rebuilt.npy"))
        for name, side in sides.items():
            values[name] = side.ask("describe")
            versions |= {name: f"torch {values[name].pop('torch')}"}
            if "magvit2-pytorch" in values[name]:
                versions[name] = f"magvit2-pytorch {values[name].pop('magvit2-pytorch')}, {versions[name]}"
            say(f"{name}: {values[name]['parameters']:,} parameters, {versions[name]}")
        write_batches(batches, videos(arguments.data, arguments.cache), arguments.batches)
        names, originals = held_out_crops(arguments.data, protocol, arguments.clips)
        np.save(clips, originals)
        say(f"wrote {arguments.batches} batches and {len(names)} held-out clips")
        read = {"path": str(batches), "shape": [BATCH, 3, FRAMES, CROP, CROP]}
        for name, side in sides.items():
            say(f"{name} trains for {arguments.minutes:g} minutes")
            file = {} if name == "kinolex" else read
            done = side.ask("train", minutes=arguments.minutes, **file)
            values[name] |= {"clips_per_s_of_run" if key == "clips_per_s" else key: done[key] for key in done}
            side.ask("reconstruct", clips=str(clips), out=str(rebuilt))
            values[name] |= measure(originals, np.load(rebuilt), features_net, protocol.distance_every_nth)
            say(f"{name}: {done['steps']} steps, {values[name]['psnr_db']:.2f} dB, {done['peak_mib']:.0f} MiB")
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for number in range(arguments.rounds + 1):
            for name, side in sides.items():
                file = {} if name == "kinolex" else read
                # The first round warms up and is not counted.
                speeds = side.ask("round", clips=str(clips), seconds=arguments.round_s if number else 1.0, **file)
                if number:
                    rounds[name].append(speeds)
            say(f"round {number} of {arguments.rounds}")
    for name, value in values.items():
        value |= {key: statistics.median(one[key] for one in rounds[name]) for key in SPEEDS}
    record = {
        "name": "training, reconstruction and speed beside magvit2-pytorch",
        "command": f"python -m benchmarks.peers --data DIR --peer-python PYTHON --minutes {arguments.minutes:g} "
        f"--batches {arguments.batches} --rounds {arguments.rounds} --round-s {arguments.round_s:g} "
        f"--threads {arguments.threads}" + (f" --clips {arguments.clips}" if arguments.clips else ""),
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(),
        "versions": versions,
        "protocol": {
            "training": f"{arguments.minutes:g} minutes each, alone; {BATCH} clips of {FRAMES}x{CROP}x{CROP}",
            "loss": "pixels only: kinolex absolute error, magvit2-pytorch squared error and its quantizer's terms",
            "bits_per_token": 18,
            "pixels_per_token": [4, 8, 8],
            "precision": {"kinolex": "bfloat16", "readme": "float32", "tuned": "bfloat16"},
            "speed": f"median of {arguments.rounds} interleaved rounds; uint8 frames to ids and back, "
            f"one clip of {TEST_FRAMES}x{TEST_SIDE}x{TEST_SIDE}",
            "peak_mib": "resident memory of the training process",
            "reconstruction": asdict(protocol) | {"crop": f"centre {TEST_SIDE}x{TEST_SIDE}"},
        },
        "clips": names,
        "values": values,
        "kinolex_over_peer": {name: compared(values, name) for name in values if name != "kinolex"},
    }
    temporary = arguments.out.with_suffix(".part")
    temporary.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    temporary.replace(arguments.out)
    for name, value in values.items():
        figures = ("steps", "psnr_db", "squeezenet_distance", *SPEEDS, "peak_mib")
        print(name, {key: round(value[key], 3) for key in figures})


if __name__ == "__main__":
    main(tyro.cli(Arguments))

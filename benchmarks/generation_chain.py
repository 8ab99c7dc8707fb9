"""A thousand frames, window after window: python -m benchmarks.generation_chain --out benchmarks/generation_chain.json

The first frames of rendered worlds are gone on with, every window from the last tokens of the one before. Told are

- peak resident memory when a tenth, a half and all of the frames are made, each chain in a process of its own; and what
  is resident at those moments, because loading a model may be the peak of a short chain,
- drift of colour: mean of a frame per channel, in levels of 255; its slope, and its largest distance from the given,
- the seam: mean absolute difference of a window's first frame from the frame before it, over the same inside windows.
  A window begins with a latent frame, and latent frames may differ more than frames inside one, with or without
  windows; so the same is told over the beginnings of latent frames inside windows only,
- frames per second, tokens and pixels together.

Beside it stands the true world through the tokenizer, cut at the same places: what tokens show without a generator.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from kinolex.data.worlds import WorldConfig, render
from kinolex.errors import UsageError
from kinolex.evaluation.protocol import commit, hardware
from kinolex.generation import GenerateConfig, MaskedGenerator, Wish, compose, load_generator
from kinolex.generation.loading import WORLDS
from kinolex.sampling.parallel import ParallelConfig
from kinolex.types import Clip, Tokens

OUT = Path(__file__).with_suffix(".json")
GIVEN = 9
"""Frames; three latent frames, as many as training gives at most."""
AIM = 1.1
"""Of the seam."""

OnFrames = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    out: Path = OUT
    model: str = WORLDS
    side: tuple[int, ...] = (64,)
    frames: int = 1000
    worlds: int = 3
    seed: int = 0
    steps: int = 12


class Watch:
    """Frames pass by, a few numbers of each stay: memory must not grow because of us."""

    def __init__(self) -> None:
        self.means_TC: list[Tensor] = []
        self.steps_T: list[float] = []
        """Mean absolute difference from the frame before; 0 for the first."""
        self._last_CHW: Tensor | None = None

    def __call__(self, clip: Clip) -> None:
        for frame_CHW in clip.frames_TCHW.float():
            last_CHW = frame_CHW if self._last_CHW is None else self._last_CHW
            self.means_TC.append(frame_CHW.mean(dim=(1, 2)))
            self.steps_T.append(float((frame_CHW - last_CHW).abs().mean()))
            self._last_CHW = frame_CHW


@dataclass(frozen=True, slots=True)
class Chain:
    watch: Watch
    starts: tuple[int, ...]
    """Frames with which windows begin."""
    seconds: float


def chain(
    generator: MaskedGenerator,
    given: Clip,
    frames: int,
    config: GenerateConfig,
    on_frames: OnFrames = lambda done: None,
) -> Chain:
    """Go on from a clip to so many frames; on_frames is told how many are finished."""
    wish = Wish(task="frame-prediction", frames=frames, lines=None)
    posed = compose(given, wish, generator).posed
    tokenizer, watch, starts = generator.tokenizer, Watch(), []
    time_factor = tokenizer.pixels_per_token[0]

    def pieces() -> Iterator[Tokens]:
        done = 0
        for ids_thw in generator.stream(posed, config):
            starts.append(done)
            # The first latent frame of a stream holds one frame.
            more = min(len(ids_thw) * time_factor - (0 if done else time_factor - 1), frames - done)
            yield Tokens(ids_thw[None], "video", tokenizer.fingerprint, replace(posed.extent, frames=more))
            done += more

    began = time.perf_counter()
    for clip in tokenizer.decode_stream(pieces()):
        watch(clip)
        on_frames(len(watch.steps_T))
    # The first piece is what was given.
    return Chain(watch, tuple(starts[1:]), time.perf_counter() - began)


def drift(watch: Watch, given: int, fps: float) -> dict[str, Any]:
    """Of the mean colour, in levels of 255."""
    means_TC = torch.stack(watch.means_TC).double()
    away_TC = means_TC[given:] - means_TC[:given].mean(dim=0)
    times_T = torch.arange(len(away_TC), dtype=torch.float64) / fps
    centred_T = times_T - times_T.mean()
    slope_C = centred_T @ away_TC / centred_T.square().sum()
    return {
        "slope_levels_per_s": slope_C.tolist(),
        "largest_distance_levels": float(away_TC.abs().max()),
        "last_second_distance_levels": float(away_TC[-round(fps) :].mean(dim=0).abs().max()),
    }


def seam(watch: Watch, given: int, starts: Sequence[int], time_factor: int) -> dict[str, float]:
    """Boundary error over interior error, after the given frames.

    Raises:
        UsageError: not two windows, or windows of one latent frame, in which nothing is inside.
    """
    at_starts = [watch.steps_T[frame] for frame in starts]
    inside = [frame for frame in range(given, len(watch.steps_T)) if frame not in set(starts)]
    at_latents = [watch.steps_T[frame] for frame in inside if (frame - 1) % time_factor == 0]
    if len(starts) < 2 or not at_latents:
        raise UsageError(f"a seam needs two windows of two latent frames or more, got windows from {tuple(starts)}")
    boundary, interior = statistics.fmean(at_starts), statistics.fmean(watch.steps_T[frame] for frame in inside)
    return {
        "boundary_levels": boundary,
        "interior_levels": interior,
        # Where nothing moves there is nothing to divide by; 1e-6 levels are no movement.
        "boundary_over_interior": boundary / max(interior, 1e-6),
        "boundary_over_latent_frames_inside": boundary / max(statistics.fmean(at_latents), 1e-6),
    }


def measure(
    generator: MaskedGenerator, given: Clip, frames: int, config: GenerateConfig, *, marks: Sequence[int]
) -> tuple[dict[str, Any], tuple[int, ...]]:
    """All figures of one chain, and where its windows begin."""
    peaks: dict[str, float] = {}
    resident: dict[str, float] = {}

    def on_frames(done: int) -> None:
        for mark in marks:
            if done >= mark and str(mark) not in peaks:
                peaks[str(mark)], resident[str(mark)] = memory_mib()

    made = chain(generator, given, frames, config, on_frames)
    known, time_factor = made.starts[0], generator.tokenizer.pixels_per_token[0]
    first, last = str(min(marks)), str(max(marks))
    figures = {
        "peak_mib_at_frames": peaks,
        "resident_mib_at_frames": resident,
        "peak_growth": peaks[last] / peaks[first] - 1,
        "resident_growth": resident[last] / resident[first] - 1,
        "drift": drift(made.watch, known, float(given.fps)),
        "seam": seam(made.watch, known, made.starts, time_factor),
        "windows": len(made.starts),
        "frames_per_second": (frames - known) / made.seconds,
    }
    return figures, made.starts


def memory_mib() -> tuple[float, float]:
    """Peak and present resident memory of this process.

    Not getrusage: a child begins with the peak of the process that started it.
    """
    status = Path("/proc/self/status").read_text()
    peak, now = (int(status.split(f"{field}:")[1].split()[0]) / 1024 for field in ("VmHWM", "VmRSS"))
    return peak, now


def world_chain(model: str, side: int, frames: int, seed: int, steps: int, marks: tuple[int, ...]) -> dict[str, Any]:
    """One world: the chain, then the truth through the tokenizer. For a process that does nothing else."""
    generator = load_generator(model)
    # The first frames of a world do not depend on how many are rendered.
    world = render(seed, WorldConfig(frames=GIVEN, height=side, width=side))
    config = GenerateConfig(sampling=ParallelConfig(steps=steps), seed=seed)
    figures, starts = measure(generator, world.clip, frames, config, marks=marks)
    truth = render(seed, WorldConfig(frames=frames, height=side, width=side)).clip
    watch, tokenizer = Watch(), generator.tokenizer
    for clip in tokenizer.decode_stream(tokenizer.encode_stream([truth])):
        watch(clip)
    through = {
        "drift": drift(watch, GIVEN, float(truth.fps)),
        "seam": seam(watch, GIVEN, starts, tokenizer.pixels_per_token[0]),
    }
    return {"world": seed, "caption": world.caption} | figures | {"true_world_through_the_tokenizer": through}


def summary(chains: Sequence[dict[str, Any]]) -> dict[str, float | bool]:
    ratio = statistics.median(chain["seam"]["boundary_over_interior"] for chain in chains)
    return {
        "worst_peak_growth": max(chain["peak_growth"] for chain in chains),
        "worst_resident_growth": max(chain["resident_growth"] for chain in chains),
        "worst_slope_levels_per_s": max(abs(s) for chain in chains for s in chain["drift"]["slope_levels_per_s"]),
        "worst_distance_levels": max(chain["drift"]["largest_distance_levels"] for chain in chains),
        "median_seam": ratio,
        "median_seam_over_latent_frames_inside": statistics.median(
            chain["seam"]["boundary_over_latent_frames_inside"] for chain in chains
        ),
        "seam_within_aim": ratio <= AIM,
        "median_frames_per_second": statistics.median(chain["frames_per_second"] for chain in chains),
    }


def main(arguments: Arguments) -> None:
    frames = arguments.frames
    marks = tuple(sorted({max(GIVEN + 1, frames // 10), max(GIVEN + 1, frames // 2), frames}))
    values: dict[str, Any] = {}
    for side in arguments.side:
        chains = []
        for seed in range(arguments.seed, arguments.seed + arguments.worlds):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                job = pool.submit(world_chain, arguments.model, side, frames, seed, arguments.steps, marks)
                chains.append(job.result())
            print(f"{side}x{side}, world {seed}: {summary(chains[-1:])}", flush=True)
        values[f"{side}x{side}"] = {"summary": summary(chains), "chains": chains}
    record = {
        "name": "extension by chaining",
        "command": f"python -m benchmarks.generation_chain --model {arguments.model} "
        f"--side {' '.join(map(str, arguments.side))} --frames {frames} --worlds {arguments.worlds} "
        f"--seed {arguments.seed} --steps {arguments.steps}",
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(),
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__},
        "model": arguments.model,
        "frames": frames,
        "given_frames": GIVEN,
        "seam_aim": AIM,
        "values": values,
    }
    temporary = arguments.out.with_suffix(".part")
    temporary.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    temporary.replace(arguments.out)


if __name__ == "__main__":
    main(tyro.cli(Arguments))

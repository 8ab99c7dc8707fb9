"""Passes and wall clock of a clip with sound from words, by shipped weights: python -m benchmarks.poet_speed --out FILE

poet-world-nano makes picture and sound of captions, one clip at a time: token by token with a cache of keys and values
(the baseline), by coupled Jacobi decoding with windows of several sizes, which draws from the same distribution in
fewer passes, and token by token without a cache. Ways take turns on the same caption; with guidance the network is
asked twice a pass. Decoding tokens to pixels and samples is timed by itself.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks._progress import steps
from kinolex.data.worlds import WorldConfig
from kinolex.data.worlds.scene import describe, draw_scene
from kinolex.evaluation.protocol import commit, hardware
from kinolex.generation.decoding import DecodeConfig
from kinolex.generation.multimodal import DEFAULT, MultimodalGenerator, load_multimodal
from kinolex.sampling.choose import Choice
from kinolex.tasks.multimodal import task_named

OUT = Path(__file__).with_suffix(".json")
TASK = "text-to-both"
BASE, UNCACHED = "token by token, cached", "token by token, not cached"
GUIDANCE = (0.0, 3.0)
FIRST_SEED = 4_000_000
"""Worlds that nothing was trained on."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    out: Path = OUT
    model: str = DEFAULT
    captions: int = 5
    windows: tuple[int, ...] = (8, 16, 32)
    temperature: float = 0.9
    top_p: float = 0.95
    device: str = "cpu"


def ways(arguments: Arguments, guidance: float) -> dict[str, DecodeConfig]:
    choice = Choice(temperature=arguments.temperature, top_p=arguments.top_p)
    base = DecodeConfig(text=choice, video=choice, sound=choice, guidance=guidance)
    windows = {f"coupled Jacobi, window {size}": replace(base, window=size) for size in arguments.windows}
    return {BASE: base} | windows | {UNCACHED: replace(base, cached=False)}


def captions(generator: MultimodalGenerator, count: int) -> list[str]:
    lines = generator.model.config.lines
    world = WorldConfig(frames=generator.frames, height=lines, width=lines, fps=generator.fps)
    return [describe(draw_scene(FIRST_SEED + number, world), world.duration_s) for number in range(count)]


def timed(device: str, work: Any) -> tuple[float, Any]:
    if device != "cpu":
        torch.cuda.synchronize()
    began = time.perf_counter()
    found = work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began, found


def measure(arguments: Arguments) -> dict[str, Any]:
    generator, task = load_multimodal(arguments.model).to(arguments.device), task_named(TASK)
    found: dict[str, Any] = {}
    decoding: list[float] = []
    for guidance in GUIDANCE:
        configs = ways(arguments, guidance)
        seconds: dict[str, list[float]] = {name: [] for name in configs}
        passes: dict[str, list[int]] = {name: [] for name in configs}
        tokens = 0
        # The first caption warms up and is not counted.
        said = captions(generator, arguments.captions + 1)
        for number, caption in enumerate(steps(said, f"guidance {guidance:g}")):
            material = generator.material(task, text=caption)
            for name, config in configs.items():
                if number == 0 and name == UNCACHED:
                    continue
                took, (made, asked, tokens) = timed(
                    arguments.device, lambda m=material, c=config, n=number: generator.make(task, m, replace(c, seed=n))
                )
                if number:
                    seconds[name].append(took)
                    passes[name].append(asked)
            took, _ = timed(arguments.device, lambda m=material, o=made: generator.finish(task, m, o, None))
            decoding += [took] if number else []
        base_s, base_passes = statistics.median(seconds[BASE]), statistics.fmean(passes[BASE])
        found[f"guidance {guidance:g}"] = {
            name: {
                "seconds": statistics.median(seconds[name]),
                "seconds_of_captions": seconds[name],
                "passes": statistics.fmean(passes[name]),
                "tokens_per_second": tokens / statistics.median(seconds[name]),
                "times_fewer_passes": base_passes / statistics.fmean(passes[name]),
                "speed_over_token_by_token": base_s / statistics.median(seconds[name]),
            }
            for name in configs
        }
    frames = generator.frames
    return {
        "frames": frames,
        "tokens": tokens,
        "parameters": sum(value.numel() for value in generator.model.parameters()),
        "ways": found,
        "tokens_to_pixels_and_samples_seconds": statistics.median(decoding),
        "fingerprint": generator.fingerprint,
    }


def main(arguments: Arguments) -> None:
    values = measure(arguments)
    on_gpu = arguments.device != "cpu"
    record = {
        "name": "speed of a clip with sound from words",
        "command": f"python -m benchmarks.poet_speed --model {arguments.model} --captions {arguments.captions} "
        f"--windows {' '.join(map(str, arguments.windows))} --temperature {arguments.temperature} "
        f"--top-p {arguments.top_p} --device {arguments.device}",
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": torch.cuda.get_device_name(arguments.device) if on_gpu else hardware(),
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__},
        "threads": torch.get_num_threads(),
        "values": values,
    }
    temporary = arguments.out.with_suffix(".part")
    temporary.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    temporary.replace(arguments.out)
    for setting, each in values["ways"].items():
        for name, one in each.items():
            print(
                f"{setting}, {name:28} {one['seconds']:7.2f} s {one['passes']:6.0f} passes "
                f"{one['tokens_per_second']:6.0f} tokens/s {one['speed_over_token_by_token']:5.2f} times the first"
            )


if __name__ == "__main__":
    main(tyro.cli(Arguments))

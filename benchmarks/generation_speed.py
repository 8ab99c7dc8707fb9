"""Wall clock of three ways to make 17 frames of 128x128: python -m benchmarks.generation_speed --out FILE.json

Random weights of nano size make all tokens of one window, 5x16x16 from nothing: masked in 12 passes, token by token
with a cache of keys and values, and diffusion in 50 and 12 steps, in interleaved rounds; speed does not depend on what
weights have learned. Token by token without a cache, every token reads all before it again: it is timed at a few
places and summed over all by straight lines between them, and the file says so. Each way has the precision that is
quickest for it, found before the rounds. Decoding the tokens to pixels is timed by itself.

With --device cuda the masked generator of the paper's size B is timed besides: 16 frames of 128x128, grid 4x16x16, 12
passes, tokenizer of size B.
"""

from __future__ import annotations

import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import tyro
from einops import rearrange
from torch import Tensor

from kinolex import checkpoint
from kinolex.evaluation.protocol import commit, hardware
from kinolex.generation.baselines import question, step_fn, velocity_fn
from kinolex.masks import HIDDEN
from kinolex.models.factors import split_ids
from kinolex.models.masked import PRESETS, MaskedConfig, MaskedTransformer
from kinolex.sampling.autoregressive import sample_autoregressive
from kinolex.sampling.choose import Choice
from kinolex.sampling.flow import FlowConfig, sample_flow, seeded_noise
from kinolex.sampling.parallel import FactorLogits, ParallelConfig, sample_parallel
from kinolex.tasks.video import TASK_NAMES
from kinolex.tokenizers import magvit, magvit2
from kinolex.tokenizers.networks import build_network
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training.baselines import KINDS, network_of, training_flops_per_token
from kinolex.types import Extent, Tokens

OUT = Path(__file__).with_suffix(".json")
FRAMES, SIDE, GRID = 17, 128, (5, 16, 16)
PAPER_FRAMES, PAPER_GRID = 16, (4, 16, 16)
MASKED_STEPS, FLOW_STEPS = 12, (50, 12)
MAX_WORDS = 16
BASE = "autoregressive, cached"
UNCACHED = "autoregressive, not cached"

Work = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    out: Path = OUT
    rounds: int = 5
    device: str = "cpu"
    places: int = 9
    """Tokens at which decoding without a cache is timed."""


class Stopwatch:
    """Seconds of a piece of work, with what a GPU still has to do."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, work: Work) -> float:
        self._wait()
        began = time.perf_counter()
        with torch.inference_mode():
            work()
        self._wait()
        return time.perf_counter() - began

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def built(config: Any, device: torch.device) -> Any:
    torch.manual_seed(0)
    return checkpoint.KINDS[type(config)].build(config).eval().requires_grad_(False).to(device)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def masked_pass(model: MaskedTransformer, grid: tuple[int, int, int]) -> Callable[[Tensor], FactorLogits]:
    """What sampling asks of a masked generator, for a class and no words."""
    device = next(model.parameters()).device
    tasks_B, first_B = torch.zeros(1, dtype=torch.long, device=device), torch.ones(1, dtype=torch.bool, device=device)
    words_BP = torch.zeros(1, model.config.max_words, dtype=torch.long, device=device)
    radix_F = torch.tensor([1, *model.config.factors[:-1]], device=device).cumprod(dim=0)

    def logits_fn(ids_BLF: Tensor) -> FactorLogits:
        hidden_BL = (ids_BLF == HIDDEN).any(dim=-1)
        ids_BL = torch.where(hidden_BL, HIDDEN, (ids_BLF.clamp(min=0) * radix_F).sum(dim=-1))
        hidden_BLD = model.hidden(ids_BL.reshape(-1, *grid), tasks_B, words_BP, first_B)
        return lambda factor, chosen_BLF: model.logits(hidden_BLD, factor, chosen_BLF)

    return logits_fn


def masked_work(model: MaskedTransformer, grid: tuple[int, int, int], steps: int) -> Work:
    device = next(model.parameters()).device
    shape = (1, grid[0] * grid[1] * grid[2], len(model.config.factors))
    condition_BLF = torch.full(shape, HIDDEN, device=device)
    logits_fn = masked_pass(model, grid)
    return lambda: sample_parallel(logits_fn, condition_BLF, ParallelConfig(steps=steps), seeded())


def autoregressive_work(model: Any) -> Work:
    device = next(model.parameters()).device
    asked = question(model, "class", torch.full(GRID, HIDDEN), torch.zeros(MAX_WORDS, dtype=torch.long))
    hidden_BLF = split_ids(torch.full((1, GRID[0] * GRID[1] * GRID[2]), HIDDEN, device=device), model.config.factors)
    return lambda: sample_autoregressive(step_fn(model, asked), hidden_BLF, Choice(), seeded())


def uncached_works(model: Any, places: int) -> dict[int, Work]:
    """One token at each of a few places, everything before it read again."""
    model = model.folded()
    asked = question(model, "class", torch.full(GRID, HIDDEN), torch.zeros(MAX_WORDS, dtype=torch.long))
    total = GRID[0] * GRID[1] * GRID[2]
    ids_BL = torch.randint(512, (1, total), generator=seeded()).to(asked.tasks_B.device)
    before_BLF = split_ids(torch.cat([torch.full_like(ids_BL[:, :1], HIDDEN), ids_BL[:, :-1]], 1), model.config.factors)
    chosen_B1F = torch.zeros_like(before_BLF[:, :1])

    def one(place: int) -> None:
        factor_logits = step_fn(model, asked, cached=False)(0, before_BLF[:, : place + 1])
        for factor in range(len(model.config.factors)):
            factor_logits(factor, chosen_B1F)

    spread = torch.linspace(0, total - 1, places).round().int().tolist()
    return {place: lambda place=place: one(place) for place in spread}


def diffusion_work(model: Any, steps: int) -> Work:
    asked = question(model, "class", torch.full(GRID, HIDDEN), torch.zeros(MAX_WORDS, dtype=torch.long))
    shape = (1, GRID[0] * GRID[1] * GRID[2], len(model.config.factors))
    velocity = velocity_fn(model, asked)
    device = asked.tasks_B.device
    return lambda: model.ids(sample_flow(velocity, seeded_noise(shape, seeded(), device), FlowConfig(steps=steps)))


def decode_work(tokenizer: VideoTokenizer, frames: int, grid: tuple[int, int, int]) -> Work:
    ids_thw = torch.randint(tokenizer.vocab_size, grid, generator=seeded())
    extent = Extent(frames=frames, height=SIDE, width=SIDE, fps=Fraction(24))
    tokens = Tokens(rearrange(ids_thw, "t h w -> 1 t h w"), "video", tokenizer.fingerprint, extent)
    return lambda: tokenizer.decode(tokens)


def quickest(watch: Stopwatch, models: dict[str, Any], trial: Callable[[Any], Work], autocast: bool) -> str:
    """The precision in which a short trial ends first; models are the same network in each."""
    times = {}
    for precision, model in models.items():
        work = in_precision(trial(model), precision, watch.device.type, autocast)
        watch(work)
        times[precision] = min(watch(work) for _ in range(3))
    return min(times, key=lambda precision: times[precision])


def in_precision(work: Work, precision: str, device: str, autocast: bool) -> Work:
    """Networks that read many tokens a pass cast as they go; the others have weights that were cast before."""

    def run() -> object:
        with torch.autocast(device, dtype=torch.bfloat16) if autocast and precision == "bfloat16" else nullcontext():
            return work()

    return run


def integral(seconds: dict[int, float], total: int) -> float:
    """Sum over all tokens of times that were taken at some, by straight lines between them."""
    whole = 0.0
    for (left, first), (right, last) in pairwise(sorted(seconds.items())):
        whole += sum(first + (last - first) * (place - left) / (right - left) for place in range(left, right))
    return whole + seconds[total - 1]


def nano_rounds(arguments: Arguments, watch: Stopwatch) -> dict[str, Any]:
    """Medians of the nano networks."""
    device = watch.device
    masked_config = MaskedConfig(tokenizer="", tasks=TASK_NAMES, max_words=MAX_WORDS, **PRESETS["nano"])
    networks = {kind: built(network_of(masked_config, kind), device) for kind in KINDS}
    precisions: dict[str, str] = {}
    works: dict[str, Work] = {}

    def add(
        name: str, models: dict[str, Any], work: Callable[[Any], Work], trial: Callable[[Any], Work], autocast: bool
    ) -> Any:
        precisions[name] = quickest(watch, models, trial, autocast)
        model = models[precisions[name]]
        works[name] = in_precision(work(model), precisions[name], device.type, autocast)
        return model

    def alike(kind: str) -> dict[str, Any]:
        return dict.fromkeys(("float32", "bfloat16"), networks[kind])

    add(
        f"masked, {MASKED_STEPS} steps",
        alike("masked"),
        lambda model: masked_work(model, GRID, MASKED_STEPS),
        lambda model: masked_work(model, GRID, 1),
        True,
    )
    folded = networks["autoregressive"].folded()
    weights = {"float32": folded, "bfloat16": copy.deepcopy(folded).bfloat16()}
    stepwise = add(BASE, weights, autoregressive_work, lambda model: first_tokens(model, 64), False)
    for steps in FLOW_STEPS:
        add(
            f"diffusion, {steps} steps",
            alike("diffusion"),
            lambda model, steps=steps: diffusion_work(model, steps),
            lambda model: diffusion_work(model, 1),
            True,
        )
    tokenizer = VideoTokenizer(build_network(magvit2.PRESETS["nano"]), "random").to(device)
    works["tokens to pixels"] = decode_work(tokenizer, FRAMES, GRID)
    uncached = uncached_works(stepwise, arguments.places)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    at_places: dict[int, list[float]] = {place: [] for place in uncached}
    for number in range(arguments.rounds + 1):
        for name, work in works.items():
            taken = watch(work)
            # The first round warms up and is not counted.
            seconds[name] += [taken] if number else []
        for place, work in uncached.items():
            taken = watch(work)
            at_places[place] += [taken] if number else []
        print(f"round {number} of {arguments.rounds}", file=sys.stderr)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    decoding = medians.pop("tokens to pixels")
    median_places = {place: statistics.median(values) for place, values in at_places.items()}
    medians[UNCACHED] = integral(median_places, GRID[0] * GRID[1] * GRID[2])
    return {
        "parameters": {kind: sum(value.numel() for value in networks[kind].parameters()) for kind in KINDS},
        "training_flops_per_token": {kind: training_flops_per_token(networks[kind].config, GRID) for kind in KINDS},
        "precision": precisions | {UNCACHED: precisions[BASE]},
        "seconds": medians,
        "seconds_of_rounds": {name: values for name, values in seconds.items() if name in medians},
        "speed_over_autoregressive_cached": {name: medians[BASE] / value for name, value in medians.items()},
        "frames_per_second_with_pixels": {name: FRAMES / (value + decoding) for name, value in medians.items()},
        "tokens_to_pixels_seconds": decoding,
        "not_cached": {
            "how": f"one token timed at each of {arguments.places} places, straight lines between them summed over all "
            "tokens; not run to the end",
            "seconds_of_token": median_places,
        },
    }


def first_tokens(model: Any, count: int) -> Work:
    """The prefix and the first tokens, the others being known."""
    asked = question(model, "class", torch.full(GRID, HIDDEN), torch.zeros(MAX_WORDS, dtype=torch.long))
    known_BLF = torch.zeros(1, GRID[0] * GRID[1] * GRID[2], len(model.config.factors), dtype=torch.long)
    known_BLF[:, :count] = HIDDEN
    known_BLF = known_BLF.to(asked.tasks_B.device)
    return lambda: sample_autoregressive(step_fn(model, asked), known_BLF, Choice(), seeded())


def paper_rounds(arguments: Arguments, watch: Stopwatch) -> dict[str, Any]:
    """The paper's size B in bfloat16."""
    device = watch.device
    model = built(MaskedConfig(tokenizer="", **PRESETS["paper-B"]), device)
    tokenizer = VideoTokenizer(build_network(magvit.PRESETS["paper-b"]), "random", precision="bfloat16").to(device)
    works = {
        "tokens": in_precision(masked_work(model, PAPER_GRID, MASKED_STEPS), "bfloat16", device.type, True),
        "pixels": decode_work(tokenizer, PAPER_FRAMES, PAPER_GRID),
    }
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(arguments.rounds + 1):
        for name, work in works.items():
            taken = watch(work)
            seconds[name] += [taken] if number else []
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "frames": PAPER_FRAMES,
        "grid": PAPER_GRID,
        "steps": MASKED_STEPS,
        "parameters": sum(value.numel() for value in model.parameters()),
        "seconds": medians,
        "frames_per_second": PAPER_FRAMES / sum(medians.values()),
    }


def main(arguments: Arguments) -> None:
    device = torch.device(arguments.device)
    watch = Stopwatch(device)
    on_gpu = device.type == "cuda"
    record: dict[str, Any] = {
        "name": "speed of generation beside autoregressive and diffusion baselines",
        "command": f"python -m benchmarks.generation_speed --rounds {arguments.rounds} --device {arguments.device} "
        f"--places {arguments.places}",
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": torch.cuda.get_device_name(device) if on_gpu else hardware(),
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__},
        "threads": torch.get_num_threads(),
        "frames": FRAMES,
        "pixels": f"{SIDE}x{SIDE}",
        "grid": GRID,
        "rounds": arguments.rounds,
        "batch": 1,
        "weights": "random, of nano size; no clip is given",
        "values": nano_rounds(arguments, watch),
    }
    if on_gpu:
        record["paper_B"] = paper_rounds(arguments, watch)
    temporary = arguments.out.with_suffix(".part")
    temporary.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    temporary.replace(arguments.out)
    for name, seconds in record["values"]["seconds"].items():
        ratio = record["values"]["speed_over_autoregressive_cached"][name]
        print(f"{name:30} {seconds:8.3f} s {ratio:8.2f} times autoregressive, cached")
    print(f"{'tokens to pixels':30} {record['values']['tokens_to_pixels_seconds']:8.3f} s")


if __name__ == "__main__":
    main(tyro.cli(Arguments))

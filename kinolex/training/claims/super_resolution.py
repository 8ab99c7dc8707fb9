"""Super-resolution in token space: windows beat bicubic, and need less memory and arithmetic than full attention.

pairs of worlds --UpscaleTrainer--> a network with windows, and one whose windows are the whole picture
held-out worlds --small tokens--> each network, bicubic --> 1 - SSIM to the large rendering
untrained networks, a large grid --> bytes kept for the backward pass, operations of a pass

Both networks have the same parameters, worlds and steps. What is trained is no generator of tasks, so this claim stands
beside the other claims, not among their arms.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kinolex import checkpoint, hub, metrics
from kinolex.evaluation.protocol import Hashed
from kinolex.evaluation.row_store import RowStore, row_key
from kinolex.evaluation.upscale import UpscaleProtocol, enlarge_worlds
from kinolex.generation.super_resolution import UpscaleConfig, Upscaler
from kinolex.models.factors import split_ids
from kinolex.models.super_resolution import FACTOR, LAYERS, PRESETS, SuperResolution, SuperResolutionConfig
from kinolex.training.claims.beside import Told, result_of, write_verdict
from kinolex.training.claims.lab import Say
from kinolex.training.claims.rules import COVERAGE, Finding, log_ratios, more_than
from kinolex.training.claims.scales import scale_among
from kinolex.training.config import OptimizerConfig
from kinolex.training.upscale_draws import PairSource, draw_pairs
from kinolex.training.upscale_run import UpscaleTrainConfig, UpscaleTrainer

TOLD = Told(
    name="super-resolution",
    source="VideoPoet, arXiv 2312.14125, section 3.4",
    statement="Super-resolution in token space with attention in local windows comes nearer to the large picture than "
    "bicubic interpolation, and needs less memory and arithmetic than full attention",
    rule="1 - SSIM to held-out worlds: bicubic's is higher than that of windows; full attention keeps more bytes for "
    "the backward pass and takes more operations on a large grid: 95 % t-intervals over seeds of the log ratios above "
    "0, three times; fail if one lies below 0",
)
NAME = TOLD.name
WINDOWS, FULL, BICUBIC = "windows", "full attention", "bicubic"
ARMS = (WINDOWS, FULL, BICUBIC)
DISTANCE, KEPT, OPERATIONS = "1 - ssim", "bytes kept", "operations"
VERSION = 1
"""Raised when the meaning of a figure changes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UpscaleScale:
    name: str
    tokenizer: str = "magvit2-world-nano"
    lines: int
    """Of the small worlds."""
    clips: int
    network: dict[str, Any] = field(default_factory=lambda: PRESETS["nano"])
    """Fields of SuperResolutionConfig."""
    steps: int
    batch: int
    eval_clips: int
    cost_lines: int
    """Of the small picture on which memory and arithmetic are measured."""
    seeds: tuple[int, ...] = (0, 1, 2)

    def recipe(self, arm: str, seed: int) -> UpscaleTrainConfig:
        """Both networks learn from the same worlds whatever the seed; it decides weights, masks and batches."""
        network = SuperResolutionConfig(tokenizer="", **self.network)
        if arm == FULL:
            side = FACTOR * max(self.lines, self.cost_lines) // 8 + FACTOR
            network = replace(network, **dict.fromkeys(LAYERS, (network.latent_frames, side, side)))
        return UpscaleTrainConfig(
            tokenizer=self.tokenizer,
            network=network,
            source=PairSource(clips=self.clips, side=self.lines),
            steps=self.steps,
            batch=self.batch,
            clip_latents=network.latent_frames,
            optimizer=OptimizerConfig(muon_lr=0.02, adam_lr=2e-3, ema_decay=0.99, warmup_steps=min(50, self.steps)),
            save_every=max(1, self.steps // 3),
            seed=seed,
        )


TINY = PRESETS["nano"] | {"width": 16, "depth": 1, "heads": 2, "latent_frames": 2}
SCALES: dict[str, UpscaleScale] = {
    scale.name: scale
    for scale in (
        UpscaleScale(name="tiny", lines=16, clips=2, network=TINY, steps=2, batch=2, eval_clips=2, cost_lines=64),
        UpscaleScale(name="nano", lines=48, clips=600, steps=450, batch=4, eval_clips=32, cost_lines=96),
        UpscaleScale(
            name="small",
            lines=64,
            clips=5000,
            network=PRESETS["nano"] | {"width": 256, "depth": 4},
            steps=10_000,
            batch=16,
            eval_clips=128,
            cost_lines=128,
            seeds=(0, 1, 2, 3, 4),
        ),
    )
}
"""tiny is for tests: it runs, and says nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimProtocol(Hashed):
    """All that must agree before two results may be compared."""

    scale: UpscaleScale
    tokenizer: str
    """Fingerprint."""
    claim: str = NAME
    interval: str = f"Student's t over seeds, paired by seed, coverage {COVERAGE:g}"
    seed: int = 0
    bootstrap_draws: int = 10_000
    version: int = VERSION


scale_named = partial(scale_among, SCALES)


def costs(config: SuperResolutionConfig, lines: int) -> dict[str, float]:
    """Of one training pass over a square picture whose small side has so many lines, by plain matrix products.

    Returns:
        Bytes kept for the backward pass, in float32, weights not counted; operations of the forward pass.
    """
    torch.manual_seed(0)
    side, length = lines // 8, config.latent_frames
    with torch.device("meta"):
        model = SuperResolution(config)
        small_Bthw = torch.zeros(1, length, side, side, dtype=torch.long)
        large_Bthw = torch.zeros(1, length, FACTOR * side, FACTOR * side, dtype=torch.long)
        weights, kept = {id(parameter) for parameter in model.parameters()}, dict[int, Tensor]()

        def remember(tensor: Tensor) -> Tensor:
            # A view keeps what it is a view of, once.
            whole = tensor if tensor._base is None else tensor._base
            if id(whole) not in weights:
                kept[id(whole)] = whole
            return tensor

        counter = FlopCounterMode(display=False)
        with counter, sdpa_kernel(SDPBackend.MATH), saved_tensors_hooks(remember, lambda tensor: tensor):
            target_BLF = split_ids(large_Bthw.flatten(1), config.factors)
            model(large_Bthw, small_Bthw, torch.ones(1, dtype=torch.bool), target_BLF)
    held = sum(tensor.numel() * tensor.element_size() for tensor in kept.values())
    return {KEPT: float(held), OPERATIONS: float(counter.get_total_flops())}


def training_flops(scale: UpscaleScale) -> int:
    """Operations of training both networks for all seeds: backward is twice forward."""
    passes = 3 * scale.steps * scale.batch * len(scale.seeds)
    return passes * sum(int(costs(scale.recipe(arm, 0).network, scale.lines)[OPERATIONS]) for arm in (WINDOWS, FULL))


def reproduce_super_resolution(
    scale: UpscaleScale,
    folder: Path,
    results: Path | None = None,
    *,
    device: str = "cpu",
    command: str | None = None,
    say: Say = lambda _line: None,
) -> dict[str, Any]:
    """Test the claim, or go on where an earlier call stopped.

    Args:
        folder: keeps tokens, networks and finished rows.
        results: gets reproduce_NAME.json and its page; None writes nothing.

    Returns:
        A result in the schema of kinolex.evaluation.protocol with `verdict` and `findings`.
    """
    folder = folder / f"{NAME}-{scale.name}"
    tokenizer = hub.load(scale.tokenizer).to(device)
    store, rows = RowStore(folder / "rows.jsonl"), list[dict[str, Any]]()
    for seed in scale.seeds:
        for arm in (WINDOWS, FULL):
            config = scale.recipe(arm, seed)
            key = row_key(VERSION, tokenizer.fingerprint, asdict(config), scale.eval_clips, scale.cost_lines)
            if (row := store.get(key)) is None:
                say(f"{NAME}: {arm}, seed {seed}")
                run = UpscaleTrainer(config, tokenizer, folder / key, device=device)
                # The worlds are those of seed 0 for every seed.
                run.pairs = draw_pairs(replace(run.plan, seed=0), folder / "tokens" / tokenizer.fingerprint[:12])
                began = time.monotonic()
                model = run.run()
                checkpoint.save(folder / key / "weights", model, card=f"# {arm}, seed {seed}\n")
                seconds = time.monotonic() - began
                figures = _measured(Upscaler(model, tokenizer, key), scale, seed)
                row = store.put(key, figures | costs(config.network, scale.cost_lines) | {"train_seconds": seconds})
            rows.append({"name": f"{arm}, seed {seed}", "arm": arm, "seed": seed} | row)
    result = summarised(rows, ClaimProtocol(scale=scale, tokenizer=tokenizer.fingerprint), command)
    if results is not None:
        write_verdict(
            results, TOLD, result, "means over seeds; bytes and operations are of one large pass, without training"
        )
    return result


def findings_of(rows: list[dict[str, Any]]) -> list[Finding]:
    windows, full = ([row for row in rows if row["arm"] == arm] for arm in (WINDOWS, FULL))
    ours = [row[DISTANCE] for row in windows]
    finding = more_than(
        f"{DISTANCE} of {BICUBIC} over that of {WINDOWS}", log_ratios([row["bicubic"] for row in windows], ours)
    )
    costs = (
        more_than(
            f"{key} by {FULL} over those by {WINDOWS}",
            log_ratios([row[key] for row in full], [row[key] for row in windows]),
        )
        for key in (KEPT, OPERATIONS)
    )
    return [finding, *costs]


def summarised(rows: list[dict[str, Any]], protocol: ClaimProtocol, command: str | None) -> dict[str, Any]:
    """The result of rows of all seeds and arms."""
    means = {
        arm: {
            key: statistics.fmean(row[key] for row in rows if row["arm"] == arm)
            for key in (DISTANCE, "psnr_db", KEPT, OPERATIONS, "train_seconds")
        }
        for arm in (WINDOWS, FULL)
    }
    means[BICUBIC] = {
        DISTANCE: statistics.fmean(row["bicubic"] for row in rows),
        "psnr_db": statistics.fmean(row["bicubic psnr_db"] for row in rows),
    }
    return result_of(TOLD, rows, findings_of(rows), means, protocol, protocol.scale.seeds, command)


def _measured(upscaler: Upscaler, scale: UpscaleScale, seed: int) -> dict[str, float]:
    """Distances of held-out worlds, made and by bicubic, to their large renderings."""
    config = UpscaleConfig(seed=1000 * seed)
    frames = max(4, 1 + 4 * (upscaler.config.latent_frames - 1))
    protocol = UpscaleProtocol.of(config, worlds=scale.eval_clips, lines=scale.lines, frames=frames)
    found: dict[str, list[float]] = {DISTANCE: [], "psnr_db": [], "bicubic": [], "bicubic psnr_db": []}
    for each in enlarge_worlds(upscaler, config, protocol):
        true_TCHW = each.original.frames_TCHW
        for clip, distance, decibels in (
            (each.made, DISTANCE, "psnr_db"),
            (each.bicubic, "bicubic", "bicubic psnr_db"),
        ):
            found[distance].append(1 - metrics.ssim(true_TCHW, clip.frames_TCHW))
            found[decibels].append(metrics.psnr_db(true_TCHW, clip.frames_TCHW))
    return {key: statistics.fmean(values) for key, values in found.items()}

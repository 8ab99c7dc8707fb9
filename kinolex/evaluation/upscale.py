"""Twice the lines of worlds never learned from: what super-resolution makes of small tokens, beside simpler ways.

    world at both sizes --small--> tokens --upscale, decode--> made
                                          --decode, bicubic--> bicubic
                        --large--> tokens --decode-----------> ceiling      each against the large rendering

No super-resolution of these tokens can be expected to beat the ceiling, and one that does not beat bicubic is of no
use. What is in a picture is measured without any network.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from kinolex import metrics
from kinolex.data.worlds import WorldConfig, asked_of, judge_each, render
from kinolex.errors import ConfigError
from kinolex.evaluation.protocol import Hashed, make_result, write_result
from kinolex.generation.super_resolution import UpscaleConfig, Upscaler
from kinolex.metrics import SqueezeNetFeatures
from kinolex.models.super_resolution import FACTOR
from kinolex.types import Clip

FIRST_SEED = 5_500_000
SYSTEMS = ("made", "bicubic", "ceiling")
ATTRIBUTES = ("number", "colour", "shape", "size", "motion")


@dataclass(frozen=True, kw_only=True, slots=True)
class UpscaleProtocol(Hashed):
    """Which worlds, how their large tokens are drawn, and with what they are compared."""

    worlds: int = 40
    lines: int = 64
    """Of the small pictures."""
    frames: int = 17
    fps: int = 12
    max_bodies: int = 2
    steps: int
    temperature: float
    settle_temperature: float
    guidance: float
    features_sha256: str | None = None
    """Of the weights of the perceptual backbone; None measures no perceptual distance."""
    seed: int = 0
    bootstrap_draws: int = 10_000
    version: int = 1
    """Raised when the meaning of a figure changes."""

    def __post_init__(self) -> None:
        if self.worlds < 2 or min(self.max_bodies, self.fps, self.bootstrap_draws) < 1 or self.frames < 4:
            raise ConfigError(f"a protocol needs at least two worlds of four frames and one body, got {self}")

    @classmethod
    def of(cls, config: UpscaleConfig, **fields: Any) -> UpscaleProtocol:
        """The protocol of a way of drawing."""
        sampling = config.sampling
        return cls(
            steps=sampling.steps,
            temperature=sampling.choice.temperature,
            settle_temperature=sampling.settle_temperature,
            guidance=config.guidance,
            seed=config.seed,
            **fields,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Enlarged:
    """One world, large, in each way."""

    caption: str
    original: Clip
    made: Clip
    bicubic: Clip
    ceiling: Clip
    upscale_s: float
    """Seconds of drawing the large tokens."""


def bicubic(clip: Clip) -> Clip:
    """Twice the rows and columns by bicubic interpolation; sound stays."""
    # With antialias torch takes the kernel of -1/2, which keeps straight ramps; without, that of -3/4.
    size = (FACTOR * clip.height, FACTOR * clip.width)
    large_TCHW = F.interpolate(clip.frames_TCHW.float(), size, mode="bicubic", antialias=True, align_corners=False)
    return replace(clip, frames_TCHW=large_TCHW.round_().clamp_(0, 255).to(torch.uint8))


def enlarge_worlds(
    upscaler: Upscaler, config: UpscaleConfig, protocol: UpscaleProtocol, *, first_seed: int = FIRST_SEED
) -> Iterator[Enlarged]:
    """Each world of a protocol in all ways."""
    tokenizer = upscaler.tokenizer
    for index in range(protocol.worlds):
        small, large = (
            render(
                first_seed + index,
                WorldConfig(
                    frames=protocol.frames,
                    height=lines,
                    width=lines,
                    fps=Fraction(protocol.fps),
                    max_bodies=protocol.max_bodies,
                ),
            )
            for lines in (protocol.lines, FACTOR * protocol.lines)
        )
        tokens = tokenizer.encode(small.clip)
        began = time.perf_counter()
        made = upscaler.upscale(tokens, replace(config, seed=config.seed + index))
        upscale_s = time.perf_counter() - began
        yield Enlarged(
            caption=small.caption,
            original=large.clip,
            made=tokenizer.decode(made),
            bicubic=bicubic(tokenizer.decode(tokens)),
            ceiling=tokenizer.decode(tokenizer.encode(large.clip)),
            upscale_s=upscale_s,
        )


def evaluate_upscale(
    upscaler: Upscaler,
    config: UpscaleConfig,
    protocol: UpscaleProtocol,
    out_dir: str | Path | None = None,
    *,
    features_path: str | Path | None = None,
    model_name: str = "model",
    command: str | None = None,
    on_clip: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, Any]:
    """Measure an upscaler on held-out worlds.

    Args:
        config: how large tokens are drawn; the protocol must say the same (UpscaleProtocol.of).
        out_dir: gets upscale_MODEL.json; None writes nothing.
        features_path: weights of the perceptual network; None measures no squeezenet_distance.

    Returns:
        A result in the schema of kinolex.evaluation.protocol. Every figure is given for "made", "bicubic" and
        "ceiling": psnr_db, ssim, squeezenet_distance against the large rendering, and shares of bodies whose attributes
        are right. "made over bicubic" is the difference in each world, whose interval tells whether one is better.
    """
    features_net = None
    if features_path is not None:
        features_net = SqueezeNetFeatures(features_path)
        digest = hashlib.sha256(Path(features_path).read_bytes()).hexdigest()
        protocol = replace(protocol, features_sha256=digest)
    rows: list[dict[str, Any]] = []
    for number, each in enumerate(enlarge_worlds(upscaler, config, protocol), start=1):
        figures = {name: _figures(each, getattr(each, name), features_net) for name in SYSTEMS}
        row: dict[str, Any] = {"name": each.caption, "upscale_s": each.upscale_s}
        row |= {f"{name} {key}": value for name, found in figures.items() for key, value in found.items()}
        row |= {
            f"made over bicubic {key}": figures["made"][key] - figures["bicubic"][key]
            for key in figures["made"]
            if key not in ATTRIBUTES
        }
        rows.append(row)
        on_clip(number, protocol.worlds)
    result = make_result(f"upscale_{model_name}", rows, protocol, command=command)
    result["upscaler"] = upscaler.fingerprint
    if out_dir is not None:
        write_result(Path(out_dir) / f"upscale_{model_name}.json", result)
    return result


def _figures(each: Enlarged, clip: Clip, features_net: SqueezeNetFeatures | None) -> dict[str, float]:
    a_TCHW, b_TCHW = each.original.frames_TCHW, clip.frames_TCHW
    figures = {"psnr_db": metrics.psnr_db(a_TCHW, b_TCHW), "ssim": metrics.ssim(a_TCHW, b_TCHW)}
    if features_net is not None:
        figures["squeezenet_distance"] = metrics.squeezenet_distance(features_net, a_TCHW, b_TCHW)
    judged = judge_each(clip, asked_of(each.caption))
    return figures | {name: sum(bool(getattr(one, name)) for one in judged) / len(judged) for name in ATTRIBUTES}

"""Super-resolution is measured beside bicubic and beside what its tokens allow."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from kinolex.errors import ConfigError
from kinolex.evaluation.upscale import ATTRIBUTES, SYSTEMS, UpscaleProtocol, bicubic, enlarge_worlds, evaluate_upscale
from kinolex.generation.super_resolution import UpscaleConfig, Upscaler
from kinolex.metrics import psnr_db
from kinolex.sampling.choose import Choice
from kinolex.sampling.parallel import ParallelConfig
from kinolex.types import Clip

CONFIG = UpscaleConfig(sampling=ParallelConfig(steps=2, choice=Choice(temperature=0.0)))
PROTOCOL = UpscaleProtocol.of(CONFIG, worlds=2, lines=32, frames=5, bootstrap_draws=100)


def test_a_network_that_has_learned_nothing_is_found_out(tiny_upscaler: Upscaler, tmp_path: Path) -> None:
    result = evaluate_upscale(tiny_upscaler, CONFIG, PROTOCOL, tmp_path, model_name="tiny")

    stored = json.loads((tmp_path / "upscale_tiny.json").read_text())
    assert stored["mean"] == result["mean"] and stored["n"] == 2
    figures = ("psnr_db", "ssim", *ATTRIBUTES)
    assert {f"{system} {name}" for system in SYSTEMS for name in figures} <= stored["mean"].keys()
    means = {key: value["mean"] for key, value in stored["mean"].items()}
    assert means["made over bicubic psnr_db"] == pytest.approx(means["made psnr_db"] - means["bicubic psnr_db"])
    assert stored["protocol"]["steps"] == 2 and stored["protocol"]["temperature"] == 0.0
    again = evaluate_upscale(tiny_upscaler, CONFIG, PROTOCOL)
    timed = [{key: value for key, value in row.items() if key != "upscale_s"} for row in again["clips"]]
    assert timed == [{k: v for k, v in row.items() if k != "upscale_s"} for row in result["clips"]]


def test_every_way_is_compared_with_the_large_rendering(tiny_upscaler: Upscaler) -> None:
    tokenizer = tiny_upscaler.tokenizer
    for each in enlarge_worlds(tiny_upscaler, CONFIG, PROTOCOL):
        assert each.original.frames_TCHW.shape == (5, 3, 64, 64)
        for system in SYSTEMS:
            assert getattr(each, system).frames_TCHW.shape == (5, 3, 64, 64)
        ceiling = tokenizer.decode(tokenizer.encode(each.original))
        assert torch.equal(each.ceiling.frames_TCHW, ceiling.frames_TCHW)


def test_bicubic_doubles_and_keeps_what_is_smooth() -> None:
    ramp_HW = torch.arange(8).repeat(8, 1) * 20
    clip = Clip(ramp_HW.expand(2, 3, 8, 8).to(torch.uint8).contiguous(), Fraction(12))
    large = bicubic(clip)
    assert large.frames_TCHW.shape == (2, 3, 16, 16)
    wanted = ((torch.arange(16) + 0.5) / 2 - 0.5) * 20
    assert (large.frames_TCHW[0, 0, 5, 4:-4].float() - wanted[4:-4]).abs().max() < 1
    assert psnr_db(large.frames_TCHW, bicubic(clip).frames_TCHW) > 90


def test_protocols_that_compare_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="two worlds"):
        UpscaleProtocol.of(CONFIG, worlds=1)
    assert UpscaleProtocol.of(CONFIG).hash != UpscaleProtocol.of(UpscaleConfig(guidance=1.0)).hash

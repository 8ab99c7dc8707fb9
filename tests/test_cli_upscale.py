"""kinolex upscale, kinolex eval upscale, and what --upscale is refused for."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from kinolex import checkpoint, hub
from kinolex.cli import main
from kinolex.generation.super_resolution import Upscaler
from kinolex.media import read, write
from kinolex.models.super_resolution import SuperResolution
from kinolex.types import Clip


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture
def shipped(tiny_upscaler: Upscaler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of models: a tokenizer, and the upscaler that every command takes by default."""
    models = tmp_path / "models"
    fingerprint = checkpoint.save(models / "tokenizer", tiny_upscaler.tokenizer.model, card="")
    network = SuperResolution(replace(tiny_upscaler.config, tokenizer=fingerprint))
    checkpoint.save(models / "upscale-world-nano", network, card="")
    monkeypatch.setattr(hub, "PRETRAINED", models)
    return models


def test_a_video_is_made_twice_as_large(shipped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    frames_TCHW = torch.randint(0, 256, (9, 3, 18, 24), generator=generator).to(torch.uint8)
    write(Clip(frames_TCHW, Fraction(12)), tmp_path / "in.mp4")

    assert run("upscale", tmp_path / "in.mp4", tmp_path / "out.mp4", "--steps", 2, "--seed", 3, "--json") == 0

    report = json.loads(capsys.readouterr().out)
    assert read(tmp_path / "out.mp4").frames_TCHW.shape == (9, 3, 36, 48)
    assert (report["height"], report["width"], report["passes"], report["seed"]) == (36, 48, 2, 3)
    assert report["model"] == "upscale-world-nano"
    assert run("upscale", tmp_path / "in.mp4", tmp_path / "other.mp4", "--steps", 0) == 2
    assert "steps must be in 1..1024, got 0" in capsys.readouterr().err
    assert not (tmp_path / "other.mp4").exists()


def test_held_out_worlds_are_measured(shipped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("eval", "upscale", "--worlds", 2, "--steps", 1, "--out", tmp_path / "eval", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    stored = json.loads((tmp_path / "eval" / "upscale_upscale-world-nano.json").read_text())
    assert figures["made psnr_db"] == round(stored["mean"]["made psnr_db"]["mean"], 4) and stored["n"] == 2
    assert stored["command"] == "kinolex eval upscale --worlds 2 --steps 1"


@pytest.mark.parametrize("task", ["frame-prediction", "video-to-sound", "describe"])
def test_tasks_whose_pictures_cannot_be_enlarged_say_so(
    shipped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    assert run("generate", "--task", task, "--from", tmp_path / "in.mp4", "--upscale", "x", tmp_path / "out.mp4") == 2
    assert f"{task} has no use for --upscale" in capsys.readouterr().err

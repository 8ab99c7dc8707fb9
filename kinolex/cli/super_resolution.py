"""Twice the lines: upscale, eval upscale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kinolex.cli.common import Source, Target, check_device, command_of, frames_bar, show


def upscale(
    source: Source,
    target: Target,
    model: str = "upscale-world-nano",
    steps: int = 8,
    temperature: float = 0.5,
    guidance: float = 0.0,
    seed: int = 0,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """A video, GIF or image into one of twice its rows and columns, made in token space; its sound stays.

    Example: kinolex upscale in.mp4 out.mp4

    Args:
        source: any file FFmpeg reads; it is encoded at its own size.
        target: .mp4, .webm, .gif; .png .jpg .webp for an image.
        model: shipped name, folder, or hub repository.
        steps: passes of the network per stretch of the video.
        temperature: of drawing tokens; 0 takes the likeliest.
        guidance: how strongly the small picture is followed; 0 is off, more doubles the work.
        seed: the same seed makes the same video.
        device: cpu, cuda, cuda:1, mps.
        json: print the figures as JSON.
    """
    check_device(device)
    from kinolex.generation.super_resolution import load_upscaler
    from kinolex.generation.super_resolution import upscale as make

    config = _config(steps, temperature, guidance, seed)
    upscaler = load_upscaler(model).to(device)
    with frames_bar(source.name) as bar:
        report = make(source, target, upscaler, config, model_name=Path(model).name, on_frames=bar)
    show(report.as_dict(), json)


def evaluate(
    data: Path | None = None,
    out: Path = Path("out/eval"),
    model: str = "upscale-world-nano",
    worlds: int = 40,
    steps: int = 8,
    temperature: float = 0.5,
    guidance: float = 0.0,
    seed: int = 0,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Super-resolution of worlds never learned from, beside bicubic and what its tokens allow.

    Example: kinolex eval upscale --data DATA --out out/eval

    Args:
        data: folder whose perceptual/ is used when it is there.
        out: gets upscale_MODEL.json.
        model: shipped name, folder, or hub repository.
        worlds: rendered at both sizes.
        steps: passes of the network per stretch.
        temperature: of drawing tokens; 0 takes the likeliest.
        guidance: how strongly the small picture is followed.
        seed: of everything drawn.
        device: cpu, cuda, cuda:1, mps.
        json: print the figures as JSON.
    """
    options = dict(locals())
    check_device(device)
    from kinolex.evaluation.upscale import UpscaleProtocol, evaluate_upscale
    from kinolex.generation.super_resolution import load_upscaler

    features = None if data is None else data / "perceptual" / "squeezenet_v1_0_imagenet.safetensors"
    config, name = _config(steps, temperature, guidance, seed), Path(model).name
    with frames_bar("upscale", "worlds") as bar:
        result = evaluate_upscale(
            load_upscaler(model).to(device),
            config,
            UpscaleProtocol.of(config, worlds=worlds),
            out,
            features_path=features if features is not None and features.is_file() else None,
            model_name=name,
            command=command_of("eval upscale", evaluate, options),
            on_clip=bar,
        )
    figures = {key: round(value["mean"], 4) for key, value in result["mean"].items()}
    show(figures | {"written to": str(out / f"{result['name']}.json")}, json)


def _config(steps: int, temperature: float, guidance: float, seed: int) -> Any:
    from kinolex.generation.super_resolution import UpscaleConfig
    from kinolex.sampling.choose import Choice
    from kinolex.sampling.parallel import ParallelConfig

    sampling = ParallelConfig(steps=steps, choice=Choice(temperature=temperature), settle_temperature=0.0)
    return UpscaleConfig(sampling=sampling, guidance=guidance, seed=seed)

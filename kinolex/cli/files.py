"""Media, token files and models: demo, roundtrip, encode, decode, info."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from kinolex.cli.common import Source, Target, frames_bar, load, load_sound, show

SOUND_SUFFIXES = (".wav", ".flac")


def demo(
    out: Path = Path("out/demo"),
    file: Path | None = None,
    model: str = "video-nano",
    device: str = "cpu",
    json: bool = False,
) -> None:
    """A clip with sound into tokens and back, with a report to look at. Needs no data.

    Example: kinolex demo --out out/demo

    Args:
        out: folder for in.mp4, out.mp4, tokens.safetensors and report.html.
        file: a video of yours; without one a procedural world is rendered.
        model: shipped name, folder, or hub repository.
        device: cpu, cuda, cuda:1, mps.
        json: print the figures as JSON.
    """
    from kinolex.demo import run_demo

    with frames_bar("demo") as bar:
        page, report = run_demo(out, load(model, device), model_name=model, file=file, on_frames=bar)
    show({**report.as_dict(), "page": str(page)}, json)


def roundtrip(
    source: Source,
    target: Target,
    model: str | None = None,
    lines: int | None = None,
    levels: int | None = None,
    sound_kbps: float | None = None,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """A video, GIF or image into tokens and back into a file, with its sound; or a sound into sound tokens and back.

    Example: kinolex roundtrip in.mp4 out.mp4

    Example: kinolex roundtrip in.wav out.wav --sound-kbps 2

    Args:
        source: any file FFmpeg reads.
        target: .mp4, .webm, .gif; .png .jpg .webp for an image; .wav .flac for the sound alone.
        model: shipped name, folder, or hub repository; by default video-nano, or sound-nano for sound.
        lines: scale the short side down to this first; by default the size stays. Of pictures.
        levels: codebook levels to keep; by default all. Of sound.
        sound_kbps: as many levels as fit into this rate, for each channel. Of sound.
        device: cpu, cuda, cuda:1, mps.
        json: print the figures as JSON.
    """
    from kinolex import api
    from kinolex.errors import UsageError

    if target.suffix.lower() in SOUND_SUFFIXES:
        if lines is not None:
            raise UsageError(f"--lines is for pictures, and {target} holds sound alone; leave it out")
        if levels is not None and sound_kbps is not None:
            raise UsageError("--levels and --sound-kbps both say how much to keep; give one of them")
        sounds, name = load_sound(model or "sound-nano", device), model or "sound-nano"
        levels = sounds.levels_for(sound_kbps) if sound_kbps is not None else levels
        show(api.roundtrip_sound(source, target, sounds, model_name=name, levels=levels).as_dict(), json)
        return
    if levels is not None or sound_kbps is not None:
        raise UsageError(f"--levels and --sound-kbps are for .wav and .flac targets; the sound of {target} stays as is")
    model = model or "video-nano"
    with frames_bar(source.name) as bar:
        report = api.roundtrip(source, target, load(model, device), model_name=model, lines=lines, on_frames=bar)
    show(report.as_dict(), json)


def encode(
    source: Source,
    target: Target,
    model: str = "video-nano",
    lines: int | None = None,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """A video, GIF or image into a token file (safetensors). Sound is not stored in it.

    Example: kinolex encode in.mp4 tokens.safetensors

    Args:
        source: any file FFmpeg reads.
        target: the token file.
        model: shipped name, folder, or hub repository.
        lines: scale the short side down to this first; by default the size stays.
        device: cpu, cuda, cuda:1, mps.
        json: print what was written as JSON.
    """
    from kinolex import api

    with frames_bar(source.name) as bar:
        tokens = api.encode(source, target, load(model, device), lines=lines, on_frames=bar)
    show({"file": str(target), **api.describe_tokens(tokens)}, json)


def decode(
    source: Source,
    target: Target,
    model: str = "video-nano",
    sound_from: Path | None = None,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """A token file back into a video, GIF or image.

    Example: kinolex decode tokens.safetensors out.mp4 --sound-from in.mp4

    Args:
        source: a token file written by kinolex encode.
        target: .mp4, .webm, .gif, or .png .jpg .webp for one frame.
        model: the tokenizer that made the tokens.
        sound_from: a media file whose sound goes into the target.
        device: cpu, cuda, cuda:1, mps.
        json: print what was written as JSON.
    """
    from kinolex import api

    with frames_bar(source.name) as bar:
        extent = api.decode(source, target, load(model, device), sound_from=sound_from, on_frames=bar)
    size = f"{extent.width}x{extent.height}"
    show({"file": str(target), "frames": extent.frames, "size": size, "fps": str(extent.fps)}, json)


def info(source: Annotated[str, tyro.conf.Positional], json: bool = False) -> None:
    """What a media, token or .klx file or a model is.

    Example: kinolex info video-nano

    Args:
        source: a file, a checkpoint folder, or a shipped name.
        json: print it as JSON.
    """
    from kinolex import api

    show(api.info(source), json)

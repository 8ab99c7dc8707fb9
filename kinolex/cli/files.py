"""Media, token files and models: demo, roundtrip, encode, decode, info."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from kinolex.cli.common import Source, Target, frames_bar, load, load_either, load_sound, show, stages_bar

SOUND_SUFFIXES = (".wav", ".flac")


def demo(
    out: Path = Path("out/demo"),
    file: Path | None = None,
    model: str = "video-nano",
    device: str = "cpu",
    json: bool = False,
) -> None:
    """A tour of what there is: a clip and its sound into tokens and back, tasks, words; with a report to look at.

    Needs no data, and about a minute.

    Example: kinolex demo --out out/demo

    Args:
        out: folder for report.html, in.mp4, out.mp4, tokens.safetensors, and tasks/, sound/ and words/ with what is
            made.
        file: a video of yours; without one a procedural world is rendered.
        model: shipped name, folder, or hub repository.
        device: cpu, cuda, cuda:1, mps.
        json: print the figures as JSON.
    """
    from kinolex.demo import run_demo

    with stages_bar() as on_stage:
        page, report = run_demo(out, load(model, device), model_name=model, file=file, on_stage=on_stage)
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
        sound_kbps: as many levels as fit into this rate, all channels together. Of sound.
        device: cpu, cuda, cuda:1, mps.
        json: print the figures as JSON.
    """
    from kinolex import api, sound_api

    if target.suffix.lower() in SOUND_SUFFIXES:
        sounds, name = load_sound(model or "sound-nano", device), model or "sound-nano"
        levels = _levels(source, target, sounds, lines, levels, sound_kbps)
        show(sound_api.roundtrip_sound(source, target, sounds, model_name=name, levels=levels).as_dict(), json)
        return
    _refuse_levels(target, levels, sound_kbps)
    model = model or "video-nano"
    with frames_bar(source.name) as bar:
        report = api.roundtrip(source, target, load(model, device), model_name=model, lines=lines, on_frames=bar)
    show(report.as_dict(), json)


def _levels(
    source: Path, named: Path, sounds: Any, lines: int | None, levels: int | None, sound_kbps: float | None
) -> int | None:
    """The levels that options ask for. Raises UsageError where they are not of sound, or two of them say it."""
    from kinolex.errors import UsageError
    from kinolex.media.sound import channels_of

    if lines is not None:
        raise UsageError(f"--lines is for pictures, and {named} holds sound alone; leave it out")
    if levels is not None and sound_kbps is not None:
        raise UsageError("--levels and --sound-kbps both say how much to keep; give one of them")
    return levels if sound_kbps is None else sounds.levels_for(sound_kbps, channels_of(source))


def _refuse_levels(file: Path, levels: int | None, sound_kbps: float | None) -> None:
    from kinolex.errors import UsageError

    if levels is not None or sound_kbps is not None:
        raise UsageError(
            f"--levels and --sound-kbps are for sound alone, and {file} is made of pictures; leave them out"
        )


def encode(
    source: Source,
    target: Target,
    model: str | None = None,
    lines: int | None = None,
    levels: int | None = None,
    sound_kbps: float | None = None,
    split: str | None = None,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """A video, GIF or image into a token file (safetensors), without its sound; or a sound into one of sound tokens.

    Of a folder, all that it holds: run it again after an interruption, or when files have come or changed.

    Example: kinolex encode in.mp4 tokens.safetensors

    Example: kinolex encode in.wav tokens.safetensors --sound-kbps 2

    Example: kinolex encode DATA/clips tokens/clips --lines 128

    Args:
        source: any file FFmpeg reads, or a folder of such files, as `kinolex data index` lists it.
        target: the token file; of a folder, another folder, which gets a token file for every entry and tokens.csv.
        model: shipped name, folder, or hub repository; by default video-nano, or sound-nano for what has no
            pictures. A model of sound takes the sound of videos.
        lines: scale the short side down to this first; by default the size stays. Of pictures.
        levels: codebook levels to keep; by default all. Of sound.
        sound_kbps: as many levels as fit into this rate, all channels together. Of one sound.
        split: only this split. Of a folder.
        device: cpu, cuda, cuda:1, mps.
        json: print what was written as JSON.
    """
    from kinolex import api, hub, sound_api
    from kinolex.errors import UsageError
    from kinolex.media import holds_pictures

    if source.is_dir():
        _encode_folder(source, target, model, lines, levels, sound_kbps, split, device, json)
        return
    if split is not None:
        raise UsageError(f"--split is for folders, and {source} is a file; leave it out")
    model = model or (hub.DEFAULT if holds_pictures(source) else hub.SOUND)
    tokenizer, of_sound = load_either(model, device)
    if of_sound:
        levels = _levels(source, target, tokenizer, lines, levels, sound_kbps)
        tokens = sound_api.encode_sound(source, target, tokenizer, levels=levels)
    else:
        _refuse_levels(target, levels, sound_kbps)
        with frames_bar(source.name) as bar:
            tokens = api.encode(source, target, tokenizer, lines=lines, on_frames=bar)
    show({"file": str(target), **api.describe_tokens(tokens)}, json)


def _encode_folder(
    source: Path,
    target: Path,
    model: str | None,
    lines: int | None,
    levels: int | None,
    sound_kbps: float | None,
    split: str | None,
    device: str,
    json: bool,
) -> None:
    from kinolex import hub
    from kinolex.errors import UsageError
    from kinolex.token_folders import encode_folder, holds_only_sounds

    if sound_kbps is not None:
        raise UsageError("--sound-kbps depends on a file's channels, and a folder may have any; give --levels")
    tokenizer, _ = load_either(model or (hub.SOUND if holds_only_sounds(source) else hub.DEFAULT), device)
    with frames_bar(source.name, "files") as bar:
        done = encode_folder(source, target, tokenizer, lines=lines, levels=levels, split=split, on_files=bar)
    show({"folder": str(target), "made": done.made, "kept": done.kept, "failed": len(done.failed)}, json)
    for name, why in done.failed.items():
        print(f"failed {name}: {why}", file=sys.stderr)
    if done.failed:
        raise SystemExit(1)


def decode(
    source: Source,
    target: Target,
    model: str | None = None,
    sound_from: Path | None = None,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """A token file back into a video, GIF or image, or into a sound.

    Example: kinolex decode tokens.safetensors out.mp4 --sound-from in.mp4

    Args:
        source: a token file written by kinolex encode.
        target: .mp4, .webm, .gif, or .png .jpg .webp for one frame; .wav .flac for sound.
        model: the tokenizer that made the tokens; by default it is looked for among the shipped ones.
        sound_from: a media file whose sound goes into the target. For pictures.
        device: cpu, cuda, cuda:1, mps.
        json: print what was written as JSON.
    """
    from kinolex import api, hub, sound_api
    from kinolex.data.token_store import load_tokens
    from kinolex.errors import UsageError

    tokenizer, of_sound = load_either(model or hub.name_of(load_tokens(source).tokenizer), device)
    if of_sound:
        if sound_from is not None:
            raise UsageError(f"--sound-from is for pictures, and {source} holds sound alone; leave it out")
        sound = sound_api.decode_sound(source, target, tokenizer)
        facts = {"samples": sound.num_samples, "rate_hz": sound.rate_hz, "channels": sound.samples_CS.shape[0]}
    else:
        with frames_bar(source.name) as bar:
            extent = api.decode(source, target, tokenizer, sound_from=sound_from, on_frames=bar)
        facts = {"frames": extent.frames, "size": f"{extent.width}x{extent.height}", "fps": str(extent.fps)}
    show({"file": str(target), **facts}, json)


def info(source: Annotated[str, tyro.conf.Positional], json: bool = False) -> None:
    """What a media, token or .klx file or a model is.

    Example: kinolex info video-nano

    Args:
        source: a file, a checkpoint folder, or a shipped name.
        json: print it as JSON.
    """
    from kinolex import api

    show(api.info(source), json)

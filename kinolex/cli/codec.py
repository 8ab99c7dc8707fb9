""".klx files: compress, decompress."""

from __future__ import annotations

import sys
from typing import Any

from kinolex.cli.common import Source, Target, frames_bar, load, show


def compress(
    source: Source,
    target: Target,
    model: str = "video-nano",
    quality: int | None = None,
    bpp: float | None = None,
    rate_kbps: float | None = None,
    lines: int | None = None,
    chunk_frames: int = 49,
    sound: bool = True,
    sound_kbps: float | None = None,
    sound_model: str | None = None,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """A video, GIF or image into a .klx file, with its sound.

    Example: kinolex compress in.mp4 out.klx --quality 50

    Args:
        source: any file FFmpeg reads.
        target: the .klx file.
        model: shipped name, folder, or hub repository.
        quality: 0 to 100; 65, the default, codes at full size. Give this, bpp or rate-kbps.
        bpp: bits per pixel that the whole file may take on average, sound and all.
        rate_kbps: the same in kilobits per second.
        lines: scale the short side down to this first; by default the size stays.
        chunk_frames: frames that are coded together: a seek decodes so many, and damage costs so many.
        sound: without it, as --no-sound, the file is silent and a track that is damaged does not matter.
        sound_kbps: of the sound, all channels together, in kilobits per second; by default 32 as Opus and 6 as tokens.
        sound_model: store the sound as tokens of this tokenizer, such as sound-nano, instead of as Opus.
        device: cpu, cuda, cuda:1, mps.
        json: print the figures as JSON.
    """
    from kinolex import api, hub
    from kinolex.compression import CompressConfig
    from kinolex.errors import UsageError

    if not sound and (sound_kbps is not None or sound_model is not None):
        raise UsageError("--no-sound leaves the sound out; do not give --sound-kbps or --sound-model beside it")
    config = CompressConfig(quality=quality, bpp=bpp, kbps=rate_kbps, chunk_frames=chunk_frames, sound_kbps=sound_kbps)
    tokenizer = load(model, device)
    prior = hub.load_prior(model, tokenizer)
    sounds = None if sound_model is None else hub.load_sound(sound_model).to(device)
    with frames_bar(source.name) as bar:
        report = api.compress(
            source, target, tokenizer, prior, config, sound=sound, sound_tokenizer=sounds, lines=lines, on_frames=bar
        )
    for name, wanted, got in (("bpp", bpp, report.bits_per_pixel), ("rate-kbps", rate_kbps, report.kbps)):
        if wanted is not None and got > 1.01 * wanted:
            print(
                f"{name} {wanted:g} was not kept: {target} has {got:.4g}. Chunks at their smallest may take more, and "
                "sound after the last picture counts; try longer --chunk-frames, less --sound-kbps, or fewer --lines",
                file=sys.stderr,
            )
    show(report.as_dict(), json)


def decompress(
    source: Source,
    target: Target,
    model: str | None = None,
    sound_model: str | None = None,
    frame: int | None = None,
    tolerate: bool = False,
    json: bool = False,
) -> None:
    """A .klx file back into a video, GIF or image, with its sound.

    Example: kinolex decompress out.klx back.mp4

    Args:
        source: written by kinolex compress.
        target: .mp4, .webm, .gif, or .png .jpg .webp for one frame.
        model: that made the file; by default the shipped ones are searched.
        sound_model: that made the sound tokens, where they are some; by default the shipped ones are searched.
        frame: only this one, counted from 0, into an image; reads no more of the file than it needs.
        tolerate: hold the picture over what is damaged or missing instead of stopping there; with it, --frame reads the
            file from the front.
        json: print what was written as JSON.
    """
    from kinolex import api, hub
    from kinolex.compression import Lost, coder_of

    lost: list[Lost] = []
    if frame is not None:
        extent = api.decompress_frame(source, target, frame, coder_of(model), on_lost=lost.append if tolerate else None)
    else:
        sounds = None if sound_model is None else hub.load_sound(sound_model)
        with frames_bar(source.name) as bar:
            on_lost = lost.append if tolerate else None
            extent = api.decompress(
                source, target, coder_of(model), sound_tokenizer=sounds, on_lost=on_lost, on_frames=bar
            )
    size = f"{extent.width}x{extent.height}"
    facts: dict[str, Any] = {"file": str(target), "frames": extent.frames, "size": size, "fps": str(extent.fps)}
    if tolerate:
        facts["lost_frames"] = sum(stretch.frames for stretch in lost)
        for stretch in lost:
            last = stretch.first_frame + stretch.frames - 1
            what = f"frames {stretch.first_frame} to {last} are concealed"
            if not stretch.frames:
                what = f"whatever followed frame {last} is missing"
            print(f"{what}: {stretch.reason}", file=sys.stderr)
    show(facts, json)

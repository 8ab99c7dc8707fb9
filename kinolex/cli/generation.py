"""Making video: generate."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated

import tyro

from kinolex.cli.common import Target, check_device, frames_bar, show


def generate(
    target: Target,
    task: str = "frame-prediction",
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None,
    text: str = "",
    mask: Path | None = None,
    model: str | None = None,
    frames: int | None = None,
    given: int | None = None,
    grow: bool = False,
    panorama: int | None = None,
    put_back: bool = False,
    lines: int | None = None,
    size: tuple[int, int] | None = None,
    steps: int = 12,
    schedule: str = "cosine",
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    settle_temperature: float = 4.5,
    guidance: float = 0.0,
    halton: bool = False,
    seed: int = 0,
    growth: Path | None = None,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Make video: go on, fill in, look beyond the frame, or from words alone.

    Example: kinolex generate --task outpaint-horizontal --from in.mp4 out.mp4

    Or: kinolex generate --task outpaint-vertical --panorama 3 --from in.mp4 wide.mp4

    Or: kinolex generate --task frame-prediction --from in.mp4 --given 9 --frames 49 out.mp4

    Or: kinolex generate --task free-form --mask mask.png --from in.mp4 out.mp4

    Or: kinolex generate --task class --text "a large red star bounces" --model masked-world-nano out.mp4

    Tasks: frame-prediction, frame-interpolation, outpaint-central, outpaint-vertical, outpaint-horizontal,
    outpaint-dynamic, inpaint-central, inpaint-dynamic, class, class-prediction, and free-form with a mask.

    Args:
        target: .mp4, .webm, .gif; .png where one frame is made.
        task: what is given and what is asked, see above.
        source: a video, GIF or image to start from; only "class" needs none.
        text: a class or caption for class and class-prediction; an unknown word brings a list of those that are known.
        mask: image or video for free-form, white where something is to be made.
        model: shipped name, folder, or hub repository; masked-world-nano for captions of worlds, else masked-nano.
        frames: of the result; by default all of the source, or 16 more than are given for prediction.
        given: leading frames that prediction goes on from; by default all of the source.
        grow: outpainting keeps the whole source and makes a larger picture around it.
        panorama: outpaint-vertical keeps the whole source and widens it to both sides so many times, each time by half
            of its width; outpaint-horizontal upwards and downwards. Odd sizes are first padded to whole tokens.
        put_back: put the source's own pixels over what was known, with a soft seam.
        lines: scale the short side of the source down to this first; by default to what the model was trained on.
        size: rows and columns where there is no source; by default a square of what the model was trained on.
        steps: passes of the network per window, 1 to 64 are sensible.
        schedule: cosine, uniform, power, cubic, square-root, exponential: how fast tokens are settled.
        temperature: of drawing tokens; 0 takes the likeliest.
        top_k: draw among so many tokens only.
        top_p: draw among the likeliest tokens of this total probability only.
        settle_temperature: noise on which tokens are settled first.
        guidance: how strongly task and words are followed; 0 is off, more doubles the work.
        halton: settle tokens in an even order instead of the surest first.
        seed: the same seed makes the same video.
        growth: an image that shows what was settled after every pass.
        device: cpu, cuda, cuda:1, mps.
        json: print the figures as JSON.
    """
    check_device(device)
    from kinolex.generation import GenerateConfig, Wish, load_generator
    from kinolex.generation import generate as make
    from kinolex.generation.loading import DEFAULT, WORLDS
    from kinolex.sampling.choose import Choice
    from kinolex.sampling.parallel import ParallelConfig

    wish = Wish(
        task=task,
        text=text,
        mask=mask,
        frames=frames,
        given=given,
        grow=grow,
        panorama=panorama,
        put_back=put_back,
        lines=lines,
        size=size,
        fps=Fraction(24),
    )
    choice = Choice(temperature=temperature, top_k=top_k, top_p=top_p)
    sampling = ParallelConfig(steps=steps, schedule=schedule, choice=choice, settle_temperature=settle_temperature)
    config = GenerateConfig(sampling=sampling, guidance=guidance, halton=halton, seed=seed)
    generator = load_generator(model or (WORLDS if task == "class" else DEFAULT)).to(device)
    with frames_bar(task) as bar:
        report = make(source, target, generator, wish, config, growth=growth, on_frames=bar)
    show(report.as_dict(), json)

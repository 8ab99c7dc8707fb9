"""Making video: generate."""

from __future__ import annotations

import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import tyro

from kinolex.cli.common import Target, check_device, frames_bar, show


def generate(
    target: Target,
    task: str | None = None,
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None,
    text: str | None = None,
    sound_for: Path | None = None,
    picture_for: Path | None = None,
    structure: Path | None = None,
    mask: Path | None = None,
    model: str | None = None,
    frames: int | None = None,
    seconds: float | None = None,
    given: int | None = None,
    grow: bool = False,
    panorama: int | None = None,
    put_back: bool = False,
    lines: int | None = None,
    size: tuple[int, int] | None = None,
    steps: int | None = None,
    schedule: str | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    settle_temperature: float | None = None,
    guidance: float | None = None,
    order: str | None = None,
    window: int | None = None,
    upscale: str | None = None,
    seed: int = 0,
    growth: Path | None = None,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Make video: go on, fill in, look beyond the frame, or from words alone, with sound.

    Example: kinolex generate --text "a small red ball bounces twice on wood" out.mp4

    Or: kinolex generate --text "a small red ball bounces twice on wood" --seconds 10 out.mp4

    Or: kinolex generate --text "a small red ball bounces twice on wood" --upscale upscale-world-nano out.mp4

    Or: kinolex generate --sound-for in.mp4 out.mp4

    Or: kinolex generate --picture-for in.wav out.mp4

    Or: kinolex generate --task outpaint-horizontal --from in.mp4 out.mp4

    Or: kinolex generate --task outpaint-vertical --panorama 3 --from in.mp4 wide.mp4

    Or: kinolex generate --task frame-prediction --from in.mp4 --given 9 --frames 49 out.mp4

    Or: kinolex generate --task free-form --mask mask.png --from in.mp4 out.mp4

    Or: kinolex generate --task class --text "a large red star bounces" --model masked-world-nano out.mp4

    Tasks: frame-prediction, frame-interpolation, outpaint-central, outpaint-vertical, outpaint-horizontal,
    outpaint-dynamic, inpaint-central, inpaint-dynamic, class, class-prediction, and free-form with a mask.

    Tasks of poet-world-nano, with sound, of any length where a clip is made and nothing of it hidden, else one window:
    unconditional, text-to-image, text-to-video, image-to-video, future-prediction, inpainting, outpainting,
    stylisation, video-to-sound, sound-to-video, continuation, text-to-both, describe (into a .txt file).

    Args:
        target: .mp4, .webm, .gif (without sound); .png where one frame is made; .wav, .flac for the sound alone that is
            made; .txt for words.
        task: what is given and what is asked, see above; by default text-to-both for words alone, else
            frame-prediction.
        source: a video, GIF or image to start from; "class" and what is made from words or sound need none.
        text: a class or caption for class and class-prediction; an unknown word brings a list of those that are known.
        sound_for: a video that gets a sound: the task video-to-sound. Poet-world-nano makes one for its first 1.42
            seconds; what comes after is silent.
        picture_for: a sound file, or a video with sound, that gets pictures: the task sound-to-video. Poet-world-nano
            makes 1.42 seconds of them, with the beginning of the sound beside them.
        structure: for stylisation, a clip of flow and depth or edges; by default it is made from --from.
        mask: image or video for free-form, white where something is to be made.
        model: shipped name, folder, or hub repository; by default masked-nano, masked-world-nano for the task class,
            poet-world-nano for its own tasks.
        frames: of the result; by default all of the source, of frame-interpolation its first 17 at most (one window),
            of prediction 16 more than are given.
        seconds: of the result, for tasks of poet-world-nano: each window goes on from the tokens of the one before.
        given: leading frames that prediction goes on from; by default all of the source. Of future-prediction and
            continuation, one by default and 13 at most. Only 1, 5, 9, 13 ... count, which fill whole tokens: of 8 the
            first 5 are gone on from, and the last 3 are left out.
        grow: outpainting keeps the whole source and makes a larger picture around it.
        panorama: outpaint-vertical keeps the whole source and widens it to both sides so many times, each time by half
            of its width; outpaint-horizontal upwards and downwards. Odd sizes are first padded to whole tokens.
        put_back: put the source's own pixels over what was known, with a soft seam.
        lines: scale the short side of the source down to this first; by default to what the model was trained on.
        size: rows and columns where there is no source; by default a square of what the model was trained on.
        steps: passes of the network per window, by default 12; 1 to 64 are sensible, up to 1024 possible. Not for tasks
            of poet-world-nano.
        schedule: cosine (the default), uniform, power, cubic, square-root, exponential: how fast tokens are settled.
        temperature: of drawing tokens, by default 1, of poet-world-nano 0.9; 0 takes the likeliest.
        top_k: draw among so many tokens only.
        top_p: draw among the likeliest tokens of this total probability only, by default 1, of poet-world-nano 0.95.
        order: in which tokens are settled: even (the default), spread over the window; or surest, the surest first.
        settle_temperature: noise on which tokens are the surest, by default 4.5.
        guidance: how strongly task and words are followed; 0 is off, more doubles the work. By default 3 where words
            are given, but for masked tasks with pixels.
        window: tokens that a pass of poet-world-nano looks at, by default 16; more take fewer passes, and what comes is
            as likely as one by one.
        upscale: a super-resolution model (shipped name, folder, or hub repository): goes on from the tokens of
            poet-world-nano to a picture of twice its lines, as `kinolex upscale` does.
        seed: the same seed makes the same video.
        growth: an image that shows what was settled after every pass.
        device: cpu, cuda, cuda:1, mps.
        json: print the figures as JSON.
    """
    check_device(device)
    from kinolex.generation import GenerateConfig, Wish, load_generator
    from kinolex.generation import generate as make
    from kinolex.generation.loading import DEFAULT, WORLDS
    from kinolex.generation.long import fulfil_long
    from kinolex.generation.multimodal import DEFAULT as POET
    from kinolex.generation.multimodal import USUAL, Request, fulfil, load_multimodal
    from kinolex.generation.super_resolution import UpscaleConfig, enlarging, load_upscaler
    from kinolex.sampling.choose import Choice
    from kinolex.sampling.parallel import ParallelConfig
    from kinolex.tasks.multimodal import TASKS

    task, text = _task_for(task, text, source, sound_for, picture_for), text or ""
    settling = {"steps": steps, "schedule": schedule, "settle_temperature": settle_temperature}
    ordering = {} if order is None else {"order": order}
    _check_options(
        task,
        {"from": source, "text": text, "structure": structure, "mask": mask, "frames": frames, "seconds": seconds}
        | {"given": given, "grow": grow, "panorama": panorama, "put-back": put_back, "lines": lines, "size": size}
        | settling
        | {"order": order, "window": window, "upscale": upscale, "growth": growth},
    )
    _check_model(model, task)
    drawing = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    drawn: dict[str, Any] = {name: value for name, value in drawing.items() if value is not None}
    if task in TASKS:
        request = Request(
            task=task,
            text=text,
            source=source or sound_for,
            heard=picture_for,
            structure=structure,
            given=1 if given is None else given,
        )
        window = USUAL.window if window is None else window
        choice = replace(USUAL.video, **drawn)
        decoding = replace(USUAL, text=choice, video=choice, sound=choice, guidance=guidance, window=window, seed=seed)
        multimodal = load_multimodal(model or POET).to(device)
        if upscale is not None:
            multimodal = enlarging(multimodal, load_upscaler(upscale).to(device), UpscaleConfig(seed=seed))
        if seconds is not None:
            with frames_bar(task) as bar:
                made = fulfil_long(request, seconds, target, multimodal, decoding, on_frames=bar)
        else:
            with frames_bar(task, unit="tokens") as bar:
                made = fulfil(
                    request, target, multimodal, decoding, on_span=lambda _kind, done, total: bar(done, total)
                )
        if "for the first" in made.sound:
            print(f"{target.name} has sound {made.sound}", file=sys.stderr)
        show(made.as_dict(), json)
        return
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
    given_only: dict[str, Any] = {name: value for name, value in settling.items() if value is not None}
    sampling = ParallelConfig(choice=Choice(**drawn), **given_only)
    config = GenerateConfig(sampling=sampling, guidance=guidance, seed=seed, **ordering)
    generator = load_generator(model or (WORLDS if task == "class" else DEFAULT)).to(device)
    with frames_bar(task) as bar:
        report = make(source, target, generator, wish, config, growth=growth, on_frames=bar)
    show(report.as_dict(), json)


NO_PICTURES = {"text", "sound", "rest-of-sound"}
"""What tasks make that cannot be enlarged."""


def _task_for(
    task: str | None, text: str | None, source: Path | None, sound_for: Path | None, picture_for: Path | None
) -> str:
    """The task that what is given asks for. Raises UsageError where options ask for several, or words say nothing."""
    from kinolex.errors import UsageError
    from kinolex.tasks.words import no_words

    if text is not None and not any(letter.isalnum() for letter in text):
        raise no_words(text)
    for option, given, meant in (
        ("--sound-for", sound_for, "video-to-sound"),
        ("--picture-for", picture_for, "sound-to-video"),
    ):
        if given is None:
            continue
        if task not in (None, meant) or source is not None or (sound_for is not None and picture_for is not None):
            raise UsageError(
                f"{option} is the task {meant} and names its source; leave out --task, --from and the other"
            )
        return meant
    if task is None and text and source is not None:
        raise UsageError(
            "--text and --from together can mean several tasks; say --task image-to-video or --task class-prediction, "
            "or leave one of them out"
        )
    return task or ("text-to-both" if text else "frame-prediction")


def _check_model(model: str | None, task: str) -> None:
    """Raises UsageError for a generator of the other kind than the task's, and says which models have the task."""
    from kinolex import checkpoint, hub
    from kinolex.errors import UsageError
    from kinolex.tasks import multimodal

    if model is None:
        return
    what, wanted = checkpoint.what_is(hub.locate(model)), checkpoint.GENERATOR
    if task in multimodal.TASKS:
        wanted = checkpoint.MULTIMODAL
    if what != wanted and what in (checkpoint.GENERATOR, checkpoint.MULTIMODAL):
        names = " or ".join(hub.shipped(wanted)) or "none is shipped"
        raise UsageError(f"{model} does not know the task {task}; leave out --model, or name one that does: {names}")


def _check_options(task: str, options: dict[str, Any]) -> None:
    """Raises UsageError where an option is given that the task would not look at, and says which tasks do."""
    from kinolex.errors import UsageError
    from kinolex.generation.verb import PREDICTIONS
    from kinolex.tasks import multimodal, video

    masked, poet = (*video.TASKS, video.FREE_FORM), tuple(multimodal.TASKS)
    given = {name: set(one.given) for name, one in multimodal.TASKS.items()}
    takers = {
        "from": (*masked, *(name for name in poet if given[name] - {"text"})),
        "text": (
            *(name for name, one in video.TASKS.items() if one.takes_class),
            *(name for name in poet if "text" in given[name]),
        ),
        "structure": tuple(name for name in poet if "structure-clip" in given[name]),
        "given": (*PREDICTIONS, "future-prediction", "continuation"),
        "seconds": poet,
        "window": poet,
        "upscale": tuple(name for name, one in multimodal.TASKS.items() if {*one.asked} - NO_PICTURES),
    }
    unfit: dict[tuple[str, ...], list[str]] = {}
    for name, value in options.items():
        known = takers.get(name, masked)
        if value is not None and value is not False and value != "" and task in (*masked, *poet) and task not in known:
            unfit.setdefault(known, []).append(f"--{name.replace('_', '-')}")
    if unfit:
        whose = "; ".join(f"{', '.join(names)}: {', '.join(known)}" for known, names in unfit.items())
        names = ", ".join(name for group in unfit.values() for name in group)
        raise UsageError(f"{task} has no use for {names}; leave out what it has no use for. Tasks that have: {whose}")
    if options["settle_temperature"] is not None and options["order"] != "surest" and task in masked:
        raise UsageError("an even order has no noise; leave out --settle-temperature, or say --order surest")

"""The verbs as commands: parse, call kinolex.api, print. torch is imported when a command runs, not before.

Exit codes: 0 done, 1 an examination found something wrong (doctor, data check), 2 bad input or usage, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import tyro

Source = Annotated[Path, tyro.conf.Positional]
Target = Annotated[Path, tyro.conf.Positional]

DEVICES = ("cpu", "cuda", "mps", "xpu")

app = tyro.extras.SubcommandApp()
data_app = tyro.extras.SubcommandApp()
eval_app = tyro.extras.SubcommandApp()


@app.command
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

    with _frames_bar("demo") as bar:
        page, report = run_demo(out, _load(model, device), model_name=model, file=file, on_frames=bar)
    _show({**report.as_dict(), "page": str(page)}, json)


@app.command
def roundtrip(
    source: Source,
    target: Target,
    model: str = "video-nano",
    lines: int | None = None,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """A video, GIF or image into tokens and back into a file, with its sound.

    Example: kinolex roundtrip in.mp4 out.mp4

    Args:
        source: any file FFmpeg reads.
        target: .mp4, .webm, .gif, or .png .jpg .webp for an image.
        model: shipped name, folder, or hub repository.
        lines: scale the short side down to this first; by default the size stays.
        device: cpu, cuda, cuda:1, mps.
        json: print the figures as JSON.
    """
    from kinolex import api

    with _frames_bar(source.name) as bar:
        report = api.roundtrip(source, target, _load(model, device), model_name=model, lines=lines, on_frames=bar)
    _show(report.as_dict(), json)


@app.command
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

    with _frames_bar(source.name) as bar:
        tokens = api.encode(source, target, _load(model, device), lines=lines, on_frames=bar)
    _show({"file": str(target), **api.describe_tokens(tokens)}, json)


@app.command
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

    with _frames_bar(source.name) as bar:
        extent = api.decode(source, target, _load(model, device), sound_from=sound_from, on_frames=bar)
    size = f"{extent.width}x{extent.height}"
    _show({"file": str(target), "frames": extent.frames, "size": size, "fps": str(extent.fps)}, json)


@app.command
def compress(
    source: Source,
    target: Target,
    model: str = "video-nano",
    quality: int | None = None,
    bpp: float | None = None,
    rate_kbps: float | None = None,
    lines: int | None = None,
    chunk_frames: int = 49,
    sound_kbps: float = 32.0,
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
        sound_kbps: of the sound, in kilobits per second.
        device: cpu, cuda, cuda:1, mps.
        json: print the figures as JSON.
    """
    from kinolex import api, hub
    from kinolex.compression import CompressConfig

    config = CompressConfig(quality=quality, bpp=bpp, kbps=rate_kbps, chunk_frames=chunk_frames, sound_kbps=sound_kbps)
    tokenizer = _load(model, device)
    prior = hub.load_prior(model, tokenizer)
    with _frames_bar(source.name) as bar:
        report = api.compress(source, target, tokenizer, prior, config, lines=lines, on_frames=bar)
    for name, wanted, got in (("bpp", bpp, report.bits_per_pixel), ("rate-kbps", rate_kbps, report.kbps)):
        if wanted is not None and got > 1.01 * wanted:
            print(
                f"{name} {wanted:g} cannot be kept: {target} has {got:.4g}, the least that this model, these chunks "
                "and this sound allow; try longer --chunk-frames, less --sound-kbps, or fewer --lines",
                file=sys.stderr,
            )
    _show(report.as_dict(), json)


@app.command
def decompress(
    source: Source,
    target: Target,
    model: str | None = None,
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
        frame: only this one, counted from 0, into an image; reads no more of the file than it needs.
        tolerate: hold the picture over what is damaged or missing instead of stopping there.
        json: print what was written as JSON.
    """
    from kinolex import api
    from kinolex.compression import Lost, coder_of

    lost: list[Lost] = []
    if frame is not None:
        extent = api.decompress_frame(source, target, frame, coder_of(model))
    else:
        with _frames_bar(source.name) as bar:
            on_lost = lost.append if tolerate else None
            extent = api.decompress(source, target, coder_of(model), on_lost=on_lost, on_frames=bar)
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
    _show(facts, json)


@app.command
def info(source: Annotated[str, tyro.conf.Positional], json: bool = False) -> None:
    """What a media, token or .klx file or a model is.

    Example: kinolex info video-nano

    Args:
        source: a file, a checkpoint folder, or a shipped name.
        json: print it as JSON.
    """
    from kinolex import api

    _show(api.info(source), json)


@app.command
def train(
    recipe: Source,
    data: Path,
    out: Path,
    minutes: float | None = None,
    device: str = "cpu",
    cache: Path | None = None,
    init: str | None = None,
    json: bool = False,
) -> None:
    """Train what a recipe describes, or go on where an earlier call stopped.

    Example: kinolex train recipes/video_nano.py --data DATA --out runs/out/video-nano --minutes 30

    Args:
        recipe: a Python file with config(); the shipped ones lie in recipes/.
        data: folder with one sub-folder per collection (docs/data.md).
        out: run folder; out/weights is a checkpoint.
        minutes: stop cleanly after this long; call again to go on.
        device: cpu, cuda, cuda:1, mps.
        cache: where packs are kept; out/packs by default.
        init: weights to start from instead of random ones: shipped name, folder or hub repository.
        json: print where the weights are as JSON; the progress goes to out/log.jsonl in any case.
    """
    from kinolex.data.worlds import render_frames
    from kinolex.training.recipes import train_from_recipe

    _check_device(device)
    weights = train_from_recipe(
        recipe, data, out, minutes=minutes, device=device, cache=cache, init=init, render_world=render_frames
    )
    _show({"weights": str(weights)}, json)


@app.command
def doctor(data: Path | None = None, device: str = "cpu", json: bool = False) -> None:
    """Check that this machine trains and decodes as it should. Exit code 1 if something is wrong.

    Example: kinolex doctor --device cuda

    Args:
        data: a collection to check as well.
        device: compared with the CPU.
        json: print the findings as JSON.
    """
    from kinolex.training.doctor import examine

    findings = examine(device=device, data=data)
    if json:
        print(_json([finding.as_dict() for finding in findings]))
    for finding in findings if not json else []:
        print(f"{'ok  ' if finding.ok else 'BAD '} {finding.name}: {finding.detail}")
    if not all(finding.ok for finding in findings):
        raise SystemExit(1)


@app.command
def data() -> None:
    """Collections: kinolex data check | index | pack | worlds (each with --help)."""
    raise SystemExit(_run(data_app, ["--help"], "kinolex data"))


@app.command(name="eval")
def eval_() -> None:
    """Measure: kinolex eval reconstruction | rate-distortion (each with --help)."""
    raise SystemExit(_run(eval_app, ["--help"], "kinolex eval"))


@data_app.command
def check(folder: Source, json: bool = False) -> None:
    """List broken, short, variable-rate and rotated files of a collection. Exit code 1 if any is broken.

    Example: kinolex data check DATA/clips

    Args:
        folder: searched with all its sub-folders.
        json: print the findings as JSON.
    """
    from kinolex.data.check import check_folder

    findings = check_folder(folder)
    if json:
        print(_json([finding.as_dict() for finding in findings]))
    else:
        for finding in findings:
            print(f"{finding.problem:14} {finding.path}: {finding.detail}")
        print(f"{len(findings)} findings")
    if any(finding.problem == "broken" for finding in findings):
        raise SystemExit(1)


@data_app.command
def index(folder: Source, split: str | None = None) -> None:
    """What a folder holds, one JSON object a line.

    Example: kinolex data index DATA/clips --split train

    Args:
        folder: a collection with index.csv, metadata.csv|jsonl, npz arrays or just files.
        split: only this split.
    """
    from kinolex.data.index import scan

    for entry in scan(folder, split=split):
        print(_json({name: str(value) for name in entry.__slots__ if (value := getattr(entry, name)) is not None}))


@data_app.command
def pack(
    folder: Source,
    target: Target,
    lines: int = 128,
    max_frames: int | None = None,
    split: str | None = None,
    json: bool = False,
) -> None:
    """Decode a collection once to training resolution.

    Example: kinolex data pack DATA/clips packs/clips --split train

    Args:
        folder: a collection.
        target: folder of the pack; an unfinished one is continued.
        lines: short side of the stored frames.
        max_frames: keep only the first frames of long videos.
        split: only this split.
        json: print what was packed as JSON.
    """
    from kinolex.data.index import scan
    from kinolex.data.packs import build_pack

    built = build_pack(scan(folder, split=split), target, lines=lines, max_frames=max_frames)
    _show({"pack": str(target), "items": len(built), "frames": built.num_frames}, json)


@data_app.command
def worlds(
    target: Target, seed: int = 0, frames: int = 49, height: int = 128, width: int = 128, json: bool = False
) -> None:
    """Render a procedural world with sound and print its caption.

    Example: kinolex data worlds world.mp4 --seed 7

    Args:
        target: the video file.
        seed: another seed is another world.
        frames: at 24 frames per second.
        height: rows of pixels.
        width: columns of pixels.
        json: print caption and label as JSON.
    """
    from kinolex.data.worlds import WorldConfig, render
    from kinolex.media import write

    world = render(seed, WorldConfig(frames=frames, height=height, width=width))
    write(world.clip, target)
    _show({"file": str(target), "caption": world.caption, "label": world.label}, json)


@eval_app.command
def reconstruction(
    data: Path,
    out: Path = Path("out/eval"),
    model: str = "video-nano",
    sets: tuple[str, ...] = ("clips", "sequences"),
    lines: int = 128,
    max_frames: int | None = 65,
    compare: tuple[Path, ...] = (),
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Fidelity of a tokenizer on held-out clips, as JSON and as a page with pictures.

    Example: kinolex eval reconstruction --data DATA --model video-nano --out out/eval

    Args:
        data: folder with one sub-folder per set.
        out: gets a JSON file and a page with pictures.
        model: shipped name, folder, or hub repository.
        sets: sub-folders whose test split is measured.
        lines: clips are scaled down to this short side.
        max_frames: only the first frames of each clip; None for all.
        compare: earlier results of the same protocol, to stand beside, e.g. results/codecs_*.json.
        device: cpu, cuda, cuda:1, mps.
        json: print the means as JSON.
    """
    from rich.console import Console

    from kinolex.evaluation import ReconstructionProtocol, evaluate_reconstruction, read_result

    features = data / "perceptual" / "squeezenet_v1_0_imagenet.safetensors"
    say = Console(stderr=True).print
    if not features.is_file():
        say(f"no perceptual network at {features}: squeezenet_distance is not measured")
    result = evaluate_reconstruction(
        _load(model, device),
        data,
        ReconstructionProtocol(sets=sets, lines=lines, max_frames=max_frames),
        features if features.is_file() else None,
        out,
        name=f"reconstruction_{Path(model).name}",
        compare=[read_result(path) for path in compare],
        command=f"kinolex eval reconstruction --data DIR --model {model}",
        progress=lambda line: say(line, highlight=False),
    )
    means = {name: figures["mean"] for name, figures in result["mean"].items()}
    _show(means | {"page": str(out / f"{result['name']}.html")}, json)


@eval_app.command
def rate_distortion(
    data: Path,
    out: Path = Path("out/eval"),
    model: str = "video-nano",
    sets: tuple[str, ...] = ("clips", "sequences", "codec_seq"),
    image_sets: tuple[str, ...] = ("kodak",),
    lines: int = 128,
    qualities: tuple[int, ...] = (0, 20, 40, 65, 80, 95),
    chunk_frames: int | None = None,
    veryslow: bool = True,
    reuse: tuple[Path, ...] = (),
    device: str = "cpu",
    json: bool = False,
) -> None:
    """.klx files beside x264, x265, SVT-AV1, JPEG, WebP and AVIF: BD-rates, charts, pictures at equal bytes.

    Example: kinolex eval rate-distortion --data DATA --model video-nano --out out/eval

    Args:
        data: folder with one sub-folder per set.
        out: gets JSON, pages and charts; call again to go on after an interruption.
        model: shipped name, folder, or hub repository.
        sets: of videos; the test split where a set has one, else all of it.
        image_sets: of pictures, at 256 lines; give it without a value for none.
        lines: videos are scaled to this short side.
        qualities: points of the .klx curves, lowest first.
        chunk_frames: frames coded together; by default the whole clip, as the codecs may.
        veryslow: measure that preset of x264 and x265 too.
        reuse: earlier results or row files, whose figures are taken where nothing has changed.
        device: cpu, cuda, cuda:1, mps.
        json: print the figures at matched bytes as JSON.
    """
    from kinolex import hub
    from kinolex.evaluation import KlxEvaluation, codecs, evaluate_klx

    tokenizer, name = _load(model, device), Path(model).name
    presets = (*codecs.CODECS, *(codecs.VERYSLOW if veryslow else ()))
    plan = KlxEvaluation(sets, image_sets, lines, qualities=qualities, chunk_frames=chunk_frames, codecs=presets)
    with _frames_bar("rate-distortion", "points") as bar:
        prior = hub.load_prior(model, tokenizer)
        results = evaluate_klx(tokenizer, prior, data, out, plan, name=name, reuse=reuse, on_points=bar)
    # The mean over the points of a curve says nothing.
    means = ((f"{one['name']} {key}", value["mean"]) for one in results for key, value in one["mean"].items())
    facts = {name: mean for name, mean in means if not name.endswith(" psnr_db")}
    _show(facts | {"pages": str(out)}, json)


def main(argv: list[str] | None = None) -> None:
    """Entry point of the command `kinolex`."""
    arguments = sys.argv[1:] if argv is None else argv
    groups = {"data": (data_app, "kinolex data"), "eval": (eval_app, "kinolex eval")}
    if len(arguments) > 1 and arguments[0] in groups:
        group, name = groups[arguments[0]]
        raise SystemExit(_run(group, arguments[1:], name))
    if arguments == ["--version"]:
        from kinolex import __version__

        print(f"kinolex {__version__}")
        raise SystemExit(0)
    raise SystemExit(_run(app, arguments, "kinolex"))


def _run(commands: tyro.extras.SubcommandApp, arguments: list[str], name: str) -> int:
    from kinolex.errors import KinolexError

    try:
        commands.cli(args=arguments or ["--help"], prog=name, use_underscores=False)
    except KinolexError as error:
        print(f"kinolex: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kinolex: interrupted; nothing half-written was left", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stdout = None  # the reader of our output has left, e.g. `| head`; nobody to tell
        return 0
    except OSError as error:
        if error.filename is None:
            raise
        print(f"kinolex: {error.filename}: {error.strerror}; check the path, its rights and the disk", file=sys.stderr)
        return 2
    return 0


def _load(model: str, device: str) -> Any:
    from kinolex import hub

    _check_device(device)
    return hub.load(model).to(device)


def _check_device(device: str) -> None:
    """Names only; whether it can be used is found out by using it."""
    from kinolex.errors import UsageError

    if device.partition(":")[0] not in DEVICES:
        raise UsageError(f"no device {device!r}; give one of {', '.join(DEVICES)}, with an index such as cuda:1")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _show(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(_json(facts))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        print(f"{name.replace('_', ' '):{width}}  {shown}")


@contextmanager
def _frames_bar(title: str, unit: str = "frames") -> Iterator[Callable[[int, int | None], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit + " {task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=Console(stderr=True), transient=False)
    task = progress.add_task(title, total=None, rate="")

    def on_frames(done: int, total: int | None) -> None:
        progress.start()  # not before the first frames are through: a refused file gives its message and no bar
        speed = progress.tasks[task].speed
        rate = f"{speed:.0f}/s" if speed else ""
        progress.update(task, completed=done, total=total, rate=rate)

    try:
        yield on_frames
    finally:
        if progress.live.is_started:
            progress.stop()


if __name__ == "__main__":
    main()

"""Measured results: eval reconstruction, rate-distortion, generation, sound, multimodal."""

from __future__ import annotations

from pathlib import Path

from kinolex.cli.common import check_device, command_of, frames_bar, load, load_sound, show


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
    options = dict(locals())
    from rich.console import Console

    from kinolex.api import refuse_same
    from kinolex.evaluation import ReconstructionProtocol, evaluate_reconstruction, read_result

    features = data / "perceptual" / "squeezenet_v1_0_imagenet.safetensors"
    say, name = Console(stderr=True).print, f"reconstruction_{Path(model).name}"
    for path in compare:
        refuse_same(path, out / f"{name}.json")
    if not features.is_file():
        say(f"no perceptual network at {features}: squeezenet_distance is not measured")
    result = evaluate_reconstruction(
        load(model, device),
        data,
        ReconstructionProtocol(sets=sets, lines=lines, max_frames=max_frames),
        features if features.is_file() else None,
        out,
        name=name,
        compare=[read_result(path) for path in compare],
        command=command_of("eval reconstruction", reconstruction, options),
        progress=lambda line: say(line, highlight=False),
    )
    means = {name: figures["mean"] for name, figures in result["mean"].items()}
    show(means | {"page": str(out / f"{result['name']}.html")}, json)


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

    tokenizer, name = load(model, device), Path(model).name
    presets = (*codecs.CODECS, *(codecs.VERYSLOW if veryslow else ()))
    plan = KlxEvaluation(sets, image_sets, lines, qualities=qualities, chunk_frames=chunk_frames, codecs=presets)
    with frames_bar("rate-distortion", "points") as bar:
        prior = hub.load_prior(model, tokenizer)
        results = evaluate_klx(tokenizer, prior, data, out, plan, name=name, reuse=reuse, on_points=bar)
    # The mean over the points of a curve says nothing.
    means = ((f"{one['name']} {key}", value["mean"]) for one in results for key, value in one["mean"].items())
    facts = {name: mean for name, mean in means if not name.endswith(" psnr_db")}
    show(facts | {"pages": str(out)}, json)


def generation(
    data: Path | None = None,
    out: Path = Path("out/eval"),
    model: str | None = None,
    sets: tuple[str, ...] = ("clips", "sequences"),
    tasks: tuple[str, ...] = (),
    windows: int = 3,
    worlds: int = 48,
    captions: int = 100,
    steps: int = 12,
    schedule: str = "cosine",
    order: str = "even",
    guidance: float = 0.0,
    caption_guidance: float = 3.0,
    seed: int = 0,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Tasks of a generator on held-out clips or worlds, beside what needs no network and what its tokens allow.

    Example: kinolex eval generation --data DATA --model masked-nano --out out/eval

    Example: kinolex eval generation --sets worlds --data DATA --out out/eval

    Args:
        data: folder with one sub-folder per set; its perceptual/ is used when it is there.
        out: gets a JSON file and a page with playing pictures.
        model: shipped name, folder, or hub repository; masked-world-nano for worlds, else masked-nano.
        sets: sub-folders whose test split is measured, or worlds alone.
        tasks: of the ten; by default the eight that need no class.
        windows: pieces of 17 frames from one video, at most.
        worlds: rendered worlds, where the set is worlds.
        captions: worlds asked for by caption alone, where the set is worlds.
        steps: passes of the network per window.
        schedule: how fast tokens are settled.
        order: in which tokens are settled: even, or surest.
        guidance: how strongly the tasks are followed.
        caption_guidance: how strongly captions are.
        seed: of everything drawn.
        device: cpu, cuda, cuda:1, mps.
        json: print the figures as JSON.
    """
    options = dict(locals())
    check_device(device)
    from kinolex.evaluation.generation import PIXEL_TASKS, WORLDS, GenerationProtocol, evaluate_generation
    from kinolex.generation import load_generator
    from kinolex.generation.loading import DEFAULT
    from kinolex.generation.loading import WORLDS as WORLDS_MODEL

    of_worlds = sets == (WORLDS,)
    model = model or (WORLDS_MODEL if of_worlds else DEFAULT)
    features = None if data is None else data / "perceptual" / "squeezenet_v1_0_imagenet.safetensors"
    generator = load_generator(model).to(device)
    protocol = GenerationProtocol(
        sets=sets,
        side=generator.model.config.lines,
        windows=windows,
        worlds=worlds,
        captions=captions,
        steps=steps,
        schedule=schedule,
        order=order,
        guidance=guidance,
        caption_guidance=caption_guidance,
        seed=seed,
        tasks=tasks or PIXEL_TASKS,
    )
    with frames_bar("generation", "clips") as bar:
        result = evaluate_generation(
            generator,
            data,
            protocol,
            out,
            features_path=features if features is not None and features.is_file() else None,
            name=f"generation_{Path(model).name}",
            command=command_of("eval generation", generation, options),
            on_clips=bar,
        )
    facts = {
        f"{name} {key}": value["mean"]
        for name, task in result["tasks"].items()
        for key, value in task["mean"].items()
        if key.endswith("distance") and not key.startswith("ceiling")
    }
    facts |= {f"captions {key}": value["mean"] for key, value in result.get("captions", {"mean": {}})["mean"].items()}
    show(facts | {"page": str(out / f"{result['name']}.html")}, json)


def sound(
    data: Path,
    out: Path = Path("out/eval"),
    model: str = "sound-nano",
    sets: tuple[str, ...] = ("fsdd", "esc10"),
    sound_kbps: tuple[float, ...] = (1.0, 2.0, 4.0, 6.0),
    opus_kbps: tuple[float, ...] = (6.0, 9.0, 12.0, 16.0, 24.0),
    max_files: int | None = None,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """A sound tokenizer at several rates beside Opus on held-out sounds: multi-scale mel distance, SI-SDR, real bytes.

    Example: kinolex eval sound --data DATA --model sound-nano --out out/eval

    Args:
        data: folder with one sub-folder per set.
        out: gets sound_MODEL.json.
        model: shipped name, folder, or hub repository.
        sets: sub-folders whose test split is measured.
        sound_kbps: rates of the tokenizer, as many levels as fit.
        opus_kbps: rates that Opus is asked for; what it takes is measured.
        max_files: of each set; by default all.
        device: cpu, cuda, cuda:1, mps.
        json: print the figures as JSON.
    """
    options = dict(locals())
    from kinolex.evaluation.sound import SoundProtocol, evaluate_sound, speech_judges

    protocol = SoundProtocol(
        sets=sets, kbps=sound_kbps, opus_kbps=opus_kbps, max_files=max_files, judges=speech_judges()
    )
    name = Path(model).name
    with frames_bar("sound", "files") as bar:
        result = evaluate_sound(
            load_sound(model, device),
            data,
            protocol,
            out,
            model_name=name,
            command=command_of("eval sound", sound, options),
            on_files=bar,
        )
    shown = ("mel_distance", "si_sdr_db", " kbps", "stoi", "pesq_mos")
    facts = {
        f"{group} {key}": value["mean"]
        for group, means in result["sets"].items()
        for key, value in means.items()
        if key.endswith(shown)
    }
    show(facts | {"result": str(out / f"{result['name']}.json")}, json)


def multimodal(
    out: Path = Path("out/eval"),
    model: str = "poet-world-nano",
    data: Path | None = None,
    captions: int = 40,
    digits: int = 0,
    long_s: float = 0.0,
    max_bodies: int = 1,
    temperature: float = 0.9,
    top_p: float = 0.95,
    guidance: float = 3.0,
    window: int = 16,
    seed: int = 0,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """A multimodal generator of worlds: attributes of captions, sync of picture and sound, sound and words for clips.

    Example: kinolex eval multimodal --captions 40 --out out/eval

    Or: kinolex eval multimodal --data DIR --digits 50 --long-s 60 --out out/eval

    Args:
        out: gets multimodal_MODEL.json, and long_MODEL.mp4.
        model: shipped name, folder, or hub repository.
        data: folder with digits/ and fsdd/, for --digits.
        captions: held-out worlds that are asked for.
        digits: spoken digits that are asked for in words, by their picture and by their sound.
        long_s: seconds of one long video whose drift of loudness and colour is measured.
        max_bodies: of a world.
        temperature: of drawing tokens.
        top_p: draw among the likeliest tokens of this total probability only.
        guidance: how strongly words are followed; 0 is off.
        window: tokens that a pass looks at.
        seed: of the first caption.
        device: cpu, cuda, cuda:1, mps.
        json: print the figures as JSON.
    """
    check_device(device)
    from kinolex.evaluation.multimodal import MultimodalProtocol, evaluate_multimodal
    from kinolex.generation.decoding import DecodeConfig
    from kinolex.generation.multimodal import load_multimodal
    from kinolex.sampling.choose import Choice

    choice = Choice(temperature=temperature, top_p=top_p)
    decoding = DecodeConfig(text=choice, video=choice, sound=choice, guidance=guidance, window=window, seed=seed)
    protocol = MultimodalProtocol(
        captions=captions,
        max_bodies=max_bodies,
        temperature=temperature,
        top_p=top_p,
        guidance=guidance,
        window=window,
        digits=digits,
        long_s=long_s,
        seed=seed,
    )
    name = Path(model).name
    with frames_bar("multimodal", "captions") as bar:
        result = evaluate_multimodal(
            load_multimodal(model).to(device), protocol, decoding, out, model_name=name, data=data, on_clip=bar
        )
    figures = {key: round(value["mean"], 3) for key, value in result["mean"].items()}
    for asked, scores in result.get("spoken digits", {}).items():
        shares = scores if isinstance(scores, dict) else {"": scores}
        figures |= {f"digits {asked} {key}".strip(): value for key, value in shares.items()}
    figures |= {f"drift {key}": value for key, value in result.get("drift", {}).items()}
    show(figures | {"written to": str(out / f"multimodal_{name}.json")}, json)

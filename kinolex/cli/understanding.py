"""What is in a video, and whether tokens are good for telling: classify, eval understanding."""

from __future__ import annotations

from pathlib import Path

from kinolex.cli.common import Source, command_of, frames_bar, load_either, show, to_json

PICTURES = ("weizmann64", "worlds", "cifar10", "digits")
"""Sets of pictures."""


def classify(
    source: Source, probe: str = "probe-worlds-nano", model: str | None = None, top: int = 5, json: bool = False
) -> None:
    """What is in a video or a sound, by a probe that reads its tokens: classes with probabilities.

    Example: kinolex classify in.mp4 --probe probe-worlds-nano

    Of sound: kinolex classify in.wav --probe probe-esc10-nano

    Args:
        source: any video FFmpeg reads, of which the middle square of the picture is looked at; for probes of sound any
            sound, or a video with one.
        probe: shipped name (probe-worlds-nano, probe-weizmann-nano; of sound probe-esc10-nano, probe-fsdd-nano),
            folder, or hub repository.
        model: the tokenizer whose tokens the probe reads, where it is not a shipped one.
        top: classes to show of every attribute.
        json: print all probabilities as JSON.
    """
    from rich.console import Console
    from rich.table import Table

    from kinolex.errors import UsageError
    from kinolex.understanding import classify as recognise
    from kinolex.understanding import load_classifier

    if top < 1:
        raise UsageError(f"--top needs at least one class to show, got {top}")
    with frames_bar(source.name) as bar:
        found = recognise(source, probe if model is None else load_classifier(probe, model), on_frames=bar)
    if json:
        print(to_json(found.as_dict()))
        return
    table = Table(
        "attribute", "class", "probability", title=f"{found.source}, {found.windows} window{'s' * (found.windows > 1)}"
    )
    for attribute, classes in found.classes.items():
        for number, (name, share) in enumerate(list(classes.items())[:top]):
            table.add_row(
                "" if number else attribute, name, f"{share:.3f}", end_section=number + 1 == min(top, len(classes))
            )
    Console().print(table)


def judge(
    data: Path | None = None,
    out: Path = Path("out/eval"),
    probe: str = "probe-worlds-nano",
    set: str | None = None,
    test: int | None = None,
    model: str | None = None,
    json: bool = False,
) -> None:
    """How often a trained probe is right on clips or sounds that it never learned from, and what it takes for what.

    Example: kinolex eval probe --data DATA --probe probe-fsdd-nano --set fsdd --out out/eval

    Args:
        data: folder with one sub-folder per set; worlds need none.
        out: gets probe_PROBE_SET.json.
        probe: shipped name (probe-worlds-nano, probe-weizmann-nano, probe-fsdd-nano, probe-esc10-nano), folder, or hub
            repository.
        set: worlds, weizmann64, cifar10, digits; of sounds fsdd, esc10. Its test split is judged; by default that of
            the set whose labels the probe tells.
        test: how many of it; by default all, and 300 worlds.
        model: the tokenizer whose tokens the probe reads, where it is not a shipped one.
        json: print the figures as JSON.
    """
    options = dict(locals())
    from kinolex.evaluation.probes import ProbeProtocol, evaluate_probe, set_for
    from kinolex.understanding import load_classifier

    classifier = load_classifier(probe, model)
    with frames_bar(classifier.name, "windows") as bar:
        result = evaluate_probe(
            classifier,
            data,
            ProbeProtocol(set=set or set_for(classifier) or "worlds", test=test),
            out,
            command=command_of("eval probe", judge, options),
            on_windows=bar,
        )
    facts: dict[str, object] = {"items": result["n"]}
    for name, figures in result["attributes"].items():
        one = figures["accuracy"]
        share = f"{one['mean']:.3f} ({one['low']:.3f} to {one['high']:.3f})"
        facts[name] = f"{share} of {figures['n']}, by chance {figures['chance']:.3f}"
    show(facts | {"result": str(out / f"{result['name']}.json")}, json)


def understanding(
    data: Path | None = None,
    out: Path = Path("out/eval"),
    model: tuple[str, ...] = (),
    sets: tuple[str, ...] = PICTURES,
    kinds: tuple[str, ...] = ("linear", "attentive", "transformer"),
    inputs: tuple[str, ...] = ("raw", "decoded", "latents", "digits"),
    seeds: int = 3,
    steps: int = 300,
    batch: int = 32,
    lr: float = 2e-3,
    train: int | None = None,
    test: int | None = None,
    levels: int | None = None,
    few: int = 0,
    hidden_steps: int = 300,
    cache: Path | None = None,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Recognition from tokens beside the same probes on raw pixels or sound: ratios with intervals, confusions.

    Call again to go on after an interruption: finished probes are kept.

    Example: kinolex eval understanding --data DATA --model magvit2-nano --out out/eval

    Of sound: kinolex eval understanding --data DATA --sets fsdd esc10 --out out/eval

    Args:
        data: folder with one sub-folder per set; worlds need none.
        out: gets understanding_MODEL.json and a page for every model; other sets than by default are in the name.
        model: tokenizers: shipped names, folders, or hub repositories; by default magvit2-nano, video-nano and
            magvit-nano, for sets of sounds sound-nano.
        sets: of pictures weizmann64, worlds, cifar10, digits; or of sounds fsdd, esc10.
        kinds: of probes.
        inputs: what probes are trained on: raw pixels or log-mel frames, the same of what the tokens decode to, the
            tokens' latents or digits.
        seeds: of training; 0, 1, ...
        steps: of training a probe.
        batch: clips in a step.
        lr: learning rate, the same for every input.
        train: clips of every set to learn from; by default all, and 1500 worlds.
        test: clips of every set to be judged on; by default all, and 300 worlds.
        levels: of sound tokens: first codebook levels to keep; by default all.
        few: compare learning from so many labelled clips with predicting hidden tokens first; 0 leaves it out.
        hidden_steps: of predicting hidden tokens.
        cache: keeps tokens and finished probes; out/understanding by default.
        device: of the tokenizer.
        json: print the ratios as JSON.
    """
    from kinolex.evaluation.understanding_sets import SetConfig
    from kinolex.hub import SOUND
    from kinolex.training.probe_run import FitConfig
    from kinolex.training.understanding import UnderstandingProtocol, evaluate_understanding

    protocol = UnderstandingProtocol(
        sets=tuple(SetConfig(name=name, train=train, test=test) for name in sets),
        kinds=kinds,  # type: ignore[arg-type]  # checked by the protocol
        inputs=inputs,
        seeds=tuple(range(seeds)),
        fit=FitConfig(steps=steps, batch=batch, lr=lr),
        levels=levels,
        few=few,
        hidden_steps=hidden_steps,
    )
    names = model or ((SOUND,) if protocol.of_sounds else ("magvit2-nano", "video-nano", "magvit-nano"))
    # All before the first is measured: that takes long, and a name may be wrong.
    tokenizers = {name: load_either(name, device)[0] for name in names}
    facts: dict[str, object] = {}
    of_sets = "" if sets == PICTURES else "_" + "-".join(sets)
    for name, tokenizer in tokenizers.items():
        label = Path(name).name
        with frames_bar(label, "probes") as bar:
            result = evaluate_understanding(
                tokenizer,
                data,
                protocol,
                cache or out / "understanding",
                out,
                name=f"understanding_{label}{of_sets}",
                label=label,
                on_runs=bar,
            )
        for set_name, one in result["sets"].items():
            for way in one["overall"]:
                value = way["accuracy"] if way["ratio"] is None else way["ratio"]
                what = "accuracy" if way["ratio"] is None else "over raw"
                figures = f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
                facts[f"{label} {set_name}, {way['kind']}, {way['input']}, {what}"] = figures
    show(facts | {"pages": str(out)}, json)

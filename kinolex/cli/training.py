"""Weights out of data, claims of papers tested again, and whether this machine can do it: train, reproduce, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro

from kinolex.cli.common import Source, check_device, show, to_json


def train(
    recipe: Source,
    data: Path,
    out: Path,
    minutes: float | None = None,
    device: str = "cpu",
    cache: Path | None = None,
    init: str | None = None,
    collections: tuple[str, ...] = (),
    json: bool = False,
) -> None:
    """Train what a recipe describes, or go on where an earlier call stopped.

    Example: kinolex train recipes/video_nano.py --data DATA --out runs/out/video-nano --minutes 30

    Example: kinolex train recipes/video_nano.py --data DATA --collections films --init video-nano --out runs/out/mine

    Args:
        recipe: a Python file with config(); the shipped ones lie in recipes/.
        data: folder with one sub-folder per collection (docs/data.md).
        out: run folder; out/weights is a checkpoint.
        minutes: stop cleanly after this long; call again to go on.
        device: cpu, cuda, cuda:1, mps.
        cache: where packs are kept; out/packs by default.
        init: weights to start from instead of random ones: shipped name, folder or hub repository.
        collections: folders below data to learn from instead of those that the recipe names; for recipes of tokenizers
            and priors.
        json: print where the weights are as JSON; the progress goes to out/log.jsonl in any case.
    """
    from kinolex.data.worlds import render_frames
    from kinolex.training.recipes import train_from_recipe

    check_device(device)
    weights = train_from_recipe(
        recipe,
        data,
        out,
        minutes=minutes,
        device=device,
        cache=cache,
        init=init,
        collections=collections,
        render_world=render_frames,
    )
    show({"weights": str(weights)}, json)


def reproduce(
    name: Annotated[str, tyro.conf.Positional] = "",
    list: bool = False,
    scale: str = "nano",
    out: Path = Path("runs/out/claims"),
    results: Path = Path("results"),
    data: Path | None = None,
    workers: int | None = None,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Test a claim of the papers again: train its arms, measure them, and say pass, fail or inconclusive.

    Call again to go on after an interruption. Claims share arms, so all of them cost less than their sum.

    Example: kinolex reproduce commit --scale nano

    Args:
        name: of a claim, or all.
        list: print the claims and what they cost instead.
        scale: nano for two CPU cores, small for a GPU, tiny to see that it runs.
        out: gets networks, tokens and finished rows.
        results: gets reproduce_NAME.json and reproduce_NAME.html.
        data: folder with one sub-folder per collection, for few-shot alone; without it, that asks about worlds.
        workers: networks that are trained at once, each in a process; one per core of a CPU, at most four.
        device: cpu, cuda, cuda:1, mps.
        json: print verdicts as JSON.
    """
    check_device(device)
    from rich.console import Console

    from kinolex.errors import UsageError
    from kinolex.training.claims.claim import claim_flops, minutes
    from kinolex.training.claims.lab import Lab
    from kinolex.training.claims.pairs import workers_for
    from kinolex.training.claims.run import CLAIMS
    from kinolex.training.claims.run import reproduce as tested
    from kinolex.training.claims.scales import scale_named
    from kinolex.training.claims.standalone import STANDALONE

    size, facts = scale_named(scale), dict[str, Any]()
    if list:
        for claim in CLAIMS.values():
            facts[claim.name] = _cost(claim_flops([claim], size), minutes) + f"; {claim.statement}"
        together = dict[str, int]()
        for alone in STANDALONE.values():
            costs = alone.costs(scale)
            together |= costs
            facts[alone.name] = _cost(sum(costs.values()), minutes) + f"; {alone.statement}"
        facts["all"] = _cost(claim_flops([*CLAIMS.values()], size) + sum(together.values()), minutes)
        show(facts, json)
        return
    known = ", ".join([*CLAIMS, *STANDALONE])
    if not name:
        raise UsageError(f"name a claim ({known}), or all; --list says what they are")
    if name not in (*CLAIMS, *STANDALONE, "all"):
        raise UsageError(f"no claim {name!r}; choose one of {known}, or all")
    at_once = workers_for(device, workers)
    lab = Lab(size, out, device=device, say=lambda line: Console(stderr=True).print(line, highlight=False))
    names = [*CLAIMS, *STANDALONE] if name == "all" else [name]
    for name in names:
        command = f"kinolex reproduce {name} --scale {scale} --device {device}"
        if name in STANDALONE:
            result = STANDALONE[name].run(
                scale, out, results, device=device, command=command, workers=at_once, say=lab.say, data=data
            )
        else:
            result = tested(CLAIMS[name], size, out, results, command=command, lab=lab, workers=at_once, say=lab.say)
        facts[name] = result["verdict"]
        for one in result["findings"]:
            figures = f"{one['ratio']:.3g} ({one['low']:.3g} to {one['high']:.3g}), needed {one['needed']}"
            facts[f"{name}: {one['what']}"] = f"{figures}: {one['outcome']}"
    show(facts | {"pages": str(results)}, json)


def _cost(flops: int, minutes: Any) -> str:
    if not flops:
        return "nothing is trained"
    return f"{flops / 1e12:.0f} TFLOP of training, {minutes(flops):.0f} minutes at 115 GFLOP/s"


def doctor(data: Path | None = None, device: str = "cpu", json: bool = False) -> None:
    """Check that this machine trains and decodes as it should. Exit code 1 if something is wrong.

    Example: kinolex doctor --device cuda

    Args:
        data: a collection to check as well.
        device: compared with the CPU.
        json: print the findings as JSON.
    """
    check_device(device)
    from kinolex.training.doctor import examine

    findings = examine(device=device, data=data)
    if json:
        print(to_json([finding.as_dict() for finding in findings]))
    for finding in findings if not json else []:
        print(f"{'ok  ' if finding.ok else 'BAD '} {finding.name}: {finding.detail}")
    if not all(finding.ok for finding in findings):
        raise SystemExit(1)

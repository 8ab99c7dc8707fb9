"""Weights out of data, and whether this machine can make them: train, doctor."""

from __future__ import annotations

from pathlib import Path

from kinolex.cli.common import Source, check_device, show, to_json


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

    check_device(device)
    weights = train_from_recipe(
        recipe, data, out, minutes=minutes, device=device, cache=cache, init=init, render_world=render_frames
    )
    show({"weights": str(weights)}, json)


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
        print(to_json([finding.as_dict() for finding in findings]))
    for finding in findings if not json else []:
        print(f"{'ok  ' if finding.ok else 'BAD '} {finding.name}: {finding.detail}")
    if not all(finding.ok for finding in findings):
        raise SystemExit(1)

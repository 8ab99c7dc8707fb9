"""Collections: data check, index, pack, worlds."""

from __future__ import annotations

import sys

from kinolex.cli.common import Source, Target, show, to_json


def check(folder: Source, whole: bool = False, json: bool = False) -> None:
    """List broken, short, variable-rate and rotated files of a collection. Exit code 1 if any is broken.

    Example: kinolex data check DATA/clips

    Args:
        folder: searched with all its sub-folders.
        whole: decode every frame; by default the first one, and whether the end is there.
        json: print the findings as JSON.
    """
    from kinolex.data.check import check_folder

    findings = check_folder(folder, whole=whole)
    if json:
        print(to_json([finding.as_dict() for finding in findings]))
    else:
        for finding in findings:
            print(f"{finding.problem:14} {finding.path}: {finding.detail}")
        print(f"{len(findings)} findings")
    if any(finding.problem == "broken" for finding in findings):
        raise SystemExit(1)


def index(folder: Source, split: str | None = None) -> None:
    """What a folder holds, one JSON object a line.

    Example: kinolex data index DATA/clips --split train

    Args:
        folder: a collection with index.csv, metadata.csv|jsonl, npz arrays, zips of sounds or just files.
        split: only this split.
    """
    from kinolex.data.sounds import scan_all

    for entry in scan_all(folder, split=split):
        print(to_json({name: str(value) for name in entry.__slots__ if (value := getattr(entry, name)) is not None}))


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
    from kinolex.data.index import scan_some
    from kinolex.data.packs import build_pack
    from kinolex.errors import UsageError

    if target.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"{target} lies in the collection {folder} itself; give a folder outside of it")
    built = build_pack(scan_some(folder, split=split), target, lines=lines, max_frames=max_frames)
    show({"pack": str(target), "items": len(built), "frames": built.num_frames, "skipped": len(built.skipped)}, json)
    for name, why in built.skipped.items():
        print(f"skipped {name}: {why}", file=sys.stderr)


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
    show({"file": str(target), "caption": world.caption, "label": world.label}, json)

"""A page that shows what a generator made: the truth, what was given, and what came of it, playing side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kinolex.evaluation.page import Html, animation_data_uri, figure, page, section, table
from kinolex.tasks.video import TASKS
from kinolex.types import Clip


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    task: str
    name: str
    truth: Clip
    condition: Clip
    made: Clip


def generation_page(result: dict[str, Any], samples: list[Sample]) -> str:
    """The whole document."""
    sections = [section("Tasks", _figures(result), _distances(result))]
    if "captions" in result:
        sections.append(section("Worlds asked for by caption", _captions(result)))
    for name in result["tasks"]:
        shown = [_sample(sample) for sample in samples if sample.task == name]
        sections.append(section(f"{name}: {TASKS[name].summary}", *shown))
    lead = f"{result['n']} pairs of clip and task; {result['command']}; protocol {result['protocol_hash']}"
    return page(result["name"], sections, lead=lead)


def _figures(result: dict[str, Any]) -> Html:
    columns = ("", "put_back_", "trivial_", "trivial_through_tokenizer_", "ceiling_")
    headers = ["task", *(f"{label or 'made '}distance".replace("_", " ") for label in columns), "made, dB"]
    rows = []
    for name, task in result["tasks"].items():
        means = {key: value["mean"] for key, value in task["mean"].items()}
        distances = [means.get(f"{label}squeezenet_distance") for label in columns]
        rows.append([name, *distances, means["psnr_db"]])
    return table(headers, rows, caption="squeezenet_distance to the true clip, mean; the ceiling is its reconstruction")


def _distances(result: dict[str, Any]) -> Html:
    names = list(dict.fromkeys(one["name"] for task in result["tasks"].values() for one in task["distances"]))
    headers = ["task", *(f"{name}: {of}" for name in names for of in ("made", "trivial", "ceiling"))]
    rows = []
    for task_name, task in result["tasks"].items():
        values = {(one["name"], one["of"]): one["value"] for one in task["distances"]}
        sets = ("made", "trivial_through_tokenizer", "ceiling")
        rows.append([task_name, *(values.get((name, of)) for name in names for of in sets)])
    return table(headers, rows, caption="distances between sets of clips; trivial is through the tokenizer")


def _captions(result: dict[str, Any]) -> Html:
    means = result["captions"]["mean"]
    rows = [[key.replace("_", ", "), value["mean"], value["low"], value["high"]] for key, value in means.items()]
    return table(["right", "share", "low", "high"], rows, caption=f"{len(result['captions']['worlds'])} captions")


def _sample(sample: Sample) -> Html:
    pictures = [
        (label, animation_data_uri(clip.frames_TCHW.permute(0, 2, 3, 1), clip.fps))
        for label, clip in (("truth", sample.truth), ("needs no network", sample.condition), ("made", sample.made))
    ]
    return figure(pictures, caption=sample.name)

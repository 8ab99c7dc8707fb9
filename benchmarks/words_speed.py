"""Seconds to put a picture into words, and few-shot questions a second: python -m benchmarks.words_speed --out FILE

Pictures of 64 and 128 lines become words of spae-nano, every prefix of the layers decoded, as `kinolex describe` does.
text-nano then answers few-shot questions about worlds: it reads each prompt once and goes on from its cached keys and
values (kinolex.evaluation.fewshot), or reads it anew for every word that it writes and every label that it weighs; both
give the same answers. Sizes and ways take turns in every round; medians.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from benchmarks._progress import steps
from kinolex import hub
from kinolex.data.pictures import list_pictures, load_picture
from kinolex.evaluation.episodes import episode_list
from kinolex.evaluation.fewshot import (
    FewShotProtocol,
    question,
    used_pictures,
    words_of_pictures,
)
from kinolex.evaluation.protocol import commit, hardware
from kinolex.models.frozen_lm import FrozenLM
from kinolex.tokenizers.spae import prefix_lengths
from kinolex.types import Clip
from kinolex.understanding import describe
from kinolex.understanding.asking import ROWS, answers

OUT = Path(__file__).with_suffix(".json")
CACHED, ANEW = "prompts read once", "prompts read anew"
AIM_EPISODES = 1000
"""Whose minutes are told, with everything that they need."""

Questions = Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    out: Path = OUT
    model: str = "spae-nano"
    language_model: str = "text-nano"
    rounds: int = 7
    lines: tuple[int, ...] = (64, 128)
    episodes: int = 64
    ways: int = 2
    layers: tuple[int, ...] = (2, 3)
    """Of the pyramid: 5 and 21 words a picture."""
    device: str = "cpu"


def answers_anew(lm: FrozenLM, questions: Questions) -> list[tuple[str, str]]:
    """As kinolex.evaluation.fewshot.answers, with nothing kept between one id or label and the next."""
    end = lm.encode("\n")
    room = 2 + max(len(lm.encode(f" {label}")) for _, labels in questions for label in labels)
    found: list[tuple[str, str]] = []
    for at in range(0, len(questions), ROWS):
        some = questions[at : at + ROWS]
        prompts = [lm.encode(prompt) for prompt, _ in some]
        found += zip(_written(lm, prompts, room, end[0]), _weighed(lm, prompts, some, end), strict=True)
    return found


def _written(lm: FrozenLM, prompts: list[list[int]], room: int, end: int) -> list[str]:
    rows = [list(prompt) for prompt in prompts]
    is_open = [True] * len(rows)
    for _ in range(room):
        logits_BLV = _read(lm, rows)
        for number, row in enumerate(rows):
            index = int(logits_BLV[number, len(row) - 1].argmax())
            is_open[number] = is_open[number] and index != end
            row += [index] if is_open[number] else []
        if not any(is_open):
            break
    return [lm.decode(row[len(prompt) :]).strip() for row, prompt in zip(rows, prompts, strict=True)]


def _weighed(lm: FrozenLM, prompts: list[list[int]], questions: Questions, end: list[int]) -> list[str]:
    """The likeliest label of each; the whole prompt is read before every label."""
    tails = [[lm.encode(f" {label}") + end for label in labels] for _, labels in questions]
    rows = [prompt + tail for prompt, several in zip(prompts, tails, strict=True) for tail in several]
    likely_BLV = _read(lm, rows).log_softmax(dim=-1)
    found, number = [], 0
    for prompt, several, (_, labels) in zip(prompts, tails, questions, strict=True):
        sums = []
        for tail in several:
            places = torch.arange(len(prompt) - 1, len(prompt) - 1 + len(tail), device=likely_BLV.device)
            sums.append(float(likely_BLV[number, places, torch.tensor(tail, device=likely_BLV.device)].sum()))
            number += 1
        found.append(labels[sums.index(max(sums))])
    return found


def _read(lm: FrozenLM, rows: list[list[int]]) -> Tensor:
    """Logits; rows are filled up on the right, where a causal model's earlier ids do not see it."""
    ids_BL = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.int64)
    for number, row in enumerate(rows):
        ids_BL[number, : len(row)] = torch.tensor(row)
    return lm.logits(ids_BL)


def timed(device: str, work: Callable[[], Any]) -> tuple[float, Any]:
    if device != "cpu":
        torch.cuda.synchronize()
    began = time.perf_counter()
    found = work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began, found


def measure(arguments: Arguments) -> dict[str, Any]:
    device = arguments.device
    loading_s, ((spae, fingerprint), lm) = timed(
        device, lambda: (hub.load_spae(arguments.model), hub.load_lm(arguments.language_model))
    )
    spae, lm = spae.to(device), lm.to(device)
    world, protocol = list_pictures(Path(), "worlds", "test", worlds=1)[0], FewShotProtocol(ways=(arguments.ways,))
    clips = {
        lines: Clip(torch.from_numpy(load_picture(world, lines)).permute(2, 0, 1).unsqueeze(0), Fraction(1))
        for lines in arguments.lines
    }
    episodes = episode_list(None, "worlds", ways=arguments.ways, count=arguments.episodes)
    used = used_pictures(episodes)
    deepest, ends = max(arguments.layers), prefix_lengths(spae.config)
    pictures = [episodes.pictures[index] for index in used]
    picture_s, spelled = timed(device, lambda: words_of_pictures(spae, pictures, deepest))
    questions: dict[int, Questions] = {}
    for length in (ends[layers - 1] for layers in arguments.layers):
        words = {index: row[:length] for index, row in zip(used, spelled, strict=True)}
        questions[length] = [(question(one, words, episodes, protocol), one.labels) for one in episodes.episodes]
    ways = {CACHED: answers, ANEW: answers_anew}
    describing: dict[int, list[float]] = {lines: [] for lines in clips}
    seconds: dict[int, dict[str, list[float]]] = {length: {name: [] for name in ways} for length in questions}
    agree: dict[int, float] = {}
    # The first round warms up and is not counted.
    for number in steps(range(arguments.rounds + 1), "rounds"):
        for lines, clip in clips.items():
            took, _ = timed(device, lambda c=clip: describe(c, spae))
            describing[lines] += [took] if number else []
        for length, asked in questions.items():
            said = {}
            for name, answer in ways.items():
                took, said[name] = timed(device, lambda a=answer, q=asked: a(lm, q))
                seconds[length][name] += [took] if number else []
            agree[length] = statistics.fmean(a == b for a, b in zip(said[CACHED], said[ANEW], strict=True))
    return {
        "describe": {
            f"{lines}x{lines} pixels": {"seconds": statistics.median(took), "seconds_of_rounds": took}
            for lines, took in describing.items()
        },
        "loading_seconds": loading_s,
        "words_seconds_a_picture": picture_s / len(used),
        "few_shot": {
            f"{length} words": {
                name: _rates(took, arguments.episodes, picture_s / len(used), arguments.ways + 1)
                for name, took in several.items()
            }
            | {
                "times_as_fast": statistics.median(several[ANEW]) / statistics.median(several[CACHED]),
                "same_answers": agree[length],
            }
            for length, several in seconds.items()
        },
        "episodes": arguments.episodes,
        "ways_of_questions": arguments.ways,
        "fingerprints": {"words": fingerprint, "language_model": lm.fingerprint},
    }


def _rates(took: list[float], episodes: int, picture_s: float, pictures: int) -> dict[str, Any]:
    seconds = statistics.median(took)
    return {
        "seconds": seconds,
        "seconds_of_rounds": took,
        "episodes_per_second": episodes / seconds,
        f"minutes_of_{AIM_EPISODES}_episodes_with_their_pictures": AIM_EPISODES
        * (seconds / episodes + pictures * picture_s)
        / 60,
    }


def main(arguments: Arguments) -> None:
    values = measure(arguments)
    on_gpu = arguments.device != "cpu"
    record = {
        "name": "speed of pictures as words",
        "command": f"python -m benchmarks.words_speed --model {arguments.model} "
        f"--language-model {arguments.language_model} --rounds {arguments.rounds} "
        f"--lines {' '.join(map(str, arguments.lines))} --episodes {arguments.episodes} --ways {arguments.ways} "
        f"--layers {' '.join(map(str, arguments.layers))} --device {arguments.device}",
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": torch.cuda.get_device_name(arguments.device) if on_gpu else hardware(),
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__},
        "threads": torch.get_num_threads(),
        "values": values,
    }
    temporary = arguments.out.with_suffix(".part")
    temporary.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    temporary.replace(arguments.out)
    for size, one in values["describe"].items():
        print(f"describe {size:20} {one['seconds']:7.3f} s")
    for length, one in values["few_shot"].items():
        for name in (CACHED, ANEW):
            print(f"{length}, {name:20} {one[name]['episodes_per_second']:7.1f} episodes/s")
        print(f"{length}: {one['times_as_fast']:.2f} times as fast, {one['same_answers']:.0%} of answers the same")


if __name__ == "__main__":
    main(tyro.cli(Arguments))

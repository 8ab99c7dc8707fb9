"""Few-shot questions put to a frozen language model that reads pictures as words, beside what needs no picture.

    episode -> words of its pictures -> prompt -> FrozenLM --writes on--> exactly the label?           open
                                                           --weighs the labels--> the likeliest one?    among

Controls, on the same questions: chance; words of other pictures (shuffled); the nearest shown picture by the words they
share (neighbour); the words that are told of a picture, its class or caption, instead of words of its pixels (told).

Source: Yu et al. 2023, SPAE, arXiv 2306.17842; papers.md section 5.3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kinolex.data.pictures import Picture, load_picture
from kinolex.errors import ConfigError
from kinolex.evaluation.episodes import SETS, Episode, EpisodeList, episode_list
from kinolex.evaluation.page import note, page, section, table, write_text
from kinolex.evaluation.protocol import (
    Hashed,
    check_fields,
    heading,
    summarise,
    write_result,
)
from kinolex.evaluation.row_store import RowStore, row_key
from kinolex.evaluation.understanding_scores import ratio
from kinolex.models.frozen_lm import FrozenLM
from kinolex.tasks import prompts
from kinolex.tasks.prompts import Example
from kinolex.tokenizers.spae import Spae, prefix_lengths
from kinolex.understanding.asking import answers

PICTURES = 32
"""Pictures that are turned into words at once."""
FEW_WORDS = 5
"""Of a picture at most, where few words are compared with many."""

Words = Sequence[str]
WordsOf = Sequence[Words] | Mapping[int, Words]
"""Words of the pictures of a list, by index."""
OnEpisodes = Callable[[int, int | None], None]
"""Called with questions answered and questions in all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FewShotProtocol(Hashed):
    """Which questions are asked, and how."""

    sets: tuple[str, ...] = SETS
    ways: tuple[int, ...] = (2, 5)
    shots: int = 1
    """Inner shots: pictures shown of each label."""
    repeats: int = 0
    induction: bool = True
    layers: tuple[int, ...] = (1, 2, 3)
    """Layers of the pyramid whose words are shown, from the top; one measurement each."""
    episodes: int = 200
    """From the beginning of each list."""
    seed: int = 0
    bootstrap_draws: int = 10_000
    language_model: str = ""
    tokenizer: str = ""
    version: int = 1

    def __post_init__(self) -> None:
        needs = {
            "sets": (self.sets and set(self.sets) <= set(SETS), f"some of {', '.join(SETS)}"),
            "ways": (self.ways and min(self.ways) >= 2, "numbers of labels, at least 2"),
            "shots": (self.shots >= 1, "at least 1"),
            "repeats": (self.repeats >= 0, "at least 0"),
            "layers": (self.layers and min(self.layers) >= 1, "numbers of layers, at least 1"),
            "episodes": (self.episodes >= 1, "at least 1"),
            "seed": (self.seed >= 0, "at least 0"),
        }
        check_fields("few-shot questions", self, needs)


def words_of_pictures(spae: Spae, pictures: Sequence[Picture], layers: int) -> list[list[str]]:
    """Words of the first layers of each picture."""
    found: list[list[str]] = []
    for at in range(0, len(pictures), PICTURES):
        found += words_of_pixels(spae, pixels_of(pictures[at : at + PICTURES], spae.config.pixels[1]), layers)
    return found


def pixels_of(pictures: Sequence[Picture], side: int) -> Tensor:
    """pixels_BCHW in [-1, 1], scaled to side x side."""
    frames_NHWC = np.stack([load_picture(picture, side) for picture in pictures])
    return torch.from_numpy(frames_NHWC).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def words_of_pixels(spae: Spae, pixels_BCHW: Tensor, layers: int) -> list[list[str]]:
    """Words of the first layers of pictures in [-1, 1]."""
    device = next(spae.parameters()).device
    return [
        row
        for some_BCHW in pixels_BCHW.split(PICTURES)
        for row in spae.spell(spae.encode_ids(some_BCHW.unsqueeze(2).to(device))[:layers])
    ]


def used_pictures(questions: EpisodeList) -> list[int]:
    """Indices of the pictures that a list shows or asks about."""
    return sorted({index for episode in questions.episodes for index in (*episode.support, episode.query)})


def question(episode: Episode, words: WordsOf, questions: EpisodeList, protocol: FewShotProtocol) -> str:
    """The prompt of an episode, given the words of every picture of its list."""
    shown = [
        Example(tuple(words[index]), questions.pictures[index].label or "", questions.question)
        for index in episode.support
    ]
    return prompts.classification(
        shown,
        words[episode.query],
        labels=episode.labels if protocol.induction else (),
        repeats=protocol.repeats,
        query_question=questions.question,
    )


def ask(
    lm: FrozenLM,
    questions: EpisodeList,
    words: WordsOf,
    protocol: FewShotProtocol,
    on_answer: Callable[[int], None] | None = None,
    store: RowStore | None = None,
) -> list[tuple[float, float]]:
    """Of every episode: 1.0 where the model writes exactly the label, and 1.0 where it finds it the likeliest.

    Args:
        store: keeps answers; what the same model was asked before is not asked again.
    """
    episodes, store = questions.episodes, RowStore() if store is None else store
    asked = [(question(episode, words, questions, protocol), episode.labels) for episode in episodes]
    key = row_key(protocol.version, lm.fingerprint, asked)
    if (kept := store.get(key)) is None:
        kept = store.put(key, {"answers": answers(lm, asked, on_answer)})
    elif on_answer:
        on_answer(len(episodes))
    return [
        (float(written == episode.answer), float(likeliest == episode.answer))
        for episode, (written, likeliest) in zip(episodes, kept["answers"], strict=True)
    ]


def shuffled_words(questions: EpisodeList, words: WordsOf, seed: int) -> dict[int, Words]:
    """Every used picture with the words of another one, the same wherever it stands."""
    order = np.random.default_rng(seed).permutation(used_pictures(questions))
    return {int(a): words[int(b)] for a, b in zip(order, np.roll(order, 1), strict=True)}


def neighbour(episode: Episode, words: WordsOf, pictures: Sequence[Picture]) -> float:
    """Chance that the label of the shown picture which shares the most words is right; ties are drawn."""
    asked = Counter(words[episode.query])
    shared = [sum((asked & Counter(words[index])).values()) for index in episode.support]
    nearest = [index for index, number in zip(episode.support, shared, strict=True) if number == max(shared)]
    return sum(pictures[index].label == episode.answer for index in nearest) / len(nearest)


def evaluate_list(
    lm: FrozenLM,
    questions: EpisodeList,
    words: WordsOf,
    protocol: FewShotProtocol,
    on_answer: Callable[[int], None] | None = None,
    store: RowStore | None = None,
) -> list[dict[str, Any]]:
    """One row per episode: 1.0 where right, for the model and every control.

    Args:
        words: of the pictures that are used.
        store: keeps answers, as of ask.
    """
    pictures, episodes = questions.pictures, questions.episodes
    told = {index: pictures[index].told or ("nothing",) for index in used_pictures(questions)}
    shuffled = shuffled_words(questions, words, protocol.seed)
    found: dict[str, list[tuple[float, float]]] = {}
    for number, (name, spelling) in enumerate((("", words), ("shuffled_", shuffled), ("told_", told))):
        done = number * len(episodes)
        on_more = None if on_answer is None else lambda k, done=done: on_answer(done + k)
        found[name] = ask(lm, questions, spelling, protocol, on_more, store)
    rows = []
    for number, episode in enumerate(episodes):
        row: dict[str, Any] = {"name": f"{questions.name}/{questions.ways}-way/{number}", "chance": 1 / questions.ways}
        for name, hits in found.items():
            row[f"{name}open"], row[f"{name}among"] = hits[number]
        row["neighbour"] = neighbour(episode, words, pictures)
        rows.append(row)
    return rows


def few_against_most(rows_of: Mapping[int, Sequence[Mapping[str, Any]]], protocol: FewShotProtocol) -> dict[str, Any]:
    """Accuracy with at most FEW_WORDS words of a picture over that with the most that were shown.

    Args:
        rows_of: rows of one list, by the number of words.

    Returns:
        few_words, most_words, and of the model's accuracies their ratio with an interval over episodes, left out where
        most words are never right; empty where the numbers of words are all small or all large.
    """
    few, most = max((length for length in rows_of if length <= FEW_WORDS), default=0), max(rows_of)
    if few in (0, most):
        return {}
    found: dict[str, Any] = {"few_words": few, "most_words": most}
    for key in ("open", "among"):
        above_SN, below_SN = (np.array([[row[key] for row in rows_of[length]]]) for length in (few, most))
        if below_SN.any():
            found[key] = ratio(above_SN, below_SN, seed=protocol.seed, draws=protocol.bootstrap_draws)
    return found


def evaluate_fewshot(
    lm: FrozenLM,
    spae: Spae,
    data: Path | None,
    protocol: FewShotProtocol,
    out: Path,
    *,
    name: str = "fewshot",
    command: str | None = None,
    on_episodes: OnEpisodes | None = None,
) -> dict[str, Any]:
    """Ask all questions of a protocol; writes out/NAME.json and out/NAME.html and returns the result.

    Answers are kept in out/NAME_answers.jsonl, list by list: called again, only what is missing is asked.

    Raises:
        MissingFile, DataError: a set is not there. UsageError: prompts longer than the model reads.
    """
    deepest = max(protocol.layers)
    if deepest > len(spae.config.layers):
        raise ConfigError(f"this tokenizer has {len(spae.config.layers)} layers, not {deepest}")
    total = 3 * len(protocol.sets) * len(protocol.ways) * len(protocol.layers) * protocol.episodes
    store, done, tasks, few = RowStore(out / f"{name}_answers.jsonl"), 0, {}, {}
    for set_name in protocol.sets:
        spelled: dict[str, list[str]] = {}
        for ways in protocol.ways:
            questions = episode_list(
                data, set_name, ways=ways, shots=protocol.shots, seed=protocol.seed, count=protocol.episodes
            )
            used = used_pictures(questions)
            fresh = [questions.pictures[index] for index in used if questions.pictures[index].name not in spelled]
            found = words_of_pictures(spae, fresh, deepest)
            spelled |= {picture.name: row for picture, row in zip(fresh, found, strict=True)}
            rows_of: dict[int, list[dict[str, Any]]] = {}
            for layers in protocol.layers:
                length = prefix_lengths(spae.config)[layers - 1]
                rows = evaluate_list(
                    lm,
                    questions,
                    {index: spelled[questions.pictures[index].name][:length] for index in used},
                    protocol,
                    None if on_episodes is None else lambda k, done=done: on_episodes(done + k, total),
                    store,
                )
                done += 3 * len(rows)
                rows_of[length] = rows
                tasks[f"{set_name} {ways}-way {length} words"] = {
                    "n": len(rows),
                    "episodes_hash": questions.hash,
                    "mean": summarise(rows, protocol),
                }
            if compared := few_against_most(rows_of, protocol):
                few[f"{set_name} {ways}-way"] = compared
    result = heading(name, protocol, command) | {
        "tasks": tasks,
        "few_words": few,
    }
    write_result(out / f"{name}.json", result)
    write_text(out / f"{name}.html", fewshot_page(result))
    return result


COLUMNS = ("open", "among", "shuffled_open", "shuffled_among", "neighbour", "told_open", "told_among", "chance")


def fewshot_page(result: dict[str, Any]) -> str:
    """The figures of a result as a page: percent right, with 95 % intervals."""
    rows = []
    for name, task in result["tasks"].items():
        cells: list[object] = [name, task["n"]]
        for column in COLUMNS:
            value = task["mean"][column]
            cells.append(f"{100 * value['mean']:.1f} ({100 * value['low']:.1f} to {100 * value['high']:.1f})")
        rows.append(cells)
    explained = (
        "open: the model writes exactly the label. among: the label is the likeliest of those named. shuffled: the "
        "same prompts with words of other pictures. neighbour: the shown picture that shares the most words. told: "
        "words of class or caption instead of words of pixels."
    )
    body = table(["questions", "n", *(column.replace("_", " ") for column in COLUMNS)], rows, caption="Percent right")
    parts = [section("Answers", body, note(explained))]
    compared = [
        [name, one["few_words"], one["most_words"], *(_interval(one.get(key)) for key in ("open", "among"))]
        for name, one in result["few_words"].items()
    ]
    if compared:
        told = "accuracy with few words over that with most words, on the same episodes"
        headers = ["questions", "few words", "most words", "open", "among"]
        parts.append(section("Few words against most", table(headers, compared, caption=told)))
    return page(
        "Few-shot questions about pictures, to a language model that reads words",
        parts,
        lead=f"{result['command']} at {result['commit'][:12]}, {result['date']}; protocol {result['protocol_hash']}.",
    )


def _interval(value: Mapping[str, float] | None) -> str | None:
    return None if value is None else f"{value['mean']:.2f} ({value['low']:.2f} to {value['high']:.2f})"

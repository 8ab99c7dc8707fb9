"""Questions about pictures and captions for them, put in context to a frozen language model that reads their words.

    pictures shown, each with a question and its answer, or with a caption --prompts--> FrozenLM --> answer, caption

Answers are judged as few-shot labels are, with the same controls (evaluation.fewshot). A caption is judged by the
words of the true one that it has (F1 of words that tell something), beside the captions that need no model: that of the
last picture shown (copy), and of the shown picture with most words in common (neighbour); and beside what the model
writes to the words of another picture (shuffled).

Source: captioning and VQA prompts of SPAE, Yu et al. 2023, arXiv 2306.17842; papers.md section 5.3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kinolex.data.pictures import DIGITS, WORLDS, Picture, list_pictures, words_of
from kinolex.errors import DataError
from kinolex.evaluation.episodes import EpisodeList, episode_list
from kinolex.evaluation.fewshot import (
    FewShotProtocol,
    OnEpisodes,
    evaluate_list,
    used_pictures,
    words_of_pictures,
)
from kinolex.evaluation.page import note, page, section, table, write_text
from kinolex.evaluation.protocol import Hashed, check_fields, heading, summarise, write_result
from kinolex.evaluation.row_store import RowStore, row_key
from kinolex.models.frozen_lm import FrozenLM
from kinolex.tasks import prompts
from kinolex.tasks.prompts import Example
from kinolex.tokenizers.spae import Spae, prefix_lengths
from kinolex.understanding.asking import ROWS, check_layers

ANIMALS = ("bird", "cat", "deer", "dog", "frog", "horse")
"""Of cifar10."""
CAPTION = "caption"
MAX_CAPTION_IDS = 24
NUM_WORLDS = 1500
"""Of the test split, that captions are asked for."""


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to ask of the pictures of a set."""

    text: str
    answer: Callable[[Picture], str | None]
    ways: int = 5
    """Answers to choose from."""


def _part(number: int) -> Callable[[Picture], str | None]:
    """Word `number` of the label of a world: its colour, its shape."""
    return lambda picture: None if picture.label is None else picture.label.split()[number]


def _digit(say: Callable[[int], bool]) -> Callable[[Picture], str | None]:
    return lambda picture: None if picture.label is None else _yes(say(DIGITS.index(picture.label)))


def _yes(true: bool) -> str:
    return "yes" if true else "no"


QUESTIONS: dict[str, tuple[Question, ...]] = {
    "digits": (
        Question("which digit is it?", lambda picture: picture.label),
        Question("is it even?", _digit(lambda digit: digit % 2 == 0), ways=2),
        Question("is it more than four?", _digit(lambda digit: digit > 4), ways=2),
    ),
    "cifar10": (
        Question("what is it?", lambda picture: picture.label),
        Question("is it an animal?", lambda picture: picture.label and _yes(picture.label in ANIMALS), ways=2),
    ),
    WORLDS: (Question("what colour is it?", _part(0)), Question("what shape is it?", _part(1))),
}


def caption_of(picture: Picture) -> str | None:
    """What is said of a picture: the caption of its file, or its label in a sentence."""
    if picture.entry is not None and picture.entry.caption:
        return picture.entry.caption
    if picture.label is None:
        return None
    return f"the digit {picture.label}" if picture.label in DIGITS else f"a {picture.label}"


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionsProtocol(Hashed):
    """Which pictures are asked about, and how."""

    sets: tuple[str, ...] = tuple(QUESTIONS)
    captions: tuple[str, ...] = tuple(QUESTIONS)
    """Sets whose pictures are captioned; any folder with captions or labels may be."""
    shots: int = 1
    """Pictures shown of each answer."""
    examples: int = 4
    """Pictures shown with captions."""
    layers: int = 1
    """Of the pyramid, from the top: whose words are shown."""
    episodes: int = 200
    seed: int = 0
    bootstrap_draws: int = 10_000
    language_model: str = ""
    tokenizer: str = ""
    version: int = 1

    def __post_init__(self) -> None:
        needs = {
            "sets": (set(self.sets) <= set(QUESTIONS), f"some of {', '.join(QUESTIONS)}"),
            "captions": (self.sets or self.captions, "a set, where no questions are asked"),
            "shots": (self.shots >= 1, "at least 1"),
            "examples": (self.examples >= 1, "at least 1"),
            "layers": (self.layers >= 1, "at least 1"),
            "episodes": (self.episodes >= 2, "at least 2"),
            "seed": (self.seed >= 0, "at least 0"),
        }
        check_fields("questions", self, needs)


def question_list(data: Path | None, name: str, asked: Question, protocol: QuestionsProtocol) -> EpisodeList:
    """The episodes of a question. Errors as episode_list."""
    return episode_list(
        data,
        name,
        ways=asked.ways,
        shots=protocol.shots,
        seed=protocol.seed,
        count=protocol.episodes,
        question=asked.text,
        answer=asked.answer,
    )


def evaluate_captions(
    lm: FrozenLM,
    spae: Spae,
    pictures: Sequence[Picture],
    protocol: QuestionsProtocol,
    store: RowStore,
    on_answer: Callable[[int], None] | None = None,
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """One row per episode, and the first pairs of a true caption and the one written.

    Raises:
        DataError: too few pictures with captions.
    """
    told = [picture for picture in pictures if caption_of(picture)]
    captions = [caption_of(picture) or "" for picture in told]
    size = protocol.examples + 1
    if len(told) < size + 1:
        raise DataError(
            f"captions with {protocol.examples} examples need {size + 1} captioned pictures, got {len(told)}"
        )
    dice = np.random.default_rng([protocol.seed, protocol.examples])
    chosen_NK = np.stack([dice.choice(len(told), size, replace=False) for _ in range(protocol.episodes)])
    used, places = np.unique(chosen_NK, return_inverse=True)
    words = words_of_pictures(spae, [told[index] for index in used], protocol.layers)
    said = [captions[index] for index in used]
    rows_NK = [[int(place) for place in row] for row in places.reshape(chosen_NK.shape)]

    def prompt(shown: Sequence[int], query: int) -> str:
        return prompts.captioning([Example(tuple(words[index]), said[index]) for index in shown], words[query])

    others = [row[-1] for row in [*rows_NK[1:], rows_NK[0]]]
    asked = [prompt(row[:-1], row[-1]) for row in rows_NK]
    asked += [prompt(row[:-1], other) for row, other in zip(rows_NK, others, strict=True)]
    key = row_key(protocol.version, lm.fingerprint, CAPTION, asked)
    if (kept := store.get(key)) is None:
        kept = store.put(key, {"written": captions_written(lm, asked, on_answer)})
    elif on_answer:
        on_answer(len(asked))
    written = kept["written"]
    rows = list[dict[str, Any]]()
    for number, row in enumerate(rows_NK):
        *shown, query = row
        nearest = max(shown, key=lambda index: sum((Counter(words[index]) & Counter(words[query])).values()))
        given = {
            "made": written[number],
            "shuffled": written[len(rows_NK) + number],
            "copy": said[shown[-1]],
            "neighbour": said[nearest],
        }
        scores = {f"{name}_f1": shared_words(text, said[query]) for name, text in given.items()}
        rows.append({"name": f"{CAPTION}/{number}", "made_exact": float(given["made"] == said[query])} | scores)
    return rows, [(said[row[-1]], written[number]) for number, row in enumerate(rows_NK[:10])]


def captions_written(lm: FrozenLM, asked: Sequence[str], on_answer: Callable[[int], None] | None = None) -> list[str]:
    """What the model writes after each prompt, up to the end of the line."""
    stop, found = set(lm.encode("\n")), list[str]()
    for at in range(0, len(asked), ROWS):
        prefix = lm.read([lm.encode(text) for text in asked[at : at + ROWS]])
        found += [lm.decode(ids).strip() for ids in lm.generate(prefix, MAX_CAPTION_IDS, stop=stop)]
        if on_answer:
            on_answer(len(found))
    return found


def shared_words(text: str, true: str) -> float:
    """F1 of the words that tell something, regardless of case; 1.0 where both have the same."""
    ours, theirs = ({word.lower() for word in words_of(one)} for one in (text, true))
    return 2 * len(ours & theirs) / max(1, len(ours) + len(theirs))


def evaluate_questions(
    lm: FrozenLM,
    spae: Spae,
    data: Path | None,
    protocol: QuestionsProtocol,
    out: Path,
    *,
    name: str = "questions",
    command: str | None = None,
    on_episodes: OnEpisodes | None = None,
) -> dict[str, Any]:
    """Ask every question and for every caption; writes out/NAME.json and out/NAME.html and returns the result.

    Answers are kept in out/NAME_answers.jsonl: called again, only what is missing is asked.

    Raises:
        MissingFile, DataError: a set is not there. UsageError: prompts longer than the model reads, or more layers than
        the tokenizer has.
    """
    check_layers(spae, protocol.layers)
    lists = [question_list(data, one, asked, protocol) for one in protocol.sets for asked in QUESTIONS[one]]
    if data is None and set(protocol.captions) - {WORLDS}:
        raise DataError(f"captions of {', '.join(protocol.captions)} need the data folder; give --data")
    captioned = {
        one: list_pictures(data or Path(), one, "test", worlds=NUM_WORLDS) for one in protocol.captions
    }  # looked for before the first question is asked
    few_shot = FewShotProtocol(shots=protocol.shots, layers=(protocol.layers,), seed=protocol.seed)
    total = protocol.episodes * (3 * len(lists) + 2 * len(captioned))
    store, done = RowStore(out / f"{name}_answers.jsonl"), 0
    tasks, shown = dict[str, Any](), dict[str, list[tuple[str, str]]]()

    def on_more(done: int) -> Callable[[int], None]:
        def on_count(count: int) -> None:
            if on_episodes is not None:
                on_episodes(done + count, total)

        return on_count

    for questions in lists:
        used = used_pictures(questions)
        found = words_of_pictures(spae, [questions.pictures[index] for index in used], protocol.layers)
        words = dict(zip(used, found, strict=True))
        rows = evaluate_list(lm, questions, words, few_shot, on_more(done), store)
        done += 3 * len(rows)
        tasks[f"{questions.name}: {questions.question}"] = {
            "n": len(rows),
            "answers": questions.ways,
            "episodes_hash": questions.hash,
            "mean": summarise(rows, protocol),
        }
    for set_name, pictures in captioned.items():
        rows, some = evaluate_captions(lm, spae, pictures, protocol, store, on_more(done))
        done += 2 * len(rows)
        tasks[f"{set_name}: {CAPTION}"] = {"n": len(rows), "mean": summarise(rows, protocol)}
        shown[set_name] = some
    words_shown = prefix_lengths(spae.config)[protocol.layers - 1]
    result = heading(name, protocol, command) | {"words": words_shown, "tasks": tasks}
    write_result(out / f"{name}.json", result)
    write_text(out / f"{name}.html", questions_page(result, shown))
    return result


ANSWERED = ("open", "among", "shuffled_open", "shuffled_among", "neighbour", "told_open", "told_among", "chance")
WRITTEN = ("made_f1", "shuffled_f1", "copy_f1", "neighbour_f1", "made_exact")


def questions_page(result: Mapping[str, Any], shown: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """The figures of a result, percent with 95 % intervals, and some captions."""
    parts = []
    explained = {
        "Questions": "open: the model writes exactly the answer. among: the answer is the likeliest of those shown. "
        "shuffled: the same prompts with words of other pictures. neighbour: the shown picture that shares the most "
        "words. told: words of class or caption instead of words of pixels.",
        "Captions": "f1: words of the true caption and of the one that stands for it, those that tell something. made: "
        "by the model. shuffled: to the words of another picture. copy: the last caption shown. neighbour: that of the "
        "shown picture which shares the most words. exact: the very caption.",
    }
    for title, columns in (("Questions", ANSWERED), ("Captions", WRITTEN)):
        rows = [
            [name, task["n"], *(_percent(task["mean"][column]) for column in columns)]
            for name, task in result["tasks"].items()
            if columns[0] in task["mean"]
        ]
        if rows:
            headers = ["asked", "n", *(column.replace("_", " ") for column in columns)]
            parts.append(section(title, table(headers, rows, caption="Percent"), note(explained[title])))
    for name, pairs in shown.items():
        parts.append(section(f"Captions of {name}", table(["true", "written"], [list(pair) for pair in pairs])))
    return page(
        "Questions about pictures, to a language model that reads words",
        parts,
        lead=f"{result['command']} at {result['commit'][:12]}, {result['date']}; {result['words']} words a picture; "
        f"protocol {result['protocol_hash']}.",
    )


def _percent(value: Mapping[str, float]) -> str:
    return f"{100 * value['mean']:.1f} ({100 * value['low']:.1f} to {100 * value['high']:.1f})"

"""A language model that never saw a picture answers better from words of the lexical pyramid than from flat tokens.

picture --spae-nano--> words of the first layers                          --prompt--> frozen language model --> label
        --magvit-nano--> ids, evenly spread --a fixed table--> as many words
        --spae-nano--> words of another picture

All arms are asked the same episodes; nothing is trained, so this claim stands beside the others, not among their arms.
Seeds show and ask disjoint pictures. An id of a flat tokenizer means nothing to a language model, whatever word it is
written as: the table from ids to words is drawn once and stays.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kinolex import hub
from kinolex.errors import ConfigError
from kinolex.evaluation.episodes import EpisodeList, episode_list
from kinolex.evaluation.fewshot import (
    FewShotProtocol,
    ask,
    neighbour,
    pixels_of,
    question,
    shuffled_words,
    used_pictures,
    words_of_pixels,
)
from kinolex.evaluation.page import code, note
from kinolex.evaluation.protocol import Hashed
from kinolex.evaluation.row_store import RowStore, row_key
from kinolex.models.frozen_lm import FrozenLM
from kinolex.tokenizers.spae import Spae, prefix_lengths
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training.claims.beside import Told, result_of, write_verdict
from kinolex.training.claims.lab import Say
from kinolex.training.claims.rules import COVERAGE, Finding, log_ratios, more_than
from kinolex.training.claims.scales import scale_among
from kinolex.types import Clip

TOLD = Told(
    name="few-shot",
    source="SPAE, arXiv 2306.17842, few-shot classification",
    statement="A language model that learned from text alone answers few-shot questions about pictures better from 5 "
    "to 21 words of the lexical pyramid than from as many flat tokens",
    rule="share of questions whose right label the model finds the likeliest, mean over sets and numbers of words: "
    "higher with words of the pyramid than with flat tokens, and than with words of other pictures: 95 % t-intervals "
    "over seeds of the log ratios above 0, both; fail if one lies below 0",
)
NAME = TOLD.name
WORDS, FLAT, SHUFFLED = "pyramid words", "flat tokens", "shuffled words"
ARMS = (WORDS, FLAT, SHUFFLED)
MEAN, OPEN, NEIGHBOUR = "accuracy", "exactly the label", "most words in common, no model"
TABLE_SEED = 0
VERSION = 1
"""Raised when the meaning of a figure changes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FewShotScale:
    name: str
    episodes: int
    """Of each seed and set."""
    seeds: tuple[int, ...]
    """As many disjoint parts of the pictures."""
    sets: tuple[str, ...] = ("digits", "cifar10")
    """Where there is a data folder; worlds otherwise."""
    ways: int = 2
    shots: int = 1
    repeats: int = 0
    layers: tuple[int, ...] = (2, 3)
    """Of the pyramid, from the top: 5 and 21 words."""
    words: str = "spae-nano"
    language_model: str = "text-nano"
    flat: str = "magvit-nano"

    def __post_init__(self) -> None:
        if len(set(self.seeds)) < 3 or not self.sets or not self.layers or self.episodes < 1:
            raise ConfigError(f"few-shot needs three seeds or more, sets, layers and episodes, got {self}")

    @property
    def questions(self) -> FewShotProtocol:
        """How a question is put."""
        return FewShotProtocol(ways=(self.ways,), shots=self.shots, repeats=self.repeats, layers=self.layers)


SCALES: dict[str, FewShotScale] = {
    scale.name: scale
    for scale in (
        FewShotScale(name="tiny", episodes=2, seeds=(0, 1, 2), sets=("digits",)),
        FewShotScale(name="nano", episodes=400, seeds=tuple(range(8))),
        FewShotScale(name="small", episodes=1000, seeds=tuple(range(10)), repeats=1),
    )
}
"""tiny is for tests: it runs, and says nothing. Each picture becomes words once, so more episodes of the same pictures
cost what the language model reads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimProtocol(Hashed):
    """All that must agree before two results may be compared."""

    scale: FewShotScale
    sets: tuple[str, ...]
    episode_hashes: tuple[str, ...]
    """Of the list of every seed and set, seed by seed."""
    words: str
    """Fingerprint of the word tokenizer, as the next two."""
    language_model: str
    flat: str
    table_seed: int = TABLE_SEED
    claim: str = NAME
    interval: str = f"Student's t over seeds, paired by seed, coverage {COVERAGE:g}"
    seed: int = 0
    bootstrap_draws: int = 10_000
    version: int = VERSION


scale_named = partial(scale_among, SCALES)


def flat_ids(tokenizer: VideoTokenizer, pixels_BCHW: Tensor) -> NDArray[np.int64]:
    """Ids of each picture in [-1, 1], in raster order."""
    frames_BCHW = ((pixels_BCHW + 1.0) * 127.5).round().byte().cpu()
    clips = (Clip(frames_BCHW[at : at + 1], Fraction(1)) for at in range(len(frames_BCHW)))
    return np.stack([tokenizer.encode(clip).ids_Qthw.flatten().numpy() for clip in clips])


def word_table(vocab_size: int, words: tuple[str, ...], seed: int = TABLE_SEED) -> NDArray[np.str_]:
    """The word of every id: another one for each where there are enough, else each word for as many ids as others."""
    drawn = np.random.default_rng(seed).permutation(max(vocab_size, len(words)))[:vocab_size]
    return np.array(words)[drawn % len(words)]


def spread(total: int, count: int) -> NDArray[np.int64]:
    """So many of the places 0..total - 1, each in the middle of its share.

    Raises:
        ConfigError: more than there are.
    """
    if count > total:
        raise ConfigError(f"{count} flat tokens are more than the {total} of a picture; ask for fewer layers of words")
    return ((np.arange(count) + 0.5) * total / count).astype(np.int64)


def reproduce_few_shot(
    scale: FewShotScale,
    folder: Path,
    results: Path | None = None,
    *,
    data: Path | None = None,
    device: str = "cpu",
    command: str | None = None,
    say: Say = lambda _line: None,
) -> dict[str, Any]:
    """Test the claim, or go on where an earlier call stopped.

    Args:
        folder: keeps finished seeds.
        results: gets reproduce_NAME.json and its page; None writes nothing.
        data: folder with one sub-folder per set; without it, questions are about worlds.

    Returns:
        A result in the schema of kinolex.evaluation.protocol with `verdict` and `findings`.

    Raises:
        MissingExtra: transformers is not installed. MissingFile, DataError: a set is not there.
    """
    spae, fingerprint = hub.load_spae(scale.words)
    lm, tokenizer = hub.load_lm(scale.language_model).to(device), hub.load(scale.flat).to(device)
    spae, made_of = spae.to(device), (fingerprint, lm.fingerprint, tokenizer.fingerprint)
    sets = scale.sets if data is not None else ("worlds",)
    store = RowStore(folder / f"{NAME}-{scale.name}" / "rows.jsonl")
    rows, hashes, prompts = list[dict[str, Any]](), list[str](), dict[str, str]()
    for number, seed in enumerate(scale.seeds):
        lists = [_questions(scale, name, data, number) for name in sets]
        hashes += [questions.hash for questions in lists]
        key = row_key(VERSION, *made_of, hashes[-len(sets) :], asdict(scale.questions), TABLE_SEED)
        if (row := store.get(key)) is None:
            say(f"{NAME} {number + 1}/{len(scale.seeds)}: seed {seed}, {', '.join(sets)}")
            began = time.monotonic()
            figures, shown = measured(lm, spae, tokenizer, lists, scale)
            row = store.put(key, {"figures": figures, "prompts": shown, "seconds": time.monotonic() - began})
        rows += [{"name": f"{arm}, seed {seed}", "arm": arm, "seed": seed} | row["figures"][arm] for arm in ARMS]
        rows[-1]["seconds"], prompts = row["seconds"], prompts or row["prompts"]
    words, model, flat = made_of
    protocol = ClaimProtocol(
        scale=scale, sets=sets, episode_hashes=tuple(hashes), words=words, language_model=model, flat=flat
    )
    result = summarised(rows, protocol, command) | {"prompts": prompts}
    if results is not None:
        caption = f"share of right answers, mean over seeds; chance is {result['chance']:.3g}"
        asked = [part for arm in ARMS for part in (note(f"The first question, {arm}:"), code(prompts[arm]))]
        write_verdict(results, TOLD, result, caption, *asked)
    return result


def measured(
    lm: FrozenLM, spae: Spae, tokenizer: VideoTokenizer, lists: list[EpisodeList], scale: FewShotScale
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Figures of every arm on the lists of one seed, and the first prompt of each."""
    ends, word_of = prefix_lengths(spae.config), word_table(tokenizer.vocab_size, spae.config.words)
    each: dict[str, dict[str, list[float]]] = {arm: {OPEN: [], NEIGHBOUR: []} for arm in ARMS}
    figures: dict[str, dict[str, float]] = {arm: {} for arm in ARMS}
    prompts: dict[str, str] = {}
    for questions in lists:
        used = used_pictures(questions)
        pixels_BCHW = pixels_of([questions.pictures[index] for index in used], spae.config.pixels[1])
        spelled = words_of_pixels(spae, pixels_BCHW, max(scale.layers))
        flat_BL = word_of[flat_ids(tokenizer, pixels_BCHW)]
        for length in (ends[layers - 1] for layers in scale.layers):
            words = {index: row[:length] for index, row in zip(used, spelled, strict=True)}
            tokens_BL = flat_BL[:, spread(flat_BL.shape[1], length)].tolist()
            shown = {
                WORDS: words,
                FLAT: dict(zip(used, tokens_BL, strict=True)),
                SHUFFLED: shuffled_words(questions, words, questions.seed),
            }
            for arm, of_picture in shown.items():
                hits = np.array(ask(lm, questions, of_picture, scale.questions))
                figures[arm][f"{questions.name}, {length} words"] = float(hits[:, 1].mean())
                near = [neighbour(episode, of_picture, questions.pictures) for episode in questions.episodes]
                each[arm][OPEN].append(float(hits[:, 0].mean()))
                each[arm][NEIGHBOUR].append(float(np.mean(near)))
                first = question(questions.episodes[0], of_picture, questions, scale.questions)
                prompts.setdefault(arm, first)
    for arm in ARMS:
        mean = float(np.mean([*figures[arm].values()]))
        figures[arm] |= {MEAN: mean} | {key: float(np.mean(values)) for key, values in each[arm].items()}
    return figures, prompts


def findings_of(rows: list[dict[str, Any]]) -> list[Finding]:
    of_arm = {arm: [row[MEAN] for row in rows if row["arm"] == arm] for arm in ARMS}
    return [
        more_than(f"accuracy with {WORDS} over that with {other}", log_ratios(of_arm[WORDS], of_arm[other]))
        for other in (FLAT, SHUFFLED)
    ]


def summarised(rows: list[dict[str, Any]], protocol: ClaimProtocol, command: str | None) -> dict[str, Any]:
    """The result of rows of all seeds and arms."""
    keys = [key for key in rows[0] if key not in ("name", "arm", "seed", "seconds")]
    of_arm = {arm: [row for row in rows if row["arm"] == arm] for arm in ARMS}
    means = {arm: {key: float(np.mean([row[key] for row in some])) for key in keys} for arm, some in of_arm.items()}
    result = result_of(TOLD, rows, findings_of(rows), means, protocol, protocol.scale.seeds, command)
    return result | {"chance": 1 / protocol.scale.ways, "seconds": sum(row.get("seconds", 0.0) for row in rows)}


def _questions(scale: FewShotScale, name: str, data: Path | None, number: int) -> EpisodeList:
    return episode_list(
        data,
        name,
        ways=scale.ways,
        shots=scale.shots,
        seed=scale.seeds[number],
        count=scale.episodes,
        part=(number, len(scale.seeds)),
    )

"""VideoPoet's tasks learned together, against those alone that need no captions, and against one that does."""

from __future__ import annotations

from typing import Any

from kinolex.evaluation.page import Html, table
from kinolex.training.claims.beside import Told
from kinolex.training.claims.poet_claims import PoetClaim, Rows, bits_of, mean_logs
from kinolex.training.claims.poet_lab import MADE
from kinolex.training.claims.poets import (
    ASKS,
    BOTH_LEARN,
    OF_WORDS,
    PoetArm,
    PoetScale,
    of_equal_cost,
    recipe,
)
from kinolex.training.claims.rules import Finding, more_than

ALL, BARE_ONLY, ONE = "all tasks", "self-supervised tasks", "text-to-both"


def arms(scale: PoetScale) -> tuple[PoetArm, ...]:
    """The same worlds and operations; only what is asked of them in training differs."""
    everything = recipe(scale, scale.middle)
    bare = recipe(scale, scale.middle, with_words=())
    one = recipe(scale, scale.middle, with_words=(("text-to-both", 1.0),), bare=())
    return (
        PoetArm(name=ALL, config=everything),
        PoetArm(name=BARE_ONLY, config=of_equal_cost(bare, everything)),
        PoetArm(name=ONE, config=of_equal_cost(one, everything)),
    )


def judge(rows: Rows, _names: object = ()) -> list[Finding]:
    every, of_words = bits_of((*OF_WORDS, *BOTH_LEARN)), bits_of(OF_WORDS)
    return [
        more_than(
            f"bits of {BARE_ONLY} alone over those of {ALL}, mean of all {len(every)}",
            mean_logs(rows, BARE_ONLY, ALL, every),
        ),
        more_than(
            f"bits of {BARE_ONLY} without words over those of {ALL}, mean of the {len(of_words)} of words",
            mean_logs(rows, BARE_ONLY, ALL, of_words),
        ),
    ]


def aside(rows: Rows, _names: object = ()) -> list[Finding]:
    own = bits_of([ask for ask in ASKS if ask.task == ONE])
    return [
        more_than(
            f"bits of {BARE_ONLY} alone over those of {ALL}, mean of the {len(BOTH_LEARN)} that both were trained for",
            mean_logs(rows, BARE_ONLY, ALL, bits_of(BOTH_LEARN)),
        ),
        more_than(f"bits of {ONE} alone over those of {ALL}, at {ONE}", mean_logs(rows, ONE, ALL, own)),
        more_than(
            f"bits of {ONE} alone over those of {ALL}, mean of {len(BOTH_LEARN)} that it never saw",
            mean_logs(rows, ONE, ALL, bits_of(BOTH_LEARN)),
        ),
        *(
            more_than(f"{MADE} of {name} alone over that of {ALL}", mean_logs(rows, name, ALL, [MADE]))
            for name in (BARE_ONLY, ONE)
        ),
    ]


def charts(result: dict[str, Any]) -> list[Html]:
    """Bits of every task; in brackets where a network was never trained for it."""
    rows = [
        [
            ask.task,
            *(
                f"{means[ask.task]:.3f}" if ask.task in result["learned"][name] else f"({means[ask.task]:.3f})"
                for name, means in result["means"].items()
            ),
        ]
        for ask in ASKS
    ]
    caption = "Bits per token; in brackets: never trained for it. Without captions, tasks of words are asked without"
    return [table(["task", *result["means"]], rows, caption=caption)]


CLAIM = PoetClaim(
    told=Told(
        name="task-mix",
        source="VideoPoet, arXiv 2312.14125, section 5.2 (pretraining task mixtures)",
        statement="A network trained on all tasks together is better over all of them than one that cost as much and "
        "was trained on self-supervised tasks alone, and pairs of text and video are needed for it",
        rule=f"bits per token on held-out worlds, of the self-supervised network over those of the network for all "
        f"tasks, mean log ratio over {len(OF_WORDS) + len(BOTH_LEARN)} tasks, and over the {len(OF_WORDS)} of words "
        "alone, which the first is asked without words, as it learned to make clips of nothing: 95 % t-intervals over "
        "seeds above 0, both times; fail if one lies below 0",
    ),
    arms=arms,
    judge=judge,
    aside=aside,
    charts=charts,
)

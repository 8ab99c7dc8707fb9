"""Trained weights of a multimodal network as the start of one whose vocabulary is another.

    a table's rows:   marker | task | word | end | hidden | code of a level    old row --same name or number--> new row

Ranges move when a range before them grows, so rows are found by what they stand for. Rows that the old network does
not have stay as they are in the new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from kinolex.errors import CheckpointError
from kinolex.models.multimodal import MultimodalConfig, MultimodalTransformer
from kinolex.vocab import MARKERS, OUTPUTS, Vocabulary

SAME = (
    "width",
    "depth",
    "heads",
    "latent_frames",
    "sound_frames",
    "sound_frames_per_latent",
    "text_features",
    "video_digits",
    "chained",
)
"""Fields of a config in which both networks agree; others say nothing about weights."""
SAME_IDS = ("factors", "sound_codes")
"""Likewise of a vocabulary."""


@torch.no_grad()
def take_over(network: MultimodalTransformer, trained: MultimodalTransformer) -> None:
    """Give a fresh network the weights of a trained one, in place.

    Ids of tokenizers are taken to mean what they meant: of a tokenizer that was trained on, nearly; of another one,
    nothing, and then its rows are as good a start as any.

    Raises:
        CheckpointError: they differ in more than their words, markers and levels of sound.
    """
    ours, theirs = network.config, trained.config
    unlike = [*_differences(ours, theirs, SAME), *_differences(ours.vocabulary, theirs.vocabulary, SAME_IDS)]
    if bool(ours.words) != bool(theirs.words):
        unlike.append("the one's text ids are a closed list of words, the other's are not")
    if unlike:
        raise CheckpointError(
            f"these weights are of another network than the recipe's: {'; '.join(unlike)}; choose weights that fit it"
        )
    rows = _rows(ours, theirs)
    found, state = trained.state_dict(), network.state_dict()
    for name, tensor in state.items():
        if name in rows:
            for new, old in rows[name]:
                tensor[new] = found[name][old].to(tensor)
        elif name in found:
            assert found[name].shape == tensor.shape, name
            tensor.copy_(found[name])
        else:
            # Equal configs have equal parts, but for levels of sound.
            assert name.startswith("sound."), name


def _differences(
    ours: MultimodalConfig | Vocabulary, theirs: MultimodalConfig | Vocabulary, names: Sequence[str]
) -> Iterator[str]:
    for name in names:
        if getattr(ours, name) != getattr(theirs, name):
            yield f"{name} is {getattr(theirs, name)}, not {getattr(ours, name)}"


def _rows(ours: MultimodalConfig, theirs: MultimodalConfig) -> dict[str, list[tuple[int, int]]]:
    """Of every table with rows that may have moved: (row in ours, row in theirs)."""
    text = _pairs(_text_rows(ours), _text_rows(theirs))
    end = (ours.vocabulary.text_size, theirs.vocabulary.text_size)
    levels = range(min(ours.vocabulary.sound_levels, theirs.vocabulary.sound_levels))
    return {
        "markers": _pairs(_marker_rows(ours.vocabulary), _marker_rows(theirs.vocabulary)),
        # After the words come the end, and in the table what is hidden.
        "text.tables.0": [*text, end, (end[0] + 1, end[1] + 1)],
        "text.biases.0": [*text, end],
        "levels": [(level, level) for level in levels],
    }


def _text_rows(config: MultimodalConfig) -> list[str]:
    """What each text id stands for: its word, or its number where a tokenizer made them."""
    return list(config.words) or [str(number) for number in range(config.vocabulary.text_size)]


def _marker_rows(vocabulary: Vocabulary) -> list[str]:
    # Outputs are kept apart from markers by a word that no marker has.
    outputs = [f"task {output}" for output in OUTPUTS]
    return [*MARKERS, *vocabulary.sources, *vocabulary.resolutions, *outputs]


def _pairs(ours: Sequence[str], theirs: Sequence[str]) -> list[tuple[int, int]]:
    place = {name: row for row, name in enumerate(theirs)}
    return [(row, place[name]) for row, name in enumerate(ours) if name in place]

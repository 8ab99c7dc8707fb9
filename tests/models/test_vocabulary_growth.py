"""Weights move into a network with another vocabulary row by row, and what it knew stays as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kinolex.errors import CheckpointError
from kinolex.models.multimodal import MultimodalConfig, MultimodalTransformer
from kinolex.models.vocabulary_growth import take_over
from kinolex.tasks.multimodal import TASKS, Material, compose
from kinolex.vocab import Vocabulary

OLD = MultimodalConfig(
    video_tokenizer="",
    sound_tokenizer="",
    vocabulary=Vocabulary(text_size=3, video_size=16, video_factors=(4, 4), sound_codes=8, sound_levels=2),
    words=("red", "ball", "falls"),
    width=16,
    depth=2,
    heads=2,
    latent_frames=2,
    sound_frames=4,
    sound_frames_per_latent=2.0,
    text_length=4,
    video_digits=(2,) * 4,
)
GROWN = replace(
    OLD,
    vocabulary=replace(OLD.vocabulary, text_size=5, sound_levels=3, sources=("worlds",)),
    words=("zero", "ball", "red", "one", "falls"),
)


def network(config: MultimodalConfig, seed: int) -> MultimodalTransformer:
    torch.manual_seed(seed)
    made = MultimodalTransformer(config)
    # What begins at zero would hide rows that were left behind.
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made.eval()


def answers(model: MultimodalTransformer, task: str, said: list[str]) -> list[torch.Tensor]:
    """Logits of every factor of every output of one sequence."""
    torch.manual_seed(5)
    words = model.config.words
    material = Material(
        text_P=torch.tensor([words.index(word) for word in said]),
        video_thw=torch.randint(16, (2, 2, 2)),
        sound_Qt=torch.randint(8, (2, 4)),
    )
    sequence = compose(TASKS[task], material, model.config.vocabulary, text_length=4)
    layout, ids_BL = sequence.layout, sequence.ids_L[None]
    hidden_BMD = model.hidden(ids_BL, layout)
    found = []
    for span in layout.outputs():
        own_BMF = model.own(ids_BL[:, span.start : span.stop], span)
        here = hidden_BMD[:, span.start - layout.prefix : span.stop - layout.prefix]
        found += [model.logits(here, span, 0, factor, own_BMF) for factor in range(own_BMF.shape[-1])]
    return found


@torch.no_grad()
def test_a_grown_network_answers_about_old_ids_as_the_old_one_did() -> None:
    old, grown = network(OLD, 0), network(GROWN, 1)
    fresh = grown.text.tables[0].detach().clone()
    take_over(grown, old)

    for task in ("text-to-both", "continuation", "video-to-sound"):
        for before, after in zip(
            answers(old, task, ["falls", "red"]), answers(grown, task, ["falls", "red"]), strict=True
        ):
            assert torch.allclose(before, after, atol=1e-5)
    before, after = answers(old, "describe", ["ball", "red"])[0], answers(grown, "describe", ["ball", "red"])[0]
    # red, ball, falls and the end, where the grown network has them.
    assert torch.allclose(before, after[..., [2, 1, 4, 5]], atol=1e-5)
    assert torch.equal(grown.text.tables[0][[0, 3]], fresh[[0, 3]]), "new words start afresh"


@torch.no_grad()
def test_equal_vocabularies_take_over_everything() -> None:
    old, new = network(OLD, 0), network(OLD, 1)
    take_over(new, old)
    assert all(torch.equal(value, new.state_dict()[name]) for name, value in old.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"width": 32}, "width is 16, not 32"),
        ({"latent_frames": 3}, "latent_frames is 2, not 3"),
        ({"video_digits": ()}, "video_digits"),
        ({"vocabulary": replace(OLD.vocabulary, sound_codes=9)}, "sound_codes is 8, not 9"),
        ({"words": ()}, "closed list"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, object], what: str) -> None:
    other = network(replace(OLD, **changes), 1)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=what):
        take_over(other, network(OLD, 0))

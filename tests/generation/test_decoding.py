"""Whole sequences out of open ones: every output within its range, with and without a cache, guided or not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kinolex.errors import UsageError
from kinolex.generation.decoding import DecodeConfig, Decoded, decode_sequence
from kinolex.masks import HIDDEN
from kinolex.models.multimodal import MultimodalConfig, MultimodalTransformer
from kinolex.sampling.choose import Choice
from kinolex.sequences import SOUND_ORDERS
from kinolex.tasks.multimodal import TASKS, Material, Sequence, compose, outcome
from kinolex.vocab import Vocabulary

VOCABULARY = Vocabulary(text_size=6, video_size=64, video_factors=(8, 8), sound_codes=8, sound_levels=2)
CONFIG = MultimodalConfig(
    video_tokenizer="",
    sound_tokenizer="",
    vocabulary=VOCABULARY,
    video_digits=(8, 2, 4),
    width=32,
    depth=2,
    heads=2,
    latent_frames=3,
    sound_frames=6,
    sound_frames_per_latent=2.0,
    text_length=4,
)


@pytest.fixture
def model() -> MultimodalTransformer:
    torch.manual_seed(0)
    network = MultimodalTransformer(CONFIG).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def open_sequence(task: str, order: str = "levels", drop: tuple[str, ...] = ()) -> Sequence:
    """Everything that is asked for is open."""
    draw = torch.Generator().manual_seed(1)
    video_thw, masked_thw = (torch.randint(64, (3, 2, 2), generator=draw) for _ in range(2))
    sound_Qt = torch.randint(8, (2, 6), generator=draw)
    masked_thw[:, 0] = HIDDEN
    asked = TASKS[task].asked
    if "clip" in asked or "image" in asked:
        video_thw[:] = HIDDEN
    if "rest-of-clip" in asked:
        video_thw[1:] = HIDDEN
    if "sound" in asked:
        sound_Qt[:] = HIDDEN
    if "rest-of-sound" in asked:
        sound_Qt[:, 2:] = HIDDEN
    material = Material(
        text_P=None if "text" in asked else torch.tensor([2, 5]),
        video_thw=video_thw,
        masked_thw=masked_thw,
        structure_thw=masked_thw.clamp(min=0),
        sound_Qt=sound_Qt,
        given_sound=2,
    )
    return compose(TASKS[task], material, VOCABULARY, text_length=4, order=order, drop=drop)  # type: ignore[arg-type]


@pytest.mark.parametrize("window", [1, 6])
@pytest.mark.parametrize("task", TASKS)
def test_every_output_is_drawn_from_its_own_range_and_nothing_else_moves(
    model: MultimodalTransformer, task: str, window: int
) -> None:
    sequence = open_sequence(task)
    made: Decoded = decode_sequence(model, sequence, DecodeConfig(window=window), batch=3)
    given_L = sequence.ids_L != HIDDEN
    assert made.ids_BL.shape == (3, sequence.layout.length)
    assert bool((made.ids_BL[:, given_L] == sequence.ids_L[given_L]).all())
    assert made.tokens == int((~given_L).sum()) and 1 <= made.passes <= made.tokens
    for ids_L in made.ids_BL:
        outcome(sequence.layout, ids_L, VOCABULARY)  # refuses ids of another range
    assert len(made.ids_BL.unique(dim=0)) == 3, "each of a batch its own"


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("window", [1, 5])
@pytest.mark.parametrize("order", SOUND_ORDERS)
def test_with_and_without_cache_the_same_ids_are_drawn(
    model: MultimodalTransformer, order: str, window: int, guided: bool
) -> None:
    sequence, unsaid = open_sequence("text-to-both", order), open_sequence("text-to-both", order, drop=("text",))
    config = DecodeConfig(window=window, seed=4, guidance=1.5 if guided else 0.0, sound=Choice(top_k=3))
    with_cache, without = (
        decode_sequence(model, sequence, replace(config, cached=cached), unsaid=unsaid) for cached in (True, False)
    )
    assert torch.equal(with_cache.ids_BL, without.ids_BL) and with_cache.passes == without.passes


def test_a_seed_fixes_what_is_drawn_and_guidance_changes_it(model: MultimodalTransformer) -> None:
    sequence, unsaid = open_sequence("text-to-video"), open_sequence("text-to-video", drop=("text",))

    def ids(seed: int, guidance: float = 0.0) -> list[int]:
        config = DecodeConfig(seed=seed, guidance=guidance)
        return decode_sequence(model, sequence, config, unsaid=unsaid).ids_BL[0].tolist()

    assert ids(1) == ids(1) and ids(1) != ids(2) and ids(1) != ids(1, guidance=20.0)


def test_guidance_without_something_to_push_away_from_is_refused(model: MultimodalTransformer) -> None:
    for unsaid in (None, open_sequence("text-to-image")):
        with pytest.raises(UsageError, match="guidance"):
            decode_sequence(model, open_sequence("text-to-video"), DecodeConfig(guidance=1.0), unsaid=unsaid)
    with pytest.raises(UsageError, match="window"):
        DecodeConfig(window=0)


def test_after_the_end_of_a_text_there_is_padding(model: MultimodalTransformer) -> None:
    sequence = open_sequence("describe")
    made = decode_sequence(model, sequence, DecodeConfig(seed=2), batch=64)
    end, pad = VOCABULARY.marker("text_end"), VOCABULARY.marker("pad")
    texts = made.ids_BL[:, sequence.layout.prefix : sequence.layout.stop].tolist()
    ended = [text for text in texts if end in text[:-1]]
    assert ended and all(set(text[text.index(end) + 1 :]) == {pad} for text in ended)
    assert all(pad not in text[: text.index(end)] if end in text else pad not in text for text in texts)


def test_a_picture_goes_on_as_a_clip(model: MultimodalTransformer) -> None:
    picture = open_sequence("text-to-image")
    image = outcome(
        picture.layout, decode_sequence(model, picture, DecodeConfig(seed=3)).ids_BL[0], VOCABULARY
    ).video_thw
    assert image is not None and image.shape == (1, 2, 2)
    video_thw = torch.cat([image, torch.full((2, 2, 2), HIDDEN)])
    clip = compose(
        TASKS["text-to-video"],
        Material(text_P=torch.tensor([2, 5]), video_thw=video_thw),
        VOCABULARY,
        text_length=4,
    )
    made = decode_sequence(model, clip, DecodeConfig(seed=3))
    made_thw = outcome(clip.layout, made.ids_BL[0], VOCABULARY).video_thw
    assert made.tokens == 8 and made_thw is not None and torch.equal(made_thw[:1], image)
    assert torch.equal(picture.ids_L[: picture.layout.prefix], clip.ids_L[: clip.layout.prefix])


def test_embeddings_of_a_text_are_read_where_it_is_said() -> None:
    torch.manual_seed(0)
    network = MultimodalTransformer(replace(CONFIG, text_features=5)).eval().requires_grad_(False)
    sequence, unsaid = open_sequence("text-to-video"), open_sequence("text-to-video", drop=("text",))
    made = [
        decode_sequence(
            network, sequence, DecodeConfig(guidance=9.0), unsaid=unsaid, text_PE=scale * torch.ones(4, 5)
        ).ids_BL
        for scale in (0.0, 1e3)
    ]
    assert not torch.equal(made[0], made[1])

"""The loss is the mean over what is made, and over nothing else."""

from __future__ import annotations

import math

import pytest
import torch

from kinolex.models.multimodal import MultimodalConfig, MultimodalTransformer
from kinolex.tasks.multimodal import TASKS, Material, compose
from kinolex.training.multimodal_losses import multimodal_loss
from kinolex.vocab import Vocabulary

VOCABULARY = Vocabulary(text_size=6, video_size=16, sound_codes=8, sound_levels=2)


@pytest.fixture
def model() -> MultimodalTransformer:
    torch.manual_seed(0)
    config = MultimodalConfig(
        video_tokenizer="",
        sound_tokenizer="",
        vocabulary=VOCABULARY,
        width=16,
        depth=1,
        heads=2,
        latent_frames=2,
        sound_frames=4,
        sound_frames_per_latent=2.0,
        text_length=4,
    )
    return MultimodalTransformer(config)


def material() -> Material:
    return Material(
        text_P=torch.tensor([1]),
        video_thw=torch.arange(8).reshape(2, 2, 2),
        sound_Qt=torch.arange(8).reshape(2, 4),
    )


def test_a_network_that_knows_nothing_pays_the_size_of_each_range(model: MultimodalTransformer) -> None:
    sequence = compose(TASKS["text-to-both"], material(), VOCABULARY, text_length=4)
    loss, figures = multimodal_loss(model, sequence.layout, sequence.ids_L[None])
    assert figures["video_bits"] == pytest.approx(4.0, abs=0.1)
    assert figures["sound_bits"] == pytest.approx(3.0, abs=0.1)
    assert float(loss.detach()) == pytest.approx(3.5 * math.log(2), abs=0.1)


def test_padding_does_not_thin_the_loss(model: MultimodalTransformer) -> None:
    losses = []
    for places in (2, 4):
        sequence = compose(TASKS["describe"], material(), VOCABULARY, text_length=places)
        losses.append(float(multimodal_loss(model, sequence.layout, sequence.ids_L[None])[0].detach()))
    assert losses[0] == pytest.approx(losses[1], abs=0.05) and losses[0] == pytest.approx(math.log(7), abs=0.1)


def test_weights_count_a_kind_more_or_not_at_all(model: MultimodalTransformer) -> None:
    sequence = compose(TASKS["text-to-both"], material(), VOCABULARY)
    ids_BL = sequence.ids_L[None]
    plain, figures = multimodal_loss(model, sequence.layout, ids_BL)
    sound_only, _ = multimodal_loss(model, sequence.layout, ids_BL, weights={"video": 0.0})
    mixed, _ = multimodal_loss(model, sequence.layout, ids_BL, weights={"video": 3.0})
    nats = {kind: figures[f"{kind}_bits"] * math.log(2) for kind in ("video", "sound")}
    assert float(plain.detach()) == pytest.approx((nats["video"] + nats["sound"]) / 2, rel=1e-4)
    assert float(sound_only.detach()) == pytest.approx(nats["sound"], rel=1e-4)
    assert float(mixed.detach()) == pytest.approx((3 * nats["video"] + nats["sound"]) / 4, rel=1e-4)
    sound_only.backward()
    assert model.video.tables[0].grad is not None, "pictures that are read teach through what they say about sound"

"""Pictures and clips as words: sizes, any prefix, words and ids, and what the semantic loss pulls towards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kinolex import checkpoint, hub
from kinolex.errors import CheckpointError, ConfigError, ShapeError, TokenError
from kinolex.tokenizers.spae import (
    SQUARED_LENGTH,
    Spae,
    SpaeConfig,
    candidates,
    codebook_from,
    prefix_lengths,
    semantic_loss,
)

WORDS = tuple(f"word{number}" for number in range(30))
IMAGE = SpaeConfig(
    words=WORDS,
    language_model="f" * 64,
    dim=8,
    layers=((1, 1, 1), (1, 2, 2), (1, 4, 4), (1, 4, 4)),
    channels=(16,),
    down=(),
    encoder_blocks=(1,),
    decoder_blocks=(1,),
    middle_blocks=1,
    norm_groups=4,
)
VIDEO = replace(
    IMAGE,
    layers=((1, 1, 1), (1, 2, 2), (2, 4, 4), (2, 4, 4)),
    channels=(8, 16),
    down=((2, 1),),
    encoder_blocks=(1, 1),
    decoder_blocks=(1, 1),
)


def model_of(config: SpaeConfig) -> Spae:
    torch.manual_seed(0)
    model = Spae(config)
    model.quantizer.set_codebook(codebook_from(torch.randn(len(WORDS), config.dim)))
    return model.eval()


def pixels_of(config: SpaeConfig, batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, *config.pixels, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize(("config", "pixels"), [(IMAGE, (1, 16, 16)), (VIDEO, (4, 16, 16))])
def test_pictures_and_clips_go_through_words_at_their_size(config: SpaeConfig, pixels: tuple[int, int, int]) -> None:
    model = model_of(config)
    assert config.pixels == pixels
    output_BCTHW, quantized = model(pixels_of(config))
    assert output_BCTHW.shape == (2, 3, *pixels)
    assert [tuple(ids.shape[1:]) for ids in quantized.ids] == list(config.layers)


@pytest.mark.parametrize("config", [IMAGE, VIDEO])
def test_any_prefix_of_the_layers_decodes_as_it_did_when_encoded(config: SpaeConfig) -> None:
    model = model_of(config)
    with torch.no_grad():
        _, quantized = model(pixels_of(config))
        for count, prefix_BDthw in enumerate(quantized.prefixes_BDthw, start=1):
            expected = model.decode(prefix_BDthw).clamp(-1, 1)
            torch.testing.assert_close(model.decode_ids(quantized.ids[:count]), expected, atol=1e-4, rtol=1e-4)


def test_words_and_ids_are_inverse_for_every_prefix() -> None:
    model = model_of(IMAGE)
    ids = model.encode_ids(pixels_of(IMAGE))
    for count, length in enumerate(prefix_lengths(IMAGE), start=1):
        words = model.spell(ids[:count])
        assert {len(row) for row in words} == {length}
        assert all(torch.equal(a, b) for a, b in zip(model.read(words), ids[:count], strict=True))


def test_the_word_at_the_top_depends_on_the_whole_picture() -> None:
    model = model_of(IMAGE)
    pixels_BCTHW = pixels_of(IMAGE).requires_grad_()
    centre = model.encode(pixels_BCTHW)[:, :, 0, 2, 2].square().sum()
    (slope,) = torch.autograd.grad(centre, pixels_BCTHW)
    assert bool((slope[:, :, :, ::15, ::15].abs().amax(dim=(1, 2)) > 0).all())


def test_codebook_words_are_of_equal_length_around_the_origin() -> None:
    codebook_VD = codebook_from(3 + torch.randn(50, 8))
    torch.testing.assert_close(codebook_VD.square().sum(dim=1), torch.full((50,), SQUARED_LENGTH))


def test_candidates_are_the_best_words_and_grow_with_depth() -> None:
    scores_BV = torch.tensor([[0.0, 5.0, 10.0, 9.0], [-3.0, -1.0, -2.0, -3.0]])
    assert candidates(scores_BV, 1.0).tolist() == [[False, False, True, False], [False, True, False, False]]
    assert candidates(scores_BV, 0.5).tolist() == [[False, True, True, True], [False, True, True, False]]


def test_the_semantic_loss_is_its_equation_where_one_word_is_the_only_candidate() -> None:
    quantizer = model_of(IMAGE).quantizer
    states = [torch.randn(2, length, 8, generator=torch.Generator().manual_seed(3)) for length in (1, 4)]
    scores_BV = torch.zeros(2, 30)
    scores_BV[0, 7], scores_BV[1, 9] = 1.0, 1.0
    found = semantic_loss(quantizer, states, scores_BV, (1.0, 0.9), torch.Generator().manual_seed(0))
    expected = 0.0
    for state in states:
        total = 0.0
        for batch, word in ((0, 7), (1, 9)):
            for z in state[batch]:
                likelihood = torch.exp(-(z - quantizer.codebook).square().sum(dim=1))
                total -= float(torch.log(likelihood[word] / likelihood.sum()))
        expected += total / (2 * state.shape[1]) / 2
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_following_the_semantic_loss_makes_words_those_of_the_teacher() -> None:
    model = model_of(IMAGE)
    pixels_BCTHW, scores_BV = pixels_of(IMAGE), torch.zeros(2, 30)
    scores_BV[0, 3], scores_BV[1, 21] = 1.0, 1.0
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    codebook = model.quantizer.codebook.clone()
    for step in range(60):
        states = model.quantizer(model.encode(pixels_BCTHW)).states_BLD[:2]
        loss = semantic_loss(model.quantizer, states, scores_BV, (1.0, 1.0), torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    words = model.spell(model.encode_ids(pixels_BCTHW)[:2])
    assert words == [["word3"] * 5, ["word21"] * 5]
    assert torch.equal(model.quantizer.codebook, codebook)


def test_a_picture_that_the_teacher_knows_nothing_of_teaches_nothing() -> None:
    quantizer = model_of(IMAGE).quantizer
    states = [torch.randn(2, 1, 8, requires_grad=True)]
    loss = semantic_loss(quantizer, states, torch.zeros(2, 30), (1.0,), torch.Generator().manual_seed(0))
    loss.backward()
    assert float(loss.detach()) == 0.0 and not states[0].grad.any()


def test_wrong_sizes_and_words_are_refused() -> None:
    model = model_of(IMAGE)
    with pytest.raises(ShapeError, match="1 frames of 16x16"):
        model.encode(torch.zeros(1, 3, 1, 16, 20))
    with pytest.raises(TokenError, match="'cat' is not a word"):
        model.read([["cat"]])
    with pytest.raises(TokenError, match="1, 5, 21, 37"):
        model.read([["word1", "word2"]])
    with pytest.raises(ConfigError, match="different"):
        replace(IMAGE, words=("a", "a"))
    with pytest.raises(ConfigError, match="must not shrink"):
        replace(IMAGE, layers=((1, 2, 2), (1, 1, 1)))


def test_a_saved_word_tokenizer_gives_the_same_words_and_is_no_video_tokenizer(tmp_path: Path) -> None:
    model = model_of(IMAGE)
    fingerprint = checkpoint.save(tmp_path / "spae", model, card="")
    loaded, found = hub.load_spae(tmp_path / "spae")
    assert found == fingerprint and loaded.config == IMAGE
    pixels_BCTHW = pixels_of(IMAGE)
    assert loaded.spell(loaded.encode_ids(pixels_BCTHW)) == model.spell(model.encode_ids(pixels_BCTHW))
    with pytest.raises(CheckpointError, match="word tokenizer"):
        hub.load(tmp_path / "spae")

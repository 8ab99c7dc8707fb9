"""Streaming average quantization against brute force, and what every pyramid of words promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kinolex.errors import ConfigError, ShapeError, TokenError
from kinolex.tokenizers.quantizers.pyramid import PAPER_LAYERS, PyramidConfig, PyramidQuantizer, positions

IMAGE = ((1, 1, 1), (1, 2, 2), (1, 4, 4), (1, 4, 4))
VIDEO = ((1, 1, 1), (1, 2, 2), (2, 4, 4), (4, 4, 4))


def quantizer_of(layers: tuple[tuple[int, int, int], ...], words: int = 40, dim: int = 6) -> PyramidQuantizer:
    quantizer = PyramidQuantizer(PyramidConfig(vocab_size=words, dim=dim, layers=layers))
    quantizer.set_codebook(torch.randn(words, dim, generator=torch.Generator().manual_seed(0)))
    return quantizer


def latents_of(layers: tuple[tuple[int, int, int], ...], batch: int = 3, dim: int = 6) -> Tensor:
    return torch.randn(batch, dim, *layers[-1], generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layers", [IMAGE, VIDEO])
def test_words_and_averages_are_those_of_the_equations_word_by_word(layers: tuple[tuple[int, int, int], ...]) -> None:
    quantizer, latents_BDthw = quantizer_of(layers), latents_of(layers)
    quantized = quantizer(latents_BDthw)
    grid, codebook = layers[-1], quantizer.codebook
    for batch in range(len(latents_BDthw)):
        seen: dict[tuple[int, ...], list[Tensor]] = {}
        for number, layer in enumerate(layers):
            strides = [whole // size for size, whole in zip(layer, grid, strict=True)]
            for index in torch.cartesian_prod(*(torch.arange(1, size + 1) for size in layer)).tolist():
                # Equation 1 counts from 1: h'i - ceil(h'/2) + 1.
                place = tuple(s * i - -(-s // 2) + 1 - 1 for s, i in zip(strides, index, strict=True))
                z = latents_BDthw[(batch, slice(None), *place)]
                z_l = z + sum((z - e for e in seen.get(place, [])), torch.zeros_like(z))
                word = int((z_l - codebook).square().sum(dim=1).argmin())
                assert int(quantized.ids[number][(batch, *(i - 1 for i in index))]) == word
                seen.setdefault(place, []).append(codebook[word])
            for place, vectors in seen.items():
                found = quantized.prefixes_BDthw[number][(batch, slice(None), *place)]
                torch.testing.assert_close(found, torch.stack(vectors).mean(dim=0), atol=1e-5, rtol=1e-5)


def test_positions_are_spread_evenly_and_centred() -> None:
    assert positions(1, 16) == [8]
    assert positions(2, 16) == [4, 12]
    assert positions(8, 16) == [1, 3, 5, 7, 9, 11, 13, 15]
    assert positions(16, 16) == list(range(16))


def test_the_papers_pyramid_has_597_words() -> None:
    sizes = PyramidConfig(vocab_size=2, dim=1, layers=PAPER_LAYERS).sizes
    assert [sum(sizes[: count + 1]) for count in range(6)] == [1, 5, 21, 85, 341, 597]


@pytest.mark.parametrize("layers", [IMAGE, VIDEO])
def test_every_prefix_of_ids_gives_the_latents_that_encoding_gave(layers: tuple[tuple[int, int, int], ...]) -> None:
    quantizer = quantizer_of(layers)
    quantized = quantizer(latents_of(layers))
    for count in range(1, len(layers) + 1):
        latents_BDthw = quantizer.latents_from_ids(quantized.ids[:count])
        torch.testing.assert_close(latents_BDthw, quantized.prefixes_BDthw[count - 1], atol=1e-5, rtol=1e-5)


def test_the_first_prefix_is_one_word_everywhere() -> None:
    quantizer = quantizer_of(IMAGE)
    quantized = quantizer(latents_of(IMAGE))
    words_BD = quantizer.codebook[quantized.ids[0].flatten()]
    torch.testing.assert_close(quantized.prefixes_BDthw[0], words_BD[:, :, None, None, None].expand(3, 6, 1, 4, 4))


def test_later_layers_never_change_the_words_of_earlier_ones() -> None:
    whole = quantizer_of(IMAGE)(latents_of(IMAGE))
    top = quantizer_of((*IMAGE[:3],))(latents_of(IMAGE))
    assert all(torch.equal(a, b) for a, b in zip(whole.ids, top.ids, strict=False))


def test_with_enough_layers_the_average_comes_near_the_latent() -> None:
    """Each word makes up for the error of those before it, so the error falls about as one over their number."""
    layers = ((1, 2, 2),) * 24
    latents_BDthw = 0.5 * latents_of(layers, batch=8)
    quantized = quantizer_of(layers, words=200)(latents_BDthw)
    errors = [float((latents_BDthw - prefix).norm()) for prefix in quantized.prefixes_BDthw]
    assert errors[-1] < 0.25 * errors[0]


def test_the_gradient_goes_straight_to_where_each_value_came_from() -> None:
    quantizer = quantizer_of(IMAGE)
    latents_BDthw = latents_of(IMAGE).requires_grad_()
    quantized = quantizer(latents_BDthw)
    quantized.prefixes_BDthw[-1].sum().backward()
    assert latents_BDthw.grad is not None
    torch.testing.assert_close(latents_BDthw.grad, torch.ones_like(latents_BDthw))
    latents_BDthw.grad = None
    quantizer(latents_BDthw).prefixes_BDthw[0].sum().backward()
    expected_BDthw = torch.zeros_like(latents_BDthw)
    expected_BDthw[:, :, 0, 2, 2] = 16  # one word is shown at all sixteen positions
    torch.testing.assert_close(latents_BDthw.grad, expected_BDthw)


def test_states_and_commitment_have_the_gradients_of_their_formulas() -> None:
    quantizer = quantizer_of(IMAGE)
    z = latents_of(IMAGE, batch=1).requires_grad_()
    quantized = quantizer(z)
    (slope,) = torch.autograd.grad(quantized.commitment, z, retain_graph=True)
    seen = torch.zeros(4, 4)
    expected = torch.zeros_like(z)
    for number, layer in enumerate(IMAGE):
        rows, columns = (torch.tensor(positions(size, 4)) for size in layer[1:])
        seen[rows[:, None], columns] += 1
        known = seen > 0
        distance = (z - quantized.prefixes_BDthw[number]).detach() * known
        expected += 2 * distance / (known.sum() * z.shape[1]) / len(IMAGE)
    torch.testing.assert_close(slope, expected)
    # z_4 is z plus one z for each of the earlier words at its place, less those words.
    (slope,) = torch.autograd.grad(quantized.states_BLD[-1].square().sum(), z)
    state = quantized.states_BLD[-1].detach().transpose(1, 2).reshape(z.shape)
    torch.testing.assert_close(slope, 2 * state * seen)


def test_the_codebook_does_not_learn() -> None:
    quantizer = quantizer_of(IMAGE)
    before = quantizer.codebook.clone()
    assert not list(quantizer.parameters())
    latents_BDthw = latents_of(IMAGE).requires_grad_()
    quantized = quantizer(latents_BDthw)
    (quantized.commitment + quantized.prefixes_BDthw[1].square().sum()).backward()
    assert torch.equal(quantizer.codebook, before) and quantizer.codebook.grad is None


def test_what_is_no_pyramid_is_refused() -> None:
    for layers in ((), ((1, 2, 2), (1, 1, 1)), ((1, 3, 3), (1, 4, 4)), ((0, 1, 1),)):
        with pytest.raises(ConfigError):
            PyramidConfig(vocab_size=4, dim=2, layers=layers)
    quantizer = quantizer_of(IMAGE)
    ids = quantizer(latents_of(IMAGE)).ids
    with pytest.raises(ConfigError, match="40 words of width 6"):
        quantizer.set_codebook(torch.zeros(3, 6))
    with pytest.raises(ShapeError, match="stands on a grid"):
        quantizer(torch.zeros(1, 6, 1, 8, 8))
    with pytest.raises(ShapeError, match="from 1 to 4"):
        quantizer.latents_from_ids([])
    with pytest.raises(ShapeError, match="layer 2 has"):
        quantizer.latents_from_ids([ids[0], ids[0]])
    with pytest.raises(TokenError, match="another tokenizer"):
        quantizer.latents_from_ids([ids[0] + 40])

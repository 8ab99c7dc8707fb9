"""Attention by plain matrix products and by torch's fused kernel: the same answers, and where each of them is taken."""

from __future__ import annotations

import pytest
import torch

from kinolex.layers import attention
from kinolex.layers.attention import PLAIN_POSITIONS, Attention

BIDIRECTIONAL, CAUSAL = None, torch.ones(40, 40, dtype=torch.bool).tril()


@pytest.fixture
def layer() -> Attention:
    torch.manual_seed(0)
    return Attention(32, 4, normalised=True, dropout=0.0)


def gradients(layer: Attention, mask_LL: torch.Tensor | None) -> list[torch.Tensor]:
    inputs_BLD = torch.randn(2, 40, 32, generator=torch.Generator().manual_seed(1))
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        out_BLD = layer(inputs_BLD, None, mask_LL, None)
    out_BLD.float().square().mean().backward()
    return [out_BLD.detach().float(), *(parameter.grad.clone() for parameter in layer.parameters())]


@pytest.mark.parametrize("mask_LL", [BIDIRECTIONAL, CAUSAL], ids=["bidirectional", "causal"])
def test_training_by_matrix_products_gives_the_gradients_of_the_fused_kernel(
    layer: Attention, mask_LL: torch.Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = gradients(layer, mask_LL)
    monkeypatch.setattr(attention, "PLAIN_POSITIONS", 0)
    for ours, fused in zip(plain, gradients(layer, mask_LL), strict=True):
        torch.testing.assert_close(ours, fused, rtol=0, atol=0.02 * float(fused.abs().max()))


@pytest.mark.parametrize(
    ("positions", "learns", "fused", "is_plain"),
    [
        (PLAIN_POSITIONS, True, True, True),
        (PLAIN_POSITIONS, False, True, False),
        (PLAIN_POSITIONS + 1, True, True, False),
        (PLAIN_POSITIONS + 1, False, False, True),
    ],
)
def test_matrix_products_are_for_short_sequences_that_teach(
    positions: int, learns: bool, fused: bool, is_plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, calls = Attention(8, 2, normalised=False, dropout=0.0, fused=fused), []
    plain = attention.plain_attention
    monkeypatch.setattr(attention, "plain_attention", lambda *given: calls.append(1) or plain(*given))

    with torch.set_grad_enabled(learns), torch.autocast("cpu", torch.bfloat16):
        layer(torch.zeros(1, positions, 8), None, None, None)

    assert bool(calls) == is_plain

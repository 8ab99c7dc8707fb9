from __future__ import annotations

import pytest
import torch

from kinolex.codec.network import NetworkConfig
from kinolex.codec.priors import LearnedPrior
from kinolex.codec.stream import estimate_bits
from kinolex.training.prior import PriorTwin, previous_frames


@pytest.mark.parametrize(("levels", "size_hw"), [((3, 4), (6, 5)), ((9, 7, 5), (6, 5)), ((9, 7, 5), (3, 2))])
@torch.no_grad()
def test_the_exported_integers_estimate_the_bits_that_the_twin_was_trained_on(
    levels: tuple[int, ...], size_hw: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    config = NetworkConfig(levels=levels, channels=16, trunk_layers=2)
    twin = PriorTwin(config)
    for name, layer in twin.layers.items():
        if name.startswith("logits"):
            layer.weight *= 4.0  # so that its predictions are far from even
    digits_tDhw = torch.stack([torch.randint(size, (4, *size_hw)) for size in levels], dim=1)

    bits = float(twin.bits(digits_tDhw, previous_frames(digits_tDhw, levels, torch.float32)).sum())

    prior = LearnedPrior(config, twin.export())
    exported = estimate_bits(digits_tDhw.permute(0, 2, 3, 1).contiguous(), prior)
    assert exported == pytest.approx(bits, rel=0.02)
    again = PriorTwin(config)
    again.follow_(prior.layers)
    for name, tensor in again.export().items():
        assert torch.equal(tensor, twin.export()[name]), name
    uniform = sum(torch.log2(torch.tensor(float(size))).item() for size in levels) * 4 * size_hw[0] * size_hw[1]
    assert abs(exported - uniform) > 0.05 * uniform  # a network that says something

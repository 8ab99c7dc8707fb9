"""Probes: the same body whatever the input, no position is lost, and nothing hidden is seen."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from kinolex.errors import ConfigError, ShapeError
from kinolex.models.probe import HiddenTokenReader, Probe, ProbeConfig, ProbeKind, cells_of, merged

OUTPUTS = (("action", ("fall", "bounce", "slide")), ("number", ("one", "two")))
GRID = (2, 4, 4)


def probe(kind: ProbeKind, features: int = 5) -> Probe:
    torch.manual_seed(0)
    config = ProbeConfig(kind=kind, features=features, outputs=OUTPUTS, width=16, depth=2, heads=2)
    return Probe(config).eval()


@pytest.mark.parametrize("kind", get_args(ProbeKind))
def test_every_kind_gives_logits_of_every_attribute(kind: ProbeKind) -> None:
    answers = probe(kind)(torch.randn(3, 32, 5), GRID)
    assert {name: tuple(logits.shape) for name, logits in answers.items()} == {"action": (3, 3), "number": (3, 2)}
    assert all(logits.dtype == torch.float32 for logits in answers.values())


@pytest.mark.parametrize("kind", get_args(ProbeKind))
def test_every_position_is_looked_at(kind: ProbeKind) -> None:
    features_BLC = torch.randn(1, 32, 5, requires_grad=True)
    probe(kind)(features_BLC, GRID)["action"][0, 0].backward()
    assert features_BLC.grad is not None and bool((features_BLC.grad.abs().sum(dim=2) > 0).all())


@pytest.mark.parametrize("kind", ["attentive", "transformer"])
def test_places_count_except_for_the_linear_probe(kind: ProbeKind) -> None:
    features_BLC = torch.randn(1, 32, 5)
    turned_BLC = features_BLC.roll(8, dims=1)
    linear = probe("linear")
    assert torch.allclose(linear(features_BLC, GRID)["action"], linear(turned_BLC, GRID)["action"], atol=1e-5)
    other = probe(kind)
    assert not torch.allclose(other(features_BLC, GRID)["action"], other(turned_BLC, GRID)["action"], atol=1e-5)


@pytest.mark.parametrize("kind", get_args(ProbeKind))
def test_scale_and_offset_of_features_do_not_matter_once_standardised(kind: ProbeKind) -> None:
    features_BLC = torch.randn(8, 32, 5)
    shifted_BLC = 40.0 * features_BLC + 7.0
    plain, other = probe(kind), probe(kind)
    plain.standardise(features_BLC)
    other.standardise(shifted_BLC)
    for name, logits in plain(features_BLC, GRID).items():
        assert torch.allclose(logits, other(shifted_BLC, GRID)[name], atol=1e-4)


def test_bodies_differ_in_the_first_layer_alone() -> None:
    def of(features: int) -> dict[str, tuple[int, ...]]:
        return {name: tuple(value.shape) for name, value in probe("transformer", features).named_parameters()}

    one, other = of(6), of(768)
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == ["stem.weight"]


@pytest.mark.parametrize("grid", [(2, 4, 4), (1, 3, 5), (3, 1, 1)])
def test_cells_hold_every_position_once(grid: tuple[int, int, int]) -> None:
    count = grid[0] * grid[1] * grid[2]
    values_BLC = torch.arange(1, count + 1).view(1, count, 1)
    cells = merged(values_BLC, grid)
    assert cells.shape == (1, cells_of(grid)[0] * cells_of(grid)[1] * cells_of(grid)[2], 4)
    assert sorted(cells[cells > 0].tolist()) == list(range(1, count + 1))


def test_what_is_hidden_is_not_seen_and_what_is_not_hidden_is() -> None:
    network = probe("transformer")
    hide_BL = torch.zeros(1, 8, dtype=torch.bool)
    hide_BL[0, 5] = True
    features_BLC = torch.randn(1, 32, 5)
    before = network.hidden(features_BLC, GRID, hide_BL)
    changed_BLC = features_BLC.clone()
    changed_BLC[:, [18, 19, 22, 23]] += 3.0  # the positions of cell 5: second frame, top right
    assert torch.equal(network.hidden(changed_BLC, GRID, hide_BL), before)
    changed_BLC[:, 0] += 3.0
    assert not torch.equal(network.hidden(changed_BLC, GRID, hide_BL), before)


def test_hidden_tokens_are_learned_where_neighbours_tell_them() -> None:
    torch.manual_seed(0)
    reader = HiddenTokenReader(probe("transformer", 8), (8,))
    adam = torch.optim.Adam(reader.parameters(), lr=5e-3)
    losses = []
    for _ in range(30):
        ids_BL = torch.randint(8, (8, 1)).expand(-1, 32).contiguous()  # one id everywhere in a clip
        features_BLC = torch.nn.functional.one_hot(ids_BL, 8).float()
        loss = reader(features_BLC, GRID, ids_BL, torch.rand(8, 8) < 0.5)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 2.05 and losses[-1] < 1.95


def test_wrong_positions_and_impossible_probes_are_refused() -> None:
    with pytest.raises(ShapeError, match="2x4x4"):
        probe("linear")(torch.randn(1, 31, 5), GRID)
    with pytest.raises(ConfigError, match="width"):
        ProbeConfig(kind="linear", features=5, outputs=OUTPUTS, width=10, heads=4)
    with pytest.raises(ConfigError, match="two different classes"):
        ProbeConfig(kind="linear", features=5, outputs=(("action", ("fall",)),))
    with pytest.raises(ConfigError, match="different plain names"):
        ProbeConfig(kind="linear", features=5, outputs=())

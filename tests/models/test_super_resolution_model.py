"""Super-resolution of tokens: as large as the paper's, local, and no dearer per token however large the picture is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kinolex.errors import ConfigError, ShapeError
from kinolex.masks import HIDDEN
from kinolex.models.factors import split_ids
from kinolex.models.super_resolution import LAYERS, PRESETS, Cut, SuperResolution, SuperResolutionConfig

Size3 = tuple[int, int, int]

TINY = SuperResolutionConfig(
    tokenizer="t" * 64,
    factors=(8, 5),
    width=16,
    depth=1,
    heads=2,
    vertical=(1, 4, 2),
    horizontal=(1, 2, 4),
    temporal=(3, 2, 2),
    latent_frames=3,
)
FIRST = torch.tensor([True])


@pytest.fixture
def model() -> SuperResolution:
    torch.manual_seed(0)
    return SuperResolution(TINY).eval().requires_grad_(False)


def ids(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 40, sizes, generator=torch.Generator().manual_seed(seed))


def boxes(size: int, length: int) -> list[set[int]]:
    """Places of every window on an axis, the last one moved back into it."""
    length = min(size, length)
    starts = [start for start in range(0, size, length) if start + length <= size]
    if size % length:
        starts.append(size - length)
    return [set(range(start, start + length)) for start in starts]


def heard_by(grid: Size3, window: Size3, place: Size3) -> set[Size3]:
    """Places of the window that a token's own value is taken from: the last one that covers it, or the only one."""
    axes = []
    for size, length, at in zip(grid, window, place, strict=True):
        length = min(size, length)
        number = min(at // length, -(-size // length) - 1)
        start = min(number * length, size - length)
        axes.append(range(start, start + length))
    return {(t, h, w) for t in axes[0] for h in axes[1] for w in axes[2]}


@pytest.mark.parametrize(("preset", "paper"), [("paper-448x256", 1e9), ("paper-896x512", 500e6)])
def test_the_papers_stages_have_about_the_papers_size(preset: str, paper: float) -> None:
    with torch.device("meta"):
        network = SuperResolution(SuperResolutionConfig(tokenizer="", **PRESETS[preset]))
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(paper, rel=0.05)


@pytest.mark.parametrize("grid", [(3, 8, 8), (4, 10, 6), (5, 6, 14), (1, 2, 2)])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_hears_the_whole_window_of_a_token_and_nothing_else(
    model: SuperResolution, kind: str, grid: Size3
) -> None:
    layer = model.blocks[LAYERS.index(kind)]
    window = getattr(TINY, kind)
    generator = torch.Generator().manual_seed(1)
    large = torch.randn(1, *grid, 16, generator=generator)
    small = torch.randn(1, grid[0], grid[1] // 2, grid[2] // 2, 16, generator=generator)
    for place in ((0, 0, 0), (grid[0] - 1, grid[1] - 1, grid[2] - 1), (grid[0] // 2, grid[1] // 2, grid[2] // 3)):
        heard = heard_by(grid, window, place)
        large.requires_grad_(True)
        small.requires_grad_(True)
        gradients = torch.autograd.grad(layer(large, small)[0][place].sum(), (large, small))
        touched_large, touched_small = (
            {(t, h, w) for t, h, w in (one[0].abs().sum(dim=-1) > 0).nonzero().tolist()} for one in gradients
        )
        assert touched_large == heard
        assert touched_small == {(t, h // 2, w // 2) for t, h, w in heard}


def test_a_block_hears_the_union_of_its_layers_windows(model: SuperResolution) -> None:
    grid = (4, 10, 12)
    model = model.double()  # what arrives over three layers is too little for float32
    large_ids, small_ids = ids(1, *grid), ids(1, grid[0], 5, 6, seed=1)
    before = model.hidden(large_ids, small_ids, FIRST).reshape(*grid, -1)
    place = (1, 3, 5)
    reached = {place}
    for kind in LAYERS:  # who hears someone that heard it
        reached |= {
            (t, h, w)
            for t in range(grid[0])
            for h in range(grid[1])
            for w in range(grid[2])
            if heard_by(grid, getattr(TINY, kind), (t, h, w)) & reached
        }
    assert len(reached) < 4 * 10 * 12 / 2
    large_ids[0][place] = (large_ids[0][place] + 1) % 40

    after = model.hidden(large_ids, small_ids, FIRST).reshape(*grid, -1)

    changed = {(t, h, w) for t, h, w in (after != before).any(dim=-1).nonzero().tolist()}
    assert changed == reached


def costs(config: SuperResolutionConfig, grid: Size3) -> tuple[int, int]:
    """Operations of a pass, and bytes that are kept for the backward pass."""
    model, kept = SuperResolution(config), {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def remember(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    large_ids, small_ids = ids(1, *grid), ids(1, grid[0], grid[1] // 2, grid[2] // 2)
    counter = FlopCounterMode(display=False)
    # Fused kernels keep no scores, and some are not counted.
    with counter, sdpa_kernel(SDPBackend.MATH), saved_tensors_hooks(remember, lambda tensor: tensor):
        model(large_ids, small_ids, FIRST, split_ids(large_ids.flatten(1), config.factors))
    return counter.get_total_flops(), sum(storage.nbytes() for storage in kept.values())


def test_cost_and_memory_grow_with_the_number_of_tokens_and_no_faster() -> None:
    config = replace(TINY, vertical=(1, 8, 2), horizontal=(1, 2, 8), temporal=(3, 4, 4))
    one, four = costs(config, (3, 8, 8)), costs(config, (3, 16, 16))
    assert four[0] == 4 * one[0]
    assert four[1] == pytest.approx(4 * one[1], rel=0.01)
    # Windows as large as the picture are full attention: the same test tells them apart.
    whole = dict.fromkeys(LAYERS, (3, 64, 64))
    one, four = costs(replace(config, **whole), (3, 8, 8)), costs(replace(config, **whole), (3, 16, 16))
    assert four[0] > 8 * one[0] and four[1] > 8 * one[1]


@pytest.mark.parametrize(("grid", "window"), [((3, 8, 8), (1, 4, 2)), ((5, 10, 6), (3, 4, 4)), ((1, 2, 2), (5, 8, 8))])
def test_joined_windows_are_the_grid_that_was_split(grid: Size3, window: Size3) -> None:
    cut = Cut.of(grid, window)
    grid_BthwD = torch.randn(2, *grid, 3, generator=torch.Generator().manual_seed(0))
    windows_MLD = cut.split(grid_BthwD)
    assert torch.equal(cut.join(windows_MLD, 2), grid_BthwD)
    counts = [len(boxes(size, length)) for size, length in zip(grid, window, strict=True)]
    assert len(windows_MLD) == 2 * counts[0] * counts[1] * counts[2]


def test_where_a_window_lies_in_the_picture_does_not_matter(model: SuperResolution) -> None:
    network = SuperResolution(replace(TINY, marks_first=False)).eval().requires_grad_(False)
    large_ids, small_ids = ids(1, 3, 4, 4), ids(1, 3, 2, 2, seed=1)
    one = network.hidden(large_ids, small_ids, FIRST).reshape(3, 4, 4, -1)
    four = network.hidden(large_ids.repeat(1, 1, 2, 2), small_ids.repeat(1, 1, 2, 2), FIRST).reshape(3, 8, 8, -1)
    torch.testing.assert_close(four, one.repeat(1, 2, 2, 1))


def test_small_tokens_and_the_mark_of_the_first_stretch_count(model: SuperResolution) -> None:
    large_ids, small_ids = ids(1, 3, 4, 4), ids(1, 3, 2, 2, seed=1)
    plain = model.hidden(large_ids, small_ids, FIRST)
    others = [
        model.hidden(large_ids, torch.full_like(small_ids, HIDDEN), FIRST),
        model.hidden(large_ids, small_ids, ~FIRST),
        model.hidden(large_ids.masked_fill(torch.arange(4) < 1, HIDDEN), small_ids, FIRST),
    ]
    assert plain.shape == (1, 48, 16)
    for index, other in enumerate(others):
        assert all(not torch.equal(other, before) for before in [plain, *others[:index]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vertical": (1, 3, 2)}, "multiples of 2"),
        ({"temporal": (0, 2, 2)}, "latent frame"),
        ({"width": 18, "heads": 4}, "even width per head"),
    ],
)
def test_networks_that_cannot_be_built_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **changes)  # type: ignore[arg-type]


def test_a_large_grid_must_be_twice_the_small_one(model: SuperResolution) -> None:
    with pytest.raises(ShapeError, match="times 2"):
        model.hidden(ids(1, 3, 4, 5), ids(1, 3, 2, 2), FIRST)

from __future__ import annotations

import contextlib
import json
import math
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from codec_examples import random_integers, random_prior
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor

from kinolex.codec.entropy import TOTAL, frequencies_NV
from kinolex.codec.network import (
    EXACT,
    GROUPS,
    ONE,
    QUARTERS,
    STRIDE,
    TOP,
    GrowingContext,
    Heads,
    IntegerLayer,
    NetworkConfig,
    bordered,
    integer_layers,
    one_hot,
)
from kinolex.codec.priors import (
    FORMAT,
    PLAIN,
    History,
    LearnedPrior,
    PlainPrior,
    Slices,
    load_prior,
    plain_levels,
    prior_fingerprint,
    save_prior,
    to_digits,
    to_ids,
    uniform_bits,
)
from kinolex.errors import CheckpointError, ConfigError, KinolexError, MissingFile, TokenError

CONFIG = NetworkConfig(levels=(5, 4, 3), channels=8, trunk_layers=2)


def in_int64(layer: IntegerLayer, inputs_hwI: Tensor) -> Tensor:
    """docs/bitstream.md, 9.2, at every position, position by position."""
    weight_KIO, bias_O = layer.weight_KIO.long(), layer.bias_O.long()
    shift_O = -torch.log2(layer.scale_O.double()).long()
    rows, columns, _ = inputs_hwI.shape
    sums_hwO = bias_O.expand(rows, columns, -1).clone()
    for y in range(rows):
        for x in range(columns):
            for k in range(len(weight_KIO)):
                row, column = (y + k // 3 - 1, x + k % 3 - 1) if len(weight_KIO) == 9 else (y, x)
                if 0 <= row < rows and 0 <= column < columns:
                    sums_hwO[y, x] += inputs_hwI[row, column].long() @ weight_KIO[k]
    return sums_hwO >> shift_O


# --- the integer network ---


@pytest.mark.parametrize("name", ["trunk.0", "trunk.1", "context.2", "mix.3"])
@pytest.mark.parametrize("seed", range(3))
def test_a_layer_in_float32_equals_the_same_layer_in_64_bit_integers(name: str, seed: int) -> None:
    layer = integer_layers(CONFIG, random_integers(CONFIG, seed))[name]
    generator = torch.Generator().manual_seed(seed)
    inputs_hwI = torch.randint(0, TOP + 1, (5, 6, layer.weight_KIO.shape[1]), generator=generator).float()
    wanted_hwO = in_int64(layer, inputs_hwI)
    assert torch.equal(layer.sums(inputs_hwI).long(), wanted_hwO)
    assert torch.equal(layer.activations(inputs_hwI).long(), wanted_hwO.clamp(0, TOP))
    for row, column in [place for places in GROUPS for place in places]:
        some_ijO = layer.scaled(layer.totals(bordered(inputs_hwI), (row, column), STRIDE))
        assert torch.equal(some_ijO.long(), wanted_hwO[row::STRIDE, column::STRIDE])


@pytest.mark.parametrize("seed", range(3))
def test_heads_equal_their_layers_in_64_bit_integers_digit_after_digit(seed: int) -> None:
    layers = integer_layers(CONFIG, random_integers(CONFIG, seed))
    heads, generator = Heads(CONFIG, layers), torch.Generator().manual_seed(seed)
    mixed_N1C = torch.randint(0, TOP + 1, (7, 1, CONFIG.channels), generator=generator).float()
    digits_N1D = random_digits(seed, (7, 1))
    known_N1S = torch.zeros(7, 1, sum(CONFIG.levels))
    totals_NK = heads.totals(mixed_N1C[:, 0])
    for digit in range(len(CONFIG.levels)):
        hidden_N1C = in_int64(layers[f"hidden.{digit}"], torch.cat([mixed_N1C, known_N1S], dim=2)).clamp(0, TOP)
        wanted_NV = in_int64(layers[f"logits.{digit}"], hidden_N1C)[:, 0]
        assert torch.from_numpy(heads.logits(totals_NK, digit)).long().equal(wanted_NV)
        heads.learn_(totals_NK, digit, digits_N1D[:, 0, digit].numpy())
        first, end = sum(CONFIG.levels[:digit]), sum(CONFIG.levels[: digit + 1])
        known_N1S[..., first:end] = one_hot(digits_N1D, CONFIG.levels)[..., first:end]


def test_windows_that_are_laid_out_in_parts_give_the_same_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, inputs_hwI = random_prior().layers["trunk.0"], torch.arange(5 * 7 * 24.0).view(5, 7, 24) % 128
    whole = layer.sums(inputs_hwI)
    monkeypatch.setattr("kinolex.codec.network.POSITIONS_AT_ONCE", 15)
    assert torch.equal(layer.sums(inputs_hwI), whole)


def test_a_layer_at_the_edge_of_the_bound_is_exact() -> None:
    # 1032 x 127 x 127 + 29 = 2**24 - 1 - ...: the largest sums that are let through, of both signs
    inputs = (EXACT - 1) // (TOP * TOP)
    bias = EXACT - 1 - inputs * TOP * TOP
    for sign in (1, -1):
        weight_KIO = torch.zeros(9, inputs, 1)
        weight_KIO[4] = sign * TOP
        layer = IntegerLayer(weight_KIO, torch.tensor([float(sign * bias)]), torch.tensor([1.0]))
        assert layer.sums(torch.full((2, 2, inputs), float(TOP))).long().unique().tolist() == [sign * (EXACT - 1)]


def test_shifts_round_down_also_below_zero() -> None:
    weight_KIO = F.one_hot(torch.tensor(4), 9).float().view(9, 1, 1)
    layer = IntegerLayer(weight_KIO, torch.tensor([-3.0]), torch.tensor([0.5]))
    assert layer.sums(torch.tensor([[[0.0], [1.0], [2.0], [3.0], [4.0]]])).flatten().tolist() == [-2, -1, -1, 0, 0]


@pytest.mark.parametrize("seed", range(4))
def test_one_hot_is_32_where_a_digit_has_its_value(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    digits_hwD = torch.stack([torch.randint(0, size, (3, 4), generator=generator) for size in CONFIG.levels], dim=-1)
    planes = one_hot(digits_hwD, CONFIG.levels)
    for y, x in np.ndindex(3, 4):
        hot = planes[y, x].nonzero().flatten().tolist()
        assert hot == [(0, 5, 9)[d] + int(digits_hwD[y, x, d]) for d in range(3)]
    assert set(planes.unique().tolist()) <= {0.0, float(ONE)}


@pytest.mark.parametrize("part", ["weight", "bias", "shift"])
def test_integers_whose_sums_could_be_inexact_are_refused(part: str) -> None:
    config = NetworkConfig(levels=(2,), channels=128, trunk_layers=1)
    tensors = {name: torch.zeros_like(tensor) for name, tensor in random_integers(config).items()}
    integer_layers(config, tensors)
    full = {"weight": 127, "bias": EXACT, "shift": 25}[part]
    tensors[f"mix.0.{part}"] = torch.full_like(tensors[f"mix.0.{part}"], full)
    with pytest.raises(CheckpointError, match=r"mix\.0 can reach"):
        LearnedPrior(config, tensors)
    if part == "bias":
        tensors["mix.0.bias"] -= 1
        integer_layers(config, tensors)


@pytest.mark.parametrize(
    "fields",
    [
        {"levels": ()},
        {"levels": (1,)},
        {"levels": (257,)},
        {"levels": (2,) * 65},
        {"channels": 0},
        {"trunk_layers": 17},
    ],
)
def test_a_network_that_cannot_be_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        NetworkConfig(**{"levels": (4, 4), **fields})  # pyright: ignore[reportArgumentType]


# --- the walk ---


def test_the_walk_asks_in_the_documents_order_and_sees_only_what_is_known() -> None:
    prior, asked = random_prior(), []
    grid_hw = torch.arange(5 * 3).view(5, 3)

    def choose(digit: int, where: Slices, frequencies: Tensor) -> Tensor:
        asked.append((digit, grid_hw[where].flatten().tolist()))
        assert frequencies.shape == (grid_hw[where].numel(), prior.levels[digit])
        assert bool((frequencies.sum(dim=1) == TOTAL).all())
        return torch.full((len(frequencies),), digit)

    digits_hwD = prior.walk(History(), (5, 3), choose)
    positions = [[0, 12], [8], [2, 14], [6], [4], [10], [1, 13], [7], [3], [11], [5], [9]]
    assert asked == [(digit, group) for group in positions for digit in range(3)]
    assert digits_hwD.dtype == torch.int64 and digits_hwD.unique(dim=0).shape[0] == 1
    assert digits_hwD[0, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 4), (4, 1), (2, 2), (3, 5)])
def test_every_digit_is_asked_for_once_whatever_the_size(size_hw: tuple[int, int]) -> None:
    for prior in (random_prior(), PlainPrior(300)):
        count = torch.zeros(*size_hw, len(prior.levels), dtype=torch.int64)

        def choose(digit: int, where: Slices, frequencies: Tensor, count: Tensor = count) -> Tensor:
            count[where][:, :, digit] += 1
            return torch.zeros(len(frequencies), dtype=torch.int64)

        prior.walk(History(), size_hw, choose)
        assert bool((count == 1).all())


def recorded(prior: LearnedPrior, history: list[Tensor], digits_hwD: Tensor) -> list[Tensor]:
    """All frequencies of a frame with given digits."""
    found = []

    def choose(digit: int, where: Slices, frequencies: Tensor) -> Tensor:
        found.append(frequencies)
        return digits_hwD[where][:, :, digit].reshape(-1)

    prior.walk(history, (digits_hwD.shape[0], digits_hwD.shape[1]), choose)
    return found


def random_digits(seed: int, size_hw: tuple[int, int] = (4, 6)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(0, size, size_hw, generator=generator) for size in CONFIG.levels], dim=-1)


def same(first: list[Tensor], second: list[Tensor]) -> list[bool]:
    return [torch.equal(a, b) for a, b in zip(first, second, strict=True)]


def test_frequencies_depend_on_the_two_frames_before_and_on_no_other() -> None:
    size_hw = (12, 16)
    prior, now = random_prior(), random_digits(0, size_hw)
    before = [random_digits(seed, size_hw) for seed in (1, 2, 3)]
    base = recorded(prior, before, now)
    assert all(same(base, recorded(prior, [random_digits(9, size_hw), *before[1:]], now)))
    assert all(same(base, recorded(prior, before[1:], now)))
    assert not any(same(base, recorded(prior, [before[0], random_digits(9, size_hw), before[2]], now)))
    assert not any(same(base, recorded(prior, [*before[:2], random_digits(9, size_hw)], now)))
    assert not any(same(base, recorded(prior, [], now)))


def test_frequencies_depend_on_digits_that_are_known_and_on_no_later_ones() -> None:
    prior, now = random_prior(), random_digits(0, (8, 8))
    base = recorded(prior, [], now)
    order = [(where, digit) for places in GROUPS for where in places for digit in range(3)]
    for step, ((row, column), digit) in enumerate(order):
        changed = now.clone()
        group_ij = changed[row::STRIDE, column::STRIDE, digit]
        group_ij.copy_((group_ij + 1) % CONFIG.levels[digit])
        equal = same(base, recorded(prior, [], changed))
        assert all(equal[: step + 1]), step
        assert step == len(order) - 1 or not all(equal[step + 1 :]), step


def test_all_but_the_first_group_of_a_quarter_know_of_the_same_place_in_a_block_beside() -> None:
    prior = random_prior(channels=64)
    for quarter, ((row, column), *_) in enumerate(GROUPS):
        first, now = 4 * quarter, random_digits(0, (8, 8))
        changed = now.clone()
        changed[row, column] = (changed[row, column] + 1) % torch.tensor(CONFIG.levels)
        base, found = recorded(prior, [], now), recorded(prior, [], changed)
        differ = [not torch.equal(base[3 * group], found[3 * group]) for group in range(first + 1, first + 4)]
        assert differ == [True, True, True]


def test_the_groups_hold_every_position_once_quarter_by_quarter() -> None:
    everywhere = [(row, column) for row in range(STRIDE) for column in range(STRIDE)]
    assert sorted(place for places in GROUPS for place in places) == everywhere
    for quarter, places in zip(QUARTERS, GROUPS, strict=True):
        assert {(row % 2, column % 2) for row, column in places} == {quarter}


@pytest.mark.parametrize("size_hw", [(1, 1), (4, 3), (7, 9)])
def test_a_growing_context_is_that_of_what_is_known(size_hw: tuple[int, int]) -> None:
    layer = random_prior().layers["context.1"]
    generator = torch.Generator().manual_seed(0)
    inputs_hwI = torch.randint(0, 128, (*size_hw, layer.weight_KIO.shape[1]), generator=generator).float()
    known_hwI = torch.zeros_like(inputs_hwI)
    known_hwI[::STRIDE, ::STRIDE] = inputs_hwI[::STRIDE, ::STRIDE]
    growing = GrowingContext(layer, known_hwI)
    for row, column in [place for places in GROUPS for place in places][1:]:
        where = (slice(row, None, STRIDE), slice(column, None, STRIDE))
        known_hwI[where] = inputs_hwI[where]
        growing.add(inputs_hwI[where], (row, column), STRIDE)
        assert torch.equal(growing.activations(), layer.activations(known_hwI))


def test_a_random_prior_is_no_flat_one() -> None:
    # otherwise the tests above would claim little
    shares = [float(row.max()) / TOTAL for row in recorded(random_prior(), [random_digits(1)], random_digits(0))]
    assert len({round(share, 4) for share in shares}) > 8 and min(shares) < 0.9


# --- ids and digits ---


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 2**40), st.integers(1, 4), st.integers(0, 1000))
def test_ids_survive_plain_digits(vocab_size: int, num_levels: int, seed: int) -> None:
    prior = PlainPrior(vocab_size, num_levels)
    ids_Qthw = torch.randint(0, vocab_size, (num_levels, 2, 3, 2), generator=torch.Generator().manual_seed(seed))
    ids_Qthw[:, 0, 0, 0] = vocab_size - 1
    digits_thwD = to_digits(ids_Qthw, prior.levels)
    assert digits_thwD.shape == (2, 3, 2, len(prior.levels))
    assert bool((digits_thwD < torch.tensor(prior.levels)).all())
    assert torch.equal(to_ids(digits_thwD, num_levels, prior.levels), ids_Qthw)


def test_digits_begin_with_the_least_significant_and_levels_follow_one_another() -> None:
    ids_Qthw = torch.tensor([5 * 4 * 2 + 5 * 3 + 1, 4]).view(2, 1, 1, 1)
    levels = (5, 4, 3, 5, 4, 3)
    assert to_digits(ids_Qthw, levels).flatten().tolist() == [1, 3, 2, 4, 0, 0]
    assert plain_levels(1000) == (256, 4) and plain_levels(256) == (256,) and plain_levels(2**18) == (256, 256, 4)
    assert uniform_bits((2, 8)) == pytest.approx(4, abs=1e-6)


def test_ids_and_levels_that_a_prior_cannot_hold_are_named() -> None:
    with pytest.raises(TokenError, match="does not fit a prior for 60 ids"):
        to_digits(torch.full((1, 1, 1, 1), 60), (5, 4, 3))
    with pytest.raises(TokenError, match="3 digits cannot hold tokens of 2"):
        to_digits(torch.zeros(2, 1, 1, 1, dtype=torch.int64), (5, 4, 3))
    with pytest.raises(TokenError, match="1 codebook levels cannot hold 2"):
        PlainPrior(2**16).vocab_size(2)
    assert random_prior((4, 7, 4, 7)).vocab_size(2) == 28 and random_prior().vocab_size(1) == 60


# --- files ---


def test_a_prior_survives_its_file_and_its_fingerprint_tells_every_integer(tmp_path: Path) -> None:
    tensors = random_integers(CONFIG)
    fingerprint = save_prior(tmp_path / "p.safetensors", CONFIG, tensors)
    loaded = load_prior(tmp_path / "p.safetensors")
    assert (loaded.config, loaded.fingerprint) == (CONFIG, fingerprint) and len(fingerprint) == 16
    assert fingerprint != PLAIN and list(tmp_path.iterdir()) == [tmp_path / "p.safetensors"]
    now = random_digits(0)
    assert all(same(recorded(loaded, [], now), recorded(LearnedPrior(CONFIG, tensors), [], now)))
    tensors["mix.1.bias"][3] += 1
    assert prior_fingerprint(CONFIG, tensors) != fingerprint


def test_a_prior_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    tensors = random_integers(CONFIG)
    tensors["mix.0.bias"] += EXACT
    with pytest.raises(CheckpointError):
        save_prior(tmp_path / "p.safetensors", CONFIG, tensors)
    assert not list(tmp_path.iterdir())


def test_damaged_and_foreign_prior_files_give_the_named_error(tmp_path: Path) -> None:
    path, tensors = tmp_path / "p.safetensors", random_integers(CONFIG)
    with pytest.raises(MissingFile):
        load_prior(path)
    config = asdict(CONFIG)
    configs = [
        {**config, "channels": 9},
        {**config, "channels": 8.0},
        {**config, "trunk_layers": "2"},
        {**config, "trunk_layers": True},
        {**config, "levels": [5.0, 4, 3]},
        {**config, "levels": 3},
        {**config, "levels": [5, 4, 300]},
        {**config, "unknown": 1},
        [1],
        None,
    ]
    files = [save(tensors, {"format": FORMAT, "config": json.dumps(fields)}) for fields in configs]
    good = save(tensors, {"format": FORMAT, "config": json.dumps(config)})
    files += [good[:-1], good[:100], b"", b"text", good + b"x", save(tensors), save(tensors, {"format": FORMAT})]
    files += [save(tensors, {"format": "other", "config": json.dumps(config)})]
    files += [save(tensors, {"format": FORMAT, "config": "{"})]
    less, odd = dict(tensors), dict(tensors)
    del less["logits.2.shift"]
    odd["mix.0.weight"] = odd["mix.0.weight"].to(torch.int16)
    files += [save(some, {"format": FORMAT, "config": json.dumps(config)}) for some in (less, odd)]
    for data in files:
        path.write_bytes(data)
        with pytest.raises(CheckpointError):
            load_prior(path)
    path.write_bytes(good)
    load_prior(path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_prior_file_with_changed_bytes_loads_or_gives_a_named_error(data: st.DataObject) -> None:
    good = save(random_integers(CONFIG), {"format": FORMAT, "config": json.dumps(asdict(CONFIG))})
    place = data.draw(st.integers(0, min(len(good), 3000) - 1))
    changed = good[:place] + data.draw(st.binary(min_size=1, max_size=3)) + good[place + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.safetensors"
        path.write_bytes(changed)
        with contextlib.suppress(KinolexError):
            load_prior(path)


def test_flat_frequencies_cost_what_the_levels_say() -> None:
    flat = frequencies_NV(torch.zeros(1, 5))[0].double()
    assert float((flat / TOTAL * (TOTAL / flat).log2()).sum()) == pytest.approx(math.log2(5), abs=1e-5)

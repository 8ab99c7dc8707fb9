"""The masked transformer: as large as the paper's, deaf to nothing it is told, small as a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kinolex import checkpoint
from kinolex.errors import CheckpointError, ConfigError, ShapeError
from kinolex.layers.attention import KeyValueCache, TransformerBlock, rotary_angles, rotate
from kinolex.masks import HIDDEN
from kinolex.models.factors import FactoredTokens, join_ids, split_ids
from kinolex.models.masked import PRESETS, MaskedConfig, MaskedTransformer

TINY = MaskedConfig(
    tokenizer="t" * 64,
    factors=(8, 5),
    width=32,
    depth=2,
    heads=2,
    tasks=("frame-prediction", "class"),
    words=("red", "ball"),
    max_words=3,
    latent_frames=3,
)


@pytest.fixture
def model() -> MaskedTransformer:
    torch.manual_seed(0)
    return MaskedTransformer(TINY).eval().requires_grad_(False)


def grid(*sizes: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 40, sizes, generator=generator)
    return ids.masked_fill(torch.rand(sizes, generator=generator) < 0.5, HIDDEN)


def asked(
    model: MaskedTransformer, ids_Bthw: Tensor, *, task: int = 0, words: tuple[int, ...] = (), first: bool = True
) -> Tensor:
    """Features for one wish."""
    batch = len(ids_Bthw)
    words_P = torch.tensor([*words, *[0] * (model.config.max_words - len(words))])
    return model.hidden(ids_Bthw, torch.full((batch,), task), words_P.expand(batch, -1), torch.full((batch,), first))


@pytest.mark.parametrize(
    ("preset", "paper", "exactly"), [("paper-B", 87e6, 87_306_496), ("paper-L", 305e6, 305_573_888)]
)
def test_the_papers_transformers_have_the_papers_size(preset: str, paper: float, exactly: int) -> None:
    words = tuple(f"class {index}" for index in range(101))  # UCF-101
    with torch.device("meta"):
        network = MaskedTransformer(MaskedConfig(tokenizer="", words=words, **PRESETS[preset]))
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == exactly
    assert count == pytest.approx(paper, rel=0.01)


@pytest.mark.parametrize("factors", [(40,), (8, 5), (5, 8), (2, 3, 4), (512, 512), (64, 64, 64)])
def test_joined_factors_are_the_ids_that_were_split(factors: tuple[int, ...]) -> None:
    total = int(torch.tensor(factors).prod())
    ids = torch.cat([torch.arange(min(total, 500)), torch.tensor([total - 1])])
    parts = split_ids(ids, factors)
    assert all(int(parts[:, f].min()) >= 0 and int(parts[:, f].max()) < size for f, size in enumerate(factors))
    assert torch.equal(join_ids(parts, factors), ids)
    assert len(parts.unique(dim=0)) == len(ids.unique())
    assert torch.equal(parts[1], torch.tensor([1] + [0] * (len(factors) - 1)))  # least significant first


def test_what_is_hidden_is_hidden_in_every_factor_and_nothing_else_is() -> None:
    parts = split_ids(torch.tensor([[HIDDEN, 0], [39, HIDDEN]]), (8, 5))
    assert parts.tolist() == [[[HIDDEN, HIDDEN], [0, 0]], [[7, 4], [HIDDEN, HIDDEN]]]


def test_a_chained_head_sees_the_factors_before_its_own_and_no_others() -> None:
    torch.manual_seed(0)
    hidden_BLD, chosen_BLF = torch.randn(1, 6, 16), torch.randint(0, 3, (1, 6, 3))
    for chained in (True, False):
        heads = FactoredTokens((3, 4, 5), 16, chained=chained)
        for factor in range(3):
            before = heads.logits(hidden_BLD, factor, chosen_BLF)
            assert before.shape == (1, 6, heads.sizes[factor]) and before.dtype == torch.float32
            for changed in range(3):
                other_BLF = chosen_BLF.clone()
                other_BLF[..., changed] = (other_BLF[..., changed] + 1) % 3
                differs = not torch.equal(heads.logits(hidden_BLD, factor, other_BLF), before)
                assert differs == (chained and changed < factor), (chained, factor, changed)


def test_heads_and_embedding_share_their_tables() -> None:
    torch.manual_seed(0)
    tokens = FactoredTokens((6, 4), 16, chained=True).requires_grad_(False)
    hidden_BLD, ids_BLF = torch.randn(1, 6, 16), torch.stack([torch.arange(6), torch.zeros(6).long()], dim=-1)[None]
    embedded, logits = tokens.embed(ids_BLF), tokens.logits(hidden_BLD, 0)
    # Heads read normalised features, to which equal steps in all of them are nothing.
    tokens.tables[0][3] += torch.linspace(0.0, 1.0, 16)
    moved = (tokens.embed(ids_BLF) != embedded).any(dim=-1)[0]
    assert moved.tolist() == [False, False, False, True, False, False]
    changed = (tokens.logits(hidden_BLD, 0) != logits).all(dim=1)[0]
    assert changed.tolist() == [False, False, False, True, False, False]
    # The row of what is hidden is read by the embedding and by no head.
    logits, unknown = tokens.logits(hidden_BLD, 0), tokens.embed(torch.full((1, 1, 2), HIDDEN))
    tokens.tables[0][6] += 1.0
    assert torch.equal(tokens.logits(hidden_BLD, 0), logits)
    torch.testing.assert_close(tokens.embed(torch.full((1, 1, 2), HIDDEN)), unknown + 1.0)


def test_task_words_and_the_mark_of_the_first_window_all_count(model: MaskedTransformer) -> None:
    ids_Bthw = grid(1, 3, 4, 4)
    plain = asked(model, ids_Bthw)
    assert plain.shape == (1, 48, 32)
    others = [
        asked(model, ids_Bthw, task=1),
        asked(model, ids_Bthw, words=(1,)),
        asked(model, ids_Bthw, words=(2,)),
        asked(model, ids_Bthw, words=(1, 2)),
        asked(model, ids_Bthw, words=(2, 1)),
        asked(model, ids_Bthw, first=False),
        asked(model, grid(1, 3, 4, 4, seed=1)),
    ]
    for index, one in enumerate([plain, *others]):
        for other in others[index:]:
            assert float((one - other).abs().max()) > 1e-4
    unmarked = MaskedTransformer(replace(TINY, marks_first=False)).eval()
    assert torch.equal(asked(unmarked, ids_Bthw), asked(unmarked, ids_Bthw, first=False))


def test_every_token_sees_every_other(model: MaskedTransformer) -> None:
    ids_Bthw = grid(1, 2, 3, 3)
    before = asked(model, ids_Bthw)
    for place in (0, 9, 17):
        changed = ids_Bthw.flatten().clone()
        changed[place] = (changed[place].clamp(min=0) + 7) % 40
        moved = (asked(model, changed.reshape(1, 2, 3, 3)) != before).any(dim=-1)
        assert bool(moved.all())


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 4, 4), (3, 4, 4), (7, 2, 5)])
def test_any_grid_goes_and_samples_of_a_batch_do_not_mix(model: MaskedTransformer, sizes: tuple[int, int, int]) -> None:
    ids_Bthw = grid(3, *sizes)
    features_BLD = asked(model, ids_Bthw)
    assert features_BLD.shape == (3, ids_Bthw[0].numel(), 32)
    torch.testing.assert_close(features_BLD[1:2], asked(model, ids_Bthw[1:2]), atol=1e-5, rtol=1e-4)
    if ids_Bthw[0].numel() > 1:  # with the same id everywhere, places alone tell positions apart
        same_LD = asked(model, torch.zeros(1, *sizes, dtype=torch.int64))[0]
        assert float(torch.pdist(same_LD).min()) > 1e-4


def test_learned_positions_fit_one_number_of_tokens() -> None:
    torch.manual_seed(0)
    network = MaskedTransformer(replace(TINY, learned_positions=48, post_norm=True)).eval()
    assert asked(network, grid(1, 3, 4, 4)).shape == (1, 48, 32)
    with pytest.raises(ShapeError, match="positions for 48 tokens, got a grid of 3x4x5"):
        asked(network, grid(1, 3, 4, 5))


def test_the_loss_is_the_cross_entropy_of_the_whole_id(model: MaskedTransformer) -> None:
    ids_Bthw, target_BL = grid(2, 2, 2, 2), torch.randint(0, 40, (2, 8))
    wish = torch.zeros(2, dtype=torch.int64), torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, dtype=torch.bool)
    nats_BL = model(ids_Bthw, *wish, split_ids(target_BL, (8, 5)))
    hidden_BLD = model.hidden(ids_Bthw, *wish)
    every = torch.cartesian_prod(torch.arange(5), torch.arange(8)).flip(-1)  # factors of ids 0, 1, 2, ...
    assert torch.equal(join_ids(every, (8, 5)), torch.arange(40))
    log_probability = torch.stack(
        [
            sum(model.logits(hidden_BLD, f, part.expand(2, 8, 2)).log_softmax(-1)[..., part[f]] for f in range(2))
            for part in every
        ],
        dim=-1,
    )
    torch.testing.assert_close(log_probability.exp().sum(dim=-1), torch.ones(2, 8), atol=1e-5, rtol=0)
    torch.testing.assert_close(nats_BL, -log_probability.gather(-1, target_BL[..., None])[..., 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"heads": 3},
        {"width": 0},
        {"factors": ()},
        {"factors": (40, 1)},
        {"tasks": ()},
        {"tasks": ("class", "class")},
        {"words": ("red", "red")},
        {"dropout": 1.0},
        {"learned_positions": -1},
    ],
)
def test_impossible_sizes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        replace(TINY, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("post_norm", [False, True])
@pytest.mark.parametrize("capacity", [None, 12])
@pytest.mark.parametrize("cuts", [(1,) * 10, (4, 1, 5), (10,)])
def test_attention_with_a_cache_equals_attention_over_all(
    post_norm: bool, capacity: int | None, cuts: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    blocks = [TransformerBlock(32, 2, post_norm=post_norm, normalised=True, dropout=0.1).eval() for _ in range(2)]
    inputs_BLD, places_L3 = torch.randn(2, 10, 32), torch.rand(10, 3) * 8
    angles_LJ, causal_LL = rotary_angles(places_L3, 16), torch.ones(10, 10, dtype=torch.bool).tril()

    def through(part_BLD: Tensor, rows: slice, cache: KeyValueCache | None) -> Tensor:
        for block in blocks:
            part_BLD = block(part_BLD, angles_LJ[rows], causal_LL[rows, : rows.stop], cache)
        return part_BLD

    with torch.inference_mode():
        whole_BLD = through(inputs_BLD, slice(0, 10), None)
        cache, pieces, start = KeyValueCache(capacity), [], 0
        assert cache.length == 0
        for size in cuts:
            pieces.append(through(inputs_BLD[:, start : start + size], slice(start, start + size), cache))
            start += size
            assert cache.length == start
        changed_BLD = inputs_BLD.clone()
        changed_BLD[:, 6:] += 1
        torch.testing.assert_close(torch.cat(pieces, dim=1), whole_BLD, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(through(changed_BLD, slice(0, 10), None)[:, :6], whole_BLD[:, :6])


def test_rotary_attention_depends_on_distances_alone() -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(1, 1, 6, 16), torch.randn(1, 1, 6, 16)
    places_L3 = torch.rand(6, 3) * 10

    def scores(shift: Tensor) -> Tensor:
        angles_LJ = rotary_angles(places_L3 + shift, 16)
        assert angles_LJ.shape == (6, 8)
        return rotate(queries, angles_LJ) @ rotate(keys, angles_LJ).mT

    still = scores(torch.zeros(3))
    torch.testing.assert_close(scores(torch.tensor([3.0, -2.0, 5.0])), still, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(still, queries @ keys.mT, atol=0.1)
    for axis in range(3):  # every axis turns something
        turned = rotary_angles(places_L3 + torch.eye(3)[axis], 16) - rotary_angles(places_L3, 16)
        assert float(turned.abs().max()) > 0.5


@pytest.fixture
def small(tmp_path: Path, model: MaskedTransformer) -> Path:
    checkpoint.save(tmp_path / "small", model, card="", dtype=torch.int8)
    return tmp_path / "small"


def test_int8_weights_come_back_within_half_a_step_of_their_row(small: Path, model: MaskedTransformer) -> None:
    loaded, digest = checkpoint.load_module(small, checkpoint.GENERATOR)
    assert isinstance(loaded, MaskedTransformer) and loaded.config == model.config
    for name, tensor in model.state_dict().items():
        stored = loaded.state_dict()[name]
        assert stored.dtype == torch.float32
        if tensor.ndim == 1:
            assert torch.equal(stored, tensor), name
        else:
            step = tensor.abs().amax(dim=1, keepdim=True) / 127
            assert bool(((stored - tensor).abs() <= 0.5001 * step).all()), name
    assert not torch.equal(loaded.state_dict()["tokens.tables.0"], model.state_dict()["tokens.tables.0"])
    ids_Bthw = grid(1, 3, 4, 4)
    close = torch.nn.functional.cosine_similarity(
        asked(loaded.eval().requires_grad_(False), ids_Bthw), asked(model, ids_Bthw), dim=-1
    )
    assert float(close.min()) > 0.999
    assert digest == checkpoint.read_description(small)["fingerprint"]


def test_int8_files_are_small_and_their_fingerprint_is_stable(
    small: Path, model: MaskedTransformer, tmp_path: Path
) -> None:
    whole = checkpoint.save(tmp_path / "whole", model, card="")
    again = checkpoint.save(tmp_path / "again", model, card="other card", dtype=torch.int8)
    digest = checkpoint.load_module(small)[1]
    assert again == digest != whole
    sizes = [(tmp_path / name / checkpoint.WEIGHTS).stat().st_size for name in ("small", "whole")]
    assert sizes[0] < 0.4 * sizes[1]
    # What was loaded is saved as the same bytes: nothing is lost a second time.
    loaded, _ = checkpoint.load_module(small)
    assert checkpoint.save(tmp_path / "twice", loaded, card="", dtype=torch.int8) == digest


def without_scale(weights: dict[str, Tensor]) -> None:
    del weights["word_table" + checkpoint.SCALE]


def short_scale(weights: dict[str, Tensor]) -> None:
    weights["word_table" + checkpoint.SCALE] = weights["word_table" + checkpoint.SCALE][:-1].clone()


def square_scale(weights: dict[str, Tensor]) -> None:
    weights["word_table" + checkpoint.SCALE] = torch.ones_like(weights["word_table"], dtype=torch.float32)


def scale_alone(weights: dict[str, Tensor]) -> None:
    del weights["word_table"]


def foreign_scale(weights: dict[str, Tensor]) -> None:
    weights["nothing" + checkpoint.SCALE] = torch.ones(3)


def scale_of_what_is_no_int8(weights: dict[str, Tensor]) -> None:
    weights["tokens.norm.weight" + checkpoint.SCALE] = torch.ones(32)


def cut_rows(weights: dict[str, Tensor]) -> None:
    for name in ("word_table", "word_table" + checkpoint.SCALE):
        weights[name] = weights[name][:-1].clone()


@pytest.mark.parametrize(
    "damage", [without_scale, short_scale, square_scale, scale_alone, foreign_scale, scale_of_what_is_no_int8, cut_rows]
)
@pytest.mark.parametrize("signed", [True, False])
def test_damaged_int8_weights_are_refused(
    small: Path, damage: Callable[[dict[str, Tensor]], None], signed: bool
) -> None:
    weights = load_file(small / checkpoint.WEIGHTS)
    damage(weights)
    save_file(weights, small / checkpoint.WEIGHTS)
    if signed:  # even by somebody who knows how to write a fingerprint
        path = small / checkpoint.CONFIG
        description = json.loads(path.read_text())
        description["fingerprint"] = checkpoint.fingerprint(description["config"], weights)
        path.write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match="misshapen|foreign|lacks" if signed else "do not belong together"):
        checkpoint.load_module(small)

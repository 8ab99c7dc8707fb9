"""The multimodal network sees what it should and nothing else, and answers within the range it is asked for."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kinolex import checkpoint
from kinolex.errors import ConfigError, ShapeError, UsageError
from kinolex.layers.attention import KeyValueCache, plain_attention
from kinolex.masks import HIDDEN
from kinolex.models.multimodal import PRESETS, MultimodalConfig, MultimodalTransformer, _places
from kinolex.sequences import SOUND_ORDERS
from kinolex.tasks.multimodal import TASKS, Material, Sequence, compose
from kinolex.vocab import Vocabulary

VOCABULARY = Vocabulary(text_size=6, video_size=64, video_factors=(8, 8), sound_codes=8, sound_levels=2)
CONFIG = MultimodalConfig(
    video_tokenizer="",
    sound_tokenizer="",
    vocabulary=VOCABULARY,
    video_digits=(2, 4, 8),
    width=32,
    depth=2,
    heads=2,
    latent_frames=3,
    sound_frames=6,
    sound_frames_per_latent=2.0,
    text_length=4,
)


def network(config: MultimodalConfig = CONFIG) -> MultimodalTransformer:
    torch.manual_seed(0)
    made = MultimodalTransformer(config).eval()
    with torch.no_grad():  # far from the small weights of a beginning, under which nothing depends on much
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


@pytest.fixture
def model() -> MultimodalTransformer:
    return network()


def material() -> Material:
    draw = torch.Generator().manual_seed(1)
    video_thw, masked_thw = (torch.randint(64, (3, 2, 2), generator=draw) for _ in range(2))
    masked_thw[:, :, 1] = HIDDEN
    return Material(
        text_P=torch.tensor([3, 1]),
        video_thw=video_thw,
        masked_thw=masked_thw,
        structure_thw=torch.randint(64, (3, 2, 2), generator=draw),
        sound_Qt=torch.randint(8, (2, 6), generator=draw),
        given_sound=2,
    )


def sequence(task: str, order: str = "levels") -> Sequence:
    return compose(TASKS[task], material(), VOCABULARY, text_length=4, order=order)  # type: ignore[arg-type]


def changed(asked: Sequence, place: int) -> Tensor:
    """The ids with another one of the same range at one place."""
    ids_L = asked.ids_L.clone()
    for span in (VOCABULARY.text, VOCABULARY.video, *(VOCABULARY.sound_level(level) for level in range(2))):
        if int(ids_L[place]) in span:
            ids_L[place] = span.start + (int(ids_L[place]) - span.start + 1) % len(span)
            return ids_L
    raise AssertionError("a marker cannot be changed")


@pytest.mark.parametrize(("name", "millions"), [("paper-300M", 300), ("paper-1B", 1000), ("paper-8B", 8000)])
def test_the_papers_sizes(name: str, millions: int) -> None:
    with torch.device("meta"):
        made = MultimodalTransformer(PRESETS[name])
    assert sum(parameter.numel() for parameter in made.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)


@pytest.mark.parametrize(("name", "millions"), [("small", 20), ("nano", 5)])
def test_our_sizes(name: str, millions: int) -> None:
    with torch.device("meta"):
        made = MultimodalTransformer(PRESETS[name])
    assert sum(parameter.numel() for parameter in made.parameters()) / 1e6 == pytest.approx(millions, rel=0.05)


@pytest.mark.parametrize("order", SOUND_ORDERS)
@pytest.mark.parametrize("task", ["text-to-both", "continuation", "describe"])
@torch.no_grad()
def test_changing_an_output_changes_nothing_before_it_and_all_after(
    model: MultimodalTransformer, task: str, order: str
) -> None:
    asked = sequence(task, order)
    layout = asked.layout
    before_MD = model.hidden(asked.ids_L[None], layout)[0]
    for place in (layout.prefix, layout.prefix + 1):
        moved_M = (before_MD - model.hidden(changed(asked, place)[None], layout)[0]).abs().amax(dim=1)
        seen_from = place - layout.prefix + 1
        assert not bool(moved_M[:seen_from].any()) and bool((moved_M[seen_from:] > 1e-4).all())


@torch.no_grad()
def test_what_is_given_sees_itself_in_both_directions_and_is_seen_by_all(model: MultimodalTransformer) -> None:
    asked = sequence("continuation")
    plan = model.plan(asked.layout)
    before_LD = model.read(asked.ids_L[None, :-3], 0, plan)[0]
    given = [place for span in asked.layout.spans() for place in range(span.start, span.stop)]
    given = [p for p in given if p < asked.layout.prefix and int(asked.ids_L[p]) >= VOCABULARY.text.start]
    assert len(given) == 2 + 4 + 4
    for place in given:
        moved_L = (before_LD - model.read(changed(asked, place)[None, :-3], 0, plan)[0]).abs().amax(dim=1)
        assert bool((moved_L > 1e-5).all()), place


@torch.no_grad()
def test_given_tokens_see_no_output(model: MultimodalTransformer) -> None:
    asked = sequence("text-to-both")
    plan, prefix = model.plan(asked.layout), asked.layout.prefix
    whole_LD = model.read(asked.ids_L[None, :-3], 0, plan)[0]
    assert torch.allclose(whole_LD[:prefix], model.read(asked.ids_L[None, :prefix], 0, plan)[0], atol=1e-5)


@pytest.mark.parametrize("capacity", [None, 40])
@pytest.mark.parametrize("order", SOUND_ORDERS)
@pytest.mark.parametrize("piece", [1, 3, 7])
@torch.no_grad()
def test_reading_piece_by_piece_equals_reading_at_once(
    model: MultimodalTransformer, piece: int, order: str, capacity: int | None
) -> None:
    asked = sequence("text-to-both", order)
    plan, stop, prefix = model.plan(asked.layout), asked.layout.stop - 1, asked.layout.prefix
    ids_BL = torch.stack([asked.ids_L, changed(asked, prefix + 2)])
    whole_BLD = model.read(ids_BL[:, :stop], 0, plan)
    cache = KeyValueCache(capacity)
    parts = [model.read(ids_BL[:, :prefix], 0, plan, cache)]
    for start in range(prefix, stop, piece):
        # What was read by mistake is forgotten.
        model.read(ids_BL[:, start : start + 1], start, plan, cache)
        cache.rewind(start)
        parts.append(model.read(ids_BL[:, start : min(start + piece, stop)], start, plan, cache))
    assert cache.length == stop and torch.allclose(torch.cat(parts, dim=1), whole_BLD, atol=1e-5)


@pytest.mark.parametrize("order", SOUND_ORDERS)
@torch.no_grad()
def test_every_head_answers_over_its_own_range(model: MultimodalTransformer, order: str) -> None:
    sizes = {"video": 8, "sound": 8, "text": 7}
    for task in TASKS:
        asked = sequence(task, order)
        hidden_BMD = model.hidden(asked.ids_L[None], asked.layout)
        for span in asked.layout.outputs():
            here = slice(span.start - asked.layout.prefix, span.stop - asked.layout.prefix)
            own_BMF = model.own(asked.ids_L[None, span.start : span.stop], span)
            logits = model.logits(hidden_BMD[:, here], span, 0, 0, own_BMF)
            assert logits.shape == (1, span.segment.length, sizes[span.segment.kind]) and logits.dtype == torch.float32
            one = model.logits(hidden_BMD[:, here][:, 2:3], span, 2, 0, own_BMF[:, 2:3])
            assert torch.allclose(one, logits[:, 2:3], atol=1e-5)


@pytest.mark.parametrize("order", SOUND_ORDERS)
def test_ids_are_split_for_the_heads_and_joined_again(model: MultimodalTransformer, order: str) -> None:
    for task in ("text-to-both", "describe"):
        asked = sequence(task, order)
        for span in asked.layout.outputs():
            for first, stop in ((0, span.segment.length), (1, 2)):
                ids_BM = asked.ids_L[None, span.start + first : span.start + stop]
                own_BMF = model.own(ids_BM, span, first)
                settled_BM = (own_BMF != HIDDEN).all(dim=-1)
                assert torch.equal(model.ids(own_BMF, span, first)[settled_BM], ids_BM[settled_BM])
                assert int(own_BMF.max()) < (7 if span.segment.kind == "text" else 8)
    pads = int((model.own(asked.ids_L[None, span.start : span.stop], span) == HIDDEN).sum())
    assert pads == 1, "two words, an end and one place to spare"


@torch.no_grad()
def test_the_loss_is_minus_the_log_probability_of_outputs_alone(model: MultimodalTransformer) -> None:
    for task in ("text-to-both", "describe", "inpainting"):
        asked = sequence(task)
        layout = asked.layout
        nats_M = model(asked.ids_L[None], layout)[0]
        hidden_BMD = model.hidden(asked.ids_L[None], layout)
        wanted_M = torch.zeros(layout.stop - layout.prefix)
        for span in layout.outputs():
            own_BMF = model.own(asked.ids_L[None, span.start : span.stop], span)
            for number in range(span.segment.length):
                at = span.start - layout.prefix + number
                for factor in range(own_BMF.shape[-1]):
                    one_B1F = own_BMF[:, number : number + 1]
                    logits_V = model.logits(hidden_BMD[:, at : at + 1], span, number, factor, one_B1F)[0, 0]
                    if int(one_B1F[0, 0, factor]) != HIDDEN:
                        wanted_M[at] -= logits_V.log_softmax(-1)[one_B1F[0, 0, factor]]
        assert torch.allclose(nats_M, wanted_M, atol=1e-4)
    describe, both = (model(sequence(task).ids_L[None], sequence(task).layout) for task in ("describe", "text-to-both"))
    assert (describe == 0).sum() == 1, "a place without a word"
    assert (both == 0).sum() == 2, "the end of the picture and the begin of the sound"


@torch.no_grad()
def test_the_second_factor_is_told_the_first(model: MultimodalTransformer) -> None:
    asked = sequence("text-to-video")
    (span,) = asked.layout.outputs()
    hidden_BMD = model.hidden(asked.ids_L[None], asked.layout)
    own_BMF = model.own(asked.ids_L[None, span.start : span.stop], span)
    other_BMF = own_BMF.clone()
    other_BMF[..., 0] = (other_BMF[..., 0] + 1) % 8
    first, second = (
        (model.logits(hidden_BMD, span, 0, factor, own_BMF) - model.logits(hidden_BMD, span, 0, factor, other_BMF))
        for factor in range(2)
    )
    assert not bool(first.any()) and bool((second.abs().amax(dim=-1) > 1e-4).all())


@torch.no_grad()
def test_folding_the_digits_in_changes_nothing(model: MultimodalTransformer) -> None:
    folded, asked = model.folded(), sequence("text-to-both")
    assert not folded.config.video_digits and folded.folded() is folded
    ids_BL = asked.ids_L[None]
    assert torch.allclose(folded(ids_BL, asked.layout), model(ids_BL, asked.layout), atol=1e-4)


def test_computing_activations_again_changes_no_gradient(model: MultimodalTransformer) -> None:
    asked, gradients = sequence("continuation"), []
    for again in (False, True):
        model.checkpointing = again
        model.zero_grad()
        model(asked.ids_L[None], asked.layout).sum().backward()
        gradients.append([None if p.grad is None else p.grad.clone() for p in model.parameters()])
    for once, twice in zip(*gradients, strict=True):
        assert (once is None and twice is None) or torch.allclose(once, twice, atol=1e-5)


def test_embeddings_of_a_text_take_the_place_of_its_ids() -> None:
    made, asked = network(replace(CONFIG, text_features=5)), sequence("text-to-video")
    text_BPE = torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = made(asked.ids_L[None], asked.layout, text_BPE)
        assert torch.equal(plain, made(changed(asked, 3)[None], asked.layout, text_BPE)), "ids are not looked at"
        assert not torch.allclose(plain, made(asked.ids_L[None], asked.layout, text_BPE + 1.0))
    with pytest.raises(UsageError, match="4 embeddings of a text here, got none"):
        made(asked.ids_L[None], asked.layout)
    with pytest.raises(UsageError, match="text_features"):
        network()(asked.ids_L[None], asked.layout, text_BPE)


def test_sound_and_picture_of_one_moment_have_one_time() -> None:
    asked = sequence("continuation", "delay")
    places_L3 = _places(asked.layout, 2.0)
    spans = {(s.segment.kind, s.segment.role): places_L3[s.start : s.stop] for s in asked.layout.spans()}
    assert spans["video", "input"][:, 0].unique().tolist() == [0.0]
    assert spans["video", "output"][:, 0].unique().tolist() == [1.0, 2.0]
    assert spans["sound", "input"][:, 0].unique().tolist() == [0.0, 0.5]
    assert spans["sound", "output"][:, 0].unique().tolist() == [1.0, 1.5, 2.0, 2.5]
    assert spans["sound", "output"][:, 2].tolist() == [0, 0, 1, 0, 1, 0, 1, 1]


def test_windows_out_of_the_middle_are_told_from_beginnings(model: MultimodalTransformer) -> None:
    beginning, middle = (
        compose(TASKS["text-to-video"], replace(material(), begins=begins), VOCABULARY) for begins in (True, False)
    )
    with torch.no_grad():
        moved_M = model(beginning.ids_L[None], beginning.layout) - model(middle.ids_L[None], middle.layout)
    assert bool((moved_M.abs() > 1e-6).all())


def test_one_batch_of_several_tasks_is_learned_in_a_few_steps() -> None:
    torch.manual_seed(0)
    made = MultimodalTransformer(CONFIG)
    batches = [sequence(task) for task in ("describe", "text-to-both")]
    losses = []
    for _ in range(15):
        nats = [made(asked.ids_L[None], asked.layout).flatten() for asked in batches]
        loss = torch.cat(nats).mean()
        made.zero_grad()
        loss.backward()
        with torch.no_grad():  # by the sign of the gradient: torch.optim is slow to import
            for parameter in made.parameters():
                if parameter.grad is not None:
                    parameter.sub_(3e-3 * torch.sign(parameter.grad))
        losses.append([float(part.detach().sum()) for part in nats])
    assert losses[0][1] == pytest.approx(12 * math.log(64) + 12 * math.log(8), rel=0.1)
    assert all(last < 0.7 * first for first, last in zip(losses[0], losses[-1], strict=True))


@pytest.mark.parametrize("order", SOUND_ORDERS)
@torch.no_grad()
def test_plain_attention_equals_the_fused_kernel(model: MultimodalTransformer, order: str) -> None:
    draw = torch.Generator().manual_seed(0)
    queries, keys, values = (torch.randn(2, 3, 9, 8, generator=draw) for _ in range(3))
    mask_LL = torch.ones(9, 9, dtype=torch.bool).tril() | (torch.arange(9) < 4)
    for mask in (None, mask_LL):
        fused = torch.nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        assert torch.allclose(plain_attention(queries, keys, values, mask), fused, atol=1e-5)
    asked = sequence("text-to-both", order)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(asked.ids_L[None], asked.layout)
    assert torch.allclose(low, model(asked.ids_L[None], asked.layout), atol=0.2)


def test_what_does_not_fit_the_network_is_refused(model: MultimodalTransformer) -> None:
    wide = replace(material(), video_thw=torch.zeros(4, 2, 2, dtype=torch.long))
    asked = compose(TASKS["text-to-video"], wide, VOCABULARY)
    with pytest.raises(ShapeError, match="3 latent frames, got 4"):
        model.plan(asked.layout)
    loud = compose(
        TASKS["video-to-sound"], replace(material(), sound_Qt=torch.zeros(2, 7, dtype=torch.long)), VOCABULARY
    )
    with pytest.raises(ShapeError, match="6 frames"):
        model.plan(loud.layout)
    with pytest.raises(ShapeError, match="tokens"):
        model(asked.ids_L[None, 1:], asked.layout)


@pytest.mark.parametrize(
    "change",
    [{"width": 30}, {"depth": 0}, {"dropout": 1.0}, {"sound_frames_per_latent": 0.0}, {"words": ("red",)}],
)
def test_impossible_sizes_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        replace(CONFIG, **change)


def test_a_saved_network_is_loaded_as_it_was(model: MultimodalTransformer, tmp_path: Path) -> None:
    fingerprint = checkpoint.save(tmp_path / "poet", model, card="# poet\n", extra={"text": "words"})
    loaded, found = checkpoint.load_module(tmp_path / "poet", checkpoint.MULTIMODAL)
    assert found == fingerprint and loaded.config == CONFIG
    asked = sequence("text-to-both")
    with torch.no_grad():
        assert torch.equal(loaded(asked.ids_L[None], asked.layout), model(asked.ids_L[None], asked.layout))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name: str) -> None:
    assert checkpoint.from_json(json.loads(json.dumps(checkpoint.to_json(PRESETS[name])))) == PRESETS[name]

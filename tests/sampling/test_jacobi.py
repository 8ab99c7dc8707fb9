"""Coupled Jacobi decoding draws what plain sampling draws, in fewer passes; rules nearly right are found out."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kinolex.errors import ShapeError, UsageError
from kinolex.generation.decoding import DecodeConfig, decode_sequence
from kinolex.masks import HIDDEN
from kinolex.models.multimodal import MultimodalConfig, MultimodalTransformer
from kinolex.sampling import jacobi
from kinolex.sampling.autoregressive import sample_autoregressive
from kinolex.sampling.choose import Choice, choose, distribution
from kinolex.sampling.jacobi import Drawn, ReadFn, couple, last_of, look_back, sample_jacobi
from kinolex.sampling.parallel import FactorLogits
from kinolex.tasks.multimodal import TASKS, Material, Sequence, compose
from kinolex.vocab import Vocabulary

DRAWS = 4000
CHOICES = [Choice(), Choice(temperature=1.5, top_p=0.9), Choice(top_k=2)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def model() -> MultimodalTransformer:
    """Four video ids of two factors, three codes of sound; what it says depends strongly on what it reads."""
    config = MultimodalConfig(
        video_tokenizer="",
        sound_tokenizer="",
        vocabulary=Vocabulary(text_size=2, video_size=4, video_factors=(2, 2), sound_codes=3, sound_levels=2),
        width=16,
        depth=1,
        heads=2,
        latent_frames=1,
        sound_frames=2,
        sound_frames_per_latent=2.0,
        text_length=1,
    )
    torch.manual_seed(3)
    network = MultimodalTransformer(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def asked(model: MultimodalTransformer, kind: str) -> Sequence:
    open_video, open_sound = torch.full((1, 1, 3), HIDDEN), torch.full((2, 2), HIDDEN)
    task = {"video": "unconditional", "sound": "video-to-sound"}[kind]
    video_thw = open_video if kind == "video" else torch.tensor([[[1, 0, 3]]])
    return compose(TASKS[task], Material(video_thw=video_thw, sound_Qt=open_sound), model.config.vocabulary)


def probabilities(model: MultimodalTransformer, sequence: Sequence, choice: Choice) -> tuple[Tensor, Tensor]:
    """Every possible output as ids [n, L], and how likely it is."""
    (span,), vocabulary = tuple(sequence.layout.outputs()), model.config.vocabulary
    sizes = vocabulary.factors if span.segment.kind == "video" else (vocabulary.sound_codes,)
    one = list(itertools.product(*(range(size) for size in sizes)))
    own_nMF = torch.tensor(list(itertools.product(one, repeat=span.segment.length)))
    ids_nL = sequence.ids_L.repeat(len(own_nMF), 1)
    ids_nL[:, span.start : span.stop] = model.ids(own_nMF, span)
    hidden_nMD = model.hidden(ids_nL, sequence.layout)
    likely_n = torch.ones(len(own_nMF))
    for factor in range(len(sizes)):
        p_nMV = distribution(model.logits(hidden_nMD, span, 0, factor, own_nMF), choice)
        likely_n = likely_n * p_nMV.gather(-1, own_nMF[..., factor : factor + 1])[..., 0].prod(dim=1)
    return ids_nL[:, span.start : span.stop], likely_n


def p_value(drawn_BL: Tensor, outcomes_nL: Tensor, likely_n: Tensor) -> float:
    """Of a chi-square test that draws follow the probabilities; rare outcomes are counted together."""
    counts_n = (drawn_BL[:, None] == outcomes_nL).all(dim=-1).sum(dim=0).double()
    assert int(counts_n.sum()) == len(drawn_BL), "every draw is a possible outcome"
    expected_n = likely_n.double() * len(drawn_BL)
    rare_n = expected_n < 5
    counts = torch.cat([counts_n[~rare_n], counts_n[rare_n].sum()[None]])
    expected = torch.cat([expected_n[~rare_n], expected_n[rare_n].sum()[None]])
    counts, expected = counts[expected > 0], expected[expected > 0]
    assert len(counts) >= 6, "a distribution with something to compare"
    square = ((counts - expected) ** 2 / expected).sum()
    return float(torch.special.gammaincc(torch.tensor((len(counts) - 1) / 2).double(), square / 2))


def drawn(model: MultimodalTransformer, sequence: Sequence, choice: Choice, window: int) -> Tensor:
    config = DecodeConfig(video=choice, sound=choice, window=window, seed=11)
    ids_BL = decode_sequence(model, sequence, config, batch=DRAWS).ids_BL
    return ids_BL[:, sequence.layout.prefix : sequence.layout.stop]


@pytest.mark.parametrize("window", [1, 2, 4])
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("kind", ["video", "sound"])
def test_what_is_drawn_has_the_distribution_of_the_network(
    model: MultimodalTransformer, kind: str, choice: Choice, window: int
) -> None:
    sequence = asked(model, kind)
    outcomes_nL, likely_n = probabilities(model, sequence, choice)
    assert float(likely_n.sum()) == pytest.approx(1.0, abs=1e-4)
    assert p_value(drawn(model, sequence, choice, window), outcomes_nL, likely_n) > 1e-3


def redraw_from_all(guess_BM: Tensor, from_BMV: Tensor, wanted_BMV: Tensor, generator: torch.Generator) -> Tensor:
    """Rejected guesses are drawn from p and not from what p has more than q."""
    same = couple(guess_BM, from_BMV, wanted_BMV, generator)
    return torch.where(same == guess_BM, same, choose(wanted_BMV.log(), Choice(), generator)[0])


def trusting(guess_BM: Tensor, from_BMV: Tensor, wanted_BMV: Tensor, generator: torch.Generator) -> Tensor:
    """Guesses are kept a little too often: by the square root of the ratio."""
    softened_BMV = (from_BMV * wanted_BMV).sqrt()
    return couple(guess_BM, from_BMV, torch.maximum(softened_BMV, wanted_BMV), generator)


@pytest.mark.parametrize("rule", [redraw_from_all, trusting])
@pytest.mark.parametrize("kind", ["video", "sound"])
def test_rules_that_are_nearly_right_are_found_out(
    model: MultimodalTransformer, kind: str, rule: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = asked(model, kind)
    monkeypatch.setattr(jacobi, "couple", rule)
    assert p_value(drawn(model, sequence, Choice(), 4), *probabilities(model, sequence, Choice())) < 1e-6


def test_a_coupled_guess_has_the_wanted_distribution_and_stays_as_often_as_can_be() -> None:
    from_V, wanted_V = torch.tensor([0.5, 0.3, 0.2, 0.0]), torch.tensor([0.1, 0.4, 0.2, 0.3])
    draw = generator(5)
    guess_BM = torch.multinomial(from_V, 40_000, replacement=True, generator=draw)[:, None]
    made_BM = couple(guess_BM, from_V.expand(len(guess_BM), 1, 4), wanted_V.expand(len(guess_BM), 1, 4), draw)
    shares_V = made_BM.flatten().bincount(minlength=4) / len(made_BM)
    assert torch.allclose(shares_V, wanted_V, atol=0.01)
    assert float((made_BM == guess_BM).float().mean()) == pytest.approx(0.6, abs=0.01)  # 1 - total variation


class Counting:
    """The next token is one more than the token before, surely or nearly so; each call is written down."""

    def __init__(self, sharpness: float = 50.0) -> None:
        self.sharpness = sharpness
        self.calls: list[tuple[int, int]] = []

    def __call__(self, start: int, before_BMF: Tensor) -> FactorLogits:
        self.calls.append((start, before_BMF.shape[1]))
        wanted_BM = torch.where(before_BMF[..., 0] == HIDDEN, 0, before_BMF[..., 0] + 1) % 8
        return lambda factor, chosen_BMF: self.sharpness * torch.nn.functional.one_hot(wanted_BM, 8).float()


def test_good_guesses_settle_a_window_in_a_pass_and_bad_ones_a_token() -> None:
    known_BLF = torch.full((2, 8, 1), HIDDEN)
    counting = Counting()
    right = sample_jacobi(
        counting, known_BLF, Choice(), generator(), window=4, draft=lambda place, _: right_guess(place)
    )
    assert right.tokens_BLF[..., 0].tolist() == [list(range(8))] * 2
    assert right.passes == 2 and counting.calls == [(0, 4), (4, 4)]
    counting = Counting()
    wrong = sample_jacobi(counting, known_BLF, Choice(), generator(), window=1)
    assert torch.equal(wrong.tokens_BLF, right.tokens_BLF) and wrong.passes == 8
    assert counting.calls == [(place, 1) for place in range(8)]
    assert bool((known_BLF == HIDDEN).all()), "the argument is left alone"


def right_guess(place: int) -> Tensor:
    return torch.full((2, 1), place % 8)


@pytest.mark.parametrize("window", [1, 2, 5, 20])
@pytest.mark.parametrize("draft", [None, look_back(3)])
def test_at_temperature_zero_both_ways_give_the_same_ids(window: int, draft: jacobi.DraftFn | None) -> None:
    known_BLF = torch.full((3, 12, 1), HIDDEN)
    known_BLF[0, :3, 0], known_BLF[1, 5, 0] = torch.tensor([4, 4, 4]), 1
    greedy = Choice(temperature=0.0)
    plain_BLF = sample_autoregressive(last_of(Counting()), known_BLF, greedy, generator())
    made = sample_jacobi(Counting(), known_BLF, greedy, generator(), window=window, draft=draft)
    assert torch.equal(made.tokens_BLF, plain_BLF) and made.passes <= 12


def test_settled_tokens_and_samples_that_are_ahead_stay(model: MultimodalTransformer) -> None:
    known_BLF = torch.full((64, 10, 1), HIDDEN)
    known_BLF[::2, 4, 0] = 7
    seen: list[int] = []
    made: Drawn = sample_jacobi(
        Counting(3.0), known_BLF, Choice(), generator(), window=5, on_token=lambda done, total: seen.append(done)
    )
    assert bool((made.tokens_BLF[::2, 4] == 7).all()) and int(made.tokens_BLF.min()) >= 0
    assert seen == sorted(set(seen)) and seen[-1] == 10 and len(seen) == made.passes


def test_drafts_look_back_as_far_as_there_is_something() -> None:
    tokens_BLF = torch.tensor([[5, 6, 7, 0]])[..., None]
    assert [int(look_back(2)(place, tokens_BLF)) for place in range(4)] == [0, 5, 5, 6]
    given_BNF = torch.tensor([[1, 2]])[..., None]
    assert [int(look_back(2, given_BNF)(place, tokens_BLF)) for place in range(4)] == [1, 2, 5, 6]


def test_the_probabilities_are_those_that_choose_draws_by() -> None:
    logits_V = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0])
    for choice in (*CHOICES, Choice(temperature=0.0), Choice(temperature=2.0, top_k=4)):
        ids, _ = choose(logits_V.expand(20_000, -1), choice, generator(1))
        shares_V = ids.bincount(minlength=5) / len(ids)
        assert torch.allclose(shares_V, distribution(logits_V, choice), atol=0.015)


def test_impossible_questions_are_refused() -> None:
    half_BLF = torch.zeros(1, 3, 2, dtype=torch.long)
    half_BLF[0, 1, 1] = HIDDEN
    read: ReadFn = Counting()
    with pytest.raises(ShapeError, match="factors"):
        sample_jacobi(read, half_BLF, Choice(), generator())
    with pytest.raises(UsageError, match="window"):
        sample_jacobi(read, half_BLF, Choice(), generator(), window=0)
    with pytest.raises(UsageError, match="looks back"):
        look_back(0)

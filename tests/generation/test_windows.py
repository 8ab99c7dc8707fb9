"""Windows joined in tokens: any length, nothing settled is touched again, a stream is what one call gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from kinolex.errors import ConfigError, UsageError
from kinolex.generation.windows import OVERLAP, GenerateConfig, MaskedGenerator, longer
from kinolex.masks import HIDDEN
from kinolex.models.masked import MaskedTransformer
from kinolex.sampling.choose import Choice
from kinolex.sampling.parallel import ParallelConfig
from kinolex.tasks.base import Posed, pose
from kinolex.tasks.video import TASKS
from kinolex.tokenizers.autoencoder3d import Autoencoder3D
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip, Extent

FAST = GenerateConfig(sampling=ParallelConfig(steps=2))
LENGTH = 3
"""Latent frames of the tiny generator's windows."""


def nothing_given(latents: int, task: str = "class") -> Posed:
    """A grid of 2x3 tokens of which nothing is known."""
    hidden_thw = torch.full((latents, 2, 3), HIDDEN)
    extent = Extent(frames=4 * latents - 3, height=16, width=24, fps=Fraction(25))
    return Posed(task, hidden_thw, torch.zeros_like(hidden_thw, dtype=torch.bool), extent)


def given_first(latents: int, given: int, task: str = "frame-prediction") -> Posed:
    """Leading latent frames given exactly."""
    ids_thw = torch.randint(0, 64, (given, 2, 3), generator=torch.Generator().manual_seed(3))
    posed = replace(nothing_given(given), condition_thw=ids_thw, exact_thw=torch.ones_like(ids_thw, dtype=torch.bool))
    return longer(replace(posed, task=task), 4 * latents - 3, latents)


@contextmanager
def listening(generator: MaskedGenerator) -> Iterator[list[tuple[Tensor, int, list[int], bool]]]:
    """What the network is asked: ids [t, h, w], task, words, whether a stream begins."""
    asked: list[tuple[Tensor, int, list[int], bool]] = []
    honest = generator.model.hidden

    def hidden(ids_Bthw: Tensor, tasks_B: Tensor, words_BP: Tensor, first_B: Tensor) -> Tensor:
        asked.append((ids_Bthw[0].clone(), int(tasks_B[0]), words_BP[0].tolist(), bool(first_B[0])))
        return honest(ids_Bthw, tasks_B, words_BP, first_B)

    generator.model.hidden = hidden  # type: ignore[method-assign]
    try:
        yield asked
    finally:
        del generator.model.hidden


@pytest.mark.parametrize("latents", [1, 2, 3, 4, 5, 6, 11])
@pytest.mark.parametrize("given", [0, 1, 2, 3])
def test_any_length_is_made_and_what_was_given_stays(latents: int, given: int, tiny_generator: MaskedGenerator) -> None:
    posed = given_first(latents, given) if 0 < given <= latents else nothing_given(latents)
    tokens = tiny_generator.generate(posed, FAST)
    assert tokens.ids_Qthw.shape == (1, latents, 2, 3) and tokens.extent == posed.extent
    assert tokens.tokenizer == tiny_generator.tokenizer.fingerprint
    assert int(tokens.ids_Qthw.min()) >= 0 and int(tokens.ids_Qthw.max()) < 64
    known_thw = posed.known_thw
    assert torch.equal(tokens.ids_Qthw[0][known_thw], posed.condition_thw[known_thw])
    assert tiny_generator.tokenizer.decode(tokens).num_frames == 4 * latents - 3


@pytest.mark.parametrize(("length", "latents"), [(3, 4), (3, 9), (4, 5), (5, 9), (5, 10), (2, 4), (1, 3)])
def test_what_a_window_takes_over_is_given_in_every_pass_and_never_changed(
    length: int, latents: int, tiny_generator: MaskedGenerator
) -> None:
    config = replace(tiny_generator.config, latent_frames=length)
    tiny_generator = MaskedGenerator(MaskedTransformer(config), tiny_generator.tokenizer, "a" * 64)
    windows: list[Tensor] = []
    with listening(tiny_generator) as asked:
        tokens = tiny_generator.generate(
            nothing_given(latents),
            FAST,
            on_window=lambda number, total, ids_thw: windows.append(ids_thw) if number == total else None,
        )
    final_thw = tokens.ids_Qthw[0]
    starts, taken_over = [0], [0]
    while (done := starts[-1] + length) < latents:
        # The last window is as long as the others and begins earlier, so that it takes over more.
        starts.append(min(done - min(OVERLAP, length - 1), latents - length))
        taken_over.append(done - starts[-1])
    assert len(windows) == len(starts) and len(asked) == 2 * len(starts)
    for start, window_thw in zip(starts, windows, strict=True):
        assert torch.equal(window_thw, final_thw[start : start + length])
    for index, (ids_thw, _, _, first) in enumerate(asked):
        start, overlap = starts[index // 2], taken_over[index // 2]
        assert torch.equal(ids_thw[:overlap], final_thw[start : start + overlap])
        assert first == (start == 0)
        if index % 2 == 0:  # the first pass of a window knows nothing else
            assert bool((ids_thw[overlap:] == HIDDEN).all())


@pytest.mark.parametrize("posed", [nothing_given(8), given_first(8, 1), given_first(8, 4)])
def test_a_streams_pieces_joined_are_what_generate_gives(posed: Posed, tiny_generator: MaskedGenerator) -> None:
    pieces = list(tiny_generator.stream(posed, FAST))
    assert len(pieces) > 2
    assert torch.equal(torch.cat(pieces), tiny_generator.generate(posed, FAST).ids_Qthw[0])


def test_two_hundred_frames_are_made_window_by_window_as_they_are_asked_for(tiny_generator: MaskedGenerator) -> None:
    with listening(tiny_generator) as asked:
        stream = tiny_generator.stream(nothing_given(51), FAST)
        first_thw = next(stream)
        assert len(first_thw) == LENGTH and len(asked) == 2
        rest = list(stream)
    assert len(first_thw) + sum(map(len, rest)) == 51
    assert {len(ids_thw) for ids_thw, *_ in asked} == {LENGTH}
    assert [first for *_, first in asked] == [True] * 2 + [False] * (len(asked) - 2)
    assert len(asked) == 2 * 49
    # Noise is drawn anew in every window: the video does not repeat itself.
    assert len({tuple(piece.flatten().tolist()) for piece in rest}) == len(rest)


def test_the_same_seed_makes_the_same_tokens_and_another_one_others(tiny_generator: MaskedGenerator) -> None:
    first, second, other = (
        tiny_generator.generate(nothing_given(5), replace(FAST, seed=seed)).ids_Qthw for seed in (0, 0, -1)
    )
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_later_windows_go_on_from_what_is_settled(tiny_generator: MaskedGenerator) -> None:
    tasks = tiny_generator.config.tasks
    for text, going_on, words in (("", "frame-prediction", [0, 0, 0]), ("Red ball", "class-prediction", [1, 2, 0])):
        with listening(tiny_generator) as asked:
            tiny_generator.generate(nothing_given(5), replace(FAST, guidance=0.0), text=text)
        assert [tasks[task] for _, task, _, _ in asked] == ["class"] * 2 + [going_on] * 4
        assert all(said == words for _, _, said, _ in asked)


def test_tasks_with_a_condition_keep_it_in_every_window(tiny_generator: MaskedGenerator) -> None:
    generator = torch.Generator().manual_seed(0)
    clip = Clip(torch.randint(0, 256, (17, 3, 32, 32), generator=generator, dtype=torch.uint8), Fraction(25))
    tokenizer = tiny_generator.tokenizer
    posed = pose(TASKS["outpaint-vertical"], clip, tokenizer.encode, tokenizer.pixels_per_token)
    with listening(tiny_generator) as asked:
        tokens = tiny_generator.generate(posed, FAST)
    assert {tiny_generator.config.tasks[task] for _, task, _, _ in asked} == {"outpaint-vertical"}
    known_thw = posed.known_thw
    first_thw = asked[0][0]
    assert torch.equal(first_thw, posed.condition_thw[:3])
    third_thw = asked[2][0]  # first pass of the second window
    assert torch.equal(third_thw[:2], tokens.ids_Qthw[0, 1:3])
    assert torch.equal(third_thw[2], posed.condition_thw[3])
    # The condition is refined: its tokens are drawn as well.
    assert not torch.equal(tokens.ids_Qthw[0][known_thw], posed.condition_thw[known_thw])


def test_an_even_order_settles_the_same_places_first_in_every_seed(tiny_generator: MaskedGenerator) -> None:
    shown: list[Tensor] = []
    for seed in (0, 1):
        config = GenerateConfig(sampling=ParallelConfig(steps=4), seed=seed)
        tiny_generator.generate(nothing_given(3), config, on_window=lambda n, total, ids: shown.append(ids == HIDDEN))
    assert len(shown) == 8 and all(torch.equal(shown[i], shown[i + 4]) for i in range(4))
    assert 0 < int(shown[0].sum()) < 18


def test_guidance_asks_a_second_time_without_task_and_words(tiny_generator: MaskedGenerator) -> None:
    sampling = ParallelConfig(steps=2, choice=Choice(temperature=0.0), settle_temperature=0.0)
    posed, tasks = given_first(3, 1, "class-prediction"), tiny_generator.config.tasks
    plain = tiny_generator.generate(posed, GenerateConfig(sampling=sampling), text="red").ids_Qthw
    with listening(tiny_generator) as asked:
        config = GenerateConfig(sampling=sampling, guidance=30.0)
        guided = tiny_generator.generate(posed, config, text="red").ids_Qthw
    assert [(tasks[task], words[0]) for _, task, words, _ in asked] == [("class-prediction", 1), ("class", 0)] * 2
    assert torch.equal(asked[0][0], asked[1][0])
    assert not torch.equal(plain, guided)


def test_guidance_is_for_words_alone_unless_it_is_asked_for(tiny_generator: MaskedGenerator) -> None:
    for posed, text, passes in (
        (nothing_given(3), "red", 2),
        (nothing_given(3), "", 1),
        (given_first(3, 1, "class-prediction"), "red", 1),
    ):
        with listening(tiny_generator) as asked:
            tiny_generator.generate(posed, replace(FAST, sampling=ParallelConfig(steps=1)), text=text)
        assert len(asked) == passes


def test_wishes_that_cannot_be_granted_are_refused(tiny_generator: MaskedGenerator) -> None:
    with pytest.raises(UsageError, match="does not know 'cube'"):
        tiny_generator.generate(nothing_given(2), FAST, text="red cube")
    with pytest.raises(UsageError, match="not trained for dreaming; its tasks are frame-prediction"):
        tiny_generator.generate(nothing_given(2, "dreaming"), FAST)
    for guidance in (-0.5, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="guidance must be 0 or more and finite"):
            GenerateConfig(guidance=guidance)
    with pytest.raises(UsageError, match="more than the 2 asked for"):
        longer(given_first(3, 3), 5, 2)


def test_guidance_needs_a_model_of_classes(tiny_generator: MaskedGenerator) -> None:
    config = replace(tiny_generator.config, tasks=("frame-prediction",))
    generator = MaskedGenerator(MaskedTransformer(config), tiny_generator.tokenizer, "a" * 64)
    assert generator.generate(given_first(2, 1), FAST).num_tokens == 12
    with pytest.raises(UsageError, match="guidance needs a model that was trained for class"):
        generator.generate(given_first(2, 1), replace(FAST, guidance=1.0))


def test_a_tokenizer_that_is_not_the_models_is_refused(tiny_generator: MaskedGenerator) -> None:
    model, network = tiny_generator.model, tiny_generator.tokenizer.model
    with pytest.raises(ConfigError, match="knows the ids of tokenizer ffffffffffff, not of eeeeeeeeeeee"):
        MaskedGenerator(model, VideoTokenizer(network, "e" * 64), "a")
    blind = VideoTokenizer(Autoencoder3D(replace(network.config, causal=False)), "f" * 64)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="needs a causal tokenizer with as many ids"):
        MaskedGenerator(model, blind, "a")
    larger = MaskedTransformer(replace(model.config, factors=(8, 9)))
    with pytest.raises(ConfigError, match=r"factors \(8, 9\) needs a causal tokenizer with as many ids"):
        MaskedGenerator(larger, tiny_generator.tokenizer, "a")

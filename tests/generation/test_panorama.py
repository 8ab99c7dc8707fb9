"""Panoramas: the promised size, the source's tokens in the middle, windows that see one half, in both directions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kinolex.errors import KinolexError, ShapeError, UsageError
from kinolex.generation import GenerateConfig, MaskedGenerator, Wish, compose, generate
from kinolex.generation.panorama import Panorama, make_panorama, pose_panorama
from kinolex.generation.pixels import FEATHER
from kinolex.masks import HIDDEN
from kinolex.media import read, write
from kinolex.models.masked import MaskedTransformer
from kinolex.sampling.parallel import ParallelConfig
from kinolex.tasks.base import Posed
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip, Sound, Tokens

FAST = GenerateConfig(sampling=ParallelConfig(steps=2))
BOTH = ["outpaint-vertical", "outpaint-horizontal"]


def noise(frames: int, height: int, width: int, sound: Sound | None = None) -> Clip:
    generator = torch.Generator().manual_seed(0)
    frames_TCHW = torch.randint(0, 256, (frames, 3, height, width), generator=generator, dtype=torch.uint8)
    return Clip(frames_TCHW, Fraction(25), sound)


def posed(task: str, size: int, steps: int, tokenizer: VideoTokenizer, frames: int = 5) -> Panorama:
    """A panorama of a source with `size` pixels along the axis that grows and 13 along the other."""
    height, width = (13, size) if task == "outpaint-vertical" else (size, 13)
    return pose_panorama(noise(frames, height, width), task, steps, tokenizer)


@contextmanager
def listening(generator: MaskedGenerator) -> Iterator[list[tuple[Tensor, str, bool]]]:
    """What the network is asked: ids [t, h, w], task, whether a stream begins."""
    asked: list[tuple[Tensor, str, bool]] = []
    honest, names = generator.model.hidden, generator.config.tasks

    def hidden(ids_Bthw: Tensor, tasks_B: Tensor, words_BP: Tensor, first_B: Tensor) -> Tensor:
        asked.append((ids_Bthw[0].clone(), names[int(tasks_B[0])], bool(first_B[0])))
        return honest(ids_Bthw, tasks_B, words_BP, first_B)

    generator.model.hidden = hidden  # type: ignore[method-assign]
    try:
        yield asked
    finally:
        del generator.model.hidden


@pytest.mark.parametrize("task", BOTH)
@pytest.mark.parametrize(
    ("size", "steps", "wide"),
    [(16, 1, 32), (32, 1, 64), (32, 3, 128), (9, 2, 48), (24, 1, 40), (37, 2, 72 + 32), (40, 1, 72), (33, 1, 72)],
)
def test_the_picture_grows_as_promised_and_keeps_the_sources_tokens(
    task: str, size: int, steps: int, wide: int, tiny_generator: MaskedGenerator
) -> None:
    tokenizer = tiny_generator.tokenizer
    panorama = posed(task, size, steps, tokenizer)
    ids_thw = make_panorama(tiny_generator, panorama, FAST)

    extent = panorama.posed.extent
    across, along = (extent.height, extent.width) if task == "outpaint-vertical" else (extent.width, extent.height)
    assert (across, along, extent.frames) == (13, wide, 5)
    assert ids_thw.shape == panorama.posed.condition_thw.shape and ids_thw.shape[panorama.axis] == wide // 8
    assert int(ids_thw.min()) >= 0 and int(ids_thw.max()) < 64
    # Encoded alone, the source has the very tokens that lie in the middle.
    tokens = -(-size // 8)
    height, width = (13, size) if task == "outpaint-vertical" else (size, 13)
    own_thw = tokenizer.encode(noise(5, height, width)).ids_Qthw[0]
    middle_thw = ids_thw.narrow(panorama.axis, (wide // 8 - tokens) // 2, tokens)
    assert own_thw.shape[panorama.axis] == tokens and torch.equal(middle_thw, own_thw)


@pytest.mark.parametrize("task", BOTH)
@pytest.mark.parametrize("tokens", [2, 4, 5])
def test_a_window_sees_its_inner_half_settled_and_makes_the_outer_half(
    task: str, tokens: int, tiny_generator: MaskedGenerator
) -> None:
    panorama = posed(task, 8 * tokens, 2, tiny_generator.tokenizer)
    with listening(tiny_generator) as asked:
        ids_thw = make_panorama(tiny_generator, panorama, FAST)
    half = tokens // 2
    starts = [3 * half, half, 4 * half, 0]  # right, left, further right, further left
    assert len(asked) == 2 * len(starts)
    for index, (seen_thw, name, first) in enumerate(asked):
        side = index // 2
        final_thw = ids_thw.narrow(panorama.axis, starts[side], tokens)
        at = (0, tokens - half) if side % 2 == 0 else (half, 0)
        inner_thw, outer_thw = (
            seen_thw.narrow(panorama.axis, start, length)
            for start, length in zip(at, (tokens - half, half), strict=True)
        )
        assert torch.equal(inner_thw, final_thw.narrow(panorama.axis, at[0], tokens - half))
        assert (name, first, seen_thw.shape[panorama.axis]) == ("free-form", True, tokens)
        hidden = outer_thw == HIDDEN
        # The first of two passes knows nothing of the outer half, the second some of it.
        assert bool(hidden.all()) if index % 2 == 0 else 0 < int(hidden.sum()) < hidden.numel()


@pytest.mark.parametrize("task", BOTH)
def test_long_videos_go_on_in_time_from_tokens_taken_over(task: str, tiny_generator: MaskedGenerator) -> None:
    panorama = posed(task, 32, 1, tiny_generator.tokenizer, frames=14)  # five latent frames, windows of three
    with listening(tiny_generator) as asked:
        ids_thw = make_panorama(tiny_generator, panorama, FAST)
    assert len(ids_thw) == 5 and len(asked) == 2 * 2 * 3
    for side, start in enumerate((4, 0)):
        final_thw = ids_thw.narrow(panorama.axis, start, 4)
        for number in range(3):
            seen_thw, name, first = asked[2 * (3 * side + number)]  # the first pass
            taken_over = 2 if number else 0
            assert (name, first, len(seen_thw)) == ("free-form", number == 0, 3)
            assert torch.equal(seen_thw[:taken_over], final_thw[number : number + taken_over])
            known_thw = seen_thw[taken_over:] != HIDDEN
            assert int(known_thw.sum()) * 2 == known_thw.numel()
    clip = tiny_generator.tokenizer.decode(
        replace(tiny_generator.generate(panorama.posed, FAST), ids_Qthw=ids_thw[None])
    )
    assert clip.extent == panorama.posed.extent and clip.num_frames == 14


def test_both_axes_are_one_function(tiny_generator: MaskedGenerator) -> None:
    known: dict[str, list[list[float]]] = {}
    for task in BOTH:
        panorama = posed(task, 40, 3, tiny_generator.tokenizer)
        known[task] = []
        with listening(tiny_generator) as asked:
            make_panorama(tiny_generator, panorama, FAST)
        # How much of each row or column of tokens is known in each first pass.
        for seen_thw, _, _ in asked[::2]:
            others = tuple(axis for axis in range(3) if axis != panorama.axis)
            known[task].append((seen_thw != HIDDEN).float().mean(dim=others).tolist())
    assert known["outpaint-vertical"] == known["outpaint-horizontal"] and len(known["outpaint-vertical"]) == 6


def test_the_same_seed_makes_the_same_panorama_and_every_window_has_noise_of_its_own(
    tiny_generator: MaskedGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    panorama = posed("outpaint-vertical", 32, 2, tiny_generator.tokenizer)
    first, second, other = (make_panorama(tiny_generator, panorama, replace(FAST, seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(first, second) and not torch.equal(first, other)
    seeds: list[int] = []
    honest = tiny_generator.generate

    def generated(posed: Posed, config: GenerateConfig, **options: Any) -> Tokens:
        seeds.append(config.seed)
        return honest(posed, config, **options)

    monkeypatch.setattr(tiny_generator, "generate", generated)
    for seed in (3, 4):
        make_panorama(tiny_generator, panorama, replace(FAST, seed=seed))
    assert len(seeds) == len(set(seeds)) == 2 * 4


@pytest.mark.parametrize("task", BOTH)
def test_a_file_becomes_a_panorama_with_its_sound(task: str, tmp_path: Path, tiny_generator: MaskedGenerator) -> None:
    tone = Sound(0.5 * torch.sin(torch.arange(7040) / 5)[None], 16_000)
    write(noise(11, 30, 44, tone), tmp_path / "in.mp4")
    wish = Wish(task=task, panorama=2)
    growth = tmp_path / "growth.png"
    report = generate(tmp_path / "in.mp4", tmp_path / "out.mp4", tiny_generator, wish, FAST, growth=growth)
    # 6 tokens become 6 + 4 * 3, and 4 become 4 + 4 * 2.
    size = (30, 144) if task == "outpaint-vertical" else (96, 44)
    made = read(tmp_path / "out.mp4")
    assert (made.num_frames, made.height, made.width) == (11, *size)
    assert (report.height, report.width, report.frames, report.task) == (*size, 11, task)
    assert report.passes == 4 * 2 * 2 and made.sound is not None  # four windows, each twice in time, of two passes
    # The picture that grows is a window's: 48 columns or 32 rows, three latent frames side by side, two passes.
    window = (30, 48) if task == "outpaint-vertical" else (32, 44)
    shown = read(growth)
    assert (shown.height, shown.width) == (2 * window[0], 3 * window[1])


@pytest.mark.parametrize("task", BOTH)
def test_the_sources_own_pixels_are_put_back_where_they_were(
    task: str, tmp_path: Path, tiny_generator: MaskedGenerator
) -> None:
    clip = noise(1, 44, 44)
    write(clip, tmp_path / "in.png")
    for name, back in (("plain.png", False), ("back.png", True)):
        wish = Wish(task=task, panorama=1, put_back=back)
        generate(tmp_path / "in.png", tmp_path / name, tiny_generator, wish, FAST)
    plain_CHW, back_CHW = (read(tmp_path / name).frames_TCHW[0] for name in ("plain.png", "back.png"))
    axis = 2 if task == "outpaint-vertical" else 1
    # 24 pixels were added on each side; four more, at the end, are the source's padding.
    assert plain_CHW.shape[axis] == 96 and plain_CHW.shape[3 - axis] == 44
    length = 44 - 2 * FEATHER  # without the soft seam
    own_CHW = clip.frames_TCHW[0].narrow(axis, FEATHER, length)
    assert torch.equal(back_CHW.narrow(axis, 24 + FEATHER, length), own_CHW)
    assert not torch.equal(plain_CHW.narrow(axis, 24 + FEATHER, length), own_CHW)
    for start, length in ((0, 24), (68, 28)):
        assert torch.equal(back_CHW.narrow(axis, start, length), plain_CHW.narrow(axis, start, length))


def test_frames_and_lines_of_the_wish_are_kept_to(tiny_generator: MaskedGenerator) -> None:
    composition = compose(
        noise(9, 32, 64), Wish(task="outpaint-vertical", panorama=1, frames=4, lines=16), tiny_generator
    )
    extent = composition.posed.extent
    assert (extent.frames, extent.height, extent.width) == (4, 16, 64)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": "outpaint-vertical", "panorama": 0}, "needs 1 step or more to each side, got 0"),
        ({"task": "outpaint-horizontal", "panorama": -2}, "needs 1 step or more to each side, got -2"),
        ({"task": "outpaint-central", "panorama": 1}, "by outpaint-vertical or outpaint-horizontal, not by outpaint-c"),
        ({"task": "class", "panorama": 1}, "not by class"),
        ({"task": "outpaint-vertical", "panorama": 1, "grow": True}, "leave grow out"),
    ],
)
def test_wishes_for_panoramas_that_make_no_sense_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Wish(**values)  # type: ignore[arg-type]


def test_what_cannot_become_a_panorama_is_refused(tmp_path: Path, tiny_generator: MaskedGenerator) -> None:
    tokenizer = tiny_generator.tokenizer
    for task, steps in (("outpaint-vertical", 0), ("inpaint-central", 1), ("free-form", 1)):
        with pytest.raises(UsageError, match="panorama"):
            pose_panorama(noise(1, 32, 32), task, steps, tokenizer)
    with pytest.raises(ShapeError, match="at least two tokens of 8 pixels; this source has 8 columns"):
        pose_panorama(noise(1, 64, 8), "outpaint-vertical", 1, tokenizer)
    with pytest.raises(ShapeError, match="at least two tokens of 8 pixels; this source has 7 rows"):
        pose_panorama(noise(1, 7, 64), "outpaint-horizontal", 1, tokenizer)
    # A model that knows outpainting but no free-form regions; and nothing to start from.
    config = replace(tiny_generator.config, tasks=("outpaint-vertical",))
    ignorant = MaskedGenerator(MaskedTransformer(config), tokenizer, "a" * 64)
    write(noise(1, 32, 32), tmp_path / "in.png")
    wish, before = Wish(task="outpaint-vertical", panorama=1), set(tmp_path.iterdir())
    with pytest.raises(UsageError, match="not trained for free-form; its tasks are outpaint-vertical"):
        generate(tmp_path / "in.png", tmp_path / "out.png", ignorant, wish, FAST)
    with pytest.raises(KinolexError, match="needs a video or image to start from"):
        generate(None, tmp_path / "out.png", tiny_generator, wish, FAST)
    assert set(tmp_path.iterdir()) == before

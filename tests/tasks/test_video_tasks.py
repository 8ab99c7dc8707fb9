"""The ten tasks as MAGVIT describes them; what is unknown never reaches the condition."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from kinolex.errors import ShapeError, UsageError
from kinolex.masks import HIDDEN
from kinolex.tasks.base import Task, padded, pose, pose_mask, tokens_known
from kinolex.tasks.video import FREE_FORM, TASK_NAMES, TASKS, task_named
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip, Extent, Tokens

FPS = Fraction(25)
PERCENT = {
    "frame-prediction": (93.75, 75),
    "frame-interpolation": (87.5, 50),
    "outpaint-central": (75, 75),
    "outpaint-vertical": (50, 50),
    "outpaint-horizontal": (50, 50),
    "outpaint-dynamic": (50, 50),
    "inpaint-central": (25, 25),
    "inpaint-dynamic": (25, 25),
    "class": (100, 100),
    "class-prediction": (93.75, 75),
}
"""Masked pixels and tokens, arXiv 2212.05199, appendix B.1, which writes 94 and 87 for the fractions."""
SIZES = [(16, 128, 128), (4, 16, 16), (5, 16, 16), (17, 128, 96), (7, 13, 37), (5, 35, 9), (3, 2, 2), (3, 1, 1)]


def random_clip(frames: int, height: int, width: int, seed: int = 0) -> Clip:
    generator = torch.Generator().manual_seed(seed)
    return Clip(torch.randint(0, 256, (frames, 3, height, width), generator=generator, dtype=torch.uint8), FPS)


def test_there_are_the_papers_ten_tasks_and_one_for_drawn_masks() -> None:
    assert set(TASKS) == set(PERCENT) and (*TASKS, FREE_FORM) == TASK_NAMES
    assert {name for name, task in TASKS.items() if task.takes_class} == {"class", "class-prediction"}
    assert [name for name, task in TASKS.items() if not task.gives_pixels] == ["class"]
    with pytest.raises(UsageError, match="no task 'dream'; choose one of frame-prediction, "):
        task_named("dream")


@pytest.mark.parametrize("name", TASKS)
def test_as_much_is_masked_as_the_paper_says(name: str) -> None:
    for sizes, percent in zip(((16, 128, 128), (4, 16, 16)), PERCENT[name], strict=True):
        known_THW = TASKS[name].region(*sizes, 1)
        assert known_THW.shape == sizes and known_THW.dtype == torch.bool
        assert 100 * float((~known_THW).float().mean()) == percent


def reference(name: str, frames: int, rows: int, columns: int, given: int) -> Tensor:
    """Known positions of a task, position by position from its description."""
    known_THW = torch.zeros(frames, rows, columns, dtype=torch.bool)
    starts = np.round(np.linspace(0, columns / 2, frames)).tolist()
    for t, y, x in itertools.product(range(frames), range(rows), range(columns)):
        in_rows = rows // 4 <= y < rows // 4 + max(1, rows // 2)
        in_columns = columns // 4 <= x < columns // 4 + max(1, columns // 2)
        slides = starts[t] <= x < starts[t] + max(1, columns // 2)
        known_THW[t, y, x] = {
            "frame-prediction": t < given,
            "frame-interpolation": t in (0, frames - 1),
            "outpaint-central": in_rows and in_columns,
            "outpaint-vertical": in_columns,
            "outpaint-horizontal": in_rows,
            "outpaint-dynamic": slides,
            "inpaint-central": not (in_rows and in_columns),
            "inpaint-dynamic": not (in_rows and slides),
            "class": False,
            "class-prediction": t < given,
        }[name]
    return known_THW


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("sizes", [(4, 16, 16), (5, 16, 16), (7, 13, 11), (5, 7, 9), (3, 2, 2), (3, 1, 1)])
def test_every_position_is_known_where_the_description_says(name: str, sizes: tuple[int, int, int]) -> None:
    for given in (1, 2):
        assert torch.equal(TASKS[name].region(*sizes, given), reference(name, *sizes, given))


@pytest.mark.parametrize("sizes", SIZES)
def test_a_sliding_window_keeps_its_width_and_goes_from_the_left_edge_to_the_right(sizes: tuple[int, int, int]) -> None:
    for name in ("outpaint-dynamic", "inpaint-dynamic"):
        inside_TW = TASKS[name].region(*sizes, 1)[:, sizes[1] // 4]
        inside_TW = inside_TW if name == "outpaint-dynamic" else ~inside_TW
        assert inside_TW.sum(dim=1).tolist() == [max(1, sizes[2] // 2)] * sizes[0]
        starts = [int(row_W.nonzero()[0]) for row_W in inside_TW]
        assert starts == sorted(starts) and starts[0] == 0
        assert bool(inside_TW[-1, -1]) or sizes[2] % 2 or sizes[2] == 1


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("latents", [1, 2])
def test_tokens_are_known_where_they_cover_known_pixels(name: str, latents: int) -> None:
    region = TASKS[name].region
    known_THW = region(17, 128, 128, 1 + 4 * (latents - 1))
    known_thw = region(5, 16, 16, latents)
    if name.endswith("dynamic"):  # the window moves within a latent frame too; tokens go by its last frame
        cover_thw = known_THW[::4].unfold(1, 8, 8).unfold(2, 8, 8).flatten(3).any(dim=-1)
    else:
        cover_thw = tokens_known(known_THW, (4, 8, 8))
    assert torch.equal(known_thw, cover_thw)


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
@pytest.mark.parametrize("sizes", [(5, 16, 16), (6, 21, 13)])
def test_unknown_pixels_never_reach_the_condition(
    task: Task, sizes: tuple[int, int, int], tiny_tokenizer: VideoTokenizer
) -> None:
    clip, other = random_clip(*sizes), random_clip(*sizes, seed=1)
    known_THW = task.region(*sizes, 1)
    changed = Clip(torch.where(known_THW[:, None], clip.frames_TCHW, other.frames_TCHW), FPS)
    assert not torch.equal(changed.frames_TCHW, clip.frames_TCHW)

    posed, same, unlike = (
        pose(task, each, tiny_tokenizer.encode, tiny_tokenizer.pixels_per_token) for each in (clip, changed, other)
    )

    assert torch.equal(posed.condition_thw, same.condition_thw)
    assert posed.extent == clip.extent and posed.task == task.name
    if task.gives_pixels:
        filled = padded(clip, known_THW, task.fill).frames_TCHW
        assert torch.equal(filled, padded(changed, known_THW, task.fill).frames_TCHW)
        # What is known stays as it is, and another clip has another condition.
        assert torch.equal(
            filled[known_THW[:, None].expand_as(filled)], clip.frames_TCHW[known_THW[:, None].expand_as(filled)]
        )
        assert not torch.equal(posed.condition_thw, unlike.condition_thw)


@pytest.mark.parametrize("name", [name for name in TASKS if name != "class"])
def test_a_condition_has_the_padded_clips_ids_where_known_and_is_hidden_elsewhere(
    name: str, tiny_tokenizer: VideoTokenizer
) -> None:
    clip, task = random_clip(9, 32, 40), TASKS[name]
    posed = pose(task, clip, tiny_tokenizer.encode, tiny_tokenizer.pixels_per_token)
    ids_thw = tiny_tokenizer.encode(padded(clip, task.region(9, 32, 40, 1), task.fill)).ids_Qthw[0]
    known_thw = task.region(3, 4, 5, 1)
    assert torch.equal(posed.known_thw, known_thw)
    assert torch.equal(posed.condition_thw[known_thw], ids_thw[known_thw])
    assert torch.equal(posed.exact_thw, known_thw if task.fill == "repeat" else torch.zeros_like(known_thw))


def test_a_class_gives_nothing_but_the_grid(tiny_tokenizer: VideoTokenizer) -> None:
    posed = pose(TASKS["class"], random_clip(9, 20, 40), tiny_tokenizer.encode, tiny_tokenizer.pixels_per_token)
    assert posed.condition_thw.shape == (3, 3, 5) and bool((posed.condition_thw == HIDDEN).all())
    assert not bool(posed.exact_thw.any())


@pytest.mark.parametrize(("given", "latents"), [(1, 1), (2, 1), (4, 1), (5, 2), (7, 2), (9, 3)])
@pytest.mark.parametrize("name", ["frame-prediction", "class-prediction"])
def test_the_tokens_of_prediction_are_exactly_the_clips_own(
    name: str, given: int, latents: int, tiny_tokenizer: VideoTokenizer
) -> None:
    clip = random_clip(14, 19, 26)
    posed = pose(TASKS[name], clip, tiny_tokenizer.encode, tiny_tokenizer.pixels_per_token, given=given)
    own_thw = tiny_tokenizer.encode(clip).ids_Qthw[0]
    assert posed.condition_thw.shape == own_thw.shape
    assert torch.equal(posed.condition_thw[:latents], own_thw[:latents])
    assert bool((posed.condition_thw[latents:] == HIDDEN).all())
    assert torch.equal(posed.exact_thw, posed.known_thw)


def test_fills_are_exactly_what_they_are_called() -> None:
    clip = random_clip(5, 6, 9)
    frames_TCHW = clip.frames_TCHW
    first_two_THW = TASKS["frame-prediction"].region(5, 6, 9, 2)
    repeated = padded(clip, first_two_THW, "repeat").frames_TCHW
    assert torch.equal(repeated, frames_TCHW[[0, 1, 1, 1, 1]])

    ends_THW = TASKS["frame-interpolation"].region(5, 6, 9, 1)
    blended = padded(clip, ends_THW, "blend").frames_TCHW
    for frame in range(5):
        mixed = (1 - frame / 4) * frames_TCHW[0].double() + frame / 4 * frames_TCHW[-1].double()
        assert float((blended[frame].double() - mixed).abs().max()) <= 0.5 + 1e-4
    assert torch.equal(blended[[0, -1]], frames_TCHW[[0, -1]])

    box_THW = TASKS["outpaint-central"].region(5, 6, 9, 1)
    edged = padded(clip, box_THW, "edge").frames_TCHW
    rows_columns = box_THW[0].nonzero()
    for y, x in itertools.product(range(6), range(9)):
        nearest = rows_columns[(rows_columns - torch.tensor([y, x])).square().sum(dim=1).argmin()]
        assert torch.equal(edged[:, :, y, x], frames_TCHW[:, :, nearest[0], nearest[1]])

    zeroed = padded(clip, ~box_THW, "zero").frames_TCHW
    assert torch.equal(zeroed, frames_TCHW * ~box_THW[:, None])


@pytest.mark.parametrize("pixels_per_token", [(4, 8, 8), (2, 4, 4), (1, 2, 2)])
@pytest.mark.parametrize("sizes", [(1, 8, 8), (1, 5, 11), (2, 9, 17), (5, 16, 24), (9, 13, 30)])
def test_a_token_is_known_if_it_covers_any_known_pixel(
    sizes: tuple[int, int, int], pixels_per_token: tuple[int, int, int]
) -> None:
    time, space, _ = pixels_per_token
    generator = torch.Generator().manual_seed(0)
    for share in (0.0, 0.01, 0.1, 1.0):
        known_THW = torch.rand(sizes, generator=generator) < share
        grid = (1 - (1 - sizes[0]) // time, -(-sizes[1] // space), -(-sizes[2] // space))
        expected_thw = torch.zeros(grid, dtype=torch.bool)
        for t, y, x in known_THW.nonzero().tolist():
            expected_thw[-(-t // time), y // space, x // space] = True
        assert torch.equal(tokens_known(known_THW, pixels_per_token), expected_thw)


def test_a_drawn_mask_gives_the_tokens_that_cover_anything_known(tiny_tokenizer: VideoTokenizer) -> None:
    clip, shape = random_clip(6, 21, 30), tiny_tokenizer.pixels_per_token
    known_THW = torch.zeros(6, 21, 30, dtype=torch.bool)
    known_THW[:, 9:12, 3:20] = True
    posed = pose_mask(FREE_FORM, clip, known_THW, tiny_tokenizer.encode, shape)
    hidden = Clip(clip.frames_TCHW * known_THW[:, None], FPS)
    ids_thw = tiny_tokenizer.encode(hidden).ids_Qthw[0]
    expected_thw = torch.full_like(ids_thw, HIDDEN)
    expected_thw[:, 1, 0:3] = ids_thw[:, 1, 0:3]
    assert torch.equal(posed.condition_thw, expected_thw) and not bool(posed.exact_thw.any())
    assert posed.extent == clip.extent


@pytest.mark.parametrize(
    "mask", [torch.ones(6, 21, 29, dtype=torch.bool), torch.ones(6, 21, 30), torch.ones(21, 30, dtype=torch.bool)]
)
def test_a_mask_that_does_not_fit_its_clip_is_refused(mask: Tensor, tiny_tokenizer: VideoTokenizer) -> None:
    with pytest.raises(ShapeError, match=r"6 frames of 30x21 must be bool of shape \(6, 21, 30\), got"):
        pose_mask(FREE_FORM, random_clip(6, 21, 30), mask, tiny_tokenizer.encode, tiny_tokenizer.pixels_per_token)


@pytest.mark.parametrize(
    ("name", "frames", "given", "message"),
    [
        ("frame-prediction", 5, 0, "at least one given frame, got 0"),
        ("frame-prediction", 5, 5, "with 5 given frames needs a longer clip"),
        ("class-prediction", 1, 1, "with 1 given frames needs a longer clip"),
        ("frame-interpolation", 2, 1, "at least 3, got 2"),
    ],
)
def test_a_clip_too_short_for_its_task_is_refused(
    name: str, frames: int, given: int, message: str, tiny_tokenizer: VideoTokenizer
) -> None:
    with pytest.raises(UsageError, match=message):
        pose(
            TASKS[name],
            random_clip(frames, 16, 16),
            tiny_tokenizer.encode,
            tiny_tokenizer.pixels_per_token,
            given=given,
        )


def test_a_tokenizer_of_several_levels_is_refused() -> None:
    def encode(clip: Clip) -> Tokens:
        extent = Extent(frames=clip.num_frames, height=clip.height, width=clip.width, fps=clip.fps)
        return Tokens(torch.zeros(2, 1, 2, 2, dtype=torch.int64), "video", "two levels", extent)

    with pytest.raises(ShapeError, match="one level, this one has 2"):
        pose(TASKS["outpaint-central"], random_clip(1, 16, 16), encode, (4, 8, 8))

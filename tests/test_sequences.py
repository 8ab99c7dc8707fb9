"""Flattening is undone exactly; layouts know where their parts lie."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinolex.errors import ShapeError, UsageError
from kinolex.sequences import (
    SOUND_ORDERS,
    Layout,
    Segment,
    SoundOrder,
    flatten_sound,
    flatten_video,
    sound_places,
    unflatten_sound,
    unflatten_video,
)

sizes = st.integers(1, 6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(sizes, sizes, sizes, st.sampled_from([(), (2,)]))
def test_video_is_flattened_and_restored(time: int, height: int, width: int, batch: tuple[int, ...]) -> None:
    ids = torch.arange(time * height * width).reshape(time, height, width).expand(*batch, -1, -1, -1)
    flat = flatten_video(ids)
    assert flat.shape == (*batch, time * height * width)
    assert torch.equal(flat, torch.arange(time * height * width).expand_as(flat))
    assert torch.equal(unflatten_video(flat, (time, height, width)), ids)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(sizes, st.integers(1, 30), st.sampled_from(SOUND_ORDERS), st.sampled_from([(), (2,)]))
def test_sound_is_flattened_and_restored(levels: int, frames: int, order: SoundOrder, batch: tuple[int, ...]) -> None:
    ids_Qt = torch.randperm(levels * frames).reshape(levels, frames).expand(*batch, -1, -1)
    flat = flatten_sound(ids_Qt, order)
    assert torch.equal(unflatten_sound(flat, levels, order), ids_Qt)
    level_L, frame_L = sound_places(levels, frames, order).unbind(-1)
    assert torch.equal(ids_Qt[..., level_L, frame_L], flat)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(sizes, st.integers(1, 30), st.sampled_from(SOUND_ORDERS))
def test_a_level_comes_after_the_levels_and_frames_it_refines(levels: int, frames: int, order: SoundOrder) -> None:
    places = [tuple(place) for place in sound_places(levels, frames, order).tolist()]
    rank = {place: number for number, place in enumerate(places)}
    assert len(rank) == levels * frames
    for level, frame in places:
        assert level == 0 or rank[level - 1, frame] < rank[level, frame]
        assert frame == 0 or rank[level, frame - 1] < rank[level, frame]


def test_the_three_orders_of_sound() -> None:
    ids_Qt = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert flatten_sound(ids_Qt).tolist() == [1, 2, 3, 4, 5, 6]
    assert flatten_sound(ids_Qt, "frames").tolist() == [1, 4, 2, 5, 3, 6]
    assert flatten_sound(ids_Qt, "delay").tolist() == [1, 2, 4, 3, 5, 6]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="12 tokens, got 13"):
        unflatten_video(torch.arange(13), (3, 2, 2))
    with pytest.raises(ShapeError, match="4 levels"):
        unflatten_sound(torch.arange(13), 4)
    with pytest.raises(UsageError, match="delay"):
        flatten_sound(torch.zeros(2, 3), "random")  # type: ignore[arg-type]


def test_a_layout_knows_where_its_parts_lie() -> None:
    marker_in, marker_out = (Segment(kind="marker", role=role, grid=(2,)) for role in ("input", "output"))
    video = Segment(kind="video", role="output", grid=(2, 3, 4))
    layout = Layout((marker_in, marker_out, video, marker_out))
    assert (layout.length, layout.prefix, layout.stop) == (30, 4, 28)
    assert [(span.start, span.stop) for span in layout.spans()] == [(0, 2), (2, 4), (4, 28), (28, 30)]
    assert [span.segment for span in layout.outputs()] == [video]


@pytest.mark.parametrize(
    "segments",
    [
        (),
        (Segment(kind="marker", role="input", grid=(1,)),),
        (Segment(kind="text", role="output", grid=(1,)),),
        (
            Segment(kind="marker", role="output", grid=(1,)),
            Segment(kind="marker", role="input", grid=(1,)),
            Segment(kind="text", role="output", grid=(1,)),
        ),
    ],
)
def test_layouts_without_question_or_answer_are_refused(segments: tuple[Segment, ...]) -> None:
    with pytest.raises(ShapeError):
        Layout(segments)


@pytest.mark.parametrize(("kind", "grid"), [("video", (3,)), ("sound", (4, 0)), ("text", (2, 2))])
def test_grids_that_do_not_fit_their_kind_are_refused(kind: str, grid: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=kind):
        Segment(kind=kind, role="input", grid=grid)  # type: ignore[arg-type]

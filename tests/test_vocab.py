"""Ranges do not overlap, ids go both ways, strangers are refused."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinolex.errors import ConfigError, ShapeError, UsageError
from kinolex.vocab import MARKERS, OUTPUTS, RANGES, Vocabulary

VOCABULARY = Vocabulary(
    text_size=10, video_size=64, sound_codes=8, sound_levels=3, sources=("worlds",), resolutions=("128x224",)
)

vocabularies = st.builds(
    Vocabulary,
    text_size=st.integers(1, 50),
    video_size=st.integers(1, 300),
    sound_codes=st.integers(1, 40),
    sound_levels=st.integers(1, 6),
    sources=st.sampled_from([(), ("web",), ("web", "worlds")]),
    resolutions=st.sampled_from([(), ("wide",)]),
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(vocabularies)
def test_ranges_follow_one_another_and_make_the_whole(vocabulary: Vocabulary) -> None:
    spans = [vocabulary.range_named(name) for name in RANGES]
    assert spans[0].start == 0 and spans[-1].stop == vocabulary.size
    assert all(before.stop == after.start for before, after in itertools.pairwise(spans))
    covered_V = torch.stack([vocabulary.allowed(span) for span in spans]).sum(dim=0)
    assert torch.equal(covered_V, torch.ones(vocabulary.size, dtype=torch.long))
    levels = [vocabulary.sound_level(level) for level in range(vocabulary.sound_levels)]
    assert levels[0].start == vocabulary.sound.start and levels[-1].stop == vocabulary.sound.stop


@settings(max_examples=40, deadline=None, derandomize=True)
@given(vocabularies, st.integers(0, 2**31))
def test_every_id_goes_there_and_back(vocabulary: Vocabulary, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    text = torch.randint(vocabulary.text_size, (5,), generator=draw)
    video = torch.randint(vocabulary.video_size, (2, 2, 3), generator=draw)
    sound = torch.randint(vocabulary.sound_codes, (2, vocabulary.sound_levels, 4), generator=draw)
    assert torch.equal(vocabulary.own_text(vocabulary.text_ids(text)), text)
    assert torch.equal(vocabulary.own_video(vocabulary.video_ids(video)), video)
    assert torch.equal(vocabulary.own_sound(vocabulary.sound_ids(sound)), sound)
    assert bool(vocabulary.allowed(vocabulary.video)[vocabulary.video_ids(video)].all())


def test_the_numbers_themselves() -> None:
    assert VOCABULARY.marker("pad") == 0 and VOCABULARY.marker("bos") == 2
    assert VOCABULARY.marker("worlds") == len(MARKERS) == 14 and VOCABULARY.marker("128x224") == 15
    assert [VOCABULARY.task_id(name) for name in OUTPUTS] == [16, 17, 18, 19]
    assert (VOCABULARY.text.start, VOCABULARY.video.start, VOCABULARY.sound.start) == (20, 30, 94)
    assert VOCABULARY.size == 94 + 24
    assert VOCABULARY.sound_ids(torch.tensor([[0, 7], [0, 7], [1, 2]])).tolist() == [[94, 101], [102, 109], [111, 112]]


def test_the_paper_has_about_three_hundred_thousand_ids() -> None:
    paper = Vocabulary(text_size=32_000, video_size=2**18, video_factors=(512, 512), sound_codes=1024, sound_levels=4)
    assert paper.factors == (512, 512) and 290_000 < paper.size < 310_000
    assert len(paper.sound) == 4096


@pytest.mark.parametrize(
    "change",
    [
        {"text_size": 0},
        {"sound_levels": 0},
        {"video_factors": (8, 9)},
        {"video_factors": (1, 64)},
        {"sources": ("bos",)},
        {"sources": ("a",), "resolutions": ("a",)},
    ],
)
def test_impossible_sizes_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        replace(VOCABULARY, **change)


def test_strangers_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"0\.\.63"):
        VOCABULARY.video_ids(torch.tensor([64]))
    with pytest.raises(ShapeError, match="text"):
        VOCABULARY.own_text(VOCABULARY.video_ids(torch.tensor([3])))
    with pytest.raises(ShapeError, match="level"):
        VOCABULARY.own_sound(VOCABULARY.sound_ids(torch.zeros(2, 3, dtype=torch.long)).flip(0))
    with pytest.raises(ShapeError, match="levels"):
        VOCABULARY.sound_ids(torch.zeros(4, 3, dtype=torch.long))
    with pytest.raises(ShapeError, match="int64"):
        VOCABULARY.text_ids(torch.zeros(1))
    for call in (
        lambda: VOCABULARY.marker("bov"),
        lambda: VOCABULARY.task_id("smell"),
        lambda: VOCABULARY.range_named("smell"),
        lambda: VOCABULARY.sound_level(3),
        lambda: VOCABULARY.allowed(replace(VOCABULARY, sound_codes=9).sound),
    ):
        with pytest.raises(UsageError):
            call()

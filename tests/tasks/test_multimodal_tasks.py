"""Every task's sequence, written out; ids go in and come out again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kinolex.errors import ShapeError, UsageError
from kinolex.masks import HIDDEN
from kinolex.sequences import SOUND_ORDERS, SoundOrder
from kinolex.tasks.multimodal import TASKS, Material, Modality, Sequence, compose, outcome, task_named
from kinolex.vocab import MARKERS, OUTPUTS, Vocabulary

VOCABULARY = Vocabulary(
    text_size=10, video_size=20, sound_codes=8, sound_levels=2, sources=("worlds",), resolutions=("wide",)
)
MATERIAL = Material(
    text_P=torch.tensor([3, 1]),
    video_thw=torch.tensor([[[0, 1]], [[2, 3]], [[4, 5]]]),
    masked_thw=torch.tensor([[[0, HIDDEN]], [[2, HIDDEN]], [[4, HIDDEN]]]),
    structure_thw=torch.tensor([[[10, 11]], [[12, 13]], [[14, 15]]]),
    sound_Qt=torch.tensor([[0, 1, 2], [5, 6, 7]]),
)

GOLDEN = {
    "unconditional": "bos video > video_out_begin [v0 v1 v2 v3 v4 v5] video_out_end eos",
    "text-to-image": "bos video text_begin t3 t1 text_end > video_out_begin [v0 v1]",
    "text-to-video": ("bos video text_begin t3 t1 text_end > video_out_begin [v0 v1 v2 v3 v4 v5] video_out_end eos"),
    "image-to-video": (
        "bos video text_begin t3 t1 text_end video_in_begin v0 v1 video_in_end > "
        "video_out_begin [v2 v3 v4 v5] video_out_end eos"
    ),
    "inpainting": (
        "bos video text_begin t3 t1 text_end video_in_begin v0 hidden v2 hidden v4 hidden video_in_end > "
        "video_out_begin [v0 v1 v2 v3 v4 v5] video_out_end eos"
    ),
    "stylisation": (
        "bos video text_begin t3 t1 text_end video_in_begin v10 v11 v12 v13 v14 v15 video_in_end > "
        "video_out_begin [v0 v1 v2 v3 v4 v5] video_out_end eos"
    ),
    "video-to-sound": (
        "bos sound text_begin t3 t1 text_end video_in_begin v0 v1 v2 v3 v4 v5 video_in_end > "
        "sound_out_begin [s0.0 s0.1 s0.2 s1.5 s1.6 s1.7] sound_out_end eos"
    ),
    "sound-to-video": (
        "bos video text_begin t3 t1 text_end sound_in_begin s0.0 s0.1 s0.2 s1.5 s1.6 s1.7 sound_in_end > "
        "video_out_begin [v0 v1 v2 v3 v4 v5] video_out_end eos"
    ),
    "continuation": (
        "bos video-and-sound text_begin t3 t1 text_end video_in_begin v0 v1 video_in_end "
        "sound_in_begin s0.0 s1.5 sound_in_end > video_out_begin [v2 v3 v4 v5] video_out_end "
        "sound_out_begin [s0.1 s0.2 s1.6 s1.7] sound_out_end eos"
    ),
    "text-to-both": (
        "bos video-and-sound text_begin t3 t1 text_end > video_out_begin [v0 v1 v2 v3 v4 v5] video_out_end "
        "sound_out_begin [s0.0 s0.1 s0.2 s1.5 s1.6 s1.7] sound_out_end eos"
    ),
    "describe": (
        "bos text video_in_begin v0 v1 v2 v3 v4 v5 video_in_end sound_in_begin s0.0 s0.1 s0.2 s1.5 s1.6 s1.7 "
        "sound_in_end > text_begin [t3 t1 text_end] eos"
    ),
}
GOLDEN["future-prediction"], GOLDEN["outpainting"] = GOLDEN["image-to-video"], GOLDEN["inpainting"]


def spelled(token: int) -> str:
    v = VOCABULARY
    names = [*MARKERS, *v.sources, *v.resolutions, *OUTPUTS]
    if token == HIDDEN:
        return "?"
    if token in v.text:
        return f"t{token - v.text.start}"
    if token in v.video:
        return f"v{token - v.video.start}"
    if token in v.sound:
        return "s{}.{}".format(*divmod(token - v.sound.start, v.sound_codes))
    return names[token]


def written(sequence: Sequence) -> str:
    """Input, an arrow, output; what is sampled in brackets."""
    words, role = [], "input"
    for span in sequence.layout.spans():
        ids = " ".join(spelled(token) for token in sequence.ids_L[span.start : span.stop].tolist())
        words += [">"] if span.segment.role != role else []
        words.append(f"[{ids}]" if span.segment.sampled else ids)
        role = span.segment.role
    return " ".join(words)


def composed(
    name: str,
    material: Material = MATERIAL,
    *,
    text_length: int | None = None,
    order: SoundOrder = "levels",
    drop: Collection[Modality] = (),
) -> Sequence:
    return compose(TASKS[name], material, VOCABULARY, text_length=text_length, order=order, drop=drop)


@pytest.mark.parametrize("name", TASKS)
def test_the_sequence_of_a_task_is_as_written(name: str) -> None:
    assert written(composed(name)) == GOLDEN[name]


@pytest.mark.parametrize("name", TASKS)
def test_the_prefix_ends_where_the_first_token_is_made(name: str) -> None:
    sequence = composed(name)
    (first, *_), layout = tuple(sequence.layout.outputs()), sequence.layout
    assert layout.prefix == first.start and len(sequence.ids_L) == layout.length
    words = GOLDEN[name].replace("[", "[ ").split()
    assert words.index("[") - 1 == layout.prefix  # the arrow is no token


def test_texts_are_padded_and_what_is_absent_leaves_no_marker() -> None:
    padded = composed("text-to-image", text_length=4)
    assert written(padded) == "bos video text_begin t3 t1 pad pad text_end > video_out_begin [v0 v1]"
    silent = replace(MATERIAL, text_P=None, sound_Qt=None)
    assert written(composed("describe", silent, text_length=3)).endswith("video_in_end > text_begin [? ? ?] eos")
    assert "text_begin" not in written(composed("inpainting", silent))
    assert written(composed("describe", text_length=4)).endswith("[t3 t1 text_end pad] eos")


def test_sources_and_sizes_stand_before_the_output() -> None:
    marked = written(composed("text-to-image", replace(MATERIAL, source="worlds", resolution="wide")))
    assert marked == "bos video text_begin t3 t1 text_end worlds wide > video_out_begin [v0 v1]"


def test_without_its_text_a_task_is_the_unconditional_one() -> None:
    assert written(composed("text-to-video", drop=("text",))) == GOLDEN["unconditional"]


def test_a_clip_of_hidden_tokens_is_a_size() -> None:
    unknown = replace(MATERIAL, video_thw=torch.full((2, 1, 2), HIDDEN), sound_Qt=torch.full((2, 2), HIDDEN))
    ids = "bos video-and-sound text_begin t3 t1 text_end > video_out_begin [? ? ? ?] video_out_end "
    assert written(composed("text-to-both", unknown)) == ids + "sound_out_begin [? ? ? ?] sound_out_end eos"
    with pytest.raises(ShapeError, match="hidden"):
        composed("video-to-sound", unknown)


def test_what_goes_on_knows_how_much_came_before() -> None:
    layout = composed("continuation", replace(MATERIAL, given_latents=2, given_sound=2, begins=False)).layout
    video, sound = (span.segment for span in layout.outputs())
    assert (video.grid, video.start, video.begins) == ((1, 1, 2), 2, False)
    assert (sound.grid, sound.start) == ((2, 1), 2)


@pytest.mark.parametrize("order", SOUND_ORDERS)
@pytest.mark.parametrize("name", TASKS)
def test_what_was_made_comes_out_as_it_went_in(name: str, order: SoundOrder) -> None:
    sequence = composed(name, text_length=4, order=order)
    made = outcome(sequence.layout, sequence.ids_L, VOCABULARY)
    wanted: dict[str, Tensor] = {"text": MATERIAL.text_P, "sound": MATERIAL.sound_Qt, "clip": MATERIAL.video_thw}  # type: ignore[dict-item]
    wanted |= {"image": wanted["clip"][:1], "rest-of-clip": wanted["clip"][1:], "rest-of-sound": wanted["sound"][:, 1:]}
    found = [part for part in (made.text_P, made.video_thw, made.sound_Qt) if part is not None]
    assert len(found) == len(TASKS[name].asked)
    for asked in TASKS[name].asked:
        assert any(torch.equal(part, wanted[asked]) for part in found), asked


def test_ids_in_a_foreign_place_are_refused_when_read() -> None:
    sequence = composed("video-to-sound")
    ids_L = sequence.ids_L.clone()
    ids_L[sequence.layout.prefix] = VOCABULARY.video.start
    with pytest.raises(ShapeError, match="sound"):
        outcome(sequence.layout, ids_L, VOCABULARY)
    with pytest.raises(ShapeError, match="tokens"):
        outcome(sequence.layout, ids_L[1:], VOCABULARY)


@pytest.mark.parametrize(
    ("name", "material", "error", "match"),
    [
        ("text-to-video", replace(MATERIAL, text_P=None), UsageError, "needs text"),
        ("stylisation", replace(MATERIAL, structure_thw=None), UsageError, "structure clip"),
        ("text-to-video", replace(MATERIAL, text_P=torch.tensor([10])), ShapeError, r"0\.\.9"),
        ("text-to-video", replace(MATERIAL, text_P=torch.arange(5)), UsageError, "4 places"),
        ("image-to-video", replace(MATERIAL, given_latents=3), ShapeError, "3 latent frames"),
        ("continuation", replace(MATERIAL, given_sound=0), ShapeError, "0 frames of sound"),
        ("video-to-sound", replace(MATERIAL, video_thw=torch.arange(4)), ShapeError, "3 axes"),
        ("text-to-image", replace(MATERIAL, source="moon"), UsageError, "moon"),
    ],
)
def test_what_cannot_be_asked_is_refused(name: str, material: Material, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        composed(name, material, text_length=4)
    with pytest.raises(UsageError, match="text-to-smell"):
        task_named("text-to-smell")

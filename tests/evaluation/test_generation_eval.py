"""Generators measured: the protocol, what needs no network, and the whole evaluation on a tiny network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from kinolex.data import worlds
from kinolex.data.worlds.scene import describe, draw_scene
from kinolex.errors import UsageError
from kinolex.evaluation import GenerationProtocol, evaluate_generation
from kinolex.evaluation.generation import trivial
from kinolex.generation import GenerateConfig, MaskedGenerator
from kinolex.tasks.base import Posed
from kinolex.tasks.video import TASKS
from kinolex.types import Clip, Tokens

pytestmark = pytest.mark.filterwarnings("ignore::kinolex.metrics.distribution.FewSamplesWarning")


def _world(frames: int = 9, side: int = 32) -> Clip:
    return worlds.render(3, worlds.WorldConfig(frames=frames, height=side, width=side)).clip


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.gives_pixels])
def test_what_needs_no_network_keeps_the_given_and_uses_nothing_else(name: str) -> None:
    clip, task = _world(), TASKS[name]
    known_THW = task.region(*clip.frames_TCHW[:, 0].shape, 1)
    other_TCHW = torch.where(known_THW[:, None], clip.frames_TCHW, 255 - clip.frames_TCHW)

    made = trivial(clip, known_THW, task.fill).frames_TCHW
    from_other = trivial(Clip(other_TCHW, clip.fps), known_THW, task.fill).frames_TCHW

    kept_TCHW = known_THW[:, None].expand_as(made)
    assert torch.equal(made[kept_TCHW], clip.frames_TCHW[kept_TCHW])
    assert torch.equal(made, from_other)


def test_nearest_pixels_of_the_row_stand_in_for_a_missing_box() -> None:
    ramp_TCHW = torch.arange(16, dtype=torch.uint8).expand(1, 3, 4, 16).contiguous()
    known_THW = torch.ones(1, 4, 16, dtype=torch.bool)
    known_THW[:, :, 4:10] = False

    row = trivial(Clip(ramp_TCHW, worlds.WorldConfig().fps), known_THW, "zero").frames_TCHW[0, 0, 0].tolist()

    assert row == [0, 1, 2, 3, 3, 3, 3, 10, 10, 10, 10, 11, 12, 13, 14, 15]


def test_worlds_are_measured_by_themselves() -> None:
    with pytest.raises(UsageError, match="by themselves"):
        GenerationProtocol(sets=("worlds", "clips"))


def test_protocols_that_draw_otherwise_have_other_hashes() -> None:
    assert GenerationProtocol().hash != GenerationProtocol(steps=8).hash
    assert GenerationProtocol().hash == GenerationProtocol().hash


def test_natural_clips_need_a_folder(tiny_generator: MaskedGenerator) -> None:
    with pytest.raises(UsageError, match="--data"):
        evaluate_generation(tiny_generator, None, GenerationProtocol(tasks=("inpaint-central",)))


def test_an_evaluation_on_worlds_leaves_figures_distances_and_a_page(
    tiny_generator: MaskedGenerator, tmp_path: Path
) -> None:
    protocol = GenerationProtocol(
        sets=("worlds",), tasks=("inpaint-central",), side=32, frames=9, worlds=3, captions=0, steps=2
    )

    result = evaluate_generation(tiny_generator, None, protocol, tmp_path, name="tiny", command="test")

    stored = json.loads((tmp_path / "tiny.json").read_text())
    assert stored["protocol_hash"] == protocol.hash and stored["n"] == 3
    task = result["tasks"]["inpaint-central"]
    assert task["mean"]["ceiling_psnr_db"]["mean"] == pytest.approx(
        sum(row["ceiling_psnr_db"] for row in result["clips"]) / 3
    )
    assert {one["of"] for one in task["distances"]} == {"made", "trivial_through_tokenizer", "ceiling"}
    assert all(one["value"] >= 0 for one in task["distances"])
    # What is put back is the clip's own, so it can only be nearer than what random weights made.
    assert task["mean"]["put_back_psnr_db"]["mean"] > task["mean"]["psnr_db"]["mean"]
    page = (tmp_path / "tiny.html").read_text()
    assert "inpaint-central" in page and page.count("data:image/webp") == 9


def test_the_same_seed_gives_the_same_figures(tiny_generator: MaskedGenerator) -> None:
    protocol = GenerationProtocol(
        sets=("worlds",), tasks=("outpaint-central",), side=32, frames=9, worlds=2, captions=0, steps=2
    )
    first, second = (evaluate_generation(tiny_generator, None, protocol)["clips"] for _ in range(2))
    assert first == second


def test_captions_ask_in_words_that_captions_of_one_body_have(
    tiny_generator: MaskedGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def listen(self: MaskedGenerator, posed: Posed, config: GenerateConfig, *, text: str = "") -> Tokens:
        asked.extend([text] if text else [])
        return generate(self, posed, config)

    generate = MaskedGenerator.generate
    monkeypatch.setattr(MaskedGenerator, "generate", listen)
    protocol = GenerationProtocol(
        sets=("worlds",), tasks=("inpaint-central",), side=32, frames=9, worlds=2, captions=30, steps=1
    )
    evaluate_generation(tiny_generator, None, protocol)
    one_body = worlds.WorldConfig(max_bodies=1)
    known = {
        word
        for seed in range(400)
        for word in describe(draw_scene(seed, one_body), one_body.duration_s).replace(",", "").split()
    }
    assert len(asked) == 30 and {word for text in asked for word in text.split()} <= known
    assert protocol.caption_guidance > 0

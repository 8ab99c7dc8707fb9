"""Claims about VideoPoet's network: arms cost the same, rules are what they say, and a killed run goes on."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from kinolex.errors import ConfigError, UsageError
from kinolex.evaluation.protocol import read_result
from kinolex.models.multimodal import MultimodalTransformer
from kinolex.tasks.multimodal import TASKS
from kinolex.training.claims import model_scale, poet_lab, task_mix
from kinolex.training.claims.poet_claims import PoetClaim, reproduce_poets
from kinolex.training.claims.poet_lab import FIRST_HELD_OUT, MADE, PoetLab, figure_name, posed, rows_of
from kinolex.training.claims.poets import (
    ASKS,
    BARE,
    BOTH_LEARN,
    CAPTIONED,
    OF_WORDS,
    SCALES,
    SELF_SUPERVISED,
    WITH_WORDS,
    arm_flops,
    forward_flops,
    scale_named,
)
from kinolex.training.claims.rules import verdict
from kinolex.training.claims.standalone import STANDALONE
from kinolex.training.multimodal_draws import HIDES, Drawn
from kinolex.training.multimodal_run import MultimodalTrainer

CLAIMS = {claim.told.name: claim for claim in (task_mix.CLAIM, model_scale.CLAIM)}
TINY, NANO = SCALES["tiny"], SCALES["nano"]


# --- rules ---


def made_up(bits: dict[str, dict[str, float]], noise: float = 0.01) -> list[dict[str, object]]:
    """Three seeds that differ by much for all arms alike, and by `noise` for each alone; 1 bit unless told."""
    rows: list[dict[str, object]] = []
    for seed in range(3):
        for number, (arm, told) in enumerate(bits.items()):
            factor = (1 + seed) * (1 + noise * ((seed + number) % 3 - 1))
            names = {figure_name(ask.task, kind) for ask in ASKS for kind in ("all", "video", "sound", "text")}
            row = {name: factor * told.get(name.removeprefix("bits "), 1.0) for name in names}
            rows.append({"arm": arm, "seed": seed, MADE: factor} | row)
    return rows


def mixture(words: float, shared: float) -> list[dict[str, object]]:
    """Bits of the self-supervised network, of tasks of words and of those both learn; all tasks have 1 everywhere."""
    bare = {ask.task: words for ask in OF_WORDS} | {ask.task: shared for ask in BOTH_LEARN}
    return made_up({task_mix.ALL: {}, task_mix.BARE_ONLY: bare, task_mix.ONE: {}})


@pytest.mark.parametrize(
    ("words", "shared", "wanted"),
    [
        (1.3, 1.1, "pass"),
        (1.3, 0.95, "pass"),  # a little worse where both practised, better in all
        (1.1, 0.9, "inconclusive"),
        (1.1, 0.8, "fail"),
        (0.9, 1.3, "fail"),  # captions were of no use
        (1.0, 1.3, "inconclusive"),
    ],
)
def test_a_mixture_must_be_better_in_all_and_at_tasks_of_words(words: float, shared: float, wanted: str) -> None:
    assert verdict(task_mix.judge(mixture(words, shared))) == wanted


def test_what_both_practised_is_told_apart_from_the_verdict() -> None:
    told = task_mix.aside(mixture(1.3, 0.9))
    assert "both were trained for" in told[0].what and told[0].outcome == "contradicted"
    assert told[0].ratio == pytest.approx(0.9, rel=0.02)


@pytest.mark.parametrize(
    ("bits", "wanted"),
    [
        ((1.0, 0.9, 0.8), "pass"),
        ((1.0, 0.9, 0.9), "inconclusive"),
        ((1.0, 0.8, 0.9), "fail"),
    ],
)
def test_every_size_must_beat_the_one_before(bits: tuple[float, ...], wanted: str) -> None:
    names = [arm.name for arm in model_scale.arms(NANO)]
    rows = made_up(
        {name: {ask.task: value for ask in ASKS} for name, value in zip(names, bits, strict=True)}, noise=0.002
    )
    assert verdict(model_scale.judge(rows, names)) == wanted
    assert len(model_scale.aside(rows, names)) == 2 * (len(model_scale.KINDS) + 1)


# --- arms ---


@pytest.mark.parametrize("scale", ["nano", "small"])
def test_mixtures_cost_the_same_and_differ_in_tasks_alone(scale: str) -> None:
    arms = task_mix.arms(scale_named(scale))
    costs = [arm_flops(arm.config) for arm in arms]
    assert min(costs) > 0 and max(costs) / min(costs) < 1.01
    base = arms[0].config
    for arm in arms[1:]:
        changed = replace(arm.config, sources=base.sources, stages=base.stages, save_every=base.save_every)
        assert changed == base
        assert all(
            replace(source, name="", tasks=base.sources[0].tasks) == replace(base.sources[0], name="")
            for source in arm.config.sources
        )


def test_sizes_see_the_same_steps_and_the_middle_one_is_the_mixture_of_all_tasks() -> None:
    arms = model_scale.arms(NANO)
    assert len({arm.config.steps for arm in arms}) == 1 and len(arms) >= 3
    assert all(replace(arm.config, network=arms[0].config.network) == arms[0].config for arm in arms)
    assert arms[1].config == task_mix.arms(NANO)[0].config
    costs = [arm_flops(arm.config) for arm in arms]
    assert costs == sorted(costs) and costs[0] < costs[-1]
    together = STANDALONE["task-mix"].costs("nano") | STANDALONE["scale"].costs("nano")
    assert len(together) == 3 + 3 - 1


def test_which_tasks_a_network_was_trained_for() -> None:
    everything, bare, one = task_mix.arms(NANO)
    assert all(everything.knows(ask) for ask in ASKS)
    assert [ask.task for ask in ASKS if not bare.knows(ask)] == ["describe"]
    assert [ask.task for ask in ASKS if one.knows(ask)] == ["text-to-both"]
    assert {task for task, _ in (*WITH_WORDS, *SELF_SUPERVISED)} == TASKS.keys()


def test_operations_are_those_that_torch_counts() -> None:
    config = model_scale.arms(TINY)[2].config.network
    with torch.device("meta"):
        model = MultimodalTransformer(config)
    for ask in ASKS:
        (sequence,) = posed(model, [some_clip(poet_lab.HIDDEN_BY.get(ask.task, ""))], ask, said=True)
        with FlopCounterMode(display=False) as counter:
            model(sequence.ids_L.to("meta")[None].repeat(50, 1), sequence.layout)
        assert forward_flops(config, sequence.layout) == pytest.approx(counter.get_total_flops() / 50, rel=0.03)


def some_clip(hidden_by: str) -> Drawn:
    video_thw, sound_Qt = torch.arange(12).view(3, 2, 2), torch.arange(76).view(2, 38)
    return Drawn(torch.tensor([1, 2]), video_thw, sound_Qt, video_thw, hidden_by)


def test_scales_that_cannot_tell_anything_are_refused() -> None:
    with pytest.raises(ConfigError, match="three seeds and three sizes"):
        replace(TINY, sizes=TINY.sizes[:2])
    with pytest.raises(ConfigError, match="one of every way to hide"):
        replace(TINY, eval_clips=4)
    with pytest.raises(UsageError, match="no scale 'huge'"):
        scale_named("huge")


# --- runs ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Claims that are tested in one folder share tokens and networks."""
    return tmp_path_factory.mktemp("poets")


@pytest.fixture
def lab(folder: Path) -> PoetLab:
    return PoetLab(TINY, folder)


def test_held_out_worlds_are_never_trained_on_and_have_every_part_hidden(lab: PoetLab) -> None:
    trained, held = lab.tokens
    assert (len(trained), len(held)) == (TINY.clips, TINY.eval_clips)
    seen = {tuple(clip.video_thw.flatten().tolist()) + tuple(clip.sound_Qt.flatten().tolist()) for clip in trained}
    kept = {tuple(clip.video_thw.flatten().tolist()) + tuple(clip.sound_Qt.flatten().tolist()) for clip in held}
    assert len(seen) == TINY.clips and not seen & kept
    assert max(scale.clips for scale in SCALES.values()) < FIRST_HELD_OUT
    assert {clip.hidden_by for clip in held} == {*HIDES}
    assert {clip.hidden_by for clip in trained} == {"", *HIDES}


def test_without_captions_no_word_is_given_or_made(lab: PoetLab, tmp_path: Path) -> None:
    for arm, kinds in zip(task_mix.arms(TINY), ({False, True}, {False}, {True}), strict=True):
        run = MultimodalTrainer(arm.config, lab.video, lab.sound, tmp_path / arm.name, drawn={"": []})
        clips = lab.tokens[0]
        drawn = {CAPTIONED: clips, BARE: [replace(clip, text_P=None) for clip in clips]}
        batches = [run.batch(step, drawn)[:2] for step in range(60)]
        assert {any(part.kind == "text" for part in layout.segments) for _, layout in batches} == kinds
    assert {task.name for task, _ in batches} == {"text-to-both"}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_tiny_run_goes_from_worlds_to_a_verdict_and_a_page(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, claim, told = time.process_time(), CLAIMS[name], list[str]()

    found = reproduce_poets(claim, TINY, folder, tmp_path, command=f"kinolex reproduce {name}", say=told.append)

    assert time.process_time() - began < 20
    assert read_result(tmp_path / f"reproduce_{name}.json") == json.loads(json.dumps(found))
    arms = claim.arms(TINY)
    assert found["verdict"] in ("pass", "fail", "inconclusive") and found["n"] == len(arms) * len(TINY.seeds)
    assert set(found["means"]) == set(found["training_flops"]) == {arm.name for arm in arms}
    for row in found["clips"]:
        assert all(math.isfinite(value) and value >= 0 for value in row.values() if isinstance(value, float))
        # What knows nothing pays the size of each range.
        assert row["video bits continuation"] == pytest.approx(12, abs=0.5)
        assert row["sound bits video-to-sound"] == pytest.approx(10, abs=0.5)
        assert row["video bits continuation"] > row["bits continuation"] > row["sound bits continuation"]
    # Other seeds and recipes make other networks; two steps may happen to be the same in two mixtures.
    assert len({row["bits continuation"] for row in found["clips"]}) > len(TINY.seeds)
    assert told and all(line.startswith(f"{name}: ") for line in told)
    page = (tmp_path / f"reproduce_{name}.html").read_text()
    assert found["verdict"] in page and "Told beside the verdict" in page
    monkeypatch.setattr(poet_lab, "MultimodalTrainer", None)  # a second run that trained would fail
    assert reproduce_poets(claim, TINY, folder)["clips"] == found["clips"]


def test_a_network_that_two_claims_train_is_trained_once(folder: Path) -> None:
    rows = [rows_of(claim.arms(TINY), TINY, folder) for claim in CLAIMS.values()]
    shared = {row["key"] for row in rows[0]} & {row["key"] for row in rows[1]}
    assert len(shared) == len(TINY.seeds)
    assert len({row["key"] for found in rows for row in found}) == 5 * len(TINY.seeds)


def test_a_killed_run_keeps_its_rows_and_workers_make_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, measured, whole = task_mix.CLAIM, list[str](), PoetLab.measured
    (tmp_path / "poets-tiny").mkdir()
    lab = PoetLab(TINY, folder)
    _ = lab.tokens  # drawn, whichever test comes first
    (tmp_path / "poets-tiny" / "tokens").symlink_to(lab.folder / "tokens")

    def killed(lab: PoetLab, arm: object, seed: int) -> dict[str, object]:
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append("one")
        return whole(lab, arm, seed)  # type: ignore[arg-type]

    monkeypatch.setattr(PoetLab, "measured", killed)
    with pytest.raises(KeyboardInterrupt):
        reproduce_poets(claim, TINY, tmp_path)
    kept = (tmp_path / "poets-tiny" / "rows.jsonl").read_text()
    assert len(kept.splitlines()) == 2
    monkeypatch.undo()

    resumed = reproduce_poets(claim, TINY, tmp_path, workers=2)

    assert (tmp_path / "poets-tiny" / "rows.jsonl").read_text().startswith(kept)
    straight = reproduce_poets(claim, TINY, folder)
    assert resumed["findings"] == straight["findings"] and resumed["protocol_hash"] == straight["protocol_hash"]
    seconds = ("train_seconds", "measure_seconds")
    for one, other in zip(resumed["clips"], straight["clips"], strict=True):
        assert {key: one[key] for key in one if key not in seconds} == {
            key: other[key] for key in other if key not in seconds
        }


def test_the_table_of_claims_with_scales_of_their_own_is_complete() -> None:
    assert set(CLAIMS) <= set(STANDALONE)
    assert all(claim.name == name and claim.statement for name, claim in STANDALONE.items())
    assert isinstance(CLAIMS["scale"], PoetClaim) and sum(STANDALONE["scale"].costs("nano").values()) > 1e12

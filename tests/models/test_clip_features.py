"""Clip features: any size and length, saved and loaded, training that resumes, and what the shipped network knows."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from kinolex import checkpoint, hub
from kinolex.data.worlds.labels import CLASSES, UNASKED, labelled
from kinolex.data.worlds.scene import WorldConfig, draw_scene
from kinolex.errors import CheckpointError, ConfigError, ShapeError, UsageError
from kinolex.evaluation.clip_features import accuracy
from kinolex.evaluation.through import through
from kinolex.models.clip_features import ClipFeatures, ClipFeaturesConfig
from kinolex.training.clip_features_data import HEADS, ORDERS, WorldSet, draw
from kinolex.training.clip_features_run import ClipFeaturesTrainConfig, ClipFeaturesTrainer
from kinolex.training.recipes import train_from_recipe
from kinolex.types import Clip

TINY = ClipFeaturesConfig(widths=(8, 8), blocks=(1, 1), dim=6, heads=HEADS)


@pytest.fixture(scope="module")
def tiny() -> ClipFeatures:
    torch.manual_seed(0)
    return ClipFeatures(TINY).eval().requires_grad_(False)


@pytest.mark.parametrize("shape", [(1, 3, 4, 64, 64), (2, 3, 17, 128, 96), (2, 3, 9, 32, 40), (1, 3, 41, 64, 64)])
def test_any_size_and_length_gives_one_vector_per_clip(tiny: ClipFeatures, shape: tuple[int, ...]) -> None:
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    features_BD = tiny(pixels)
    assert features_BD.shape == (shape[0], 6) and features_BD.dtype == torch.float32
    answers = tiny.heads(features_BD)
    assert {name: answer.shape[1] for name, answer in answers.items()} == dict(HEADS)
    # The last frame counts, also in long clips.
    changed = pixels.clone()
    changed[:, :, -1] *= -1
    assert not torch.equal(tiny(changed), features_BD)


def test_long_clips_are_the_mean_of_their_windows(tiny: ClipFeatures) -> None:
    pixels = torch.rand((1, 3, 34, 64, 64), generator=torch.Generator().manual_seed(1)) * 2 - 1
    windows = [tiny(pixels[:, :, :17]), tiny(pixels[:, :, 17:])]
    torch.testing.assert_close(tiny(pixels), torch.stack(windows).mean(dim=0))


def test_the_order_of_frames_matters_to_an_untrained_network(tiny: ClipFeatures) -> None:
    frames = labelled(3, WorldConfig())[0]
    pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    assert float((tiny(pixels.flip(2)) - tiny(pixels)).abs().max()) > 1e-4


def test_what_is_no_clip_is_refused(tiny: ClipFeatures) -> None:
    for shape in ((3, 17, 64, 64), (1, 1, 17, 64, 64), (1, 3, 3, 64, 64)):
        with pytest.raises(ShapeError, match="at least 4 frames"):
            tiny(torch.zeros(shape))
    with pytest.raises(ConfigError, match="every stage"):
        ClipFeaturesConfig(widths=(8,), blocks=(1, 1), dim=4, heads=())
    with pytest.raises(ConfigError, match="different plain names"):
        ClipFeaturesConfig(widths=(8,), blocks=(1,), dim=4, heads=(("a.b", 2),))
    with pytest.raises(ConfigError, match="labels for"):
        ClipFeaturesTrainConfig(model=replace(TINY, heads=(("action", 5),)), worlds=1, steps=1)


def test_a_saved_network_answers_the_same_and_is_no_tokenizer(tiny: ClipFeatures, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "f", tiny, card="")
    pixels = torch.rand((1, 3, 5, 64, 64), generator=torch.Generator().manual_seed(2))
    assert torch.equal(hub.load_clip_features(tmp_path / "f")(pixels), tiny(pixels))
    with pytest.raises(CheckpointError, match=r"\(clip features\), which is no tokenizer"):
        checkpoint.load(tmp_path / "f")
    path = tmp_path / "f" / "config.json"
    described = json.loads(path.read_text())
    described["config"]["blocks"] = [10**9, 1]
    weights = checkpoint._read_weights(tmp_path / "f" / "model.safetensors")
    described["fingerprint"] = checkpoint.fingerprint(described["config"], weights)
    path.write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match="asks for 10000000"):
        hub.load_clip_features(tmp_path / "f")


def test_labels_are_those_of_the_scene() -> None:
    config = WorldConfig()
    asked = 0
    for seed in range(40):
        scene, labels = draw_scene(seed, config), labelled(seed, config)[1]
        assert CLASSES["action"][labels.classes["action"]] == scene.action
        assert CLASSES["backdrop"][labels.classes["backdrop"]] == scene.backdrop
        assert labels.classes["number"] == len(scene.bodies) - 1
        largest = max(scene.bodies, key=lambda body: body.radius)
        if labels.classes["shape"] != UNASKED:
            asked += 1
            for name in ("shape", "colour", "size"):
                assert CLASSES[name][labels.classes[name]] == getattr(largest, name)
    assert 20 < asked < 40


def test_batches_are_a_function_of_the_step_and_break_what_they_say() -> None:
    worlds = WorldSet(range(12))
    one, again, other = draw(worlds, 16, 0, 5), draw(worlds, 16, 0, 5), draw(worlds, 16, 0, 6)
    assert torch.equal(one.pixels_BCTHW, again.pixels_BCTHW)
    assert one.pixels_BCTHW.shape != other.pixels_BCTHW.shape or not torch.equal(one.pixels_BCTHW, other.pixels_BCTHW)
    orders = torch.cat([draw(worlds, 32, 0, step).classes["order"] for step in range(4)])
    assert set(orders.tolist()) == set(range(len(ORDERS)))
    assert torch.equal(one.classes["action"] == UNASKED, ~one.intact_B)
    assert float(one.pixels_BCTHW.abs().max()) <= 1.0


RECIPE = """
from kinolex.models.clip_features import ClipFeaturesConfig
from kinolex.training.clip_features_data import HEADS
from kinolex.training.clip_features_run import ClipFeaturesTrainConfig

def config():
    model = ClipFeaturesConfig(widths=(8, 8), blocks=(1, 1), dim=6, heads=HEADS)
    return ClipFeaturesTrainConfig(model=model, worlds=6, steps=4, batch=4, save_every=2)
"""


def test_training_by_recipe_resumes_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tmp_path / "recipe.py"
    recipe.write_text(RECIPE)
    whole = train_from_recipe(recipe, tmp_path, tmp_path / "whole")
    step, done = ClipFeaturesTrainer._step, []

    def until_third(self, *arguments):  # type: ignore[no-untyped-def]
        if len(done) == 3:
            raise RuntimeError("power cut")
        done.append(arguments)
        return step(self, *arguments)

    monkeypatch.setattr(ClipFeaturesTrainer, "_step", until_third)
    with pytest.raises(RuntimeError, match="power cut"):
        train_from_recipe(recipe, tmp_path, tmp_path / "cut")
    monkeypatch.setattr(ClipFeaturesTrainer, "_step", step)
    resumed = train_from_recipe(recipe, tmp_path, tmp_path / "cut")
    ours, theirs = (hub.load_clip_features(folder).state_dict() for folder in (whole, resumed))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    start = ClipFeaturesTrainer(ClipFeaturesTrainConfig(model=TINY, worlds=6, steps=4), tmp_path / "fresh")
    assert not all(torch.equal(ours[name], value) for name, value in start.average.state_dict().items())
    with pytest.raises(CheckpointError, match="another recipe"):
        ClipFeaturesTrainer(ClipFeaturesTrainConfig(model=TINY, worlds=7, steps=4), tmp_path / "whole")
    with pytest.raises(UsageError, match="from scratch"):
        train_from_recipe(recipe, tmp_path, tmp_path / "other", init=whole)


def test_the_shipped_network_reads_unseen_worlds() -> None:
    """Far above chance, a little below what its card says (there: 500 worlds)."""
    pairs = [labelled(seed, WorldConfig()) for seed in range(8_000_000, 8_000_050)]
    found = accuracy(hub.load_clip_features(), np.stack([frames for frames, _ in pairs]), [label for _, label in pairs])
    least = {"action": 0.9, "colour": 0.85, "size": 0.65, "number": 0.9, "backdrop": 0.7, "intact_found": 0.85}
    assert all(found[name] >= value for name, value in least.items()), found
    assert found["velocity_error"] < 0.12
    assert found["shuffled_found"] > 1.5 * (1 - found["intact_found"]), found


@pytest.mark.parametrize("name", ["magvit-nano", "magvit2-nano"])
def test_many_clips_at_once_go_through_a_tokenizer_as_they_do_alone(name: str) -> None:
    tokenizer = hub.load(name)
    frames_NTHWC = np.stack([labelled(seed, WorldConfig(height=32, width=32))[0] for seed in range(2)])
    decoded_NTHWC = through(tokenizer, frames_NTHWC)
    for frames_THWC, decoded_THWC in zip(frames_NTHWC, decoded_NTHWC, strict=True):
        clip = Clip(torch.from_numpy(frames_THWC).permute(0, 3, 1, 2).contiguous(), Fraction(24))
        alone_THWC = tokenizer.decode(tokenizer.encode(clip)).frames_TCHW.permute(0, 2, 3, 1).numpy()
        difference = np.abs(alone_THWC.astype(int) - decoded_THWC)
        assert difference.mean() < 0.05 * np.abs(alone_THWC.astype(int) - frames_THWC).mean()


def test_the_shipped_network_is_small_and_listed_apart() -> None:
    folder = hub.PRETRAINED / hub.CLIP_FEATURES
    assert hub.CLIP_FEATURES in hub.shipped(checkpoint.CLIP_FEATURES) and hub.CLIP_FEATURES not in hub.shipped()
    assert (folder / "model.safetensors").stat().st_size <= 2 * 2**20
    assert len((folder / "README.md").read_text()) > 400

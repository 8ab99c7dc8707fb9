"""The loop of all trainers: one step at least, back to a saved state, another run refused; and what recipes refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from kinolex.errors import CheckpointError, UsageError
from kinolex.training import recipes
from kinolex.training.config import OptimizerConfig
from kinolex.training.loop import NetworkLoop, Taken, begun, deadline, recipe_hash
from kinolex.training.optimizer import Optimizers


class Model(nn.Module):
    """A matrix for Muon and a bias for Adam."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(3, 2))


def loop_in(folder: Path, steps: int = 6, config_hash: str = "one") -> NetworkLoop[Model]:
    torch.manual_seed(0)
    model = Model()
    optimizers = Optimizers(model, OptimizerConfig(warmup_steps=1), steps)
    return NetworkLoop(folder, model, optimizers, config_hash=config_hash, save_every=2)


def learn(loop: NetworkLoop[Model], step: int) -> Taken:
    torch.manual_seed(step)
    loss = loop.model.blocks(torch.randn(4, 3)).square().mean()
    loss.backward()
    return {"loss": float(loss.detach()), "gradient_norm": loop.update(step)}, None


def test_however_late_it_is_a_step_is_taken_and_calls_add_up_to_the_straight_run(tmp_path: Path) -> None:
    straight = loop_in(tmp_path / "straight")
    straight.go(lambda step: learn(straight, step), deadline(None))
    assert not begun(tmp_path / "cut")
    for done in range(1, 7):
        cut = loop_in(tmp_path / "cut")
        cut.go(lambda step, cut=cut: learn(cut, step), deadline(0.0))
        assert cut.counters.step == done and begun(tmp_path / "cut")
    for ours, theirs in ((cut.model, straight.model), (cut.average, straight.average)):
        assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
    assert not torch.equal(straight.model.blocks[0].weight, straight.average.blocks[0].weight)


def test_a_finished_run_takes_no_step_and_writes_nothing(tmp_path: Path) -> None:
    loop = loop_in(tmp_path, steps=1)
    loop.go(lambda step: learn(loop, step), deadline(None))
    for path in tmp_path.iterdir():
        path.unlink()
    loop.go(lambda _step: pytest.fail("a step was taken"), deadline(None))
    assert not list(tmp_path.iterdir())


def test_a_step_may_go_back_to_the_state_saved_last(tmp_path: Path) -> None:
    loop, seen = loop_in(tmp_path), list[int]()

    def once_back(step: int) -> Taken | None:
        seen.append(step)
        if seen.count(3) == 1 and step == 3:
            loop.load()
            return None
        return learn(loop, step)

    loop.go(once_back, deadline(None))
    assert seen == [0, 1, 2, 3, 2, 3, 4, 5]


def test_gradients_that_are_not_finite_move_nothing_and_are_counted(tmp_path: Path) -> None:
    loop = loop_in(tmp_path)
    before = loop.model.blocks[0].weight.detach().clone()
    (loop.model.blocks(torch.full((1, 3), float("inf"))).sum()).backward()
    loop.update(0)
    assert (
        loop.counters.skipped == 1
        and torch.equal(loop.model.blocks[0].weight, before)
        and loop.model.blocks[0].weight.grad is None
    )


def test_a_state_of_another_hash_is_refused(tmp_path: Path) -> None:
    loop_in(tmp_path).save()
    with pytest.raises(CheckpointError, match="holds a run of another recipe; give another --out"):
        loop_in(tmp_path, config_hash="other")
    assert recipe_hash({"a": 1}) != recipe_hash({"a": 1}, "text") != recipe_hash({"a": 1}, "texts")


@pytest.mark.parametrize("config", recipes.KINDS, ids=lambda config: config.__name__)
def test_what_a_kind_of_recipe_has_no_use_for_is_refused_before_anything_is_made(
    config: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "load_recipe", lambda _path: object.__new__(config))
    refuses = recipes.KINDS[config].refuses
    assert ("processes" in refuses) == (config is not recipes.TrainConfig)  # these alone train in several
    for what in refuses:
        asked = {"device": {"device": "cuda"}, "init": {"init": "magvit2-nano"}, "processes": {}}[what]
        monkeypatch.setenv("WORLD_SIZE", "2" if what == "processes" else "1")
        with pytest.raises(UsageError) as refused:
            recipes.train_from_recipe("recipe.py", tmp_path, tmp_path / "out", **asked)
        assert str(refused.value) == refuses[what]
    assert not (tmp_path / "out").exists()


def test_the_error_of_a_file_that_is_no_recipe_names_every_kind(tmp_path: Path) -> None:
    (tmp_path / "recipe.py").write_text("def config():\n    return 3\n")
    with pytest.raises(UsageError) as refused:
        recipes.load_recipe(tmp_path / "recipe.py")
    assert all(f"{config.__module__}.{config.__name__}" in str(refused.value) for config in recipes.KINDS)

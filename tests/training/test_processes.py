"""Two processes under torchrun's variables train to the weights of one process with the joined batch."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from test_resume import MODEL, RECURRENT, STAGES, tiny_config, tiny_pack

from kinolex import checkpoint
from kinolex.errors import CheckpointError, UsageError
from kinolex.tokenizers.networks import build_network
from kinolex.tokenizers.quantizers import FSQConfig
from kinolex.training.processes import joined
from kinolex.training.recipes import initial_model, train_from_recipe

RECIPE = """
import sys
sys.path.insert(0, {tests!r})
from test_processes import {function} as config
"""


def whole_config():
    """Four steps, the last two with a discriminator, and FSQ: the first codes of a VQ are drawn per process."""
    stages = [replace(stage, steps=2, batch_video=4, batch_image=2) for stage in STAGES]
    model = replace(MODEL, quantizer=FSQConfig(levels=(8, 5)))
    return replace(tiny_config(), model=model, stages=tuple(stages), data=("media",))


def recurrent_config():
    """Single images leave parts of a recurrent network unused."""
    stage = replace(STAGES[0], steps=2, batch_video=4, batch_image=2)
    return replace(tiny_config(), model=RECURRENT, stages=(stage,), data=("media",))


def prepare(folder: Path, function: str = "whole_config") -> Path:
    tiny_pack(folder)
    recipe = folder / "recipe.py"
    recipe.write_text(RECIPE.format(tests=str(Path(__file__).parent), function=function))
    return recipe


def worker(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    train_from_recipe(f"{folder}/recipe.py", folder, f"{folder}/two")


@pytest.mark.parametrize("function", ["whole_config", "recurrent_config"])
def test_two_processes_train_the_weights_of_one_with_the_joined_batch(tmp_path: Path, function: str) -> None:
    recipe = prepare(tmp_path, function)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(port, str(tmp_path)), nprocs=2)
    one = checkpoint.load(train_from_recipe(recipe, tmp_path, tmp_path / "one")).model.state_dict()
    two = checkpoint.load(tmp_path / "two" / "weights").model.state_dict()
    for name, value in one.items():
        assert torch.allclose(two[name], value, atol=2e-2, rtol=2e-2), name
    assert len((tmp_path / "two" / "log.jsonl").read_text().splitlines()) == 1  # only the first process writes


def test_training_starts_from_given_weights_and_refuses_another_architecture(tmp_path: Path) -> None:
    recipe = prepare(tmp_path)
    first = train_from_recipe(recipe, tmp_path, tmp_path / "first", cache=tmp_path / "packs")
    again = train_from_recipe(recipe, tmp_path, tmp_path / "again", cache=tmp_path / "packs", init=first)
    fresh, start, ended = (checkpoint.load(folder).model.state_dict() for folder in (first, first, again))
    assert any(not torch.equal(fresh[name], ended[name]) for name in fresh)
    far = sum(float((start[name] - ended[name]).square().sum()) for name in start)
    random = checkpoint.load(first).model.__class__(whole_config().model).state_dict()
    assert far < 0.5 * sum(float((random[name] - ended[name]).square().sum()) for name in random)
    with pytest.raises(CheckpointError, match=r"another architecture.*fold is 4, not 2"):
        train_from_recipe(recipe, tmp_path, tmp_path / "other", cache=tmp_path / "packs", init="magvit2-nano")
    with pytest.raises(CheckpointError, match="kind is RecurrentConfig, not AutoencoderConfig"):
        train_from_recipe(recipe, tmp_path, tmp_path / "other", cache=tmp_path / "packs", init="video-nano")
    with pytest.raises(UsageError, match="must be positive, got -1"):
        train_from_recipe(recipe, tmp_path, tmp_path / "other", minutes=-1)


def test_several_processes_cannot_share_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="give --device cuda"), joined("cuda:0"):
        pass


def test_training_takes_from_weights_of_another_architecture_what_fits(tmp_path: Path) -> None:
    config = whole_config()
    given = build_network(config.model)
    checkpoint.save(tmp_path / "given", given, card="")
    deeper = replace(config.model, encoder_blocks=tuple(blocks + 1 for blocks in config.model.encoder_blocks))
    started = initial_model(replace(config, model=deeper, init_what_fits=True), tmp_path / "given")
    ours, theirs = started.state_dict(), given.state_dict()

    assert started.config == deeper and len(ours) > len(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    with pytest.raises(CheckpointError, match=r"only \d+% of the recipe's network"):
        initial_model(replace(config, init_what_fits=True), "magvit2-nano")

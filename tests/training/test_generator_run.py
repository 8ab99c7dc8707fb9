"""A masked generator is trained as COMMIT says, and can be killed and continued at any time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from kinolex import checkpoint, hub
from kinolex.data import worlds
from kinolex.data.worlds.scene import WorldConfig, describe, draw_scene
from kinolex.errors import CheckpointError, ConfigError, UsageError
from kinolex.generation.windows import MaskedGenerator
from kinolex.masks import HIDDEN
from kinolex.models.masked import MaskedConfig, MaskedTransformer
from kinolex.tasks.video import FREE_FORM, TASK_NAMES
from kinolex.tasks.words import word_ids
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training import recipes, token_draws
from kinolex.training.config import OptimizerConfig
from kinolex.training.generator_run import DERIVED_TASKS, GeneratorTrainConfig, GeneratorTrainer, Window
from kinolex.training.token_draws import ENCODED_TASKS, DrawSource, draw, draw_shard, shard_paths

ROOT = Path(__file__).resolve().parents[2]
CLIPS = 3
WORLDS = recipes.load_recipe(ROOT / "recipes" / "masked_world_nano.py")
assert isinstance(WORLDS, GeneratorTrainConfig)
SOURCE = DrawSource(name="worlds", clips=CLIPS, crop=32, batch=2, share=1.0, max_bodies=2)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_draws, "SHARD", CLIPS)


def tiny_config(tokenizer: Path | str, **changes: object) -> GeneratorTrainConfig:
    network = MaskedConfig(
        tokenizer="",
        factors=(8, 8),
        width=32,
        depth=2,
        heads=2,
        tasks=TASK_NAMES,
        words=WORLDS.network.words,
        max_words=16,
        latent_frames=3,
        dropout=0.1,
    )
    settings: dict[str, object] = {
        "tokenizer": str(tokenizer),
        "network": network,
        "sources": (SOURCE,),
        "steps": 6,
        "clip_latents": 5,
        "optimizer": OptimizerConfig(muon_lr=0.02, adam_lr=5e-3, ema_decay=0.9, warmup_steps=2),
        "save_every": 2,
    }
    return GeneratorTrainConfig(**(settings | changes))  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path, tiny_tokenizer: VideoTokenizer) -> Path:
    """A tokenizer to draw with."""
    checkpoint.save(tmp_path / "tokenizer", tiny_tokenizer.model, card="")
    return tmp_path


def trainer_in(folder: Path, out: str, **changes: object) -> GeneratorTrainer:
    """A trainer whose tokens are drawn already, in this process."""
    config = tiny_config(folder / "tokenizer", **changes)
    trainer = GeneratorTrainer(config, hub.load(config.tokenizer), {}, folder / out)
    drawn = folder / f"drawn-{config.seed}.safetensors"
    if not drawn.is_file():
        draw_shard(trainer.plan, SOURCE, [], 0, drawn)
    (shard,) = shard_paths(trainer.plan, SOURCE, folder / out / "tokens" / trainer.network.tokenizer[:12])
    shard.parent.mkdir(parents=True, exist_ok=True)
    shard.write_bytes(drawn.read_bytes())
    return trainer


def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(folder: Path) -> None:
    straight = trainer_in(folder, "straight")
    straight.run()
    killed = trainer_in(folder, "killed")
    honest = killed._step

    def dies(step: int, drawn: dict[str, list[token_draws.Drawn]]) -> dict[str, float]:
        if step == 3:
            raise MemoryError
        return honest(step, drawn)

    killed._step = dies  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        killed.run()

    resumed = trainer_in(folder, "killed")
    assert resumed.counters.step == 2
    resumed.run()

    assert resumed.counters.step == straight.counters.step == 6
    for ours, theirs in ((straight.model, resumed.model), (straight.average, resumed.average)):
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name]), name
    start = MaskedTransformer(straight.network)
    assert not torch.equal(straight.average.tokens.tables[0], start.tokens.tables[0])


def test_what_was_trained_is_saved_loaded_and_generates(folder: Path) -> None:
    trainer = trainer_in(folder, "out", steps=1)
    trainer.run()
    digest = trainer.save_weights(folder / "weights", "card")
    model, loaded = checkpoint.load_module(folder / "weights", checkpoint.GENERATOR)
    assert isinstance(model, MaskedTransformer) and loaded == digest
    generator = MaskedGenerator(model, hub.load(folder / "tokenizer"), digest)
    assert generator.config.tokenizer == generator.tokenizer.fingerprint


def test_a_run_goes_on_from_given_weights_and_refuses_those_of_another_shape(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = trainer_in(folder, "first", steps=1)
    first.run()
    first.save_weights(folder / "weights", "card")
    config = tiny_config(folder / "tokenizer", start=str(folder / "weights"))
    begun: list[GeneratorTrainer] = []
    monkeypatch.setattr(recipes, "_run", lambda trainer, *_: begun.append(trainer))
    order = recipes.Order(
        recipe=folder, data=folder, out=folder / "on", minutes=None, device="cpu", cache=None, init=None,
        render_world=None,
    )  # fmt: skip

    recipes.KINDS[GeneratorTrainConfig].train(config, order)
    saved = checkpoint.load_module(folder / "weights")[0].state_dict()
    for part in (begun[0].model, begun[0].average):
        for name, tensor in part.state_dict().items():
            assert torch.equal(tensor, saved[name]), name

    other = replace(config, network=replace(config.network, depth=1))
    with pytest.raises(CheckpointError, match="another shape"):
        recipes.KINDS[GeneratorTrainConfig].train(other, replace(order, out=folder / "other"))


def test_a_folder_of_another_recipe_is_refused(folder: Path) -> None:
    trainer_in(folder, "out").run(minutes=1e-9)
    trainer_in(folder, "out", save_every=5)  # how often it saves makes no other run
    with pytest.raises(CheckpointError, match="another recipe"):
        trainer_in(folder, "out", steps=7)


def test_the_loss_falls_on_a_few_clips(folder: Path) -> None:
    trainer = trainer_in(folder, "out", steps=24)
    drawn = {"worlds": trainer._drawn(SOURCE)[:1]}
    losses = [trainer._step(step, drawn)["loss"] for step in range(24)]
    assert losses[0] == pytest.approx(np.log(64), rel=0.05)  # it begins by knowing nothing
    assert np.mean(losses[-6:]) < 0.75 * losses[0]


def windows_of(trainer: GeneratorTrainer, count: int) -> list[Window]:
    clips, dice = trainer._drawn(SOURCE), np.random.default_rng(0)
    return [trainer._window(clips[index % CLIPS], dice) for index in range(count)]


def test_windows_are_stretches_of_a_clip_with_the_tasks_of_the_recipe(folder: Path) -> None:
    trainer = trainer_in(folder, "out", word_dropout=0.5)
    clips = trainer._drawn(SOURCE)
    windows = windows_of(trainer, 300)
    seen: dict[str, int] = {}
    for index, window in enumerate(windows):
        name, clip = TASK_NAMES[window.task], clips[index % CLIPS]
        seen[name] = seen.get(name, 0) + 1
        starts = [s for s in range(3) if torch.equal(clip.clean_thw[s : s + 3].long(), window.clean_thw)]
        assert starts and window.first == (starts == [0])
        known_thw = window.condition_thw != HIDDEN
        if name in DERIVED_TASKS:
            assert torch.equal(window.condition_thw[known_thw], window.clean_thw[known_thw])
            leading = known_thw.flatten(1).all(dim=1)
            assert torch.equal(known_thw, leading[:, None, None].expand_as(known_thw))
            given = int(leading.long().cumprod(dim=0).sum())
            assert int(leading.sum()) == given and (given == 0 if name == "class" else given in (1, 2))
        assert not bool(window.words_P.any()) or torch.equal(window.words_P, clip.words_P)
        assert name in ("class", "class-prediction") or not bool(window.words_P.any())
        assert clip.words_P.shape == (16,) and int((clip.words_P > 0).sum()) >= 4
    assert 30 < seen["class"] < 95 and 20 < seen["frame-prediction"] < 70  # 60 and 45 are expected
    assert set(DERIVED_TASKS) < set(seen)
    said = [bool(window.words_P.any()) for window in windows if TASK_NAMES[window.task].startswith("class")]
    assert 0.3 < np.mean(said) < 0.7
    assert any(not window.first for window in windows)


def listened(trainer: GeneratorTrainer, windows: list[Window]) -> tuple[Tensor, Tensor, Tensor, dict[str, float]]:
    """What the network is given [B, L], the nats of its answer [B, L], the loss, the figures."""
    heard: list[Tensor] = []
    hook = trainer.model.register_forward_hook(lambda _, inputs, nats: heard.extend((inputs[0], nats)))
    trainer.model.eval()
    loss, figures = trainer._loss(windows, np.random.default_rng(5))
    hook.remove()
    return heard[0].flatten(1), heard[1].detach(), loss.detach(), figures


@pytest.mark.parametrize("corruption", ["commit", "mask"])
def test_corrupted_positions_go_back_to_the_condition_and_all_others_hold_the_truth(
    folder: Path, corruption: str
) -> None:
    trainer = trainer_in(folder, "out", corruption=corruption)
    windows = windows_of(trainer, 24)
    given_BL, *_ = listened(trainer, windows)
    clean_BL = torch.stack([window.clean_thw for window in windows]).flatten(1)
    condition_BL = torch.stack([window.condition_thw for window in windows]).flatten(1)
    back_BL = condition_BL if corruption == "commit" else torch.full_like(condition_BL, HIDDEN)
    assert bool(((given_BL == clean_BL) | (given_BL == back_BL)).all())
    changed_BL = given_BL != clean_BL
    assert float((given_BL == HIDDEN).float().mean()) + float((changed_BL & (given_BL != HIDDEN)).float().mean()) > 0.3
    refined = changed_BL & (given_BL != HIDDEN)
    assert bool(refined.any()) == (corruption == "commit")
    # Each sample draws its own share, by the cosine schedule: 64 % on average.
    lost_B = (given_BL == back_BL).float().mean(dim=1)
    assert len(lost_B.unique()) > 12 and 0.5 < float(lost_B.mean()) < 0.85


def test_refined_hidden_and_untouched_positions_are_all_there_is(folder: Path) -> None:
    names = ("refine", "mask", "reconstruct")
    trainer = trainer_in(folder, "out", label_smoothing=0.0)
    windows = windows_of(trainer, 16)
    given_BL, nats_BL, loss, figures = listened(trainer, windows)
    assert float(loss) == pytest.approx(float(nats_BL.mean()), rel=1e-4)
    parts = []
    for name in names:
        trainer.config = replace(trainer.config, losses=(name,))
        _, again_BL, part, same = listened(trainer, windows)
        assert torch.equal(again_BL, nats_BL) and same[f"{name}_bits"] == figures[f"{name}_bits"]
        assert float(part) / np.log(2) == pytest.approx(figures[f"{name}_bits"], rel=1e-4)
        parts.append(float(part))
    hidden_BL = given_BL == HIDDEN
    assert parts[1] == pytest.approx(float(nats_BL[hidden_BL].mean()), rel=1e-4)
    clean_BL = torch.stack([window.clean_thw for window in windows]).flatten(1)
    rest_BL = ~hidden_BL
    trainer.config = replace(trainer.config, losses=("refine", "reconstruct"))
    _, _, without_mask, _ = listened(trainer, windows)
    assert float(without_mask) == pytest.approx(float(nats_BL[rest_BL].mean()), rel=1e-4)
    assert bool((given_BL[rest_BL] != clean_BL[rest_BL]).any())


def test_a_step_that_is_not_finite_changes_nothing(folder: Path) -> None:
    trainer = trainer_in(folder, "out")
    drawn = {"worlds": trainer._drawn(SOURCE)}
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    hook = trainer.model.register_forward_hook(lambda _, inputs, nats: nats * float("nan"))
    trainer._step(0, drawn)
    hook.remove()
    assert trainer.counters.skipped == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.model.state_dict().items())
    trainer._step(1, drawn)
    assert trainer.counters.skipped == 1 and not torch.equal(trainer.model.slots, before["slots"])


def test_a_shard_is_a_function_of_seed_and_number_and_holds_what_the_tokenizer_says(folder: Path) -> None:
    trainer = trainer_in(folder, "out")
    plan, source = trainer.plan, replace(SOURCE, conditions=8)
    for name, number in (("a", 0), ("b", 0), ("c", 1)):
        draw_shard(plan, source, [], number, folder / f"{name}.safetensors")
    first, second, other = ((folder / f"{name}.safetensors").read_bytes() for name in "abc")
    assert first == second != other
    clips = token_draws._read(load_file(folder / "a.safetensors"))
    tokenizer, lengths, tasks = hub.load(folder / "tokenizer"), set(), set()
    for index, clip in enumerate(clips):
        dice = np.random.default_rng([plan.seed, 0, index, *b"worlds"])
        bodies, seed = int(dice.integers(1, 3)), int(dice.integers(2**31))
        world = worlds.render(seed, WorldConfig(frames=17, height=32, width=32, max_bodies=bodies))
        assert torch.equal(clip.clean_thw.long(), tokenizer.encode(world.clip).ids_Qthw[0])
        assert torch.equal(clip.words_P, word_ids(world.caption, plan.words, plan.max_words))
        assert len(clip.conditions) == 8
        for task, condition_thw in clip.conditions:
            lengths.add((ENCODED_TASKS[task], len(condition_thw)))
            tasks.add(ENCODED_TASKS[task])
            assert condition_thw.shape[1:] == (4, 4) and int(condition_thw.min()) >= HIDDEN
    assert {length for _, length in lengths} == {3, 5} and ("frame-interpolation", 5) not in lengths
    assert len(tasks) > 4 and FREE_FORM in ENCODED_TASKS


def test_shards_that_are_there_are_read_and_damaged_ones_refused(folder: Path) -> None:
    trainer = trainer_in(folder, "out")
    shards = folder / "out" / "tokens" / trainer.network.tokenizer[:12]
    assert len(draw(trainer.plan, replace(SOURCE, clips=2), [], shards)) == 2
    (shard,) = shard_paths(trainer.plan, SOURCE, shards)
    assert shard_paths(trainer.plan, replace(SOURCE, crop=48), shards) != [shard]
    shard.write_bytes(shard.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="delete it to draw it anew"):
        draw(trainer.plan, SOURCE, [], shards)


def test_networks_that_do_not_fit_the_tokenizer_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"factors \(8, 9\) do not make the 64 ids"):
        trainer_in(folder, "out", network=replace(tiny_config("").network, factors=(8, 9)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": ()}, "needs sources, steps and clips"),
        ({"steps": 0}, "needs sources, steps and clips"),
        ({"clip_latents": 2}, "clips of at least 3 latent frames"),
        ({"corruption": "noise"}, 'corruption must be "commit" or "mask"'),
        ({"losses": ()}, "losses must be among"),
        ({"losses": ("mask", "all")}, "losses must be among"),
        ({"task_shares": ()}, "task_shares may name"),
        ({"task_shares": (("class", 0.0),)}, "task_shares may name"),
        ({"task_shares": (("dream", 1.0),)}, "task_shares may name"),
        ({"task_shares": (("class", -1.0), ("encoded", 2.0))}, "task_shares may name"),
    ],
)
def test_recipes_that_mean_nothing_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_config("", **changes)
    for wrong in ({"clips": 0}, {"crop": 8}, {"share": 0.0}, {"batch": 0}, {"conditions": 0}):
        with pytest.raises(ConfigError, match="source worlds needs"):
            replace(SOURCE, **wrong)  # type: ignore[arg-type]


def test_the_recipe_of_worlds_loads_and_knows_every_word_of_its_captions() -> None:
    assert WORLDS.network.tasks == TASK_NAMES and WORLDS.data == ()
    for seed in range(300):
        config = WorldConfig(frames=33, max_bodies=1 + seed % 2)
        caption = describe(draw_scene(seed, config), config.duration_s)
        ids_P = word_ids(caption, WORLDS.network.words, WORLDS.network.max_words)
        assert int((ids_P > 0).sum()) >= 4, caption


def test_a_generator_trains_in_one_process_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="a generator trains in one process"):
        recipes.train_from_recipe(ROOT / "recipes" / "masked_world_nano.py", tmp_path, tmp_path / "out")

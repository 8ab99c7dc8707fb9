"""Training on several modalities: batches of one layout, drawn once, learned from, gone on with to the same bits."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kinolex import checkpoint, hub
from kinolex.data.worlds.labels import WORDS
from kinolex.errors import CheckpointError, ConfigError
from kinolex.masks import HIDDEN
from kinolex.models.multimodal import MultimodalConfig, MultimodalTransformer
from kinolex.tasks.multimodal import TASKS
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training import multimodal_draws
from kinolex.training.multimodal_draws import HIDES, Drawn, MaterialPlan, MaterialSource, draw
from kinolex.training.multimodal_run import MixStage, MultimodalTrainConfig, MultimodalTrainer
from kinolex.vocab import Vocabulary
from tests.tiny_sound import tiny_sound_tokenizer

EVERY_TASK = tuple((name, 1.0) for name in TASKS)
NETWORK = MultimodalConfig(
    video_tokenizer="",
    sound_tokenizer="",
    vocabulary=Vocabulary(text_size=len(WORDS), video_size=64, video_factors=(8, 8), sound_codes=16, sound_levels=2),
    words=WORDS,
    width=32,
    depth=2,
    heads=2,
    latent_frames=3,
    sound_frames=19,
    sound_frames_per_latent=6.25,
    text_length=12,
)
CONFIG = MultimodalTrainConfig(
    video_tokenizer="video",
    sound_tokenizer="sound",
    network=NETWORK,
    sources=(MaterialSource(name="worlds-16", clips=3, frames=9, side=16, extras_every=2),),
    stages=(MixStage(name="all", steps=12, shares=EVERY_TASK),),
    batch_tokens=300,
    save_every=4,
)


@pytest.fixture
def sound_tokenizer() -> SoundTokenizer:
    torch.manual_seed(2)
    return tiny_sound_tokenizer()


def some_clips(number: int = 10) -> list[Drawn]:
    """Tokens that follow from the first word, so that there is something to learn."""
    clips = []
    for index in range(number):
        draw_from = torch.Generator().manual_seed(index)
        word = index % 5
        video_thw = (torch.arange(12).view(3, 2, 2) + 7 * word) % 64
        masked_thw = torch.where(torch.rand(3, 2, 2, generator=draw_from) < 0.5, HIDDEN, video_thw)
        sound_Qt = (torch.arange(38).view(2, 19) + word) % 16
        clips.append(
            Drawn(torch.tensor([word, 6]), video_thw, sound_Qt, masked_thw, HIDES[index % 5], video_thw.flip(0))
        )
    return clips


def trainer(
    folder: Path, video: VideoTokenizer, sound: SoundTokenizer, config: MultimodalTrainConfig = CONFIG
) -> MultimodalTrainer:
    return MultimodalTrainer(config, video, sound, folder, drawn={"worlds-16": some_clips()})


def weights(model: MultimodalTransformer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_batch_is_a_function_of_its_step_has_one_layout_and_costs_like_the_others(
    tmp_path: Path, tiny_tokenizer: VideoTokenizer, sound_tokenizer: SoundTokenizer
) -> None:
    config = replace(CONFIG, text_dropout=0.3)
    run, drawn = trainer(tmp_path, tiny_tokenizer, sound_tokenizer, config), {"worlds-16": some_clips()}
    posed, prefixes = Counter[str](), set[tuple[str, int]]()
    for step in range(200):
        task, layout, ids_BL = run.batch(step, drawn)
        again = run.batch(step, drawn)
        posed[task.name] += 1
        prefixes.add((task.name, layout.prefix))
        assert torch.equal(again[2], ids_BL) and again[1] == layout
        assert ids_BL.shape[1] == layout.length and not (ids_BL == HIDDEN).any()
        assert len(ids_BL) == 1 or CONFIG.batch_tokens - layout.length < ids_BL.numel() <= CONFIG.batch_tokens

    assert posed.keys() == TASKS.keys()
    # With and without words: both are learned, for guidance.
    assert all(
        len({prefix for name, prefix in prefixes if name == task}) > 1 for task in ("text-to-both", "inpainting")
    )


def test_a_part_is_hidden_as_the_task_says(
    tmp_path: Path, tiny_tokenizer: VideoTokenizer, sound_tokenizer: SoundTokenizer
) -> None:
    for name, prefix in (("inpainting", "inpaint"), ("outpainting", "outpaint")):
        shares = ((name, 1.0),)
        config = replace(CONFIG, stages=(MixStage(name="one", steps=4, shares=shares),), text_dropout=0.0)
        run = trainer(tmp_path / name, tiny_tokenizer, sound_tokenizer, config)
        others = [replace(clip, masked_thw=torch.zeros_like(clip.video_thw)) for clip in some_clips()]
        mixed = [
            clip if clip.hidden_by.startswith(prefix) else other
            for clip, other in zip(some_clips(), others, strict=True)
        ]
        for step in range(4):
            assert torch.equal(
                run.batch(step, {"worlds-16": mixed})[2], run.batch(step, {"worlds-16": some_clips()})[2]
            )


def test_clips_without_captions_leave_the_text_unsaid_and_cannot_be_described(
    tmp_path: Path, tiny_tokenizer: VideoTokenizer, sound_tokenizer: SoundTokenizer
) -> None:
    drawn = {"worlds-16": [replace(clip, text_P=None) for clip in some_clips()]}
    silent = tuple((name, 1.0) for name in TASKS if name != "describe")
    config = replace(CONFIG, stages=(MixStage(name="one", steps=4, shares=silent),))
    run = trainer(tmp_path, tiny_tokenizer, sound_tokenizer, config)
    layouts = [run.batch(step, drawn)[1] for step in range(60)]
    assert not any(part.kind == "text" for layout in layouts for part in layout.segments)
    config = replace(CONFIG, stages=(MixStage(name="one", steps=4, shares=(("describe", 1.0),)),))
    run = trainer(tmp_path / "words", tiny_tokenizer, sound_tokenizer, config)
    with pytest.raises(ConfigError, match="no clip of worlds-16 was drawn for describe"):
        run.batch(0, drawn)


def test_it_learns_and_an_interrupted_run_gives_the_same_bits(
    tmp_path: Path, tiny_tokenizer: VideoTokenizer, sound_tokenizer: SoundTokenizer
) -> None:
    whole = trainer(tmp_path / "whole", tiny_tokenizer, sound_tokenizer)
    whole.run()
    begun = trainer(tmp_path / "parts", tiny_tokenizer, sound_tokenizer)
    for _ in range(5):  # what a killed run has done since its last save is done again
        begun._step(begun.counters.step, {"worlds-16": some_clips()})
        begun.counters.step += 1
    begun.save()
    rest = trainer(tmp_path / "parts", tiny_tokenizer, sound_tokenizer)
    assert rest.counters.step == 5
    rest.run()

    assert all(torch.equal(value, weights(rest.model)[name]) for name, value in weights(whole.model).items())
    assert all(torch.equal(value, weights(rest.average)[name]) for name, value in weights(whole.average).items())

    longer = replace(
        CONFIG,
        stages=(MixStage(name="all", steps=80, shares=(("text-to-both", 1.0),)),),
        text_dropout=0.0,
        optimizer=replace(CONFIG.optimizer, warmup_steps=5, adam_lr=1e-2),
    )
    run = trainer(tmp_path / "longer", tiny_tokenizer, sound_tokenizer, longer)
    first = run._step(0, {"worlds-16": some_clips()})
    run.run()
    last = run._step(79, {"worlds-16": some_clips()})
    assert last["video_bits"] < 0.5 * first["video_bits"] and last["sound_bits"] < 0.5 * first["sound_bits"]


def test_a_run_of_another_recipe_or_tokenizer_is_not_gone_on_with(
    tmp_path: Path, tiny_tokenizer: VideoTokenizer, sound_tokenizer: SoundTokenizer
) -> None:
    trainer(tmp_path, tiny_tokenizer, sound_tokenizer).save()

    with pytest.raises(CheckpointError, match="another recipe or tokenizer"):
        trainer(tmp_path, tiny_tokenizer, sound_tokenizer, replace(CONFIG, batch_tokens=200))
    with pytest.raises(CheckpointError, match="another recipe or tokenizer"):
        trainer(tmp_path, tiny_tokenizer, SoundTokenizer(sound_tokenizer.model, "6" * 64))


def test_vocabularies_that_are_not_the_tokenizers_are_refused(
    tmp_path: Path, tiny_tokenizer: VideoTokenizer, sound_tokenizer: SoundTokenizer
) -> None:
    for changes, words in (
        ({"video_size": 128, "video_factors": ()}, "128 video ids"),
        ({"sound_codes": 17}, "17 codes"),
        ({"sound_levels": 4}, "3 levels, not 4"),
    ):
        network = replace(NETWORK, vocabulary=replace(NETWORK.vocabulary, **changes))
        with pytest.raises(ConfigError, match=words):
            trainer(tmp_path, tiny_tokenizer, sound_tokenizer, replace(CONFIG, network=network))
    with pytest.raises(ConfigError, match="tasks among"):
        MixStage(name="wrong", steps=1, shares=(("text-to-smell", 1.0),))


def test_clips_are_drawn_once_and_are_the_tokens_of_their_worlds(
    tmp_path: Path,
    tiny_tokenizer: VideoTokenizer,
    sound_tokenizer: SoundTokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, tokenizer in (("video", tiny_tokenizer), ("sound", sound_tokenizer)):
        checkpoint.save(tmp_path / name, tokenizer.model, card="")
    monkeypatch.setattr(multimodal_draws, "SHARD", 3)
    plan = MaterialPlan(str(tmp_path / "video"), str(tmp_path / "sound"), 2, WORDS, 12, 0)
    source = CONFIG.sources[0]
    path = multimodal_draws.shard_paths(plan, source, tmp_path)[0]
    multimodal_draws.draw_shard(plan, source, 0, path)
    written = path.read_bytes()

    clips = draw(plan, source, tmp_path)

    assert path.read_bytes() == written and len(clips) == 3
    for index, clip in enumerate(clips):
        assert clip.video_thw.shape == (3, 2, 2)
        extras = [clip.masked_thw, clip.structure_thw]
        assert all(ids is None if index % 2 else ids is not None and ids.shape == (3, 2, 2) for ids in extras)
        assert clip.sound_Qt.shape == (2, math.ceil(9 / 12 * 50))
        assert 3 <= len(clip.text_P) <= 12 and int(clip.text_P.max()) < len(WORDS)
    video, sound = hub.load(tmp_path / "video"), hub.load_sound(tmp_path / "sound")
    config = replace(
        CONFIG,
        video_tokenizer=str(tmp_path / "video"),
        sound_tokenizer=str(tmp_path / "sound"),
        network=replace(NETWORK, sound_frames=38),
        stages=(MixStage(name="all", steps=3, shares=(("text-to-both", 1.0), ("stylisation", 1.0))),),
    )
    run = MultimodalTrainer(config, video, sound, tmp_path / "run", drawn={"worlds-16": clips})
    run.run()
    run.save_weights(tmp_path / "weights", "card")
    loaded, _ = checkpoint.load_module(tmp_path / "weights")
    assert isinstance(loaded, MultimodalTransformer)
    assert loaded.config.sound_tokenizer == sound.fingerprint and loaded.config.video_tokenizer == video.fingerprint
    path.write_bytes(written[:-9])
    with pytest.raises(CheckpointError, match="delete it"):
        draw(plan, source, tmp_path)

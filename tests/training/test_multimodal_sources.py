"""What a multimodal run draws from: spoken digits, windows out of the middle, and weights with another vocabulary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kinolex import checkpoint
from kinolex.data.spoken_digits import DIGIT_WORDS, POET_WORDS, DigitCollection, DigitConfig
from kinolex.data.worlds.labels import WORDS
from kinolex.errors import CheckpointError, ConfigError, DataError, UsageError
from kinolex.models.multimodal import MultimodalConfig, MultimodalTransformer
from kinolex.tasks.multimodal import outcome
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training import multimodal_draws
from kinolex.training.multimodal_draws import Drawn, MaterialPlan, MaterialSource, draw, shard_paths
from kinolex.training.multimodal_run import MixStage, MultimodalTrainConfig, MultimodalTrainer
from kinolex.training.recipes import train_from_recipe
from kinolex.vocab import Vocabulary
from tests.tiny_sound import tiny_sound_tokenizer

NETWORK = MultimodalConfig(
    video_tokenizer="",
    sound_tokenizer="",
    vocabulary=Vocabulary(
        text_size=len(POET_WORDS), video_size=64, video_factors=(8, 8), sound_codes=16, sound_levels=2
    ),
    words=POET_WORDS,
    width=16,
    depth=1,
    heads=2,
    latent_frames=5,
    sound_frames=71,
    sound_frames_per_latent=50 / 3,
    text_length=12,
)
MIDDLES = MaterialSource(
    name="long", clips=2, frames=41, side=16, middles=True, tasks=(("continuation", 1.0), ("future-prediction", 1.0))
)
DIGITS = MaterialSource(name="digits", kind="spoken-digits", clips=2, side=32, tasks=(("text-to-both", 1.0),))
CONFIG = MultimodalTrainConfig(
    video_tokenizer="video",
    sound_tokenizer="sound",
    network=NETWORK,
    sources=(MIDDLES,),
    stages=(MixStage(name="all", steps=4, shares=(("describe", 1.0),)),),
    batch_tokens=900,
    text_dropout=0.0,
)


@pytest.fixture
def sound_tokenizer() -> SoundTokenizer:
    torch.manual_seed(2)
    return tiny_sound_tokenizer()


def long_clip() -> Drawn:
    """Eleven latent frames and their sound; ids say when they are."""
    video_thw = torch.arange(11).view(11, 1, 1).repeat(1, 2, 2)
    return Drawn(torch.tensor([1, 2]), video_thw, torch.arange(171).div(12, rounding_mode="floor").repeat(2, 1))


def test_middles_are_windows_that_go_on_from_what_generation_gives(
    tmp_path: Path, tiny_tokenizer: VideoTokenizer, sound_tokenizer: SoundTokenizer
) -> None:
    run = MultimodalTrainer(CONFIG, tiny_tokenizer, sound_tokenizer, tmp_path)
    begun = set[int]()
    for step in range(6):
        task, layout, ids_BL = run.batch(step, {"long": [long_clip()]})
        video = [span for span in layout.spans() if span.segment.kind == "video"]
        assert [span.segment.grid[0] for span in video] == [2, 3] and [span.segment.start for span in video] == [0, 2]
        assert not any(span.segment.begins for span in video)
        made = outcome(layout, ids_BL[0], NETWORK.vocabulary)
        assert made.video_thw is not None
        latent = int(made.video_thw[0, 0, 0]) - 2
        assert latent in (3, 6) and task.name in ("continuation", "future-prediction")
        begun.add(latent)
        if task.name == "continuation":
            assert made.sound_Qt is not None
            heard = torch.arange(171).div(12, rounding_mode="floor")
            assert torch.equal(made.sound_Qt[0], heard[50 * latent // 3 + 21 :][:50])
    assert begun == {3, 6}
    with pytest.raises(ConfigError, match="no middle"):
        run.batch(0, {"long": [replace(long_clip(), video_thw=torch.zeros(5, 2, 2, dtype=torch.int64))]})


def test_sources_say_what_they_can_serve() -> None:
    for changes, what in (
        ({"tasks": ()}, "continuation, future-prediction"),
        ({"tasks": (("text-to-both", 1.0),)}, "continuation, future-prediction"),
        ({"middles": False, "kind": "spoken-digits", "tasks": (("inpainting", 1.0),)}, "shares of tasks"),
        ({"kind": "sung-digits"}, "no kind of source"),
        ({"tasks": (("continuation", 0.0),)}, "shares of tasks"),
    ):
        with pytest.raises(ConfigError, match=what):
            replace(MIDDLES, **changes)
    with pytest.raises(ConfigError, match="cannot be chained"):
        replace(CONFIG, network=replace(NETWORK, sound_frames_per_latent=16.6))


def test_spoken_digits_are_drawn_as_tokens_of_what_the_collection_gives(
    tmp_path: Path,
    data_dir: Path,
    tiny_tokenizer: VideoTokenizer,
    sound_tokenizer: SoundTokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, tokenizer in (("video", tiny_tokenizer), ("sound", sound_tokenizer)):
        checkpoint.save(tmp_path / name, tokenizer.model, card="")
    monkeypatch.setattr(multimodal_draws, "SHARD", 2)
    plan = MaterialPlan(str(tmp_path / "video"), str(tmp_path / "sound"), 2, POET_WORDS, 12, 0)
    path = shard_paths(plan, DIGITS, tmp_path, data_dir)[0]
    multimodal_draws.draw_shard(plan, DIGITS, 0, path, data_dir)

    clips = draw(plan, DIGITS, tmp_path, data=data_dir)

    assert len(clips) == 2 and all(clip.masked_thw is None for clip in clips)
    digits = DigitCollection(data_dir, "train")
    for index, clip in enumerate(clips):
        dice = multimodal_draws.np.random.default_rng([0, 0, index, *b"digits"])
        spoken = digits.draw(int(dice.integers(2**31)), DigitConfig(side=32))
        assert [POET_WORDS[word] for word in clip.text_P] == [DIGIT_WORDS[spoken.digit]]
        assert clip.video_thw.shape == (5, 4, 4) and clip.sound_Qt.shape == (2, 71)
    with pytest.raises(UsageError, match="in which folder"):
        draw(plan, DIGITS, tmp_path)
    assert replace(CONFIG, sources=(MIDDLES, DIGITS)).data == ("digits", "fsdd")


def test_a_run_starts_from_weights_with_fewer_words_and_resumes_without_them(
    tmp_path: Path, tiny_tokenizer: VideoTokenizer, sound_tokenizer: SoundTokenizer
) -> None:
    old = replace(NETWORK, words=WORDS, vocabulary=replace(NETWORK.vocabulary, text_size=len(WORDS)))
    torch.manual_seed(9)
    trained = MultimodalTransformer(old)

    def start(folder: Path, weights: MultimodalTransformer | None) -> MultimodalTrainer:
        drawn = {"long": [long_clip()]}
        return MultimodalTrainer(CONFIG, tiny_tokenizer, sound_tokenizer, folder, drawn=drawn, trained=weights)

    begun = start(tmp_path / "run", trained)
    assert torch.equal(begun.model.markers, trained.markers) and torch.equal(begun.average.markers, trained.markers)
    assert not torch.equal(start(tmp_path / "other", None).model.markers, trained.markers)
    begun.run()
    # Weights that would not even fit are not looked at any more.
    again = start(tmp_path / "run", MultimodalTransformer(replace(old, width=32)))
    assert again.counters.step == 4
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), begun.model.parameters(), strict=True))
    with pytest.raises(CheckpointError, match="width is 32, not 16"):
        start(tmp_path / "new", MultimodalTransformer(replace(old, width=32)))


def test_the_recipe_says_which_collection_is_missing(tmp_path: Path) -> None:
    recipe = Path(__file__).resolve().parents[2] / "recipes" / "poet_world_nano_longer.py"
    with pytest.raises(DataError, match=r"digits; docs/data\.md"):
        train_from_recipe(recipe, tmp_path, tmp_path / "out")

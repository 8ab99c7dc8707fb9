"""A recipe that its own network cannot read is refused before anything is packed or drawn."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kinolex.errors import ConfigError
from kinolex.tokenizers.autoencoder3d import AutoencoderConfig
from kinolex.tokenizers.quantizers import FSQConfig
from kinolex.training.config import StageConfig, TrainConfig


def recipe(*, causal: bool = True, **changes: int) -> TrainConfig:
    shape = {"clip_frames": 5 if causal else 4, "crop": 16, "batch_video": 1, "batch_image": 1} | changes
    model = AutoencoderConfig(
        quantizer=FSQConfig(levels=(4, 4)),
        channels=(32, 32),
        encoder_blocks=(1, 1),
        decoder_blocks=(1, 1),
        middle_blocks=1,
        down=((4, 2),),
        causal=causal,
    )
    return TrainConfig(model=model, stages=(StageConfig(name="one", steps=1, **shape),), data=())


@pytest.mark.parametrize(
    "changes", [{}, {"clip_frames": 1}, {"image_frames": 9}, {"causal": False}, {"clip_frames": 4, "batch_video": 0}]
)
def test_stages_that_the_network_reads(changes: dict[str, int]) -> None:
    assert recipe(**changes).total_steps == 1


def test_what_no_recipe_can_mean_is_named() -> None:
    good = recipe()
    for change in ({"data": "films"}, {"stages": ()}, {"world_fraction": 7.0}):
        with pytest.raises(ConfigError, match="a recipe needs data as names in a tuple"):
            replace(good, **change)  # type: ignore[arg-type]
    for steps in ("6", 0, 2.5):
        with pytest.raises(ConfigError, match="stage one needs a whole number of steps"):
            replace(good.stages[0], steps=steps)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "need"),
    [
        ({"crop": 17}, "17 pixels a side; this network reads 1 [+] 4n frames and sides that 2 divides"),
        ({"clip_frames": 4}, "cuts 4 frames of clips"),
        ({"image_frames": 6}, "6 of images"),
        ({"causal": False, "clip_frames": 5}, "this network reads 4n frames"),
    ],
)
def test_stages_that_it_does_not_read_are_refused(changes: dict[str, int], need: str) -> None:
    with pytest.raises(ConfigError, match=need):
        recipe(**changes)

"""poet-world-nano: VideoPoet's tasks on procedural worlds: captions, pictures and sound in one sequence.

source    Kondratyuk et al. 2023, VideoPoet, arXiv 2312.14125
command   kinolex train recipes/poet_world_nano.py --data DIR --out OUT
hardware  two CPU cores with bfloat16 instructions

Nothing of DIR is used; the worlds are rendered, 17 frames at 12 a second, so that bodies have time to bounce twice.
"""

from __future__ import annotations

from dataclasses import replace

from kinolex.data.worlds.labels import WORDS
from kinolex.models.multimodal import PRESETS
from kinolex.training.multimodal_draws import MaterialSource
from kinolex.training.multimodal_run import MixStage, MultimodalTrainConfig
from kinolex.vocab import Vocabulary

STILL_FIRST = (("text-to-image", 0.5), ("text-to-both", 0.3), ("video-to-sound", 0.1), ("unconditional", 0.1))
ALL = (
    ("text-to-both", 0.4),
    ("text-to-video", 0.1),
    ("text-to-image", 0.04),
    ("unconditional", 0.03),
    ("image-to-video", 0.06),
    ("future-prediction", 0.05),
    ("inpainting", 0.04),
    ("outpainting", 0.04),
    ("stylisation", 0.04),
    ("video-to-sound", 0.07),
    ("sound-to-video", 0.05),
    ("continuation", 0.05),
    ("describe", 0.03),
)
ASKED_MOST = (("text-to-both", 0.75), ("video-to-sound", 0.1), ("describe", 0.05), ("image-to-video", 0.1))


def config() -> MultimodalTrainConfig:
    network = replace(
        PRESETS["nano"],
        vocabulary=Vocabulary(
            text_size=len(WORDS), video_size=4096, video_factors=(64, 64), sound_codes=1024, sound_levels=4
        ),
        words=WORDS,
        video_digits=(4,) * 6,
        latent_frames=5,
        sound_frames=71,
        sound_frames_per_latent=50 / 3,
        text_length=12,
    )
    return MultimodalTrainConfig(
        video_tokenizer="magvit2-world-nano",
        sound_tokenizer="sound-nano",
        network=network,
        sources=(MaterialSource(name="worlds-64", clips=4000),),
        stages=(
            MixStage(name="pictures first", steps=400, shares=STILL_FIRST),
            MixStage(name="all tasks", steps=2000, shares=ALL),
            MixStage(name="what is asked most", steps=600, shares=ASKED_MOST),
        ),
        batch_tokens=8 * 640,
    )

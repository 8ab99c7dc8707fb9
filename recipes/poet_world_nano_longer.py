"""poet-world-nano, second part: from weights of poet_world_nano.py, with spoken digits and the middle of long clips.

source    Kondratyuk et al. 2023, VideoPoet, arXiv 2312.14125
command   kinolex train recipes/poet_world_nano_longer.py --data DIR --out OUT --init FIRST/weights
hardware  one CPU core with bfloat16 instructions, 80 minutes

Of DIR digits/ and fsdd/ are used; worlds are rendered. Clips have 17 frames at 12 a second; of worlds with 41 the
middle teaches how long videos go on. Drawing takes a sixth of a second of one core per clip, once; a step takes a
second and a half of one core.
"""

from __future__ import annotations

from dataclasses import replace

from kinolex.data.spoken_digits import POET_WORDS
from kinolex.models.multimodal import PRESETS
from kinolex.training.multimodal_draws import MaterialSource
from kinolex.training.multimodal_run import MixStage, MultimodalTrainConfig
from kinolex.vocab import Vocabulary

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
OF_DIGITS = (
    ("text-to-both", 0.5),
    ("video-to-sound", 0.15),
    ("sound-to-video", 0.15),
    ("describe", 0.1),
    ("text-to-image", 0.05),
    ("image-to-video", 0.05),
)
OF_MIDDLES = (("continuation", 0.85), ("future-prediction", 0.15))


def config() -> MultimodalTrainConfig:
    network = replace(
        PRESETS["nano"],
        vocabulary=Vocabulary(
            text_size=len(POET_WORDS), video_size=4096, video_factors=(64, 64), sound_codes=1024, sound_levels=4
        ),
        words=POET_WORDS,
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
        sources=(
            MaterialSource(name="worlds-64", clips=4000, share=0.75),
            MaterialSource(name="digits-64", kind="spoken-digits", clips=1200, share=0.15, tasks=OF_DIGITS),
            MaterialSource(name="long-worlds-64", clips=800, frames=41, middles=True, share=0.1, tasks=OF_MIDDLES),
        ),
        stages=(
            MixStage(name="all tasks", steps=2000, shares=ALL),
            MixStage(name="what is asked most", steps=1000, shares=ASKED_MOST),
        ),
        batch_tokens=8 * 640,
    )

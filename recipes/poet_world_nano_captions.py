"""poet-world-nano, third part: from weights of poet_world_nano_longer.py, mostly worlds that follow their captions.

source    Kondratyuk et al. 2023, VideoPoet, arXiv 2312.14125
command   kinolex train recipes/poet_world_nano_captions.py --data DIR --out OUT --init SECOND/weights
hardware  one CPU core with bfloat16 instructions, 68 minutes

Of DIR digits/ and fsdd/ are used; worlds are rendered, the first 4000 of them those of the second part. The shipped
weights went on from its weights as they were stored, in int8.
"""

from __future__ import annotations

from dataclasses import replace

from kinolex.data.spoken_digits import POET_WORDS
from kinolex.models.multimodal import PRESETS
from kinolex.training.multimodal_draws import MaterialSource
from kinolex.training.multimodal_run import MixStage, MultimodalTrainConfig
from kinolex.vocab import Vocabulary

MOSTLY_CAPTIONS = (
    ("text-to-both", 0.58),
    ("text-to-video", 0.12),
    ("text-to-image", 0.02),
    ("unconditional", 0.01),
    ("image-to-video", 0.05),
    ("future-prediction", 0.02),
    ("inpainting", 0.01),
    ("outpainting", 0.01),
    ("stylisation", 0.02),
    ("video-to-sound", 0.07),
    ("sound-to-video", 0.01),
    ("continuation", 0.03),
    ("describe", 0.05),
)
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
            MaterialSource(name="worlds-64", clips=5200, share=0.9),
            MaterialSource(name="digits-64", kind="spoken-digits", clips=1200, share=0.05, tasks=OF_DIGITS),
            MaterialSource(name="long-worlds-64", clips=800, frames=41, middles=True, share=0.05, tasks=OF_MIDDLES),
        ),
        stages=(MixStage(name="captions", steps=2500, shares=MOSTLY_CAPTIONS),),
        batch_tokens=8 * 640,
        seed=0,
    )

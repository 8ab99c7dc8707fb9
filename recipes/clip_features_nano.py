"""clip-features-nano: what moves in a clip and how, for distances between sets of generated and rendered worlds.

source    our own (kinolex/models/clip_features.py)
command   kinolex train recipes/clip_features_nano.py --data DIR --out runs/out/clip-features-nano (DIR may be empty)
hardware  two CPU cores with bfloat16 instructions, 12 minutes
"""

from __future__ import annotations

from kinolex.models.clip_features import ClipFeaturesConfig
from kinolex.training.clip_features_data import HEADS
from kinolex.training.clip_features_run import ClipFeaturesTrainConfig
from kinolex.training.config import OptimizerConfig


def config() -> ClipFeaturesTrainConfig:
    return ClipFeaturesTrainConfig(
        model=ClipFeaturesConfig(widths=(40, 88, 112), blocks=(1, 2, 2), dim=128, heads=HEADS),
        worlds=1800,
        steps=500,
        batch=24,
        tokenizers=("magvit-nano", "magvit2-nano"),
        decoded_share=0.2,
        optimizer=OptimizerConfig(muon_lr=0.02, adam_lr=2e-3, ema_decay=0.985),
    )

"""sound-nano, second part: from the weights of sound_nano.py, in float32 and down to what is hardly heard.

    kinolex train recipes/sound_nano_longer.py --data DATA --out runs/out/sound_nano_longer --init FIRST/weights

One CPU thread: 40 minutes. The first part leaves a hiss under everything, since bfloat16 rounds that coarsely.
"""

from __future__ import annotations

from kinolex.tokenizers import soundstream
from kinolex.training.config import OptimizerConfig
from kinolex.training.sound_losses import SoundLossWeights
from kinolex.training.sound_run import SoundTrainConfig


def config() -> SoundTrainConfig:
    return SoundTrainConfig(
        model=soundstream.nano(),
        data=("fsdd", "esc10", "audio", "grid", "clips", "sequences"),
        shares=(0.3, 0.2, 0.1, 0.2, 0.1, 0.1),
        steps=3600,
        crop_frames=32,
        batch=8,
        world_fraction=0.2,
        precision="float32",
        losses=SoundLossWeights(quiet=1e-5),
        optimizer=OptimizerConfig(muon_lr=0.002, adam_lr=4e-4, warmup_steps=50, ema_decay=0.999),
    )

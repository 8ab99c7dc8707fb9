"""sound-nano: speech, environmental sounds, music and struck tones as 50 frames a second, 0.5 kbit/s for each level.

    kinolex train recipes/sound_nano.py --data DATA --out runs/out/sound_nano

One CPU thread with bfloat16 instructions: 24 minutes. More steps, and adversarial_steps at their end, were not tried.
The three MALLOC_ variables of the Makefile save an eighth of the time; export them.
"""

from __future__ import annotations

from kinolex.tokenizers import soundstream
from kinolex.training.config import OptimizerConfig
from kinolex.training.sound_run import SoundTrainConfig


def config() -> SoundTrainConfig:
    return SoundTrainConfig(
        model=soundstream.nano(),
        data=("fsdd", "esc10", "audio", "grid", "clips", "sequences"),
        steps=2600,
        warm_steps=150,
        crop_frames=32,
        batch=8,
        world_fraction=0.25,
        optimizer=OptimizerConfig(muon_lr=0.003, adam_lr=6e-4, warmup_steps=50, ema_decay=0.999),
    )

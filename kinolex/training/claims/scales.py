"""How large networks, data and measurements of all claims are: one code path, three sizes.

Floating-point operations at nano (training_flops for transformers, counted for tokenizers), minutes at 115 GFLOP/s:

    tokens, once     2000 clips x 8 encodings x 2.2 GFLOP                                       35 TFLOP    5
    transformers     650 steps x 20.1 GFLOP; 8 of them x 3 seeds: 4 for commit, 2 for
                     multitask, 1 for parallel, 1 for lm-against-diffusion                     314 TFLOP   45
    their measuring  8 tasks x 64 clips x (12 passes x 0.42 + decoder 4.3 + features 0.4)
                     = 5 TFLOP an arm and seed, 50 steps of flow 13 TFLOP                      145 TFLOP   21
    passes           64 clips x (99 passes x 0.42 + 8 x 4.7 GFLOP), 3 seeds                     15 TFLOP    2
    vocabulary       6 tokenizers of 8 TFLOP (240 steps x 35 GFLOP) x 3 seeds                  152 TFLOP   22
                     transformers of 4.6, 5.1 and 13.3 TFLOP, 2 of each x 3 seeds              138 TFLOP   20
                     tokens of 2000 clips by each of the 18 tokenizers                           9 TFLOP    1

Just under two hours. `kinolex reproduce --list` prints the operations of training of every claim as they are counted
from its arms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from kinolex.errors import ConfigError, UsageError

AnyScale = TypeVar("AnyScale")

FLOPS_PER_SECOND = 115e9
"""Of two cores with bfloat16 instructions that train a network each: 2.8 steps of 20.1 GFLOP a second on one core, the
other busy. For the minutes of --list only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """Everything that a claim at this scale depends on besides its arms."""

    name: str
    tokenizer: str = "magvit2-nano"
    factors: tuple[int, ...] = (512, 512)
    digits: tuple[int, ...] = (8,) * 6
    side: int
    """Of the worlds, in pixels."""
    latent_frames: int = 5
    clips: int
    """Worlds that are trained on."""
    width: int
    depth: int
    heads: int
    batch: int
    steps: int
    """Of the masked transformer; others take as many as cost the same."""
    eval_clips: int
    """Worlds that are measured on, never trained on."""
    seeds: tuple[int, ...] = (0, 1, 2)
    passes: int = 12
    curve: tuple[int, ...] = (1, 2, 4, 8, 12, 16, 24, 32)
    """Passes at which parallel decoding is measured."""
    timed_rounds: int = 7
    vocabulary_bits: tuple[int, ...] = (6, 10, 14)
    tokenizer_channels: tuple[int, int, int] = (32, 64, 128)
    tokenizer_batch: int
    tokenizer_steps: int
    vocabulary_steps: int
    """Of the transformer on each of these tokenizers."""

    def __post_init__(self) -> None:
        if len(set(self.seeds)) < 3:
            raise ConfigError(f"a claim needs at least three seeds, got {self.seeds}")
        if self.side % 8 or self.eval_clips < 2 or self.latent_frames < 2:
            raise ConfigError(
                f"a scale needs sides that are multiples of 8, two clips to measure and two latent frames, got {self}"
            )

    @property
    def frames(self) -> int:
        return 1 + 4 * (self.latent_frames - 1)

    @property
    def grid(self) -> tuple[int, int, int]:
        return self.latent_frames, self.side // 8, self.side // 8


SCALES: dict[str, Scale] = {
    scale.name: scale
    for scale in (
        Scale(
            name="tiny",
            side=32,
            latent_frames=2,
            clips=4,
            width=32,
            depth=1,
            heads=2,
            batch=2,
            steps=2,
            eval_clips=2,
            passes=2,
            curve=(1, 2),
            timed_rounds=1,
            vocabulary_bits=(2, 3, 4),
            tokenizer_channels=(32, 32, 32),
            tokenizer_batch=2,
            tokenizer_steps=2,
            vocabulary_steps=2,
        ),
        Scale(
            name="nano",
            side=48,
            clips=2000,
            width=128,
            depth=4,
            heads=4,
            batch=16,
            steps=650,
            eval_clips=64,
            tokenizer_batch=8,
            tokenizer_steps=240,
            vocabulary_steps=240,
        ),
        Scale(
            name="small",
            side=64,
            clips=20_000,
            width=256,
            depth=6,
            heads=4,
            batch=32,
            steps=10_000,
            eval_clips=256,
            seeds=(0, 1, 2, 3, 4),
            tokenizer_channels=(64, 128, 256),
            tokenizer_batch=16,
            tokenizer_steps=5000,
            vocabulary_steps=3000,
        ),
    )
}
"""tiny is for tests: it runs, and says nothing. small is for a GPU."""


def scale_among(scales: Mapping[str, AnyScale], name: str) -> AnyScale:
    """Raises UsageError for a name that is not among them."""
    if name not in scales:
        raise UsageError(f"no scale {name!r}; choose one of {', '.join(scales)}")
    return scales[name]


scale_named = partial(scale_among, SCALES)

"""Arms of the claims about VideoPoet's network: one recipe, of which the size or the mixture of tasks is exchanged.

scale --recipe--> tasks with words on worlds that have captions, tasks without on the same worlds without captions
recipe --replace--> arms        operations of an arm = steps x mean over its tasks of (sequences x their operations)

What is measured is the same for every arm (ASKS), so arms that are equal are trained and measured once for all claims.

Floating-point operations at nano, and minutes of two cores at 55 GFLOP/s each, which is what networks this narrow reach
(6.9, 4.8 and 2.4 steps a second on one core, in the order of sizes):

    tokens, once     2060 worlds, 0.11 s each on one core                                                      2
    sizes            900 steps x 5.7, 11.2 and 27.5 GFLOP, 3 seeds                              120 TFLOP     17
    mixtures         two more of the second size, of equal cost, 3 seeds                         60 TFLOP      9
    their measuring  15 networks x (9 tasks of 60 worlds, 60 pictures of 144 tokens), about 10 s each          1

Half an hour for `scale` and `task-mix` together.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from functools import partial

import torch

from kinolex.data.worlds.labels import WORDS
from kinolex.errors import ConfigError
from kinolex.models.multimodal import MultimodalConfig
from kinolex.sequences import Layout
from kinolex.tasks.multimodal import TASKS, Material, compose
from kinolex.training.claims.scales import scale_among
from kinolex.training.config import OptimizerConfig
from kinolex.training.multimodal_draws import MaterialSource
from kinolex.training.multimodal_run import MixStage, MultimodalTrainConfig, heard_beside
from kinolex.vocab import Vocabulary

TIME_PX, SIDE_PX = 4, 8
"""Frames and pixels of a token of the tokenizers of worlds."""
SOUND_PER_S = 50
"""Frames a second of sound-nano."""
CAPTIONED, BARE = "captioned", "bare"
"""Sources: the same worlds, once with what they show said, once without."""
VOCABULARY = Vocabulary(text_size=len(WORDS), video_size=4096, video_factors=(64, 64), sound_codes=1024, sound_levels=2)
STATES = 3
"""Saved states of a run."""

Shares = tuple[tuple[str, float], ...]

WITH_WORDS: Shares = (
    ("text-to-image", 1.0),
    ("text-to-video", 1.0),
    ("text-to-both", 1.0),
    ("stylisation", 0.5),
    ("describe", 0.5),
)
SELF_SUPERVISED: Shares = (
    ("unconditional", 1.0),
    ("text-to-both", 1.0),  # without a caption: picture and sound of nothing
    ("image-to-video", 1.0),
    ("future-prediction", 1.0),
    ("inpainting", 1.0),
    ("outpainting", 1.0),
    ("video-to-sound", 1.0),
    ("sound-to-video", 1.0),
    ("continuation", 1.0),
)


@dataclass(frozen=True, slots=True)
class Ask:
    """What held-out worlds are asked for; its name is that of a task."""

    task: str
    said: bool
    """Whether their captions are given, or made; a network that never read any is asked without."""


BOTH_LEARN = tuple(
    Ask(task, said=False)
    for task in ("future-prediction", "inpainting", "outpainting", "video-to-sound", "continuation")
)
OF_WORDS = tuple(Ask(task, said=True) for task in ("text-to-image", "text-to-video", "text-to-both"))
ASKS = (*OF_WORDS, *BOTH_LEARN, Ask("describe", said=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """Of a network."""

    width: int
    depth: int
    heads: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PoetScale:
    """Everything that these claims depend on besides their arms."""

    name: str
    video_tokenizer: str = "magvit2-world-nano"
    sound_tokenizer: str = "sound-nano"
    vocabulary: Vocabulary = VOCABULARY
    digits: tuple[int, ...] = (4,) * 6
    side: int
    """Of the worlds, in pixels."""
    latent_frames: int
    fps: int = 12
    clips: int
    """Worlds that are trained on."""
    sizes: tuple[Size, ...]
    """From the smallest on; the one in the middle learns different mixtures."""
    steps: int
    """Of every size, and of the network for all tasks; other mixtures take as many as cost the same."""
    batch_tokens: int
    eval_clips: int
    """Worlds that are measured on, never trained on."""
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        if len(set(self.seeds)) < 3 or len(self.sizes) < 3:
            raise ConfigError(f"a claim needs at least three seeds and three sizes, got {self.seeds}, {self.sizes}")
        if self.side % SIDE_PX or self.eval_clips < 5 or self.latent_frames < 3:
            raise ConfigError(
                f"a scale needs sides that are multiples of {SIDE_PX}, three latent frames, and five clips to measure, "
                f"one of every way to hide a part; got {self}"
            )

    @property
    def frames(self) -> int:
        return 1 + TIME_PX * (self.latent_frames - 1)

    @property
    def middle(self) -> Size:
        return self.sizes[len(self.sizes) // 2]


SCALES: dict[str, PoetScale] = {
    scale.name: scale
    for scale in (
        PoetScale(
            name="tiny",
            side=16,
            latent_frames=3,
            clips=10,
            sizes=tuple(Size(width=width, depth=1, heads=1) for width in (8, 16, 24)),
            steps=2,
            batch_tokens=200,
            eval_clips=5,
        ),
        PoetScale(
            name="nano",
            side=48,
            latent_frames=4,
            clips=2000,
            sizes=tuple(Size(width=width, depth=4, heads=width // 32) for width in (64, 96, 160)),
            steps=900,
            batch_tokens=3072,
            eval_clips=60,
        ),
        PoetScale(
            name="small",
            side=64,
            latent_frames=5,
            clips=20_000,
            sizes=tuple(Size(width=width, depth=6, heads=width // 64) for width in (128, 256, 512)),
            steps=10_000,
            batch_tokens=16_384,
            eval_clips=240,
            seeds=(0, 1, 2, 3, 4),
        ),
    )
}
"""tiny is for tests: it runs, and says nothing. small is for a GPU."""


scale_named = partial(scale_among, SCALES)


@dataclass(frozen=True, kw_only=True, slots=True)
class PoetArm:
    """One side of a comparison; arms with the same recipe share their networks."""

    name: str
    config: MultimodalTrainConfig
    """With seed 0; every seed replaces it."""

    @property
    def reads(self) -> bool:
        """Whether it learns from captions."""
        return any(source.name == CAPTIONED for source in self.config.sources)

    def knows(self, ask: Ask) -> bool:
        """Whether it learns the task, asked as it is asked: a picture of nothing is the start of a clip of nothing."""
        said = ask.said and self.reads
        task = "unconditional" if not said and ask.task in ("text-to-image", "text-to-video") else ask.task
        source = CAPTIONED if said else BARE
        return any(one.name == source and task in dict(one.tasks) for one in self.config.sources)

    def seeded(self, seed: int) -> MultimodalTrainConfig:
        return replace(self.config, seed=seed)


def recipe(
    scale: PoetScale,
    size: Size,
    *,
    with_words: Shares = WITH_WORDS,
    bare: Shares = SELF_SUPERVISED,
) -> MultimodalTrainConfig:
    """A network of one size that learns some tasks; half of the steps go to those with words, if it learns both."""
    network = MultimodalConfig(
        video_tokenizer="",
        sound_tokenizer="",
        vocabulary=scale.vocabulary,
        words=WORDS,
        width=size.width,
        depth=size.depth,
        heads=size.heads,
        latent_frames=scale.latent_frames,
        sound_frames=math.ceil(scale.frames * SOUND_PER_S / scale.fps),
        sound_frames_per_latent=TIME_PX * SOUND_PER_S / scale.fps,
        text_length=12,
        video_digits=scale.digits,
        lines=scale.side,
    )
    sources = tuple(
        MaterialSource(
            name=name,
            clips=scale.clips,
            frames=scale.frames,
            side=scale.side,
            fps=scale.fps,
            max_bodies=1,
            extras_every=2,
            tasks=tasks,
        )
        for name, tasks in ((CAPTIONED, with_words), (BARE, bare))
        if tasks
    )
    return MultimodalTrainConfig(
        video_tokenizer=scale.video_tokenizer,
        sound_tokenizer=scale.sound_tokenizer,
        network=network,
        sources=sources,
        stages=(MixStage(name="mixture", steps=scale.steps, shares=with_words or bare),),
        batch_tokens=scale.batch_tokens,
        text_dropout=0.0,
        given_dropout=0.0,
        optimizer=OptimizerConfig(muon_lr=0.02, adam_lr=2e-3, ema_decay=0.99, warmup_steps=min(50, scale.steps)),
        save_every=max(1, scale.steps // STATES),
    )


def of_equal_cost(config: MultimodalTrainConfig, other: MultimodalTrainConfig) -> MultimodalTrainConfig:
    """The recipe with as many steps as cost what the other one costs."""
    steps = max(1, round(arm_flops(other) / step_flops(config)))
    (stage,) = config.stages
    return replace(config, stages=(replace(stage, steps=steps),), save_every=max(1, steps // STATES))


def arm_flops(config: MultimodalTrainConfig) -> int:
    """Operations of training once, without drawing tokens and without the optimizer."""
    return round(config.steps * step_flops(config))


def step_flops(config: MultimodalTrainConfig) -> float:
    """Expected operations of a step: mean over what may be posed. Backward costs twice what forward does."""
    total, whole = 0.0, sum(source.share for source in config.sources)
    for source in config.sources:
        often = sum(share for _, share in source.tasks)
        for task, share in source.tasks:
            costs = [
                3.0 * max(1, config.batch_tokens // layout.length) * forward_flops(config.network, layout)
                for layout in _layouts(config.network, source, task)
            ]
            total += source.share / whole * share / often * statistics.fmean(costs)
    return total


def forward_flops(network: MultimodalConfig, layout: Layout) -> int:
    """Matrix products and attention of one sequence, two operations a multiplication with its addition.

    What the network is told of places is computed once for a batch, and not counted.
    """
    width, length = network.width, layout.stop - 1
    blocks = network.depth * (24 * length * width**2 + 4 * length**2 * width)
    vocabulary, heads = network.vocabulary, 0
    for span in layout.outputs():
        factors = {
            "video": vocabulary.factors,
            "sound": (vocabulary.sound_codes,),
            "text": (vocabulary.text_size + 1,),
        }[span.segment.kind]
        chain = len(factors) - 1 if network.chained else 0
        heads += 2 * span.segment.length * width * (sum(factors) + (len(factors) + chain) * width)
    return blocks + heads


def _layouts(network: MultimodalConfig, source: MaterialSource, task: str) -> list[Layout]:
    """Those that steps of a task have, equally often."""
    side = source.side // SIDE_PX
    video_thw = torch.zeros(network.latent_frames, side, side, dtype=torch.long)
    sound_Qt = torch.zeros(network.vocabulary.sound_levels, network.sound_frames, dtype=torch.long)
    given = range(2, network.latent_frames) if task == "future-prediction" else (1,)
    return [
        compose(
            TASKS[task],
            Material(
                text_P=torch.zeros(1, dtype=torch.long),
                video_thw=video_thw,
                masked_thw=video_thw,
                structure_thw=video_thw,
                sound_Qt=sound_Qt,
                given_latents=first,
                given_sound=heard_beside(first, network.latent_frames, network.sound_frames),
            ),
            network.vocabulary,
            text_length=network.text_length,
            drop=("text",) if source.name == BARE else (),
        ).layout
        for first in given
    ]

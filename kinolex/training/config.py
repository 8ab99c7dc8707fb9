"""What a training run is: a network, stages, losses, an optimizer. Recipes build one of these."""

from __future__ import annotations

from dataclasses import dataclass, field

from kinolex.errors import ConfigError
from kinolex.tokenizers.networks import NetworkConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class StageConfig:
    """A stretch of steps with one kind of batch. Image stages come before video stages."""

    name: str
    steps: int
    clip_frames: int
    """Frames per clip; 1 makes an image stage."""
    crop: int
    batch_video: int
    batch_image: int
    image_every: int = 1
    """Images join every n-th step only."""
    image_frames: int = 1
    """Frames for which an image is shown, still or panned over."""
    warm_steps: int = 0
    """Recurrent networks run through 0 to this many latent frames, drawn per step, before those they learn from."""
    thrifty: float = 0.0
    """Share of the steps in which a recurrent network is asked to save bits, by a weight drawn per step."""
    perceptual_frames: int = 2
    """Random frames per clip that the perceptual network looks at."""
    adversarial: bool = False
    """Train the discriminator and let it teach the decoder."""

    def __post_init__(self) -> None:
        if self.warm_steps < 0:
            raise ConfigError(f"stage {self.name} cannot warm up for {self.warm_steps} steps")
        if not 0.0 <= self.thrifty <= 1.0 or (self.thrifty and not self.warm_steps):
            raise ConfigError(
                f"thrifty of stage {self.name} must be in 0..1 and needs warm_steps, got {self.thrifty} and "
                f"{self.warm_steps} warm steps"
            )
        if type(self.steps) is not int or self.steps < 1:
            raise ConfigError(f"stage {self.name} needs a whole number of steps from 1 on, got {self.steps!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class LossWeights:
    """Weights of the terms; pixel terms are on [-1, 1]. Paper values: papers.md sections 2.3 and 4.2."""

    absolute: float = 1.0
    squared: float = 0.0
    colourful: float = 0.0
    """Extra weight of pixel errors where the picture is colourful: small bodies on a grey ground are what it shows."""
    perceptual: float = 0.1
    commitment: float = 0.25
    codebook: float = 1.0
    entropy: float = 0.1
    entropy_start: float = 3.0
    """The entropy term starts this many times stronger and falls linearly over entropy_steps."""
    entropy_steps: int = 2000
    rate: float = 0.1
    """Of what digits are estimated to cost, at the largest rate_weight."""
    adversarial: float = 0.1
    r1: float = 10.0
    lecam: float = 0.001
    image: float = 0.3
    """Weight of the image half of a joint batch against the video half."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """Muon for the convolution kernels between stem and head, AdamW for the rest."""

    muon_lr: float = 0.04
    adam_lr: float = 2e-3
    weight_decay: float = 0.01
    warmup_steps: int = 50
    final_lr: float = 0.02
    """Learning rate at the end over the peak."""
    clip_norm: float = 1.0
    ema_decay: float = 0.999


@dataclass(frozen=True, kw_only=True, slots=True)
class DiscriminatorConfig:
    base: int = 16
    multipliers: tuple[int, ...] = (2, 4, 4, 4)
    lr: float = 1e-4
    r1_every: int = 16
    blur_pool: bool = True
    fold: int = 1
    """Blocks of fold x fold pixels become channels first; 1 is the paper's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    model: NetworkConfig
    stages: tuple[StageConfig, ...]
    data: tuple[str, ...]
    """Names of the collections below the data folder."""
    lines: int = 128
    max_frames: int = 300
    world_fraction: float = 0.0
    world_rates: tuple[int, ...] = (24,)
    """Frames per second that worlds are rendered at."""
    init_what_fits: bool = False
    """Weights to start from may be of another architecture: tensors of the same name and shape are taken."""
    seed: int = 0
    losses: LossWeights = field(default_factory=LossWeights)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    save_every: int = 100
    """Steps between saved states; a killed run loses at most this many."""
    grid_every: int = 200

    def __post_init__(self) -> None:
        if isinstance(self.data, str) or not self.stages or not 0.0 <= self.world_fraction <= 1.0:
            raise ConfigError(
                f"a recipe needs data as names in a tuple, a stage or more, and a world_fraction in 0..1, got "
                f"{self.data!r}, {len(self.stages)} stages and {self.world_fraction}"
            )
        space, time, first = self.model.space_factor, self.model.time_factor, int(self.model.causal)
        for stage in self.stages:
            counts = ((stage.clip_frames, stage.batch_video), (stage.image_frames, stage.batch_image))
            if stage.crop % space or any(batch and frames > 1 and (frames - first) % time for frames, batch in counts):
                whole = f"{time}n" if not first else f"1 + {time}n"
                raise ConfigError(
                    f"stage {stage.name} cuts {stage.clip_frames} frames of clips and {stage.image_frames} of images, "
                    f"{stage.crop} pixels a side; this network reads {whole} frames and sides that {space} divides"
                )

    @property
    def total_steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> StageConfig:
        """The stage that step (counted from 0 over all stages) belongs to."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]

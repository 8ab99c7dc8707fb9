"""Train the multimodal generator: one task a step, so every batch is sequences of one layout and nothing is padded.

    Drawn --material--> compose(task) --> sequences of one layout --> MultimodalTransformer --> loss on what is made

How many sequences a step takes follows from their length: short ones (pictures, descriptions) come in larger batches,
so that steps cost alike. Stages say how often each task is posed: pictures first, then clips, then a fine-tuning mix.
Sources of long clips teach what follows on windows out of their middle, as generation of long videos asks for it.

Source: VideoPoet, arXiv 2312.14125, section 4 (alternating gradient descent; image-heavy, then video-heavy).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kinolex.errors import ConfigError
from kinolex.models.multimodal import MultimodalConfig, MultimodalTransformer
from kinolex.models.vocabulary_growth import take_over
from kinolex.sequences import Layout
from kinolex.tasks.chaining import Chain, chain_of
from kinolex.tasks.multimodal import TASKS, Material, Modality, MultimodalTask, compose
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training.config import OptimizerConfig
from kinolex.training.loop import NetworkLoop, begun, deadline, fields_of, recipe_hash
from kinolex.training.multimodal_draws import Drawn, MaterialPlan, MaterialSource, draw
from kinolex.training.multimodal_losses import multimodal_loss
from kinolex.training.optimizer import Optimizers

HIDDEN_BY = {"inpainting": "inpaint", "outpainting": "outpaint"}
"""How the names of the ways to hide begin that belong to a task."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MixStage:
    """A stretch of steps with one mix of tasks."""

    name: str
    steps: int
    shares: tuple[tuple[str, float], ...]
    """How often each task is posed."""

    def __post_init__(self) -> None:
        unknown = {name for name, _ in self.shares} - TASKS.keys()
        shares = [share for _, share in self.shares]
        if self.steps < 1 or unknown or min(shares, default=0) < 0 or not 0 < sum(shares) < math.inf:
            raise ConfigError(
                f"stage {self.name} needs steps and shares of tasks among {', '.join(TASKS)}; got {self.steps} steps "
                f"and {self.shares}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class MultimodalTrainConfig:
    """A recipe for a multimodal generator."""

    video_tokenizer: str
    """Shipped names, folders or hub repositories; every process that draws tokens loads them."""
    sound_tokenizer: str
    network: MultimodalConfig
    """Its fingerprints are filled in by the trainer."""
    sources: tuple[MaterialSource, ...]
    stages: tuple[MixStage, ...]
    batch_tokens: int
    """Of a step, about: sequences times their length."""
    text_dropout: float = 0.1
    """Share of the steps in which a text that could be said is left out, for guidance."""
    given_dropout: float = 0.1
    """Share of the steps in which sound that a task can do without is left out."""
    label_smoothing: float = 1e-4
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(muon_lr=0.02, adam_lr=2e-3, ema_decay=0.998, warmup_steps=100)
    )
    save_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.sources or not self.stages or self.batch_tokens < 1:
            raise ConfigError("a multimodal generator needs sources, stages and batch_tokens of at least 1")
        if not (0 <= self.text_dropout < 1 and 0 <= self.given_dropout < 1):
            raise ConfigError(f"dropouts are shares below 1, got {self.text_dropout} and {self.given_dropout}")
        if any(source.middles for source in self.sources):
            _ = self.chain  # raises
        if not self.network.words:
            raise ConfigError("captions of worlds are made of a closed list of words; give the network its words")

    @property
    def data(self) -> tuple[str, ...]:
        """Collections that it draws from; worlds are rendered."""
        return tuple(dict.fromkeys(name for source in self.sources for name in source.data))

    @property
    def chain(self) -> Chain:
        """How windows of long clips follow one another. Raises ConfigError for a network whose windows cannot."""
        network = self.network
        return chain_of(network.latent_frames, network.sound_frames, network.sound_frames_per_latent)

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> MixStage:
        """The stage that a step, counted from 0 over all stages, belongs to."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]


def _serves(clip: Drawn, task: MultimodalTask) -> bool:
    if "text" in task.asked and clip.text_P is None:
        return False
    if task.name in HIDDEN_BY:
        return clip.hidden_by.startswith(HIDDEN_BY[task.name])
    return "structure-clip" not in task.given or clip.structure_thw is not None


def heard_beside(given: int, latents: int, frames: int) -> int:
    """Frames of sound, of so many of a clip, that are given beside its first `given` latent frames."""
    return max(1, min(frames - 1, round(given * frames / latents))) if frames > 1 else 1


class MultimodalTrainer(NetworkLoop[MultimodalTransformer]):
    """One run; `run` can be called again, also by another process, to go on.

    Args:
        config: the whole recipe.
        video, sound: the tokenizers that config names.
        folder: tokens, state and log.
        drawn: clips by source, where they are not to be drawn below folder. Those of one source all have captions, or
            none has: tasks then leave the text unsaid.
        data: holds the collections that config.data names.
        trained: weights to start from, whose vocabulary may be another; only looked at when folder has no run yet.

    Raises:
        CheckpointError: the folder holds a run of another recipe or tokenizer, or trained is of another network.
        ConfigError: a vocabulary that is not that of the tokenizers.
    """

    def __init__(
        self,
        config: MultimodalTrainConfig,
        video: VideoTokenizer,
        sound: SoundTokenizer,
        folder: Path,
        *,
        device: str = "cpu",
        drawn: dict[str, list[Drawn]] | None = None,
        data: Path | None = None,
        trained: MultimodalTransformer | None = None,
    ) -> None:
        self.config, self.device, self.drawn, self.data = config, torch.device(device), drawn, data
        vocabulary = config.network.vocabulary
        if vocabulary.video_size != video.vocab_size or vocabulary.sound_codes != sound.vocab_size:
            raise ConfigError(
                f"the recipe's vocabulary has {vocabulary.video_size} video ids and {vocabulary.sound_codes} codes of "
                f"sound, its tokenizers have {video.vocab_size} and {sound.vocab_size}"
            )
        if vocabulary.sound_levels > sound.num_levels:
            raise ConfigError(f"{config.sound_tokenizer} has {sound.num_levels} levels, not {vocabulary.sound_levels}")
        self.network = replace(config.network, video_tokenizer=video.fingerprint, sound_tokenizer=sound.fingerprint)
        self.plan = MaterialPlan(
            config.video_tokenizer,
            config.sound_tokenizer,
            vocabulary.sound_levels,
            self.network.words,
            self.network.text_length,
            config.seed,
        )
        torch.manual_seed(config.seed)
        model = MultimodalTransformer(self.network)
        if trained is not None and not begun(folder):
            take_over(model, trained)
        model.to(self.device)
        super().__init__(
            folder,
            model,
            Optimizers(model, config.optimizer, config.steps),
            config_hash=recipe_hash(fields_of(config), video.fingerprint, sound.fingerprint),
            save_every=config.save_every,
            vocab_size=self.network.vocabulary.size,
            other="another recipe or tokenizer; use another --out",
        )

    def run(self, *, minutes: float | None = None) -> MultimodalTransformer:
        """Train; returns the averaged network. Stops cleanly after `minutes` or on an interrupt."""
        until = deadline(minutes)
        tokens = self.folder / "tokens" / f"{self.network.video_tokenizer[:8]}-{self.network.sound_tokenizer[:8]}"
        drawn = self.drawn or {
            source.name: draw(self.plan, source, tokens, data=self.data) for source in self.config.sources
        }
        self.go(lambda step: (self._step(step, drawn), None), until)
        return self.average

    def batch(self, step: int, drawn: dict[str, list[Drawn]]) -> tuple[MultimodalTask, Layout, Tensor]:
        """The sequences of a step: a function of the step and the clips alone.

        Returns:
            The task, the layout that all share, and ids_BL.
        """
        config = self.config
        dice = np.random.default_rng([config.seed, step])
        shares = np.array([source.share for source in config.sources])
        source = config.sources[int(dice.choice(len(shares), p=shares / shares.sum()))]
        names, often = zip(*(source.tasks or config.stage_at(step).shares), strict=True)
        task = TASKS[names[int(dice.choice(len(names), p=np.array(often) / sum(often)))]]
        clips = [clip for clip in drawn[source.name] if _serves(clip, task)]
        if not clips:
            raise ConfigError(f"no clip of {source.name} was drawn for {task.name}; draw more, or extras more often")
        drop = self._dropped(task, dice)
        if clips[0].text_P is None:
            drop.add("text")
        if source.middles:
            given, heard = config.chain.given_latents, config.chain.given_sound
        else:
            latents, frames = clips[0].video_thw.shape[0], clips[0].sound_Qt.shape[1]
            given = int(dice.integers(2, latents)) if task.name == "future-prediction" and latents > 2 else 1
            heard = heard_beside(given, latents, frames)
        sequences, length = [], 0
        while not sequences or (len(sequences) + 1) * length <= config.batch_tokens:
            clip = clips[int(dice.integers(len(clips)))]
            video_thw, sound_Qt = clip.video_thw, clip.sound_Qt
            if source.middles:
                windows = config.chain.windows(len(video_thw), sound_Qt.shape[1])
                if windows < 2:
                    raise ConfigError(f"clips of {source.name} have no middle: they are not longer than a window")
                video_thw, sound_Qt = config.chain.window(int(dice.integers(1, windows)), video_thw, sound_Qt)
            material = Material(
                text_P=clip.text_P,
                video_thw=video_thw,
                masked_thw=clip.masked_thw,
                structure_thw=clip.structure_thw,
                sound_Qt=sound_Qt,
                given_latents=given,
                given_sound=heard,
                begins=not source.middles,
            )
            sequence = compose(task, material, self.network.vocabulary, text_length=self.network.text_length, drop=drop)
            sequences.append(sequence)
            length = sequence.layout.length
        assert all(sequence.layout == sequences[0].layout for sequence in sequences)
        return task, sequences[0].layout, torch.stack([sequence.ids_L for sequence in sequences])

    def _dropped(self, task: MultimodalTask, dice: np.random.Generator) -> set[Modality]:
        """What is left unsaid or unheard in a step; what a task cannot do without stays where nothing else is given."""
        drop: set[Modality] = set()
        if "text" in task.given and dice.random() < self.config.text_dropout:
            drop.add("text")
        if "sound" in task.optional and dice.random() < self.config.given_dropout:
            drop.add("sound")
        return drop

    def _step(self, step: int, drawn: dict[str, list[Drawn]]) -> dict[str, float]:
        """One update; returns figures for the log."""
        task, layout, ids_BL = self.batch(step, drawn)
        self.model.train()
        torch.manual_seed(self.config.seed * 1_000_003 + step)
        smoothing = self.config.label_smoothing
        loss, figures = multimodal_loss(self.model, layout, ids_BL.to(self.device), label_smoothing=smoothing)
        loss.backward()
        figures["bits_per_position"] = figures["loss"] / math.log(2)
        figures[f"bits {task.name}"] = figures["bits_per_position"]
        figures["sequences"] = float(len(ids_BL))
        figures["gradient_norm"] = self.update(step)
        return figures

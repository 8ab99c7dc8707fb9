"""Train a probe: labelled clips, one kind of input, one small network; AdamW, seeded, resumed to the same bits.

set --tokenizer--> Inputs --(seed, step)--> features, labels --Probe--> one cross-entropy per attribute
unlabelled clips' tokens, some hidden --HiddenTokenReader--> their ids        before that, where a recipe asks for it
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from kinolex import hub
from kinolex.errors import ConfigError
from kinolex.evaluation.protocol import check_fields
from kinolex.evaluation.understanding_sets import LabelledSet, SetConfig, labelled_set
from kinolex.layers.precision import fast_arithmetic
from kinolex.masks import schedule_named
from kinolex.models.probe import HearsConfig, HiddenTokenReader, Probe, ProbeConfig, ProbeKind, ReadsConfig, cells_of
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training.loop import Loop, deadline, fields_of, recipe_hash
from kinolex.training.optimizer import gradient_norm_
from kinolex.training.probe_data import Inputs
from kinolex.understanding.features import INPUTS, ClipFrontEnd, alphabets

STANDARDISED_ON = 64
"""Clips that mean and spread of features are taken from."""
AT_ONCE = 32
"""Clips that are judged together."""
FACTOR = 1024
"""Digits of an id are predicted together up to this many values."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FitConfig:
    """How a probe learns: the same whatever its input."""

    steps: int
    batch: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 20
    label_smoothing: float = 0.1
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        needs = {
            "steps": (self.steps >= 1, "at least 1"),
            "batch": (self.batch >= 1, "at least 1"),
            "lr": (self.lr > 0, "above 0"),
        }
        check_fields("fitting", self, needs)


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeConfig:
    """Of a probe, apart from what its data decide."""

    kind: ProbeKind = "transformer"
    width: int = 64
    depth: int = 2
    heads: int = 4
    queries: int = 4
    dropout: float = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeTrainConfig:
    """A recipe for a probe."""

    set: SetConfig
    tokenizer: str
    """Shipped name, folder or hub repository."""
    input: str
    fit: FitConfig
    size: SizeConfig = field(default_factory=SizeConfig)
    hidden_steps: int = 0
    """First so many steps of predicting hidden tokens of the same clips, without labels."""
    levels: int | None = None
    """First codebook levels of sound tokens that are read; None reads all."""
    save_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.input not in INPUTS:
            raise ConfigError(f"no input {self.input!r}; choose one of {', '.join(INPUTS)}")
        if self.levels is not None and not self.set.of_sounds:
            raise ConfigError(
                f"tokens of sound have levels, and {self.set.name} is a set of pictures; leave levels out"
            )
        if self.hidden_steps and (self.size.kind != "transformer" or self.input not in ("latents", "digits")):
            raise ConfigError("hidden tokens can be predicted by a transformer that reads tokens, and by no other")


def new_probe(clips: LabelledSet, inputs: Inputs, kind: str, size: SizeConfig, seed: int) -> Probe:
    """A probe with random weights for this input, which it standardises by some of the clips."""
    spread = np.arange(0, len(inputs), max(1, len(inputs) // STANDARDISED_ON))[:STANDARDISED_ON]
    examples_NLC = inputs.features(kind, spread)
    front_end, tokenizer = inputs.front_end, inputs.tokenizer
    reads: ReadsConfig | HearsConfig
    if isinstance(front_end, ClipFrontEnd):
        reads = ReadsConfig(
            input=kind,
            tokenizer=tokenizer.fingerprint,
            frames=front_end.frames,
            side=front_end.side,
            frames_per_second=clips.frames_per_second,
        )
    else:
        reads = HearsConfig(
            input=kind,
            tokenizer=tokenizer.fingerprint,
            levels=front_end.tokenizer.levels_kept(front_end.levels),
            seconds=front_end.samples / front_end.tokenizer.config.rate_hz,
            word=clips.words,
        )
    torch.manual_seed(seed)
    sizes = {name: getattr(size, name) for name in ("kind", "width", "depth", "heads", "queries", "dropout")}
    probe = Probe(ProbeConfig(features=examples_NLC.shape[2], outputs=clips.outputs, reads=reads, **sizes))
    probe.standardise(examples_NLC)
    return probe


class Fitting:
    """Steps of one optimizer over one network; step n draws all its randomness from (seed, n)."""

    def __init__(self, network: nn.Module, config: FitConfig, seed: int) -> None:
        self.network, self.config, self.seed = network, config, seed
        decayed = [parameter for parameter in network.parameters() if parameter.ndim > 1]
        others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.adam = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98))

    def step(self, number: int, total: int, loss_of: Callable[[NDArray[np.int64]], Tensor], count: int) -> float:
        """One update on clips drawn among `count`; the loss before it. Steps that are not finite change nothing."""
        torch.manual_seed(hash_of(self.seed, number))
        chosen_B = np.random.default_rng([self.seed, number]).integers(0, count, self.config.batch)
        self.network.train()
        with fast_arithmetic():
            loss = loss_of(chosen_B)
        loss.backward()
        norm = gradient_norm_(self.network.parameters(), self.config.clip_norm)
        warm = min(1.0, (number + 1) / max(1, self.config.warmup_steps))
        for group in self.adam.param_groups:
            group["lr"] = self.config.lr * warm * 0.5 * (1 + math.cos(math.pi * number / total))
        if math.isfinite(norm):
            self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        return float(loss.detach())


def class_loss(probe: Probe, inputs: Inputs, kind: str, chosen_B: NDArray[np.int64], smoothing: float) -> Tensor:
    """Sum over attributes of the mean cross-entropy of the clips that tell it."""
    answers = probe(inputs.features(kind, chosen_B), inputs.grid)
    total = torch.zeros(())
    for name, logits_BV in answers.items():
        wanted_B = torch.from_numpy(inputs.clips.labels[name][chosen_B])
        summed = F.cross_entropy(logits_BV, wanted_B, reduction="sum", label_smoothing=smoothing)
        total = total + summed / (wanted_B >= 0).sum().clamp(1)
    return total


def fit(probe: Probe, inputs: Inputs, kind: str, config: FitConfig, seed: int) -> Probe:
    """Teach a probe the labels; in one go."""
    fitting = Fitting(probe, config, seed)
    for number in range(config.steps):
        fitting.step(
            number,
            config.steps,
            lambda chosen_B: class_loss(probe, inputs, kind, chosen_B, config.label_smoothing),
            len(inputs),
        )
    return probe.eval()


def hidden_reader(probe: Probe, tokenizer: VideoTokenizer | SoundTokenizer) -> HiddenTokenReader:
    """Heads for the tokenizer's ids on top of a probe: digits that fit into FACTOR values are predicted together."""
    sizes, factors = alphabets(tokenizer), list[int]()
    for size in sizes:
        if factors and factors[-1] * size <= FACTOR:
            factors[-1] *= size
        else:
            factors.append(size)
    return HiddenTokenReader(probe, tuple(factors), sizes if len(sizes) > 1 else ())


def hidden_loss(reader: HiddenTokenReader, inputs: Inputs, kind: str, chosen_B: NDArray[np.int64]) -> Tensor:
    """Of predicting hidden tokens; how many are hidden is drawn for every clip, by the cosine schedule."""
    ids_BL = inputs.ids_NQthw[torch.from_numpy(chosen_B), 0].flatten(1)
    schedule = schedule_named("cosine")
    shares_B = torch.tensor([schedule(float(progress)) for progress in torch.rand(len(ids_BL))])
    hide_BL = torch.rand(len(ids_BL), math.prod(cells_of(inputs.grid))) < shares_B[:, None]
    hide_BL[:, 0] |= ~hide_BL.any(dim=1)
    return reader(inputs.features(kind, chosen_B), inputs.grid, ids_BL, hide_BL)


def fit_hidden(probe: Probe, inputs: Inputs, kind: str, config: FitConfig, seed: int) -> float:
    """Teach a transformer to predict hidden tokens of unlabelled clips; the mean loss of the last tenth, in nats."""
    reader = hidden_reader(probe, inputs.tokenizer)
    fitting, losses = Fitting(reader, config, seed), []
    for number in range(config.steps):
        loss_of = lambda chosen_B: hidden_loss(reader, inputs, kind, chosen_B)  # noqa: E731
        losses.append(fitting.step(number, config.steps, loss_of, len(inputs)))
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last)


class ProbeTrainer(Loop):
    """One run; `run` can be called again, also by another process, to go on.

    Raises:
        CheckpointError: the folder holds a run of another recipe.
    """

    def __init__(self, config: ProbeTrainConfig, data: Path | None, folder: Path, cache: Path | None = None) -> None:
        self.config = config
        clips, tokenizer = labelled_set(config.set, data), hub.load(config.tokenizer)
        self.train = Inputs(clips.train, tokenizer, cache or folder / "tokens", levels=config.levels)
        self.probe = new_probe(clips, self.train, config.input, config.size, config.seed)
        self.hiding = hidden_reader(self.probe, tokenizer) if config.hidden_steps else None
        hidden_fit = replace(config.fit, steps=max(1, config.hidden_steps))
        self.fittings = {
            "labels": Fitting(self.probe, config.fit, config.seed),
            **({"hidden": Fitting(self.hiding, hidden_fit, config.seed)} if self.hiding is not None else {}),
        }
        super().__init__(
            folder,
            config.hidden_steps + config.fit.steps,
            # The reader of hidden tokens holds the probe; a file holds every tensor once.
            {"probe": self.probe} if self.hiding is None else {"hiding": self.hiding},
            {name: fitting.adam for name, fitting in self.fittings.items()},
            config_hash=recipe_hash(fields_of(config), tokenizer.fingerprint, self.train.digest),
            save_every=config.save_every,
        )

    def run(self, *, minutes: float | None = None) -> Probe:
        """Train; stops cleanly after `minutes` or on an interrupt."""
        self.go(lambda step: ({"loss": self._step(step)}, None), deadline(minutes))
        return self.probe.eval()

    def _step(self, step: int) -> float:
        config, hidden = self.config, self.config.hidden_steps
        if self.hiding is not None and step < hidden:
            reader = self.hiding
            return self.fittings["hidden"].step(
                step, hidden, lambda chosen_B: hidden_loss(reader, self.train, config.input, chosen_B), len(self.train)
            )
        smoothing = config.fit.label_smoothing
        return self.fittings["labels"].step(
            step - hidden,
            config.fit.steps,
            lambda chosen_B: class_loss(self.probe, self.train, config.input, chosen_B, smoothing),
            len(self.train),
        )


@torch.inference_mode()
def judged(probe: Probe, inputs: Inputs, kind: str) -> dict[str, Tensor]:
    """Probabilities [N, classes] of every attribute for every clip."""
    probe.eval()
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, len(inputs), AT_ONCE):
        chosen_B = np.arange(start, min(start + AT_ONCE, len(inputs)))
        for name, logits_BV in probe(inputs.features(kind, chosen_B), inputs.grid).items():
            parts.setdefault(name, []).append(logits_BV.softmax(dim=1))
    return {name: torch.cat(found) for name, found in parts.items()}


def hash_of(seed: int, number: int) -> int:
    """A seed for torch of a step, unlike that of other seeds and steps."""
    return int(np.random.default_rng([number, seed]).integers(2**62))

"""The training loop, read from top to bottom: batch, forward, losses, backward, step, average, say, save.

Loader.batch(step) -> uint8 -> [-1, 1] -> network -> losses -> gradients -> Optimizers -> EMA
"""

from __future__ import annotations

import copy
import hashlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kinolex.data.loader import Loader, LoaderConfig, RenderWorld
from kinolex.data.packs import Pack
from kinolex.errors import CheckpointError, TrainingError
from kinolex.layers.conv3d import channels_last
from kinolex.metrics.perceptual import SqueezeNetFeatures
from kinolex.metrics.structure import ms_ssim_loss_B
from kinolex.tokenizers.networks import Network, build_network
from kinolex.tokenizers.quantizers import Quantized
from kinolex.tokenizers.quantizers.base import world_size
from kinolex.tokenizers.recurrent import RecurrentConfig
from kinolex.training.adversarial import Adversary
from kinolex.training.config import StageConfig, TrainConfig
from kinolex.training.grid import save_grid
from kinolex.training.losses import PerceptualLoss, quantizer_terms, reconstruction_terms, squeezenet_loss
from kinolex.training.optimizer import Optimizers, gradient_norm_
from kinolex.training.processes import any_process, rank
from kinolex.training.progress import Progress
from kinolex.training.state import Counters, load_state, save_state

SKIPS_BEFORE_ROLLBACK = 3
MAX_ROLLBACKS = 3
BEGINNINGS = 0.25
"""Share of the steps in which a recurrent network begins with a first frame."""


class Trainer:
    """One run. `run` trains until the last step, the time limit or an interrupt, and can be called again to go on.

    Args:
        config: the whole recipe.
        packs: training data.
        folder: state, log and grids; a state found there is continued.
        features_path: SqueezeNet weights for the perceptual loss; None uses 1 - MS-SSIM and says so.
        device: of the network.
        render_world: gives procedural clips when config.world_fraction is positive.

    Raises:
        CheckpointError: the folder holds a run of another config.
    """

    def __init__(
        self,
        config: TrainConfig,
        packs: Sequence[Pack],
        folder: Path,
        *,
        features_path: Path | None = None,
        device: str = "cpu",
        render_world: RenderWorld | None = None,
        model: Network | None = None,
    ) -> None:
        self.config, self.packs, self.folder, self.render_world = config, packs, folder, render_world
        self.device = torch.device(device)
        self.rank, self.world_size = rank(), world_size()
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        model = model or build_network(config.model)
        self.model = channels_last(model.to(self.device))
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizers = Optimizers(self.model, config.optimizer, config.total_steps)
        self.adversary = Adversary(config, self.device) if any(stage.adversarial for stage in config.stages) else None
        self.network: nn.Module = self.model
        if self.world_size > 1:
            # A recurrent network that sees single images does not need what it would remember.
            unused = isinstance(config.model, RecurrentConfig)
            self.network = DistributedDataParallel(self.model, find_unused_parameters=unused)
        self.perceptual = self._perceptual(features_path)
        self.counters = Counters(config_hash=_hash(config))
        if self.state_path.exists():
            self._load()

    @property
    def state_path(self) -> Path:
        return self.folder / "state.safetensors"

    def run(self, *, minutes: float | None = None) -> Network:
        """Train; returns the averaged network. Stops cleanly and saves after `minutes` or on an interrupt."""
        deadline = None if minutes is None else time.monotonic() + 60 * minutes
        total = self.config.total_steps
        vocab_size = self.model.quantizer.vocab_size
        self.progress = Progress(self.folder, total, self.counters.step, vocab_size=vocab_size, quiet=self.rank > 0)
        with stop_requests() as stop:

            def ended() -> bool:
                late = deadline is not None and time.monotonic() > deadline
                return any_process(stop.is_set() or late, self.device)

            while self.counters.step < total and not self._run_stage(self.config.stage_at(self.counters.step), ended):
                pass
            # Only here, between steps: a state saved in the middle of one could not be resumed to the same bits.
            self.save()
            self.progress.close()
            if stop.is_set():
                raise KeyboardInterrupt
        return self.average

    def _run_stage(self, stage: StageConfig, ended: Callable[[], bool]) -> bool:
        """Steps until the stage is over or a roll-back leaves it; returns whether the run was asked to end."""
        more = self.config.model.time_factor * max(stage.warm_steps - 1, 0)
        loader = Loader(
            self.packs,
            LoaderConfig(
                clip_frames=stage.clip_frames + more,
                crop=stage.crop,
                batch_video=stage.batch_video,
                batch_image=stage.batch_image,
                image_every=stage.image_every,
                image_frames=stage.image_frames + (more if stage.image_frames > 1 else 0),
                seed=self.config.seed,
                world_fraction=self.config.world_fraction if stage.clip_frames > 1 else 0.0,
            ),
            rank=self.rank,
            world_size=self.world_size,
            render_world=self.render_world,
        )
        in_a_row, offset = 0, self.counters.data_offset
        batches = loader.iterate(self.counters.step + offset)
        try:
            for batch in batches:
                step = self.counters.step
                bad = self._step(stage, step, [batch.video_BCTHW, batch.images_BCTHW])
                if bad is None:
                    in_a_row = 0
                    self.counters.step += 1
                else:
                    in_a_row += 1
                    self.counters.skipped += 1
                    self.counters.data_offset += 1
                    self.progress.say(f"step {step}: {bad} is not finite; skipped this batch")
                    if in_a_row >= SKIPS_BEFORE_ROLLBACK:
                        self._roll_back(bad)
                        return ended()
                    continue
                if self.counters.step % self.config.save_every == 0:
                    self.save()
                if self.counters.step % self.config.grid_every == 0 and self.rank == 0:
                    self._grid(loader)
                if ended():
                    return True
                done = self.counters.step >= self.config.total_steps
                if done or self.config.stage_at(self.counters.step) is not stage:
                    return False
        finally:
            batches.close()  # type: ignore[attr-defined]
        return False

    def _step(self, stage: StageConfig, step: int, clips: list[Tensor | None]) -> str | None:
        """One update; returns the name of the first thing that is not finite, and then has changed nothing."""
        # Layers with random behaviour use torch's own generator; seeding it per step keeps resuming exact.
        torch.manual_seed(_step_seed(self.config.seed, step, self.rank))
        generator = torch.Generator().manual_seed(_step_seed(self.config.seed + 1, step, self.rank))
        figures: dict[str, float] = {}
        ids = None
        pairs = []
        self.model.train()
        for is_image, clip_BCTHW in ((clips[0] is None or index > 0, clip) for index, clip in enumerate(clips)):
            if clip_BCTHW is None:
                continue
            pixels_BCTHW = self._to_pixels(clip_BCTHW)
            if stage.warm_steps and pixels_BCTHW.shape[2] > 1:
                pixels_BCTHW, output_BCTHW, quantized = self._warmed(pixels_BCTHW, stage, generator)
            else:
                with torch.autocast(self.device.type, dtype=torch.bfloat16):
                    output_BCTHW, quantized = self.network(pixels_BCTHW)
            losses = self.config.losses
            terms = reconstruction_terms(
                output_BCTHW, pixels_BCTHW, losses, self.perceptual, stage.perceptual_frames, generator
            ) | quantizer_terms(quantized.losses, losses, step)
            if stage.adversarial and self.adversary is not None:
                terms |= self.adversary.generator_terms(output_BCTHW, terms, self.model)
            share = losses.image if is_image and clips[0] is not None else 1.0
            loss = torch.stack(list(terms.values())).sum() * share
            bad = [name for name, term in {**terms, "loss": loss}.items() if not bool(torch.isfinite(term))]
            if any_process(bool(bad), self.device):
                return self._discard(f"loss term {bad[0]}" if bad else "a loss term in another process")
            loss.backward()
            if not figures:
                ids = quantized.ids_BQthw
                figures = {name: float(term.detach()) for name, term in terms.items()} | {"loss": float(loss.detach())}
                error = (output_BCTHW.detach().float().clamp(-1, 1) - pixels_BCTHW) / 2
                figures["psnr_db"] = float(-10 * torch.log10(error.square().mean() + 1e-10))
            pairs.append((pixels_BCTHW, output_BCTHW.detach()))
        norm = gradient_norm_(self.model.parameters(), self.config.optimizer.clip_norm)
        if norm != norm or norm == float("inf"):
            names = [
                name
                for name, parameter in self.model.named_parameters()
                if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all())
            ]
            return self._discard(f"gradient of {names[0] if names else 'the network'}")
        if stage.adversarial and self.adversary is not None:
            figures |= self.adversary.train_step(pairs, step, self.counters)
        self.optimizers.step(step)
        self.model.zero_grad(set_to_none=True)
        self._follow(step)
        figures["gradient_norm"] = norm
        self.counters.history += self.progress.step(step, figures, ids)
        return None

    def _warmed(
        self, pixels_BCTHW: Tensor, stage: StageConfig, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Quantized]:
        """As many frames as without warming up, of a stretch further on in the clip."""
        time = self.config.model.time_factor
        share, among = torch.rand(2, generator=generator).tolist()
        # First frames are seen once per clip; a quarter of the steps keeps them as good as they can be.
        steps = 0 if share < BEGINNINGS else 1 + int(among * stage.warm_steps)
        thrifty, weight = torch.rand(2, generator=generator).tolist()
        rate_weight = weight if thrifty < stage.thrifty else 0.0
        warm = 1 + time * (steps - 1) if steps else 0
        total = pixels_BCTHW.shape[2] - time * max(stage.warm_steps - max(steps, 1), 0)
        pixels_BCTHW = pixels_BCTHW[:, :, :total]
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            output_BCTHW, quantized = self.network(pixels_BCTHW, warm, rate_weight)
        return pixels_BCTHW[:, :, warm:], output_BCTHW, quantized

    def _to_pixels(self, clip_BCTHW: Tensor) -> Tensor:
        pixels_BCTHW = clip_BCTHW.to(self.device).float().div_(127.5).sub_(1.0)
        model = self.config.model
        if not model.causal and pixels_BCTHW.shape[2] == 1:
            # A network of windows sees an image as one latent frame that stands still.
            pixels_BCTHW = pixels_BCTHW.expand(-1, -1, model.time_factor, -1, -1)
        return pixels_BCTHW.contiguous(memory_format=torch.channels_last_3d)

    def _discard(self, what: str) -> str:
        self.model.zero_grad(set_to_none=True)
        return what

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        decay = min(self.config.optimizer.ema_decay, (1 + step) / (10 + step))
        for ours, theirs in zip(self.average.parameters(), self.model.parameters(), strict=True):
            ours.lerp_(theirs, 1 - decay)
        for ours, theirs in zip(self.average.buffers(), self.model.buffers(), strict=True):
            ours.copy_(theirs)

    def _roll_back(self, bad: str) -> None:
        counters = self.counters
        if counters.rollbacks >= MAX_ROLLBACKS:
            raise TrainingError(
                f"{bad} stayed non-finite after {counters.rollbacks} roll-backs; lower the learning rates or look at "
                f"the data near step {counters.step} with `kinolex data check`"
            )
        offset, rollbacks, skipped = counters.data_offset, counters.rollbacks + 1, counters.skipped
        if self.state_path.exists():
            self._load()
        self.counters.rollbacks, self.counters.skipped = rollbacks, skipped
        # Past the batches that broke it, or the same steps would break it again.
        self.counters.data_offset = offset + counters.step - self.counters.step
        self.progress.say(f"rolled back to step {self.counters.step}, the last good state")

    def save(self) -> None:
        """Write the state; the file is replaced whole."""
        if self.rank == 0:
            save_state(self.state_path, self._modules(), self._optimizers(), self.counters)

    def _load(self) -> None:
        found = load_state(self.state_path, self._modules(), self._optimizers())
        if found.config_hash != self.counters.config_hash:
            raise CheckpointError(
                f"{self.folder} holds a run of another recipe; give another --out, or restore the recipe it began with"
            )
        self.counters = found

    def _modules(self) -> dict[str, nn.Module]:
        modules: dict[str, nn.Module] = {"model": self.model, "average": self.average}
        return modules | ({"discriminator": self.adversary.network} if self.adversary else {})

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        ours: dict[str, torch.optim.Optimizer] = {"muon": self.optimizers.muon, "adam": self.optimizers.adam}
        return ours | ({"adam_discriminator": self.adversary.optimizer} if self.adversary else {})

    def _grid(self, loader: Loader) -> None:
        batch = loader.batch(0)
        clip_BCTHW = batch.video_BCTHW if batch.video_BCTHW is not None else batch.images_BCTHW
        assert clip_BCTHW is not None
        pixels_BCTHW = self._to_pixels(clip_BCTHW[:4])
        with torch.no_grad(), torch.autocast(self.device.type, dtype=torch.bfloat16):
            output_BCTHW, _ = self.average(pixels_BCTHW)
        save_grid(pixels_BCTHW, output_BCTHW, self.folder / "grids" / f"step{self.counters.step:06d}.png")

    def _perceptual(self, features_path: Path | None) -> PerceptualLoss:
        if features_path is not None:
            return squeezenet_loss(SqueezeNetFeatures(features_path).to(self.device))
        if self.config.losses.perceptual and self.rank == 0:
            print("no perceptual network given: training with 1 - MS-SSIM instead (docs/data.md says where to get one)")
        return ms_ssim_loss_B


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set instead of interrupting at once; a second one interrupts.

    Only the main thread may set handlers; elsewhere the event is never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(_signal: int, _frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _step_seed(seed: int, step: int, rank: int) -> int:
    digest = hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()
    return int.from_bytes(digest[:7], "little")


def _hash(config: TrainConfig) -> str:
    """Of everything that changes the weights."""
    fields = asdict(config)
    for name in ("save_every", "grid_every"):
        fields.pop(name)
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]

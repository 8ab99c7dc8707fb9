"""Training of video tokenizers, a step read from top to bottom: batch, forward, losses, backward, step, average.

Loader.batch(step) -> uint8 -> [-1, 1] -> network -> losses -> gradients -> Optimizers -> EMA
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kinolex.data.loader import Batch, Loader, LoaderConfig, RenderWorld
from kinolex.data.packs import Pack
from kinolex.errors import TrainingError
from kinolex.layers.conv3d import channels_last
from kinolex.layers.precision import fast_arithmetic
from kinolex.metrics.perceptual import SqueezeNetFeatures
from kinolex.metrics.structure import ms_ssim_loss_B
from kinolex.tokenizers.networks import Network, build_network
from kinolex.tokenizers.quantizers import Quantized
from kinolex.tokenizers.quantizers.base import world_size
from kinolex.tokenizers.recurrent import RecurrentConfig
from kinolex.training.adversarial import Adversary
from kinolex.training.config import StageConfig, TrainConfig
from kinolex.training.grid import save_grid
from kinolex.training.loop import NetworkLoop, Taken, deadline, fields_of, recipe_hash
from kinolex.training.losses import PerceptualLoss, quantizer_terms, reconstruction_terms, squeezenet_loss
from kinolex.training.optimizer import Optimizers, follow_, gradient_norm_
from kinolex.training.processes import any_process, rank

SKIPS_BEFORE_ROLLBACK = 3
MAX_ROLLBACKS = 3
BEGINNINGS = 0.25
"""Share of the steps in which a recurrent network begins with a first frame."""


class Trainer(NetworkLoop[Network]):
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
        self.config, self.packs, self.render_world = config, packs, render_world
        self.device = torch.device(device)
        self.rank, self.world_size = rank(), world_size()
        torch.manual_seed(config.seed)
        model = channels_last((model or build_network(config.model)).to(self.device))
        self.adversary = Adversary(config, self.device) if any(stage.adversarial for stage in config.stages) else None
        super().__init__(
            folder,
            model,
            Optimizers(model, config.optimizer, config.total_steps),
            more_modules={"discriminator": self.adversary.network} if self.adversary else None,
            more_optimizers={"adam_discriminator": self.adversary.optimizer} if self.adversary else None,
            config_hash=recipe_hash(fields_of(config, leave_out=("save_every", "grid_every"))),
            save_every=config.save_every,
            vocab_size=model.quantizer.vocab_size,
            other="another recipe; give another --out, or restore the recipe it began with",
        )
        self.network: nn.Module = self.model
        if self.world_size > 1:
            # A recurrent network that sees single images does not need what it would remember.
            unused = isinstance(config.model, RecurrentConfig)
            self.network = DistributedDataParallel(self.model, find_unused_parameters=unused)
        self.perceptual = self._perceptual(features_path)

    def run(self, *, minutes: float | None = None) -> Network:
        """Train; returns the averaged network. Stops cleanly and saves after `minutes` or on an interrupt."""
        with closing(_Batches(self._loader)) as batches:
            self.go(lambda step: self._take(step, batches), deadline(minutes), self.device)
        return self.average

    def record(self, step: int, figures: dict[str, float], ids: Tensor | None) -> list[str]:
        raised = super().record(step, figures, ids)
        self.counters.history += raised
        return raised

    def _loader(self, stage: StageConfig) -> Loader:
        more = self.config.model.time_factor * max(stage.warm_steps - 1, 0)
        return Loader(
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

    def _take(self, step: int, batches: _Batches) -> Taken | None:
        """A step on the next batch that is finite; several in a row that are not lead back to the state saved last."""
        stage, bad = self.config.stage_at(step), ""
        for _ in range(SKIPS_BEFORE_ROLLBACK):
            batch = batches.at(stage, step + self.counters.data_offset)
            taken = self._step(stage, step, [batch.video_BCTHW, batch.images_BCTHW])
            if not isinstance(taken, str):
                if (step + 1) % self.config.grid_every == 0 and self.rank == 0:
                    self._grid(batches.loader, step + 1)
                return taken
            bad = taken
            self.counters.skipped += 1
            self.counters.data_offset += 1
            self.progress.say(f"step {step}: {bad} is not finite; skipped this batch")
        self._roll_back(bad)
        return None

    def _step(self, stage: StageConfig, step: int, clips: list[Tensor | None]) -> Taken | str:
        """One update; or the name of the first thing that is not finite, and then it has changed nothing."""
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
                with fast_arithmetic(self.device):
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
        follow_(self.average, self.model, step, self.config.optimizer.ema_decay)
        return figures | {"gradient_norm": norm}, ids

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
        with fast_arithmetic(self.device):
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

    def _roll_back(self, bad: str) -> None:
        counters = self.counters
        if counters.rollbacks >= MAX_ROLLBACKS:
            raise TrainingError(
                f"{bad} stayed non-finite after {counters.rollbacks} roll-backs; lower the learning rates or look at "
                f"the data near step {counters.step} with `kinolex data check`"
            )
        offset, rollbacks, skipped = counters.data_offset, counters.rollbacks + 1, counters.skipped
        if self.state_path.exists():
            self.load()
        self.counters.rollbacks, self.counters.skipped = rollbacks, skipped
        # Past the batches that broke it, or the same steps would break it again.
        self.counters.data_offset = offset + counters.step - self.counters.step
        self.progress.say(f"rolled back to step {self.counters.step}, the last good state")

    def _grid(self, loader: Loader, step: int) -> None:
        batch = loader.batch(0)
        clip_BCTHW = batch.video_BCTHW if batch.video_BCTHW is not None else batch.images_BCTHW
        assert clip_BCTHW is not None
        pixels_BCTHW = self._to_pixels(clip_BCTHW[:4])
        with torch.no_grad(), fast_arithmetic(self.device):
            output_BCTHW, _ = self.average(pixels_BCTHW)
        save_grid(pixels_BCTHW, output_BCTHW, self.folder / "grids" / f"step{step:06d}.png")

    def _perceptual(self, features_path: Path | None) -> PerceptualLoss:
        if features_path is not None:
            return squeezenet_loss(SqueezeNetFeatures(features_path).to(self.device))
        if self.config.losses.perceptual and self.rank == 0:
            print("no perceptual network given: training with 1 - MS-SSIM instead (docs/data.md says where to get one)")
        return ms_ssim_loss_B


class _Batches:
    """Batches by their stage and number, drawn ahead as long as they are asked for one after the other."""

    def __init__(self, loader_of: Callable[[StageConfig], Loader]) -> None:
        self._loader_of = loader_of
        self._drawn: Iterator[Batch] | None = None
        self._next: tuple[StageConfig, int] | None = None

    def at(self, stage: StageConfig, number: int) -> Batch:
        if self._drawn is None or self._next != (stage, number):
            self.close()
            self.loader = self._loader_of(stage)
            self._drawn = self.loader.iterate(number)
        self._next = (stage, number + 1)
        return next(self._drawn)

    def close(self) -> None:
        if self._drawn is not None:
            self._drawn.close()  # type: ignore[attr-defined]


def _step_seed(seed: int, step: int, rank: int) -> int:
    digest = hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()
    return int.from_bytes(digest[:7], "little")

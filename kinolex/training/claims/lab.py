"""Where arms are trained and put to work: networks, tokens and truths, each made once and kept in one folder.

(arm, seed) --Trainer--> own tokenizer, if it has one --drawn_clips--> tokens --GeneratorTrainer--> network
network, task, held-out worlds --sampling, many clips at once--> ids --tokenizer--> clips

Killed at any time, the next call goes on: trained networks are kept by what they depend on, so claims share them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from kinolex import checkpoint, hub
from kinolex.data.packs import Pack
from kinolex.evaluation.page import write_text
from kinolex.evaluation.row_store import row_key
from kinolex.generation.baselines import Question, step_fn, velocity_fn
from kinolex.generation.windows import MaskedGenerator
from kinolex.masks import HIDDEN, halton_ranks
from kinolex.models.autoregressive import AutoregressiveTransformer
from kinolex.models.diffusion import DiffusionTransformer
from kinolex.models.factors import join_ids, split_ids
from kinolex.models.masked import MaskedTransformer
from kinolex.sampling.autoregressive import sample_autoregressive
from kinolex.sampling.choose import Choice
from kinolex.sampling.flow import FlowConfig, sample_flow, seeded_noise
from kinolex.sampling.parallel import ParallelConfig, sample_parallel
from kinolex.tasks.words import word_ids
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training.claims.arms import ENCODED, Arm
from kinolex.training.claims.scales import Scale
from kinolex.training.claims.worlds import (
    FIRST_HELD_OUT,
    Worlds,
    decode_many,
    drawn_clips,
    pose_many,
    render_worlds,
    write_pack,
)
from kinolex.training.engine import Trainer
from kinolex.training.generator_run import GeneratorTrainer
from kinolex.training.token_draws import Drawn

AT_ONCE = 16
"""Clips that are sampled together."""
SECONDS = "seconds.txt"

Say = Callable[[str], None]


class Lab:
    """Everything at one scale.

    Args:
        folder: where all is kept; call again with the same to go on.
        say: told what is being done.
    """

    def __init__(self, scale: Scale, folder: Path, *, device: str = "cpu", say: Say = lambda _line: None) -> None:
        self.scale, self.device, self.say = scale, device, say
        self.folder = folder / scale.name
        self._tokenizers: dict[str, VideoTokenizer] = {}
        self._networks: dict[str, nn.Module] = {}
        self._posed: dict[tuple[str, str], tuple[Tensor, Tensor]] = {}

    @cached_property
    def trained_on(self) -> Worlds:
        self.say(f"rendering {self.scale.clips} worlds of {self.scale.side} lines")
        return render_worlds(self.scale, 0, self.scale.clips)

    @cached_property
    def held_out(self) -> Worlds:
        return render_worlds(self.scale, FIRST_HELD_OUT, self.scale.eval_clips)

    def key(self, arm: Arm, seed: int) -> str:
        """Of the trained network of an arm: 16 hexadecimal digits of all that it depends on."""
        arm = arm.with_seed(seed)
        fingerprint = None
        if arm.tokenizer is None:
            fingerprint = checkpoint.read_description(hub.locate(arm.config.tokenizer))["fingerprint"]
        own = None if arm.tokenizer is None else asdict(arm.tokenizer)
        return row_key(
            asdict(arm.config), type(arm.config.network).__name__, own, fingerprint, self.scale.latent_frames
        )

    def is_trained(self, arm: Arm, seed: int) -> bool:
        return (self._run_folder(arm, seed) / "weights").is_dir()

    def train_seconds(self, arm: Arm, seed: int) -> float:
        """Spent on training an arm, over all calls; its own tokenizer included."""
        folders = [self._run_folder(arm, seed), *([self._tokenizer_folder(arm, seed)] if arm.tokenizer else [])]
        return sum(_seconds(folder) for folder in folders)

    def tokenizer(self, arm: Arm, seed: int) -> VideoTokenizer:
        """The arm's own, trained now if it was not, or the shipped one."""
        folder = self._tokenizer_folder(arm, seed)
        name = str(folder / "weights") if arm.tokenizer else arm.config.tokenizer
        if name not in self._tokenizers:
            if arm.tokenizer is not None and not (folder / "weights").is_dir():
                self._train_tokenizer(arm.with_seed(seed), folder)
            self._tokenizers[name] = hub.load(name).to(self.device)
        return self._tokenizers[name]

    def network(self, arm: Arm, seed: int) -> nn.Module:
        """The arm's transformer, trained now if it was not.

        Raises:
            KeyboardInterrupt: asked to stop; what was done is saved.
        """
        folder = self._run_folder(arm, seed)
        if folder.name not in self._networks:
            if not (folder / "weights").is_dir():
                self._train(arm.with_seed(seed), seed, folder)
            model, _ = checkpoint.load_module(folder / "weights")
            # One at a time is in use; holding all would cost memory.
            self._networks = {folder.name: model.to(self.device).eval().requires_grad_(False)} | dict(
                list(self._networks.items())[:1]
            )
        return self._networks[folder.name]

    def posed(self, arm: Arm, seed: int, task: str) -> tuple[Tensor, Tensor]:
        """Condition ids of the held-out worlds and where they are exact."""
        tokenizer = self.tokenizer(arm, seed)
        key = tokenizer.fingerprint, task
        if key not in self._posed:
            self._posed[key] = pose_many(tokenizer, self.held_out.frames_NTCHW, task)
        return self._posed[key]

    def words(self, arm: Arm, task: str) -> Tensor:
        """What is said of every held-out world [N, P]: its caption, where the task takes one."""
        network = arm.config.network
        said = self.held_out.captions if task == "class" else ("",) * self.scale.eval_clips
        return torch.stack([word_ids(text, network.words, network.max_words) for text in said])

    def make(self, arm: Arm, seed: int, task: str, *, passes: int | None = None) -> Tensor:
        """uint8 clips [N, T, C, H, W] made of the held-out worlds' conditions."""
        model, tokenizer = self.network(arm, seed), self.tokenizer(arm, seed)
        condition_Nthw, exact_thw = self.posed(arm, seed, task)
        words_NP, parts = self.words(arm, task), []
        for start in range(0, len(condition_Nthw), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            generator = torch.Generator().manual_seed(1000 * seed + start)
            parts.append(
                sample(
                    model,
                    tokenizer,
                    task,
                    condition_Nthw[part],
                    exact_thw,
                    words_NP[part],
                    arm.passes if passes is None else passes,
                    generator,
                )
            )
        return decode_many(tokenizer, torch.cat(parts))

    def prepare(self, arm: Arm, seed: int) -> None:
        """What training an arm reads and other arms read, too: tokens by the shipped tokenizer, or worlds in a pack."""
        if self.is_trained(arm, seed):
            return
        if arm.tokenizer is None:
            self._drawn(arm, seed)
        else:
            self._pack()

    def _drawn(self, arm: Arm, seed: int) -> list[Drawn]:
        """The worlds that are trained on, in the arm's tokens."""
        tokenizer, network = self.tokenizer(arm, seed), arm.config.network
        tasks = ENCODED if any(name in ENCODED for name, _ in arm.config.task_shares) or not network.words else ()
        data = row_key(tokenizer.fingerprint, tasks, network.words, self.scale.clips, self.scale.side)
        return drawn_clips(
            self.trained_on,
            tokenizer,
            tasks,
            network.words,
            network.max_words,
            self.folder / "tokens" / f"{data}.safetensors",
            lambda done, total: self.say(f"tokens of {done} of {total} worlds") if done % 320 == 0 else None,
        )

    def _pack(self) -> Pack:
        return write_pack(self.trained_on, self.folder / f"worlds-{self.scale.clips}-{self.scale.side}")

    def _train(self, arm: Arm, seed: int, folder: Path) -> None:
        tokenizer, drawn = self.tokenizer(arm, seed), {"worlds": self._drawn(arm, seed)}
        trainer = GeneratorTrainer(arm.config, tokenizer, {}, folder, device=self.device, drawn=drawn)
        with _Clock(folder):
            trainer.run()
        trainer.save_weights(folder / "weights", f"# {arm.name}, seed {seed}\n")
        trainer.state_path.unlink()

    def _train_tokenizer(self, arm: Arm, folder: Path) -> None:
        assert arm.tokenizer is not None
        trainer = Trainer(arm.tokenizer, [self._pack()], folder, device=self.device)
        with _Clock(folder):
            model = trainer.run()
        checkpoint.save(folder / "weights", model.cpu(), card=f"# Tokenizer of {arm.name}\n")
        trainer.state_path.unlink()

    def _run_folder(self, arm: Arm, seed: int) -> Path:
        return self.folder / "networks" / self.key(arm, seed)

    def _tokenizer_folder(self, arm: Arm, seed: int) -> Path:
        own = arm.with_seed(seed).tokenizer
        return self.folder / "tokenizers" / row_key(None if own is None else asdict(own), self.scale.clips)


def sample(
    model: nn.Module,
    tokenizer: VideoTokenizer,
    task: str,
    condition_Bthw: Tensor,
    exact_thw: Tensor,
    words_BP: Tensor,
    passes: int,
    generator: torch.Generator,
) -> Tensor:
    """Ids [B, t, h, w] of one window by any of the three networks, in the way that each of them ships.

    Args:
        exact_thw: bool, condition ids that stay; the same for all.
        passes: of masked networks, and steps of flow; the autoregressive one takes a pass per open token.
    """
    device = tokenizer.device
    grid = (condition_Bthw.shape[1], condition_Bthw.shape[2], condition_Bthw.shape[3])
    condition_Bthw, exact_L = condition_Bthw.to(device), exact_thw.flatten()
    if isinstance(model, MaskedTransformer):
        logits_fn = MaskedGenerator(model, tokenizer, "").logits_fn(task, words_BP, grid=grid, first=True)
        condition_BLF = split_ids(condition_Bthw.flatten(1), model.config.factors)
        filled_BLF = sample_parallel(
            logits_fn,
            condition_BLF,
            ParallelConfig(steps=passes),
            generator,
            fixed_L=exact_L,
            ranks_L=halton_ranks(grid).flatten(),
        )
        ids_BL = join_ids(filled_BLF, model.config.factors)
    else:
        assert isinstance(model, AutoregressiveTransformer | DiffusionTransformer)
        batch = len(condition_Bthw)
        asked = Question(
            condition_Bthw,
            torch.full((batch,), model.config.tasks.index(task), device=device),
            words_BP.to(device),
            torch.ones(batch, dtype=torch.bool, device=device),
        )
        exact_thw = exact_thw.to(device)
        if isinstance(model, AutoregressiveTransformer):
            known_Bthw = torch.where(exact_thw, condition_Bthw, HIDDEN)
            known_BLF = split_ids(known_Bthw.flatten(1), model.config.factors)
            filled_BLF = sample_autoregressive(step_fn(model, asked), known_BLF, Choice(), generator)
            ids_BL = join_ids(filled_BLF, model.config.factors)
        else:
            known_BLC = model.latents(condition_Bthw)
            noise_BLC = seeded_noise(tuple(known_BLC.shape), generator, known_BLC.device)
            exact_BL = exact_L.to(device).expand(batch, -1)
            config = FlowConfig(steps=passes)
            made_BLC = sample_flow(velocity_fn(model, asked), noise_BLC, config, known_BLC=known_BLC, exact_BL=exact_BL)
            ids_BL = model.ids(made_BLC)
    return rearrange(ids_BL.cpu(), "b (t h w) -> b t h w", t=grid[0], h=grid[1], w=grid[2])


class _Clock:
    """Adds the seconds between enter and exit to a file, also when what is between is interrupted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        self.began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        spent = _seconds(self.folder) + time.monotonic() - self.began
        write_text(self.folder / SECONDS, f"{spent:.3f}\n")


def _seconds(folder: Path) -> float:
    path = folder / SECONDS
    return float(path.read_text()) if path.is_file() else 0.0

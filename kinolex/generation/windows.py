"""A trained generator at work: a task posed in tokens becomes tokens, window by window, to any length.

    Posed --windows--> condition + settled tokens --sample_parallel(logits_fn)--> settled tokens --> Tokens

Windows overlap in tokens: what one window settled is given to the next as it is, so nothing is ever decoded and encoded
again, and the decoder runs over one stream from the first frame to the last.

Source: MAGVIT, arXiv 2212.05199; long videos by feeding back the last tokens: VideoPoet, arXiv 2312.14125.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from einops import rearrange
from torch import Tensor

from kinolex.errors import ConfigError, UsageError
from kinolex.masks import HIDDEN, halton_ranks
from kinolex.models.factors import join_ids, split_ids
from kinolex.models.masked import MaskedConfig, MaskedTransformer
from kinolex.sampling.parallel import FactorLogits, LogitsFn, ParallelConfig, guided, sample_parallel
from kinolex.tasks.base import Posed
from kinolex.tasks.words import GUIDANCE, word_ids
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Extent, Tokens

ORDERS = ("even", "surest")
OVERLAP = 2
"""Latent frames that a window takes over from the one before."""

WITHOUT = "class"
"""The task that, without words, says nothing of what is wanted: what guidance pushes away from."""

OnWindow = Callable[[int, int, Tensor], None]
"""(pass, passes of this window, ids [t, h, w] of the window, HIDDEN where not settled)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateConfig:
    """How tokens are drawn."""

    sampling: ParallelConfig = field(default_factory=ParallelConfig)
    guidance: float | None = None
    """Push away from what would be made of the same tokens without words or task; doubles the work. By default
    kinolex.tasks.words.GUIDANCE where words alone are given, and none where pixels are, which it harms."""
    order: str = "even"
    """In which tokens are settled: "even", spread over the window by a Halton sequence, or "surest", as MAGVIT does."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise UsageError(f"no order {self.order!r}; choose one of {', '.join(ORDERS)}")
        if self.guidance is not None and not 0 <= self.guidance < math.inf:
            raise UsageError(f"guidance must be 0 or more and finite, got {self.guidance}")


class MaskedGenerator:
    """A masked transformer and the tokenizer whose ids it knows.

    Raises:
        ConfigError: they do not belong together.
    """

    def __init__(self, model: MaskedTransformer, tokenizer: VideoTokenizer, fingerprint: str) -> None:
        if model.config.tokenizer != tokenizer.fingerprint:
            raise ConfigError(
                f"this generator knows the ids of tokenizer {model.config.tokenizer[:12]}, not of "
                f"{tokenizer.fingerprint[:12]}; load the one it was trained with"
            )
        if not tokenizer.config.causal or math.prod(model.config.factors) != tokenizer.vocab_size:
            raise ConfigError(
                f"a generator of factors {model.config.factors} needs a causal tokenizer with as many ids, got "
                f"{tokenizer}"
            )
        self.model = model.eval().requires_grad_(False)
        self.tokenizer, self.fingerprint = tokenizer, fingerprint

    @property
    def config(self) -> MaskedConfig:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return self.tokenizer.device

    def to(self, device: str | torch.device) -> MaskedGenerator:
        """Move both networks; returns self. Raises UsageError if the device cannot be used."""
        self.tokenizer.to(device)
        self.model.to(device)
        return self

    def logits_fn(self, task: str, words_P: Tensor, *, grid: tuple[int, int, int], first: bool) -> LogitsFn:
        """What sampling asks: factors [B, L, F] of a grid -> logits, for one task and one wish."""
        index = self.config.tasks.index(task)

        def logits_fn(ids_BLF: Tensor) -> FactorLogits:
            batch = len(ids_BLF)
            hidden_BL = (ids_BLF == HIDDEN).any(dim=-1)
            joined_BL = torch.where(hidden_BL, HIDDEN, join_ids(ids_BLF.clamp(min=0), self.config.factors))
            ids_Bthw = joined_BL.reshape(batch, *grid)
            tasks_B = torch.full((batch,), index, device=self.device)
            words_BP = words_P.to(self.device).expand(batch, -1)
            first_B = torch.full((batch,), first, device=self.device)
            with self._autocast():
                hidden_BLD = self.model.hidden(ids_Bthw, tasks_B, words_BP, first_B)

            def factor_logits(factor: int, chosen_BLF: Tensor) -> Tensor:
                with self._autocast():
                    return self.model.logits(hidden_BLD, factor, chosen_BLF)

            return factor_logits

        return logits_fn

    def generate(
        self,
        posed: Posed,
        config: GenerateConfig | None = None,
        *,
        text: str = "",
        on_window: OnWindow | None = None,
    ) -> Tokens:
        """Tokens for the whole extent that was asked for.

        Args:
            posed: condition tokens, HIDDEN where nothing is given. Its exact tokens stay as they are; the others saw
                padding when they were encoded and are refined.
            text: a class or caption; "" says nothing.

        Raises:
            UsageError: a word that the model does not know, or a task that it was not trained for; guidance by a model
            that was not trained for classes.
        """
        pieces = list(self.stream(posed, config, text=text, on_window=on_window))
        return Tokens(torch.cat(pieces, dim=0)[None], "video", self.tokenizer.fingerprint, posed.extent)

    def stream(
        self,
        posed: Posed,
        config: GenerateConfig | None = None,
        *,
        text: str = "",
        on_window: OnWindow | None = None,
    ) -> Iterator[Tensor]:
        """New ids [t, h, w] of one window after the other; arguments and errors as of generate."""
        config = config or GenerateConfig()
        words_P = word_ids(text, self.config.words, self.config.max_words)
        self.check_task(posed.task)
        if config.guidance is None:
            config = replace(config, guidance=GUIDANCE if posed.task == WITHOUT and bool(words_P.any()) else 0.0)
        if config.guidance and WITHOUT not in self.config.tasks:
            raise UsageError(f"guidance needs a model that was trained for {WITHOUT}, this one was not; leave it at 0")
        condition_thw = posed.condition_thw
        total = len(condition_thw)
        settled_thw = torch.where(posed.exact_thw, condition_thw, HIDDEN)
        done = _leading(settled_thw)
        if done:
            yield settled_thw[:done]
        while done < total:
            start, stop = _window(done, total, self.config.latent_frames)
            window_thw = settled_thw[start:stop]
            fixed_thw = window_thw != HIDDEN
            window_thw = torch.where(fixed_thw, window_thw, condition_thw[start:stop])
            task = self._task_here(posed.task, window_thw, fixed_thw, bool(words_P.any()))
            ids_thw = self._fill(task, window_thw, fixed_thw, words_P, start, config, on_window)
            settled_thw[start:stop] = ids_thw
            yield ids_thw[done - start :]
            done = stop

    def check_task(self, name: str) -> None:
        """Raises UsageError for a task that this network was not trained for."""
        if name not in self.config.tasks:
            raise UsageError(f"this model was not trained for {name}; its tasks are {', '.join(self.config.tasks)}")

    def _task_here(self, task: str, window_thw: Tensor, fixed_thw: Tensor, said: bool) -> str:
        """A window of which nothing is known but settled frames goes on from them, whatever was asked of the whole."""
        settled = _leading(torch.where(fixed_thw, window_thw, HIDDEN))
        if not settled or bool((window_thw[settled:] != HIDDEN).any()):
            return task
        going_on = "class-prediction" if said else "frame-prediction"
        return going_on if going_on in self.config.tasks else task

    def _fill(
        self,
        task: str,
        window_thw: Tensor,
        fixed_thw: Tensor,
        words_P: Tensor,
        start: int,
        config: GenerateConfig,
        on_window: OnWindow | None,
    ) -> Tensor:
        """All ids of one window."""
        grid = (window_thw.shape[0], window_thw.shape[1], window_thw.shape[2])
        factors = self.config.factors
        generator = torch.Generator().manual_seed(window_seed(config.seed, start))
        logits_fn = self.logits_fn(task, words_P, grid=grid, first=start == 0)
        if config.guidance:
            nothing = self.logits_fn(WITHOUT, torch.zeros_like(words_P), grid=grid, first=start == 0)
            logits_fn = guided(logits_fn, nothing, config.guidance)

        def on_step(number: int, passes: int, factors_BLF: Tensor) -> None:
            if on_window is not None:
                hidden_L = (factors_BLF[0] == HIDDEN).any(dim=-1)
                ids_L = torch.where(hidden_L, HIDDEN, join_ids(factors_BLF[0].clamp(min=0), factors))
                on_window(number, passes, ids_L.reshape(grid).cpu())

        condition_BLF = split_ids(window_thw.flatten(), factors)[None].to(self.device)
        filled_BLF = sample_parallel(
            logits_fn,
            condition_BLF,
            config.sampling,
            generator,
            fixed_L=fixed_thw.flatten(),
            ranks_L=halton_ranks(grid).flatten() if config.order == "even" else None,
            on_step=on_step,
        )
        ids_L = join_ids(filled_BLF[0], factors).cpu()
        return rearrange(ids_L, "(t h w) -> t h w", t=grid[0], h=grid[1], w=grid[2])

    def _autocast(self) -> torch.autocast:
        return self.tokenizer.autocast()

    def __repr__(self) -> str:
        config = self.config
        return f"MaskedGenerator({len(config.tasks)} tasks, {len(config.words)} words, {self.fingerprint[:12]})"


def longer(posed: Posed, frames: int, latents: int) -> Posed:
    """The same question about a longer clip: nothing is known of what follows."""
    more = latents - len(posed.condition_thw)
    if more < 0:
        raise UsageError(f"{len(posed.condition_thw)} latent frames are given, more than the {latents} asked for")
    hidden_thw = torch.full((more, *posed.condition_thw.shape[1:]), HIDDEN)
    extent = Extent(frames=frames, height=posed.extent.height, width=posed.extent.width, fps=posed.extent.fps)
    exact_thw = torch.cat([posed.exact_thw, torch.zeros_like(hidden_thw, dtype=torch.bool)])
    return replace(
        posed, condition_thw=torch.cat([posed.condition_thw, hidden_thw]), extent=extent, exact_thw=exact_thw
    )


def _leading(settled_thw: Tensor) -> int:
    """Leading latent frames in which everything is settled."""
    whole_t = (settled_thw != HIDDEN).flatten(1).all(dim=1)
    return int(whole_t.long().cumprod(dim=0).sum())


def _window(done: int, total: int, length: int) -> tuple[int, int]:
    """Where the next window lies once `done` latent frames are settled."""
    start = max(0, done - min(OVERLAP, length - 1))
    stop = min(total, start + length)
    return max(0, stop - length), stop


def window_seed(seed: int, start: int) -> int:
    """Every window has noise of its own; the same seed gives the same video."""
    digest = hashlib.sha256(f"{seed}/{start}".encode()).digest()
    return int.from_bytes(digest[:7], "little")

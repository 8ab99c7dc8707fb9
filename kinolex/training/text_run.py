"""Train a small causal language model on text alone: one loop, seeded, killed at any time and resumed to the same bits.

text --(seed, step)--> rows of ids --Llama--> loss on what can be predicted --> weights and their average
                                                       out/weights: a folder that transformers loads by itself
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinolex.errors import CheckpointError, ConfigError
from kinolex.layers.precision import fast_arithmetic
from kinolex.models.frozen_lm import FrozenLM, no_bars, require_transformers
from kinolex.training.config import OptimizerConfig
from kinolex.training.loop import NetworkLoop, deadline, fields_of, recipe_hash
from kinolex.training.optimizer import Optimizers
from kinolex.training.text_data import (
    ANSWER,
    PAIRING_SHARES,
    QUESTION_SHARES,
    REPEATING_SHARES,
    SHARES,
    SHOWN,
    TextSet,
    read_sources,
    train_tokenizer,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TextTrainConfig:
    """A recipe for a language model of the Llama family."""

    vocab_size: int
    width: int
    depth: int
    heads: int
    inner: int
    """Width between the two layers of an MLP."""
    max_length: int
    """Positions that the model says it has."""
    steps: int
    rows: int
    length: int
    """Ids per row in training."""
    start: str = ""
    """A trained model of the same shape to go on from, whose vocabulary stays; empty: from nothing."""
    repeating_steps: int = 0
    """First steps, in which text is full of words that are said again."""
    pairing_steps: int = 0
    """Steps after these, in which text is full of single words with labels."""
    question_steps: int = 0
    """Steps after these, in which text is full of questions about words."""
    embedding_steps: int | None = None
    """First steps, in which the embeddings learn; then they stay, so that a word tokenizer made of them still fits.
    None is all steps."""
    answer_weight: float = 4.0
    """Of an answer in a pattern against a word of prose: there are few of them and they teach the most."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(muon_lr=0.02, adam_lr=3e-3, ema_decay=0.99)
    )
    save_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        sizes = (self.width, self.depth, self.heads, self.inner, self.steps, self.rows, self.save_every)
        if min(sizes) < 1 or not 8 <= self.length <= self.max_length or self.vocab_size < 300:
            raise ConfigError(
                "a language model needs positive sizes, 8 or more ids a row, no more than it has positions, and a "
                f"vocabulary of 300 or more, got {self}"
            )
        if self.width % (2 * self.heads):
            raise ConfigError(f"{self.heads} heads need a width that is a multiple of {2 * self.heads}: {self.width}")


class TextTrainer(NetworkLoop[Any]):
    """One run; `run` can be called again, also by another process, to go on.

    Args:
        data: folder with text/tinyshakespeare.txt and perceptual/imagenet_labels.json; captions of clips are used
            where they are there.

        start: the model to go on from.

    Raises:
        DataError: a text is missing.
        CheckpointError: the folder holds a run of another recipe or of other texts, or start has another shape.
    """

    def __init__(self, config: TextTrainConfig, data: Path, folder: Path, *, start: FrozenLM | None = None) -> None:
        self.config = config
        transformers = require_transformers()
        sources = read_sources(data)
        self.tokenizer = start.tokenizer if start is not None else self._tokenizer(sources, folder / "tokenizer")
        shape = transformers.LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.width,
            intermediate_size=config.inner,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=config.max_length,
            tie_word_embeddings=True,
            bos_token_id=self.tokenizer.eos_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.eos_token_id,
        )
        torch.manual_seed(config.seed)
        self.whole = transformers.LlamaForCausalLM(shape)
        if start is not None:
            theirs = start.model.state_dict()
            if {name: value.shape for name, value in theirs.items()} != {
                name: value.shape for name, value in self.whole.state_dict().items()
            }:
                raise CheckpointError(f"{config.start} has another shape than the recipe's; choose weights that fit it")
            self.whole.load_state_dict(theirs)
        model = self.whole.model
        # The names that Optimizers sorts by.
        parts = nn.ModuleDict({"blocks": model.layers, "embed": model.embed_tokens, "norm": model.norm})
        self.text = TextSet(sources, FrozenLM(copy.deepcopy(self.whole), self.tokenizer))
        super().__init__(
            folder,
            model,
            Optimizers(parts, config.optimizer, config.steps),
            config_hash=recipe_hash(fields_of(config), sources.play, sources.captions, sources.labels),
            save_every=config.save_every,
            other="another recipe or of other texts; use another --out folder",
        )

    def run(self, *, minutes: float | None = None) -> FrozenLM:
        """Train; returns the averaged model. Stops cleanly after `minutes` or on an interrupt."""
        config = self.config

        def step_of(step: int) -> tuple[dict[str, float], None]:
            shares = self._shares(step)
            batch = self.text.batch(config.seed, step, config.rows, config.length, shares)
            return self._step(*batch, step), None

        self.go(step_of, deadline(minutes))
        return self.finished()

    def _shares(self, step: int) -> Mapping[str, float]:
        """Of documents by kind."""
        begins = 0
        for steps, shares in (
            (self.config.repeating_steps, REPEATING_SHARES),
            (self.config.pairing_steps, PAIRING_SHARES),
            (self.config.question_steps, QUESTION_SHARES),
        ):
            begins += steps
            if step < begins:
                return shares
        return SHARES

    def finished(self) -> FrozenLM:
        """The average as a model of its own."""
        model = copy.deepcopy(self.whole)
        model.model.load_state_dict(self.average.state_dict())
        model.tie_weights()
        return FrozenLM(model, self.tokenizer)

    def _step(self, ids_BL: Tensor, parts_BL: Tensor, step: int) -> dict[str, float]:
        """One update; the loss, that of prose, and the share of ids of answers that are the likeliest."""
        wanted_N = parts_BL[:, 1:] != SHOWN
        with fast_arithmetic():
            hidden_BLD = self.model(input_ids=ids_BL[:, :-1], use_cache=False).last_hidden_state
            logits_NV = F.linear(hidden_BLD[wanted_N], self.model.embed_tokens.weight)
        targets_N, answers_N = ids_BL[:, 1:][wanted_N], parts_BL[:, 1:][wanted_N] == ANSWER
        losses_N = F.cross_entropy(logits_NV.float(), targets_N, reduction="none")
        weights_N = torch.where(answers_N, self.config.answer_weight, 1.0)
        loss = (losses_N * weights_N).sum() / weights_N.sum()
        loss.backward()
        if self.config.embedding_steps is not None and step >= self.config.embedding_steps:
            self.model.embed_tokens.weight.grad = None
        self.update(step)
        right_N = (logits_NV.argmax(dim=1) == targets_N)[answers_N].float()
        prose = float(losses_N[~answers_N].detach().mean())
        return {"loss": float(loss.detach()), "prose": prose, "answers": float(right_N.sum() / max(1, len(right_N)))}

    def _tokenizer(self, sources: Any, folder: Path) -> Any:
        """Trained once per run and kept, so that a resumed run has the very same ids."""
        if not (folder / "tokenizer.json").is_file():
            tokenizer = train_tokenizer(sources, self.config.vocab_size)
            if len(tokenizer) != self.config.vocab_size:
                raise ConfigError(f"these texts give a vocabulary of {len(tokenizer)}; ask for no more than that")
            temporary = folder.with_name("tokenizer.part")
            shutil.rmtree(temporary, ignore_errors=True)
            tokenizer.save_pretrained(temporary)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(temporary, folder)
        return require_transformers().PreTrainedTokenizerFast.from_pretrained(folder)


def save_language_model(folder: Path, lm: FrozenLM, card: str) -> None:
    """A folder that transformers loads by itself, weights in bfloat16; an earlier one is replaced whole."""
    temporary, old = folder.with_name(folder.name + ".part"), folder.with_name(folder.name + ".old")
    shutil.rmtree(temporary, ignore_errors=True)
    with no_bars(require_transformers()):
        copy.deepcopy(lm.model).to(torch.bfloat16).save_pretrained(temporary)
    lm.tokenizer.save_pretrained(temporary)
    (temporary / "README.md").write_text(card, encoding="utf-8")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)

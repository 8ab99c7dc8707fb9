"""Recipes of the word systems carried out: a language model from text, and a tokenizer of pictures into its words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kinolex import checkpoint, hub
from kinolex.errors import UsageError
from kinolex.tokenizers.quantizers.base import world_size
from kinolex.training.spae_run import SpaeTrainConfig, SpaeTrainer
from kinolex.training.text_run import TextTrainConfig, TextTrainer, save_language_model

WordRecipe = TextTrainConfig | SpaeTrainConfig


def train_words(
    config: WordRecipe, data: Path, out: Path, *, minutes: float | None, device: str, init: str | Path | None, name: str
) -> Path:
    """Train what a recipe of this kind describes; the folder of the weights.

    Args:
        init: of a word tokenizer, the language model that it is for.

    Raises:
        UsageError: another device than the CPU, several processes, or a language model from other weights.
    """
    if device != "cpu" or world_size() > 1:
        raise UsageError("language models and word tokenizers train on the CPU, in one process; leave out device")
    if isinstance(config, SpaeTrainConfig):
        return _train_spae(
            config if init is None else replace(config, language_model=str(init)), data, out, minutes, name
        )
    if init is not None:
        raise UsageError("language models train from scratch; leave out init")
    trainer = TextTrainer(config, data, out)
    lm = trainer.run(minutes=minutes)
    card = (
        f"# {Path(name).stem}\n\nTrained for {trainer.counters.step} of {config.steps} steps by {name} on text alone: "
        "tinyshakespeare (train part), captions of worlds, captions and label lists of the data folder, and patterns "
        "of random words in context (kinolex/training/text_data.py). No picture, and no token of one, was used.\n"
    )
    save_language_model(out / "weights", lm, card)
    return out / "weights"


def _train_spae(config: SpaeTrainConfig, data: Path, out: Path, minutes: float | None, name: str) -> Path:
    trainer = SpaeTrainer(config, hub.load_lm(config.language_model), data, out)
    model = trainer.run(minutes=minutes)
    done = f"{trainer.counters.step} of {config.steps}"
    sets = ", ".join(name for name, _ in config.sets)
    card = (
        f"# {Path(name).stem}\n\nTrained for {done} steps by {name} on pictures of {sets} (train), with the words of "
        f"{Path(config.language_model).name}.\n"
    )
    checkpoint.save(out / "weights", model, card=card)
    return out / "weights"

"""Recipes of the word systems: a language model from text, carried out and put into a folder."""

from __future__ import annotations

from pathlib import Path

from kinolex.errors import UsageError
from kinolex.tokenizers.quantizers.base import world_size
from kinolex.training.text_run import TextTrainConfig, TextTrainer, save_language_model

WordRecipe = TextTrainConfig


def train_words(
    config: WordRecipe, data: Path, out: Path, *, minutes: float | None, device: str, init: str | Path | None, name: str
) -> Path:
    """Train what a recipe of this kind describes; the folder of the weights.

    Raises:
        UsageError: another device than the CPU, several processes, or weights to start from.
    """
    if device != "cpu" or world_size() > 1 or init is not None:
        raise UsageError("language models train from scratch, on the CPU, in one process; leave out device and init")
    trainer = TextTrainer(config, data, out)
    lm = trainer.run(minutes=minutes)
    card = (
        f"# {Path(name).stem}\n\nTrained for {trainer.counters.step} of {config.steps} steps by {name} on text alone: "
        "tinyshakespeare (train part), captions of worlds, captions and label lists of the data folder, and patterns "
        "of random words in context (kinolex/training/text_data.py). No picture, and no token of one, was used.\n"
    )
    save_language_model(out / "weights", lm, card)
    return out / "weights"

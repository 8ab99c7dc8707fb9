"""What evaluation asks of a multimodal generator: one task in memory, and clips as its tokenizers give them back."""

from __future__ import annotations

from dataclasses import replace

from kinolex.errors import ShapeError
from kinolex.generation.decoding import DecodeConfig
from kinolex.generation.multimodal import Made, MultimodalGenerator
from kinolex.tasks.multimodal import task_named
from kinolex.types import Clip


def ask(
    generator: MultimodalGenerator, decoding: DecodeConfig, name: str, *, text: str = "", clip: Clip | None = None
) -> Made:
    """What a task makes of words or of a clip with its sound. Without words there is no guidance."""
    task = task_named(name)
    sound = None if clip is None or clip.sound is None else generator.sound_of(clip.sound)
    material = generator.material(task, text=text, clip=clip, sound=sound)
    if not text:
        decoding = replace(decoding, guidance=0.0)
    found, passes, tokens = generator.make(task, material, decoding)
    return replace(generator.finish(task, material, found, clip), passes=passes, tokens=tokens)


def through_tokenizers(generator: MultimodalGenerator, clip: Clip) -> Clip:
    """A clip and its sound, encoded and decoded: what no generator of these tokens can be expected to beat.

    Raises:
        ShapeError: a clip without sound.
    """
    if clip.sound is None:
        raise ShapeError(f"{clip!r} has no sound; give one that has some")
    levels = generator.model.config.vocabulary.sound_levels
    pictures = generator.video.decode(generator.video.encode(clip.with_sound(None)))
    sound = generator.sound_of(clip.sound)
    return pictures.with_sound(generator.sound.decode(generator.sound.encode(sound, levels)))

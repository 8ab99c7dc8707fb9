"""Does a multimodal generator show and say the digit that it is told, shown or said?

    "seven" --text-to-both--> picture, sound     picture --video-to-sound--> sound     sound --sound-to-video--> picture
                        all judged by small classifiers of real digits: kinolex.evaluation.digits

Pictures and recordings are of the test part, which no generator of ours has learned from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kinolex.data.spoken_digits import DIGIT_WORDS, DigitCollection, DigitConfig
from kinolex.evaluation.ask import ask, through_tokenizers
from kinolex.evaluation.digits import Judges, digit_scores
from kinolex.generation.decoding import DecodeConfig
from kinolex.generation.multimodal import MultimodalGenerator
from kinolex.types import Clip


def evaluate_digits(
    generator: MultimodalGenerator,
    judges: Judges,
    digits: DigitCollection,
    count: int,
    decoding: DecodeConfig,
    *,
    on_clip: Callable[[int, int | None], None] = lambda _done, _total: None,
) -> dict[str, Any]:
    """Ask for spoken digits by their words, and for what belongs to their pictures and to their sound.

    Args:
        digits: what is asked for, and what pictures and sounds are of.
        decoding: its seed is that of the first digit, and one more for every other.

    Returns:
        Scores of kinolex.evaluation.digits.digit_scores for what was `made` from words, for `sound for` pictures and
        `picture for` sound beside what they were made for, and of the digits themselves, `composed` and through the
        tokenizers (`ceiling`); `described`: share of clips that are called by the right word alone.

    Raises:
        UsageError: the generator does not know the words.
    """
    for word in DIGIT_WORDS:
        generator.text_ids(word)
    lines = generator.model.config.lines
    config = DigitConfig(frames=generator.frames, side=lines, fps=generator.fps)
    clips: dict[str, list[Clip]] = {name: [] for name in ("made", "sound for", "picture for", "ceiling", "composed")}
    names, described = [], 0
    for index in range(count):
        spoken, drawn = digits.draw(index, config), replace(decoding, seed=decoding.seed + index)
        silent = spoken.clip.with_sound(None)
        both = ask(generator, drawn, "text-to-both", text=spoken.caption)
        heard = ask(generator, drawn, "video-to-sound", clip=silent)
        seen = ask(generator, drawn, "sound-to-video", clip=spoken.clip)
        assert both.clip is not None and seen.clip is not None
        clips["made"].append(both.clip.with_sound(both.sound))
        clips["sound for"].append(silent.with_sound(heard.sound))
        clips["picture for"].append(seen.clip.with_sound(spoken.clip.sound))
        clips["ceiling"].append(through_tokenizers(generator, spoken.clip))
        clips["composed"].append(spoken.clip)
        described += ask(generator, drawn, "describe", clip=spoken.clip).text == DIGIT_WORDS[spoken.digit]
        names.append(spoken.digit)
        on_clip(index + 1, count)
    scores: dict[str, Any] = {name: digit_scores(judges, shown, names) for name, shown in clips.items()}
    return scores | {"described": round(described / count, 4)}

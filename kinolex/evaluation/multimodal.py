"""Does a multimodal generator of worlds do what it is told, and do its picture and its sound go together?

    caption --text-to-both--> clip, sound --worlds.judge--> attributes right        --worlds.measure--> sync
    rendered clip --video-to-sound--> sound --> sync        rendered clip --describe--> words right
    spoken digits --> digit right, seen and heard           a long video --> drift of loudness and colour

Beside it the controls: sound shuffled over the clips, and pictures with the sound that a second, separate drawing made
of the same caption. No network judges, but for digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kinolex.data.spoken_digits import DigitCollection
from kinolex.data.worlds import WorldConfig, asked_of, judge_each, render
from kinolex.errors import ConfigError, UsageError
from kinolex.evaluation.ask import ask, through_tokenizers
from kinolex.evaluation.digits import train_judges
from kinolex.evaluation.drift import drift_of
from kinolex.evaluation.multimodal_digits import evaluate_digits
from kinolex.evaluation.protocol import Hashed, make_result, write_result
from kinolex.evaluation.world_sync import SILENT, sync_scores, watched
from kinolex.generation.decoding import DecodeConfig
from kinolex.generation.long import fulfil_long
from kinolex.generation.multimodal import MultimodalGenerator, Request
from kinolex.metrics.sync import Watched, sync
from kinolex.types import Clip

FIRST_SEED = 5_000_000
"""Below the seeds that networks learn from."""
ATTRIBUTES = ("number", "colour", "shape", "size", "motion", "times", "floor", "all_right")


@dataclass(frozen=True, kw_only=True, slots=True)
class MultimodalProtocol(Hashed):
    """Which captions, how they are drawn, and what is asked besides."""

    captions: int = 40
    max_bodies: int = 1
    temperature: float = 0.9
    top_p: float = 0.95
    guidance: float = 3.0
    window: int = 16
    digits: int = 0
    """Spoken digits that are asked for, seen and heard."""
    long_s: float = 0.0
    """Seconds of one long video of the first caption; 0 makes none."""
    seed: int = 0
    bootstrap_draws: int = 10_000
    version: int = 1
    """Raised when the meaning of a figure changes."""

    def __post_init__(self) -> None:
        if self.captions < 2 or self.max_bodies < 1 or self.bootstrap_draws < 1:
            raise ConfigError(f"a protocol needs at least two captions and one body, got {self}")
        if self.digits < 0 or not (self.long_s == 0 or 2 <= self.long_s < math.inf):
            raise ConfigError(f"digits are counted from 0 and a long video lasts two seconds or more, got {self}")


def evaluate_multimodal(
    generator: MultimodalGenerator,
    protocol: MultimodalProtocol,
    decoding: DecodeConfig,
    out_dir: str | Path | None = None,
    *,
    model_name: str,
    command: str | None = None,
    data: str | Path | None = None,
    on_clip: Callable[[int, int | None], None] = lambda _done, _total: None,
) -> dict[str, Any]:
    """Ask for held-out worlds by their captions, and for sound and words of their clips.

    Args:
        decoding: how tokens are drawn; its seed is that of the first caption, and one more for every other.
        out_dir: writes multimodal_{model_name}.json there, and the long video; None writes nothing.
        data: holds digits/ and fsdd/, for the digits of the protocol.
        on_clip: called as captions are finished.

    Returns:
        The result, in the schema of kinolex.evaluation.protocol.make_result. A row is a caption; its figures are 1
        where an attribute is right and 0 where not, of what was made ("made") and of the true world through the
        tokenizers ("ceiling"), which no generator of these tokens can be expected to beat. `sync` holds the sync of
        what was made and of its controls; `spoken digits` what evaluate_digits gives, `drift` that of the long video.

    Raises:
        UsageError: digits without `data`, or a long video without out_dir; errors of evaluate_digits and fulfil_long.
    """
    if protocol.digits and data is None:
        raise UsageError("spoken digits need a folder with digits/ and fsdd/; give one with --data, or --digits 0")
    if protocol.long_s and out_dir is None:
        raise UsageError("a long video is written before it is measured; give a folder for it")
    rows: list[dict[str, Any]] = []
    pairs: dict[str, list[Watched]] = {
        name: [] for name in ("made", "sound of another drawing", "sound for", "ceiling")
    }
    labels: list[str] = []
    config = WorldConfig(
        frames=generator.frames,
        height=generator.model.config.lines,
        width=generator.model.config.lines,
        fps=generator.fps,
        max_bodies=protocol.max_bodies,
    )
    for index in range(protocol.captions):
        world = render(FIRST_SEED + index, config)
        drawn = replace(decoding, seed=decoding.seed + index)
        both = ask(generator, drawn, "text-to-both", text=world.caption)
        other = ask(generator, replace(drawn, seed=drawn.seed + 10_000), "text-to-both", text=world.caption)
        heard = ask(generator, drawn, "video-to-sound", clip=world.clip)
        words = ask(generator, drawn, "describe", clip=world.clip)
        ceiling = through_tokenizers(generator, world.clip)
        assert both.clip is not None and other.clip is not None and words.text is not None
        row: dict[str, Any] = {"name": world.caption, "passes": float(both.passes), "tokens": float(both.tokens)}
        row |= _attributes("made", both.clip, world.caption) | _attributes("ceiling", ceiling, world.caption)
        row["described"] = words.text
        row["words right"] = _words_right(words.text, world.caption, generator)
        rows.append(row)
        labels.append(world.label)
        silent_clip = Clip(world.clip.frames_TCHW, world.clip.fps)
        for name, clip in (
            ("made", both.clip.with_sound(both.sound)),
            ("sound of another drawing", both.clip.with_sound(other.sound)),
            ("sound for", silent_clip.with_sound(heard.sound)),
            ("ceiling", ceiling),
        ):
            pairs[name].append(watched(clip))
        on_clip(index + 1, protocol.captions)
    result = make_result(f"multimodal_{model_name}", rows, protocol, command=command)
    result["generator"] = generator.fingerprint
    striking = [index for index, label in enumerate(labels) if label not in SILENT]
    result["sync"] = {"made": sync_scores(pairs["made"], labels)} | {
        name: sync([pairs[name][index] for index in striking]).as_json() for name in pairs if name != "made"
    }
    if protocol.digits and data is not None:
        result["spoken digits"] = evaluate_digits(
            generator,
            train_judges(data),
            DigitCollection(data, "test"),
            protocol.digits,
            decoding,
            on_clip=on_clip,
        )
    if protocol.long_s and out_dir is not None:
        target = Path(out_dir) / f"long_{model_name}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        request = Request(task="text-to-both", text=rows[0]["name"])
        report = fulfil_long(request, protocol.long_s, target, generator, decoding)
        result["drift"] = {"caption": rows[0]["name"], "seconds to make": report.seconds} | drift_of(target).as_json()
    if out_dir is not None:
        write_result(Path(out_dir) / f"multimodal_{model_name}.json", result)
    return result


def _attributes(system: str, clip: Clip, caption: str) -> dict[str, float]:
    """Share of the bodies asked for whose attribute is right, by attribute; all_right: of all bodies at once."""
    judged = judge_each(clip, asked_of(caption))
    shares = {name: sum(bool(getattr(one, name)) for one in judged) / len(judged) for name in ATTRIBUTES}
    shares["all_right"] = float(all(one.all_right for one in judged))
    return {f"{system} {name}": share for name, share in shares.items()}


def _words_right(described: str, caption: str, generator: MultimodalGenerator) -> float:
    """Share of the words of both, counted once, that are in both."""
    wanted = set(generator.words.decode(generator.text_ids(caption)).split())
    found = set(described.split())
    return len(wanted & found) / max(1, len(wanted | found))

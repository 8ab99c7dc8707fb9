"""Does a multimodal generator of worlds do what it is told, and do its picture and its sound go together?

    caption --text-to-both--> clip, sound --worlds.judge--> attributes right        --worlds.measure--> sync
    rendered clip --video-to-sound--> sound --> sync        rendered clip --describe--> words right

Beside it the controls: sound shuffled over the clips, and pictures with the sound that a second, separate drawing made
of the same caption. No network judges.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kinolex.data.worlds import World, WorldConfig, asked_of, judge_each, render
from kinolex.errors import ConfigError
from kinolex.evaluation.protocol import make_result, write_result
from kinolex.evaluation.world_sync import SILENT, sync_scores, watched
from kinolex.generation.decoding import DecodeConfig
from kinolex.generation.multimodal import Made, MultimodalGenerator
from kinolex.metrics.sync import Watched, sync
from kinolex.tasks.multimodal import task_named
from kinolex.types import Clip

FIRST_SEED = 5_000_000
"""Below the seeds that networks learn from."""
ATTRIBUTES = ("number", "colour", "shape", "size", "motion", "times", "floor", "all_right")


@dataclass(frozen=True, kw_only=True, slots=True)
class MultimodalProtocol:
    """Which captions, how they are drawn, and what is asked besides."""

    captions: int = 40
    max_bodies: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    guidance: float = 0.0
    window: int = 16
    seed: int = 0
    bootstrap_draws: int = 10_000
    version: int = 1
    """Raised when the meaning of a figure changes."""

    def __post_init__(self) -> None:
        if self.captions < 2 or self.max_bodies < 1 or self.bootstrap_draws < 1:
            raise ConfigError(f"a protocol needs at least two captions and one body, got {self}")

    @property
    def hash(self) -> str:
        """16 hexadecimal digits of the SHA-256 of all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def evaluate_multimodal(
    generator: MultimodalGenerator,
    protocol: MultimodalProtocol,
    decoding: DecodeConfig,
    out_dir: str | Path | None = None,
    *,
    model_name: str,
    command: str | None = None,
    on_clip: Callable[[int, int | None], None] = lambda _done, _total: None,
) -> dict[str, Any]:
    """Ask for held-out worlds by their captions, and for sound and words of their clips.

    Args:
        decoding: how tokens are drawn; its seed is that of the first caption, and one more for every other.
        out_dir: writes multimodal_{model_name}.json there; None writes nothing.
        on_clip: called as captions are finished.

    Returns:
        The result, in the schema of kinolex.evaluation.protocol.make_result. A row is a caption; its figures are 1
        where an attribute is right and 0 where not, of what was made ("made") and of the true world through the
        tokenizers ("ceiling"), which no generator of these tokens can be expected to beat. `sync` holds the sync of
        what was made and of its controls.
    """
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
        both = _make(generator, drawn, "text-to-both", text=world.caption)
        other = _make(generator, replace(drawn, seed=drawn.seed + 10_000), "text-to-both", text=world.caption)
        heard = _make(generator, drawn, "video-to-sound", clip=world.clip)
        words = _make(generator, drawn, "describe", clip=world.clip)
        ceiling = _through(generator, world)
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
    if out_dir is not None:
        write_result(Path(out_dir) / f"multimodal_{model_name}.json", result)
    return result


def _make(
    generator: MultimodalGenerator, decoding: DecodeConfig, name: str, *, text: str = "", clip: Clip | None = None
) -> Made:
    task = task_named(name)
    sound = None if clip is None or clip.sound is None else generator.sound_of(clip.sound)
    material = generator.material(task, text=text, clip=clip, sound=sound)
    if not text:
        decoding = replace(decoding, guidance=0.0)
    found, passes, tokens = generator.make(task, material, decoding)
    return replace(generator.finish(task, material, found, clip), passes=passes, tokens=tokens)


def _through(generator: MultimodalGenerator, world: World) -> Clip:
    """The true world as the tokenizers give it back."""
    assert world.clip.sound is not None
    levels = generator.model.config.vocabulary.sound_levels
    pictures = generator.video.decode(generator.video.encode(Clip(world.clip.frames_TCHW, world.clip.fps)))
    sound = generator.sound_of(world.clip.sound)
    return pictures.with_sound(generator.sound.decode(generator.sound.encode(sound, levels)))


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

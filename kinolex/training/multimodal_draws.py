"""What the multimodal generator learns from: clips with sound and caption as tokens, made once and kept.

    worlds, spoken digits --> picture, sound, caption --tokenizers--> video ids [t, h, w], sound codes [Q, t], word ids
                                |                                 of worlds: --flow and edges, encode--> structure ids
                                |--a drawn part hidden, encode--> masked ids

Shards are drawn by several processes; a shard is a function of (plan, source, number) and is written whole.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from kinolex import hub
from kinolex.data import spoken_digits, worlds
from kinolex.errors import ConfigError, UsageError
from kinolex.tasks.base import pose
from kinolex.tasks.chaining import CHAINED_TASKS
from kinolex.tasks.multimodal import TASKS as MULTIMODAL_TASKS
from kinolex.tasks.structure import structure_clip
from kinolex.tasks.video import TASKS
from kinolex.tasks.words import word_ids
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training.shards import drawn, paths_of, write_shard
from kinolex.types import Clip, Sound

SHARD = 200
"""Clips per file."""
HIDES = ("inpaint-central", "inpaint-dynamic", "outpaint-central", "outpaint-vertical", "outpaint-horizontal")
"""Ways in which a part of a clip is hidden; one is drawn per clip."""
EXTRAS = {"masked-clip", "structure-clip"}
"""What tasks can be given of worlds alone."""


MaterialKind = Literal["worlds", "spoken-digits"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MaterialSource:
    """Clips of one kind and size."""

    name: str
    clips: int
    kind: MaterialKind = "worlds"
    middles: bool = False
    """Teach with windows out of the middle of its clips, longer than those of the network: kinolex.tasks.chaining."""
    frames: int = 17
    side: int = 64
    fps: int = 12
    max_bodies: int = 2
    """Of worlds."""
    extras_every: int = 3
    """Of so many worlds one is encoded with a part hidden, and as its structure, too; not of those of middles."""
    share: float = 1.0
    """How often a step draws from it."""
    tasks: tuple[tuple[str, float], ...] = ()
    """How often each task is posed on it, where it does not follow the stages."""

    def __post_init__(self) -> None:
        if (
            min(self.clips, self.frames, self.fps, self.max_bodies, self.extras_every) < 1
            or self.side < 16
            or not self.share > 0
        ):
            raise ConfigError(f"a source needs clips, frames, a rate, a share and side >= 16, got {self}")
        if self.kind not in get_args(MaterialKind):
            raise ConfigError(f"no kind of source {self.kind!r}; choose one of {', '.join(get_args(MaterialKind))}")
        known = CHAINED_TASKS if self.middles else tuple(MULTIMODAL_TASKS)
        if not self.has_extras:
            known = tuple(name for name in known if not set(MULTIMODAL_TASKS[name].given) & EXTRAS)
        shares = [share for _, share in self.tasks]
        ill = {name for name, _ in self.tasks} - set(known) or not (
            min(shares, default=1) >= 0 < sum(shares) < math.inf
        )
        if ill if self.tasks else not self.has_extras:
            raise ConfigError(f"{self.name} needs shares of tasks among {', '.join(known)}; got {self.tasks}")

    @property
    def data(self) -> tuple[str, ...]:
        """Collections that its clips are composed of; worlds need none."""
        return spoken_digits.COLLECTIONS if self.kind == "spoken-digits" else ()

    @property
    def has_extras(self) -> bool:
        """Whether some of its clips are encoded with a part hidden, and as their structure."""
        return self.kind == "worlds" and not self.middles


@dataclass(frozen=True, slots=True)
class MaterialPlan:
    """All that a shard depends on besides its source."""

    video_tokenizer: str
    sound_tokenizer: str
    sound_levels: int
    words: tuple[str, ...]
    text_length: int
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """One clip; ids of the tokenizers, words of the closed list counted from 0."""

    text_P: Tensor | None
    """None: nobody said what it shows, as of most videos."""
    video_thw: Tensor
    sound_Qt: Tensor
    masked_thw: Tensor | None = None
    hidden_by: str = ""
    """One of HIDES, or nothing."""
    structure_thw: Tensor | None = None


def draw_shard(plan: MaterialPlan, source: MaterialSource, number: int, path: Path, data: Path | None = None) -> None:
    """Write shard `number` of a source. Errors as draw."""
    video, sound = hub.load(plan.video_tokenizer), hub.load_sound(plan.sound_tokenizer)
    tensors: dict[str, Tensor] = {}
    for index in range(SHARD):
        dice = np.random.default_rng([plan.seed, number, index, *source.name.encode()])
        clip, heard, caption = _composed(source, dice, data)
        extra = source.has_extras and index % source.extras_every == 0
        hide = HIDES[int(dice.integers(len(HIDES)))] if extra else ""
        made = tokens_of(plan, video, sound, clip, heard, caption, hide)
        tensors |= {f"{index}.{name}": ids for name, ids in made.items()}
    write_shard(path, tensors)


def tokens_of(
    plan: MaterialPlan,
    video: VideoTokenizer,
    sound: SoundTokenizer,
    clip: Clip,
    heard: Sound,
    caption: str,
    hide: str = "",
) -> dict[str, Tensor]:
    """One clip as read_clips reads it, int32 by name.

    Args:
        hide: one of HIDES; the clip is then encoded with that part hidden, and as its structure, too.
    """
    made = {
        "text": word_ids(caption, plan.words, plan.text_length),
        "video": video.encode(clip).ids_Qthw[0],
        "sound": sound.encode(heard, plan.sound_levels).ids_Qthw[:, :, 0, 0],
    }
    if hide:
        masked = pose(TASKS[hide], clip, video.encode, video.pixels_per_token)
        made |= {"masked": masked.condition_thw, "hide": torch.tensor([HIDES.index(hide)])}
        made["structure"] = video.encode(structure_clip(clip)).ids_Qthw[0]
    return {name: ids.to(torch.int32).contiguous() for name, ids in made.items()}


def _composed(source: MaterialSource, dice: np.random.Generator, data: Path | None) -> tuple[Clip, Sound, str]:
    """Pictures, sound and caption of the next clip."""
    if source.kind == "spoken-digits":
        config = spoken_digits.DigitConfig(frames=source.frames, side=source.side, fps=Fraction(source.fps))
        spoken = spoken_digits.collection(_data_of(source, data), "train").draw(int(dice.integers(2**31)), config)
        clip, caption = spoken.clip, spoken.caption
    else:
        config = worlds.WorldConfig(
            frames=source.frames,
            height=source.side,
            width=source.side,
            fps=Fraction(source.fps),
            max_bodies=int(dice.integers(1, source.max_bodies + 1)),
        )
        world = worlds.render(int(dice.integers(2**31)), config)
        clip, caption = world.clip, world.caption
    assert clip.sound is not None
    return Clip(clip.frames_TCHW, clip.fps), clip.sound, caption


def _data_of(source: MaterialSource, data: Path | None) -> Path:
    if data is None:
        raise UsageError(f"{source.name} is composed of {' and '.join(source.data)}; say in which folder they lie")
    return data


def draw(
    plan: MaterialPlan, source: MaterialSource, folder: Path, *, data: Path | None = None, workers: int | None = None
) -> list[Drawn]:
    """All clips of a source; shards that are there already are read.

    Args:
        folder: where shards are kept.
        data: holds the collections that the source names.
        workers: processes; one per core if None.

    Raises:
        CheckpointError: a shard is damaged.
        UsageError: a source of collections without `data`; MissingFile, DataError for what is not right in it.
    """
    paths = shard_paths(plan, source, folder, data)
    write = partial(draw_shard, plan, source, data=data)
    return drawn(paths, write, read_clips, f"tokens of {source.name}, {SHARD} clips each", workers=workers)[
        : source.clips
    ]


def shard_paths(plan: MaterialPlan, source: MaterialSource, folder: Path, data: Path | None = None) -> list[Path]:
    """Files of a source's clips; their names depend on all that the clips depend on. Errors as draw."""
    decides = {name: value for name, value in asdict(source).items() if name not in ("clips", "share", "tasks")}
    if source.data:
        decides["files"] = spoken_digits.fingerprint(_data_of(source, data))
    return paths_of(folder, source.name, [asdict(plan), decides], source.clips, SHARD)


def read_clips(tensors: dict[str, Tensor]) -> list[Drawn]:
    """The clips of a shard: what tokens_of gave, with the clip's number and a point before each name."""
    tensors = {name: ids.long() for name, ids in tensors.items()}
    clips = []
    for index in range(sum(name.endswith(".video") for name in tensors)):
        text_P, video_thw, sound_Qt = (tensors[f"{index}.{name}"] for name in ("text", "video", "sound"))
        masked_thw, structure_thw = (tensors.get(f"{index}.{name}") for name in ("masked", "structure"))
        hide = "" if masked_thw is None else HIDES[int(tensors[f"{index}.hide"])]
        # Words are counted from 1 there, and 0 is nothing said.
        clips.append(Drawn(text_P[text_P > 0] - 1, video_thw, sound_Qt, masked_thw, hide, structure_thw))
    return clips

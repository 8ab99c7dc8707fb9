"""VideoPoet's tasks on files: words, pictures and sound in; pictures, sound and words out.

    files, words --material--> Material --compose--> Sequence --decode_sequence--> Outcome --finish--> Clip, Sound, text

One window of the clip length that the model was trained on, at its rate and size; generation/long.py chains windows.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from kinolex import checkpoint, hub
from kinolex.api import refuse_same
from kinolex.errors import ConfigError, UsageError
from kinolex.generation.decoding import DecodeConfig, OnSpan, decode_sequence
from kinolex.masks import HIDDEN
from kinolex.media import fit_short_side, probe, read, write
from kinolex.media.files import check_target
from kinolex.media.opening import replacing
from kinolex.media.resample import resample_sound
from kinolex.media.sound import read_sound, write_sound
from kinolex.models.multimodal import MultimodalTransformer
from kinolex.sampling.choose import Choice
from kinolex.tasks.base import pose
from kinolex.tasks.multimodal import Material, MultimodalTask, Outcome, compose, outcome, task_named
from kinolex.tasks.structure import structure_clip
from kinolex.tasks.text import WordList
from kinolex.tasks.video import TASKS as REGIONS
from kinolex.tasks.words import GUIDANCE
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip, Extent, Sound, SoundExtent, Tokens

DEFAULT = "poet-world-nano"
CHOICE = Choice(temperature=0.9, top_p=0.95)
USUAL = DecodeConfig(text=CHOICE, video=CHOICE, sound=CHOICE, window=16)
"""How files are made where nothing else is asked for: as poet-world-nano was measured."""
SYNONYMS = {"ball": "circle", "disc": "circle", "box": "square", "cube": "square", "hoop": "ring", "wheel": "ring"}
"""Words for what a model knows by another name; used where it knows that and not this."""
SOUND_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3"})
DEFAULT_REGION = {"inpainting": "inpaint-central", "outpainting": "outpaint-central"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to make out of what.

    Raises:
        UsageError: a task or region that there is not, or a region for a task that hides nothing.
    """

    task: str
    """A name of kinolex.tasks.multimodal.TASKS."""
    text: str = ""
    source: Path | None = None
    """A video or image; its sound is what is heard, unless `heard` is given."""
    heard: Path | None = None
    """A sound file, or a video with sound."""
    structure: Path | None = None
    """A clip of flow and depth or edges for stylisation; by default it is made from the source."""
    region: str | None = None
    """What inpainting and outpainting hide: a name of kinolex.tasks.video."""
    given: int = 1
    """Leading frames that future prediction and continuation go on from, to whole latent frames."""

    def __post_init__(self) -> None:
        task_named(self.task)
        hides = DEFAULT_REGION.get(self.task)
        if self.region is not None and (hides is None or not self.region.startswith(hides.split("-")[0])):
            known = ", ".join(name for name in REGIONS if hides and name.startswith(hides.split("-")[0]))
            raise UsageError(f"{self.task} cannot hide {self.region!r}; it hides {known or 'nothing'}")
        if self.given < 1:
            raise UsageError(f"given counts frames from 1 on, got {self.given}")


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What came of a request."""

    clip: Clip | None
    sound: Sound | None
    text: str | None
    passes: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MultimodalReport:
    """Facts of a file that was made; all figures are of this run."""

    target: str
    task: str
    text: str
    """That was made, or given."""
    frames: int
    sound_s: float
    tokens: int
    passes: int
    seed: int
    seconds: float
    tokens_per_second: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class MultimodalGenerator:
    """A trained network with its tokenizers.

    Raises:
        ConfigError: they do not belong together.
    """

    def __init__(
        self, model: MultimodalTransformer, video: VideoTokenizer, sound: SoundTokenizer, fingerprint: str
    ) -> None:
        config = model.config
        for what, wanted, found in (
            ("video", config.video_tokenizer, video.fingerprint),
            ("sound", config.sound_tokenizer, sound.fingerprint),
        ):
            if wanted != found:
                raise ConfigError(f"this generator knows the {what} ids of {wanted[:12]}, not of {found[:12]}")
        self.model = model.eval().requires_grad_(False)
        self.video, self.sound, self.fingerprint = video, sound, fingerprint
        self.words = WordList(config.words)

    def to(self, device: str) -> MultimodalGenerator:
        """Move network and tokenizers; returns self."""
        self.model.to(device)
        self.video.to(device)
        self.sound.to(device)
        return self

    @property
    def frames(self) -> int:
        """Of a clip."""
        return 1 + self.video.pixels_per_token[0] * (self.model.config.latent_frames - 1)

    @property
    def fps(self) -> Fraction:
        """Of a clip: what makes its frames as long as the sound beside them."""
        per_frame = self.model.config.sound_frames_per_latent / self.video.pixels_per_token[0]
        return Fraction(self.sound.frames_per_s / per_frame).limit_denominator(1001)

    def text_ids(self, text: str) -> torch.Tensor:
        """Ids of a text. Raises UsageError for words that the model does not know, or too many."""
        known = set(self.model.config.words)
        words = [
            SYNONYMS[word] if word not in known and SYNONYMS.get(word) in known else word
            for word in text.lower().replace(",", " ").replace(".", " ").split()
        ]
        return self.words.encode(" ".join(words))

    def clip_of(self, clip: Clip) -> Clip:
        """A clip as the model wants it: at its rate, as long as its clips are, no larger than its pictures.

        A source that is too short stands still at its end; an image stands still throughout.
        """
        times = [Fraction(index) / self.fps for index in range(self.frames)]
        shown = [min(int(at * clip.fps + Fraction(1, 2)), clip.num_frames - 1) for at in times]
        frames_TCHW = clip.frames_TCHW[torch.tensor(shown)]
        lines = self.model.config.lines
        fitted = Clip(frames_TCHW, self.fps)
        return fitted if min(clip.height, clip.width) <= lines else fit_short_side(fitted, lines)

    def sound_of(self, sound: Sound) -> Sound:
        """A sound as the model wants it: mono, at its tokenizer's rate, as long as its clips are."""
        mono = Sound(sound.samples_CS.mean(dim=0, keepdim=True), sound.rate_hz)
        samples_CS = resample_sound(mono, self.sound.config.rate_hz).samples_CS
        wanted = round(self.frames / self.fps * self.sound.config.rate_hz)
        return Sound(
            F.pad(samples_CS, (0, max(0, wanted - samples_CS.shape[1])))[:, :wanted], self.sound.config.rate_hz
        )

    def material(
        self,
        task: MultimodalTask,
        *,
        text: str = "",
        clip: Clip | None = None,
        sound: Sound | None = None,
        structure: Clip | None = None,
        region: str | None = None,
        given: int = 1,
    ) -> Material:
        """What a task needs, in tokens; what it is to make is open.

        Args:
            clip, sound, structure: as clip_of and sound_of give them.
            region: what is hidden for inpainting and outpainting.
            given: leading latent frames.

        Raises:
            UsageError: the task needs what is not there.
        """
        config = self.model.config
        needs = {
            "first-frames": clip,
            "masked-clip": clip,
            "clip": clip,
            "structure-clip": structure or clip,
            "sound": sound,
            "first-sound": sound,
            "text": text or None,
        }
        for part in task.given:
            if needs[part] is None and part not in task.optional:
                raise UsageError(f"{task.name} needs {_HOW[part]}")
        lines = config.lines
        size = (clip.height, clip.width) if clip is not None else (lines, lines)
        rows, columns = (-(-side // factor) for side, factor in zip(size, self.video.pixels_per_token[1:], strict=True))
        video_thw = torch.full((config.latent_frames, rows, columns), HIDDEN)
        samples = round(self.frames / self.fps * self.sound.config.rate_hz)
        sound_Qt = torch.full((config.vocabulary.sound_levels, -(-samples // self.sound.config.hop)), HIDDEN)
        masked_thw = structure_thw = None
        if clip is not None and set(task.given) & {"clip", "first-frames"}:
            video_thw = self.video.encode(clip).ids_Qthw[0]
        given = min(given, config.latent_frames - 1)
        if "first-frames" in task.given:
            video_thw[given:] = HIDDEN
        if clip is not None and "masked-clip" in task.given:
            hidden = REGIONS[region or DEFAULT_REGION[task.name]]
            masked_thw = pose(hidden, clip, self.video.encode, self.video.pixels_per_token).condition_thw
        if "structure-clip" in task.given and (seen := structure or (clip and structure_clip(clip))) is not None:
            structure_thw = self.video.encode(seen).ids_Qthw[0]
            video_thw = torch.full_like(structure_thw, HIDDEN)
        if sound is not None and set(task.given) & {"sound", "first-sound"}:
            sound_Qt = self.sound.encode(sound, config.vocabulary.sound_levels).ids_Qthw[:, :, 0, 0]
        heard = max(1, min(sound_Qt.shape[1] - 1, round(given * sound_Qt.shape[1] / config.latent_frames)))
        if "first-sound" in task.given:
            sound_Qt[:, heard:] = HIDDEN
        return Material(
            text_P=self.text_ids(text) if text and "text" in task.given else None,
            video_thw=video_thw,
            masked_thw=masked_thw,
            structure_thw=structure_thw,
            sound_Qt=None if "sound" in task.given and sound is None else sound_Qt,
            given_latents=given,
            given_sound=heard,
        )

    def make(
        self, task: MultimodalTask, material: Material, config: DecodeConfig, *, on_span: OnSpan | None = None
    ) -> tuple[Outcome, int, int]:
        """The open parts of a material, with the passes and tokens they took."""
        vocabulary, length = self.model.config.vocabulary, self.model.config.text_length
        sequence = compose(task, material, vocabulary, text_length=length)
        unsaid, said = None, "text" in task.given and material.text_P is not None
        if config.guidance is None:
            config = replace(config, guidance=GUIDANCE if said else 0.0)
        if config.guidance:
            if not said:
                raise UsageError(f"guidance pushes away from what is made without words; {task.name} has none here")
            unsaid = compose(task, material, vocabulary, text_length=length, drop=("text",))
        decoded = decode_sequence(self.model, sequence, config, unsaid=unsaid, on_span=on_span)
        return outcome(sequence.layout, decoded.ids_BL[0].cpu(), vocabulary), decoded.passes, decoded.tokens

    def finish(self, task: MultimodalTask, material: Material, made: Outcome, like: Clip | None) -> Made:
        """Tokens back to media. Given leading frames and sound stand before what goes on from them.

        Args:
            like: gives the size; without it a square of the model's lines.
        """
        config, clip, sound = self.model.config, None, None
        if made.video_thw is not None:
            video_thw = made.video_thw
            if "rest-of-clip" in task.asked and material.video_thw is not None:
                video_thw = torch.cat([material.video_thw[: material.given_latents], video_thw])
            frames = 1 + self.video.pixels_per_token[0] * (len(video_thw) - 1)
            height, width = (like.height, like.width) if like is not None else (config.lines, config.lines)
            extent = Extent(frames=frames, height=height, width=width, fps=self.fps)
            clip = self.video.decode(Tokens(video_thw[None], "video", self.video.fingerprint, extent))
        if made.sound_Qt is not None:
            sound_Qt = made.sound_Qt
            if "rest-of-sound" in task.asked and material.sound_Qt is not None:
                sound_Qt = torch.cat([material.sound_Qt[:, : material.given_sound], sound_Qt], dim=1)
            rate_hz = self.sound.config.rate_hz
            samples = min(round(self.frames / self.fps * rate_hz), sound_Qt.shape[1] * self.sound.config.hop)
            ids_Qthw = sound_Qt[:, :, None, None]
            extent = SoundExtent(samples=samples, rate_hz=rate_hz)
            sound = self.sound.decode(Tokens(ids_Qthw, "sound", self.sound.fingerprint, extent))
        text = None if made.text_P is None else self.words.decode(made.text_P)
        return Made(clip, sound, text, 0, 0)


_HOW = {
    "first-frames": "a video or image to start from; give one with --from",
    "masked-clip": "a video; give one with --from",
    "clip": "a video; give one with --from",
    "structure-clip": "a video whose structure it keeps; give one with --from, or --structure",
    "sound": "a sound; give one with --picture-for, or --from a video that has sound",
    "first-sound": "sound beside its first frames; give a video that has sound with --from",
    "text": "words; give them with --text",
}


def load_multimodal(
    name: str | Path = DEFAULT, video: str | Path | None = None, sound: str | Path | None = None
) -> MultimodalGenerator:
    """The multimodal generator behind a name.

    Args:
        name: shipped name, folder or hub repository.
        video, sound: the tokenizers that it was trained with; None searches the shipped ones.

    Raises:
        UnknownModel: nothing has that name, or a tokenizer is not among the shipped ones.
        CheckpointError, ConfigError: damaged, no multimodal generator, or made for other tokenizers.
    """
    model, fingerprint = checkpoint.load_module(hub.locate(name), checkpoint.MULTIMODAL)
    assert isinstance(model, MultimodalTransformer)
    return MultimodalGenerator(
        model,
        hub.load(video or hub.name_of(model.config.video_tokenizer)),
        hub.load_sound(sound or hub.name_of(model.config.sound_tokenizer)),
        fingerprint,
    )


def fulfil(
    request: Request,
    target: str | Path,
    generator: MultimodalGenerator,
    config: DecodeConfig | None = None,
    *,
    on_span: OnSpan | None = None,
) -> MultimodalReport:
    """Make a file, or words, of a request.

    Args:
        target: .mp4 or .webm; .gif or an image where no sound is made; .wav, .flac or .ogg for sound alone; .txt for
            words. Sound that is made for a video goes beside its own pictures.

    Raises:
        UsageError: a request that cannot be granted; KinolexError of the media layer. No partial target is left.
    """
    target, config, began = Path(target), config or USUAL, time.monotonic()
    for other in (request.source, request.heard, request.structure):
        if other is not None:
            refuse_same(other, target)
    task = task_named(request.task)
    if (task.asked == ("text",)) != (target.suffix.lower() == ".txt"):
        wanted = "words: name a .txt file" if task.asked == ("text",) else "no words: name a video, image or sound file"
        raise UsageError(f"{task.name} makes {wanted}, not {target}")
    check_target(target, *([".txt"] if task.asked == ("text",) else sorted(SOUND_SUFFIXES)))
    made, source = make_of(request, generator, config, on_span=on_span)
    if made.text is None:
        _write(made, source, target)
    else:
        with replacing(target) as temporary:
            temporary.write_text(made.text + "\n", encoding="utf-8")
    seconds = time.monotonic() - began
    return MultimodalReport(
        target=target.name,
        task=task.name,
        text=made.text or request.text,
        frames=0 if made.clip is None else made.clip.num_frames,
        sound_s=0.0 if made.sound is None else made.sound.duration_s,
        tokens=made.tokens,
        passes=made.passes,
        seed=config.seed,
        seconds=seconds,
        tokens_per_second=made.tokens / seconds,
    )


def make_of(
    request: Request, generator: MultimodalGenerator, config: DecodeConfig, *, on_span: OnSpan | None = None
) -> tuple[Made, Clip | None]:
    """What a request asks for, in memory, and the source it was made from. Errors as fulfil."""
    task, material, like, beside = pose_request(request, generator)
    found, passes, tokens = generator.make(task, material, config, on_span=on_span)
    made = generator.finish(task, material, found, like)
    return replace(made, passes=passes, tokens=tokens), beside


def pose_request(
    request: Request, generator: MultimodalGenerator
) -> tuple[MultimodalTask, Material, Clip | None, Clip | None]:
    """The task of a request, its material, the clip whose size pictures take, and what sound is laid beside."""
    task = task_named(request.task)
    # Sound that is made for a video goes beside all of it; other tasks look at one window of their source.
    whole = task.asked == ("sound",)
    source = None if request.source is None else _read(request.source, None if whole else generator)
    heard = source.sound if source is not None else None
    if request.heard is not None:
        heard = _sound_in(request.heard, generator)
    clip = None if source is None else generator.clip_of(source)
    structure = None if request.structure is None else generator.clip_of(_read(request.structure, generator))
    material = generator.material(
        task,
        text=request.text,
        clip=clip,
        sound=None if heard is None else generator.sound_of(heard),
        structure=structure,
        region=request.region,
        given=1 + (request.given - 1) // generator.video.pixels_per_token[0],
    )
    return task, material, clip or structure, source if whole else None


def _read(path: Path, generator: MultimodalGenerator | None) -> Clip:
    """A video or image; of a video only what one window of the generator shows."""
    if generator is None:
        return read(path)
    return read(path, max_frames=math.ceil(generator.frames / generator.fps * probe(path).fps) + 1)


def _sound_in(path: Path, generator: MultimodalGenerator) -> Sound:
    if path.suffix.lower() in SOUND_SUFFIXES:
        return read_sound(path)
    sound = _read(path, generator).sound
    if sound is None:
        raise UsageError(f"{path} holds no sound; give a sound file, or a video that has some")
    return sound


def _write(made: Made, source: Clip | None, target: Path) -> None:
    """Pictures with their sound; sound that was made for a video beside the video's own pictures."""
    if target.suffix.lower() in SOUND_SUFFIXES:
        if made.sound is None:
            raise UsageError(f"no sound was made, so {target} cannot hold it; name a video, such as {target.stem}.mp4")
        write_sound(made.sound, target)
        return
    pictures = made.clip if made.clip is not None else source
    if pictures is None:
        raise UsageError(f"only sound was made; name {target.stem}.wav")
    write(pictures.with_sound(made.sound), target)

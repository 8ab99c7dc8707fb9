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
from kinolex.generation.targets import SOUND_SUFFIXES, check_pictures, first_of, holds_sound, sound_words
from kinolex.masks import HIDDEN
from kinolex.media import fit_short_side, probe, read, write
from kinolex.media.opening import check_place, replacing
from kinolex.media.resample import resample_sound
from kinolex.media.sound import SOUND_CODECS, read_sound, write_sound
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
    """That was made or, where none is made, that was given, no longer than the pictures beside it."""
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
    """In the target, as are height and width; of sound and words alone 0."""
    height: int
    width: int
    fps: str
    frames_given: int
    """Leading frames whose tokens are the source's own."""
    source_s: float
    """Seconds of the source that were looked at; of an image 0."""
    sound: str
    """How long it is in the target, and of how long a video."""
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
        """Ids of a text. Raises UsageError for words that the model does not know, or none that it does."""
        return self.words.encode(text)

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
    model, fingerprint = checkpoint.load_module(hub.locate(name, checkpoint.MULTIMODAL), checkpoint.MULTIMODAL)
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
        target: .mp4 or .webm; .gif where no sound is made, an image where one frame is; .wav or .flac for sound alone;
            .txt for words. Sound that is made for a video goes beside its own pictures, for as long as a window lasts
            (report.sound); sound that is given goes beside what is made.

    Raises:
        UsageError: a request that cannot be granted; KinolexError of the media layer. No partial target is left.
    """
    target, config, began = Path(target), config or USUAL, time.monotonic()
    for other in (request.source, request.heard, request.structure):
        if other is not None:
            refuse_same(other, target)
    task = task_named(request.task)
    check_made(task, target, generator)
    question = pose_request(request, generator)
    made = _made(question, generator, config, on_span)
    pictures = made.clip if made.clip is not None else question.beside
    if made.text is not None:
        with replacing(target) as temporary:
            temporary.write_text(made.text + "\n", encoding="utf-8")
        pictures = None
    elif target.suffix.lower() in SOUND_CODECS:
        assert made.sound is not None
        write_sound(made.sound, target)
        pictures = None
    else:
        assert pictures is not None
        write(pictures.with_sound(made.sound), target)
    heard = made.sound if pictures is None or holds_sound(target) else None
    return report_of(
        target,
        question,
        config,
        extent=None if pictures is None else pictures.extent,
        sound_s=0.0 if heard is None else heard.duration_s,
        text=made.text or request.text,
        passes=made.passes,
        tokens=made.tokens,
        seconds=time.monotonic() - began,
    )


def check_made(task: MultimodalTask, target: Path, generator: MultimodalGenerator) -> None:
    """Raises UsageError for a target that cannot hold what a task makes; for its folder as kinolex.media.write."""
    suffix = target.suffix.lower()
    if (task.asked == ("text",)) != (suffix == ".txt"):
        wanted = "words: name a .txt file" if task.asked == ("text",) else "no words: name a video, image or sound file"
        raise UsageError(f"{task.name} makes {wanted}, not {target}")
    sounds = bool({*task.asked} & {"sound", "rest-of-sound"})
    if suffix == ".txt" or (sounds and suffix in SOUND_CODECS):
        check_place(target)
    elif sounds and not holds_sound(target):
        silent = _SILENT.get(task.name)
        raise UsageError(
            f"{task.name} makes sound, and {target.name} cannot hold it; name a .mp4 or .webm file, or .wav for the "
            f"sound alone{f', or say --task {silent} for pictures alone' if silent else ''}"
        )
    else:
        check_pictures(target, 1 if "image" in task.asked else generator.frames, generator.fps)


_SILENT = {"text-to-both": "text-to-video", "continuation": "future-prediction"}
"""The same without sound."""


def report_of(
    target: Path,
    question: Question,
    config: DecodeConfig,
    *,
    extent: Extent | None,
    sound_s: float,
    text: str,
    passes: int,
    tokens: int,
    seconds: float,
) -> MultimodalReport:
    """What is told of a file; extent is None where it holds no pictures."""
    still = extent is None or extent.frames == 1
    pictures_s = 0.0 if extent is None or still else float(extent.frames / extent.fps)
    return MultimodalReport(
        target=target.name,
        task=question.task.name,
        text=text,
        frames=0 if extent is None else extent.frames,
        height=0 if extent is None else extent.height,
        width=0 if extent is None else extent.width,
        fps="none" if extent is None else str(extent.fps),
        frames_given=question.frames_given,
        source_s=question.source_s,
        sound=sound_words(sound_s, pictures_s, Fraction(1) if extent is None else extent.fps),
        sound_s=sound_s,
        tokens=tokens,
        passes=passes,
        seed=config.seed,
        seconds=seconds,
        tokens_per_second=tokens / seconds,
    )


def make_of(
    request: Request, generator: MultimodalGenerator, config: DecodeConfig, *, on_span: OnSpan | None = None
) -> tuple[Made, Clip | None]:
    """What a request asks for, in memory, and the source that sound is made for. Errors as fulfil."""
    question = pose_request(request, generator)
    return _made(question, generator, config, on_span), question.beside


def _made(question: Question, generator: MultimodalGenerator, config: DecodeConfig, on_span: OnSpan | None) -> Made:
    task, beside = question.task, question.beside
    found, passes, tokens = generator.make(task, question.material, config, on_span=on_span)
    made = generator.finish(task, question.material, found, question.like)
    sound, pictures = made.sound, beside if beside is not None else made.clip
    if sound is None and made.clip is not None:
        sound = question.heard
    if sound is not None and pictures is not None and pictures.num_frames > 1:  # an image has no length
        sound = first_of(sound, pictures.num_frames / pictures.fps)
    return replace(made, sound=sound, passes=passes, tokens=tokens)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Question:
    """A request made ready."""

    task: MultimodalTask
    material: Material
    like: Clip | None
    """The clip whose size pictures take."""
    beside: Clip | None
    """All of the source, where sound is made for it."""
    heard: Sound | None
    """What lies beside pictures for which no sound is made."""
    frames_given: int
    source_s: float


def pose_request(request: Request, generator: MultimodalGenerator) -> Question:
    """What is read of a request's files, in tokens. Errors as fulfil."""
    task, factor = task_named(request.task), generator.video.pixels_per_token[0]
    goes_on = "first-frames" in task.given
    if goes_on and request.given >= generator.frames:
        raise UsageError(
            f"{task.name} goes on from the beginning of a window of {generator.frames} frames, and {request.given} are "
            f"given; give {generator.frames - factor} at most"
        )
    # Sound that is made for a video goes beside all of it; other tasks look at one window of their source.
    whole = task.asked == ("sound",)
    source = None if request.source is None else _read(request.source, None if whole else generator)
    heard = source.sound if source is not None else None
    if request.heard is not None:
        heard = _sound_in(request.heard, generator)
    heard = _long_enough(heard, task, request, generator)
    clip = None if source is None else generator.clip_of(source)
    structure = None if request.structure is None else generator.clip_of(_read(request.structure, generator))
    latents = 1 + (request.given - 1) // factor
    material = generator.material(
        task,
        text=request.text,
        clip=clip,
        sound=None if heard is None else generator.sound_of(heard),
        structure=structure,
        region=request.region,
        given=latents,
    )
    frames_given = 1 + factor * (latents - 1) if goes_on else 0
    window_s = float((frames_given if goes_on else generator.frames) / generator.fps)
    there_s = 0.0 if heard is None else heard.duration_s
    if source is not None:
        there_s = source.duration_s if source.num_frames > 1 else 0.0
    return Question(
        task=task,
        material=material,
        like=clip or structure,
        beside=source if whole else None,
        heard=heard,
        frames_given=frames_given,
        source_s=min(there_s, window_s),
    )


def _long_enough(
    heard: Sound | None, task: MultimodalTask, request: Request, generator: MultimodalGenerator
) -> Sound | None:
    """The sound of a source, or None where it is shorter than a token. Raises UsageError where the task needs it."""
    config = generator.sound.config
    if heard is None or heard.num_samples * config.rate_hz >= config.hop * heard.rate_hz:
        return heard
    if {*task.given} & {"sound", "first-sound"} - task.optional:
        raise UsageError(
            f"{request.heard or request.source} holds {heard.duration_s:.3f} s of sound, and {task.name} needs "
            f"{config.hop / config.rate_hz:.3f} s, one token of it, or more; give a longer sound"
        )
    return None


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

"""The verbs, composed of the rooms below: nothing here computes.

    roundtrip   file -> tokens -> file      encode     file -> token file     decode       token file -> file
    info        anything -> what it is      compress   file -> .klx           decompress   .klx -> file

All but info stream: memory does not grow with the length of the video, but for the packets of its sound when a .klx
file is decompressed. Sound alone has its verbs in kinolex.sound_api.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from kinolex import checkpoint, hub
from kinolex.codec.parser import read_index
from kinolex.codec.priors import Prior
from kinolex.compression import (
    SUFFIX,
    CompressConfig,
    FindCoder,
    Lost,
    blocks_of,
    compress_stream,
    decompress_at,
    decompress_stream,
    describe,
    shipped_coder,
    sound_pieces,
)
from kinolex.data.token_store import load_picture_tokens, load_tokens, save_tokens
from kinolex.errors import StreamError, UsageError
from kinolex.media import VideoReader, VideoWriter, holds_pictures, probe, resize_frames, write
from kinolex.media.files import check_target
from kinolex.media.opening import check_file, check_place, replacing
from kinolex.media.sound import read_sound as read_sound_file
from kinolex.media.sound import sound_pieces as media_sound_pieces
from kinolex.media.sound import track_of
from kinolex.media.writer import FORMATS
from kinolex.metrics import PSNR_CAP_DB, bits_per_pixel
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.tokenizers.soundstream import SoundStreamConfig
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip, Extent, Sound, SoundExtent, Tokens

TOKEN_SUFFIX = ".safetensors"
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})

OnFrames = Callable[[int, int | None], None]
"""(frames finished, frames in all if known): for progress bars."""


def _silent(done: int, total: int | None) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a round trip did; all figures are of this run."""

    source: str
    target: str
    model: str
    frames: int
    height: int
    width: int
    fps: str
    sound: str
    tokens: int
    vocab_size: int
    token_bits_per_pixel: float
    """Raw: log2 of the vocabulary times the tokens, over the pixels of the clip; no entropy coding."""
    psnr_db: float
    """Of all pixels of all frames, against the frames that were encoded (scaled ones, where `lines` scaled them)."""
    seconds: float
    frames_per_second: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class _Passing:
    """Remembers frames on their way into the encoder until the decoder has answered for them."""

    def __init__(self) -> None:
        self._waiting: deque[Tensor] = deque()
        self.squared_error, self.values = 0.0, 0
        self.tokens = 0

    def remember(self, clips: Iterable[Clip]) -> Iterator[Clip]:
        for clip in clips:
            self._waiting.extend(clip.frames_TCHW)
            yield clip

    def count(self, pieces: Iterable[Tokens]) -> Iterator[Tokens]:
        for piece in pieces:
            self.tokens += piece.num_tokens
            yield piece

    def compare(self, clips: Iterable[Clip]) -> Iterator[Clip]:
        for clip in clips:
            for frame_CHW in clip.frames_TCHW:
                difference = frame_CHW.float() - self._waiting.popleft().float()
                self.squared_error += float(difference.square().sum(dtype=torch.float64))
            self.values += clip.frames_TCHW.numel()
            yield clip

    @property
    def psnr_db(self) -> float:
        mean = self.squared_error / max(1, self.values)
        return PSNR_CAP_DB if mean == 0 else min(PSNR_CAP_DB, 10 * math.log10(255.0**2 / mean))


def roundtrip(
    source: str | Path,
    target: str | Path,
    tokenizer: VideoTokenizer,
    *,
    model_name: str = "",
    lines: int | None = None,
    on_frames: OnFrames = _silent,
) -> Report:
    """A file through the tokenizer and back into a file; its sound goes past the tokenizer and is coded anew.

    Args:
        source: any video, GIF or image.
        target: .mp4, .webm, .gif, or an image suffix when the source is an image.
        lines: scale the short side down to this many lines first; None keeps the size.
        on_frames: called as frames are finished.

    Raises:
        UsageError: `lines` below 1, or the target is the source.
        KinolexError: of the media and tokenizer layers; no partial target is left.
    """
    source, target = Path(source), Path(target)
    refuse_same(source, target)
    _check_lines(lines)
    began, passing = time.monotonic(), _Passing()
    with VideoReader(source) as reader:
        sound = _Track(source, reader)
        clips = passing.remember(_scaled(reader, lines))
        pieces = passing.count(tokenizer.encode_stream(clips))
        decoded = passing.compare(tokenizer.decode_stream(pieces))
        extent = write_stream(reported(decoded, reader.info.frames, on_frames), target, sound.pieces)
    seconds = time.monotonic() - began
    bits = passing.tokens * math.log2(tokenizer.vocab_size)
    return Report(
        source=source.name,
        target=target.name,
        model=model_name or tokenizer.fingerprint[:12],
        frames=extent.frames,
        height=extent.height,
        width=extent.width,
        fps=str(extent.fps),
        sound=sound.words if _keeps_sound(target) else NO_SOUND,
        tokens=passing.tokens,
        vocab_size=tokenizer.vocab_size,
        token_bits_per_pixel=bits / extent.pixels,
        psnr_db=passing.psnr_db,
        seconds=seconds,
        frames_per_second=extent.frames / seconds,
    )


def encode(
    source: str | Path,
    target: str | Path,
    tokenizer: VideoTokenizer,
    *,
    lines: int | None = None,
    on_frames: OnFrames = _silent,
) -> Tokens:
    """A media file into a token file (.safetensors); sound is not stored. Arguments and errors as of roundtrip."""
    source, target = Path(source), Path(target)
    check_token_target(target)
    check_place(target)
    refuse_same(source, target)
    _check_lines(lines)
    ids, extent, frames = [], None, 0
    with VideoReader(source) as reader:
        for piece in tokenizer.encode_stream(_scaled(reader, lines)):
            ids.append(piece.ids_Qthw)
            frames += piece.extent.frames
            extent = replace(piece.extent, frames=frames)
            on_frames(frames, reader.info.frames)
    assert extent is not None  # a reader gives at least one frame or raises
    tokens = Tokens(torch.cat(ids, dim=1), "video", tokenizer.fingerprint, extent)
    save_tokens(tokens, target)
    return tokens


def decode(
    source: str | Path,
    target: str | Path,
    tokenizer: VideoTokenizer,
    *,
    sound_from: str | Path | None = None,
    on_frames: OnFrames = _silent,
) -> Extent:
    """A token file into a media file, with the sound of another file if one is given.

    Raises:
        UsageError: sound_from holds no sound, or the target is one of the sources.
        KinolexError: of the media and tokenizer layers; no partial target is left.
    """
    refuse_same(Path(source), Path(target))
    tokens = load_picture_tokens(source)
    sound = None
    if sound_from is not None:
        refuse_same(Path(sound_from), Path(target))
        sound = _sound_in(Path(sound_from))
        if sound is None:
            raise UsageError(f"--sound-from {sound_from} holds no sound; leave the option out")
        if (form := FORMATS.get(Path(target).suffix.lower())) is None or form.sound_codec is None:
            raise UsageError(f"{target} cannot hold the sound of {sound_from}; name an .mp4, or leave the sound out")
    decoded = tokenizer.decode_stream([tokens])
    return write_stream(reported(decoded, tokens.extent.frames, on_frames), Path(target), sound)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressReport:
    """What a compression did; all figures are of this run."""

    source: str
    target: str
    bytes: int
    bits_per_pixel: float
    """Of the whole file, sound and all."""
    kbps: float
    frames: int
    size: str
    fps: str
    sound: str
    seconds: float
    frames_per_second: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compress(
    source: str | Path,
    target: str | Path,
    tokenizer: VideoTokenizer,
    prior: Prior,
    config: CompressConfig | None = None,
    *,
    sound: bool = True,
    sound_tokenizer: SoundTokenizer | None = None,
    lines: int | None = None,
    on_frames: OnFrames = _silent,
) -> CompressReport:
    """A media file into a .klx file, with its sound.

    Args:
        prior: of the tokenizer, see hub.load_prior.
        config: rate and chunks.
        sound: False leaves it out.
        sound_tokenizer: makes the sound tokens; None makes it Opus.
        lines: scale the short side down to this many lines first; None keeps the size.

    Raises:
        UsageError: another suffix than .klx, `lines` below 1, or the target is the source.
        KinolexError: of the media and tokenizer layers; no partial target is left.
    """
    source, target = Path(source), Path(target)
    if target.suffix.lower() != SUFFIX:
        raise UsageError(f"compressed files are written as {SUFFIX}, got {target}; name it {target.stem}{SUFFIX}")
    refuse_same(source, target)
    _check_lines(lines)
    began, size, frames, extent = time.monotonic(), 0, 0, None
    with VideoReader(source) as reader, replacing(target) as temporary, temporary.open("wb") as file:
        track = _Track(source, reader) if sound else None

        def counted() -> Iterator[Clip]:
            nonlocal extent, frames
            for clip in _scaled(reader, lines):
                extent = clip.extent
                yield clip
                frames += clip.num_frames
                on_frames(frames, reader.info.frames)

        pieces = compress_stream(
            counted(),
            tokenizer,
            prior,
            config,
            sound=track.pieces if track else None,
            sound_tokenizer=sound_tokenizer,
        )
        for data in pieces:
            file.write(data)
            size += len(data)
    assert extent is not None  # a reader gives at least one frame or raises
    extent, seconds = replace(extent, frames=frames), time.monotonic() - began
    return CompressReport(
        source=source.name,
        target=target.name,
        bytes=size,
        bits_per_pixel=bits_per_pixel(size, extent.pixels),
        kbps=8 * size * float(extent.fps) / extent.frames / 1000,
        frames=extent.frames,
        size=f"{extent.width}x{extent.height}",
        fps=str(extent.fps),
        sound=track.words if track else NO_SOUND,
        seconds=seconds,
        frames_per_second=extent.frames / seconds,
    )


def decompress(
    source: str | Path,
    target: str | Path,
    find_coder: FindCoder = shipped_coder,
    *,
    sound_tokenizer: SoundTokenizer | None = None,
    on_lost: Callable[[Lost], None] | None = None,
    on_frames: OnFrames = _silent,
) -> Extent:
    """A .klx file into a media file, with its sound.

    Args:
        find_coder: by default the shipped models are searched.
        sound_tokenizer: that made the sound tokens, where they are some; None searches the shipped ones.
        on_lost: called for every damaged stretch, which then holds the picture before it; None makes damage an error.

    Raises:
        UsageError: the target is the source.
        StreamError: damaged or cut; the target then holds everything before. Made by a model that is not here.
        MissingFile, UnreadableMedia: no such file, or an empty one. KinolexError: of the media and tokenizer layers; no
            partial target is left.
    """
    source, target = Path(source), Path(target)
    refuse_same(source, target)
    broken: list[StreamError] = []

    def up_to_damage(clips: Iterator[Clip]) -> Iterator[Clip]:
        yield next(clips)  # damage before the first picture leaves nothing to write
        try:
            yield from clips
        except StreamError as error:
            broken.append(error)

    with _open_klx(source) as file:
        sound = None
        if _keeps_sound(target):
            sound = sound_pieces(file, tolerate=on_lost is not None, up_to_damage=True, tokenizer=sound_tokenizer)
        total = _frames_in(file)
        file.seek(0)
        clips = decompress_stream(blocks_of(file), find_coder, on_lost=on_lost, sound_tokenizer=sound_tokenizer)
        extent = write_stream(reported(up_to_damage(clips), total, on_frames), target, sound)
    for error in broken:
        raise type(error)(f"{source}: {error}; {target} holds the {extent.frames} frames before")
    return extent


def decompress_frame(
    source: str | Path,
    target: str | Path,
    frame: int,
    find_coder: FindCoder = shipped_coder,
    *,
    on_lost: Callable[[Lost], None] | None = None,
) -> Extent:
    """One frame of a .klx file as an image; reads the header, the index and its chunk alone.

    Args:
        on_lost: reads a file that is damaged or has no index from the front, and is called for every damaged stretch
            up to the frame.

    Errors as decompress; UsageError: the video has no such frame.
    """
    check_target(target)
    refuse_same(Path(source), Path(target))
    with _open_klx(Path(source)) as file:
        if on_lost is None:
            clip = decompress_at(file, frame, find_coder)
        else:
            clip = _frame_from_front(file, frame, find_coder, on_lost)
    write(clip, Path(target))
    return clip.extent


def _frame_from_front(file: BinaryIO, frame: int, find_coder: FindCoder, on_lost: Callable[[Lost], None]) -> Clip:
    shown = 0
    for clip in decompress_stream(blocks_of(file), find_coder, on_lost=on_lost):
        if 0 <= frame - shown < clip.num_frames:
            return Clip(clip.frames_TCHW[frame - shown :][:1], clip.fps)
        shown += clip.num_frames
    raise UsageError(f"frames 0 to {shown - 1} of the video could be read, and not {frame}")


@contextmanager
def _open_klx(path: Path) -> Iterator[BinaryIO]:
    """The file; what is wrong with its bytes is told with its name."""
    with check_file(path).open("rb") as file:
        try:
            yield file
        except StreamError as error:
            raise type(error)(f"{path}: {error}") from error


def _frames_in(file: BinaryIO) -> int | None:
    try:
        return sum(read_index(file)[0].frames)
    except StreamError:
        return None


def info(source: str | Path) -> dict[str, Any]:
    """What a media, token or .klx file, a checkpoint folder or a model name is: "kind" and facts that JSON can hold.

    Raises:
        KinolexError: it is none of these, or damaged.
    """
    path = Path(source)
    if path.is_file() and path.suffix.lower() == TOKEN_SUFFIX:
        return {"kind": "tokens", **describe_tokens(load_tokens(path))}
    if path.is_file() and path.suffix.lower() == SUFFIX:
        with _open_klx(path) as file:
            return {"kind": "klx", **describe(file)}
    if path.is_file() or (path.suffix and not path.is_dir()):
        if not holds_pictures(path):  # raises the named error for a file that is not there
            sound = read_sound_file(path)
            facts_of_sound = {"samples": sound.num_samples, "rate_hz": sound.rate_hz, "duration_s": sound.duration_s}
            return {"kind": "sound", "path": str(path), **facts_of_sound, "channels": len(sound.samples_CS)}
        facts = probe(path)
        values = {name: getattr(facts, name) for name in facts.__slots__}
        plain = {name: value if isinstance(value, int | float | None) else str(value) for name, value in values.items()}
        return {"kind": "media", **plain}
    return {"kind": "model", **_describe_model(hub.locate(source))}


def describe_tokens(tokens: Tokens | Tokens[SoundExtent]) -> dict[str, Any]:
    """Facts of tokens that JSON can hold."""
    extent = tokens.extent
    facts = {
        "tokens": tokens.num_tokens,
        "grid": "x".join(str(size) for size in tokens.ids_Qthw.shape),
        "tokenizer": tokens.tokenizer,
    }
    if isinstance(extent, SoundExtent):
        return facts | {"samples": extent.samples, "rate_hz": extent.rate_hz, "channels": tokens.ids_Qthw.shape[3]}
    return facts | {
        "frames": extent.frames,
        "size": f"{extent.width}x{extent.height}",
        "fps": str(extent.fps),
    }


def _describe_model(folder: Path) -> dict[str, Any]:
    what = checkpoint.what_is(folder)
    if what != checkpoint.TOKENIZER:
        return _describe_network(folder, what)
    tokenizer = checkpoint.load(folder)
    return {
        "folder": str(folder),
        "fingerprint": tokenizer.fingerprint,
        "pixels_per_token": "x".join(str(size) for size in tokenizer.pixels_per_token),
        "vocab_size": tokenizer.vocab_size,
        "levels": tokenizer.num_levels,
        "causal": tokenizer.config.causal,
        "parameters": sum(parameter.numel() for parameter in tokenizer.model.parameters()),
    }


MAX_NAMED = 200
"""Names that info spells out; of more it gives the number."""


def _describe_network(folder: Path, what: str | None) -> dict[str, Any]:
    """Of a network that is no tokenizer: what it is, and what it can be asked for."""
    if what == checkpoint.LANGUAGE_MODEL:
        lm = hub.load_lm(folder)
        facts = {"folder": str(folder), "what": what, "fingerprint": lm.fingerprint, "ids": lm.vocab_size}
        facts |= {"words": len(lm.word_ids())}
        return facts if lm.max_length is None else facts | {"positions": lm.max_length}
    model, fingerprint = checkpoint.load_module(folder)
    facts = {
        "folder": str(folder),
        "what": what or "network",
        "fingerprint": fingerprint,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    config = model.config
    if isinstance(config, SoundStreamConfig):
        facts |= {"rate_hz": config.rate_hz, "frames_per_s": config.rate_hz / config.hop}
        facts |= {"levels": config.quantizer.num_levels, "kbps_per_level": config.kbps_per_level}
    for name in ("tokenizer", "tasks", "words"):
        if value := getattr(config, name, None):
            few = isinstance(value, str) or len(value) <= MAX_NAMED
            facts[name] = (value if isinstance(value, str) else " ".join(map(str, value))) if few else len(value)
    return facts


def _scaled(reader: VideoReader, lines: int | None) -> Iterator[Clip]:
    for clip in reader:
        short = min(clip.height, clip.width)
        if lines is None or short <= lines:
            yield clip
            continue
        size = (max(1, round(clip.height * lines / short)), max(1, round(clip.width * lines / short)))
        yield replace(clip, frames_TCHW=resize_frames(clip.frames_TCHW, *size))


NO_SOUND = "none"


class _Track:
    """The sound of a video on its way, from the first frame on: pieces as they are asked for, counted as they pass."""

    def __init__(self, path: Path, reader: VideoReader) -> None:
        self._samples, self._rate_hz = 0, 0
        coming = iter(()) if reader.info.sound_codec is None else media_sound_pieces(path, start_s=reader.origin_s)
        first = next(coming, None)
        self.pieces: Iterator[Sound] | None = None if first is None else self._counted(chain([first], coming))
        """None where there is none."""

    def _counted(self, pieces: Iterable[Sound]) -> Iterator[Sound]:
        for piece in pieces:
            self._samples, self._rate_hz = self._samples + piece.num_samples, piece.rate_hz
            yield piece

    @property
    def words(self) -> str:
        """What has passed, for people."""
        if not self._rate_hz:
            return NO_SOUND
        return f"{self._samples / self._rate_hz:.2f} s at {self._rate_hz} Hz"


def _sound_in(path: Path) -> Sound | None:
    """The sound of a video, from its first frame on, or of a sound file."""
    if not holds_pictures(path):
        return read_sound_file(path)
    with VideoReader(path) as reader:
        return track_of(path, start_s=reader.origin_s, length_s=None) if reader.info.sound_codec is not None else None


def _keeps_sound(target: Path) -> bool:
    form = FORMATS.get(target.suffix.lower())
    return form is not None and form.sound_codec is not None


def reported(clips: Iterable[Clip], total: int | None, on_frames: OnFrames) -> Iterator[Clip]:
    """The same clips, with progress told as they pass."""
    done = 0
    for clip in clips:
        done += clip.num_frames
        on_frames(done, total)
        yield clip


def write_stream(clips: Iterator[Clip], target: Path, sound: Sound | Iterable[Sound] | None) -> Extent:
    """Pieces of one clip into a video, or a single frame into an image; a partial target never stays.

    Args:
        sound: whole, or pieces that are asked for as frames are written.
    """
    check_target(target)  # before the first piece, which may take minutes
    first = next(clips)
    if target.suffix.lower() in IMAGE_SUFFIXES:
        if next(clips, None) is not None or first.num_frames > 1:
            raise UsageError(f"{target} can hold one frame only; write a video as .mp4, .webm or .gif")
        write(first, target)
        return first.extent
    frames = 0
    with VideoWriter(target, fps=first.fps, height=first.height, width=first.width, sound=sound) as writer:
        for clip in chain([first], clips):
            writer.append(clip.frames_TCHW)
            frames += clip.num_frames
    return replace(first.extent, frames=frames)


def _check_lines(lines: int | None) -> None:
    if lines is not None and lines < 1:
        raise UsageError(f"lines must be at least 1, got {lines}; leave it out to keep the size")


def check_token_target(target: Path) -> None:
    """Raises UsageError for a suffix that is not a token file's."""
    if target.suffix.lower() != TOKEN_SUFFIX:
        raise UsageError(f"tokens are written as {TOKEN_SUFFIX}, got {target}; name it {target.stem}{TOKEN_SUFFIX}")


def refuse_same(source: Path, target: Path) -> None:
    """Raises UsageError where the result would overwrite what it is made from."""
    if target.exists() and source.exists() and source.samefile(target):
        raise UsageError(f"{source} would be overwritten by the result; give the result another name")

"""Clips and media files <-> .klx: the tokenizer, the codec and the sound put together.

    Clip --chunks--> scale --> tokenizer.encode, cheap tokens asked for --> StreamEncoder --> bytes
    bytes --> StreamDecoder --> tokenizer.decode_stream --> scale --> Clip

Both directions work piece by piece; their delay is one chunk (49 frames unless another length is chosen), and one frame
more when compressing.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from io import BytesIO
from itertools import chain, groupby
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinolex import hub
from kinolex.codec import stream as codec
from kinolex.codec.container import Chunk, End, Header, scaled
from kinolex.codec.parser import Limits, Parser
from kinolex.codec.priors import PLAIN, Prior, to_digits
from kinolex.codec.rate import DigitChooser
from kinolex.codec.sound_track import SoundTrack
from kinolex.codec.stream import Gap, Piece, StreamDecoder, StreamEncoder, estimate_bits
from kinolex.errors import ConfigError, DamagedStream, StreamError, UsageError
from kinolex.media import resize_frames
from kinolex.metrics import bits_per_pixel
from kinolex.soundtracks import decode_pieces, encode_sound, open_decoder, sound_words
from kinolex.tokenizers.base import check_fingerprint
from kinolex.tokenizers.quantizers import FSQConfig
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip, Sound, Tokens

SUFFIX = ".klx"
CHUNK_FRAMES = 49
"""1 + 4 x 12, about two seconds: what a lost chunk costs and what a seek decodes."""
STEPS = (
    *((scale, 1.0) for scale in range(3, 19)),
    *((18, 0.5), (19, 0.5), (20, 0.5), (20, 0.0), (22, 0.0)),
)
"""From quality 0 to quality 100 in steps of 5: sixteenths of full size, and how much bits count. Size alone makes some
clips worse beyond 18/16, so from there on bits count less (notes/LOG.md)."""
SCALES = tuple(scale for scale, _ in STEPS)
RATE_WEIGHT = 0.5
"""What a tokenizer that weighs rate is asked where bits count fully."""
FULL_SIZE_QUALITY = 65
WEIGHT = 0.15
"""Squared quantizer steps that a bit is worth there, where the tokenizer does not weigh rate itself (notes/LOG.md)."""
GAP_FRAMES = 16
"""Concealed frames that are given out at once."""
READ_BYTES = 2**16


@dataclass(frozen=True, kw_only=True, slots=True)
class CompressConfig:
    """How many bytes a file may take, and how it is cut."""

    quality: int | None = None
    """0 to 100; 65 codes at full size. The default if neither this nor bpp is given."""
    bpp: float | None = None
    """Bits per pixel of the whole file, sound and all, kept on average from chunk to chunk."""
    kbps: float | None = None
    """The same in kilobits per second."""
    chunk_frames: int = CHUNK_FRAMES
    sound_kbps: float | None = None
    """Of the sound: by default 32 as Opus and 6 as tokens."""

    def __post_init__(self) -> None:
        targets = [value for value in (self.quality, self.bpp, self.kbps) if value is not None]
        if len(targets) > 1:
            raise ConfigError("give one of quality, bpp and kbps (--rate-kbps); they are three ways to say the same")
        if self.quality is not None and not (type(self.quality) is int and 0 <= self.quality <= 100):
            raise ConfigError(f"quality must be a whole number in 0..100, got {self.quality!r}")
        if not (isinstance(self.chunk_frames, int) and self.chunk_frames > 0):
            raise ConfigError(f"chunk_frames must be a whole number above 0, got {self.chunk_frames!r}")
        for name in ("bpp", "kbps", "sound_kbps"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and 0 < value < math.inf):
                raise ConfigError(f"{name} must be a number, positive and finite, got {value!r}")


def compress_stream(
    clips: Iterable[Clip],
    tokenizer: VideoTokenizer,
    prior: Prior,
    config: CompressConfig | None = None,
    *,
    sound: Sound | Iterable[Sound] | None = None,
    sound_tokenizer: SoundTokenizer | None = None,
) -> Iterator[bytes]:
    """A video, cut anywhere, as the bytes of a .klx file, chunk by chunk.

    Args:
        clips: pieces of one size and rate; their own sound is ignored.
        prior: of the tokenizer, see hub.load_prior.
        sound: of the whole video, from its first frame on; pieces of it are asked for as the pictures come.
        sound_tokenizer: makes the sound tokens; None makes it Opus.

    Yields:
        Bytes; joined they are the file. The delay is config.chunk_frames and one frame more, which tells that a chunk
        is not the last.

    Raises:
        UsageError: no frame came.
    """
    config = config or CompressConfig()
    coded = None if sound is None else encode_sound(sound, kbps=config.sound_kbps, tokenizer=sound_tokenizer)
    encoder: StreamEncoder | None = None
    spent, step = 0, (FULL_SIZE_QUALITY if config.quality is None else config.quality) // 5
    for chunk, is_last in _chunks(clips, config.chunk_frames):
        if encoder is None:
            head = coded.head if coded else b""
            encoder = StreamEncoder(prior, height=chunk.height, width=chunk.width, sound_head=head)
        packets: tuple[bytes, ...] = ()
        if coded is not None:
            shown = encoder.next_frame + chunk.num_frames
            packets = coded.take(None if is_last else coded.track.packets_before(shown, chunk.fps))
        budget = _budget_bits(config, chunk, encoder.next_frame + chunk.num_frames)
        if budget is None:
            tokens = _code(chunk, step, tokenizer, prior)
        else:
            beside = END_BYTES + OVERHEAD_BYTES + sum(map(len, packets))
            beside += spent or HEADER_BYTES + len(coded.head if coded else b"")
            left = budget - 8 * beside
            tokens, step = _code_within(left, chunk, step, tokenizer, prior)
        data = encoder.push(tokens, scale=SCALES[step], packets=packets)
        spent += len(data)
        yield data
    if encoder is None:
        raise UsageError("there is no frame to compress")
    yield encoder.finish(sound_samples=coded.num_samples if coded else 0)


HEADER_BYTES, OVERHEAD_BYTES, END_BYTES = 80, 24, 24
"""Of the container, put aside when a budget is kept: before the first chunk, with every chunk, and behind the last."""


def _chunks(clips: Iterable[Clip], size: int) -> Iterator[tuple[Clip, bool]]:
    """Pieces of exactly `size` frames, and whether each is the last (which may be shorter)."""
    waiting: Clip | None = None
    for clip in clips:
        if waiting is not None and (clip.height, clip.width, clip.fps) != (waiting.height, waiting.width, waiting.fps):
            raise UsageError(f"every piece of a video must look like the first, {waiting!r}, got {clip!r}")
        frames_TCHW = clip.frames_TCHW if waiting is None else torch.cat([waiting.frames_TCHW, clip.frames_TCHW])
        while len(frames_TCHW) > size:
            yield Clip(frames_TCHW[:size], clip.fps), False
            frames_TCHW = frames_TCHW[size:]
        waiting = Clip(frames_TCHW, clip.fps)
    if waiting is not None:
        yield waiting, True


def _budget_bits(config: CompressConfig, chunk: Clip, frames: int) -> float | None:
    """What the file may take up to the end of this chunk, or None if quality rules."""
    if config.bpp is not None:
        return config.bpp * frames * chunk.height * chunk.width
    return None if config.kbps is None else config.kbps * 1000.0 * float(frames / chunk.fps)


def _code(chunk: Clip, step: int, tokenizer: VideoTokenizer, prior: Prior) -> Tokens:
    """Tokens of a chunk at a step of STEPS: cheap ones if the tokenizer or the quantizer can choose."""
    scale, thrift = STEPS[step]
    size = scaled(chunk.height, scale), scaled(chunk.width, scale)
    small = replace(chunk, frames_TCHW=resize_frames(chunk.frames_TCHW, *size))
    if tokenizer.weighs_rate:
        return tokenizer.encode(small, rate_weight=thrift * RATE_WEIGHT)
    chooses = thrift > 0 and _has_places(tokenizer, prior)
    return tokenizer.encode(small, DigitChooser(prior, thrift * WEIGHT) if chooses else None)


def _has_places(tokenizer: VideoTokenizer, prior: Prior) -> bool:
    """Whether ids are rounded digits, and the prior's digits are these."""
    return isinstance(tokenizer.config.quantizer, FSQConfig) and prior.levels == tokenizer.config.quantizer.levels


def _code_within(bits: float, chunk: Clip, step: int, tokenizer: VideoTokenizer, prior: Prior) -> tuple[Tokens, int]:
    """The largest scale that fits, or the smallest there is; tried from a guess by area on, step by step."""
    tried: dict[int, tuple[Tokens, float]] = {}

    def bits_at(step: int) -> float:
        if step not in tried:
            tokens = _code(chunk, step, tokenizer, prior)
            tried[step] = tokens, estimate_bits(to_digits(tokens.ids_Qthw, prior.levels), prior)
        return tried[step][1]

    guess = SCALES[step] * math.sqrt(max(bits, 0.0) / max(bits_at(step), 1.0))
    step = max(0, bisect_right(SCALES, guess) - 1)
    while step > 0 and bits_at(step) > bits:
        step -= 1
    while step + 1 < len(SCALES) and bits_at(step + 1) <= bits:
        step += 1
    bits_at(step)
    return tried[step][0], step


# --- back to pictures ---

FindCoder = Callable[[Header], tuple[VideoTokenizer, Prior]]
"""Gives the tokenizer and the prior that a file was made with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """What was concealed: these frames hold the picture before them."""

    first_frame: int
    frames: int
    """0 for the end of a file that was cut: how much is missing there, nobody knows."""
    reason: str


def shipped_coder(header: Header) -> tuple[VideoTokenizer, Prior]:
    """Tokenizer and prior out of the shipped models. Raises UnknownModel if none made the file."""
    name = hub.name_of(header.tokenizer)
    tokenizer = hub.load(name)
    return tokenizer, hub.load_prior(name, tokenizer)


def decompress_stream(
    data: Iterable[bytes],
    find_coder: FindCoder = shipped_coder,
    *,
    limits: Limits | None = None,
    on_lost: Callable[[Lost], None] | None = None,
    sound_tokenizer: SoundTokenizer | None = None,
) -> Iterator[Clip]:
    """The pictures and the sound of a .klx file, piece by piece as its bytes come.

    Args:
        data: the file, cut anywhere.
        find_coder: by default the shipped models are searched.
        limits: larger files are refused.
        on_lost: called for every stretch that was damaged or is missing, which then holds the picture before it; None
            raises the named error instead, after everything before the damage has been given out.
        sound_tokenizer: that made the sound tokens, where they are some; None searches the shipped ones.

    Yields:
        Clips of the original size and rate, each with its part of the sound.

    Raises:
        StreamError, DamagedStream, TruncatedStream: as codec.stream.StreamDecoder.
        UnknownModel: no shipped model made the file.
    """
    found: list[VideoTokenizer] = []

    def find_prior(header: Header) -> Prior:
        tokenizer, prior = find_coder(header)
        found.append(tokenizer)
        return prior

    decoder = StreamDecoder(find_prior, limits or Limits(), tolerate=on_lost is not None)
    pieces = chain(chain.from_iterable(map(decoder.feed, data)), decoder.finish())
    sound, shown = None, 0
    for clip, packets in _pictures(pieces, decoder, found, on_lost):
        header = decoder.header
        assert header is not None
        if header.track is not None:
            sound = sound or _SoundQueue(header.sound_head, header.track, sound_tokenizer)
            sound.put(packets)
            shown += clip.num_frames
            wanted = shown * header.track.rate_hz * header.fps.denominator // header.fps.numerator
            clip = clip.with_sound(sound.take_until(wanted))
        yield clip
    if decoder.cut is not None and on_lost is not None:
        on_lost(Lost(first_frame=decoder.next_frame, frames=0, reason=decoder.cut))


def _pictures(
    pieces: Iterator[Piece | Gap],
    decoder: StreamDecoder,
    found: Sequence[VideoTokenizer],
    on_lost: Callable[[Lost], None] | None,
) -> Iterator[tuple[Clip, list[bytes | None]]]:
    """Clips at full size with the packets that came with them; gaps hold the frame before."""
    held_1CHW: Tensor | None = None
    for _, run in groupby(pieces, key=_RunNumber()):
        first = next(run)
        header = decoder.header
        assert header is not None
        size = header.height, header.width
        if isinstance(first, Gap):
            assert on_lost is not None
            on_lost(Lost(first_frame=first.first_frame, frames=first.frames, reason=first.reason))
            if held_1CHW is None:
                held_1CHW = torch.full((1, 3, *size), 128, dtype=torch.uint8)
            for start in range(0, first.frames, GAP_FRAMES):
                count = min(GAP_FRAMES, first.frames - start)
                lost: list[bytes | None] = [None] * first.packets if start == 0 else []
                yield Clip(held_1CHW.expand(count, -1, -1, -1), header.fps), lost
            continue
        packets: list[bytes | None] = []
        for clip in found[0].decode_stream(_tokens_of(chain([first], run), packets)):
            full_TCHW = resize_frames(clip.frames_TCHW, *size)
            held_1CHW = full_TCHW[-1:]
            yield Clip(full_TCHW, header.fps), packets.copy()
            packets.clear()


class _RunNumber:
    """Key for groupby: pieces that continue one another share a number."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, piece: Piece | Gap) -> int:
        if isinstance(piece, Gap) or not piece.continued:
            self.number += 1
        return self.number


def _tokens_of(run: Iterable[Piece | Gap], packets: list[bytes | None]) -> Iterator[Tokens]:
    """Tokens on their way to the decoder; their packets are left in the list."""
    for piece in run:
        assert isinstance(piece, Piece)
        packets.extend(piece.packets)
        yield piece.tokens


class _SoundQueue:
    """Packets in, exactly as much sound out as the pictures last; silence where it has ended."""

    def __init__(self, head: bytes, track: SoundTrack, tokenizer: SoundTokenizer | None) -> None:
        self._decoder, self._rate_hz = open_decoder(head, tokenizer), track.rate_hz
        self._packets: deque[bytes | None] = deque()
        self._decoded_CS: NDArray[Any] = np.zeros((self._decoder.channels, 0), np.float32)
        self._taken = 0

    def put(self, packets: Iterable[bytes | None]) -> None:
        self._packets.extend(packets)

    def take_until(self, sample: int) -> Sound:
        count = sample - self._taken
        parts, length = [self._decoded_CS], self._decoded_CS.shape[1]
        while length < count and self._packets:
            parts.append(self._decoder.push(self._packets.popleft()))
            length += parts[-1].shape[1]
        samples_CS = np.concatenate(parts, axis=1)
        taken_CS, self._decoded_CS = samples_CS[:, :count], samples_CS[:, count:]
        self._taken = sample
        padded_CS = np.pad(taken_CS, ((0, 0), (0, count - taken_CS.shape[1])))
        return Sound(torch.from_numpy(padded_CS), self._rate_hz)


def blocks_of(file: BinaryIO) -> Iterator[bytes]:
    """What is left of an open file, in blocks."""
    return iter(lambda: file.read(READ_BYTES), b"")


def decompress_at(file: BinaryIO, frame: int, find_coder: FindCoder = shipped_coder) -> Clip:
    """One frame, without its sound. Reads no more than codec.stream.read_at does; errors as there."""
    found: list[tuple[VideoTokenizer, Prior, Header]] = []

    def find_prior(header: Header) -> Prior:
        found.append((*find_coder(header), header))
        return found[-1][1]

    run = codec.read_at(file, frame, find_prior)
    tokenizer, _, header = found[-1]
    frames_TCHW = tokenizer.decode(codec.joined(run)).frames_TCHW[frame - run[0].first_frame :][:1]
    return Clip(resize_frames(frames_TCHW, header.height, header.width), header.fps)


def describe(file: BinaryIO) -> dict[str, Any]:
    """Facts of a .klx file that JSON can hold; every checksum and every first frame is looked at on the way.

    Raises:
        StreamError: it is none, or damaged or cut.
    """
    parser, size = Parser(), file.seek(0, os.SEEK_END)
    file.seek(0)
    chunks: list[Chunk] = []
    frames = 0
    for item in chain(chain.from_iterable(map(parser.feed, blocks_of(file))), parser.finish()):
        if isinstance(item, Chunk):
            if item.first_frame != frames:
                raise codec.out_of_order(frames, item.first_frame)
            chunks.append(item)
            frames += item.geometry.frames
    header = parser.header
    assert header is not None
    token_bytes = sum(len(chunk.tokens) for chunk in chunks)
    sound_bytes = sum(len(packet) for chunk in chunks for packet in chunk.packets)
    scales = sorted({chunk.geometry.scale for chunk in chunks})
    seconds = frames / float(header.fps)
    return {
        "bytes": size,
        "token_bytes": token_bytes,
        "sound_bytes": sound_bytes,
        "container_bytes": size - token_bytes - sound_bytes,
        "bits_per_pixel": bits_per_pixel(size, frames * header.height * header.width),
        "kbps": 8 * size / seconds / 1000,
        "frames": frames,
        "size": f"{header.width}x{header.height}",
        "fps": str(header.fps),
        "seconds": seconds,
        "tokens": sum(chunk.geometry.positions for chunk in chunks) * header.num_levels,
        "bits_per_token": 8
        * token_bytes
        / max(1, sum(chunk.geometry.positions for chunk in chunks) * header.num_levels),
        "vocab_size": header.vocab_size,
        "tokenizer": header.tokenizer,
        "prior": "plain" if header.prior == PLAIN else header.prior.hex(),
        "chunks": len(chunks),
        "independent_chunks": sum(not chunk.continued for chunk in chunks),
        "scales": ", ".join(f"{scale}/16" for scale in scales),
        "sound": sound_words(header.sound_head),
    }


def read_sound(
    file: BinaryIO,
    *,
    limits: Limits | None = None,
    tolerate: bool = False,
    up_to_damage: bool = False,
    tokenizer: SoundTokenizer | None = None,
) -> Sound | None:
    """The whole sound of a .klx file at once. Arguments and errors as of sound_pieces; None if it has none."""
    pieces = sound_pieces(file, limits=limits, tolerate=tolerate, up_to_damage=up_to_damage, tokenizer=tokenizer)
    if pieces is None:
        return None
    parts = list(pieces)
    return Sound(torch.cat([part.samples_CS for part in parts], dim=1), parts[0].rate_hz)


def sound_pieces(
    file: BinaryIO,
    *,
    limits: Limits | None = None,
    tolerate: bool = False,
    up_to_damage: bool = False,
    tokenizer: SoundTokenizer | None = None,
) -> Iterator[Sound] | None:
    """The sound of a .klx file, without decoding a picture; None if it has none.

    The file is read to its end at once, and its packets are kept: four kilobytes a second at 32 kbit/s.

    Args:
        limits: larger files are refused.
        tolerate: silence where the file is damaged, instead of an error.
        up_to_damage: the sound beside the pictures before the damage, instead of an error.
        tokenizer: that made the sound tokens, where they are some; None searches the shipped ones.

    Raises:
        StreamError, DamagedStream, TruncatedStream: as codec.parser.Parser. UnreadableMedia: as media.opus.
    """
    limits = limits or Limits()
    parser = Parser(limits=limits, tolerate=tolerate)
    file.seek(0)
    packets: list[bytes | None] = []
    samples, shown, broken = None, 0, False
    try:
        for item in chain(chain.from_iterable(map(parser.feed, blocks_of(file))), parser.finish()):
            header = parser.header
            track = header.track if header is not None else None
            if isinstance(item, Chunk) and header is not None and track is not None:
                lost = track.packets_before(item.first_frame, header.fps) - len(packets)
                shown = item.first_frame + item.geometry.frames
                if 0 <= lost * track.packet_samples <= limits.gap_seconds * track.rate_hz:
                    packets += [None] * lost + list(item.packets)
                elif not tolerate:
                    raise DamagedStream(f"the sound at frame {item.first_frame} does not follow what stands before it")
            elif isinstance(item, End):
                samples = item.sound_samples
    except StreamError:
        if not up_to_damage:
            raise
        broken = True
    header = parser.header
    track = header.track if header is not None else None
    if header is None or track is None:
        return None
    # The packets of a chunk go on into the next one, which is lost; only the last chunk holds more than that.
    if broken and len(packets) <= track.packets_before(shown, header.fps):
        samples = shown * track.rate_hz * header.fps.denominator // header.fps.numerator
    return decode_pieces(header.sound_head, packets, samples, tokenizer)


# --- in memory ---


def compress(
    what: Clip | Tokens, model: str | Path = hub.DEFAULT, *, sound_model: str | Path | None = None, **options: Any
) -> bytes:
    """A clip or tokens as the bytes of a .klx file.

    Args:
        what: a clip is tokenized, and its sound is stored as Opus or tokens; tokens are stored as they are.
        model: shipped name, folder, or hub repository; for tokens the one that made them.
        sound_model: of a sound tokenizer, such as "sound-nano"; None stores Opus.
        options: of CompressConfig, for clips: quality=, bpp= or kbps=, chunk_frames=, sound_kbps=.

    Raises:
        UsageError: neither clip nor tokens. TokenError: tokens of another tokenizer.
        ConfigError: options that cannot be.
    """
    if not isinstance(what, Clip | Tokens):
        raise UsageError(
            f"compress takes a Clip or Tokens, got {what!r}; kinolex.read(path) reads a file, and kinolex.api.compress "
            "goes from file to file"
        )
    known = [one.name for one in fields(CompressConfig)]
    if unknown := set(options) - set(known):
        raise ConfigError(f"no option {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    config = CompressConfig(**options)
    tokenizer = hub.load(model)
    prior = hub.load_prior(model, tokenizer)
    if isinstance(what, Tokens):
        check_fingerprint(what, tokenizer.fingerprint)
        if chosen := [*options, *(["sound_model"] if sound_model is not None else [])]:
            raise ConfigError(f"tokens are stored as they are, so {', '.join(chosen)} cannot be chosen any more")
        return codec.compress(what, prior, frames_per_latent=tokenizer.pixels_per_token[0])
    sound_tokenizer = None if sound_model is None else hub.load_sound(sound_model)
    pieces = compress_stream([what], tokenizer, prior, config, sound=what.sound, sound_tokenizer=sound_tokenizer)
    return b"".join(pieces)


def decompress(data: bytes, model: str | Path | None = None) -> Clip:
    """The clip of a .klx file, with its sound.

    Args:
        model: that made the file; the shipped ones are searched if None.

    Raises:
        StreamError: damaged, cut, or made by another model. UsageError: no bytes.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise UsageError(
            f"decompress takes the bytes of a .klx file, got {data!r}; kinolex.api.decompress goes from file to file"
        )
    clips = list(decompress_stream([bytes(data)], coder_of(model)))
    frames_TCHW = torch.cat([clip.frames_TCHW for clip in clips])
    return Clip(frames_TCHW, clips[0].fps, read_sound(BytesIO(data)))


def decompress_tokens(data: bytes, model: str | Path | None = None) -> list[Tokens]:
    """The tokens of a .klx file, one Tokens per independent run; of a file of tokens, one."""
    find = coder_of(model)
    runs: list[list[Piece]] = []
    for piece in codec.read_pieces(data, lambda header: find(header)[1]):
        if not piece.continued:
            runs.append([])
        runs[-1].append(piece)
    return [codec.joined(run) for run in runs]


def coder_of(model: str | Path | None) -> FindCoder:
    """Finds what made a file: the named model, or the shipped one that fits."""
    if model is None:
        return shipped_coder
    tokenizer = hub.load(model)
    prior = hub.load_prior(model, tokenizer)

    def named(header: Header) -> tuple[VideoTokenizer, Prior]:
        if header.tokenizer != tokenizer.fingerprint:
            raise StreamError(
                f"the file was made by tokenizer {header.tokenizer[:16]}, not by {model}; leave the model out to have "
                "the shipped ones searched, or name the one that made it"
            )
        return tokenizer, prior

    return named

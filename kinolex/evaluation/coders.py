"""Everything that turns a clip into bytes and back, in one shape, so that all of it can be measured alike.

clip, level --Coder.code--> CodedClip(raw bytes, file bytes, rebuilt clip)      .klx, x264, x265, SVT-AV1, JPEG ...
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import torch

from kinolex.codec.container import Chunk, Header
from kinolex.codec.parser import Parser
from kinolex.codec.priors import Prior
from kinolex.compression import STEPS, CompressConfig, compress_stream, decompress_stream
from kinolex.errors import UsageError
from kinolex.evaluation.codecs import CODECS, CURVE_CRFS, VERYSLOW, CodecConfig, decode, encode
from kinolex.evaluation.still_codecs import STILL_CODECS, StillConfig, decode_still, encode_still, missing_reason
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip

QUALITIES = (0.0, 20.0, 40.0, 65.0, 80.0, 95.0)
"""Points of a .klx curve; 65 codes at full size."""

PACKAGE = Path(__file__).parents[1]
CODE_OF_KLX = ("compression.py", "codec", "tokenizers", "layers", "media/resize.py")
"""Below the package: what decides which bytes a clip becomes, and which pictures they become."""


@dataclass(frozen=True, slots=True)
class CodedClip:
    """A clip after a coder."""

    raw_bytes: int
    """Of the coded pictures alone: packets, or token payloads; no container and no parameters of the decoder."""
    file_bytes: int
    """Of the whole file, as it lies on a disk."""
    rebuild: Callable[[], Clip]
    """Decodes: who only looks for a size need not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Coder:
    """A way to turn a clip into bytes and back, at several levels of quality."""

    name: str
    setting: str
    """What a level is called: quality, crf, q."""
    grid: tuple[float, ...]
    """Every level worth trying, fewest bytes first."""
    curve: tuple[float, ...]
    """Levels of a rate-distortion curve, from the grid and in its order."""
    identity: str
    """All that the bytes of a clip at a level depend on besides; figures of another identity are not reused."""
    code: Callable[[Clip, float], CodedClip]

    def __post_init__(self) -> None:
        places = [self.grid.index(level) if level in self.grid else -1 for level in self.curve]
        if not places or places[0] < 0 or places != sorted(set(places)):
            raise UsageError(
                f"the points of {self.name} must be levels of its grid, fewest bytes first and each once, "
                f"got {self.curve}; its levels go from {self.grid[0]:g} to {self.grid[-1]:g}"
            )


def klx_coder(
    tokenizer: VideoTokenizer,
    prior: Prior,
    name: str,
    *,
    qualities: tuple[float, ...] = QUALITIES,
    chunk_frames: int | None = None,
) -> Coder:
    """Clips as .klx files, without sound.

    Args:
        prior: of the tokenizer, see hub.load_prior.
        qualities: of the curve, whole numbers in 0..100, lowest first.
        chunk_frames: frames that are coded together; None takes the whole clip, as the codecs may.

    Raises:
        UsageError: qualities that are no such numbers, or in another order.
    """

    def find_coder(_header: Header) -> tuple[VideoTokenizer, Prior]:
        return tokenizer, prior

    def code(clip: Clip, quality: float) -> CodedClip:
        config = CompressConfig(quality=int(quality), chunk_frames=chunk_frames or clip.num_frames)
        data = b"".join(compress_stream([clip.with_sound(None)], tokenizer, prior, config))
        return CodedClip(sum(_payloads(data)), len(data), lambda: rebuild(data, clip.fps))

    def rebuild(data: bytes, fps: Fraction) -> Clip:
        pieces = decompress_stream([data], find_coder)
        return Clip(torch.cat([piece.frames_TCHW for piece in pieces]), fps)

    cut = "whole clip" if chunk_frames is None else str(chunk_frames)
    identity = [tokenizer.fingerprint, prior.fingerprint.hex(), cut, code_digest()]
    # Qualities between two steps of the ladder give the same file, so a search need not try them.
    grid = tuple(
        sorted({*map(float, range(0, 101, 100 // (len(STEPS) - 1))), *(q for q in qualities if q in range(101))})
    )
    return Coder(name=name, setting="quality", grid=grid, curve=qualities, identity=" ".join(identity), code=code)


def video_coders(codecs: tuple[CodecConfig, ...] = (*CODECS, *VERYSLOW)) -> list[Coder]:
    """Classical video codecs; raw bytes are packets, file bytes an MP4."""
    return [_video_coder(codec) for codec in codecs]


def still_coders() -> tuple[list[Coder], dict[str, str]]:
    """Codecs of pictures that this FFmpeg has, and for the others why they cannot be measured."""
    missing = {codec.name: reason for codec in STILL_CODECS if (reason := missing_reason(codec))}
    return [_still_coder(codec) for codec in STILL_CODECS if codec.name not in missing], missing


def code_digest() -> str:
    """16 hexadecimal digits of the SHA-256 of the source files that make .klx files."""
    digest = hashlib.sha256()
    for part in CODE_OF_KLX:
        place = PACKAGE / part
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _video_coder(codec: CodecConfig) -> Coder:
    def code(clip: Clip, crf: float) -> CodedClip:
        coded = encode(clip, codec, crf)
        return CodedClip(coded.num_bytes, len(coded.file), lambda: decode(coded, codec, clip.extent))

    identity = f"{codec.encoder} {json.dumps(codec.options(0.0), sort_keys=True)} av {av.__version__}"
    # The slowest presets lie close to the others, and four points tell how close.
    curve = CURVE_CRFS[codec.name][:: 2 if codec in VERYSLOW else 1]
    return Coder(name=codec.title, setting="crf", grid=codec.grid, curve=curve, identity=identity, code=code)


def _still_coder(codec: StillConfig) -> Coder:
    def code(clip: Clip, level: float) -> CodedClip:
        coded = encode_still(clip, codec, level)
        return CodedClip(coded.num_bytes, len(coded.file), lambda: decode_still(coded, codec, clip))

    identity = f"{codec.encoder} {json.dumps(codec.options(0.0), sort_keys=True)} av {av.__version__}"
    curve = tuple(map(float, codec.curve))
    return Coder(name=codec.name, setting=codec.setting, grid=codec.grid, curve=curve, identity=identity, code=code)


def _payloads(data: bytes) -> Iterator[int]:
    """Bytes of the coded tokens of every chunk of a .klx file."""
    parser = Parser()
    for item in [*parser.feed(data), *parser.finish()]:
        if isinstance(item, Chunk):
            yield len(item.tokens)

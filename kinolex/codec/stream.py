"""Token grids <-> .klx bytes, chunk by chunk, in constant memory.

    Tokens --to_digits--> prior.walk --range coder--> Chunk --pack--> bytes          StreamEncoder, compress
    bytes --Parser--> Chunk --range decoder--> prior.walk --to_ids--> Tokens         StreamDecoder, decompress

Lossless on tokens, on every machine. The delay of either direction is one chunk.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain
from typing import BinaryIO

import torch
from torch import Tensor

from kinolex.codec.container import (
    Chunk,
    End,
    Geometry,
    Header,
    is_continued,
    pack_chunk,
    pack_end,
    pack_header,
    scaled,
)
from kinolex.codec.entropy import DigitDecoder, DigitEncoder, bits_NV
from kinolex.codec.parser import Damage, Limits, Parser, read_index
from kinolex.codec.priors import History, Prior, Slices, to_digits, to_ids
from kinolex.codec.sound_track import track_of
from kinolex.errors import DamagedStream, StreamError, TokenError, UsageError
from kinolex.types import Extent, Tokens

DEFAULT_CHUNK_LATENTS = 13
"""49 frames of a causal tokenizer: two seconds."""


def encode_digits(digits_thwD: Tensor, prior: Prior, history: History) -> bytes:
    """Digits of consecutive latent frames as bytes; history goes on from where it was and ends after them."""
    encoder = DigitEncoder()
    for digits_hwD in digits_thwD:

        def known(digit: int, where: Slices, frequencies: Tensor, frame: Tensor = digits_hwD) -> Tensor:
            values_N = frame[where][:, :, digit].reshape(-1)
            encoder.put(values_N, frequencies)
            return values_N

        prior.walk(history, (digits_hwD.shape[0], digits_hwD.shape[1]), known)
        history.append(digits_hwD)
    return encoder.finish()


def decode_digits(data: bytes, prior: Prior, grid_thw: tuple[int, int, int], history: History) -> Tensor:
    """The inverse of encode_digits: [t, h, w, D]."""
    decoder, frames = DigitDecoder(data), []
    for _ in range(grid_thw[0]):
        frames.append(prior.walk(history, grid_thw[1:], lambda digit, where, frequencies: decoder.get(frequencies)))
        history.append(frames[-1])
    return torch.stack(frames)


def estimate_bits(digits_thwD: Tensor, prior: Prior, history: History | None = None) -> float:
    """What encode_digits would take, without coding; real bytes are within four of it."""
    history, total = history if history is not None else History(), 0.0
    for digits_hwD in digits_thwD:

        def known(digit: int, where: Slices, frequencies: Tensor, frame: Tensor = digits_hwD) -> Tensor:
            nonlocal total
            values_N = frame[where][:, :, digit].reshape(-1)
            total += float(bits_NV(frequencies).gather(1, values_N.unsqueeze(1)).sum())
            return values_N

        prior.walk(history, (digits_hwD.shape[0], digits_hwD.shape[1]), known)
        history.append(digits_hwD)
    return total


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """What a chunk holds."""

    tokens: Tokens
    """Their extent is of the coded, scaled pictures."""
    first_frame: int
    scale: int
    """The pictures were coded at scale / 16."""
    continued: bool
    """These tokens go on from the piece before; otherwise the tokenizer begins anew."""
    packets: tuple[bytes, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """Frames and packets that were lost with a damaged chunk; given out only where damage is tolerated."""

    first_frame: int
    frames: int
    reason: str
    packets: int = 0
    """How many packets of sound went with them."""


class StreamEncoder:
    """Tokens in, bytes out.

        encoder = StreamEncoder(prior, height=..., width=...)
        for tokens in ...: file.write(encoder.push(tokens))
        file.write(encoder.finish())

    Args:
        prior: of the tokenizer.
        height, width: of the pictures before they were scaled.
        sound_head: identification header of the sound, nothing if there is none.
        limits: of those who will read the file; what they would refuse is not written.
    """

    def __init__(
        self, prior: Prior, *, height: int, width: int, sound_head: bytes = b"", limits: Limits | None = None
    ) -> None:
        self.prior, self.height, self.width = prior, height, width
        self.sound_head, self.limits = sound_head, limits or Limits()
        self.header: Header | None = None
        self.next_frame = 0
        self._history = History()
        self._lengths: list[int] = []
        self._frames: list[int] = []
        self._packets = 0

    def push(
        self, tokens: Tokens, *, scale: int = 16, packets: tuple[bytes, ...] = (), continued: bool = False
    ) -> bytes:
        """One chunk, and before the first the header.

        Args:
            tokens: of the next frames; their extent is the scaled size.
            scale: sixteenths of the full size at which the frames were coded.
            packets: sound of these frames, see SoundTrack.packets_before; the last chunk takes all that are left.
            continued: the tokens go on from those before. Then seeking has to begin further back.

        Raises:
            UsageError: the extent is not the scaled size, a first chunk that continues, or more than readers accept.
            TokenError: tokens of another tokenizer than those before, or ids outside the prior's vocabulary.
        """
        extent = tokens.extent
        wanted = (scaled(self.height, scale), scaled(self.width, scale))
        if (extent.height, extent.width) != wanted:
            raise UsageError(
                f"tokens at scale {scale}/16 must be of {wanted[1]}x{wanted[0]} pixels, "
                f"got {extent.width}x{extent.height}"
            )
        levels, latents, rows, columns = tokens.ids_Qthw.shape
        geometry = Geometry(frames=extent.frames, latents=latents, rows=rows, columns=columns, scale=scale)
        self._check_limits(geometry, levels)
        first = self.header is None
        if first:
            self.header = Header(
                tokenizer=tokens.tokenizer,
                prior=self.prior.fingerprint,
                height=self.height,
                width=self.width,
                fps=extent.fps,
                vocab_size=self.prior.vocab_size(levels),
                num_levels=levels,
                geometry=geometry,
                sound_head=self.sound_head,
            )
        assert self.header is not None
        _check_run(self.header, tokens)
        if int(tokens.ids_Qthw.max()) >= self.header.vocab_size:
            raise TokenError(f"id {int(tokens.ids_Qthw.max())} is outside the vocabulary of {self.header.vocab_size}")
        if not continued:
            self._history.clear()
        elif first or (self._history and self._history[-1].shape[:2] != (rows, columns)):
            raise UsageError("a chunk can only continue one of the same size before it")
        chunk = Chunk(
            first_frame=self.next_frame,
            geometry=geometry,
            tokens=encode_digits(to_digits(tokens.ids_Qthw, self.prior.levels), self.prior, self._history),
            packets=packets,
            continued=continued,
        )
        data = pack_chunk(chunk, self.header)
        self.next_frame += extent.frames
        self._lengths.append(len(data))
        self._frames.append(extent.frames)
        self._packets += len(packets)
        return (pack_header(self.header) if first else b"") + data

    def finish(self, *, sound_samples: int = 0) -> bytes:
        """The index; the stream is complete.

        Args:
            sound_samples: length of the sound at the rate of its track, after the pre-skip.

        Raises:
            UsageError: no tokens were pushed, or the packets do not hold so many samples.
        """
        if self.header is None:
            raise UsageError("a .klx file needs at least one chunk; push tokens first")
        held = track_of(self.sound_head).samples_in(self._packets) if self.sound_head else 0
        if sound_samples > held:
            raise UsageError(
                f"{sound_samples} samples of sound do not fit the {self._packets} packets that were pushed, "
                f"which hold {held}; push all packets with the last chunk"
            )
        return pack_end(End(lengths=tuple(self._lengths), frames=tuple(self._frames), sound_samples=sound_samples))

    def _check_limits(self, geometry: Geometry, levels: int) -> None:
        limits = self.limits
        if len(self._lengths) >= limits.chunks:
            raise UsageError(
                f"readers take a .klx file of up to {limits.chunks} chunks, and so many are written; "
                "begin again with longer chunks (chunk_frames), or cut the video into several files"
            )
        if geometry.rows * geometry.columns > limits.latent_positions:
            raise UsageError(
                f"readers take up to {limits.latent_positions} token positions in a latent frame, got "
                f"{geometry.rows}x{geometry.columns}; code the video at a smaller size (lines)"
            )
        if geometry.positions * levels > limits.chunk_tokens:
            raise UsageError(
                f"readers take up to {limits.chunk_tokens} ids in a chunk, got {geometry.positions * levels} of "
                f"{geometry.frames} frames; take shorter chunks (chunk_frames)"
            )


@dataclass
class StreamDecoder:
    """Bytes in, pieces out, each as soon as its chunk is whole.

        for piece in decoder.feed(data): ...      then      for piece in decoder.finish(): ...

    Args:
        find_prior: gives the prior for a header; raises StreamError if there is none.
        limits: larger files are refused.
        tolerate: give a Gap for what is damaged or missing instead of an error.

    Raises (feed and finish):
        StreamError, DamagedStream, TruncatedStream: as Parser. Everything before the damage has been given out.
    """

    find_prior: Callable[[Header], Prior]
    limits: Limits = field(default_factory=Limits)
    tolerate: bool = False
    next_frame: int = 0
    """Frames before this one are not part of what is fed."""
    chunks_before: int = 0
    """Chunks that these frames stand in."""

    def __post_init__(self) -> None:
        self._parser = Parser(limits=self.limits, tolerate=self.tolerate, chunks_before=self.chunks_before)
        self._prior: Prior | None = None
        self._history = History()
        self._reason: str | None = None
        """The first thing that was wrong since the last piece or gap."""
        self._last_reason = "it holds no chunk"
        self.cut: str | None = None
        """After `finish`: why nobody knows what should follow, if the file ended before its end mark."""
        self._broken = False

    @property
    def header(self) -> Header | None:
        return self._parser.header

    @property
    def end(self) -> End | None:
        return self._parser.end

    def feed(self, data: bytes) -> Iterator[Piece | Gap]:
        """Pieces that these bytes complete."""
        for item in self._parser.feed(data):
            yield from self._decode(item)

    def finish(self) -> Iterator[Piece | Gap]:
        """No more bytes will come."""
        for item in self._parser.finish():
            yield from self._decode(item)
        if self.next_frame == 0:
            advice = "" if self._last_reason.endswith("copy it again") else "; copy it again"
            raise DamagedStream(f"nothing of the .klx file can be decoded: {self._last_reason}{advice}")
        self.cut = self._last_reason if self.end is None else None

    def _decode(self, item: Header | Chunk | End | Damage) -> Iterator[Piece | Gap]:
        if isinstance(item, Damage):
            self._note(item.reason)
        elif isinstance(item, Header):
            self._prior = _fitting(self.find_prior(item), item)
        elif isinstance(item, End):
            yield from self._gap_up_to(sum(item.frames))
        elif item.first_frame < self.next_frame and self.tolerate:
            self._note(f"a chunk that begins with frame {item.first_frame} stands where {self.next_frame} was due")
        else:
            yield from self._gap_up_to(item.first_frame)
            yield from self._decode_chunk(item)

    def _decode_chunk(self, chunk: Chunk) -> Iterator[Piece | Gap]:
        """The chunk that begins with next_frame."""
        end = chunk.first_frame + chunk.geometry.frames
        if chunk.continued and self._broken:
            self._note(f"the chunk at frame {chunk.first_frame} continues one that is lost")
            yield from self._gap_up_to(end)
            return
        try:
            piece = self._piece(chunk)
        except DamagedStream as error:
            if not self.tolerate:
                raise
            self._note(str(error))
            yield from self._gap_up_to(end)
            return
        self._broken, self.next_frame, self._reason = False, end, None
        yield piece

    def _note(self, reason: str) -> None:
        self._reason, self._last_reason = self._reason or reason, reason

    def _gap_up_to(self, frame: int) -> Iterator[Gap]:
        """Account for frames that never came."""
        if frame == self.next_frame or (frame < self.next_frame and self.tolerate):
            return
        if not self.tolerate:
            raise out_of_order(self.next_frame, frame)
        header, lost = self.header, frame - self.next_frame
        assert header is not None
        if lost > min(self.limits.gap_frames, self.limits.gap_seconds * header.fps):
            raise StreamError(
                f"{lost} frames are missing from frame {self.next_frame} on, above the limits of "
                f"{self.limits.gap_frames} frames and {self.limits.gap_seconds} s; raise them if you trust the file"
            )
        packets, track = 0, header.track
        if track is not None:
            packets = track.packets_before(frame, header.fps) - track.packets_before(self.next_frame, header.fps)
        reason = self._reason or "a chunk is missing"
        gap = Gap(first_frame=self.next_frame, frames=lost, reason=reason, packets=packets)
        self._broken, self.next_frame, self._reason = True, frame, None
        yield gap

    def _piece(self, chunk: Chunk) -> Piece:
        header, prior, geometry = self.header, self._prior, chunk.geometry
        assert header is not None and prior is not None
        if not chunk.continued:
            self._history.clear()
        elif not self._history or self._history[-1].shape[:2] != (geometry.rows, geometry.columns):
            raise DamagedStream(f"the chunk at frame {chunk.first_frame} continues one of another size, or none")
        grid_thw = (geometry.latents, geometry.rows, geometry.columns)
        digits_thwD = decode_digits(chunk.tokens, prior, grid_thw, self._history)
        ids_Qthw = to_ids(digits_thwD, header.num_levels, prior.levels)
        if int(ids_Qthw.max()) >= header.vocab_size:
            raise DamagedStream(f"id {int(ids_Qthw.max())} is outside the vocabulary of {header.vocab_size}")
        extent = Extent(
            frames=geometry.frames,
            height=scaled(header.height, geometry.scale),
            width=scaled(header.width, geometry.scale),
            fps=header.fps,
        )
        return Piece(
            tokens=Tokens(ids_Qthw, "video", header.tokenizer, extent),
            first_frame=chunk.first_frame,
            scale=geometry.scale,
            continued=chunk.continued,
            packets=chunk.packets,
        )


def out_of_order(due: int, came: int) -> DamagedStream:
    """What is wrong where a chunk begins with another frame than the one after those before it."""
    return DamagedStream(f"frame {due} should follow, but {came} does; a chunk was lost or moved")


def compress(
    tokens: Tokens, prior: Prior, *, chunk_latents: int = DEFAULT_CHUNK_LATENTS, frames_per_latent: int = 4
) -> bytes:
    """A .klx file of one run of tokens; its chunks go on from one another, as the tokens do.

    Args:
        chunk_latents: latent frames per chunk; damage takes the rest of the run with it.
        frames_per_latent: of the tokenizer, pixels_per_token[0].

    Raises:
        UsageError: chunk_latents below 1, or frames_per_latent that does not fit the tokens' extent.
        TokenError: ids that the prior cannot hold.
    """
    if chunk_latents < 1:
        raise UsageError(f"chunks need at least one latent frame, got {chunk_latents}")
    extent, latents = tokens.extent, tokens.ids_Qthw.shape[1]
    cuts = [*range(chunk_latents, latents, chunk_latents), latents]
    starts = [0, *(_frames_behind(cut, latents, extent.frames, frames_per_latent) for cut in cuts)]
    encoder = StreamEncoder(prior, height=extent.height, width=extent.width)
    data = bytearray()
    for first, ids_Qthw in enumerate(tokens.ids_Qthw.split(chunk_latents, dim=1)):
        part = replace(extent, frames=starts[first + 1] - starts[first])
        data += encoder.push(replace(tokens, ids_Qthw=ids_Qthw, extent=part), continued=first > 0)
    return bytes(data + encoder.finish())


def _frames_behind(latents: int, all_latents: int, frames: int, frames_per_latent: int) -> int:
    """Frames of the first latent frames of a run, whether its first one stands for one frame (causal) or for all."""
    in_blocks = all_latents == -(-frames // frames_per_latent)
    if not in_blocks and all_latents != 1 + -(-(frames - 1) // frames_per_latent):
        raise UsageError(f"{frames} frames do not make {all_latents} latent frames of {frames_per_latent} each")
    return min(frames, latents * frames_per_latent - (0 if in_blocks else frames_per_latent - 1))


def decompress(data: bytes, prior: Prior, *, limits: Limits | None = None) -> Tokens:
    """The tokens of a .klx file of one run, as compress writes it.

    Raises:
        StreamError: damaged, cut, made with another prior, or of several runs (which StreamDecoder gives one by one).
    """
    pieces = list(read_pieces(data, lambda header: prior, limits=limits))
    if any(not piece.continued for piece in pieces[1:]):
        raise StreamError(
            "this .klx file holds several independent runs of tokens; read them one by one with codec.read_pieces"
        )
    return joined(pieces)


def joined(run: Sequence[Piece]) -> Tokens:
    """The tokens of pieces that continue one another."""
    first = run[0].tokens
    ids_Qthw = torch.cat([piece.tokens.ids_Qthw for piece in run], dim=1)
    frames = sum(piece.tokens.extent.frames for piece in run)
    return replace(first, ids_Qthw=ids_Qthw, extent=replace(first.extent, frames=frames))


def read_pieces(data: bytes, find_prior: Callable[[Header], Prior], *, limits: Limits | None = None) -> Iterator[Piece]:
    """All pieces of a file in memory. Errors as StreamDecoder."""
    decoder = StreamDecoder(find_prior, limits or Limits())
    for piece in chain(decoder.feed(data), decoder.finish()):
        assert isinstance(piece, Piece)  # gaps come only where damage is tolerated
        yield piece


def read_at(
    file: BinaryIO, frame: int, find_prior: Callable[[Header], Prior], *, limits: Limits | None = None
) -> list[Piece]:
    """The piece with a frame, and before it those that it continues; reads the header, the index and these chunks only.

    Args:
        file: open for reading and seeking.
        frame: counted from 0.

    Raises:
        UsageError: the video has no such frame.
        StreamError: as StreamDecoder; TruncatedStream for a file without its index, which can be read from the front.
    """
    limits = limits or Limits()
    end, index_position = read_index(file, limits=limits)
    starts = list(accumulate(end.frames, initial=0))
    offsets = list(accumulate(end.lengths, initial=index_position - sum(end.lengths)))
    if max(offsets[0], *end.lengths, 0) > limits.piece_bytes:
        raise DamagedStream("the index names a piece that is larger than the limits; read the file from the front")
    if starts[-1] == 0:
        raise DamagedStream("the index names no frames; read the file from the front")
    if not 0 <= frame < starts[-1]:
        raise UsageError(f"the video has frames 0 to {starts[-1] - 1}, not {frame}")
    wanted = bisect_right(starts, frame) - 1
    first = wanted
    while first > 0 and _continues_at(file, offsets[first]):  # back to where a run begins, often the chunk itself
        first -= 1
    decoder = StreamDecoder(find_prior, limits, next_frame=starts[first], chunks_before=first)
    pieces = []
    for offset, length in ((0, offsets[0]), *zip(offsets[first:], end.lengths[first : wanted + 1], strict=False)):
        file.seek(offset)
        pieces += [piece for piece in decoder.feed(file.read(length)) if isinstance(piece, Piece)]
    if decoder.next_frame != starts[wanted + 1]:
        raise DamagedStream(f"the index names another place for frame {frame}; read the file from the front")
    return pieces


def _continues_at(file: BinaryIO, offset: int) -> bool:
    file.seek(offset)
    return is_continued(file.read(3))


def _check_run(header: Header, tokens: Tokens) -> None:
    theirs = (tokens.tokenizer, tokens.extent.fps, tokens.ids_Qthw.shape[0])
    ours = (header.tokenizer, header.fps, header.num_levels)
    if theirs != ours:
        raise TokenError(
            f"a stream holds tokens of one tokenizer at one rate: it began with {ours}, then came {theirs}"
        )


def _fitting(prior: Prior, header: Header) -> Prior:
    if prior.fingerprint != header.prior:
        raise StreamError(
            f"the .klx file needs prior {header.prior.hex()}, got {prior.fingerprint.hex()}; "
            "use the one it was made with"
        )
    if prior.vocab_size(header.num_levels) != header.vocab_size:
        raise StreamError(f"the prior knows {prior.vocab_size(header.num_levels)} ids, the file {header.vocab_size}")
    return prior

"""Sound <-> the packets of a .klx file: Opus, or the tokens of a sound tokenizer.

Sound --encode_sound--> head, packets as they are taken     head --open_decoder--> packets in, samples out
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import chain, islice
from typing import Any, Protocol

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray

from kinolex import hub
from kinolex.codec.sound_track import (
    OPUS_HEAD_BYTES,
    SoundTokens,
    SoundTrack,
    pack_head,
    pack_ids,
    tokens_track,
    track_of,
    unpack_ids,
)
from kinolex.errors import DamagedStream, ShapeError
from kinolex.layers.conv3d import StreamCache
from kinolex.media.opus import OpusDecoder, OpusEncoder
from kinolex.media.timing import round_half_up
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.types import Sound

OPUS_KBPS, TOKENS_KBPS = 32.0, 6.0
"""Of all channels together, unless another rate is asked for."""
OPUS_FRAMES = 6
"""Of 20 ms in a packet: a length in front of each of them would be more than a hundredth of the file."""


class SoundPackets:
    """A sound as a .klx file holds it, packed as it is asked for.

    Args:
        head: identification header of the track.
        packets: of the whole sound, in order.
        num_samples: how long the sound is that was packed so far.
    """

    def __init__(self, head: bytes, packets: Iterator[bytes], num_samples: Callable[[], int]) -> None:
        self.head, self.track = head, track_of(head)
        self._packets, self._num_samples, self._given = packets, num_samples, 0

    @property
    def num_samples(self) -> int:
        """At the track's rate, after its pre-skip; complete once every packet has been taken."""
        return self._num_samples()

    def take(self, until: int | None = None) -> tuple[bytes, ...]:
        """The next packets, those before number `until`; None takes all that are left."""
        taken = tuple(islice(self._packets, None if until is None else max(0, until - self._given)))
        self._given += len(taken)
        return taken


class SoundDecoder(Protocol):
    """Packets in, samples out."""

    channels: int

    def push(self, packet: bytes | None) -> NDArray[Any]:
        """samples_CS of the next packet, float32; None is one that was lost, heard as silence."""
        ...


def encode_sound(
    sound: Sound | Iterable[Sound], *, kbps: float | None = None, tokenizer: SoundTokenizer | None = None
) -> SoundPackets | None:
    """A sound, whole or in pieces, as packets; None if it has no samples.

    Args:
        sound: pieces are asked for as packets are taken.
        kbps: of all channels together. Of tokens as many levels as fit.
        tokenizer: of sound; None packs Opus.

    Raises:
        MediaError: a rate that Opus refuses. UsageError: one that is too low for tokens. ShapeError: pieces of unlike
            rates or channels.
    """
    pieces = (piece for piece in ([sound] if isinstance(sound, Sound) else sound) if piece.num_samples)
    first = next(pieces, None)
    if first is None:
        return None
    joined = _alike(chain([first], pieces), first)
    return _opus(joined, first, kbps) if tokenizer is None else _tokens(joined, first, kbps, tokenizer)


def _alike(pieces: Iterable[Sound], first: Sound) -> Iterator[Sound]:
    for piece in pieces:
        if (piece.rate_hz, len(piece.samples_CS)) != (first.rate_hz, len(first.samples_CS)):
            raise ShapeError(f"every piece of a sound must be like the first, {first!r}, got {piece!r}")
        yield piece


def _opus(pieces: Iterator[Sound], first: Sound, kbps: float | None) -> SoundPackets:
    rate = OPUS_KBPS if kbps is None else kbps
    encoder = OpusEncoder(first.rate_hz, len(first.samples_CS), kbps=rate, frames=OPUS_FRAMES)

    def packets() -> Iterator[bytes]:
        for piece in pieces:
            yield from encoder.push(piece.samples_CS.cpu().float())
        yield from encoder.finish()

    return SoundPackets(encoder.head + bytes([OPUS_FRAMES]), packets(), lambda: encoder.num_samples)


def _tokens(pieces: Iterator[Sound], first: Sound, kbps: float | None, tokenizer: SoundTokenizer) -> SoundPackets:
    channels, rate_hz, hop = len(first.samples_CS), tokenizer.config.rate_hz, tokenizer.config.hop
    usual = max(TOKENS_KBPS, tokenizer.config.kbps_per_level * channels)
    levels = tokenizer.levels_for(usual if kbps is None else kbps, channels)
    tokens = SoundTokens(
        tokenizer=tokenizer.fingerprint,
        num_levels=levels,
        id_bits=max(1, math.ceil(math.log2(tokenizer.vocab_size))),
        source_rate_hz=first.rate_hz,
    )
    track = tokens_track(tokens, rate_hz=rate_hz, samples_per_latent=hop, channels=channels)
    latents = samples = 0

    def packets() -> Iterator[bytes]:
        nonlocal latents, samples
        waiting_Qtc = torch.zeros(levels, 0, channels, dtype=torch.int64)
        for block in tokenizer.encode_stream(pieces, levels):
            waiting_Qtc = torch.cat([waiting_Qtc, block.ids_Qthw[:, :, 0]], dim=1)
            latents, samples = latents + block.ids_Qthw.shape[1], samples + block.extent.samples
            whole = waiting_Qtc.shape[1] // tokens.latents_per_packet * tokens.latents_per_packet
            yield from pack_ids(waiting_Qtc[:, :whole], track)
            waiting_Qtc = waiting_Qtc[:, whole:]
        yield from pack_ids(waiting_Qtc, track)

    def num_samples() -> int:
        return min(round_half_up(Fraction(samples * rate_hz, first.rate_hz)), latents * hop)

    return SoundPackets(pack_head(track), packets(), num_samples)


class TokenDecoder:
    """Packets of sound tokens in, samples out.

    Raises:
        DamagedStream: (push) a packet of another size than the track's, or ids that the tokenizer does not have.
    """

    def __init__(self, track: SoundTrack, tokenizer: SoundTokenizer) -> None:
        self.channels, self._track, self._tokenizer = track.channels, track, tokenizer
        self._cache = StreamCache()

    @torch.inference_mode()
    def push(self, packet: bytes | None) -> NDArray[Any]:
        """samples_CS of the next packet; after one that was lost the network begins anew."""
        if packet is None:
            self._cache = StreamCache()
            return np.zeros((self.channels, self._track.packet_samples), np.float32)
        ids_Qtc = unpack_ids([packet], self._track)
        if int(ids_Qtc.max()) >= self._tokenizer.vocab_size:
            raise DamagedStream(f"a sound token is beyond the {self._tokenizer.vocab_size} ids of its tokenizer")
        ids_CQt = rearrange(ids_Qtc, "q t c -> c q t").to(self._tokenizer.device)
        samples_CS = self._tokenizer.model.decode(ids_CQt, self._cache).squeeze(1)
        return samples_CS.clamp(-1.0, 1.0).cpu().numpy()


def open_decoder(head: bytes, tokenizer: SoundTokenizer | None = None) -> SoundDecoder:
    """What turns the packets of a track into samples at the track's rate.

    Args:
        tokenizer: that made the tokens; None searches the shipped ones.

    Raises:
        UnreadableMedia: a head of Opus that is not mono or stereo. UnknownModel: no shipped sound tokenizer made it.
        DamagedStream: a track that its tokenizer cannot have made.
    """
    track = track_of(head)
    if track.tokens is None:
        return OpusDecoder(head[:OPUS_HEAD_BYTES], track.packet_samples)
    if tokenizer is None or tokenizer.fingerprint != track.tokens.tokenizer:
        tokenizer = hub.load_sound(hub.name_of(track.tokens.tokenizer))
    per_packet = track.tokens.latents_per_packet * tokenizer.config.hop
    if (track.rate_hz, track.packet_samples) != (tokenizer.config.rate_hz, per_packet):
        raise DamagedStream("the sound track states another rate or length than its tokenizer has; the file is damaged")
    if track.tokens.num_levels > tokenizer.num_levels:
        raise DamagedStream(f"the sound track has {track.tokens.num_levels} levels, its tokenizer fewer")
    return TokenDecoder(track, tokenizer)


def decode_pieces(
    head: bytes, packets: Iterable[bytes | None], num_samples: int | None, tokenizer: SoundTokenizer | None = None
) -> Iterator[Sound]:
    """The sound of a whole track, packet by packet, cut to num_samples at its rate unless that is None.

    Errors as open_decoder, when the first piece is asked for.
    """
    decoder, rate_hz, given = open_decoder(head, tokenizer), track_of(head).rate_hz, 0
    yield Sound(torch.zeros(decoder.channels, 0), rate_hz)
    for packet in packets:
        if num_samples is not None and given >= num_samples:
            return
        samples_CS = decoder.push(packet)[:, : None if num_samples is None else num_samples - given]
        given += samples_CS.shape[1]
        yield Sound(torch.from_numpy(samples_CS), rate_hz)


def decode_sound(
    head: bytes, packets: Iterable[bytes | None], num_samples: int | None, tokenizer: SoundTokenizer | None = None
) -> Sound:
    """The sound of a whole track at once. Arguments and errors as of decode_pieces."""
    pieces = [piece.samples_CS for piece in decode_pieces(head, packets, num_samples, tokenizer)]
    return Sound(torch.cat(pieces, dim=1), track_of(head).rate_hz)


def sound_words(head: bytes) -> str:
    """What a track is, for people."""
    if not head:
        return "none"
    track = track_of(head)
    kind = "opus" if track.tokens is None else f"tokens of {track.tokens.num_levels} levels"
    return f"{kind}, {_channels(track.channels)}"


def _channels(count: int) -> str:
    return "1 channel" if count == 1 else f"{count} channels"

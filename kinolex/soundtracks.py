"""Sound <-> the packets of a .klx file: Opus, or the tokens of a sound tokenizer.

Sound --encode_sound--> head, packets        head --open_decoder--> decoder: packets in, samples out, as they come
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray

from kinolex import hub
from kinolex.codec.sound_track import SoundTokens, SoundTrack, pack_head, pack_ids, tokens_track, track_of, unpack_ids
from kinolex.errors import DamagedStream
from kinolex.layers.conv3d import StreamCache
from kinolex.media.opus import OpusDecoder, encode_opus
from kinolex.media.timing import round_half_up
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.types import Sound

OPUS_KBPS, TOKENS_KBPS = 32.0, 6.0
"""Of all channels together, unless another rate is asked for."""


@dataclass(frozen=True, slots=True)
class SoundPackets:
    """A sound as a .klx file holds it."""

    head: bytes
    packets: tuple[bytes, ...]
    num_samples: int
    """At the track's rate, after its pre-skip."""


class SoundDecoder(Protocol):
    """Packets in, samples out."""

    channels: int

    def push(self, packet: bytes | None) -> NDArray[Any]:
        """samples_CS of the next packet, float32; None is one that was lost, heard as silence."""
        ...


def encode_sound(sound: Sound, *, kbps: float | None = None, tokenizer: SoundTokenizer | None = None) -> SoundPackets:
    """A sound as packets.

    Args:
        kbps: of all channels together. Of tokens as many levels as fit, one at least.
        tokenizer: of sound; None packs Opus.

    Raises:
        MediaError: a rate that Opus refuses.
    """
    if tokenizer is None:
        opus = encode_opus(sound, kbps=OPUS_KBPS if kbps is None else kbps)
        return SoundPackets(opus.head, opus.packets, opus.num_samples)
    channels, rate_hz = len(sound.samples_CS), tokenizer.config.rate_hz
    levels = tokenizer.levels_for((TOKENS_KBPS if kbps is None else kbps) / channels)
    ids_Qtc = tokenizer.encode(sound, levels).ids_Qthw[:, :, 0]
    tokens = SoundTokens(
        tokenizer=tokenizer.fingerprint,
        num_levels=levels,
        id_bits=max(1, math.ceil(math.log2(tokenizer.vocab_size))),
        source_rate_hz=sound.rate_hz,
    )
    track = tokens_track(tokens, rate_hz=rate_hz, samples_per_latent=tokenizer.config.hop, channels=channels)
    num_samples = round_half_up(Fraction(sound.num_samples * rate_hz, sound.rate_hz))
    held = ids_Qtc.shape[1] * tokenizer.config.hop
    return SoundPackets(pack_head(track), pack_ids(ids_Qtc, track), min(num_samples, held))


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
        return OpusDecoder(head)
    if tokenizer is None or tokenizer.fingerprint != track.tokens.tokenizer:
        tokenizer = hub.load_sound(hub.name_of(track.tokens.tokenizer))
    per_packet = track.tokens.latents_per_packet * tokenizer.config.hop
    if (track.rate_hz, track.packet_samples) != (tokenizer.config.rate_hz, per_packet):
        raise DamagedStream("the sound track states another rate or length than its tokenizer has; the file is damaged")
    if track.tokens.num_levels > tokenizer.num_levels:
        raise DamagedStream(f"the sound track has {track.tokens.num_levels} levels, its tokenizer fewer")
    return TokenDecoder(track, tokenizer)


def decode_sound(
    head: bytes, packets: Iterable[bytes | None], num_samples: int | None, tokenizer: SoundTokenizer | None = None
) -> Sound:
    """The sound of a whole track, cut to num_samples at its rate unless that is None. Errors as open_decoder."""
    decoder = open_decoder(head, tokenizer)
    samples_CS = np.concatenate([np.zeros((decoder.channels, 0), np.float32), *map(decoder.push, packets)], axis=1)
    return Sound(torch.from_numpy(samples_CS[:, :num_samples].copy()), track_of(head).rate_hz)


def sound_words(head: bytes) -> str:
    """What a track is, for people."""
    if not head:
        return "none"
    track = track_of(head)
    kind = "opus" if track.tokens is None else f"tokens of {track.tokens.num_levels} levels"
    return f"{kind}, {track.channels} channels"

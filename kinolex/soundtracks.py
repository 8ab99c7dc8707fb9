"""Sound <-> the packets of a .klx file.

Sound --encode_sound--> head, packets        head --open_decoder--> decoder: packets in, samples out, as they come
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from kinolex.codec.sound_track import track_of
from kinolex.media.opus import OpusDecoder, encode_opus
from kinolex.types import Sound


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


def encode_sound(sound: Sound, *, kbps: float) -> SoundPackets:
    """A sound as packets of Opus. Raises MediaError for a rate that Opus refuses."""
    opus = encode_opus(sound, kbps=kbps)
    return SoundPackets(opus.head, opus.packets, opus.num_samples)


def open_decoder(head: bytes) -> SoundDecoder:
    """What turns the packets of a track into samples at the track's rate.

    Raises:
        UnreadableMedia: a head of Opus that is not mono or stereo.
    """
    return OpusDecoder(head)


def decode_sound(head: bytes, packets: Iterable[bytes | None], num_samples: int | None) -> Sound:
    """The sound of a whole track, cut to num_samples at its rate unless that is None. Errors as open_decoder."""
    decoder = open_decoder(head)
    samples_CS = np.concatenate([np.zeros((decoder.channels, 0), np.float32), *map(decoder.push, packets)], axis=1)
    return Sound(torch.from_numpy(samples_CS[:, :num_samples].copy()), track_of(head).rate_hz)

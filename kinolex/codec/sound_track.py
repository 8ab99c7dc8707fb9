"""The sound beside a video's tokens: packets of Opus or of sound tokens, and how much is heard of them.

    head --track_of--> SoundTrack        frame --packets_before--> packets it takes to hear everything before it
    ids_Qtc --pack_ids--> packets of a fixed size --unpack_ids--> ids_Qtc

docs/bitstream.md, sections 2, 4 and 10, is the normative text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from kinolex.errors import DamagedStream, UsageError

OPUS_MAGIC, OPUS_HEAD_BYTES = b"OpusHead", 19
OPUS_RATE_HZ, OPUS_FRAME_SAMPLES, OPUS_MOST_FRAMES = 48_000, 960, 6
"""A packet holds one frame of 20 ms; where a byte follows Opus's own header, as many as that says."""
TOKENS_MAGIC, TOKENS_HEAD_BYTES = b"KlxSound", 58
TOKENS_VERSION = 1
SLOWEST_SECONDS = 60
"""Longest time for which a picture of a video with sound may be shown: sound is given out with its picture."""
LATENTS_PER_PACKET = 16
"""A third of a second at 50 latent frames per second: the length in front of each packet costs about a hundredth."""
MOST_BITS = 24
"""Of one id of a sound token."""


@dataclass(frozen=True, slots=True)
class SoundTrack:
    """When packets are heard."""

    rate_hz: int
    packet_samples: int
    """Samples of one packet, per channel."""
    pre_skip: int
    """Samples at the front that are not heard."""
    channels: int
    tokens: SoundTokens | None = None
    """Of what the packets hold; None is Opus."""

    def packets_before(self, frame: int, fps: Fraction) -> int:
        """How many packets it takes to hear everything before a frame: those of earlier chunks."""
        if frame == 0:
            return 0
        return -(-(frame * self.rate_hz + self.pre_skip * fps) // (fps * self.packet_samples))

    def samples_in(self, packets: int) -> int:
        """The most that is heard of so many packets."""
        return max(0, packets * self.packet_samples - self.pre_skip)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundTokens:
    """What the packets of a track of sound tokens hold."""

    tokenizer: str
    """Fingerprint of the sound tokenizer, 64 hex digits."""
    num_levels: int
    """Codebook levels: ids per latent frame and channel, 1 to 64."""
    id_bits: int
    """Bits of one id, 1 to 24."""
    source_rate_hz: int
    """Of the sound before it was tokenized; decoding may give that rate back."""
    latents_per_packet: int = LATENTS_PER_PACKET

    def packet_bytes(self, channels: int) -> int:
        """Of every packet, the last one too."""
        return -(-self.latents_per_packet * channels * self.num_levels * self.id_bits // 8)


def tokens_track(tokens: SoundTokens, *, rate_hz: int, samples_per_latent: int, channels: int) -> SoundTrack:
    """The track of a sound tokenizer that works at rate_hz."""
    return SoundTrack(rate_hz, tokens.latents_per_packet * samples_per_latent, 0, channels, tokens)


def pack_head(track: SoundTrack) -> bytes:
    """The identification header of a track of sound tokens.

    Raises:
        UsageError: Opus, whose encoder writes its own head, or numbers that the fields cannot hold.
    """
    tokens = track.tokens
    if tokens is None:
        raise UsageError("the head of an Opus track comes from its encoder")
    try:
        head = TOKENS_MAGIC + bytes([TOKENS_VERSION, track.channels, tokens.num_levels, tokens.id_bits])
        head += track.rate_hz.to_bytes(4, "little") + tokens.source_rate_hz.to_bytes(4, "little")
        head += (track.packet_samples // tokens.latents_per_packet).to_bytes(4, "little")
        head += tokens.latents_per_packet.to_bytes(2, "little") + bytes.fromhex(tokens.tokenizer)
        if track_of(head) != track:
            raise ValueError("the fields do not come back")
    except (OverflowError, ValueError, DamagedStream) as error:
        raise UsageError(f"a header of sound tokens cannot hold {track}: {error}") from error
    return head


def track_of(head: bytes) -> SoundTrack:
    """What an identification header says.

    Raises:
        DamagedStream: it is neither that of Opus nor that of sound tokens, or says what cannot be.
    """
    if head.startswith(OPUS_MAGIC) and len(head) >= OPUS_HEAD_BYTES:
        frames = head[OPUS_HEAD_BYTES] if len(head) == OPUS_HEAD_BYTES + 1 else 1
        if not 1 <= frames <= OPUS_MOST_FRAMES:
            raise DamagedStream(
                f"its header states packets of {frames} frames of Opus, which has 1 to {OPUS_MOST_FRAMES}"
            )
        return SoundTrack(OPUS_RATE_HZ, frames * OPUS_FRAME_SAMPLES, int.from_bytes(head[10:12], "little"), head[9])
    if not head.startswith(TOKENS_MAGIC) or len(head) != TOKENS_HEAD_BYTES or head[8] != TOKENS_VERSION:
        raise DamagedStream(f"its header of {len(head)} bytes is neither that of Opus nor that of sound tokens")
    channels, num_levels, id_bits = head[9:12]
    rate_hz, source_rate_hz, samples = (int.from_bytes(head[at : at + 4], "little") for at in (12, 16, 20))
    latents = int.from_bytes(head[24:26], "little")
    packet_bytes = latents * channels * num_levels * id_bits / 8
    if (
        channels not in (1, 2)
        or not (1 <= num_levels <= 64 and 1 <= id_bits <= MOST_BITS)
        or min(rate_hz, source_rate_hz, samples, latents) < 1
        or max(rate_hz, source_rate_hz) > 2**20
        or samples > 2**16
        or packet_bytes > 2**16
    ):
        raise DamagedStream(f"its header states sound tokens that cannot be: {head[8:26].hex()}")
    tokens = SoundTokens(
        tokenizer=head[26:].hex(),
        num_levels=num_levels,
        id_bits=id_bits,
        source_rate_hz=source_rate_hz,
        latents_per_packet=latents,
    )
    return SoundTrack(rate_hz, latents * samples, 0, channels, tokens)


def unfit_sound(head: bytes, fps: Fraction) -> str:
    """What is wrong with a sound track, or nothing."""
    if not head:
        return ""
    try:
        track_of(head)
    except DamagedStream as error:
        return str(error)
    if fps * SLOWEST_SECONDS < 1:
        return f"beside sound a picture is shown for {SLOWEST_SECONDS} s at most, not for {float(1 / fps):.0f} s"
    return ""


def pack_ids(ids_Qtc: Tensor, track: SoundTrack) -> tuple[bytes, ...]:
    """Packets of sound tokens, least significant bits first: latent frame by latent frame, channel by channel.

    Args:
        ids_Qtc: int64 in [0, 2**id_bits); a last packet that is not full ends in zeros.

    Raises:
        UsageError: other levels or channels than the track's, or ids that its bits cannot hold.
    """
    tokens = track.tokens
    assert tokens is not None
    levels, _, channels = ids_Qtc.shape
    if (levels, channels) != (tokens.num_levels, track.channels):
        raise UsageError(
            f"the track has {tokens.num_levels} levels of {track.channels} channels, the tokens {levels} of {channels}"
        )
    if ids_Qtc.numel() and not 0 <= int(ids_Qtc.min()) <= int(ids_Qtc.max()) < 2**tokens.id_bits:
        raise UsageError(f"ids of {tokens.id_bits} bits are needed, got {int(ids_Qtc.min())} to {int(ids_Qtc.max())}")
    ids_M = ids_Qtc.permute(1, 2, 0).reshape(-1).cpu().numpy().astype(np.uint32)
    per_packet = tokens.latents_per_packet * channels * levels
    padded_M = np.pad(ids_M, (0, -len(ids_M) % per_packet)).reshape(-1, per_packet)
    bits = (padded_M[..., None] >> np.arange(tokens.id_bits, dtype=np.uint32)) & 1
    packed = np.packbits(
        bits.astype(np.uint8).reshape(len(padded_M), per_packet * tokens.id_bits), axis=1, bitorder="little"
    )
    return tuple(row.tobytes() for row in packed)


def unpack_ids(packets: Sequence[bytes | None], track: SoundTrack) -> Tensor:
    """ids_Qtc of packets, the zeros at the end of the last one included; a lost packet (None) gives -1.

    Raises:
        DamagedStream: a packet of another size than the track's.
    """
    tokens = track.tokens
    assert tokens is not None
    size = tokens.packet_bytes(track.channels)
    for packet in packets:
        if packet is not None and len(packet) != size:
            raise DamagedStream(
                f"a packet of sound tokens has {len(packet)} bytes instead of {size}; the file is damaged"
            )
    per_packet = tokens.latents_per_packet * track.channels * tokens.num_levels
    raw = np.frombuffer(b"".join(packet or bytes(size) for packet in packets), np.uint8).reshape(len(packets), size)
    bits = np.unpackbits(raw, axis=1, bitorder="little", count=per_packet * tokens.id_bits)
    weights = 1 << np.arange(tokens.id_bits, dtype=np.int64)
    ids_NM = bits.reshape(len(packets), per_packet, tokens.id_bits).astype(np.int64) @ weights
    ids_NM[[packet is None for packet in packets]] = -1
    ids = ids_NM.reshape(-1, track.channels, tokens.num_levels)
    return torch.from_numpy(np.ascontiguousarray(ids.transpose(2, 0, 1)))

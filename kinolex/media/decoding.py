"""One loop over packets for pictures and sound, with one policy for damage.

Recordings of broadcasts begin in mid-stream, so packets that cannot be decoded before the first frame are skipped.
After it, the first packet that is cut off or refused ends the stream with UnreadableMedia: nothing is lost silently.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import av.error as av_error
from av.container import InputContainer

from kinolex.errors import UnreadableMedia
from kinolex.media.opening import named_errors, reason

MAX_SKIPPED = 1000
"""Undecodable packets at the start after which a file counts as damaged."""


def packets_of(container: InputContainer, stream: Any) -> Iterator[av.Packet]:
    """Packets of one stream; the end of the file ends them, however FFmpeg reports it."""
    try:
        yield from container.demux(stream)
    except av_error.EOFError:
        return


def decode(container: InputContainer, stream: Any, decoder: Any, file: Path) -> Iterator[tuple[av.Packet | None, Any]]:
    """Pairs of a packet and a frame that came out when it went in (None: when the decoder was drained)."""
    count = skipped = 0
    fault: BaseException | str = ""
    with named_errors(file):
        packets = packets_of(container, stream)
        while True:
            packet = None
            try:
                packet = next(packets, None)
                if packet is not None and packet.size and packet.is_corrupt:
                    fault, packet = "a packet is cut off", None
                ended = packet is None or packet.size == 0
                frames = decoder.decode(None if ended else packet)
            except av_error.EOFError:
                break
            except av_error.FFmpegError as error:
                skipped += 1
                if count == 0 and packet is not None and skipped <= MAX_SKIPPED:
                    continue
                fault = error
                break
            for frame in frames:
                count += 1
                yield packet, frame
            if ended:
                break
    if fault:
        origin = fault if isinstance(fault, BaseException) else None
        cause = reason(origin) if origin is not None else fault
        what = "sound" if stream.type == "audio" else "pictures"
        raise UnreadableMedia(
            f"{file} is damaged after {count} decoded frames of {what} ({cause}); copy or download it again"
        ) from origin

"""Sound of sound files and of video files, mono or stereo, in time with the picture."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.codec.context import ThreadType
from av.container import InputContainer
from numpy.typing import NDArray

from kinolex.errors import UnreadableMedia, UnsupportedMedia
from kinolex.media.integrity import missing_bytes
from kinolex.media.opening import check_file, main_stream, named_errors, open_input
from kinolex.media.timing import round_half_up
from kinolex.types import Sound

RESYNC_S = Fraction(1, 10)
"""Smaller differences between timestamps and samples are rounding of the container's clock, not gaps."""


def read_sound(path: str | os.PathLike[str]) -> Sound:
    """Read a sound file, or the main sound track of a video, from its first sample on.

    Args:
        path: wav, flac, ogg, mp3, opus or anything else FFmpeg reads. More than two channels are mixed down to stereo.

    Returns:
        float32 samples in [-1, 1] at the rate of the file.

    Raises:
        MissingFile, UnreadableMedia: no such file, not media, damaged or cut.
        UnsupportedMedia: the file has no sound.
    """
    file = check_file(path)
    sound = track_of(file, start_s=None, length_s=None)
    if sound is None:
        raise UnsupportedMedia(f"{file} holds no sound; read its pictures with read")
    lacking = missing_bytes(file)
    if lacking != 0:
        raise UnreadableMedia(
            f"{file} is truncated after {sound.duration_s:.2f} s of sound "
            f"({f'{lacking} bytes' if lacking else 'its end'} missing); copy it again"
        )
    return sound


def track_of(
    path: str | os.PathLike[str], *, start_s: Fraction | None, length_s: Fraction | None
) -> Sound | None:
    """The main sound track between two moments of the file's clock, or None if the file has none.

    Args:
        start_s: the moment of the first returned sample: earlier sound is cut, and silence is put before later sound.
            None begins with the first sample there is.
        length_s: at most this much; None for all.
    """
    file = check_file(path)
    with open_input(file) as container:
        stream = main_stream(container.streams.audio)
        if stream is None:
            return None
        pieces: list[NDArray[np.float32]] = []
        rate_hz = 0
        count = 0
        for rate_hz, samples_CS in aligned_samples(container, stream, file, start_s):
            pieces.append(samples_CS)
            count += samples_CS.shape[1]
            if length_s is not None and count >= length_s * rate_hz:
                break
    if not pieces:
        return None
    samples_CS = np.concatenate(pieces, axis=1)
    if length_s is not None:
        samples_CS = samples_CS[:, : round_half_up(length_s * rate_hz)]
    if not np.isfinite(samples_CS).all():
        raise UnreadableMedia(f"{file}: its sound holds NaN or infinite samples; export it again")
    return Sound(torch.from_numpy(np.clip(samples_CS, -1, 1)), rate_hz)


def aligned_samples(
    container: InputContainer, stream: AudioStream, file: Path, start_s: Fraction | None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Pairs of rate and samples_CS without holes: cut before start_s, gaps in the timestamps filled with silence."""
    position: int | None = None  # samples delivered so far, counted from start_s; negative while before it
    for pts_s, rate_hz, samples_CS in _decoded(container, stream, file):
        if start_s is None:
            start_s = pts_s if pts_s is not None else Fraction(0)
        stated = round_half_up((pts_s - start_s) * rate_hz) if pts_s is not None else None
        if position is None:
            position = stated if stated is not None else 0
            if position > 0:
                yield rate_hz, np.zeros((samples_CS.shape[0], position), np.float32)
        elif stated is not None and abs(stated - position) > RESYNC_S * rate_hz:
            if stated > position and stated - position < 3600 * rate_hz:
                silence = stated - max(position, 0)
                if silence > 0:
                    yield rate_hz, np.zeros((samples_CS.shape[0], silence), np.float32)
                position = stated
            elif stated < position:
                samples_CS = samples_CS[:, position - stated :]
        end = position + samples_CS.shape[1]
        if end > 0:
            kept = samples_CS[:, max(-position, 0) :]
            if kept.shape[1]:
                yield rate_hz, kept
        position = end


def _decoded(
    container: InputContainer, stream: AudioStream, file: Path
) -> Iterator[tuple[Fraction | None, int, NDArray[np.float32]]]:
    """Time of the first sample, rate and float32 samples_CS (one or two channels) of every decoded frame."""
    stream.thread_type = ThreadType.SLICE
    resampler: AudioResampler | None = None
    count = 0
    with named_errors(file):
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is not None and packet.is_corrupt:
                    return
                frames = stream.codec_context.decode(packet if packet is not None and packet.size else None)
            except av.error.EOFError:
                return
            except av.error.FFmpegError as error:
                if count == 0:
                    continue
                raise UnreadableMedia(f"{file}: its sound is damaged after {count} frames ({error})") from error
            for frame in frames:
                count += 1
                if resampler is None:
                    layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
                    resampler = AudioResampler(format="fltp", layout=layout, rate=frame.sample_rate)
                    rate_hz = frame.sample_rate
                time_s = frame.pts * frame.time_base if frame.pts is not None and frame.time_base else None
                for part in resampler.resample(frame):
                    yield time_s, rate_hz, part.to_ndarray()
                    time_s = None
            if packet is None or packet.size == 0:
                return

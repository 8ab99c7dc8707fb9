"""Sound of sound files and of video files, mono or stereo, in time with the picture."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import av.error as av_error
import numpy as np
import torch
from av import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from einops import rearrange
from numpy.typing import NDArray

from kinolex.errors import MediaError, UnreadableMedia, UnsupportedMedia
from kinolex.media.decoding import decode
from kinolex.media.integrity import missing_bytes
from kinolex.media.opening import check_file, open_input, open_output, reason, replacing, sound_stream
from kinolex.media.timing import round_half_up
from kinolex.media.video import probe
from kinolex.types import Sound, expect

SOUND_CODECS = {".wav": "pcm_s16le", ".flac": "flac"}
BLOCK_SAMPLES = 65536
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
        UnsupportedMedia: the file has no sound, or in a codec this FFmpeg build lacks.
    """
    file = check_file(path)
    sound = track_of(file, start_s=None, length_s=None)
    if sound is None:
        probe(file)  # raises if there are no pictures either
        raise UnsupportedMedia(f"{file} holds no sound, and some is needed here")
    lacking = missing_bytes(file)
    if lacking != 0:
        raise UnreadableMedia(
            f"{file} is truncated after {sound.duration_s:.2f} s of sound "
            f"({f'{lacking} bytes' if lacking else 'its end'} missing); copy it again"
        )
    return sound


def track_of(path: str | os.PathLike[str], *, start_s: Fraction | None, length_s: Fraction | None) -> Sound | None:
    """The main sound track between two moments of the file's clock, or None if the file has none.

    Args:
        start_s: the moment of the first returned sample: earlier sound is cut, and silence is put before later sound.
            None begins with the first sample there is.
        length_s: at most this much; None for all.

    Raises:
        MissingFile, UnreadableMedia: as read_sound.
        UnsupportedMedia: a codec this FFmpeg build lacks.
    """
    pieces: list[Sound] = []
    count = 0
    with closing(sound_pieces(path, start_s=start_s)) as coming:
        for piece in coming:
            pieces.append(piece)
            count += piece.num_samples
            if length_s is not None and count >= length_s * piece.rate_hz:
                break
    if not pieces:
        return None
    samples_CS, rate_hz = torch.cat([piece.samples_CS for piece in pieces], dim=1), pieces[0].rate_hz
    return Sound(samples_CS if length_s is None else samples_CS[:, : round_half_up(length_s * rate_hz)], rate_hz)


def channels_of(path: str | os.PathLike[str]) -> int:
    """1 or 2: of the sound that read_sound gives. Errors as of read_sound, of what is read for it."""
    with closing(sound_pieces(path, start_s=None)) as coming:
        first = next(coming, None)
    return len((first or read_sound(path)).samples_CS)


def sound_pieces(path: str | os.PathLike[str], *, start_s: Fraction | None) -> Generator[Sound, None, None]:
    """The main sound track from a moment of the file's clock on, as it is decoded; nothing if there is none.

    Args:
        start_s: as in track_of.

    Yields:
        Pieces of one rate and channel count; a track that is there and empty is one piece without samples.

    Raises:
        As track_of, when the place is reached.
    """
    file = check_file(path)
    with open_input(file) as container:
        stream = sound_stream(container, file)
        if stream is None:
            return
        begun = False
        for rate_hz, samples_CS in aligned_samples(container, stream, file, start_s):
            begun = True
            if not np.isfinite(samples_CS).all():
                raise UnreadableMedia(f"{file}: its sound holds NaN or infinite samples; export it again")
            yield Sound(torch.from_numpy(np.clip(samples_CS, -1, 1)), rate_hz)
        if not begun and start_s is None:
            channels, rate_hz = stream.codec_context.layout.nb_channels, stream.codec_context.sample_rate
            if stream.duration or not channels or not rate_hz:
                raise UnreadableMedia(f"{file}: no sound could be decoded; the file is damaged or was cut")
            yield Sound(torch.zeros(min(channels, 2), 0), rate_hz)


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
    resampler: AudioResampler | None = None
    shape: tuple[str, str, int] | None = None
    layout, rate_hz = "", 0
    for frame, length in _with_end(container, stream, file):
        if not layout:
            layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
            rate_hz = frame.sample_rate
        # Streams may change their format on the way; what comes out stays as it began.
        if resampler is None or shape != (frame.format.name, frame.layout.name, frame.sample_rate):
            shape = (frame.format.name, frame.layout.name, frame.sample_rate)
            resampler = AudioResampler(format="fltp", layout=layout, rate=rate_hz)
        time_s = frame.pts * frame.time_base if frame.pts is not None and frame.time_base else None
        for part in resampler.resample(frame):
            yield time_s, rate_hz, part.to_ndarray().astype(np.float32, copy=False)[:, :length]
            time_s = None


def _with_end(container: InputContainer, stream: AudioStream, file: Path) -> Iterator[tuple[AudioFrame, int | None]]:
    """Decoded frames, the last one with the number of its samples that count (None: all).

    AAC pads its last frame with silence; MP4 says so by a shorter last packet, on which FFmpeg does not act.
    """
    held: tuple[av.Packet | None, AudioFrame] | None = None
    for packet, frame in decode(container, stream, stream.codec_context, file):
        if held is not None:
            yield held[1], None
        held = (packet, frame)
    if held is None:
        return
    packet, frame = held
    counts_samples = stream.time_base == Fraction(1, frame.sample_rate)
    if packet is not None and counts_samples and packet.pts == frame.pts and 0 < (packet.duration or 0) < frame.samples:
        yield frame, packet.duration
    else:
        yield frame, None


def write_sound(sound: Sound, path: str | os.PathLike[str]) -> None:
    """Write a sound as .wav or .flac with 16 bits per sample; what came from 16 bits returns exactly.

    Raises:
        UnsupportedMedia: another suffix.
        MissingFile: the folder does not exist.
        MediaError: the disk is full or the encoder failed. No partial file is left in any case.
    """
    expect(sound, Sound, "Sound(samples_CS, rate_hz) makes one of float32 samples")
    target = Path(path)
    codec = SOUND_CODECS.get(target.suffix.lower())
    if codec is None:
        raise UnsupportedMedia(f"cannot write sound as {target.suffix}; use one of {', '.join(SOUND_CODECS)}")
    layout = "mono" if sound.samples_CS.shape[0] == 1 else "stereo"
    try:
        with replacing(target) as temporary, open_output(temporary, format=target.suffix[1:].lower()) as container:
            stream = container.add_stream(codec, rate=sound.rate_hz, layout=layout, format="s16")
            assert isinstance(stream, AudioStream)
            container.start_encoding()  # so that a sound without samples has a header
            for start in range(0, sound.num_samples, BLOCK_SAMPLES):
                samples_CS = sound.samples_CS[:, start : start + BLOCK_SAMPLES].cpu().numpy()
                whole_CS = np.clip(np.rint(samples_CS * 32768), -32768, 32767).astype(np.int16)
                interleaved = np.ascontiguousarray(rearrange(whole_CS, "c s -> 1 (s c)"))
                frame = AudioFrame.from_ndarray(interleaved, format="s16", layout=layout)
                frame.sample_rate, frame.pts, frame.time_base = sound.rate_hz, start, Fraction(1, sound.rate_hz)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except (av_error.FFmpegError, OSError) as error:
        raise MediaError(f"writing {target} failed ({reason(error)}); is the disk full?") from error

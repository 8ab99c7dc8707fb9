"""One frame -> PNG, JPEG or WebP."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import av.error as av_error
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from kinolex.errors import MediaError, UnsupportedMedia
from kinolex.media.opening import reason, replacing
from kinolex.media.pixels import EXACT, frame_from_pixels
from kinolex.types import Clip

IMAGE_CODECS = {".png": ("png", "rgb24"), ".jpg": ("mjpeg", "yuvj444p"), ".webp": ("libwebp", "bgra")}
IMAGE_CODECS[".jpeg"] = IMAGE_CODECS[".jpg"]


def write_image(clip: Clip, path: str | os.PathLike[str], *, quality: int | None = None) -> None:
    """Write a clip of one frame.

    Args:
        clip: exactly one frame.
        path: .png (lossless), .webp (lossless unless quality is given) or .jpg (without chroma subsampling).
        quality: 0 to 100; ignored for PNG.

    Raises:
        UnsupportedMedia: more than one frame, another suffix, or a size the format cannot hold.
        MediaError: the encoder or the disk failed.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in IMAGE_CODECS:
        raise UnsupportedMedia(f"cannot write an image as {suffix}; use one of {', '.join(IMAGE_CODECS)}")
    if clip.num_frames != 1:
        raise UnsupportedMedia(
            f"{file.name} can hold one frame and the clip has {clip.num_frames}; write .mp4, .webm or .gif, "
            "or write single frames such as Clip(clip.frames_TCHW[:1], clip.fps)"
        )
    codec, pixel_format = IMAGE_CODECS[suffix]
    frame = VideoReformatter().reformat(
        frame_from_pixels(clip.frames_TCHW[0].cpu().numpy()),
        format=pixel_format,
        dst_colorspace=int(Colorspace.ITU601),
        src_color_range=int(ColorRange.JPEG),
        dst_color_range=int(ColorRange.JPEG),
        interpolation=int(EXACT),
        threads=1,
    )
    frame.pts = 0
    context = av.CodecContext.create(codec, "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.pix_fmt = clip.width, clip.height, pixel_format
    context.time_base = Fraction(1, 1)
    if codec == "libwebp":
        context.options = {"lossless": "1"} if quality is None else {"quality": str(quality)}
    if codec == "mjpeg":
        context.color_range = int(ColorRange.JPEG)
        # Quantizer scales run from 2 (best) to 31.
        context.qmin = context.qmax = 2 if quality is None else round(31 - 0.29 * quality)
    try:
        data = b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])
        with replacing(file) as temporary:
            temporary.write_bytes(data)
    except (av_error.FFmpegError, OSError) as error:
        raise MediaError(
            f"writing {file} failed ({reason(error)}); {clip.width}x{clip.height} may be too large for "
            f"{suffix}, or the disk may be full"
        ) from error

"""Decoded FFmpeg frames <-> uint8 sRGB arrays: colour matrix, range, bit depth, alpha, rotation.

Colour. The stream's own tags decide; where it has none, still-image codecs mean BT.601, and video means BT.601 below
720 lines and BT.709 from 720 on, limited range. Only the matrix and the range are undone: primaries and transfer curve
are taken to be sRGB's, so high-dynamic-range video looks flat (no tone mapping).
Alpha is composited over black: a fully transparent pixel becomes 0, 0, 0 whatever colour it hides.
Pixels that are not square stay as stored; nothing is stretched.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from av import VideoFrame
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from kinolex.media.exif import exif_orientation, is_image_file

HD_LINES = 720
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
"""FFmpeg's default rounds coarsely and repeats chroma samples; this costs about 1 ms more per megapixel."""

_UNTAGGED = {0, 2, 3}  # AVCOL_SPC_RGB (meaningless on YUV), UNSPECIFIED, RESERVED
_FULL_RANGE_CODECS = {"png", "apng", "mjpeg", "gif", "bmp", "tiff", "pgm", "pgmyuv", "jpegls", "jpeg2000", "webp"}
_BT601_CODECS = {"mjpeg", "webp", "vp8", "jpeg2000", "libvpx"}

Orientation = tuple[bool, bool, bool]
"""Swap rows and columns, then mirror columns, then mirror rows."""
UPRIGHT: Orientation = (False, False, False)
CLOCKWISE_TURNS: list[Orientation] = [UPRIGHT, (True, True, False), (False, True, True), (True, False, True)]
EXIF_ORIENTATIONS: list[Orientation] = [
    UPRIGHT,
    (False, True, False),
    (False, True, True),
    (False, False, True),
    (True, False, False),
    (True, True, False),
    (True, True, True),
    (True, False, True),
]
"""What the values 1 to 8 of the EXIF tag ask for."""


def matrix_for(lines: int) -> Colorspace:
    """The colour matrix meant by video that does not say: by its number of lines."""
    return Colorspace.ITU601 if lines < HD_LINES else Colorspace.ITU709


def has_alpha(frame: VideoFrame) -> bool:
    """True if the pixel format can be transparent (also a palette that may hold transparent entries)."""
    return frame.format.has_palette or any(component.is_alpha for component in frame.format.components)


def orientation_of(frame: VideoFrame, file: Path) -> Orientation:
    """How to turn the stored picture so that it stands upright (nearest multiple of 90 degrees).

    From the display matrix of the frame; of an image file, or where PyAV cannot give it, from the EXIF tag of the file
    or the angle alone.
    """
    # PyAV 18.1 crashes when it frees side data among which is a colour profile, as many images have one.
    items: list[Any] | None = None
    if not is_image_file(file):
        with suppress(ValueError):
            items = list(frame.side_data)  # the stubs take this for a mapping
    if items is None:
        tag = exif_orientation(file)
        turns = round(-frame.rotation / 90) % 4
        return EXIF_ORIENTATIONS[tag - 1] if tag is not None else CLOCKWISE_TURNS[turns]
    data = next((item for item in items if item.type == SideDataType.DISPLAYMATRIX), None)
    if data is None or data.buffer_size < 36:
        return UPRIGHT
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data)[:36])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (False, a < 0, d < 0)
    return (True, c < 0, b < 0)


def rotation_deg(orientation: Orientation) -> int:
    """Clockwise turn in degrees of an orientation; a mirrored one counts its turn before the mirroring."""
    swap, mirror_columns, mirror_rows = orientation
    if swap:
        return 90 if mirror_columns else 270
    return 180 if mirror_rows else 0


class FrameConverter:
    """Turns decoded frames of one stream into upright uint8 arrays of one size.

    Args:
        codec: FFmpeg's name of the codec; it decides what missing colour tags mean.
        file: where the frames come from; photographs keep their orientation outside the frames.
    """

    def __init__(self, codec: str, file: Path) -> None:
        self._file = file
        self.codec = codec
        self._reformatter = VideoReformatter()
        self._stored_size: tuple[int, int] | None = None
        self._orientation = UPRIGHT

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Return pixels_CHW uint8 sRGB, C = 3, contiguous."""
        if self._stored_size is None:
            self._stored_size = (frame.width, frame.height)
            self._orientation = orientation_of(frame, self._file)
        width, height = self._stored_size  # a stream that changes its size is scaled to how it began
        alpha = has_alpha(frame)
        colour = frame.format.is_rgb or frame.format.has_palette
        planar = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="gbrap" if alpha else "gbrp",
            src_colorspace=None if colour else self._matrix(frame),
            src_color_range=None if colour else self._range(frame),
            dst_color_range=ColorRange.JPEG,
            interpolation=int(EXACT),
            threads=1,
        )
        pixels_CHW = np.empty((3, height, width), np.uint8)
        for channel, plane in enumerate((2, 0, 1)):  # FFmpeg stores green, blue, red
            pixels_CHW[channel] = plane_HW(planar, plane)
        if alpha:
            alpha_HW = plane_HW(planar, 3).astype(np.uint16)
            if int(alpha_HW.min(initial=255)) < 255:
                pixels_CHW = ((pixels_CHW * alpha_HW + 127) // 255).astype(np.uint8)
        return turn(pixels_CHW, self._orientation)

    def _matrix(self, frame: VideoFrame) -> int | None:
        if frame.colorspace not in _UNTAGGED:
            return None
        return int(Colorspace.ITU601 if self.codec in _BT601_CODECS else matrix_for(frame.height))

    def _range(self, frame: VideoFrame) -> int:
        if frame.color_range in (int(ColorRange.MPEG), int(ColorRange.JPEG)):
            return int(frame.color_range)
        full = frame.format.name.startswith("yuvj") or (
            self.codec in _FULL_RANGE_CODECS and frame.format.name.startswith(("gray", "ya", "mono"))
        )
        return int(ColorRange.JPEG if full else ColorRange.MPEG)


def plane_HW(frame: VideoFrame, index: int) -> NDArray[np.uint8]:
    """One 8 bit plane as a view without the padding at the end of its rows."""
    plane = frame.planes[index]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]


def turn(pixels_CHW: NDArray[np.uint8], orientation: Orientation) -> NDArray[np.uint8]:
    """Apply an orientation."""
    swap, mirror_columns, mirror_rows = orientation
    if swap:
        pixels_CHW = pixels_CHW.swapaxes(1, 2)
    if mirror_columns:
        pixels_CHW = pixels_CHW[:, :, ::-1]
    if mirror_rows:
        pixels_CHW = pixels_CHW[:, ::-1]
    return np.ascontiguousarray(pixels_CHW)


def frame_from_pixels(pixels_CHW: NDArray[np.uint8]) -> VideoFrame:
    """An FFmpeg frame in planar RGB (gbrp) with these pixels."""
    _, height, width = pixels_CHW.shape
    frame = VideoFrame(width, height, "gbrp")
    for plane, channel in enumerate((1, 2, 0)):
        padded_HW = np.zeros((height, frame.planes[plane].line_size), np.uint8)
        padded_HW[:, :width] = pixels_CHW[channel]
        frame.planes[plane].update(padded_HW.tobytes())
    frame.color_range = int(ColorRange.JPEG)
    return frame

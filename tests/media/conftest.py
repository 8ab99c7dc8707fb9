"""Inputs for the media tests, made with FFmpeg's own encoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor

MakeVideo = Callable[..., Path]


@pytest.fixture
def make_scene() -> Callable[[int, int, int], Tensor]:
    """A smooth colourful scene in motion; every frame differs from every other."""

    def make(frames: int, height: int, width: int) -> Tensor:
        rows, columns = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
        times = torch.arange(frames)[:, None, None] / 16
        red = 128 + 100 * torch.sin(3 * columns + 2 * times)
        green = 128 + 100 * torch.cos(2 * rows - times)
        blue = 128 + 100 * torch.sin(2 * rows + 2 * columns + times)
        return torch.stack([red, green, blue], dim=1).round().to(torch.uint8)

    return make


@pytest.fixture
def numbered() -> Callable[[int], Tensor]:
    """Frames of one grey each that say their own number: frame k has the value 8 * k."""

    def make(frames: int) -> Tensor:
        values_T = torch.arange(frames, dtype=torch.uint8) * 8
        return values_T[:, None, None, None].expand(frames, 3, 16, 16).contiguous()

    return make


@pytest.fixture
def make_video(tmp_path: Path) -> MakeVideo:
    """Encode frames with any codec, pixel format, timestamps and tags."""

    def make(
        name: str,
        frames_TCHW: Tensor,
        *,
        codec: str = "ffv1",
        pixel_format: str = "bgr0",
        source_format: str = "rgb24",
        fps: Fraction = Fraction(25),
        pts: Sequence[int] | None = None,
        time_base: Fraction | None = None,
        rotation: tuple[float, bool, bool] | None = None,
        options: dict[str, str] | None = None,
        prepare: Callable[[av.VideoFrame], None] | None = None,
        context: dict[str, Any] | None = None,
    ) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream(codec, rate=fps, options=options or {})
            stream.height, stream.width = frames_TCHW.shape[2:]
            stream.pix_fmt = pixel_format
            if time_base is not None:
                stream.codec_context.time_base = time_base
            for key, value in (context or {}).items():
                setattr(stream.codec_context, key, value)
            if rotation is not None:
                degrees, mirror_columns, mirror_rows = rotation
                stream.set_display_rotation(degrees, hflip=mirror_columns, vflip=mirror_rows)
            for index, pixels_CHW in enumerate(frames_TCHW.numpy()):
                pixels_HWC = np.ascontiguousarray(pixels_CHW.transpose(1, 2, 0))
                frame = av.VideoFrame.from_ndarray(pixels_HWC, format=source_format).reformat(format=pixel_format)
                if prepare is not None:
                    prepare(frame)
                frame.pts = pts[index] if pts is not None else index
                frame.time_base = time_base or 1 / fps
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make

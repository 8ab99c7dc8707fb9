"""Colour, depth, alpha and rotation of what comes out of a file."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from kinolex.media import probe, read

# Limited-range codes of pure colours, from the definitions of BT.601 and BT.709.
PURE = {
    601: {(255, 0, 0): (81, 90, 240), (0, 255, 0): (145, 54, 34), (0, 0, 255): (41, 240, 110)},
    709: {(255, 0, 0): (63, 102, 240), (0, 255, 0): (173, 42, 26), (0, 0, 255): (32, 240, 118)},
}
TAGS = {601: 6, 709: 1, None: 2}


def write_codes(path, codes: tuple[int, int, int], *, height: int, tag: int | None, full_range: bool = False) -> None:
    """A file of one flat colour given as Y, Cb, Cr, not touched by any conversion."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, height, "yuv420p"
        stream.codec_context.colorspace = TAGS[tag]
        stream.codec_context.color_range = 2 if full_range else 1
        for index in range(2):
            frame = av.VideoFrame(32, height, "yuv420p")
            for plane, code in zip(frame.planes, codes, strict=True):
                plane.update(bytes([code]) * plane.buffer_size)
            frame.colorspace, frame.color_range, frame.pts = TAGS[tag], 2 if full_range else 1, index
            frame.time_base = Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("tag", "height", "meant"), [(601, 720, 601), (709, 64, 709), (None, 718, 601), (None, 720, 709)]
)
def test_known_colours_come_out_right_for_every_matrix(tmp_path, tag, height, meant) -> None:
    for colour, codes in PURE[meant].items():
        write_codes(tmp_path / "flat.mkv", codes, height=height, tag=tag)
        pixel = read(tmp_path / "flat.mkv").frames_TCHW[0, :, 8, 8].tolist()
        assert np.abs(np.subtract(pixel, colour)).max() <= 2, (colour, pixel)


def test_full_range_is_not_stretched(tmp_path) -> None:
    for grey in (0, 10, 128, 250, 255):
        write_codes(tmp_path / "flat.mkv", (grey, 128, 128), height=64, tag=709, full_range=True)
        assert (read(tmp_path / "flat.mkv").frames_TCHW.int() - grey).abs().max() <= 1


@pytest.mark.parametrize(
    ("codec", "pixel_format", "name", "bits"),
    [
        ("ffv1", "yuv420p10le", "a.mkv", 10),
        ("ffv1", "yuv422p12le", "a.mkv", 12),
        ("ffv1", "gray", "a.mkv", 8),
        ("ffv1", "gray10le", "a.mkv", 10),
        ("libx264", "yuv420p10le", "a.mp4", 10),
        ("mjpeg", "yuvj420p", "a.avi", 8),
        ("ffv1", "gbrp10le", "a.mkv", 10),
    ],
)
def test_a_grey_ramp_survives_every_depth(make_video, codec, pixel_format, name, bits) -> None:
    ramp_HW = torch.arange(0, 256, 4, dtype=torch.uint8).expand(64, 64)
    ramp_TCHW = ramp_HW.expand(2, 3, 64, 64).contiguous()
    limited = {"context": {"color_range": 2}, "prepare": lambda frame: setattr(frame, "color_range", 2)}
    extra = limited if pixel_format.startswith("gray") else {}
    path = make_video(
        name,
        ramp_TCHW,
        codec=codec,
        pixel_format=pixel_format,
        options={"crf": "1"} if "x264" in codec else {},
        **extra,
    )

    assert probe(path).bit_depth == bits
    assert (read(path).frames_TCHW.int() - ramp_TCHW.int()).abs().float().mean() < 1.5


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "options"),
    [
        ("a.mkv", "ffv1", "bgra", {}),
        ("a.mov", "qtrle", "argb", {}),
        ("a.mov", "prores_ks", "yuva444p10le", {}),
        ("a.webm", "libvpx-vp9", "yuva420p", {"auto-alt-ref": "0", "crf": "4", "b": "0"}),
    ],
)
def test_alpha_is_composited_over_black(make_video, name, codec, pixel_format, options) -> None:
    pixels_TCHW = torch.zeros(2, 4, 32, 32, dtype=torch.uint8)
    pixels_TCHW[:, 0], pixels_TCHW[:, 1] = 200, 100
    pixels_TCHW[:, 3, :16], pixels_TCHW[:, 3, 16:, :16], pixels_TCHW[:, 3, 16:, 16:] = 255, 128, 0
    path = make_video(name, pixels_TCHW, codec=codec, pixel_format=pixel_format, source_format="rgba", options=options)

    pixels_CHW = read(path).frames_TCHW[0].int()

    assert probe(path).has_alpha
    for (row, column), expected in {(8, 8): (200, 100, 0), (24, 8): (100, 50, 0), (24, 24): (0, 0, 0)}.items():
        assert (pixels_CHW[:, row, column] - torch.tensor(expected)).abs().max() <= 4


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize(("mirror_columns", "mirror_rows"), [(False, False), (True, False), (False, True)])
def test_rotation_metadata_is_applied(make_video, make_scene, degrees, mirror_columns, mirror_rows) -> None:
    stored = make_scene(2, 20, 30)
    path = make_video(
        "turned.mp4",
        stored,
        codec="libx264",
        pixel_format="yuv444p",
        options={"crf": "1"},
        rotation=(degrees, mirror_columns, mirror_rows),
    )
    # The metadata says how far the stored picture must be turned counter-clockwise, then mirrored.
    expected = torch.rot90(stored, degrees // 90, dims=(2, 3))
    expected = expected.flip(3) if mirror_columns else expected
    expected = expected.flip(2) if mirror_rows else expected

    info, clip = probe(path), read(path)

    assert (info.width, info.height) == (clip.width, clip.height)
    assert clip.frames_TCHW.shape == expected.shape
    assert (clip.frames_TCHW.int() - expected.int()).abs().float().mean() < 3
    if not mirror_columns and not mirror_rows:
        assert info.rotation_deg == -degrees % 360


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (17, 1), (33, 47), (2, 3)])
def test_odd_sizes_read_as_they_are(make_video, make_scene, size) -> None:
    scene_TCHW = make_scene(2, *size)

    path = make_video("odd.mov", scene_TCHW, codec="png", pixel_format="rgb24")

    assert torch.equal(read(path).frames_TCHW, scene_TCHW)

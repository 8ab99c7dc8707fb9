from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch

from kinolex.media import probe, read, write
from kinolex.types import Clip

# EXIF orientation -> how the stored picture becomes the upright one.
ORIENTATIONS = {
    1: lambda x: x,
    2: lambda x: x.flip(3),
    3: lambda x: x.flip(2, 3),
    4: lambda x: x.flip(2),
    5: lambda x: x.transpose(2, 3),
    6: lambda x: x.transpose(2, 3).flip(3),
    7: lambda x: x.transpose(2, 3).flip(2, 3),
    8: lambda x: x.transpose(2, 3).flip(2),
}


def encode_image(path: Path, pixels_HWC: torch.Tensor, source_format: str, codec: str, pixel_format: str) -> None:
    context = av.CodecContext.create(codec, "w")
    context.height, context.width, context.pix_fmt = *pixels_HWC.shape[:2], pixel_format
    context.time_base = Fraction(1)
    if codec == "libwebp":
        context.options = {"lossless": "1"}
    frame = av.VideoFrame.from_ndarray(pixels_HWC.numpy(), format=source_format).reformat(format=pixel_format)
    frame.pts = 0
    path.write_bytes(b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)]))


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (64, 48)])
@pytest.mark.parametrize(("suffix", "worst"), [(".png", 0), (".webp", 0), (".jpg", 12), (".jpeg", 12)])
def test_images_come_back_as_one_frame(tmp_path, make_scene, suffix, worst, size) -> None:
    clip = Clip(make_scene(1, *size), Fraction(1))

    write(clip, tmp_path / f"image{suffix}")

    back, info = read(tmp_path / f"image{suffix}"), probe(tmp_path / f"image{suffix}")
    assert info.is_image and info.frames == 1 and back.fps == 1 and back.sound is None
    assert back.frames_TCHW.shape == clip.frames_TCHW.shape
    assert (back.frames_TCHW.int() - clip.frames_TCHW.int()).abs().max() <= worst


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lower_quality_makes_smaller_images(tmp_path, make_scene, suffix) -> None:
    noisy_TCHW = make_scene(1, 96, 96) ^ torch.randint(0, 32, (1, 3, 96, 96), dtype=torch.uint8)
    sizes = []
    for quality in (10, 50, 95):
        write(Clip(noisy_TCHW, Fraction(1)), tmp_path / f"a{suffix}", quality=quality)
        sizes.append((tmp_path / f"a{suffix}").stat().st_size)

    assert sizes == sorted(set(sizes))


def test_large_jpeg_uses_the_matrix_of_jpeg_and_not_of_hd_video(tmp_path) -> None:
    red_TCHW = torch.tensor([250, 10, 10], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 800, 16)

    write(Clip(red_TCHW, Fraction(1)), tmp_path / "a.jpg")

    assert (read(tmp_path / "a.jpg").frames_TCHW.int() - red_TCHW.int()).abs().max() <= 3


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_is_respected(tmp_path, make_scene, orientation) -> None:
    stored = make_scene(1, 24, 40)
    path = tmp_path / "photo.jpg"
    write(Clip(stored, Fraction(1)), path)
    # One IFD entry: tag 0x0112, type SHORT, count 1; little-endian TIFF header behind "Exif".
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + entry + struct.pack("<I", 0)
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])

    upright, expected = read(path).frames_TCHW, ORIENTATIONS[orientation](stored)

    assert upright.shape == expected.shape
    assert (upright.int() - expected.int()).abs().max() <= 12


@pytest.mark.parametrize(("suffix", "codec", "pixel_format"), [(".png", "png", "rgba"), (".webp", "libwebp", "bgra")])
def test_transparent_images_are_composited_over_black(tmp_path, suffix, codec, pixel_format) -> None:
    pixels_HWC = torch.tensor([200, 100, 255, 0], dtype=torch.uint8).expand(8, 8, 4).clone()
    pixels_HWC[:4, :, 3] = 255
    pixels_HWC[4:, :4, 3] = 128
    encode_image(tmp_path / f"a{suffix}", pixels_HWC, "rgba", codec, pixel_format)

    pixels_CHW = read(tmp_path / f"a{suffix}").frames_TCHW[0]

    assert probe(tmp_path / f"a{suffix}").has_alpha
    assert pixels_CHW[:, 0, 0].tolist() == [200, 100, 255]
    assert pixels_CHW[:, 7, 0].tolist() == [100, 50, 128]
    assert pixels_CHW[:, 7, 7].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("pixel_format", "depth"), [("gray", 8), ("gray16be", 16), ("rgb48be", 16)])
def test_grey_and_deep_png_keep_their_levels(tmp_path, pixel_format, depth) -> None:
    ramp_HWC = torch.arange(0, 256, dtype=torch.uint8)[None, :, None].expand(4, 256, 3).contiguous()
    encode_image(tmp_path / "a.png", ramp_HWC, "rgb24", "png", pixel_format)

    assert probe(tmp_path / "a.png").bit_depth == depth
    assert (read(tmp_path / "a.png").frames_TCHW[0].permute(1, 2, 0).int() - ramp_HWC.int()).abs().max() <= 1


def test_a_percent_sign_in_a_name_is_no_sequence(tmp_path, make_scene) -> None:
    clip = Clip(make_scene(1, 8, 8), Fraction(1))
    for name in ("100%.png", "frame%03d.png", "a:b.png", "concat:x.png"):
        write(clip, tmp_path / name)
        assert torch.equal(read(tmp_path / name).frames_TCHW, clip.frames_TCHW)


def gif_bytes(frames: list[tuple[int, int, int, int, int, bytes]]) -> bytes:
    """A hand-made 4x4 GIF of 4 colours; frames are (x, y, side, disposal, delay, indices); index 3 is transparent."""
    palette = bytes([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    data = b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0x91, 3, 0) + palette
    for x, y, side, disposal, delay, indices in frames:
        data += b"\x21\xf9\x04" + struct.pack("<BHB", disposal << 2 | 1, delay, 3) + b"\0"
        data += b"\x2c" + struct.pack("<HHHHB", x, y, side, side, 0) + b"\x02"
        # LZW without compression: a clear code before every pixel keeps all codes 3 bits wide.
        bits = "".join(format(code, "03b")[::-1] for pixel in indices for code in (4, pixel)) + format(5, "03b")[::-1]
        packed = bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8))
        data += bytes([len(packed)]) + packed + b"\0"
    return data + b"\x3b"


def test_gif_disposal_and_transparency(tmp_path) -> None:
    red, green, dot = bytes(16), bytes([1] * 4), bytes([2])
    frames = [
        (0, 0, 4, 1, 10, red),  # stays
        (0, 0, 2, 2, 10, green),  # is cleared to nothing afterwards
        (3, 3, 1, 3, 10, dot),  # is undone afterwards
        (1, 1, 2, 1, 10, bytes([3] * 4)),  # wholly transparent: shows what is below
    ]
    (tmp_path / "a.gif").write_bytes(gif_bytes(frames))

    clip = read(tmp_path / "a.gif")

    assert clip.num_frames == 4 and clip.fps == 10

    def at(frame: int, row: int, column: int) -> list[int]:
        return clip.frames_TCHW[frame, :, row, column].tolist()

    assert at(0, 0, 0) == [255, 0, 0]
    assert at(1, 0, 0) == [0, 255, 0] and at(1, 3, 3) == [255, 0, 0]
    assert at(2, 0, 0) == [0, 0, 0] and at(2, 3, 3) == [0, 0, 255] and at(2, 0, 3) == [255, 0, 0]
    assert at(3, 3, 3) == [255, 0, 0] and at(3, 2, 2) == [255, 0, 0] and at(3, 1, 1) == [0, 0, 0]


def test_gif_with_uneven_delays_is_variable(tmp_path) -> None:
    still = [(0, 0, 4, 1, delay, bytes([colour] * 16)) for delay, colour in ((10, 0), (30, 1), (20, 2), (20, 0))]
    (tmp_path / "a.gif").write_bytes(gif_bytes(still))

    info, clip = probe(tmp_path / "a.gif"), read(tmp_path / "a.gif")

    assert info.variable_rate and clip.duration_s == pytest.approx(0.8, abs=0.5 / float(clip.fps))
    first_pixel = clip.frames_TCHW[:, :, 0, 0].argmax(dim=1).tolist()
    starts = [Fraction(0), Fraction(1, 10), Fraction(4, 10), Fraction(6, 10)]
    for tick, colour in enumerate(first_pixel):
        shown = max(index for index, start in enumerate(starts) if start <= tick / clip.fps)
        assert colour == [0, 1, 2, 0][shown]


def test_an_image_with_a_colour_profile_is_read_and_the_process_ends_well(tmp_path: Path) -> None:
    plain, profiled = tmp_path / "plain.png", tmp_path / "profiled.png"
    write(Clip(torch.full((1, 3, 8, 8), 200, dtype=torch.uint8), Fraction(1)), plain)
    body = b"iCCP" + b"a profile\0\0" + zlib.compress(bytes(3144))
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    data = plain.read_bytes()
    profiled.write_bytes(data[:33] + chunk + data[33:])  # after the signature and the header
    code = f"from kinolex.media import read; import gc; print(read({str(profiled)!r}).frames_TCHW.shape); gc.collect()"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0 and "8, 8" in done.stdout, (done.returncode, done.stderr)

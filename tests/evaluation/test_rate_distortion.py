"""Comparing coders on tiny clips: matched bytes are matched, nothing is measured twice, the page stands alone."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest
import torch

import kinolex.evaluation.vmaf as vmaf
from kinolex import cli
from kinolex.codec.priors import PlainPrior
from kinolex.compression import CompressConfig, compress_stream
from kinolex.data.index import Entry
from kinolex.errors import DataError, MediaError, UsageError
from kinolex.evaluation import CODECS, KlxEvaluation, ReconstructionProtocol, evaluate_klx, evaluate_rate_distortion
from kinolex.evaluation.codecs import VERYSLOW, decode, encode, finest_within, from_yuv420, to_yuv420
from kinolex.evaluation.coders import CodedClip, Coder, klx_coder, still_coders, video_coders
from kinolex.evaluation.page import lines, lines_svg, svg_file
from kinolex.evaluation.protocol import read_result
from kinolex.evaluation.rate_distortion_page import Shown, comparison
from kinolex.evaluation.rate_distortion_rows import Comparison, choose_entries, measure_rows
from kinolex.evaluation.rate_distortion_summary import falls, mean_curves
from kinolex.evaluation.row_store import RowStore
from kinolex.evaluation.still_codecs import STILL_CODECS, decode_still, encode_still
from kinolex.media import read
from kinolex.metrics import psnr_db
from kinolex.tokenizers.autoencoder3d import Autoencoder3D, AutoencoderConfig
from kinolex.tokenizers.quantizers import FSQConfig
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip

PROTOCOL = ReconstructionProtocol(sets=("pictures",), split=None, lines=24, max_frames=1, bootstrap_draws=100)
TINY = AutoencoderConfig(
    channels=(8, 8),
    down=((4, 2),),
    encoder_blocks=(1, 1),
    decoder_blocks=(1, 1),
    middle_blocks=1,
    quantizer=FSQConfig(levels=(8, 8)),
    causal=True,
    fold=4,
    factorised=True,
    norm_groups=4,
)


def smooth_clip(frames: int = 5, height: int = 48, width: int = 64) -> Clip:
    seed = torch.rand(1, 3, 6, 12, generator=torch.Generator().manual_seed(0))
    texture = torch.nn.functional.interpolate(seed, (height, width + 2 * frames), mode="bicubic").clamp(0, 1)
    moving = torch.stack([texture[0, :, :, 2 * t : 2 * t + width] for t in range(frames)])
    return Clip((moving * 255).round().to(torch.uint8), Fraction(25))


def bits_coder(name: str, *, bytes_per_bit: int = 100, header: int = 10, calls: list[float] | None = None) -> Coder:
    """Keeps the upper bits of every colour; what it says it costs is up to the test."""

    def code(clip: Clip, bits: float) -> CodedClip:
        if calls is not None:
            calls.append(bits)
        dropped = 8 - int(bits)
        frames_TCHW = (clip.frames_TCHW >> dropped << dropped) + (2**dropped // 2)
        raw = int(bits) * bytes_per_bit
        return CodedClip(raw, raw + header, lambda: replace(clip, frames_TCHW=frames_TCHW))

    grid = tuple(map(float, range(1, 9)))
    return Coder(name=name, setting="bits", grid=grid, curve=(1.0, 3.0, 6.0), identity="1", code=code)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of two pictures that names no split, and one that does."""
    folder = tmp_path_factory.mktemp("data")
    arrays = np.random.default_rng(0).integers(0, 256, (2, 24, 36, 3), dtype=np.uint8)
    for place in ("pictures", "divided/train", "divided/test"):
        (folder / place).mkdir(parents=True)
        np.savez(folder / place / "arrays.npz", images=arrays)
    return folder


def compared(*, limits: tuple[float, ...] = (4.0,), dearer: int = 110, calls: list[float] | None = None) -> Comparison:
    return Comparison(
        ours=bits_coder("ours", calls=calls),
        others=[bits_coder("theirs", bytes_per_bit=dearer)],
        rivals=("theirs",),
        limits_bpp=limits,
    )


def rows_of(folder: Path, comparison: Comparison, store: RowStore | None = None) -> list[dict]:
    store = RowStore() if store is None else store
    return measure_rows(comparison, choose_entries(folder, PROTOCOL), PROTOCOL, None, store)


# --- bytes ---


@pytest.mark.parametrize("codec", [*CODECS, *VERYSLOW], ids=lambda codec: codec.title)
def test_the_mp4_holds_the_pictures_of_the_packets_and_is_larger(codec) -> None:
    clip = smooth_clip()
    coded = encode(clip, codec, 35)
    with av.open(io.BytesIO(coded.file), "r") as container:
        planes_TYW = np.stack([frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)])
        assert container.streams.video[0].average_rate == clip.fps

    assert torch.equal(from_yuv420(torch.from_numpy(planes_TYW)), decode(coded, codec, clip.extent).frames_TCHW)
    assert coded.num_bytes + len(coded.parameters) < len(coded.file) < coded.num_bytes + 1500
    assert b"Lavf" not in coded.file and b"x264" not in coded.file


@pytest.mark.parametrize("max_bytes", range(0, 40, 3))
def test_the_search_finds_what_trying_everything_finds(max_bytes: int) -> None:
    sizes = [3, 5, 5, 9, 14, 14, 20, 33]

    level, size = finest_within(lambda level: sizes[int(level)], range(8), max_bytes, int)

    fitting = [level for level in range(8) if sizes[level] <= max_bytes]
    assert (level, size) == ((fitting or [0])[-1], sizes[(fitting or [0])[-1]])


@pytest.mark.parametrize("codec", STILL_CODECS, ids=lambda codec: codec.name)
def test_a_picture_comes_back_in_its_size_and_better_for_more_bytes(codec) -> None:
    clip = smooth_clip(frames=1, height=65, width=71)
    coarse, fine = (encode_still(clip, codec, codec.curve[place]) for place in (1, -1))

    rebuilt = [decode_still(coded, codec, clip) for coded in (coarse, fine)]

    assert all(picture.extent == clip.extent for picture in rebuilt)
    assert coarse.num_bytes < fine.num_bytes <= len(fine.file) < fine.num_bytes + 400
    coarse_db, fine_db = (psnr_db(clip.frames_TCHW, picture.frames_TCHW) for picture in rebuilt)
    assert 20 < coarse_db < fine_db and fine_db > 32


def test_a_picture_codec_refuses_a_video() -> None:
    with pytest.raises(UsageError, match="5 frames"):
        encode_still(smooth_clip(), STILL_CODECS[0], 10)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_clips_shorter_than_the_delay_of_reordered_frames_are_coded_the_same_every_time(codec) -> None:
    for frames in (1, 2, 3):
        clip = smooth_clip(frames=frames)
        coded = [encode(clip, codec, 20) for _ in range(6)]

        assert len({one.file for one in coded}) == 1
        with av.open(io.BytesIO(coded[0].file)) as container:
            assert [frame.pts * frame.time_base for frame in container.decode(video=0)] == [
                number / clip.fps for number in range(frames)
            ]


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_heights_that_four_does_not_divide_are_coded_too(codec) -> None:
    clip = smooth_clip(frames=2, height=66, width=70)

    assert psnr_db(decode(encode(clip, codec, 20), codec, clip.extent).frames_TCHW, clip.frames_TCHW) > 31


def test_full_range_keeps_grey_and_uses_every_level() -> None:
    grey = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    planes_TYW = to_yuv420(grey, full_range=True)

    assert torch.equal(planes_TYW[0, :16], grey[0, 0]) and torch.equal(from_yuv420(planes_TYW, full_range=True), grey)


@pytest.mark.parametrize("chunk_frames", [None, 3])
def test_ours_counts_the_bytes_of_the_real_file(chunk_frames: int | None) -> None:
    torch.manual_seed(0)
    tokenizer = VideoTokenizer(Autoencoder3D(TINY), fingerprint="tiny")
    prior = PlainPrior(tokenizer.vocab_size, tokenizer.num_levels)
    clip = smooth_clip(frames=7)
    coder = klx_coder(tokenizer, prior, "tiny", chunk_frames=chunk_frames)
    config = CompressConfig(quality=40, chunk_frames=chunk_frames or 7)
    data = b"".join(compress_stream([clip], tokenizer, prior, config))

    coded = coder.code(clip, 40.0)

    assert coded.file_bytes == len(data) and coded.rebuild().extent == clip.extent
    assert 0 < coded.raw_bytes < coded.file_bytes < coded.raw_bytes + 150 + 60 * (chunk_frames is not None)
    assert coder.identity != klx_coder(tokenizer, prior, "tiny", chunk_frames=5).identity


def test_points_must_be_levels_in_order() -> None:
    coder = bits_coder("x")
    for bad in ((3.0, 1.0), (1.5,), (1.0, 1.0), ()):
        with pytest.raises(UsageError, match="fewest bytes first"):
            replace(coder, curve=bad)
    names = [coder.name for coder in video_coders()]
    assert names == ["x264 slow", "x265 slow", "svt-av1 4", "x264 veryslow", "x265 veryslow"]
    stills, missing = still_coders()
    assert {coder.name for coder in stills} | set(missing) == {"jpeg", "webp", "avif"}


# --- rows ---


def test_a_set_without_splits_is_taken_whole_and_others_by_their_split(folder: Path) -> None:
    both = ReconstructionProtocol(sets=("pictures", "divided"), split="test")

    assert [entry.name for entry in choose_entries(folder, both)] == [
        "pictures/arrays.npz#0",
        "pictures/arrays.npz#1",
        "divided/test/arrays.npz#0",
        "divided/test/arrays.npz#1",
    ]
    with pytest.raises(DataError, match="--sets"):
        choose_entries(folder, replace(both, sets=("divided",), split="other"))


def test_matched_rows_keep_to_the_bytes_of_ours(folder: Path) -> None:
    rows = rows_of(folder, compared())
    matched = [row for row in rows if row["purpose"] == "matched"]
    pixels = 24 * 36

    assert len(matched) == 2 * 2 * 2 and not any(row["over_target"] for row in matched)
    for row in matched:
        size = row[f"{row['counting']}_bytes"]
        assert size <= row["target_bytes"]
        if row["coder"] == "ours":
            assert size <= 4.0 * pixels / 8 < size + 100
        else:
            assert row["level"] == 3.0  # 4 bits of ours are 400 bytes, 3 bits of theirs 330


def test_where_ours_cannot_be_so_small_there_is_no_matched_row_and_theirs_may_be_over(folder: Path) -> None:
    none = rows_of(folder, compared(limits=(0.5,)))
    over = rows_of(folder, compared(limits=(1.1,), dearer=200))

    assert not [row for row in none if row["purpose"] == "matched"]
    theirs = [row for row in over if row["purpose"] == "matched" and row["coder"] == "theirs"]
    assert len(theirs) == 4 and all(row["over_target"] and row["level"] == 1.0 for row in theirs)


def test_nothing_is_measured_twice_and_an_interrupted_run_goes_on(folder: Path, tmp_path: Path) -> None:
    calls: list[float] = []
    path = tmp_path / "rows.jsonl"

    class Stopped(Exception):
        pass

    def stop(done: int, _total: int, _row: dict) -> None:
        if done == 5:
            raise Stopped

    entries = choose_entries(folder, PROTOCOL)
    with pytest.raises(Stopped):
        measure_rows(compared(calls=calls), entries, PROTOCOL, None, RowStore(path), on_row=stop)
    before = len(calls)
    with path.open("a") as file:
        file.write('{"key": "half a li')
    rows = measure_rows(compared(calls=calls), entries, PROTOCOL, None, RowStore(path))
    first = calls[:]
    again = measure_rows(compared(calls=calls), entries, PROTOCOL, None, RowStore(path))

    assert before == 3 and first[3:].count(1.0) == 1  # the curve of the first clip was known, that of the second not
    assert calls == first and again == rows == rows_of(folder, compared())


def test_a_level_is_coded_once_whatever_is_searched_for(folder: Path) -> None:
    calls: list[float] = []
    entries = choose_entries(folder, PROTOCOL)

    rows = measure_rows(compared(limits=(3.0, 4.0, 5.0), calls=calls), entries, PROTOCOL, None, RowStore())

    assert sum(row["purpose"] == "matched" and row["coder"] == "ours" for row in rows) == 12
    assert len(entries) == 2 and all(calls.count(level) <= 2 for level in calls)


def test_other_pixels_options_or_versions_are_measured_anew(folder: Path) -> None:
    store = RowStore()
    comparison = compared()
    rows_of(folder, comparison, store)
    known = len(store)
    changed = replace(comparison, ours=replace(comparison.ours, identity="2"))

    rows_of(folder, comparison, store)
    assert len(store) == known
    rows_of(folder, changed, store)
    assert len(store) > known
    known = len(store)
    measure_rows(comparison, choose_entries(folder, PROTOCOL), replace(PROTOCOL, lines=20), None, store)
    assert len(store) > known


def test_rows_of_a_result_or_of_another_folder_are_reused(folder: Path, tmp_path: Path) -> None:
    calls: list[float] = []
    entries = choose_entries(folder, PROTOCOL)
    store = RowStore(tmp_path / "rows.jsonl")
    evaluate_rate_distortion(compared(), entries, PROTOCOL, store, name="one", out_dir=tmp_path)

    for reused in (tmp_path / "one.json", tmp_path / "rows.jsonl"):
        measure_rows(compared(calls=calls), entries, PROTOCOL, None, RowStore(None, [reused]))

    assert calls == []
    (tmp_path / "foreign.jsonl").write_text("[1]\n")
    with pytest.raises(DataError, match="measure again"):
        RowStore(tmp_path / "foreign.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        RowStore(None, [tmp_path / "absent.jsonl"])


# --- what the rows say ---


def test_a_coder_that_needs_a_tenth_more_bytes_has_that_bd_rate(folder: Path, tmp_path: Path) -> None:
    result = evaluate_rate_distortion(
        compared(), choose_entries(folder, PROTOCOL), PROTOCOL, RowStore(), name="r", out_dir=tmp_path
    )

    raw = result["bd_rate_percent"]["raw"]["theirs"]["psnr_db"]
    assert (raw["n"], raw["without"]) == (2, 0) and raw["median"] == pytest.approx(100 * (1 / 1.1 - 1))
    assert raw["mean"] == pytest.approx(raw["median"]) and raw["median"] < -9
    assert result["bd_rate_percent"]["file"]["theirs"]["psnr_db"]["median"] != raw["median"]
    assert "PCHIP" in result["interpolation"] and result["n"] == 2 and len(result["clips"]) == 2
    assert result["mean"]["psnr_db_gain_raw_4_bpp"]["mean"] > 3  # four bits against three
    assert result["matched"]["raw 4"]["by_clip"]["pictures/arrays.npz#0"]["distance_ratio"] is None
    assert result["measured"]["coders"]["theirs"]["levels"] == [1.0, 3.0, 6.0]
    assert read_result(tmp_path / "r.json") == json.loads(json.dumps(result))
    assert str(folder) not in json.dumps(result)


def row(coder: str, name: str, size: int, psnr: float, **more: object) -> dict:
    figures = {"psnr_db": psnr, "raw_bits_per_pixel": size / 10, "file_bits_per_pixel": size / 8, "level": float(size)}
    return {"purpose": "curve", "coder": coder, "name": name, "file_bytes": size, "raw_bytes": size, **figures, **more}


def test_falls_are_counted_between_neighbours_in_bytes() -> None:
    rows = [row("a", "x", size, psnr) for size, psnr in ((30, 31.0), (10, 29.0), (20, 30.0), (40, 30.5), (40, 20.0))]
    rows += [row("a", "y", size, psnr) for size, psnr in ((10, 20.0), (20, 20.0))]

    found = falls(rows, ["psnr_db"])["a"]["psnr_db"]

    assert found == {"clips": 2, "clips_without_fall": 0.5, "pairs": 4, "pairs_that_fall": 0.25}


def test_distance_falls_when_it_grows() -> None:
    rows = [row("a", "x", size, 30.0, squeezenet_distance=d) for size, d in ((10, 0.5), (20, 0.4), (30, 0.45))]

    assert falls(rows, ["squeezenet_distance"])["a"]["squeezenet_distance"]["pairs_that_fall"] == 0.5


def test_mean_curves_hold_the_levels_that_every_clip_has() -> None:
    rows = [row("a", name, size, psnr) for name, psnr in (("x", 20.0), ("y", 30.0)) for size in (10, 20)]

    assert mean_curves(rows[:3], "raw", "psnr_db") == {"a": [(1.0, 25.0)]}
    assert mean_curves(rows, "file", "psnr_db") == {"a": [(1.25, 25.0), (2.5, 25.0)]}


def test_names_and_rivals_are_checked() -> None:
    with pytest.raises(UsageError, match="names of their own"):
        Comparison(ours=bits_coder("a"), others=[bits_coder("a")], rivals=())
    with pytest.raises(UsageError, match="rivals"):
        Comparison(ours=None, others=[bits_coder("a")], rivals=("b",))
    with pytest.raises(UsageError, match="above 0"):
        Comparison(ours=None, others=[bits_coder("a")], rivals=(), limits_bpp=(0.0,))


# --- page and charts ---


def test_the_page_and_the_charts_stand_alone(folder: Path, tmp_path: Path) -> None:
    entries = choose_entries(folder, PROTOCOL)
    evaluate_rate_distortion(compared(), entries, PROTOCOL, RowStore(), name="r", out_dir=tmp_path)
    text = (tmp_path / "r.html").read_text()

    assert re.findall(r"(?:src|href)=\"(?!data:)[^\"]*\"|url\(|@import|<link|https?://", text) == []
    (data,) = re.findall(r'<script type="application/json" id="pictures">(.*?)</script>', text, flags=re.DOTALL)
    shown = json.loads(data)
    assert [one["coder"] for one in shown] == ["original", "ours", "theirs"] * 2
    assert all(one["uri"].startswith("data:image/png") for one in shown) and "400 bytes" in shown[1]["text"]
    for counting in ("raw", "file"):
        root = ElementTree.parse(tmp_path / f"r_psnr_db_{counting}.svg").getroot()
        assert len(root.findall(".//{http://www.w3.org/2000/svg}circle")) == 6


def test_a_clip_cannot_end_the_script_that_holds_the_pictures() -> None:
    name = "</script><script>alert(1)"
    text = comparison([Shown(name, "ours", "", "<b>", "data:image/png;base64,")])

    assert "alert(1)" in text and name not in text and text.count("<script") == 2


def test_a_chart_places_more_to_the_right_and_up() -> None:
    svg = svg_file(lines_svg([("a & b", [(0.01, 20.0), (0.1, 30.0), (1.0, 40.0)]), ("empty", [])], title="<t>"))
    circles = ElementTree.fromstring(svg).findall(".//{http://www.w3.org/2000/svg}circle")
    places = [(float(circle.attrib["cx"]), float(circle.attrib["cy"])) for circle in circles]

    assert places[0][0] < places[1][0] < places[2][0] and places[0][1] > places[1][1] > places[2][1]
    assert places[1][0] - places[0][0] == pytest.approx(places[2][0] - places[1][0], abs=0.2)  # logarithmic
    assert "0.01" in svg and "a &amp; b" in svg and "xmlns" not in lines([("a", [(1.0, 1.0)])])
    for bad in ([], [("a", [])], [("a", [(0.0, 1.0)])]):
        with pytest.raises(UsageError, match="above 0"):
            lines_svg(bad)


# --- VMAF ---


def test_two_clips_go_through_a_filter_in_step(tmp_path: Path) -> None:
    """With ssim, which every FFmpeg has, in the place of libvmaf."""
    clip, log = smooth_clip(), tmp_path / "ssim.log"
    other = replace(clip, frames_TCHW=clip.frames_TCHW.flip(3))

    for second, equal in ((clip, True), (other, False)):
        vmaf.run_filter(clip, second, "ssim", f"stats_file={log}")
        values = [float(value) for value in re.findall(r"All:(-?[\d.]+)", log.read_text())]
        assert len(values) == clip.num_frames and all((value == 1.0) == equal for value in values)
    with pytest.raises(MediaError, match="no_such_filter"):
        vmaf.run_filter(clip, clip, "no_such_filter", "")


def test_without_libvmaf_the_reason_is_told_and_a_program_on_the_path_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(vmaf.av.filter, "filters_available", set())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert vmaf.find_vmaf() == (None, "this FFmpeg has no libvmaf")

    program = tmp_path / "ffmpeg"
    program.write_text(
        "#!/bin/sh\n"
        'if [ "$2" = "-filters" ]; then echo " .. libvmaf   VV->V  x"; exit; fi\n'
        'log=$(echo "$8" | /bin/sed "s/.*log_path=//")\n'
        'echo "{\\"pooled_metrics\\": {\\"vmaf\\": {\\"mean\\": 93.5}}}" > "$log"\n'
    )
    program.chmod(0o755)
    measure, words = vmaf.find_vmaf()
    assert measure is not None and "path" in words and measure(smooth_clip(2), smooth_clip(2)) == 93.5
    program.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(MediaError, match="VMAF"):
        measure(smooth_clip(2), smooth_clip(2))


def test_what_the_program_gets_is_the_clip(tmp_path: Path) -> None:
    clip = smooth_clip()
    vmaf.write_y4m(clip, tmp_path / "clip.y4m")

    read_back = read(tmp_path / "clip.y4m")

    assert read_back.extent == clip.extent and psnr_db(read_back.frames_TCHW, clip.frames_TCHW) > 25
    (tmp_path / "log.json").write_text("{}")
    with pytest.raises(MediaError, match="no mean"):
        vmaf.mean_of_log(tmp_path / "log.json")


# --- the command ---


def test_a_model_is_measured_beside_a_codec_and_the_run_goes_on_from_its_rows(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = VideoTokenizer(Autoencoder3D(TINY), fingerprint="tiny")
    prior = PlainPrior(tokenizer.vocab_size, tokenizer.num_levels)
    plan = KlxEvaluation(("divided",), (), lines=24, qualities=(0, 65, 100), codecs=CODECS[:1], limits_bpp=(100.0,))
    seen: list[tuple[int, int | None]] = []

    def run() -> dict:
        (result,) = evaluate_klx(
            tokenizer,
            prior,
            folder,
            tmp_path,
            plan,
            name="tiny",
            on_points=lambda done, all_: seen.append((done, all_)),
        )
        return result

    first = run()
    size = (tmp_path / "rate_distortion_rows.jsonl").stat().st_size
    second = run()

    assert first["name"] == "rate_distortion_tiny" and first["measured"]["vmaf"]
    assert first["points"] == second["points"]
    assert (tmp_path / "rate_distortion_rows.jsonl").stat().st_size == size
    assert {row["coder"] for row in first["points"]} == {"tiny", "x264 slow"} and first["n"] == 2
    assert seen[-1][0] == seen[-1][1] == len(first["points"])
    assert math.isfinite(first["falls"]["tiny"]["psnr_db"]["clips_without_fall"])
    assert first["measured"]["chunks_of_ours"] == "one chunk per clip"


def test_the_command_names_its_options_and_what_is_missing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: object) -> int:
        with pytest.raises(SystemExit) as stopped:
            cli.main(["eval", "rate-distortion", *map(str, arguments)])
        return int(stopped.value.code or 0)

    assert run("--help") == 0 and "--chunk-frames" in capsys.readouterr().out
    code = run("--data", folder, "--out", tmp_path, "--sets", "absent", "--image-sets", "pictures")
    assert code == 2 and "absent" in capsys.readouterr().err and not list(tmp_path.glob("*.json"))


def test_the_real_sets_are_all_found(data_dir: Path) -> None:
    protocol = ReconstructionProtocol(sets=("clips", "sequences", "codec_seq"))
    entries = choose_entries(data_dir, protocol)

    assert len(entries) == 22 and all(isinstance(entry, Entry) for entry in entries)
    assert len(choose_entries(data_dir, replace(protocol, sets=("kodak",)))) == 12

"""Evaluating on tiny clips: a lossless tokenizer scores the best values, a lossy one what its error makes."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from kinolex.data.index import Entry
from kinolex.errors import CheckpointError, ConfigError, DataError
from kinolex.evaluation import (
    CODECS,
    ReconstructionProtocol,
    TokenGrid,
    evaluate_codecs,
    evaluate_reconstruction,
    read_result,
    select_entries,
)
from kinolex.evaluation.codecs import decode, encode, encode_to_size, from_yuv420, open_encoder, to_yuv420
from kinolex.evaluation.page import image_data_uri
from kinolex.evaluation.protocol import bootstrap_interval, read_entry
from kinolex.evaluation.reconstruction import chunk_starts
from kinolex.metrics import psnr_db
from kinolex.tokenizers.base import IdentityTokenizer
from kinolex.types import Clip, Extent, Tokens

PROTOCOL = ReconstructionProtocol(sets=(".",), split=None, lines=32, max_frames=9, bootstrap_draws=200)


class CoarseTokenizer(IdentityTokenizer):
    """Identity but for the lowest four bits of every colour: lossy by a known amount."""

    fingerprint = "coarse"

    def decode(self, tokens: Tokens) -> Clip:
        clip = IdentityTokenizer().decode(replace(tokens, tokenizer="identity"))
        return replace(clip, frames_TCHW=(clip.frames_TCHW & 0xF0) + 8)


def moving_clip(frames: int = 9, height: int = 32, width: int = 42) -> Clip:
    texture = F.interpolate(
        torch.rand(1, 3, 8, 16, generator=torch.Generator().manual_seed(0)), (height, width * 2), mode="bicubic"
    ).clamp(0, 1)
    shifted = [texture[0, :, :, t : t + width] for t in range(frames)]
    return Clip((torch.stack(shifted) * 255).round().to(torch.uint8), Fraction(25))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images and an array file, which need no codec to write."""
    folder = tmp_path_factory.mktemp("set")
    arrays = np.random.default_rng(0).integers(0, 256, (2, 24, 36, 3), dtype=np.uint8)
    np.savez(folder / "pictures.npz", images=arrays)
    (folder / "one.png").write_bytes(_png(arrays[0]))
    return folder


def _png(pixels_HWC: np.ndarray) -> bytes:
    import base64

    return base64.b64decode(image_data_uri(pixels_HWC).split(",", 1)[1])


def test_a_lossless_tokenizer_gets_the_best_figures(folder: Path, tmp_path: Path) -> None:
    result = evaluate_reconstruction(IdentityTokenizer(), folder, PROTOCOL, out_dir=tmp_path, name="identity")

    assert result["n"] == 3 and {row["psnr_db"] for row in result["clips"]} == {100.0}
    assert result["mean"]["ms_ssim"] == pytest.approx({"mean": 1.0, "low": 1.0, "high": 1.0})
    assert result["clips"][0]["bits_per_pixel"] == 24.0
    assert read_result(tmp_path / "identity.json") == json.loads(json.dumps(result))
    assert "data:image/png" in (tmp_path / "identity.html").read_text()


def test_a_lossy_tokenizer_gets_the_figure_of_its_error(folder: Path) -> None:
    entry = select_entries(folder, PROTOCOL)[0]
    original = read_entry(entry, PROTOCOL).frames_TCHW

    result = evaluate_reconstruction(CoarseTokenizer(), [entry], PROTOCOL)

    assert result["mean"]["psnr_db"]["mean"] == pytest.approx(psnr_db(original, (original & 0xF0) + 8))
    assert 30 < result["mean"]["psnr_db"]["mean"] < 40


def test_the_result_names_its_origin_without_folders_of_this_machine(folder: Path) -> None:
    result = evaluate_reconstruction(IdentityTokenizer(), folder, PROTOCOL)

    for key in (
        "name",
        "command",
        "commit",
        "date",
        "hardware",
        "protocol",
        "protocol_hash",
        "n",
        "mean",
        "worst",
        "clips",
    ):
        assert key in result
    assert str(folder) not in json.dumps(result) and str(Path(__file__).parent.parent) not in json.dumps(result)
    assert result["worst"] and set(result["worst"]) <= {row["name"] for row in result["clips"]}


def test_the_hash_follows_every_field_and_nothing_else() -> None:
    same = ReconstructionProtocol(sets=(".",), split=None, lines=32, max_frames=9, bootstrap_draws=200)
    others = [replace(PROTOCOL, lines=64), replace(PROTOCOL, max_frames=None), replace(PROTOCOL, features_sha256="00")]

    assert same.hash == PROTOCOL.hash and len(same.hash) == 16
    assert len({PROTOCOL.hash, *(other.hash for other in others)}) == 4


def test_results_of_another_protocol_are_not_compared(folder: Path) -> None:
    other = evaluate_reconstruction(IdentityTokenizer(), folder, replace(PROTOCOL, lines=16))

    with pytest.raises(DataError, match="protocol"):
        evaluate_reconstruction(IdentityTokenizer(), folder, PROTOCOL, compare=[other])


def test_the_page_shows_the_compared_results_beside_ours(folder: Path, tmp_path: Path) -> None:
    other = evaluate_reconstruction(CoarseTokenizer(), folder, PROTOCOL, name="the coarse one")

    evaluate_reconstruction(IdentityTokenizer(), folder, PROTOCOL, out_dir=tmp_path, name="ours", compare=[other])

    text = (tmp_path / "ours.html").read_text()
    assert text.count("the coarse one") >= 3
    assert '<td class="strong">100.000</td>' in text


def test_the_backbone_is_named_by_its_hash_and_a_missing_one_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="perceptual network"):
        evaluate_reconstruction(IdentityTokenizer(), folder, PROTOCOL, tmp_path / "absent.safetensors")
    save_file({"wrong": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    with pytest.raises(CheckpointError, match="SqueezeNet"):
        evaluate_reconstruction(IdentityTokenizer(), folder, PROTOCOL, tmp_path / "wrong.safetensors")


def test_codebook_figures_count_the_tokens_of_all_clips(folder: Path) -> None:
    result = evaluate_reconstruction(IdentityTokenizer(), folder, PROTOCOL)
    figures = result["codebook"][0]

    assert figures["tokens"] == sum(row["tokens"] for row in result["clips"])
    assert 0 < figures["usage"] < figures["reach"] <= 1 and 1 < figures["perplexity"] <= figures["tokens"]
    assert sum(figures["histogram"]) == figures["tokens"]


def test_an_empty_choice_and_a_broken_result_are_named_errors(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no entry of split"):
        select_entries(folder, replace(PROTOCOL, split="test"))
    with pytest.raises(DataError, match="at least one entry"):
        evaluate_reconstruction(IdentityTokenizer(), [], PROTOCOL)
    (tmp_path / "broken.json").write_text('{"format": "other"}')
    with pytest.raises(DataError, match="kinolex-result-1"):
        read_result(tmp_path / "broken.json")
    with pytest.raises(ConfigError, match="sizes above 0"):
        ReconstructionProtocol(lines=0)


def test_the_interval_holds_the_mean_and_narrows_with_more_clips() -> None:
    values = np.random.default_rng(0).normal(30, 3, 400).tolist()
    few, many = (bootstrap_interval(values[:n], seed=0, draws=2000) for n in (16, 400))

    assert few[0] < np.mean(values[:16]) < few[1] and many[0] < np.mean(values) < many[1]
    assert many[1] - many[0] == pytest.approx(2 * 1.96 * 3 / math.sqrt(400), rel=0.1)
    assert many[1] - many[0] < few[1] - few[0]
    assert bootstrap_interval([5.0], seed=0, draws=10) == (5.0, 5.0)


def test_chunks_start_where_the_network_starts_a_pass() -> None:
    causal, windowed = IdentityTokenizer(), IdentityTokenizer()
    causal.pixels_per_token = windowed.pixels_per_token = (4, 8, 8)  # type: ignore[misc,assignment]
    windowed.config = type("Config", (), {"causal": False})  # type: ignore[attr-defined]

    assert chunk_starts(causal, 10) == [1, 5, 9]
    assert chunk_starts(windowed, 40) == [16, 32]
    assert chunk_starts(causal, 1) == chunk_starts(windowed, 16) == chunk_starts(IdentityTokenizer(), 9) == []


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_a_codec_gives_the_frames_back_in_order_and_size(codec) -> None:
    clip = moving_clip(height=64, width=71)  # an odd width is padded and cropped
    coded = encode(clip, codec, 20)

    rebuilt = decode(coded, codec, clip.extent)

    assert rebuilt.extent == clip.extent
    assert psnr_db(clip.frames_TCHW, rebuilt.frames_TCHW) > 35
    errors = [psnr_db(clip.frames_TCHW[t : t + 1], rebuilt.frames_TCHW[t - 1 : t]) for t in range(1, clip.num_frames)]
    assert max(errors) < psnr_db(clip.frames_TCHW, rebuilt.frames_TCHW)


def test_grey_survives_the_colour_conversion_and_colours_nearly() -> None:
    grey = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    smooth = moving_clip(frames=2, height=64, width=64).frames_TCHW

    assert int((from_yuv420(to_yuv420(grey)).int() - grey.int()).abs().max()) <= 1
    assert psnr_db(from_yuv420(to_yuv420(smooth)), smooth) > 38


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_the_search_comes_close_to_the_target_and_not_above(codec) -> None:
    clip = moving_clip(height=64, width=64)
    target = encode(clip, codec, 30).num_bytes + 3

    found = encode_to_size(clip, codec, target)

    assert 0.75 * target < found.num_bytes <= target
    assert abs(found.crf - 30) <= 2  # bytes are not strictly monotone in CRF


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no scheduling policies on this system")
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_no_codec_makes_its_threads_more_important_than_its_caller(codec) -> None:
    def policies() -> list[int]:
        return [os.sched_getscheduler(int(task.name)) for task in Path("/proc/self/task").iterdir()]

    caller = os.sched_getscheduler(0)
    context = open_encoder(codec, 40, 64, 64, Fraction(25))
    while_open, threads = set(policies()), len(policies())
    del context

    assert while_open == {caller} == set(policies())
    assert codec.name != "svt-av1" or threads > 5  # the one that makes real-time threads did make threads


def test_a_target_out_of_reach_gives_the_smallest_file() -> None:
    clip = moving_clip(frames=2)

    assert encode_to_size(clip, CODECS[0], 1).crf == CODECS[0].crf_range[1]


def test_x264_text_about_itself_is_not_counted_and_not_needed() -> None:
    coded = encode(moving_clip(), CODECS[0], 30)

    assert all(b"x264" not in packet for packet in coded.packets)
    assert coded.num_bytes < 5000


def test_a_token_grid_costs_what_its_tokens_cost() -> None:
    extent = Extent(frames=65, height=128, width=228, fps=Fraction(24))

    assert TokenGrid(bits_per_token=18).num_bytes(extent) == math.ceil(17 * 16 * 29 * 18 / 8)
    assert TokenGrid(bits_per_token=10, causal=False).num_bytes(extent) == math.ceil(17 * 16 * 29 * 10 / 8)
    assert TokenGrid(bits_per_token=18, causal=False).num_bytes(replace(extent, frames=64)) == 16 * 16 * 29 * 18 // 8


def test_codec_results_share_the_schema_and_stand_beside_a_tokenizer(folder: Path, tmp_path: Path) -> None:
    results = evaluate_codecs(
        folder,
        PROTOCOL,
        lambda _name, extent: extent.pixels // 8,
        label="1 bit per pixel",
        out_dir=tmp_path,
        codecs=CODECS[:1],
    )
    written = read_result(tmp_path / "codecs_reconstruction_x264_1-bit-per-pixel.json")

    ours = evaluate_reconstruction(IdentityTokenizer(), folder, PROTOCOL, compare=[written], out_dir=tmp_path)

    assert written == json.loads(json.dumps(results["x264"]))
    assert set(ours["mean"]) & set(written["mean"]) >= {"psnr_db", "ms_ssim", "flicker", "bits_per_pixel"}
    assert [row["name"] for row in written["clips"]] == [row["name"] for row in ours["clips"]]
    assert "x264 slow, 1 bit per pixel" in (tmp_path / "reconstruction.html").read_text()


def test_real_videos_are_read_scaled_and_named_by_their_set(data_dir: Path) -> None:
    protocol = ReconstructionProtocol(max_frames=3)
    entries = select_entries(data_dir, protocol)

    clip = read_entry(next(entry for entry in entries if entry.name == "sequences/blackswan.mp4"), protocol)

    assert len(entries) == 16 and all(isinstance(entry, Entry) for entry in entries)
    assert (clip.num_frames, clip.height, clip.width, clip.sound) == (3, 128, 228, None)

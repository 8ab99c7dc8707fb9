"""Clip -> .klx -> clip on a tiny random tokenizer, with the plain prior and with a random learned one."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from kinolex import api, checkpoint, hub
from kinolex.codec.container import Chunk, End, Header, pack_chunk, pack_end, pack_header
from kinolex.codec.network import NetworkConfig
from kinolex.codec.parser import parse, read_index
from kinolex.codec.priors import save_prior
from kinolex.compression import (
    SCALES,
    CompressConfig,
    Lost,
    coder_of,
    compress,
    compress_stream,
    decompress,
    decompress_at,
    decompress_stream,
    decompress_tokens,
    describe,
    read_sound,
)
from kinolex.data.worlds import WorldConfig, render
from kinolex.errors import (
    ConfigError,
    DamagedStream,
    KinolexError,
    StreamError,
    TokenError,
    TruncatedStream,
    UnreadableMedia,
    UsageError,
)
from kinolex.media import read, resize_frames, write
from kinolex.tokenizers.autoencoder3d import Autoencoder3D, AutoencoderConfig
from kinolex.tokenizers.quantizers import FSQConfig
from kinolex.types import Clip, Sound

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
FPS = Fraction(25)


def random_integers(config: NetworkConfig) -> dict[str, torch.Tensor]:
    generator, tensors = torch.Generator().manual_seed(0), {}
    for name, shape in config.layer_shapes().items():
        tensors[f"{name}.weight"] = torch.randint(-127, 128, shape, generator=generator).to(torch.int8)
        tensors[f"{name}.bias"] = torch.randint(-4000, 4000, shape[2:], generator=generator).to(torch.int32)
        tensors[f"{name}.shift"] = torch.full(shape[2:], 9, dtype=torch.uint8)
    return tensors


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model without a prior of its own."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("plain") / "model"
    checkpoint.save(folder, Autoencoder3D(TINY), card="")
    return str(folder)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with a random integer prior beside its weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("learned") / "model"
    checkpoint.save(folder, Autoencoder3D(TINY), card="")
    config = NetworkConfig(levels=(8, 8), channels=8, trunk_layers=1)
    save_prior(folder / checkpoint.PRIOR, config, random_integers(config))
    return str(folder)


@pytest.fixture(scope="module", params=["plain", "learned"])
def model(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


def moving_clip(
    frames: int = 14, height: int = 21, width: int = 30, *, sound: bool = False, fps: Fraction = FPS
) -> Clip:
    """Coloured noise that slides, and a tone as long as the pictures."""
    generator = torch.Generator().manual_seed(frames)
    noise_CHW = torch.rand(3, height, width + 2 * frames, generator=generator)
    smooth_CHW = torch.nn.functional.avg_pool2d(noise_CHW, 5, 1, 2)
    frames_TCHW = torch.stack([smooth_CHW[:, :, 2 * index : 2 * index + width] for index in range(frames)])
    samples = math.ceil(frames / fps * 16_000)
    tone = Sound(0.5 * torch.sin(torch.arange(samples) / 6).unsqueeze(0), 16_000) if sound else None
    return Clip((frames_TCHW * 255).to(torch.uint8), fps, tone)


def joined(clips: list[Clip]) -> torch.Tensor:
    return torch.cat([clip.frames_TCHW for clip in clips])


def chunk_places(data: bytes) -> list[tuple[int, int]]:
    """Where every chunk of a file lies."""
    end, index_place = read_index(io.BytesIO(data))
    return list(pairwise(accumulate(end.lengths, initial=index_place - sum(end.lengths))))


# --- pictures and sound come back ---


def test_a_clip_comes_back_as_the_tokenizer_decodes_its_tokens(model: str) -> None:
    clip = moving_clip()
    data = compress(clip, model, chunk_frames=9)
    back = decompress(data, model)
    runs = decompress_tokens(data, model)
    assert [run.extent.frames for run in runs] == [9, 5]
    tokenizer = hub.load(model)
    assert torch.equal(back.frames_TCHW, joined([tokenizer.decode(run) for run in runs]))
    assert back.extent == clip.extent and back.sound is None


def test_tokens_come_back_exactly_and_in_one_run(model: str) -> None:
    tokenizer = hub.load(model)
    tokens = tokenizer.encode(moving_clip(60))
    data = compress(tokens, model)
    (back,) = decompress_tokens(data, model)
    assert torch.equal(back.ids_Qthw, tokens.ids_Qthw) and back.extent == tokens.extent
    assert torch.equal(decompress(data, model).frames_TCHW, tokenizer.decode(tokens).frames_TCHW)


@pytest.mark.parametrize("frames", [1, 2, 9, 10])
@pytest.mark.parametrize("quality", [0, 40, 65, 100])
def test_size_rate_and_number_of_frames_are_kept_at_every_quality(plain: str, frames: int, quality: int) -> None:
    clip = moving_clip(frames, fps=Fraction(30000, 1001))
    data = compress(clip, plain, quality=quality, chunk_frames=9)
    assert decompress(data, plain).extent == clip.extent
    facts = describe(io.BytesIO(data))
    assert facts["scales"] == f"{SCALES[quality // 5]}/16" and facts["frames"] == frames
    assert facts["bytes"] == len(data) == facts["token_bytes"] + facts["sound_bytes"] + facts["container_bytes"]


def test_pieces_cut_anywhere_give_the_same_bytes_and_bytes_cut_anywhere_the_same_frames(model: str) -> None:
    clip = moving_clip(23, sound=True)
    tokenizer = hub.load(model)
    prior, config = hub.load_prior(model, tokenizer), CompressConfig(chunk_frames=9)
    whole = b"".join(compress_stream([clip], tokenizer, prior, config, sound=clip.sound))
    pieces = [Clip(frames_TCHW, FPS) for frames_TCHW in clip.frames_TCHW.split((1, 10, 3, 9))]
    assert b"".join(compress_stream(pieces, tokenizer, prior, config, sound=clip.sound)) == whole
    parts = [whole[at : at + 101] for at in range(0, len(whole), 101)]
    streamed = list(decompress_stream(parts, coder_of(model)))
    assert torch.equal(joined(streamed), decompress(whole, model).frames_TCHW)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001)])
def test_sound_comes_back_to_the_sample_beside_its_pictures(plain: str, channels: int, fps: Fraction) -> None:
    clip = moving_clip(23, sound=True, fps=fps)
    assert clip.sound is not None
    clip = clip.with_sound(Sound(clip.sound.samples_CS.expand(channels, -1).contiguous(), 16_000))
    assert clip.sound is not None
    data = compress(clip, plain, chunk_frames=9, sound_kbps=96.0)
    back = decompress(data, plain).sound
    assert back is not None and back.samples_CS.shape == (channels, 3 * clip.sound.num_samples)
    assert torch.equal(back.samples_CS, read_sound(io.BytesIO(data)).samples_CS)  # pyright: ignore[reportOptionalMemberAccess]
    wanted_S = 0.5 * torch.sin(torch.arange(back.num_samples) / 18)
    assert float((back.samples_CS - wanted_S)[:, 480:].square().mean()) < 0.01 * 0.125
    heard = [piece.sound for piece in decompress_stream([data], coder_of(plain))]
    together_CS = torch.cat([sound.samples_CS for sound in heard if sound is not None], dim=1)
    assert together_CS.shape[1] == 23 * 48_000 * fps.denominator // fps.numerator
    count = min(together_CS.shape[1], back.num_samples)
    assert torch.equal(together_CS[:, :count], back.samples_CS[:, :count])


def test_sound_that_is_shorter_or_longer_than_the_pictures_keeps_its_length(plain: str) -> None:
    for samples in (0, 100, 6000, 40_000):
        clip = moving_clip(20).with_sound(Sound(torch.rand(1, samples) - 0.5, 48_000))
        data = compress(clip, plain, chunk_frames=9)
        back = decompress(data, plain)
        assert (back.sound.num_samples if back.sound else 0) == samples
        streamed = list(decompress_stream([data], coder_of(plain)))
        assert sum(piece.num_frames for piece in streamed) == 20


# --- rate ---


def test_bytes_grow_with_quality(plain: str) -> None:
    clip = moving_clip(9, 64, 96)
    sizes = [len(compress(clip, plain, quality=quality)) for quality in range(0, 101, 20)]
    assert sizes == sorted(sizes) and sizes[-1] > 4 * sizes[0]


@pytest.mark.parametrize("bpp", [0.03, 0.06])
def test_a_budget_in_bits_per_pixel_is_kept_by_the_whole_file_and_used(model: str, bpp: float) -> None:
    clip = moving_clip(26, 64, 96)
    data = compress(clip, model, bpp=bpp, chunk_frames=13)
    facts = describe(io.BytesIO(data))
    assert facts["bits_per_pixel"] == pytest.approx(8 * len(data) / (26 * 64 * 96))
    assert 0.5 * bpp < facts["bits_per_pixel"] <= 1.02 * bpp


def test_a_budget_in_kilobits_per_second_counts_the_sound(plain: str) -> None:
    clip = moving_clip(26, 64, 96, sound=True)
    facts = describe(io.BytesIO(compress(clip, plain, kbps=40, chunk_frames=13, sound_kbps=16)))
    assert 20 < facts["kbps"] <= 41 and facts["sound_bytes"] > 1500


def test_a_budget_that_cannot_be_kept_gives_the_smallest_scale(plain: str) -> None:
    facts = describe(io.BytesIO(compress(moving_clip(9), plain, bpp=1e-6)))
    assert facts["scales"] == f"{SCALES[0]}/16"


@pytest.mark.parametrize("size", [(24, 32), (37, 53)])
def test_a_budget_of_a_short_and_small_video_counts_header_and_index(plain: str, size: tuple[int, int]) -> None:
    clip = moving_clip(20, *size)
    least = len(compress(clip, plain, quality=0))
    for wanted in (1.25 * least, 1.6 * least, 2.5 * least):
        data = compress(clip, plain, bpp=8 * wanted / (20 * size[0] * size[1]))
        assert len(data) <= 1.01 * wanted


# --- seeking ---


def test_one_frame_is_the_frame_of_the_whole(model: str) -> None:
    clip = moving_clip(20, sound=True)
    data = compress(clip, model, chunk_frames=9, quality=50)
    whole = decompress(data, model).frames_TCHW
    for frame in (0, 8, 9, 13, 19):
        one = decompress_at(io.BytesIO(data), frame, coder_of(model))
        assert torch.equal(one.frames_TCHW, whole[frame : frame + 1]), frame
    with pytest.raises(UsageError, match="frames 0 to 19"):
        decompress_at(io.BytesIO(data), 20, coder_of(model))


def test_one_frame_of_a_file_of_tokens_is_the_frame_of_the_whole(plain: str) -> None:
    tokens = hub.load(plain).encode(moving_clip(60))
    data = compress(tokens, plain)
    whole = decompress(data, plain).frames_TCHW
    for frame in (0, 48, 49, 59):
        assert torch.equal(
            decompress_at(io.BytesIO(data), frame, coder_of(plain)).frames_TCHW, whole[frame : frame + 1]
        )


# --- damage ---


def damaged(data: bytes, chunk: int) -> bytes:
    start, stop = chunk_places(data)[chunk]
    middle = (start + stop) // 2
    return data[:middle] + bytes([data[middle] ^ 0x40]) + data[middle + 1 :]


def test_tolerated_damage_holds_the_picture_before_and_changes_nothing_else(model: str) -> None:
    clip = moving_clip(36, sound=True)
    data = compress(clip, model, chunk_frames=9, sound_kbps=64.0)
    good, lost = list(decompress_stream([data], coder_of(model))), []
    bad = list(decompress_stream([damaged(data, 1)], coder_of(model), on_lost=lost.append))
    (stretch,) = lost
    assert isinstance(stretch, Lost) and (stretch.first_frame, stretch.frames) == (9, 9)
    whole, held = joined(good), joined(bad)
    assert torch.equal(held[:9], whole[:9]) and torch.equal(held[18:], whole[18:])
    assert torch.equal(held[9:18], whole[8:9].expand(9, -1, -1, -1))
    heard, wanted = (
        torch.cat([piece.sound.samples_CS for piece in clips if piece.sound is not None], dim=1)
        for clips in (bad, good)
    )
    samples = 1920  # of a frame
    assert heard.shape == wanted.shape
    assert torch.equal(heard[:, : 9 * samples], wanted[:, : 9 * samples])
    assert not bool(heard[:, 9 * samples + 5760 : 17 * samples].any())
    late = slice(24 * samples, 36 * samples - 960)
    assert float((heard - wanted)[:, late].square().mean()) < 0.01 * float(wanted[:, late].square().mean())
    tolerated = read_sound(io.BytesIO(damaged(data, 1)), tolerate=True)
    assert tolerated is not None and torch.equal(
        tolerated.samples_CS[:, : 36 * samples], heard[:, : tolerated.num_samples]
    )


@pytest.mark.parametrize("chunk", [0, 3])
def test_damage_at_either_end_keeps_the_number_of_frames(plain: str, chunk: int) -> None:
    data, lost = compress(moving_clip(30), plain, chunk_frames=9), []
    clips = list(decompress_stream([damaged(data, chunk)], coder_of(plain), on_lost=lost.append))
    assert len(joined(clips)) == 30 and sum(stretch.frames for stretch in lost) == (9 if chunk == 0 else 3)
    if chunk == 0:
        assert joined(clips)[:9].unique().tolist() == [128]


def test_damage_is_the_named_error_after_everything_before_it(model: str) -> None:
    data = compress(moving_clip(30), model, chunk_frames=9)
    whole, found = decompress(data, model).frames_TCHW, []
    with pytest.raises(DamagedStream, match="chunk 3"):
        found.extend(decompress_stream([damaged(data, 2)], coder_of(model)))
    assert torch.equal(joined(found), whole[:18])
    with pytest.raises(DamagedStream):
        decompress(damaged(data, 2), model)


def test_a_cut_file_gives_everything_before_the_cut(plain: str) -> None:
    data = compress(moving_clip(30, sound=True), plain, chunk_frames=9)
    whole, ends = decompress(data, plain).frames_TCHW, [stop for _, stop in chunk_places(data)]
    for cut in (ends[0], ends[1] - 1, ends[1], ends[2] + 3, len(data) - 1):
        found = []
        with pytest.raises(TruncatedStream):
            found.extend(decompress_stream([data[:cut]], coder_of(plain)))
        frames = min(30, 9 * sum(end <= cut for end in ends))
        assert torch.equal(joined(found), whole[:frames])
        lost: list[Lost] = []
        tolerated = joined(list(decompress_stream([data[:cut]], coder_of(plain), on_lost=lost.append)))
        assert torch.equal(tolerated, whole[:frames])
        assert [(stretch.first_frame, stretch.frames) for stretch in lost] == [(frames, 0)]


def test_a_file_without_a_whole_chunk_is_an_error_in_every_way_of_reading(plain: str) -> None:
    data = compress(moving_clip(9), plain)
    cut = data[: chunk_places(data)[0][1] - 1]
    for read_it in (
        lambda: decompress(cut, plain),
        lambda: list(decompress_stream([cut], coder_of(plain), on_lost=[].append)),
        lambda: decompress_at(io.BytesIO(cut), 0, coder_of(plain)),
        lambda: decompress_tokens(cut, plain),
        lambda: describe(io.BytesIO(cut)),
    ):
        with pytest.raises(StreamError):
            read_it()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda first: first + 1, "frame 0 should follow, but 1 does"),
        (lambda first: 2 * first, "frame 9 should follow, but 18 does"),
        (lambda first: 0, "frame 9 should follow, but 0 does"),
    ],
)
def test_info_looks_at_the_first_frames_of_chunks(plain: str, change: Callable[[int], int], words: str) -> None:
    items = list(parse(compress(moving_clip(23), plain, chunk_frames=9)))
    (header,) = (item for item in items if isinstance(item, Header))
    chunks = [item for item in items if isinstance(item, Chunk)]
    moved = [replace(chunk, first_frame=change(chunk.first_frame)) for chunk in chunks]
    for those in (chunks, moved):
        pieces = [pack_chunk(chunk, header) for chunk in those]
        end = End(lengths=tuple(map(len, pieces)), frames=tuple(chunk.geometry.frames for chunk in those))
        file = io.BytesIO(b"".join([pack_header(header), *pieces, pack_end(end)]))
        if those is chunks:
            assert describe(file)["frames"] == 23
            continue
        with pytest.raises(DamagedStream, match=words):
            describe(file)


# --- files ---


def test_a_video_file_goes_through_and_its_sound_with_it(model: str, tmp_path: Path) -> None:
    source, klx, target = tmp_path / "in.mp4", tmp_path / "c.klx", tmp_path / "out.mp4"
    write(moving_clip(20, sound=True), source)
    tokenizer = hub.load(model)
    report = api.compress(source, klx, tokenizer, hub.load_prior(model, tokenizer), CompressConfig(chunk_frames=9))
    assert report.bytes == klx.stat().st_size and report.frames == 20
    assert report.bits_per_pixel == pytest.approx(8 * report.bytes / (20 * 21 * 30))
    facts = api.info(klx)
    assert facts["kind"] == "klx" and facts["sound"] == "opus, 1 channel" and facts["chunks"] == 3
    assert facts["kbps"] == pytest.approx(report.kbps) and facts["tokenizer"] == tokenizer.fingerprint
    extent = api.decompress(klx, target, coder_of(model))
    original, back = read(source), read(target)
    assert extent == back.extent == original.extent and back.sound is not None and original.sound is not None
    assert abs(back.sound.duration_s - original.sound.duration_s) < 0.05
    api.decompress_frame(klx, tmp_path / "frame.png", 12, coder_of(model))
    whole = decompress(klx.read_bytes(), model).frames_TCHW
    assert torch.equal(read(tmp_path / "frame.png").frames_TCHW, whole[12:13])


def test_a_damaged_file_leaves_the_frames_before_the_damage_or_all_of_them_with_a_gap(
    plain: str, tmp_path: Path
) -> None:
    klx, target = tmp_path / "c.klx", tmp_path / "out.mp4"
    klx.write_bytes(damaged(compress(moving_clip(30, sound=True), plain, chunk_frames=9), 2))
    with pytest.raises(DamagedStream, match="holds the 18 frames before"):
        api.decompress(klx, target, coder_of(plain))
    before = read(target)
    assert before.num_frames == 18 and before.sound is not None
    assert before.sound.duration_s == pytest.approx(18 / 25, abs=0.05)
    lost: list[Lost] = []
    assert api.decompress(klx, target, coder_of(plain), on_lost=lost.append).frames == 30
    assert read(target).num_frames == 30 and [stretch.first_frame for stretch in lost] == [18]


def test_one_frame_of_a_damaged_or_cut_file_is_read_from_the_front_if_tolerated(plain: str, tmp_path: Path) -> None:
    klx, target = tmp_path / "c.klx", tmp_path / "one.png"
    data = compress(moving_clip(30), plain, chunk_frames=9)
    whole = decompress(data, plain).frames_TCHW
    klx.write_bytes(damaged(data, 2))
    with pytest.raises(DamagedStream, match="chunk 3 does not fit"):
        api.decompress_frame(klx, target, 20, coder_of(plain))
    lost: list[Lost] = []
    api.decompress_frame(klx, target, 20, coder_of(plain), on_lost=lost.append)
    assert torch.equal(read(target).frames_TCHW, whole[17:18]) and [stretch.first_frame for stretch in lost] == [18]

    klx.write_bytes(data[: chunk_places(data)[2][0] + 5])
    with pytest.raises(StreamError, match="does not end in its index"):
        api.decompress_frame(klx, target, 12, coder_of(plain))
    api.decompress_frame(klx, target, 12, coder_of(plain), on_lost=lost.append)
    assert torch.equal(read(target).frames_TCHW, whole[12:13])
    with pytest.raises(UsageError, match="frames 0 to 17 of the video could be read, and not 20"):
        api.decompress_frame(klx, target, 20, coder_of(plain), on_lost=lost.append)
    klx.write_bytes(b"a text, and a long one at that")
    with pytest.raises(StreamError, match=r"this is no \.klx file"):
        api.decompress_frame(klx, target, 0, coder_of(plain))


def test_a_file_of_which_nothing_can_be_read_leaves_no_target(plain: str, tmp_path: Path) -> None:
    data, klx, target = compress(moving_clip(9), plain), tmp_path / "c.klx", tmp_path / "out.mp4"
    for bad in (b"", b"text", data[:40], data[: chunk_places(data)[0][1] - 1], damaged(data, 0)):
        klx.write_bytes(bad)
        for on_lost in (None, [].append):
            if on_lost and bad == damaged(data, 0):
                continue  # its end tells nine frames, which are concealed
            with pytest.raises(StreamError if bad else UnreadableMedia, match=r"c\.klx"):
                api.decompress(klx, target, coder_of(plain), on_lost=on_lost)
            assert {path.name for path in tmp_path.iterdir()} == {"c.klx"}


# --- calls that cannot be ---


def test_files_and_tokens_of_another_model_are_refused_by_name(plain: str, learned: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = tmp_path / "other"
    checkpoint.save(other, Autoencoder3D(TINY), card="")
    clip = moving_clip(5)
    data = compress(clip, plain)
    with pytest.raises(StreamError, match="was made by tokenizer"):
        decompress(data, other)
    with pytest.raises(StreamError, match="needs prior"):
        decompress(data, learned)  # the same weights with another prior
    with pytest.raises(TokenError):
        compress(hub.load(plain).encode(clip), other)
    with pytest.raises(KinolexError):
        decompress(data)  # none of the shipped models made it


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 50, "bpp": 0.1},
        {"quality": 101},
        {"quality": -1},
        {"bpp": 0.0},
        {"kbps": -1.0},
        {"chunk_frames": 0},
        {"sound_kbps": 0.0},
        {"bpp": math.nan},
        {"quality": 50.5},
        {"quality": "5"},
        {"chunk_frames": 2.5},
        {"kbps": "1"},
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        CompressConfig(**options)  # pyright: ignore[reportArgumentType]


def test_what_is_no_clip_and_options_that_are_none_are_refused_by_name(plain: str) -> None:
    with pytest.raises(UsageError, match=r"takes the bytes of a \.klx file, got 'in.klx'; kinolex.api.decompress"):
        decompress("in.klx")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"takes a Clip or Tokens, got 'in.mp4'; kinolex.read"):
        compress("in.mp4", plain)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="no option nope; there are quality, bpp"):
        compress(moving_clip(5), plain, nope=3)
    with pytest.raises(ConfigError, match="so sound_model cannot be chosen"):
        compress(hub.load(plain).encode(moving_clip(5)), plain, sound_model="sound-nano")


def test_an_empty_stream_and_pieces_of_different_sizes_are_refused(plain: str) -> None:
    tokenizer = hub.load(plain)
    prior = hub.load_prior(plain, tokenizer)
    with pytest.raises(UsageError, match="no frame"):
        list(compress_stream([], tokenizer, prior))
    with pytest.raises(UsageError, match="must look like the first"):
        list(compress_stream([moving_clip(3), moving_clip(3, width=31)], tokenizer, prior))
    with pytest.raises(ConfigError, match="stored as they are"):
        compress(tokenizer.encode(moving_clip(3)), plain, quality=50)


def test_scaling_is_what_a_chunk_of_another_scale_is_decoded_with(plain: str) -> None:
    clip = moving_clip(5, 64, 48)
    data = compress(clip, plain, quality=25)
    (run,) = decompress_tokens(data, plain)
    assert (run.extent.height, run.extent.width) == (32, 24)  # 8/16
    small_TCHW = hub.load(plain).decode(run).frames_TCHW
    assert torch.equal(decompress(data, plain).frames_TCHW, resize_frames(small_TCHW, 64, 48))


# --- what ships ---


def test_the_shipped_prior_makes_files_of_the_default_model_much_smaller_than_fixed_length() -> None:
    tokenizer = hub.load()
    prior = hub.load_prior(hub.DEFAULT, tokenizer)
    clip = render(3, WorldConfig(frames=17, height=64, width=64)).clip.with_sound(None)
    data = b"".join(compress_stream([clip], tokenizer, prior, CompressConfig(quality=65)))
    (tokens,) = decompress_tokens(data)
    assert 8 * len(data) < 0.75 * tokens.num_tokens * math.log2(tokenizer.vocab_size)
    assert decompress(data).frames_TCHW.shape == clip.frames_TCHW.shape

"""Twice the lines of any video: what small tokens say decides, sizes are exact, long videos need no more memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kinolex import checkpoint
from kinolex.errors import ConfigError, TokenError, UsageError
from kinolex.generation.decoding import DecodeConfig
from kinolex.generation.long import fulfil_long
from kinolex.generation.multimodal import MultimodalGenerator, Request, fulfil
from kinolex.generation.super_resolution import (
    EnlargingTokenizer,
    UpscaleConfig,
    Upscaler,
    enlarging,
    load_upscaler,
    upscale,
)
from kinolex.media import read, write
from kinolex.models.factors import split_ids
from kinolex.models.multimodal import MultimodalConfig, MultimodalTransformer
from kinolex.models.super_resolution import SuperResolution
from kinolex.sampling.choose import Choice
from kinolex.sampling.parallel import ParallelConfig
from kinolex.types import Clip, Sound, Tokens
from kinolex.vocab import Vocabulary
from tests.tiny_sound import tiny_sound_tokenizer

SURE = UpscaleConfig(sampling=ParallelConfig(steps=2, choice=Choice(temperature=0.0), settle_temperature=0.0))


def clip(frames: int, height: int = 24, width: int = 20, *, sound: Sound | None = None) -> Clip:
    pixels = torch.randint(0, 256, (frames, 3, height, width), generator=torch.Generator().manual_seed(frames))
    return Clip(pixels.to(torch.uint8), Fraction(12), sound)


def pieces_of(tokens: Tokens, sizes: tuple[int, ...]) -> list[Tokens]:
    """The stream cut into pieces of so many latent frames, each with the frames it stands for."""
    found, done, frames = [], 0, 0
    for size in sizes:
        stop = min(tokens.extent.frames, 1 + 4 * (done + size - 1))
        part = tokens.ids_Qthw[:, done : done + size]
        found.append(replace(tokens, ids_Qthw=part, extent=replace(tokens.extent, frames=stop - frames)))
        done, frames = done + size, stop
    return found


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 16, 16), (9, 24, 20), (11, 17, 33), (26, 16, 8)])
def test_the_result_has_the_same_frames_and_exactly_twice_the_lines(
    tiny_upscaler: Upscaler, frames: int, height: int, width: int
) -> None:
    small = tiny_upscaler.tokenizer.encode(clip(frames, height, width))

    large = tiny_upscaler.upscale(small, SURE)

    assert large.extent == replace(small.extent, height=2 * height, width=2 * width)
    assert large.ids_Qthw.shape == (1, small.ids_Qthw.shape[1], -(-2 * height // 8), -(-2 * width // 8))
    made = tiny_upscaler.tokenizer.decode(large)
    assert made.frames_TCHW.shape == (frames, 3, 2 * height, 2 * width)


@pytest.mark.parametrize("sizes", [(1,) * 8, (3, 5), (7, 1), (2, 2, 2, 2)])
def test_pieces_cut_anywhere_give_the_same_tokens(tiny_upscaler: Upscaler, sizes: tuple[int, ...]) -> None:
    config = UpscaleConfig(sampling=ParallelConfig(steps=3), seed=5)
    small = tiny_upscaler.tokenizer.encode(clip(28))
    assert small.ids_Qthw.shape[1] == 8

    large = tiny_upscaler.upscale(small, config)
    streamed = list(tiny_upscaler.upscale_stream(pieces_of(small, sizes), config))

    assert torch.equal(torch.cat([piece.ids_Qthw for piece in streamed], dim=1), large.ids_Qthw)
    assert sum(piece.extent.frames for piece in streamed) == 28
    assert torch.equal(tiny_upscaler.upscale(small, config).ids_Qthw, large.ids_Qthw)
    assert not torch.equal(tiny_upscaler.upscale(small, replace(config, seed=6)).ids_Qthw, large.ids_Qthw)


def test_a_long_video_is_made_stretch_by_stretch_as_it_comes(tiny_upscaler: Upscaler) -> None:
    taken = 0

    def endless() -> Iterator[Tokens]:
        nonlocal taken
        for piece in tiny_upscaler.tokenizer.encode_stream(clip(4, 16, 16) for _ in range(1000)):
            taken += 1
            yield piece

    seen: list[tuple[int, ...]] = []
    hidden = tiny_upscaler.model.hidden

    def watched(ids_Bthw: Tensor, small_Bthw: Tensor, first_B: Tensor) -> Tensor:
        seen.append(tuple(ids_Bthw.shape))
        return hidden(ids_Bthw, small_Bthw, first_B)

    tiny_upscaler.model.hidden = watched
    stream = tiny_upscaler.upscale_stream(endless(), SURE)

    for number in range(1, 21):
        made = next(stream)
        # The first stretch settles three latent frames, every other one two.
        assert made.ids_Qthw.shape[1] == (3 if number == 1 else 2)
        assert taken <= 2 * number + 1
    assert set(seen) == {(1, 3, 4, 4)}


def test_every_stretch_is_told_what_the_one_before_settled_and_keeps_it(tiny_upscaler: Upscaler) -> None:
    shown: list[Tensor] = []
    hidden = tiny_upscaler.model.hidden

    def watched(ids_Bthw: Tensor, small_Bthw: Tensor, first_B: Tensor) -> Tensor:
        shown.append(ids_Bthw.clone())
        return hidden(ids_Bthw, small_Bthw, first_B)

    tiny_upscaler.model.hidden = watched
    config = replace(SURE, sampling=ParallelConfig(steps=1, choice=Choice(temperature=0.0)))
    large = tiny_upscaler.upscale(tiny_upscaler.tokenizer.encode(clip(21, 16, 16)), config).ids_Qthw[0]

    # Six latent frames: 0 to 2, then 2 to 4, then the last three, of which two are settled.
    assert len(large) == 6 and len(shown) == 3
    assert bool((shown[0] == -1).all())
    assert torch.equal(shown[1][0, :1], large[2:3]) and bool((shown[1][0, 1:] == -1).all())
    assert torch.equal(shown[2][0, :2], large[3:5]) and bool((shown[2][0, 2:] == -1).all())


def test_likeliest_tokens_in_one_pass_are_the_networks_own(tiny_upscaler: Upscaler) -> None:
    small = tiny_upscaler.tokenizer.encode(clip(9, 16, 16))
    config = replace(SURE, sampling=ParallelConfig(steps=1, choice=Choice(temperature=0.0)))

    large = tiny_upscaler.upscale(small, config).ids_Qthw

    model = tiny_upscaler.model
    hidden_BLD = model.hidden(torch.full((1, 3, 4, 4), -1), small.ids_Qthw, torch.tensor([True]))
    chosen_BLF = torch.zeros(1, 48, 2).long()
    for factor in range(2):
        chosen_BLF[..., factor] = model.logits(hidden_BLD, factor, chosen_BLF).argmax(dim=-1)
    assert torch.equal(split_ids(large.flatten(), (8, 8)), chosen_BLF[0])


def test_guidance_pushes_away_from_what_is_made_without_small_tokens(tiny_upscaler: Upscaler) -> None:
    small = tiny_upscaler.tokenizer.encode(clip(9, 16, 16)).ids_Qthw
    ids_BLF = torch.full((1, 48, 2), -1)
    with_small = tiny_upscaler.logits_fn(small, first=True)(ids_BLF)(0, ids_BLF)
    without = tiny_upscaler.logits_fn(torch.full_like(small, -1), first=True)(ids_BLF)(0, ids_BLF)
    assert not torch.allclose(with_small, without)
    passes: list[int] = []
    tokens, strong = tiny_upscaler.tokenizer.encode(clip(9, 16, 16)), replace(SURE, guidance=3.0)
    plain = tiny_upscaler.upscale(tokens, SURE)
    pushed = list(tiny_upscaler.upscale_stream([tokens], strong, on_pass=lambda: passes.append(1)))
    assert len(passes) == 2 and not torch.equal(pushed[0].ids_Qthw, plain.ids_Qthw)
    with pytest.raises(UsageError, match="guidance"):
        UpscaleConfig(guidance=-1.0)


def test_the_enlarging_tokenizer_encodes_like_its_own_and_decodes_to_twice_the_size(tiny_upscaler: Upscaler) -> None:
    enlarging, small = EnlargingTokenizer(tiny_upscaler, SURE), clip(13)

    tokens = enlarging.encode(small)

    assert torch.equal(tokens.ids_Qthw, tiny_upscaler.tokenizer.encode(small).ids_Qthw)
    wanted = tiny_upscaler.tokenizer.decode(tiny_upscaler.upscale(tokens, SURE))
    assert torch.equal(enlarging.decode(tokens).frames_TCHW, wanted.frames_TCHW)
    assert (wanted.height, wanted.width) == (48, 40)


def test_a_generator_goes_on_from_its_tokens_to_twice_the_size(tiny_upscaler: Upscaler, tmp_path: Path) -> None:
    config = MultimodalConfig(
        video_tokenizer=tiny_upscaler.tokenizer.fingerprint,
        sound_tokenizer="5" * 64,
        vocabulary=Vocabulary(text_size=2, video_size=64, video_factors=(8, 8), sound_codes=16, sound_levels=2),
        words=("red", "circle"),
        width=32,
        depth=1,
        heads=2,
        latent_frames=3,
        sound_frames=29,
        sound_frames_per_latent=12.5,
        text_length=6,
        lines=16,
    )
    model, sound = MultimodalTransformer(config), tiny_sound_tokenizer()
    small = MultimodalGenerator(model, tiny_upscaler.tokenizer, sound, "a" * 64)
    large, request = enlarging(small, tiny_upscaler, SURE), Request(task="text-to-both", text="red circle")

    fulfil(request, tmp_path / "small.mp4", small, DecodeConfig(window=8))
    fulfil(request, tmp_path / "large.mp4", large, DecodeConfig(window=8))
    fulfil_long(request, 1.0, tmp_path / "long.mp4", large, DecodeConfig(window=8))

    one, twice, longer = (read(tmp_path / f"{name}.mp4") for name in ("small", "large", "long"))
    assert (one.num_frames, one.height, one.width) == (9, 16, 16)
    assert (twice.num_frames, twice.height, twice.width) == (9, 32, 32) and twice.sound is not None
    assert (longer.num_frames, longer.height, longer.width) == (16, 32, 32)
    foreign = replace(config, video_tokenizer="0" * 64)
    small.model.config = foreign
    with pytest.raises(ConfigError, match="knows the video ids"):
        enlarging(small, tiny_upscaler)


def test_a_file_becomes_one_of_twice_its_size_with_its_sound(tiny_upscaler: Upscaler, tmp_path: Path) -> None:
    sound = Sound(0.1 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(0)), 16000)
    write(clip(12, 32, 48, sound=sound), tmp_path / "in.mp4")
    done: list[int] = []

    report = upscale(
        tmp_path / "in.mp4", tmp_path / "out.mp4", tiny_upscaler, SURE, on_frames=lambda frames, _: done.append(frames)
    )

    made = read(tmp_path / "out.mp4")
    assert (made.num_frames, made.height, made.width) == (12, 64, 96) and made.sound is not None
    assert (report.frames, report.height, report.width, report.tokens_made) == (12, 64, 96, 4 * report.tokens_given)
    # Four latent frames are two stretches, of two passes each.
    assert report.passes == 4 and done[-1] == 12
    with pytest.raises(UsageError, match="overwritten"):
        upscale(tmp_path / "in.mp4", tmp_path / "in.mp4", tiny_upscaler, SURE)


@pytest.mark.parametrize("target", ["out.png", "out.wav"])
def test_a_target_that_cannot_hold_a_video_is_told_before_the_first_pass(
    target: str, tiny_upscaler: Upscaler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(clip(12, 32, 48), tmp_path / "in.mp4")
    monkeypatch.setattr(tiny_upscaler, "_fill", lambda *_: pytest.fail("a pass was made"))
    with pytest.raises(UsageError, match=r"name a video, such as out\.mp4"):
        upscale(tmp_path / "in.mp4", tmp_path / target, tiny_upscaler, SURE)


def test_a_picture_becomes_a_picture_of_twice_its_size(tiny_upscaler: Upscaler, tmp_path: Path) -> None:
    write(clip(1, 30, 20), tmp_path / "in.png")
    upscale(tmp_path / "in.png", tmp_path / "out.png", tiny_upscaler, SURE)
    made = read(tmp_path / "out.png")
    assert (made.num_frames, made.height, made.width) == (1, 60, 40)


def test_what_does_not_belong_together_is_refused(tiny_upscaler: Upscaler, tmp_path: Path) -> None:
    small = tiny_upscaler.tokenizer.encode(clip(5))
    with pytest.raises(TokenError, match="made by tokenizer"):
        tiny_upscaler.upscale(replace(small, tokenizer="0" * 64))
    other = tiny_upscaler.tokenizer.encode(clip(5, 32, 20))
    with pytest.raises(TokenError, match="size and rate"):
        list(tiny_upscaler.upscale_stream([small, other], SURE))
    foreign = SuperResolution(replace(tiny_upscaler.config, tokenizer="0" * 64))
    with pytest.raises(ConfigError, match="knows the ids"):
        Upscaler(foreign, tiny_upscaler.tokenizer, "")
    checkpoint.save(tmp_path / "tokenizer", tiny_upscaler.tokenizer.model, card="")
    fingerprint = checkpoint.load(tmp_path / "tokenizer").fingerprint
    checkpoint.save(tmp_path / "up", SuperResolution(replace(tiny_upscaler.config, tokenizer=fingerprint)), card="")
    assert load_upscaler(tmp_path / "up", tmp_path / "tokenizer").config.latent_frames == 3

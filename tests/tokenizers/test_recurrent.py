from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from kinolex.errors import ConfigError, ShapeError, UsageError
from kinolex.layers.conv3d import StreamCache
from kinolex.layers.warp import warp
from kinolex.tokenizers import magvit
from kinolex.tokenizers.autoencoder3d import Autoencoder3D
from kinolex.tokenizers.motion import MOTION_PIXELS, MotionDigits
from kinolex.tokenizers.quantizers import FSQConfig, Quantized
from kinolex.tokenizers.recurrent import (
    PHASES,
    PRESETS,
    Memory,
    RecurrentAutoencoder,
    RecurrentConfig,
    look_ahead,
)
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip

TINY = RecurrentConfig(
    width=8,
    deep_width=16,
    memory=8,
    encoder_blocks=(1, 1),
    decoder_blocks=(1, 1, 1),
    shifts=4,
    quantizer=FSQConfig(levels=(9, 5, 3)),
)


def build(config: RecurrentConfig = TINY) -> RecurrentAutoencoder:
    """Random weights, corrections of motion and memory included, which training starts at zero."""
    torch.manual_seed(0)
    model = RecurrentAutoencoder(config).eval()
    for conv in (model.decoder.motion, model.decoder.remember):
        torch.nn.init.normal_(conv.weight, std=0.1)
    return model


def random_pixels(frames: int, side: int = 16) -> Tensor:
    return torch.rand(1, 3, frames, side, side + 8, generator=torch.Generator().manual_seed(frames)) * 2 - 1


@pytest.mark.parametrize("name", PRESETS)
def test_presets_keep_4x8x8_and_18_bits_and_stay_under_25_million_parameters(name: str) -> None:
    config = PRESETS[name]
    assert (config.causal, config.time_factor, config.space_factor) == (True, 4, 8)
    assert 2**17 < config.quantizer.vocab_size <= 2**18
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in RecurrentAutoencoder(config).parameters()) < 25e6


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7])
@torch.no_grad()
def test_chunks_of_any_size_equal_one_shot(chunk: int) -> None:
    model, latent_frames = build(), 7
    pixels_BCTHW = random_pixels(1 + 4 * (latent_frames - 1))
    whole_BQthw = model.encode_ids(pixels_BCTHW)
    cache, start, pieces = StreamCache(), 0, []
    while start < pixels_BCTHW.shape[2]:
        stop = start + chunk * 4 if start else 1 + (chunk - 1) * 4
        pieces.append(model.encode_ids(pixels_BCTHW[:, :, start:stop], cache))
        start = stop
    assert torch.equal(torch.cat(pieces, dim=2), whole_BQthw)

    latents_BDthw = model.quantizer.latents_from_ids(whole_BQthw)
    cache = StreamCache()
    decoded = [model.decode(part, cache) for part in latents_BDthw.split(chunk, dim=2)]
    torch.testing.assert_close(torch.cat(decoded, dim=2), model.decode(latents_BDthw), atol=1e-4, rtol=0)


@torch.no_grad()
def test_training_encoding_and_decoding_see_the_same_tokens_and_pixels() -> None:
    model, pixels_BCTHW = build(), random_pixels(17)
    output_BCTHW, quantized = model(pixels_BCTHW)
    assert torch.equal(quantized.ids_BQthw, model.encode_ids(pixels_BCTHW))
    decoded_BCTHW = model.decode(model.quantizer.latents_from_ids(quantized.ids_BQthw))
    torch.testing.assert_close(decoded_BCTHW, output_BCTHW, atol=1e-4, rtol=0)


@pytest.mark.parametrize("warm_frames", [1, 9])
def test_warming_up_changes_what_is_learned_from_not_what_is_said(warm_frames: int) -> None:
    model, pixels_BCTHW = build(), random_pixels(17)
    whole_BCTHW, quantized = model(pixels_BCTHW)
    rest_BCTHW, rest = model(pixels_BCTHW, warm_frames)
    torch.testing.assert_close(rest_BCTHW, whole_BCTHW[:, :, warm_frames:], atol=1e-4, rtol=0)
    assert torch.equal(rest.ids_BQthw, quantized.ids_BQthw[:, :, (warm_frames + 3) // 4 :])

    rest_BCTHW.square().mean().backward()
    assert model.decoder.start.grad is None  # only the first step of all begins there


@torch.no_grad()
def test_a_rate_weight_draws_digits_to_the_middle_and_the_decoder_need_not_know_it() -> None:
    model, pixels_BCTHW = build(), random_pixels(17)

    def distance(weight: float) -> float:
        latents_BDthw = model.quantizer.latents_from_ids(model.encode_ids(pixels_BCTHW, rate_weight=weight))
        return float(latents_BDthw[:, 1:].abs().mean())

    model.encoder.out.weight *= 8.0  # random networks say little
    model.encoder.thrift += 2.0
    assert distance(1.0) < distance(0.4) < distance(0.0)

    output_BCTHW, quantized = model(pixels_BCTHW, rate_weight=0.7)
    assert torch.equal(quantized.ids_BQthw, model.encode_ids(pixels_BCTHW, rate_weight=0.7))
    decoded_BCTHW = model.decode(model.quantizer.latents_from_ids(quantized.ids_BQthw))
    torch.testing.assert_close(decoded_BCTHW, output_BCTHW, atol=1e-4, rtol=0)


def test_the_rate_loss_pulls_at_the_latents_only_where_rate_is_weighed() -> None:
    model, pixels_BCTHW = build(), random_pixels(9)
    assert float(model(pixels_BCTHW)[1].losses["rate"].detach()) == 0.0
    rates = [model(pixels_BCTHW, rate_weight=weight)[1].losses["rate"] for weight in (0.5, 1.0)]
    assert 0.0 < float(rates[0].detach()) < float(rates[1].detach())
    rates[1].backward()
    assert model.encoder.thrift.grad is not None and bool((model.encoder.thrift.grad[1:] < 0).all())


@torch.no_grad()
def test_the_first_latent_frame_depends_on_the_first_frame_only_bit_for_bit() -> None:
    model, pixels_BCTHW = build(), random_pixels(9)
    changed_BCTHW = torch.cat([pixels_BCTHW[:, :, :1], -pixels_BCTHW[:, :, 1:]], dim=2)
    before, after = model.encode_ids(pixels_BCTHW), model.encode_ids(changed_BCTHW)
    assert torch.equal(before[:, :, 0], after[:, :, 0])
    assert not torch.equal(before[:, :, 1], after[:, :, 1])
    assert torch.equal(model.encode_ids(pixels_BCTHW[:, :, :1]), before[:, :, :1])


@torch.no_grad()
def test_later_latents_answer_to_the_tokens_before_them() -> None:
    model, pixels_BCTHW = build(), random_pixels(9)

    def last_latents(sign: float) -> Tensor:
        """Of the third step, when the sign of the first step's latents is this."""
        seen: list[Tensor] = []

        def quantize(latents_BDthw: Tensor, _rounded: int) -> Quantized:
            seen.append(latents_BDthw)
            return model.quantizer(latents_BDthw if len(seen) > 1 else sign * latents_BDthw)

        model.encode_ids(pixels_BCTHW, None, quantize)
        return seen[-1]

    assert torch.equal(last_latents(1.0), last_latents(1.0))
    assert not torch.equal(last_latents(1.0), last_latents(-1.0))


def gliding(right: float, down: float, frames: int, height: int, width: int) -> Tensor:
    """A camera over a smooth scene, [1, 3, frames, height, width] in [-1, 1]."""
    noise = torch.rand(1, 3, height + 60, width + 60, generator=torch.Generator().manual_seed(0)) * 2 - 1
    scene = torch.nn.functional.avg_pool2d(noise, 7, stride=1)
    views = [
        warp(scene, torch.tensor([right * time + 24, down * time + 24]).view(1, 2, 1, 1).expand(1, 2, *scene.shape[2:]))
        for time in range(frames)
    ]
    return torch.stack(views, dim=2)[..., :height, :width]


@pytest.mark.parametrize(("right", "down"), [(0.0, 0.0), (2.0, 0.0), (-1.5, 3.0), (0.25, -5.0)])
@torch.no_grad()
def test_a_gliding_picture_is_foreseen_once_its_motion_is_read(right: float, down: float) -> None:
    model, pixels_BCTHW = build(), gliding(right, down, 5, 112, 128)
    memory = Memory(pixels_BCTHW[:, :, 0], torch.zeros(1, 8, 28, 32), 1)
    step_BTCHW = pixels_BCTHW[:, :, 1:].transpose(1, 2)

    latents_BD1hw, outlook = model._analyse(step_BTCHW, memory, rate_weight=0.0)

    inner = (..., slice(40, -40), slice(40, -40))  # away from what comes into view
    for time in range(4):
        coming = step_BTCHW[:, time]
        missed, unmoved = (
            float((frame - coming)[inner].abs().mean()) for frame in (outlook.frames_BTCHW[:, time], memory.frame_BCHW)
        )
        assert missed < 0.4 * unmoved or missed < 0.01
    # The decoder reads the same displacements out of the tokens.
    digits = model.quantizer.digits(model.quantizer(latents_BD1hw).latents_BDthw[:, :1, 0])[:, 0]
    again = look_ahead(memory, model.motion_digits.unpack(digits), TINY)
    assert torch.equal(again.frames_BTCHW, outlook.frames_BTCHW)
    assert torch.equal(again.features_BMhw, outlook.features_BMhw)


@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (5, 7), (4, 1), (1, 1)])
def test_motion_survives_its_digits(rows: int, columns: int) -> None:
    digits = MotionDigits(9)
    generator = torch.Generator().manual_seed(rows)
    shifts = torch.rand(2, 2, rows // 2, columns // 2, generator=generator) * 2 * MOTION_PIXELS - MOTION_PIXELS
    packed = digits.pack(shifts, rows, columns)
    assert packed.shape == (2, rows, columns)
    assert bool(((packed >= 0) & (packed < 9)).all())
    torch.testing.assert_close(digits.unpack(packed), shifts, atol=0.5, rtol=0)
    assert torch.equal(digits.pack(digits.unpack(packed), rows, columns), packed)


def test_no_motion_is_the_middle_digit_everywhere() -> None:
    digits = MotionDigits(5)
    assert torch.equal(digits.pack(torch.zeros(1, 2, 2, 3), 5, 6), torch.full((1, 5, 6), 2))
    assert torch.equal(digits.unpack(torch.full((1, 5, 6), 2)), torch.zeros(1, 2, 2, 3))


def test_one_picture_is_expected_to_stay() -> None:
    frame_BCHW = torch.rand(1, 3, 16, 16)
    outlook = look_ahead(Memory(frame_BCHW, torch.zeros(1, 8, 4, 4), 1), None, TINY)
    assert all(torch.equal(frame, frame_BCHW) for frame in outlook.frames_BTCHW.unbind(1))


def test_gradients_reach_every_parameter() -> None:
    model = build().train()
    output_BCTHW, _ = model(random_pixels(1 + 4 * (PHASES + 1)))
    output_BCTHW.square().mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_a_network_that_learned_nothing_keeps_what_it_decoded() -> None:
    torch.manual_seed(0)
    model = RecurrentAutoencoder(TINY).eval()
    frame_BCHW = torch.rand(1, 3, 16, 16) * 2 - 1
    memory = Memory(frame_BCHW, torch.zeros(1, 8, 4, 4), 5)
    with torch.no_grad():
        frames_BTCHW, after = model.decoder(torch.zeros(1, 3, 2, 2), memory, look_ahead(memory, None, TINY))
    assert float((frames_BTCHW - frame_BCHW.unsqueeze(1)).abs().mean()) < 0.15
    assert after.steps == 6


@pytest.mark.parametrize(("frames", "height"), [(2, 16), (5, 12), (0, 16)])
def test_sizes_that_do_not_fit_are_refused(frames: int, height: int) -> None:
    with pytest.raises(ShapeError):
        build().encode_ids(torch.zeros(1, 3, frames, height, 16))


@pytest.mark.parametrize(
    "change",
    [{"memory": 6}, {"width": 0}, {"fold": 2}, {"decoder_blocks": (1, -1, 1)}, {"quantizer": FSQConfig(levels=(4, 5))}],
)
def test_impossible_shapes_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        replace(TINY, **change)


def clip_of(frames: int) -> Clip:
    generator = torch.Generator().manual_seed(frames)
    return Clip(torch.randint(0, 256, (frames, 3, 13, 21), generator=generator, dtype=torch.uint8), Fraction(25))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("sizes", [(1,) * 11, (3, 8), (2, 2, 2, 2, 3)])
def test_a_stream_cut_anywhere_gives_the_ids_and_pixels_of_one_shot(sizes: tuple[int, ...], precision: str) -> None:
    tokenizer, clip = VideoTokenizer(build(), "f" * 64, precision=precision), clip_of(11)  # type: ignore[arg-type]
    whole = tokenizer.encode(clip)
    parts = [replace(clip, frames_TCHW=part_TCHW) for part_TCHW in clip.frames_TCHW.split(list(sizes))]
    pieces = list(tokenizer.encode_stream(parts))
    assert torch.equal(torch.cat([piece.ids_Qthw for piece in pieces], dim=1), whole.ids_Qthw)
    streamed = torch.cat([part.frames_TCHW for part in tokenizer.decode_stream(pieces)])
    assert streamed.shape == clip.frames_TCHW.shape
    assert torch.equal(streamed, tokenizer.decode(whole).frames_TCHW)


def test_an_encoder_that_weighs_chooses_within_the_loop() -> None:
    tokenizer, clip = VideoTokenizer(build(), "f" * 64), clip_of(9)
    plain = tokenizer.encode(clip)
    assert torch.equal(tokenizer.encode(clip, lambda places, _rounded: places.round().long()).ids_Qthw, plain.ids_Qthw)

    middle = tokenizer.encode(clip, lambda places, _rounded: torch.tensor([4, 2, 1]).expand(places.shape).clone())
    digits_thwD = torch.stack([middle.ids_Qthw[0] % 9, middle.ids_Qthw[0] // 9 % 5, middle.ids_Qthw[0] // 45], dim=-1)
    assert bool((digits_thwD[..., 1:] == torch.tensor([2, 1])).all())
    assert bool((digits_thwD[0, ..., 0] == 4).all())
    assert bool((digits_thwD[1:, ..., 0] != 4).any())  # motion is not theirs to choose
    assert tokenizer.decode(middle).frames_TCHW.shape == clip.frames_TCHW.shape


def test_only_digits_can_be_chosen() -> None:
    with torch.device("meta"):
        model = Autoencoder3D(magvit.PRESETS["nano"])
    with pytest.raises(UsageError, match="FSQ"):
        VideoTokenizer(model, "f" * 64).encode(clip_of(1), lambda places, _rounded: places.long())

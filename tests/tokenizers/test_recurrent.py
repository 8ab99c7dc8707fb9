from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from kinolex.errors import ConfigError, ShapeError, UsageError
from kinolex.layers.conv3d import StreamCache
from kinolex.tokenizers.quantizers import FSQConfig, VQConfig
from kinolex.tokenizers.recurrent import PHASES, Memory, RecurrentAutoencoder, RecurrentConfig, look_ahead
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip

TINY = RecurrentConfig(
    width=8,
    deep_width=16,
    memory=8,
    encoder_blocks=(1, 1),
    decoder_blocks=(1, 1, 1),
    shifts=4,
    quantizer=FSQConfig(levels=(5, 5, 3)),
)


def build(config: RecurrentConfig = TINY) -> RecurrentAutoencoder:
    """Random weights, motion and memory included, which training starts at zero."""
    torch.manual_seed(0)
    model = RecurrentAutoencoder(config).eval()
    for conv in (model.decoder.motion, model.decoder.remember):
        torch.nn.init.normal_(conv.weight, std=0.1)
    return model


def random_pixels(frames: int, side: int = 16) -> Tensor:
    return torch.rand(1, 3, frames, side, side + 8, generator=torch.Generator().manual_seed(frames)) * 2 - 1


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


@torch.no_grad()
def test_the_first_latent_frame_depends_on_the_first_frame_only_bit_for_bit() -> None:
    model, pixels_BCTHW = build(), random_pixels(9)
    changed_BCTHW = torch.cat([pixels_BCTHW[:, :, :1], -pixels_BCTHW[:, :, 1:]], dim=2)
    before, after = model.encode_ids(pixels_BCTHW), model.encode_ids(changed_BCTHW)
    assert torch.equal(before[:, :, 0], after[:, :, 0])
    assert not torch.equal(before[:, :, 1], after[:, :, 1])
    assert torch.equal(model.encode_ids(pixels_BCTHW[:, :, :1]), before[:, :, :1])


@torch.no_grad()
def test_later_tokens_answer_to_the_tokens_before_them() -> None:
    model, pixels_BCTHW = build(), random_pixels(9)
    plain_BQthw = model.encode_ids(pixels_BCTHW)

    def stubborn(latents_BDthw: Tensor):  # type: ignore[no-untyped-def]
        return model.quantizer(latents_BDthw if cache else -latents_BDthw)

    cache = StreamCache()
    first = model.encode_ids(pixels_BCTHW[:, :, :1], cache, stubborn)
    second = model.encode_ids(pixels_BCTHW[:, :, 1:5], cache, stubborn)
    assert not torch.equal(first, plain_BQthw[:, :, :1])
    assert not torch.equal(second, plain_BQthw[:, :, 1:2])


def test_both_sides_expect_a_picture_that_glides_to_glide_on() -> None:
    generator = torch.Generator().manual_seed(0)
    scene = torch.nn.functional.avg_pool2d(torch.rand(1, 3, 80, 112, generator=generator) * 2 - 1, 5, stride=1)
    at = [scene[:, :, 8:72, 8 + 2 * time : 72 + 2 * time] for time in range(8)]  # two pixels to the right per frame
    memory = Memory(at[3], at[0], torch.zeros(1, 8, 16, 16), 2)
    outlook = look_ahead(memory, TINY)
    for time in range(4):
        inner = (..., slice(16, -16), slice(16, -24))
        assert float((outlook.frames_BTCHW[:, time] - at[4 + time])[inner].abs().mean()) < 0.02
        assert float((at[3] - at[4 + time])[inner].abs().mean()) > 0.05


def test_one_picture_is_expected_to_stay() -> None:
    frame_BCHW = torch.rand(1, 3, 16, 16)
    outlook = look_ahead(Memory(frame_BCHW, frame_BCHW, torch.zeros(1, 8, 4, 4), 1), TINY)
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
    memory = Memory(frame_BCHW, frame_BCHW, torch.zeros(1, 8, 4, 4), 5)
    with torch.no_grad():
        frames_BTCHW, after = model.decoder(torch.zeros(1, 3, 2, 2), memory, look_ahead(memory, TINY))
    assert float((frames_BTCHW - frame_BCHW.unsqueeze(1)).abs().mean()) < 0.15
    assert after.steps == 6


@pytest.mark.parametrize(("frames", "height"), [(2, 16), (5, 12), (0, 16)])
def test_sizes_that_do_not_fit_are_refused(frames: int, height: int) -> None:
    with pytest.raises(ShapeError):
        build().encode_ids(torch.zeros(1, 3, frames, height, 16))


@pytest.mark.parametrize("change", [{"memory": 6}, {"width": 0}, {"decoder_blocks": (1, -1, 1)}])
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
    assert torch.equal(tokenizer.encode(clip, lambda places: places.round().long()).ids_Qthw, plain.ids_Qthw)

    middle = tokenizer.encode(clip, lambda places: torch.tensor([2, 2, 1]).expand(places.shape).clone())
    assert set(middle.ids_Qthw.unique().tolist()) == {2 + 2 * 5 + 25}
    assert tokenizer.decode(middle).frames_TCHW.shape == clip.frames_TCHW.shape


def test_only_digits_can_be_chosen() -> None:
    model = RecurrentAutoencoder(replace(TINY, quantizer=VQConfig(codebook_size=16, dim=4)))
    with pytest.raises(UsageError, match="FSQ"):
        VideoTokenizer(model, "f" * 64).encode(clip_of(1), lambda places: places.long())

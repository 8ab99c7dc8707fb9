from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from kinolex.errors import ShapeError, TokenError, UsageError
from kinolex.tokenizers.autoencoder3d import Autoencoder3D, AutoencoderConfig
from kinolex.tokenizers.base import IdentityTokenizer, Tokenizer
from kinolex.tokenizers.quantizers import FSQConfig, VQConfig
from kinolex.tokenizers.recurrent import RecurrentAutoencoder, RecurrentConfig
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip, Tokens

CAUSAL = AutoencoderConfig(
    channels=(8, 8, 16),
    down=((1, 2), (4, 2)),
    encoder_blocks=(1, 1, 1),
    decoder_blocks=(1, 1, 1),
    middle_blocks=1,
    quantizer=FSQConfig(levels=(8, 5, 5)),
    causal=True,
    factorised=True,
    norm_groups=4,
)
WINDOWED = replace(CAUSAL, causal=False, quantizer=VQConfig(codebook_size=32, dim=4))


def tokenizer_for(config: AutoencoderConfig, precision: str = "float32") -> VideoTokenizer:
    torch.manual_seed(0)
    return VideoTokenizer(Autoencoder3D(config), "f" * 64, precision=precision)  # type: ignore[arg-type]


def weighing_tokenizer() -> VideoTokenizer:
    torch.manual_seed(0)
    config = RecurrentConfig(
        width=8,
        deep_width=16,
        memory=8,
        encoder_blocks=(1, 1),
        decoder_blocks=(1, 1, 1),
        shifts=4,
        quantizer=FSQConfig(levels=(9, 9, 9)),
    )
    model = RecurrentAutoencoder(config)
    torch.nn.init.constant_(model.encoder.thrift, 3.0)
    return VideoTokenizer(model, "w" * 64, precision="float32")


def random_clip(frames: int, height: int, width: int) -> Clip:
    generator = torch.Generator().manual_seed(frames * height + width)
    shape = (frames, 3, height, width)
    return Clip(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8), Fraction(30000, 1001))


def pieces_of(clip: Clip, sizes: tuple[int, ...]) -> Iterator[Clip]:
    for part_TCHW in clip.frames_TCHW.split(list(sizes)):
        yield replace(clip, frames_TCHW=part_TCHW)


@pytest.mark.parametrize("config", [CAUSAL, WINDOWED])
@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 5, 3), (17, 16, 16), (18, 13, 30), (40, 16, 20)])
def test_any_length_and_size_comes_back_exactly(config: AutoencoderConfig, shape: tuple[int, int, int]) -> None:
    tokenizer, clip = tokenizer_for(config), random_clip(*shape)

    decoded = tokenizer.decode(tokenizer.encode(clip))

    assert decoded.frames_TCHW.shape == clip.frames_TCHW.shape
    assert decoded.fps == clip.fps


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("config", [CAUSAL, WINDOWED])
@pytest.mark.parametrize("sizes", [(1,) * 21, (3, 18), (5, 5, 5, 5, 1), (21,)])
def test_a_stream_cut_anywhere_gives_the_ids_and_pixels_of_one_shot(
    config: AutoencoderConfig, sizes: tuple[int, ...], precision: str
) -> None:
    tokenizer, clip = tokenizer_for(config, precision), random_clip(21, 16, 24)
    whole = tokenizer.encode(clip)

    pieces = list(tokenizer.encode_stream(pieces_of(clip, sizes)))

    assert torch.equal(torch.cat([piece.ids_Qthw for piece in pieces], dim=1), whole.ids_Qthw)
    assert sum(piece.extent.frames for piece in pieces) == 21
    streamed = torch.cat([part.frames_TCHW for part in tokenizer.decode_stream(pieces)])
    assert torch.equal(streamed, tokenizer.decode(whole).frames_TCHW)


def test_sizes_that_are_not_whole_tokens_are_padded_by_repeating_the_edge() -> None:
    tokenizer, clip = tokenizer_for(CAUSAL), random_clip(5, 13, 18)
    rows, columns = torch.arange(16).clamp(max=12), torch.arange(20).clamp(max=17)
    padded = replace(clip, frames_TCHW=clip.frames_TCHW[:, :, rows][..., columns])

    assert torch.equal(tokenizer.encode(clip).ids_Qthw, tokenizer.encode(padded).ids_Qthw)


def test_a_stream_whose_pieces_change_size_is_refused() -> None:
    with pytest.raises(ShapeError, match="like the first"):
        list(tokenizer_for(CAUSAL).encode_stream([random_clip(5, 16, 16), random_clip(5, 16, 20)]))


def test_tokens_that_cannot_be_this_tokenizers_are_refused() -> None:
    tokenizer = tokenizer_for(CAUSAL)
    tokens = tokenizer.encode(random_clip(5, 16, 16))
    strange = {
        "were made by": replace(tokens, tokenizer="e" * 64),
        "does not fit": replace(tokens, ids_Qthw=tokens.ids_Qthw[:, :, :-1]),
        "outside": replace(tokens, ids_Qthw=tokens.ids_Qthw + 1000),
        "end .* frames before": replace(tokens, extent=replace(tokens.extent, frames=6)),
    }
    for message, wrong in strange.items():
        with pytest.raises(TokenError, match=message):
            tokenizer.decode(wrong)


def test_a_rate_weight_needs_a_network_that_weighs_rate() -> None:
    clip, deaf, hearing = random_clip(9, 16, 16), tokenizer_for(CAUSAL), weighing_tokenizer()
    assert hearing.weighs_rate and not deaf.weighs_rate
    with pytest.raises(UsageError, match="does not weigh rate"):
        deaf.encode(clip, rate_weight=0.5)
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match=r"0\.\.1"):
            hearing.encode(clip, rate_weight=wrong)


def test_a_stream_with_a_rate_weight_equals_one_shot() -> None:
    clip, tokenizer = random_clip(11, 16, 16), weighing_tokenizer()
    pieces = tokenizer.encode_stream(pieces_of(clip, (3, 1, 7)), rate_weight=0.8)
    ids_Qthw = torch.cat([piece.ids_Qthw for piece in pieces], dim=1)
    assert torch.equal(ids_Qthw, tokenizer.encode(clip, rate_weight=0.8).ids_Qthw)
    assert not torch.equal(ids_Qthw, tokenizer.encode(clip).ids_Qthw)


def test_the_identity_tokenizer_is_lossless_and_has_the_face_of_a_tokenizer() -> None:
    clip, identity = random_clip(3, 5, 7), IdentityTokenizer()
    assert isinstance(identity, Tokenizer) and isinstance(tokenizer_for(CAUSAL), Tokenizer)
    tokens = identity.encode(clip)
    assert isinstance(tokens, Tokens)
    assert torch.equal(identity.decode(tokens).frames_TCHW, clip.frames_TCHW)

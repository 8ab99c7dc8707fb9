"""Every kind of input has the tokenizer's positions, at the same places, and nothing is lost on the way."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from kinolex.errors import UsageError
from kinolex.tokenizers.autoencoder3d import Autoencoder3D, AutoencoderConfig
from kinolex.tokenizers.quantizers import LFQConfig, QuantizerConfig, VQConfig
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip
from kinolex.understanding.features import alphabets, decode_many, digits, encode_many, grid_of, latents, patches


def frames(count: int = 2, length: int = 9, side: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, length, side, side, 3), np.uint8)


def windowed(quantizer: QuantizerConfig) -> VideoTokenizer:
    """Not causal: independent windows of 16 frames."""
    torch.manual_seed(0)
    config = AutoencoderConfig(
        channels=(8, 8),
        down=((4, 2),),
        encoder_blocks=(1, 1),
        decoder_blocks=(1, 1),
        middle_blocks=1,
        quantizer=quantizer,
        causal=False,
        fold=4,
        factorised=True,
        norm_groups=4,
    )
    return VideoTokenizer(Autoencoder3D(config), "e" * 64, precision="float32")


def test_many_at_once_are_what_one_by_one_are(tiny_tokenizer: VideoTokenizer) -> None:
    frames_NTHWC = frames(length=11)
    ids_NQthw = encode_many(tiny_tokenizer, frames_NTHWC)
    decoded_NTHWC = decode_many(tiny_tokenizer, ids_NQthw, 11)
    for number, one_THWC in enumerate(frames_NTHWC):
        clip = Clip(torch.from_numpy(one_THWC).permute(0, 3, 1, 2).contiguous(), Fraction(24))
        tokens = tiny_tokenizer.encode(clip)
        assert torch.equal(tokens.ids_Qthw, ids_NQthw[number])
        by_one_THWC = tiny_tokenizer.decode(tokens).frames_TCHW.permute(0, 2, 3, 1).numpy()
        assert np.abs(by_one_THWC.astype(int) - decoded_NTHWC[number]).max() <= 1


def test_windows_are_seen_as_the_tokenizer_sees_them() -> None:
    tokenizer, frames_NTHWC = windowed(VQConfig(codebook_size=16, dim=4)), frames(length=18)
    ids_NQthw = encode_many(tokenizer, frames_NTHWC)
    clip = Clip(torch.from_numpy(frames_NTHWC[0]).permute(0, 3, 1, 2).contiguous(), Fraction(24))
    assert torch.equal(tokenizer.encode(clip).ids_Qthw, ids_NQthw[0])
    assert decode_many(tokenizer, ids_NQthw, 18).shape == frames_NTHWC.shape


@pytest.mark.parametrize("length", [1, 5, 7])
def test_all_inputs_have_the_positions_of_the_grid(tiny_tokenizer: VideoTokenizer, length: int) -> None:
    for tokenizer in (tiny_tokenizer, windowed(LFQConfig(num_bits=5))):
        frames_NTHWC = frames(length=length)
        ids_NQthw, grid = encode_many(tokenizer, frames_NTHWC), grid_of(tokenizer, length, 16)
        assert tuple(ids_NQthw.shape[2:]) == grid
        for features_NLC in (
            patches(frames_NTHWC, tokenizer),
            latents(ids_NQthw, tokenizer),
            digits(ids_NQthw, tokenizer),
        ):
            assert features_NLC.shape[:2] == (2, grid[0] * grid[1] * grid[2])


def test_patches_hold_every_pixel_where_it_belongs(tiny_tokenizer: VideoTokenizer) -> None:
    frames_NTHWC = frames(length=5)
    time, rows, columns = tiny_tokenizer.pixels_per_token
    patches_NLC = patches(frames_NTHWC, tiny_tokenizer).view(2, 2, 16 // rows, 16 // columns, time, rows, columns, 3)
    assert torch.equal(patches_NLC[:, 0, 0, 0, 0], torch.from_numpy(frames_NTHWC[:, 0, :rows, :columns]))
    assert torch.equal(patches_NLC[:, 0, 0, 0, 0], patches_NLC[:, 0, 0, 0, time - 1]), "the first frame stands alone"
    assert torch.equal(patches_NLC[:, 1, 1, 0, 2], torch.from_numpy(frames_NTHWC[:, 3, rows:, :columns]))


@pytest.mark.parametrize("quantizer", [LFQConfig(num_bits=5), VQConfig(codebook_size=16, dim=4)])
def test_digits_tell_ids_apart_and_stand_for_one_value_each(quantizer: QuantizerConfig) -> None:
    tokenizer = windowed(quantizer)
    ids_NQthw = torch.arange(tokenizer.vocab_size).view(1, 1, 1, 4, -1)
    digits_NLC = digits(ids_NQthw, tokenizer)
    assert len(digits_NLC[0].unique(dim=0)) == tokenizer.vocab_size
    assert torch.equal(digits_NLC.sum(dim=2), torch.full((1, tokenizer.vocab_size), float(len(alphabets(tokenizer)))))


def test_digits_of_finite_scalars_are_their_latents_cut_into_levels(tiny_tokenizer: VideoTokenizer) -> None:
    ids_NQthw = torch.arange(64).view(1, 1, 1, 8, 8)
    digits_NLC, latents_NLC = digits(ids_NQthw, tiny_tokenizer), latents(ids_NQthw, tiny_tokenizer)
    levels_V = torch.linspace(-1, 1, 8)
    told_NLC = torch.stack([digits_NLC[..., :8] @ levels_V, digits_NLC[..., 8:] @ levels_V], dim=2)
    assert torch.allclose(told_NLC, latents_NLC, atol=1e-6)


def test_clips_that_are_no_whole_tokens_are_refused(tiny_tokenizer: VideoTokenizer) -> None:
    with pytest.raises(UsageError, match="whole tokens"):
        encode_many(tiny_tokenizer, frames(side=20))

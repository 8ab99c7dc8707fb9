from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kinolex.errors import ConfigError, ShapeError
from kinolex.layers.conv3d import StreamCache
from kinolex.tokenizers import magvit, magvit2
from kinolex.tokenizers.autoencoder3d import Autoencoder3D, AutoencoderConfig
from kinolex.tokenizers.quantizers import FSQConfig, LFQConfig, VQConfig

CAUSAL = AutoencoderConfig(
    channels=(8, 8, 16),
    down=((1, 2), (2, 2)),
    encoder_blocks=(1, 1, 1),
    decoder_blocks=(1, 1, 1),
    middle_blocks=1,
    quantizer=LFQConfig(num_bits=6),
    causal=True,
    adaptive_norm=True,
    norm_groups=4,
)
FOLDED = replace(CAUSAL, fold=2, factorised=True, quantizer=FSQConfig(levels=(8, 5)), down=((2, 1), (2, 2)))
POSITION_NORM = replace(FOLDED, adaptive_norm=False, norm="position")
MAGVIT_LIKE = replace(
    CAUSAL, causal=False, resample="pool", adaptive_norm=False, quantizer=VQConfig(codebook_size=16, dim=4), bias=False
)


def build(config: AutoencoderConfig) -> Autoencoder3D:
    torch.manual_seed(0)
    return Autoencoder3D(config).eval()


def count_parameters(config: AutoencoderConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Autoencoder3D(config).parameters())


@pytest.mark.parametrize(("name", "millions"), [("paper-b", 40.6), ("paper-l", 157.8)])
def test_the_paper_presets_of_magvit_have_the_published_size(name: str, millions: float) -> None:
    assert count_parameters(magvit.PRESETS[name]) / 1e6 == pytest.approx(millions, abs=0.06)


def test_the_paper_preset_of_magvit2_maps_17_frames_of_128_to_5_by_16_by_16_tokens_of_18_bits() -> None:
    config = magvit2.PRESETS["paper"]
    with torch.device("meta"):
        model = Autoencoder3D(config)
        latents_BDthw = model.encode(torch.empty(1, 3, 17, 128, 128))
        pixels_BCTHW = model.decode(latents_BDthw)
    assert latents_BDthw.shape == (1, 18, 5, 16, 16)
    assert pixels_BCTHW.shape == (1, 3, 17, 128, 128)
    assert model.quantizer.vocab_size == 2**18


@pytest.mark.parametrize("presets", [magvit.PRESETS, magvit2.PRESETS])
@pytest.mark.parametrize("name", ["small", "nano"])
def test_small_presets_keep_4x8x8_and_stay_under_twenty_million_parameters(
    presets: dict[str, AutoencoderConfig], name: str
) -> None:
    config = presets[name]
    assert (config.time_factor, config.space_factor) == (4, 8)
    assert count_parameters(config) < 25e6


@pytest.mark.parametrize("config", [CAUSAL, FOLDED, POSITION_NORM])
@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7])
def test_chunks_of_any_size_equal_one_shot(config: AutoencoderConfig, chunk: int) -> None:
    model = build(config)
    latent_frames, time = 7, config.time_factor
    pixels_BCTHW = torch.rand(1, 3, 1 + time * (latent_frames - 1), 16, 24) * 2 - 1
    with torch.no_grad():
        whole_BDthw = model.encode(pixels_BCTHW)
        cache, start, pieces = StreamCache(), 0, []
        while start < pixels_BCTHW.shape[2]:
            stop = start + chunk * time if start else 1 + (chunk - 1) * time
            pieces.append(model.encode(pixels_BCTHW[:, :, start:stop], cache))
            start = stop
        streamed_BDthw = torch.cat(pieces, dim=2)
        whole = model.quantizer(whole_BDthw)
        assert torch.equal(whole.ids_BQthw, model.quantizer(streamed_BDthw).ids_BQthw)

        cache = StreamCache()
        decoded = [model.decode(part, cache) for part in whole.latents_BDthw.split(chunk, dim=2)]
        torch.testing.assert_close(torch.cat(decoded, dim=2), model.decode(whole.latents_BDthw), atol=1e-4, rtol=0)


@pytest.mark.parametrize("config", [CAUSAL, FOLDED, POSITION_NORM])
def test_the_first_latent_frame_depends_on_the_first_frame_only_bit_for_bit(config: AutoencoderConfig) -> None:
    model = build(config)
    pixels_BCTHW = torch.rand(1, 3, 9, 16, 16) * 2 - 1
    changed_BCTHW = torch.cat([pixels_BCTHW[:, :, :1], -pixels_BCTHW[:, :, 1:]], dim=2)
    with torch.no_grad():
        before, after = model.encode(pixels_BCTHW), model.encode(changed_BCTHW)
    assert torch.equal(before[:, :, 0], after[:, :, 0])
    assert not torch.equal(before[:, :, 1], after[:, :, 1])


@pytest.mark.parametrize("config", [CAUSAL, FOLDED, POSITION_NORM])
def test_an_image_is_a_clip_of_one_frame(config: AutoencoderConfig) -> None:
    model = build(config)
    image_BCTHW = torch.rand(1, 3, 1, 16, 16)
    with torch.no_grad():
        pixels_BCTHW, quantized = model(image_BCTHW)
    assert pixels_BCTHW.shape == image_BCTHW.shape
    assert quantized.ids_BQthw.shape[2] == 1


def test_a_network_that_is_not_causal_maps_windows_to_windows() -> None:
    model = build(MAGVIT_LIKE)
    with torch.no_grad():
        pixels_BCTHW, quantized = model(torch.rand(1, 3, 8, 16, 16))
    assert pixels_BCTHW.shape == (1, 3, 8, 16, 16)
    assert quantized.ids_BQthw.shape == (1, 1, 4, 4, 4)


@pytest.mark.parametrize(("frames", "side"), [(4, 16), (5, 15), (0, 16)])
def test_sizes_that_do_not_fit_are_refused(frames: int, side: int) -> None:
    with pytest.raises(ShapeError):
        build(CAUSAL).encode(torch.zeros(1, 3, frames, side, side))


def test_a_config_with_uneven_stages_is_refused() -> None:
    with pytest.raises(ConfigError, match="one entry per stage"):
        replace(CAUSAL, encoder_blocks=(1, 1))
    with pytest.raises(ConfigError, match="norm_groups"):
        replace(CAUSAL, norm_groups=3)

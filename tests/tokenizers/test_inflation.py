from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from kinolex.errors import ConfigError
from kinolex.tokenizers.autoencoder3d import Autoencoder3D, AutoencoderConfig
from kinolex.tokenizers.inflation import InflationMode, image_config, inflate
from kinolex.tokenizers.quantizers import LFQConfig

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
FACTORISED = replace(CAUSAL, fold=2, factorised=True, down=((2, 1), (2, 2)))
WINDOWED = replace(CAUSAL, causal=False, resample="pool")
WINDOWED_CONV = replace(CAUSAL, causal=False)


@pytest.mark.parametrize("config", [CAUSAL, FACTORISED, WINDOWED, WINDOWED_CONV])
@pytest.mark.parametrize("mode", ["central", "last", "average"])
def test_an_inflated_network_gives_the_image_networks_output_on_still_frames(
    config: AutoencoderConfig, mode: InflationMode
) -> None:
    torch.manual_seed(0)
    image_model = Autoencoder3D(image_config(config)).eval()
    for module in image_model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.2)
    video_model = inflate(image_model, config, mode).eval()
    frames = 1 + 2 * config.time_factor if config.causal else 2 * config.time_factor
    still_BCTHW = (torch.rand(1, 3, 1, 16, 16) * 2 - 1).expand(-1, -1, frames, -1, -1)

    with torch.no_grad():
        image_latents = image_model.encode(still_BCTHW[:, :, :1])
        video_latents = video_model.encode(still_BCTHW)
        image = image_model.decode(image_latents.sign())
        video = video_model.decode(video_latents.sign())

    torch.testing.assert_close(video_latents, image_latents.expand_as(video_latents), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(video, image.expand_as(video), atol=1e-4, rtol=1e-4)


def test_an_image_network_of_another_shape_is_refused() -> None:
    with pytest.raises(ConfigError, match="image_config"):
        inflate(Autoencoder3D(image_config(FACTORISED)), CAUSAL, "last")

"""From a trained image network to a video network that does the same to frames that stand still.

    image config --train on pictures--> image network --inflate--> video network --train on clips-->

Source: MAGVIT, papers.md section 2.4 (central, average); MAGVIT-v2, papers.md section 4.2 (last slice).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from kinolex.errors import ConfigError
from kinolex.layers.conv3d import inflate_kernel
from kinolex.tokenizers.autoencoder3d import Autoencoder3D, AutoencoderConfig

InflationMode = Literal["central", "last", "average"]


def image_config(config: AutoencoderConfig) -> AutoencoderConfig:
    """The image network that inflates to `config`: the same widths, no time."""
    return replace(config, down=tuple((1, space) for _, space in config.down), time_kernel=1)


def inflate(image_model: Autoencoder3D, config: AutoencoderConfig, mode: InflationMode) -> Autoencoder3D:
    """A video network of shape `config` that starts from image_model's weights.

    On frames that stand still every frame of its output equals the image network's output.

    Args:
        image_model: built from image_config(config).
        config: of the video network.
        mode: where 2D kernels go in 3D ones, see kinolex.layers.conv3d.inflate_kernel.

    Raises:
        ConfigError: the image network does not have the shape that image_config(config) asks for.
    """
    if image_model.config != image_config(config):
        raise ConfigError(
            f"the image network must be built from image_config(config), {image_config(config)}, "
            f"got {image_model.config}"
        )
    model = Autoencoder3D(config)
    source = image_model.state_dict()
    target = {}
    for name, wanted in model.state_dict().items():
        tensor = source[name]
        if tensor.shape != wanted.shape and tensor.ndim == 5:
            tensor = inflate_kernel(tensor.squeeze(2), wanted.shape[2], mode)
        if tensor.shape != wanted.shape:
            # Upsampling in time makes `copies` frames out of channels; at rest every copy is the image.
            copies = wanted.shape[0] // tensor.shape[0]
            tensor = torch.cat([tensor] * copies)
        target[name] = tensor
    model.load_state_dict(target)
    return model

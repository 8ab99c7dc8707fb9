"""The networks that a video tokenizer can have, and the one function that builds each from its config."""

from __future__ import annotations

from kinolex.tokenizers.autoencoder3d import Autoencoder3D, AutoencoderConfig
from kinolex.tokenizers.recurrent import RecurrentAutoencoder, RecurrentConfig

Network = Autoencoder3D | RecurrentAutoencoder
NetworkConfig = AutoencoderConfig | RecurrentConfig


def build_network(config: NetworkConfig) -> Network:
    """A network with random weights."""
    return RecurrentAutoencoder(config) if isinstance(config, RecurrentConfig) else Autoencoder3D(config)

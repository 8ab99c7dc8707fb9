"""SoundStream: a causal convolutional autoencoder of sound around a residual quantizer.

    samples_B1S --encoder--> latents_BDt --residual quantizer--> ids_BQt --> latents_BDt --decoder--> samples_B1S

One latent frame stands for `hop` samples. Any number of first levels decodes; fewer levels are fewer bits.

Source: Zeghidour et al. 2021, arXiv 2107.03312; papers.md section 6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinolex.errors import ConfigError, ShapeError
from kinolex.layers.conv1d import Conv1d, ConvTranspose1d, Snake
from kinolex.layers.conv3d import StreamCache
from kinolex.tokenizers.quantizers import Quantized, ResidualConfig, ResidualQuantizer, VQConfig

KERNEL, LAST_KERNEL = 7, 3
LOUDNESS = 10.0
"""Samples are multiplied by this for the network, since usual sound is about a tenth of full scale."""
UNIT_START = 0.1
"""Residual units begin with this share of a full answer, so that many of them do not add up."""
COSINE_START = 0.3
"""Of the direct path's coefficients over orthonormal ones, so that latents are about one."""
DILATIONS = (1, 3, 9)
"""Of successive residual units of one stage, then again from the first."""

Activation = Literal["elu", "snake"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundStreamConfig:
    """Everything needed to rebuild the network; saved as JSON beside the weights."""

    rate_hz: int
    strides: tuple[int, ...]
    """Of the encoder's stages; their product is `hop`, the samples per latent frame."""
    widths: tuple[int, ...]
    """Channels before the first stage and after each: one more than strides."""
    encoder_units: tuple[int, ...]
    """Residual units at each width, before the stride that leaves it: as many as widths."""
    decoder_units: tuple[int, ...]
    """Of the decoder at the same widths."""
    quantizer: ResidualConfig
    direct: bool = False
    """Add a linear transform of two frames beside encoder and decoder, which starts as the lowest frequencies of a
    cosine transform and back. It is no part of SoundStream: a short training keeps the waveform with it, which the deep
    path does not find alone."""
    encoder_activation: Activation = "elu"
    decoder_activation: Activation = "elu"

    def __post_init__(self) -> None:
        if self.rate_hz < 1 or not self.strides or min(self.strides) < 2 or min(self.widths, default=0) < 1:
            raise ConfigError(f"need a rate, strides of at least 2 and widths of at least 1, got {self}")
        if not len(self.widths) == len(self.encoder_units) == len(self.decoder_units) == len(self.strides) + 1:
            raise ConfigError(
                f"{len(self.strides)} strides need {len(self.strides) + 1} widths, encoder_units and decoder_units, "
                f"got {len(self.widths)}, {len(self.encoder_units)} and {len(self.decoder_units)}"
            )
        if min(*self.encoder_units, *self.decoder_units) < 0:
            raise ConfigError(f"numbers of units cannot be below 0, got {self.encoder_units} and {self.decoder_units}")
        if not isinstance(self.quantizer.level, VQConfig):
            raise ConfigError(f"sound needs learned codes (VQConfig) at every level, got {self.quantizer.level}")

    @property
    def hop(self) -> int:
        """Samples per latent frame."""
        return math.prod(self.strides)

    @property
    def kbps_per_level(self) -> float:
        """Of one channel, without entropy coding."""
        return self.rate_hz / self.hop * math.log2(self.quantizer.vocab_size) / 1000


def paper() -> SoundStreamConfig:
    """24 kHz, 75 frames per second of 8 levels of 1024 codes: 6 kbit/s. Papers.md section 6."""
    level = VQConfig(codebook_size=1024, dim=512, ema_decay=0.99, lloyd_steps=10)
    return SoundStreamConfig(
        rate_hz=24_000,
        strides=(2, 4, 5, 8),
        widths=(32, 64, 128, 256, 512),
        encoder_units=(3, 3, 3, 3, 0),
        decoder_units=(3, 3, 3, 3, 0),
        quantizer=ResidualConfig(level=level, num_levels=8),
    )


def nano() -> SoundStreamConfig:
    """16 kHz, 50 frames per second of up to 12 levels of 1024 codes: 0.5 kbit/s a level."""
    level = VQConfig(codebook_size=1024, dim=64, ema_decay=0.99, lloyd_steps=10)
    return SoundStreamConfig(
        rate_hz=16_000,
        strides=(4, 4, 4, 5),
        widths=(16, 32, 64, 128, 192),
        encoder_units=(0, 2, 2, 2, 1),
        decoder_units=(1, 3, 3, 3, 1),
        quantizer=ResidualConfig(level=level, num_levels=12),
        direct=True,
        decoder_activation="snake",
    )


PRESETS = {"paper": paper, "nano": nano}


class SoundStream(nn.Module):
    def __init__(self, config: SoundStreamConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quantizer = ResidualQuantizer(config.quantizer)
        for module in self.modules():
            if isinstance(module, Conv1d):
                # torch's own start shrinks the signal in every layer and adds biases that soon drown it: after a
                # thousand steps the decoder still listened to little but loudness.
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, ResidualUnit):
                module.mix.weight.data *= UNIT_START
        if self.encoder.direct is not None and self.decoder.direct is not None:
            self._start_as_cosines(self.encoder.direct, self.decoder.direct)

    @torch.no_grad()
    def _start_as_cosines(self, forth: Conv1d, back: ConvTranspose1d) -> None:
        hop, dim = self.config.hop, forth.out_channels
        times_S = (torch.arange(hop) + 0.5) * math.pi / hop
        cosines_DS = torch.cos(times_S * torch.arange(dim).unsqueeze(1)) * (2 / hop) ** 0.5
        cosines_DS[0] *= 0.5**0.5
        for layer in (forth, back.conv):
            layer.weight.zero_()
        # The second half of both kernels looks at the frame itself, the first at the one before.
        forth.weight[:, 0, 0, hop:] = cosines_DS * COSINE_START
        back.conv.weight[:, :, 0, 1] = cosines_DS.T / COSINE_START
        for out in (self.encoder.out, self.decoder.out):
            out.weight *= UNIT_START

    def forward(self, samples_B1S: Tensor) -> tuple[Tensor, Quantized]:
        """What a tokenizer makes of samples in [-1, 1]; S must be a multiple of hop."""
        quantized = self.quantizer(self.latents(samples_B1S))
        return self.synthesise(quantized.latents_BDthw), quantized

    def encode_ids(self, samples_B1S: Tensor, cache: StreamCache | None = None) -> Tensor:
        """ids_BQt of all levels, int64, for the next S samples of a stream; S must be a multiple of hop."""
        return rearrange(self.quantizer(self.latents(samples_B1S, cache)).ids_BQthw, "b q t 1 1 -> b q t")

    def decode(self, ids_BQt: Tensor, cache: StreamCache | None = None) -> Tensor:
        """samples_B1S, float32 about [-1, 1], from the first Q levels of the next t frames of a stream.

        Raises:
            TokenError, ShapeError: ids outside the vocabulary, or too many levels.
        """
        latents_BDt11 = self.quantizer.latents_from_ids(rearrange(ids_BQt, "b q t -> b q t 1 1"))
        return self.synthesise(latents_BDt11, cache)

    def latents(self, samples_B1S: Tensor, cache: StreamCache | None = None) -> Tensor:
        """latents_BDt11, float32, one frame per hop."""
        if samples_B1S.ndim != 3 or samples_B1S.shape[1] != 1 or samples_B1S.shape[2] % self.config.hop:
            raise ShapeError(
                f"sound must come as samples_B1S with S a multiple of {self.config.hop}, got {tuple(samples_B1S.shape)}"
            )
        x_BD1t = self.encoder(rearrange(samples_B1S * LOUDNESS, "b c s -> b c 1 s"), cache)
        return rearrange(x_BD1t, "b d 1 t -> b d t 1 1").float()

    def synthesise(self, latents_BDt11: Tensor, cache: StreamCache | None = None) -> Tensor:
        """samples_B1S, float32, of quantized latents."""
        x_B11S = self.decoder(rearrange(latents_BDt11, "b d t 1 1 -> b d 1 t"), cache)
        return rearrange(x_B11S, "b c 1 s -> b c s").float() / LOUDNESS


class Encoder(nn.Module):
    def __init__(self, config: SoundStreamConfig) -> None:
        super().__init__()
        widths, kind = config.widths, config.encoder_activation
        self.stem = Conv1d(1, widths[0], KERNEL)
        stages: list[nn.Module] = []
        for (width, wider), stride, units in zip(
            pairwise(widths), config.strides, config.encoder_units[:-1], strict=True
        ):
            stages += [ResidualUnit(width, DILATIONS[unit % 3], kind) for unit in range(units)]
            stages += [_activation(kind, width), Conv1d(width, wider, 2 * stride, stride=stride)]
        stages += [ResidualUnit(widths[-1], DILATIONS[unit % 3], kind) for unit in range(config.encoder_units[-1])]
        self.stages = nn.ModuleList([*stages, _activation(kind, widths[-1])])
        dim: int = config.quantizer.level.dim  # type: ignore[union-attr]
        self.out = Conv1d(widths[-1], dim, LAST_KERNEL)
        self.direct = Conv1d(1, dim, 2 * config.hop, stride=config.hop) if config.direct else None

    def forward(self, x_B11S: Tensor, cache: StreamCache | None = None) -> Tensor:
        x_BD1t = self.out(_run(self.stages, self.stem(x_B11S, cache), cache), cache)
        return x_BD1t if self.direct is None else x_BD1t + self.direct(x_B11S, cache)


class Decoder(nn.Module):
    def __init__(self, config: SoundStreamConfig) -> None:
        super().__init__()
        widths, kind = config.widths[::-1], config.decoder_activation
        first, *others = config.decoder_units[::-1]
        self.stem = Conv1d(config.quantizer.level.dim, widths[0], KERNEL)  # type: ignore[union-attr]
        stages: list[nn.Module] = [ResidualUnit(widths[0], DILATIONS[unit % 3], kind) for unit in range(first)]
        for (width, narrower), stride, units in zip(pairwise(widths), config.strides[::-1], others, strict=True):
            stages += [_activation(kind, width), ConvTranspose1d(width, narrower, stride=stride)]
            stages += [ResidualUnit(narrower, DILATIONS[unit % 3], kind) for unit in range(units)]
        self.stages = nn.ModuleList([*stages, _activation(kind, widths[-1])])
        self.out = Conv1d(widths[-1], 1, KERNEL)
        dim: int = config.quantizer.level.dim  # type: ignore[union-attr]
        self.direct = ConvTranspose1d(dim, 1, stride=config.hop) if config.direct else None

    def forward(self, x_BD1t: Tensor, cache: StreamCache | None = None) -> Tensor:
        x_B11S = self.out(_run(self.stages, self.stem(x_BD1t, cache), cache), cache)
        return x_B11S if self.direct is None else x_B11S + self.direct(x_BD1t, cache)


class ResidualUnit(nn.Module):
    """x + mix(conv(x)), the convolution dilated, the mix over channels only."""

    def __init__(self, width: int, dilation: int, activation: Activation) -> None:
        super().__init__()
        self.before, self.between = _activation(activation, width), _activation(activation, width)
        self.conv = Conv1d(width, width, KERNEL, dilation=dilation)
        self.mix = Conv1d(width, width, 1)

    def forward(self, x_BC1S: Tensor, cache: StreamCache | None = None) -> Tensor:
        return x_BC1S + self.mix(self.between(self.conv(self.before(x_BC1S), cache)))


class _Elu(nn.Module):
    def forward(self, x_BC1S: Tensor) -> Tensor:
        return F.elu(x_BC1S)


def _activation(kind: Activation, channels: int) -> nn.Module:
    return Snake(channels) if kind == "snake" else _Elu()


def _run(stages: nn.ModuleList, x_BC1S: Tensor, cache: StreamCache | None) -> Tensor:
    for stage in stages:
        looks_back = isinstance(stage, ResidualUnit | Conv1d | ConvTranspose1d)
        x_BC1S = stage(x_BC1S, cache) if looks_back else stage(x_BC1S)
    return x_BC1S

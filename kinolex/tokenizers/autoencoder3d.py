"""The autoencoder family behind every video tokenizer: one config, from MAGVIT's 3D-VQ to a real-time causal network.

    pixels_BCTHW -> fold -> stem -> [res blocks -> down] x stages -> middle -> latents_BDthw
                                                                          |  quantizer
    pixels_BCTHW <- unfold <- out <- [up <- res blocks] x stages <- middle <- latents_BDthw, ids_BQthw

Causal networks map 1 + s*n frames to 1 + n latent frames and can be fed in chunks with a StreamCache; the first latent
frame depends on the first frame only. The others map s*n frames to n.

Source: MAGVIT, arXiv 2212.05199 (papers.md section 2); MAGVIT-v2, arXiv 2310.05737 (papers.md section 4.2).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinolex.errors import ConfigError, ShapeError
from kinolex.layers.conv3d import Conv3d, DepthToSpace, SpaceToDepth, StreamCache, average_pool
from kinolex.layers.norm import AdaptiveGroupNorm, PositionNorm, VideoGroupNorm, norm_silu
from kinolex.tokenizers.quantizers import Quantize, Quantized, QuantizerConfig, build_quantizer


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoencoderConfig:
    """Everything needed to rebuild the network; saved as JSON beside the weights."""

    channels: tuple[int, ...]
    """Width of each stage, from the pixels to the latent."""
    down: tuple[tuple[int, int], ...]
    """(time, space) factor between a stage and the next; one fewer than channels."""
    encoder_blocks: tuple[int, ...]
    """Residual blocks of each encoder stage."""
    decoder_blocks: tuple[int, ...]
    """Residual blocks of each decoder stage, from the pixels to the latent."""
    middle_blocks: int
    """Residual blocks at the latent's resolution, on both sides."""
    quantizer: QuantizerConfig
    causal: bool
    fold: int = 1
    """Blocks of fold x fold pixels become channels before the first convolution: less arithmetic per pixel."""
    factorised: bool = False
    """Residual blocks use 1x3x3 then 3x1x1 instead of two 3x3x3."""
    resample: Literal["pool", "conv"] = "conv"
    """pool: average pooling, nearest + convolution (MAGVIT). conv: strided, depth-to-space (MAGVIT-v2)."""
    adaptive_norm: bool = False
    """Scale and shift the decoder's features by statistics of the quantized latents (MAGVIT-v2)."""
    norm: Literal["group", "position"] = "group"
    """group: GroupNorm over each frame (causal) or clip. position: LayerNorm over the channels of each position."""
    norm_groups: int = 32
    time_kernel: Literal[1, 3] = 3
    """1 makes an image network, whose weights kinolex.tokenizers.inflation turns into a video network's."""
    bias: bool = True
    """Bias in convolutions; MAGVIT has none but in the first and last of the latent."""

    def __post_init__(self) -> None:
        stages = len(self.channels)
        if not (stages == len(self.encoder_blocks) == len(self.decoder_blocks) == len(self.down) + 1):
            raise ConfigError(
                f"channels, encoder_blocks and decoder_blocks need one entry per stage and down one fewer, got "
                f"{stages}, {len(self.encoder_blocks)}, {len(self.decoder_blocks)} and {len(self.down)}"
            )
        if min(*self.encoder_blocks, *self.decoder_blocks) < 1:
            raise ConfigError("every stage needs at least one residual block, which sets its width")
        if self.time_kernel == 1 and self.time_factor != 1:
            raise ConfigError(f"an image network (time_kernel=1) cannot halve time, got down={self.down}")
        uneven = [width for width in self.channels if width % self.norm_groups]
        if uneven:
            raise ConfigError(f"every width must be a multiple of norm_groups={self.norm_groups}, got {uneven}")

    @property
    def time_factor(self) -> int:
        return math.prod(time for time, _ in self.down)

    @property
    def space_factor(self) -> int:
        return self.fold * math.prod(space for _, space in self.down)


class ResBlock(nn.Module):
    """norm, SiLU, conv, norm, SiLU, conv, plus the input (through 1x1x1 where widths differ)."""

    def __init__(self, config: AutoencoderConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        time = config.time_kernel
        first, second = ((1, 3, 3), (time, 1, 1)) if config.factorised else ((time, 3, 3), (time, 3, 3))
        self.norm1 = _norm(config, in_channels)
        self.conv1 = Conv3d(in_channels, out_channels, first, causal=config.causal, bias=config.bias)
        self.norm2 = _norm(config, out_channels)
        self.conv2 = Conv3d(out_channels, out_channels, second, causal=config.causal, bias=config.bias)
        self.skip = (
            Conv3d(in_channels, out_channels, (1, 1, 1), causal=config.causal, bias=config.bias)
            if in_channels != out_channels
            else nn.Identity()
        )

    def forward(self, x_BCTHW: Tensor, cache: StreamCache | None) -> Tensor:
        y_BCTHW = self.conv1(norm_silu(self.norm1, x_BCTHW), cache)
        y_BCTHW = self.conv2(norm_silu(self.norm2, y_BCTHW), cache)
        return self.skip(x_BCTHW) + y_BCTHW


class Down(nn.Module):
    def __init__(self, config: AutoencoderConfig, channels: int, time: int, space: int) -> None:
        super().__init__()
        self.time, self.space = time, space
        self.conv = None
        if config.resample == "conv":
            kernel = _resample_kernel(config, time, space)
            self.conv = Conv3d(channels, channels, kernel, stride=(time, space, space), causal=config.causal)

    def forward(self, x_BCTHW: Tensor, cache: StreamCache | None) -> Tensor:
        return average_pool(x_BCTHW, self.time, self.space) if self.conv is None else self.conv(x_BCTHW, cache)


class Up(nn.Module):
    def __init__(self, config: AutoencoderConfig, channels: int, time: int, space: int) -> None:
        super().__init__()
        self.time, self.space = time, space
        if config.resample == "conv":
            kernel = _resample_kernel(config, time, space)
            self.conv = Conv3d(channels, channels * time * space * space, kernel, causal=config.causal)
            self.unfold = DepthToSpace(time, space, causal=config.causal)
        else:
            self.conv = Conv3d(channels, channels, (config.time_kernel, 3, 3), causal=config.causal, bias=config.bias)
            self.unfold = None

    def forward(self, x_BCTHW: Tensor, cache: StreamCache | None) -> Tensor:
        if self.unfold is not None:
            return self.unfold(self.conv(x_BCTHW, cache), cache)
        enlarged = F.interpolate(x_BCTHW, scale_factor=(self.time, self.space, self.space), mode="nearest")
        return self.conv(enlarged, cache)


class Encoder(nn.Module):
    def __init__(self, config: AutoencoderConfig, latent_dim: int) -> None:
        super().__init__()
        widths = config.channels
        self.fold = SpaceToDepth(config.fold)
        self.stem = Conv3d(3 * config.fold**2, widths[0], _kernel(config), causal=config.causal, bias=config.bias)
        self.stages, self.downs = nn.ModuleList(), nn.ModuleList()
        previous = widths[0]
        for width, blocks in zip(widths, config.encoder_blocks, strict=True):
            self.stages.append(_stage(config, previous, width, blocks))
            previous = width
        for width, (time, space) in zip(widths, config.down, strict=False):
            self.downs.append(Down(config, width, time, space))
        self.middle = _stage(config, previous, previous, config.middle_blocks)
        self.norm = _norm(config, previous)
        self.out = Conv3d(previous, latent_dim, (1, 1, 1), causal=config.causal)

    def forward(self, pixels_BCTHW: Tensor, cache: StreamCache | None) -> Tensor:
        x_BCTHW = self.stem(self.fold(pixels_BCTHW), cache)
        for index, stage in enumerate(self.stages):
            x_BCTHW = _run(stage, x_BCTHW, cache)
            if index < len(self.downs):
                x_BCTHW = self.downs[index](x_BCTHW, cache)
        x_BCTHW = _run(self.middle, x_BCTHW, cache)
        return self.out(norm_silu(self.norm, x_BCTHW), cache)


class Decoder(nn.Module):
    def __init__(self, config: AutoencoderConfig, latent_dim: int) -> None:
        super().__init__()
        widths = config.channels
        self.stem = Conv3d(latent_dim, widths[-1], _kernel(config), causal=config.causal, bias=config.bias)
        self.middle = _stage(config, widths[-1], widths[-1], config.middle_blocks)
        self.stages, self.ups, self.adapts = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        previous, time_so_far = widths[-1], 1
        for index in reversed(range(len(widths))):
            if config.adaptive_norm:
                self.adapts.append(
                    AdaptiveGroupNorm(
                        config.norm_groups, previous, latent_dim, time=time_so_far, per_frame=config.causal
                    )
                )
            self.stages.append(_stage(config, previous, widths[index], config.decoder_blocks[index]))
            previous = widths[index]
            if index > 0:
                time, space = config.down[index - 1]
                self.ups.append(Up(config, previous, time, space))
                time_so_far *= time
        self.norm = _norm(config, previous)
        self.out = Conv3d(previous, 3 * config.fold**2, _kernel(config), causal=config.causal)
        self.unfold = DepthToSpace(1, config.fold, causal=config.causal)

    def forward(self, latents_BDthw: Tensor, cache: StreamCache | None) -> Tensor:
        x_BCTHW = _run(self.middle, self.stem(latents_BDthw, cache), cache)
        for index, stage in enumerate(self.stages):
            if len(self.adapts):
                x_BCTHW = self.adapts[index](x_BCTHW, latents_BDthw, cache)
            x_BCTHW = _run(stage, x_BCTHW, cache)
            if index < len(self.ups):
                x_BCTHW = self.ups[index](x_BCTHW, cache)
        return self.unfold(self.out(norm_silu(self.norm, x_BCTHW), cache))


class Autoencoder3D(nn.Module):
    """Encoder, quantizer and decoder. Pixels are float in [-1, 1]."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.quantizer = build_quantizer(config.quantizer)
        self.encoder = Encoder(config, self.quantizer.latent_dim)
        self.decoder = Decoder(config, self.quantizer.latent_dim)

    def forward(self, pixels_BCTHW: Tensor) -> tuple[Tensor, Quantized]:
        quantized = self.quantizer(self.encode(pixels_BCTHW))
        return self.decode(quantized.latents_BDthw), quantized

    def encode(self, pixels_BCTHW: Tensor, cache: StreamCache | None = None) -> Tensor:
        """Latents before quantization.

        Args:
            pixels_BCTHW: float in [-1, 1]; H and W multiples of space_factor. Causal: 1 + time_factor*n frames (with a
                cache that has seen frames: time_factor*n). Otherwise time_factor*n.
            cache: carried from chunk to chunk of one stream.

        Raises:
            ShapeError: sizes that do not fit the factors.
        """
        self._check(pixels_BCTHW, cache)
        return self.encoder(pixels_BCTHW.contiguous(memory_format=torch.channels_last_3d), cache)

    def encode_ids(
        self, pixels_BCTHW: Tensor, cache: StreamCache | None = None, quantize: Quantize | None = None
    ) -> Tensor:
        """ids_BQthw of pixels as in encode; `quantize` may choose others than the quantizer would."""
        latents_BDthw = self.encode(pixels_BCTHW, cache).float()
        return (self.quantizer(latents_BDthw) if quantize is None else quantize(latents_BDthw, 0)).ids_BQthw

    def decode(self, latents_BDthw: Tensor, cache: StreamCache | None = None) -> Tensor:
        """Pixels, not clamped, of quantized latents; frame counts as in encode."""
        return self.decoder(latents_BDthw.contiguous(memory_format=torch.channels_last_3d), cache)

    def _check(self, pixels_BCTHW: Tensor, cache: StreamCache | None) -> None:
        space, time = self.config.space_factor, self.config.time_factor
        frames, height, width = pixels_BCTHW.shape[2:]
        extra = 1 if self.config.causal and not cache else 0
        if height % space or width % space or frames < 1 or (frames - extra) % time:
            need = f"{extra} + {time}*n" if extra else f"{time}*n"
            raise ShapeError(
                f"this network needs {need} frames with sides that are multiples of {space}, got {frames} frames of "
                f"{width}x{height}; VideoTokenizer.encode pads any clip"
            )


def _kernel(config: AutoencoderConfig) -> tuple[int, int, int]:
    return (1, 3, 3) if config.factorised else (config.time_kernel, 3, 3)


def _resample_kernel(config: AutoencoderConfig, time: int, space: int) -> tuple[int, int, int]:
    if not config.factorised:
        return (config.time_kernel, 3, 3)
    return (3 if time > 1 else 1, 3 if space > 1 else 1, 3 if space > 1 else 1)


def _norm(config: AutoencoderConfig, channels: int) -> VideoGroupNorm | PositionNorm:
    if config.norm == "position":
        return PositionNorm(channels)
    return VideoGroupNorm(config.norm_groups, channels, per_frame=config.causal)


def _stage(config: AutoencoderConfig, in_channels: int, out_channels: int, blocks: int) -> nn.ModuleList:
    widths = [in_channels] + [out_channels] * blocks
    return nn.ModuleList(ResBlock(config, a, b) for a, b in itertools.pairwise(widths))


def _run(stage: nn.Module, x_BCTHW: Tensor, cache: StreamCache | None) -> Tensor:
    for block in stage.children():
        x_BCTHW = block(x_BCTHW, cache)
    return x_BCTHW

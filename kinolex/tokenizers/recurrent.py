"""A tokenizer that codes what its decoder does not know yet: both sides keep a memory of what was decoded.

    4 frames --search--> motion --> memory moved along it = outlook --> encoder --> latents --quantizer--> ids
                                                                                                           |
    4 frames <-- decoder <-- outlook <-- memory moved along the motion read out of the ids <---------------+
                    |
                    +--> memory (last frame, features) for the next step

Each latent frame is a step. Its motion is found by search and written into one digit of the tokens, four tokens
together holding the displacement of their 16x16 pixels; the other digits say what the moved memory gets wrong. So a
picture that stays or glides grows sharper with every step instead of being described anew. The first step has no memory
and one frame: an image is a clip of one frame, 1 + 4t frames are 1 + t latent frames, and the first latent frame
depends on the first frame only. The decoder searches nothing, so no near-tie can part it from the encoder.

Source: our own. Closed loop, motion and memory as in every predictive video codec, the memory of features after Li et
al. 2021 (DCVC), arXiv 2109.15047; tokens and sizes of MAGVIT-v2, arXiv 2310.05737; FSQ, arXiv 2309.15505.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinolex.errors import ConfigError, ShapeError
from kinolex.layers.conv3d import StreamCache
from kinolex.layers.norm import PositionNorm, norm_silu
from kinolex.layers.warp import BLOCK, search, warp, warp_groups
from kinolex.tokenizers.motion import MotionDigits
from kinolex.tokenizers.quantizers import FiniteScalarQuantizer, FSQConfig, Quantize, Quantized

SHIFT_PIXELS = 4.0
"""Unit of the displacements that the network adds: about a fold."""

NEWS_GAIN = 4.0
"""Of the difference between the coming frames and the last one decoded, as the encoder sees it."""

PHASES = 8
"""Consecutive steps use other dictionaries in turn: what one cannot say about a picture that stays, the next can."""

DEEPER = 2
"""The latent's resolution below the folded picture's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecurrentConfig:
    """Everything needed to rebuild the network; saved as JSON beside the weights."""

    width: int
    """Channels at the folded resolution."""
    deep_width: int
    """Channels at the latent's resolution."""
    memory: int
    """Channels of remembered features, at the folded resolution."""
    encoder_blocks: tuple[int, int]
    """Residual blocks at the folded and at the latent's resolution."""
    decoder_blocks: tuple[int, int, int]
    """Residual blocks at the latent's resolution, and at the folded one before and after the memory is moved."""
    shifts: int
    """Groups of remembered channels that move each by themselves."""
    quantizer: FSQConfig
    """Its first digit, whose number of levels is odd, carries motion from the second step on."""
    fold: int = 4
    """Blocks of fold x fold pixels become channels."""
    time_factor: int = 4
    """Frames of a step."""

    def __post_init__(self) -> None:
        if min(self.width, self.deep_width, self.memory, self.shifts, self.fold, self.time_factor) < 1:
            raise ConfigError(f"widths, memory, shifts, fold and time_factor must be positive, got {self}")
        if 2 * self.space_factor != BLOCK:
            raise ConfigError(
                f"fold must be {BLOCK // 2 // DEEPER}, as two tokens span a block of motion, got {self.fold}"
            )
        if self.memory % self.shifts:
            raise ConfigError(f"memory must be a multiple of shifts, got {self.memory} and {self.shifts}")
        if self.quantizer.levels[0] % 2 == 0:
            raise ConfigError(f"the first level must be odd, as it has a middle for no motion, got {self.quantizer}")
        if min(*self.encoder_blocks, *self.decoder_blocks) < 0:
            raise ConfigError(f"numbers of blocks cannot be negative, got {self}")

    @property
    def causal(self) -> bool:
        return True

    @property
    def space_factor(self) -> int:
        return self.fold * DEEPER


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """What the decoder knows before a step."""

    frame_BCHW: Tensor  # the last frame decoded, in [-1, 1], float32
    features_BMhw: Tensor  # at the folded resolution
    steps: int  # since the stream began


@dataclass(frozen=True, slots=True, eq=False)
class Outlook:
    """What both sides expect of a step once its motion is known: what is remembered, moved along."""

    frames_BTCHW: Tensor  # float32
    features_BMhw: Tensor
    shifts_BThw: Tensor  # (right, down) in pixels for frame after frame, at the folded resolution
    begun: bool  # whether there is a past at all

    def known_BChw(self, fold: nn.PixelUnshuffle) -> Tensor:
        """Everything, at the folded resolution."""
        batch, _, height, width = self.features_BMhw.shape
        begun_B1hw = self.frames_BTCHW.new_full((batch, 1, height, width), float(self.begun))
        return _join(self.features_BMhw, _folded(fold, self.frames_BTCHW), begun_B1hw)


def look_ahead(memory: Memory, shifts_B2ij: Tensor | None, config: RecurrentConfig) -> Outlook:
    """Move what is remembered along displacements that reach from the last frame to the last of the step."""
    times, batch = config.time_factor, len(memory.frame_BCHW)
    height, width = memory.features_BMhw.shape[2:]
    if shifts_B2ij is None or not shifts_B2ij.numel():
        shifts = memory.frame_BCHW.new_zeros(batch, 2 * times, height, width)
        frames = memory.frame_BCHW.unsqueeze(1).expand(-1, times, -1, -1, -1)
        return Outlook(frames, memory.features_BMhw, shifts, memory.steps > 0)
    blocks = 2 * DEEPER
    smooth = F.interpolate(shifts_B2ij, scale_factor=blocks, mode="bilinear", align_corners=False)
    smooth = F.pad(smooth, (0, width - smooth.shape[3], 0, height - smooth.shape[2]), mode="replicate")
    shifts = torch.cat([smooth * ((time + 1) / times) for time in range(times)], dim=1)
    frames = _moved_frames(memory.frame_BCHW, shifts, config)
    return Outlook(frames, warp_groups(memory.features_BMhw, _of_groups(shifts, config)), shifts, True)


def _moved_frames(frame_BCHW: Tensor, shifts_BGhw: Tensor, config: RecurrentConfig) -> Tensor:
    """The last frame moved along one displacement field for each coming frame: [B, T, 3, H, W], float32."""
    times = config.time_factor
    smooth = F.interpolate(shifts_BGhw, scale_factor=config.fold, mode="bilinear", align_corners=False)
    repeated = frame_BCHW.repeat_interleave(times, dim=0)
    moved = warp(repeated, rearrange(smooth, "b (t two) h w -> (b t) two h w", two=2))
    return rearrange(moved, "(b t) c h w -> b t c h w", t=times)


def _of_groups(shifts_BThw: Tensor, config: RecurrentConfig) -> Tensor:
    """Displacements of the frames for the groups of features, which take turns, in positions of the folded picture."""
    rounds = -(-config.shifts // config.time_factor)
    return shifts_BThw.repeat(1, rounds, 1, 1)[:, : 2 * config.shifts] / config.fold


class Block(nn.Module):
    """norm, SiLU, conv, norm, SiLU, conv, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = PositionNorm(channels), PositionNorm(channels)
        self.conv1, self.conv2 = _conv(channels, channels), _conv(channels, channels)

    def forward(self, x_BChw: Tensor) -> Tensor:
        return x_BChw + self.conv2(norm_silu(self.norm2, self.conv1(norm_silu(self.norm1, x_BChw))))


class Encoder(nn.Module):
    """The frames of a step, beside the memory, to latents."""

    def __init__(self, config: RecurrentConfig, latent_dim: int) -> None:
        super().__init__()
        width, deep, folded = config.width, config.deep_width, 3 * config.fold**2
        self.fold = nn.PixelUnshuffle(config.fold)
        self.stem = _conv(3 * config.time_factor * folded + config.memory + 2, width)
        self.blocks = _blocks(width, config.encoder_blocks[0])
        self.down = nn.Conv2d(width, deep, 4, stride=DEEPER, padding=1)
        self.deep_blocks = _blocks(deep, config.encoder_blocks[1])
        self.norm = PositionNorm(deep)
        self.out = nn.Conv2d(deep, latent_dim * (1 + PHASES), 1)
        _own_phases(self.out.weight[latent_dim:])
        self.thrift = nn.Parameter(torch.full((latent_dim, 1, 1), 0.5))

    def forward(self, frames_BTCHW: Tensor, outlook: Outlook, phase: int, rate_weight: float) -> Tensor:
        # What is left to say is small where the outlook is good; enlarged, it counts as much as the pictures do.
        news_BTCHW = (frames_BTCHW - outlook.frames_BTCHW) * NEWS_GAIN
        known_BChw = outlook.known_BChw(self.fold)
        weight_B1hw = torch.full_like(known_BChw[:, :1], rate_weight)
        seen = (_folded(self.fold, frames_BTCHW), _folded(self.fold, news_BTCHW), known_BChw, weight_B1hw)
        x_BChw = self.deep_blocks(self.down(self.blocks(self.stem(_join(*seen)))))
        x_BChw = norm_silu(self.norm, x_BChw)
        common, *phases = self.out(x_BChw).chunk(1 + PHASES, dim=1)
        # Digits near the middle are cheap, and to draw them there is the shortest way to spend less.
        return (common + phases[phase]).float() * torch.exp(-rate_weight * self.thrift)


class Decoder(nn.Module):
    """Latents and memory to the frames of a step and the memory for the next."""

    def __init__(self, config: RecurrentConfig, latent_dim: int) -> None:
        super().__init__()
        self.config = config
        width, deep, folded, times = config.width, config.deep_width, 3 * config.fold**2, config.time_factor
        self.fold, self.unfold = nn.PixelUnshuffle(config.fold), nn.PixelShuffle(config.fold)
        self.start = nn.Parameter(torch.zeros(config.memory))
        known = config.memory + times * folded + 1
        self.recall = nn.Conv2d(known, deep // 2, 4, stride=DEEPER, padding=1)
        self.stem = _conv(latent_dim * (1 + PHASES) + deep // 2, deep)
        _own_phases(self.stem.weight[:, latent_dim : latent_dim * (1 + PHASES)])
        self.deep_blocks = _blocks(deep, config.decoder_blocks[0])
        self.up = nn.Conv2d(deep, width * DEEPER**2, 1)
        self.grow = nn.PixelShuffle(DEEPER)
        self.merge = _conv(width + known, width)
        self.blocks = _blocks(width, config.decoder_blocks[1])
        self.motion_norm = PositionNorm(width)
        self.motion = _conv(width, 2 * (times + config.shifts))
        self.blend = _conv(width + config.memory + times * folded, width)
        self.last_blocks = _blocks(width, config.decoder_blocks[2])
        self.norm = PositionNorm(width)
        self.out = _conv(width, times * (folded + 1))
        self.remember = nn.Conv2d(width, config.memory, 1)
        for still in (self.motion, self.remember):
            _zero(still)
        _keep_mostly(self.out, times)

    def blank(self, batch: int, rows: int, columns: int) -> Memory:
        """Memory before the first step, for a picture of rows x columns latent positions."""
        side_h, side_w = rows * DEEPER, columns * DEEPER
        frame = self.start.new_zeros(batch, 3, side_h * self.config.fold, side_w * self.config.fold)
        return Memory(frame, self.start[:, None, None].expand(batch, -1, side_h, side_w), 0)

    def forward(self, latents_BDhw: Tensor, memory: Memory, outlook: Outlook) -> tuple[Tensor, Memory]:
        """frames_BTCHW, not clamped, and the memory after them. The first latent counts in the first step only."""
        config, times = self.config, self.config.time_factor
        if outlook.begun:
            latents_BDhw = torch.cat([torch.zeros_like(latents_BDhw[:, :1]), latents_BDhw[:, 1:]], dim=1)
        known = outlook.known_BChw(self.fold)
        slots = [torch.zeros_like(latents_BDhw)] * PHASES
        slots[memory.steps % PHASES] = latents_BDhw
        deep_BChw = self.deep_blocks(self.stem(_join(latents_BDhw, *slots, self.recall(known))))
        x_BChw = self.blocks(self.merge(_join(self.grow(self.up(deep_BChw)), known)))
        turns = self.motion(norm_silu(self.motion_norm, x_BChw)).float() * SHIFT_PIXELS
        moved = _moved_frames(memory.frame_BCHW, outlook.shifts_BThw + turns[:, : 2 * times], config)
        of_groups = _of_groups(outlook.shifts_BThw, config) + turns[:, 2 * times :] / config.fold
        features = warp_groups(memory.features_BMhw, of_groups)
        folded = _folded(self.fold, moved)
        x_BChw = norm_silu(self.norm, self.last_blocks(self.blend(_join(x_BChw, features, folded))))
        new, keep = self.out(x_BChw).float().split([folded.shape[1], times], dim=1)
        gate = torch.sigmoid(keep).repeat_interleave(3 * config.fold**2, dim=1)
        mixed = rearrange(new + gate * folded, "b (t c) h w -> b t c h w", t=times)
        frames_BTCHW = self.unfold(mixed)
        return frames_BTCHW, Memory(frames_BTCHW[:, -1].clamp(-1.0, 1.0), self.remember(x_BChw), memory.steps + 1)


class RecurrentAutoencoder(nn.Module):
    """Encoder, quantizer and decoder around a memory. Pixels are float in [-1, 1]."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.quantizer = FiniteScalarQuantizer(config.quantizer)
        self.motion_digits = MotionDigits(config.quantizer.levels[0])
        self.encoder = Encoder(config, self.quantizer.latent_dim)
        self.decoder = Decoder(config, self.quantizer.latent_dim)

    def forward(self, pixels_BCTHW: Tensor, warm_frames: int = 0, rate_weight: float = 0.0) -> tuple[Tensor, Quantized]:
        """Reconstruction and what was quantized.

        Args:
            pixels_BCTHW: 1 + time_factor*n frames.
            warm_frames: the first so many, again 1 + time_factor*n, are run through without gradient and left out of
                the result: what a network learns from must include memories older than memory allows to unroll.
            rate_weight: 0 to 1, see encode_ids.

        Returns:
            The loss "rate" is rate_weight times about what a digit costs, in bits.
        """
        frames, quantized, rates = [], [], []
        memory = self._blank(pixels_BCTHW)
        if warm_frames:
            with torch.no_grad():
                cache = StreamCache()
                self.encode_ids(pixels_BCTHW[:, :, :warm_frames], cache, rate_weight=rate_weight)
                memory = self._recalled(cache) or memory
        for step_BTCHW in self._steps(pixels_BCTHW[:, :, warm_frames:], first=not warm_frames):
            latents_BD1hw, outlook = self._analyse(step_BTCHW, memory, rate_weight)
            rates.append(self._bits(latents_BD1hw))
            quantized.append(self.quantizer(latents_BD1hw))
            decoded_BTCHW, memory = self.decoder(quantized[-1].latents_BDthw.squeeze(2), memory, outlook)
            frames.append(decoded_BTCHW if frames or warm_frames else decoded_BTCHW[:, -1:])
        output = rearrange(torch.cat(frames, dim=1), "b t c h w -> b c t h w")
        losses = {"rate": torch.stack(rates).mean() * rate_weight}
        latents = torch.cat([q.latents_BDthw for q in quantized], dim=2)
        return output, Quantized(latents, torch.cat([q.ids_BQthw for q in quantized], dim=2), losses)

    def encode_ids(
        self,
        pixels_BCTHW: Tensor,
        cache: StreamCache | None = None,
        quantize: Quantize | None = None,
        rate_weight: float = 0.0,
    ) -> Tensor:
        """ids_BQthw; the decoder runs along, because every step looks at what came of the last.

        Args:
            pixels_BCTHW: float in [-1, 1]; H and W multiples of space_factor; 1 + time_factor*n frames (with a cache
                that has seen frames: time_factor*n).
            cache: carried from chunk to chunk of one stream.
            quantize: chooses the tokens of each step from its latents_BD1hw; by default the quantizer.
            rate_weight: from 0, tokens of the best picture, to 1, tokens that cost little once they are entropy-coded.
                The decoder need not know.

        Raises:
            ShapeError: sizes that do not fit the factors.
        """
        self._check(pixels_BCTHW, cache)
        memory, ids = self._recalled(cache) or self._blank(pixels_BCTHW), []
        for step_BTCHW in self._steps(pixels_BCTHW, first=not cache):
            latents_BD1hw, outlook = self._analyse(step_BTCHW, memory, rate_weight)
            # What the other digits correct was moved by the motion as it was found: its digit is not free.
            motion = 1 if memory.steps else 0
            chosen = self.quantizer(latents_BD1hw) if quantize is None else quantize(latents_BD1hw, motion)
            _, memory = self.decoder(chosen.latents_BDthw.squeeze(2), memory, outlook)
            ids.append(chosen.ids_BQthw)
        self._carry(memory, cache)
        return torch.cat(ids, dim=2)

    def decode(self, latents_BDthw: Tensor, cache: StreamCache | None = None) -> Tensor:
        """Pixels, not clamped, of quantized latents; frame counts as in encode."""
        memory = self._recalled(cache)
        first = memory is None
        if memory is None:
            memory = self.decoder.blank(latents_BDthw.shape[0], *latents_BDthw.shape[3:])
        frames = []
        for latents_BDhw in latents_BDthw.unbind(dim=2):
            shifts = (
                self.motion_digits.unpack(self.quantizer.digits(latents_BDhw[:, :1])[:, 0]) if memory.steps else None
            )
            decoded_BTCHW, memory = self.decoder(latents_BDhw, memory, look_ahead(memory, shifts, self.config))
            frames.append(decoded_BTCHW[:, -1:] if first and not frames else decoded_BTCHW)
        self._carry(memory, cache)
        return rearrange(torch.cat(frames, dim=1), "b t c h w -> b c t h w")

    def _bits(self, latents_BDthw: Tensor) -> Tensor:
        """About what a digit costs once digits near the middle are cheap; the motion's are not counted."""
        middle = (self.quantizer.levels[:, 1:] - 1) / 2
        return torch.log2(1.0 + (self.quantizer.places(latents_BDthw)[:, 1:] - middle).abs()).mean()

    def _analyse(self, step_BTCHW: Tensor, memory: Memory, rate_weight: float) -> tuple[Tensor, Outlook]:
        """Latents_BD1hw of a step, float32, its motion among them, and what was expected given that motion."""
        shifts, digits_Bhw = None, None
        if memory.steps:
            rows, columns = (size // self.config.space_factor for size in step_BTCHW.shape[3:])
            still = self.motion_digits.levels // 2
            digits_Bhw = torch.full((len(step_BTCHW), rows, columns), still, device=step_BTCHW.device)
            if min(rows, columns) > 1:
                found_B2ij = search(step_BTCHW[:, -1], memory.frame_BCHW)
                digits_Bhw = self.motion_digits.pack(found_B2ij, rows, columns)
            shifts = self.motion_digits.unpack(digits_Bhw)
        outlook = look_ahead(memory, shifts, self.config)
        latents_BDhw = self.encoder(step_BTCHW, outlook, memory.steps % PHASES, rate_weight)
        if digits_Bhw is not None:
            latents_BDhw = torch.cat([self.quantizer.latents_at(digits_Bhw, digit=0), latents_BDhw[:, 1:]], dim=1)
        return latents_BDhw.unsqueeze(2), outlook

    def _steps(self, pixels_BCTHW: Tensor, *, first: bool) -> Iterator[Tensor]:
        """frames_BTCHW of every step; the first frame of a stream stands for a whole step."""
        frames_BTCHW = rearrange(pixels_BCTHW, "b c t h w -> b t c h w").contiguous()
        times = self.config.time_factor
        if first:
            yield frames_BTCHW[:, :1].expand(-1, times, -1, -1, -1)
            frames_BTCHW = frames_BTCHW[:, 1:]
        if frames_BTCHW.shape[1]:
            yield from frames_BTCHW.split(times, dim=1)

    def _blank(self, pixels_BCTHW: Tensor) -> Memory:
        space = self.config.space_factor
        return self.decoder.blank(len(pixels_BCTHW), pixels_BCTHW.shape[3] // space, pixels_BCTHW.shape[4] // space)

    def _recalled(self, cache: StreamCache | None) -> Memory | None:
        if not cache:
            return None
        frame_BCHW, features_BMhw, steps = (cache[key] for key in self._keys())
        return Memory(frame_BCHW, features_BMhw, int(steps))

    def _carry(self, memory: Memory, cache: StreamCache | None) -> None:
        if cache is not None:
            tensors = memory.frame_BCHW, memory.features_BMhw, torch.tensor(memory.steps)
            cache.update(zip(self._keys(), tensors, strict=True))

    def _keys(self) -> tuple[nn.Module, ...]:
        return self, self.encoder, self.decoder

    def _check(self, pixels_BCTHW: Tensor, cache: StreamCache | None) -> None:
        space, time = self.config.space_factor, self.config.time_factor
        frames, height, width = pixels_BCTHW.shape[2:]
        extra = 0 if cache else 1
        if height % space or width % space or frames < 1 or (frames - extra) % time:
            raise ShapeError(
                f"this network needs {'1 + ' if extra else ''}{time}*n frames, sides that are multiples of {space}, "
                f"but {frames} frames of {width}x{height} came; VideoTokenizer.encode pads any clip"
            )


def _conv(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


def _folded(fold: nn.PixelUnshuffle, frames_BTCHW: Tensor) -> Tensor:
    return rearrange(fold(frames_BTCHW), "b t c h w -> b (t c) h w")


@torch.no_grad()
def _own_phases(weight: Tensor) -> None:
    """What the phases have to themselves begins small beside what they share."""
    weight *= 0.1


def _zero(conv: nn.Conv2d) -> None:
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)


@torch.no_grad()
def _keep_mostly(out: nn.Conv2d, times: int) -> None:
    """Begin with what was decoded staying as it is: gates at 0.95 and corrections small."""
    assert out.bias is not None
    out.weight *= 0.1
    out.bias[-times:] = 3.0


def _blocks(channels: int, number: int) -> nn.Sequential:
    return nn.Sequential(*(Block(channels) for _ in range(number)))


def _join(*parts_BChw: Tensor) -> Tensor:
    """Along the channels, channels-last: convolutions then run twice as fast in bfloat16 on CPUs."""
    return torch.cat([part.to(parts_BChw[0].dtype) for part in parts_BChw], dim=1).contiguous(
        memory_format=torch.channels_last
    )


PRESETS: dict[str, RecurrentConfig] = {
    "small": RecurrentConfig(
        width=192,
        deep_width=320,
        memory=96,
        encoder_blocks=(3, 3),
        decoder_blocks=(3, 2, 3),
        shifts=12,
        quantizer=FSQConfig(levels=(9, 9, 9, 7, 7, 7)),
    ),
    "nano": RecurrentConfig(
        width=128,
        deep_width=256,
        memory=64,
        encoder_blocks=(2, 2),
        decoder_blocks=(2, 1, 2),
        shifts=8,
        quantizer=FSQConfig(levels=(9, 9, 9, 7, 7, 7)),
    ),
}
"""Shapes by name; 17.93 bits per token of 4x8x8 pixels."""

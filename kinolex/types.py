"""The objects on the arrows: Clip, Sound, Tokens. Frozen, and checked when they are made.

    file -> Clip -> tokenizer -> Tokens -> tokenizer -> Clip -> file

Axis letters, the same everywhere; a tensor's name ends in its axes.
Capitals are media and sequence: B batch, C channels, T H W frames rows columns of pixels, S sound samples,
Q codebook levels, D latent or model width, L flat sequence, V vocabulary, N heads, K width of one head.
Lower case t h w is the token grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Generic, Literal

import torch
from torch import Tensor

from kinolex.errors import ShapeError, UsageError

if TYPE_CHECKING:
    from typing_extensions import TypeVar
else:
    from typing import TypeVar


def expect(value: object, wanted: type, advice: str) -> None:
    """Raises UsageError where a value is of another class: what came, what is needed, and what to do."""
    if not isinstance(value, wanted):
        shape, kind = getattr(value, "shape", None), type(value)
        came = f"{kind.__module__}.{kind.__name__}".removeprefix("builtins.")
        told = "" if shape is None else f" of shape {tuple(shape)}"
        raise UsageError(f"a {wanted.__name__} is needed, got {came}{told}; {advice}")


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """A piece of sound.

    Args:
        samples_CS: float32 in [-1, 1]; C is 1 (mono) or 2 (stereo, left first); S may be 0.
        rate_hz: samples per second and channel.

    Raises:
        ShapeError: another rank, dtype, channel count or rate; non-finite samples.
    """

    samples_CS: Tensor
    rate_hz: int

    def __post_init__(self) -> None:
        samples_CS = self.samples_CS
        expect(samples_CS, Tensor, "torch.from_numpy(samples) makes one of an array")
        if samples_CS.ndim != 2 or samples_CS.dtype != torch.float32:
            raise ShapeError(
                f"sound needs float32 samples_CS with 2 axes, got {samples_CS.dtype} with shape "
                f"{tuple(samples_CS.shape)}"
            )
        if samples_CS.shape[0] not in (1, 2):
            raise ShapeError(f"sound needs 1 or 2 channels, got {samples_CS.shape[0]}; mix down before making a Sound")
        if self.rate_hz <= 0:
            raise ShapeError(f"rate_hz must be positive, got {self.rate_hz}")
        if not bool(torch.isfinite(samples_CS).all()):
            raise ShapeError("sound holds NaN or infinite samples; clean the source before making a Sound")

    @property
    def num_samples(self) -> int:
        return self.samples_CS.shape[1]

    @property
    def duration_s(self) -> float:
        return self.num_samples / self.rate_hz

    def __repr__(self) -> str:
        return f"Sound({self.samples_CS.shape[0]} channels, {self.rate_hz} Hz, {self.duration_s:.2f} s)"


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A piece of video at a constant rate; an image is a clip of one frame.

    Args:
        frames_TCHW: uint8 sRGB in 0..255, C = 3, at least one frame of at least 1x1.
        fps: exact frames per second, e.g. Fraction(30000, 1001); for an image any value, by convention 1.
        sound: what is heard from the moment the first frame appears, or None.

    Raises:
        ShapeError: another rank, dtype, channel count, an empty axis, or a rate that is not positive.
    """

    frames_TCHW: Tensor
    fps: Fraction
    sound: Sound | None = None

    def __post_init__(self) -> None:
        frames_TCHW = self.frames_TCHW
        expect(frames_TCHW, Tensor, "torch.from_numpy(frames) makes one of an array")
        if frames_TCHW.ndim != 4 or frames_TCHW.dtype != torch.uint8 or frames_TCHW.shape[1] != 3:
            raise ShapeError(
                "a clip needs uint8 frames_TCHW with 3 channels, got "
                f"{frames_TCHW.dtype} with shape {tuple(frames_TCHW.shape)}; axes are frames, channels, rows, columns"
            )
        if 0 in frames_TCHW.shape:
            raise ShapeError(f"a clip needs at least one frame of one pixel, got shape {tuple(frames_TCHW.shape)}")
        if not isinstance(self.fps, Fraction) or self.fps <= 0:
            raise ShapeError(f"fps must be a positive Fraction, got {self.fps!r}")

    @property
    def num_frames(self) -> int:
        return self.frames_TCHW.shape[0]

    @property
    def height(self) -> int:
        return self.frames_TCHW.shape[2]

    @property
    def width(self) -> int:
        return self.frames_TCHW.shape[3]

    @property
    def duration_s(self) -> float:
        return float(self.num_frames / self.fps)

    @property
    def extent(self) -> Extent:
        return Extent(frames=self.num_frames, height=self.height, width=self.width, fps=self.fps)

    def with_sound(self, sound: Sound | None) -> Clip:
        """The same pictures with other sound."""
        return replace(self, sound=sound)

    def __repr__(self) -> str:
        sound = f", {self.sound!r}" if self.sound is not None else ""
        return f"Clip({self.num_frames} frames of {self.width}x{self.height} at {float(self.fps):.3f} fps{sound})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """What tokens stood for before padding, so that decoding crops to it exactly."""

    frames: int
    height: int
    width: int
    fps: Fraction

    def __post_init__(self) -> None:
        if min(self.frames, self.height, self.width) < 1 or self.fps <= 0:
            raise ShapeError(f"an extent needs positive frames, height, width and fps, got {self}")

    @property
    def pixels(self) -> int:
        return self.frames * self.height * self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundExtent:
    """What tokens of sound stood for, so that decoding cuts to it exactly; channels stand in the grid."""

    samples: int
    """Of each channel, at rate_hz."""
    rate_hz: int

    def __post_init__(self) -> None:
        if self.samples < 0 or self.rate_hz < 1:
            raise ShapeError(f"an extent of sound needs samples from 0 and a rate from 1 Hz on, got {self}")

    @property
    def duration_s(self) -> float:
        return self.samples / self.rate_hz


if TYPE_CHECKING:  # `Tokens` alone means those of pictures
    ExtentType = TypeVar("ExtentType", Extent, SoundExtent, default=Extent)
else:
    ExtentType = TypeVar("ExtentType")


@dataclass(frozen=True, slots=True, eq=False)
class Tokens(Generic[ExtentType]):
    """A grid of discrete tokens and all that is needed to turn it back into media.

    Args:
        ids_Qthw: int64, Q codebook levels over t x h x w positions (Q is 1 unless the quantizer is residual);
            every id lies in [0, vocab_size) of the tokenizer.
        kind: "video", or "sound", where t x 1 x w are frames and channels (1 or 2) of one sound.
        tokenizer: fingerprint of the tokenizer that made them; another tokenizer refuses to decode them.
        extent: original frames, rows, columns and rate; of sound, samples and rate.

    Raises:
        ShapeError: another rank or dtype, negative ids, or an extent or grid that is not of this kind.
    """

    ids_Qthw: Tensor
    kind: Literal["video", "sound"]
    tokenizer: str
    extent: ExtentType

    def __post_init__(self) -> None:
        ids_Qthw = self.ids_Qthw
        expect(ids_Qthw, Tensor, "torch.from_numpy(ids) makes one of an array")
        if ids_Qthw.ndim != 4 or ids_Qthw.dtype != torch.int64:
            raise ShapeError(f"tokens need int64 ids_Qthw with 4 axes, got {ids_Qthw.dtype} {tuple(ids_Qthw.shape)}")
        if ids_Qthw.numel() == 0 or int(ids_Qthw.min()) < 0:
            raise ShapeError(f"tokens need at least one id and none below 0, got shape {tuple(ids_Qthw.shape)}")
        if self.kind not in ("video", "sound") or isinstance(self.extent, SoundExtent) != (self.kind == "sound"):
            raise ShapeError(f"tokens of kind {self.kind!r} cannot have the extent {self.extent}")
        if self.kind == "sound" and (ids_Qthw.shape[2] != 1 or ids_Qthw.shape[3] > 2):
            raise ShapeError(f"tokens of sound need a grid of t x 1 x channels (1 or 2), got {tuple(ids_Qthw.shape)}")

    @property
    def num_tokens(self) -> int:
        return self.ids_Qthw.numel()

    def __repr__(self) -> str:
        grid = "x".join(str(size) for size in self.ids_Qthw.shape)
        return f"Tokens({grid} {self.kind} ids, tokenizer {self.tokenizer[:12]}, {self.extent})"

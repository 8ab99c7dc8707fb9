"""How windows of a long stream follow one another, in training and in generation alike.

    window 0   latents 0 1 2 3 4          sound  0 ........ 70
    window 1             3 4 5 6 7               50 ........ 120        first ones given, the rest made
    window 2                   6 7 8 9 10               100 ........ 170

A window is moved by whole latent frames that last a whole number of frames of sound, so pictures and sound never drift
apart. Its sound begins where the last picture of its first latent frame begins: the first latent frame of a stream
holds one picture, those after it several, and so in every window sound lies under pictures as it does in the first.

Source: VideoPoet, arXiv 2312.14125 (long video by feeding back the last second).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kinolex.errors import ConfigError, UsageError

CHAINED_TASKS = ("continuation", "future-prediction")
"""Tasks that make the rest of a window from its beginning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Sizes and steps of windows, in latent frames and in frames of sound."""

    latents: int
    sound: int
    latent_stride: int
    sound_stride: int

    @property
    def given_latents(self) -> int:
        """Of every window but the first: what the window before it made."""
        return self.latents - self.latent_stride

    @property
    def given_sound(self) -> int:
        return self.sound - self.sound_stride

    def windows(self, latents: int, sound: int) -> int:
        """Windows that lie in a stream of this length."""
        fitting = min((latents - self.latents) // self.latent_stride, (sound - self.sound) // self.sound_stride)
        return 1 + max(fitting, -1)

    def window(self, number: int, video_thw: Tensor, sound_Qt: Tensor) -> tuple[Tensor, Tensor]:
        """One window of a stream's tokens. Raises UsageError for one that does not lie in it."""
        if not 0 <= number < self.windows(len(video_thw), sound_Qt.shape[1]):
            raise UsageError(
                f"{len(video_thw)} latent frames and {sound_Qt.shape[1]} frames of sound have no window {number}"
            )
        first, heard = number * self.latent_stride, number * self.sound_stride
        return video_thw[first : first + self.latents], sound_Qt[:, heard : heard + self.sound]


def chain_of(latents: int, sound: int, sound_frames_per_latent: float) -> Chain:
    """The longest steps that leave something given.

    Args:
        latents, sound: of a window.

    Raises:
        ConfigError: no step of whole latent frames lasts a whole number of frames of sound.
    """
    for stride in range(latents - 1, 0, -1):
        lasts = stride * sound_frames_per_latent
        if abs(lasts - round(lasts)) < 1e-6 and 1 <= round(lasts) < sound:
            return Chain(latents=latents, sound=sound, latent_stride=stride, sound_stride=round(lasts))
    raise ConfigError(
        f"windows of {latents} latent frames cannot be chained: no fewer of them last a whole number of frames of "
        f"sound, {sound_frames_per_latent:g} each"
    )

"""Normalisation that keeps causality: statistics of one frame, never of the frames after it.

Source: GroupNorm, Wu and He 2018; adaptive form: MAGVIT-v2, papers.md section 4.2 (details unconfirmed there).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinolex.layers.conv3d import StreamCache, drop_first_copies


class VideoGroupNorm(nn.GroupNorm):
    """GroupNorm over each frame (per_frame) or over the whole clip.

    The clip form mixes all times, as MAGVIT does; causal networks must use the frame form.
    """

    def __init__(self, groups: int, channels: int, *, per_frame: bool) -> None:
        super().__init__(groups, channels, eps=1e-6)
        self.per_frame = per_frame

    def forward(self, x_BCTHW: Tensor) -> Tensor:  # type: ignore[override]
        if not self.per_frame:
            return super().forward(x_BCTHW)
        batch = x_BCTHW.shape[0]
        # In channels-last memory both regroupings are views.
        frames_NCHW = rearrange(x_BCTHW, "b c t h w -> (b t) c h w")
        return rearrange(super().forward(frames_NCHW), "(b t) c h w -> b c t h w", b=batch)


class PositionNorm(nn.LayerNorm):
    """LayerNorm over the channels of one position, so neither later frames nor the size of the picture matter.

    In channels-last bfloat16 on a CPU it takes a tenth of the time of GroupNorm.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x_BCTHW: Tensor) -> Tensor:  # type: ignore[override]
        # In channels-last memory both regroupings are views. Pictures (B C H W) are as welcome as clips.
        return rearrange(super().forward(rearrange(x_BCTHW, "b c ... -> b ... c")), "b ... c -> b c ...")


class AdaptiveGroupNorm(nn.Module):
    """GroupNorm whose scale and shift come from statistics of the quantized latent frame behind each frame.

        latents_BDthw --std over h,w--> scale_BCT   --mean over h,w--> shift_BCT

    Args:
        time: frames of x per latent frame (after the first, which stands for one).
    """

    def __init__(self, groups: int, channels: int, latent_dim: int, *, time: int, per_frame: bool) -> None:
        super().__init__()
        self.norm = VideoGroupNorm(groups, channels, per_frame=per_frame)
        self.time, self.per_frame = time, per_frame
        self.scale = nn.Linear(latent_dim, channels)
        self.shift = nn.Linear(latent_dim, channels)
        for layer in (self.scale, self.shift):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x_BCTHW: Tensor, latents_BDthw: Tensor, cache: StreamCache | None = None) -> Tensor:
        flat_BtDL = rearrange(latents_BDthw, "b d t h w -> b t d (h w)").float()
        mean_BtD = flat_BtDL.mean(dim=-1)
        std_BtD = ((flat_BtDL - mean_BtD.unsqueeze(-1)).square().mean(dim=-1) + 1e-6).sqrt()
        scale_BCT = self._per_frame(self.scale(std_BtD), x_BCTHW, cache)
        shift_BCT = self._per_frame(self.shift(mean_BtD), x_BCTHW, cache)
        if cache is not None:
            cache.setdefault(self, x_BCTHW.new_zeros(()))
        return torch.addcmul(shift_BCT, self.norm(x_BCTHW), 1.0 + scale_BCT)

    def _per_frame(self, values_BtC: Tensor, x_BCTHW: Tensor, cache: StreamCache | None) -> Tensor:
        values_BCt = rearrange(values_BtC, "b t c -> b c t 1 1").to(x_BCTHW.dtype)
        repeated = values_BCt.repeat_interleave(self.time, dim=2)
        if self.per_frame and (cache is None or self not in cache):
            return drop_first_copies(self, repeated, self.time, None)
        return repeated


def norm_silu(norm: nn.Module, x_BCTHW: Tensor) -> Tensor:
    return F.silu(norm(x_BCTHW), inplace=not torch.is_grad_enabled())

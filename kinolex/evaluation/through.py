"""Clips as they look after a tokenizer, many at once, without tokens in between."""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from kinolex.layers.precision import fast_arithmetic
from kinolex.tokenizers.video import WINDOW_FRAMES, VideoTokenizer

AT_ONCE = 8


def to_pixels(frames_NTHWC: Tensor) -> Tensor:
    """uint8 frames as pixels_NCTHW, float in [-1, 1]."""
    return rearrange(frames_NTHWC, "n t h w c -> n c t h w").float() / 127.5 - 1.0


@torch.inference_mode()
def through(tokenizer: VideoTokenizer, frames_NTHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every clip encoded and decoded by the network's own pass, as `decode(encode(clip))` does one by one.

    In bfloat16 where that is native.

    Args:
        tokenizer: on the CPU. The last frame is repeated up to whole tokens and the surplus cut off again; networks
            that are not causal see the windows of the tokenizer.
        frames_NTHWC: clips of one length; rows and columns must be whole tokens.
    """
    causal, step, total = tokenizer.config.causal, tokenizer.config.time_factor, frames_NTHWC.shape[1]
    wanted = 1 + -(-(total - 1) // step) * step if causal else -(-total // step) * step
    parts = []
    for start in range(0, len(frames_NTHWC), AT_ONCE):
        pixels_NCTHW = to_pixels(torch.from_numpy(frames_NTHWC[start : start + AT_ONCE]))
        more_NCTHW = pixels_NCTHW[:, :, -1:].expand(-1, -1, wanted - total, -1, -1)
        padded_NCTHW = torch.cat([pixels_NCTHW, more_NCTHW], dim=2)
        windows = [padded_NCTHW] if causal else padded_NCTHW.split(WINDOW_FRAMES, dim=2)
        with fast_arithmetic():
            laid_out = [window_NCTHW.contiguous(memory_format=torch.channels_last_3d) for window_NCTHW in windows]
            decoded_NCTHW = torch.cat([tokenizer.model(window_NCTHW)[0] for window_NCTHW in laid_out], dim=2)
        levels_NCTHW = ((decoded_NCTHW[:, :, :total].float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        parts.append(rearrange(levels_NCTHW, "n c t h w -> n t h w c").numpy())
    return np.concatenate(parts)

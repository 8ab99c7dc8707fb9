"""Where things went, as digits of tokens.

    displacements of 16x16 blocks <--> two whole numbers each <--> one digit in each of the four tokens of the block

Source: our own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from kinolex.layers.warp import REACH, STRIDE

MOTION_PIXELS = float(REACH * STRIDE)
"""Longest displacement that tokens carry."""
POWER = 1.5
"""Of the number in the displacement: steps of a tenth of a pixel near zero, of almost one at the end."""


class MotionDigits:
    """Displacements of 16x16 blocks as the first digit of the four tokens that lie in each.

        displacement (right, down) <--> two numbers to base levels**2 <--> four digits, of right in the upper two tokens

    Numbers count from the middle; the displacement grows with the power POWER of the number, fine where little moves.
    Tokens of an odd last row or column carry no motion and move with the block beside them.
    """

    def __init__(self, levels: int) -> None:
        self.levels, self.middle = levels, (levels**2 - 1) // 2

    def pack(self, shifts_B2ij: Tensor, rows: int, columns: int) -> Tensor:
        """Digits [B, rows, columns], int64; the middle one where there is no motion to carry."""
        share = shifts_B2ij.abs().clamp(max=MOTION_PIXELS) / MOTION_PIXELS
        steps = (share ** (1 / POWER) * self.middle).round() * shifts_B2ij.sign() + self.middle
        number_B2ij = steps.long()
        digits = torch.stack([number_B2ij // self.levels, number_B2ij % self.levels], dim=-1)
        placed = rearrange(digits, "b two i j half -> b (i two) (j half)")
        return F.pad(placed, (0, columns - placed.shape[2], 0, rows - placed.shape[1]), value=self.levels // 2)

    def unpack(self, digits_Bhw: Tensor) -> Tensor:
        """Displacements [B, 2, rows//2, columns//2] in pixels, float32."""
        rows, columns = (size // 2 * 2 for size in digits_Bhw.shape[1:])
        digits = rearrange(digits_Bhw[:, :rows, :columns], "b (i two) (j half) -> half b two i j", two=2, half=2)
        steps = (digits[0] * self.levels + digits[1] - self.middle).float()
        return (steps.abs() / self.middle) ** POWER * MOTION_PIXELS * steps.sign()

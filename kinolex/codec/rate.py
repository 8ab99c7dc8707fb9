"""Spend bits where they buy most: digits chosen by what they cost as well as by how near they are.

    places before rounding + weight --prior.walk--> for every digit the value with the least (error**2 + weight x bits)

A digit is chosen when the decoder would read it, from the very frequencies it will be coded with.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kinolex.codec.entropy import bits_NV
from kinolex.codec.priors import History, Prior, Slices


class DigitChooser:
    """Chooses the digits of one latent frame after another, for VideoTokenizer.encode; adds up what they take.

    Args:
        prior, weight: see choose_digits.
    """

    def __init__(self, prior: Prior, weight: float) -> None:
        self.prior, self.weight, self.history = prior, weight, History()
        self.bits = 0.0

    def __call__(self, places_hwD: Tensor, rounded: int) -> Tensor:
        digits_1hwD, bits = choose_digits(places_hwD.unsqueeze(0), self.prior, self.weight, self.history, rounded)
        self.bits += bits
        return digits_1hwD[0]


def choose_digits(
    places_thwD: Tensor, prior: Prior, weight: float, history: History | None = None, rounded: int = 0
) -> tuple[Tensor, float]:
    """Digits of consecutive latent frames, and the bits they will take.

    Args:
        places_thwD: float places on the digits' axes, within [0, levels - 1]; rounding them gives the plain digits.
        prior: of the tokenizer.
        weight: squared steps that one bit is worth; 0 gives the plain digits.
        history: goes on from where it was and ends after these frames; empty if None.
        rounded: the first so many digits are not chosen but rounded; they cost what they cost.

    Returns:
        Digits [t, h, w, D], int64, and estimated bits.
    """
    history, total, frames = history if history is not None else History(), 0.0, []
    for places_hwD in places_thwD.float():

        def cheapest(digit: int, where: Slices, frequencies: Tensor, frame: Tensor = places_hwD) -> Tensor:
            nonlocal total
            costs_NV = bits_NV(frequencies)
            steps_NV = frame[where][:, :, digit].reshape(-1, 1) - torch.arange(frequencies.shape[1])
            allowed = weight if digit >= rounded else 0.0
            values_N = (steps_NV.square() + allowed * costs_NV).argmin(dim=1)
            total += float(costs_NV.gather(1, values_N.unsqueeze(1)).sum())
            return values_N

        history.append(prior.walk(history, (places_hwD.shape[0], places_hwD.shape[1]), cheapest))
        frames.append(history[-1])
    return torch.stack(frames), total

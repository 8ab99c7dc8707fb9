"""What each kind of generator learns from the same batch of windows.

    clean, condition --corrupt by COMMIT--> MaskedTransformer          --> nats of every token
    clean, condition ---------------------> AutoregressiveTransformer  --> nats of every token that is not given
    clean, condition --noise at a time----> DiffusionTransformer       --> squared error of the velocity of the same

Source: MAGVIT, arXiv 2212.05199, section 3.2 (COMMIT); kinolex.models.autoregressive and kinolex.models.diffusion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from kinolex.layers.precision import fast_arithmetic
from kinolex.masks import HIDDEN
from kinolex.models.autoregressive import AutoregressiveTransformer
from kinolex.models.diffusion import DiffusionTransformer, draw_times, straight
from kinolex.models.factors import split_ids
from kinolex.models.masked import MaskedTransformer


@dataclass(frozen=True, slots=True, eq=False)
class TokenBatch:
    """Windows of one size before anything was done to them."""

    clean_Bthw: Tensor
    condition_Bthw: Tensor
    """HIDDEN where nothing is known."""
    exact_Bthw: Tensor
    """bool, where the condition is known to be the clean tokens: nothing is to be made there."""
    tasks_B: Tensor
    words_BP: Tensor
    first_B: Tensor


LossAndFigures = tuple[Tensor, dict[str, float]]


def masked_loss(
    model: MaskedTransformer,
    batch: TokenBatch,
    corrupt_Bthw: Tensor,
    *,
    corruption: str,
    losses: tuple[str, ...],
    label_smoothing: float,
) -> LossAndFigures:
    """Mean nats of the tokens that teach.

    Args:
        corrupt_Bthw: bool, tokens that the network does not see.
        corruption, losses: as in GeneratorTrainConfig.
    """
    clean_Bthw, condition_Bthw = batch.clean_Bthw, batch.condition_Bthw
    back_Bthw = condition_Bthw if corruption == "commit" else torch.full_like(condition_Bthw, HIDDEN)
    given_Bthw = torch.where(corrupt_Bthw, back_Bthw, clean_Bthw)
    target_BLF = _factors(clean_Bthw, model.config.factors)
    with fast_arithmetic(clean_Bthw.device):
        nats_BL = model(given_Bthw, batch.tasks_B, batch.words_BP, batch.first_B, target_BLF, label_smoothing)
    hidden_BL = (given_Bthw == HIDDEN).flatten(1)
    refined_BL = corrupt_Bthw.flatten(1) & ~hidden_BL
    kinds = {"mask": hidden_BL, "refine": refined_BL, "reconstruct": ~corrupt_Bthw.flatten(1)}
    teaches_BL = torch.stack([kinds[name] for name in losses]).any(dim=0)
    loss = (nats_BL * teaches_BL).sum() / teaches_BL.sum().clamp(min=1)
    figures = {"loss": float(loss.detach())}
    for name, chosen_BL in kinds.items():
        if bool(chosen_BL.any()):
            figures[f"{name}_bits"] = float(nats_BL.detach()[chosen_BL].mean()) / math.log(2)
    figures["bits_per_position"] = figures.get("mask_bits", figures["loss"] / math.log(2))
    return loss, figures


def autoregressive_loss(
    model: AutoregressiveTransformer, batch: TokenBatch, *, label_smoothing: float
) -> LossAndFigures:
    """Mean nats of the tokens that are not given."""
    target_BLF = _factors(batch.clean_Bthw, model.config.factors)
    with fast_arithmetic(target_BLF.device):
        nats_BL = model(target_BLF, batch.condition_Bthw, batch.tasks_B, batch.words_BP, batch.first_B, label_smoothing)
    loss = _mean_where(nats_BL, ~batch.exact_Bthw.flatten(1))
    figures = {"loss": float(loss.detach())}
    return loss, figures | {"bits_per_position": figures["loss"] / math.log(2)}


def diffusion_loss(model: DiffusionTransformer, batch: TokenBatch) -> LossAndFigures:
    """Mean squared error of the velocity where nothing is given; noise and times from torch's own generator."""
    data_BLC = model.latents(batch.clean_Bthw)
    device = data_BLC.device
    times_B = draw_times(model.config, len(data_BLC)).to(device)
    noise_BLC = torch.randn(data_BLC.shape).to(device)
    with fast_arithmetic(device):
        velocity_BLC = model(
            straight(noise_BLC, data_BLC, times_B),
            times_B,
            batch.condition_Bthw,
            batch.tasks_B,
            batch.words_BP,
            batch.first_B,
        )
    error_BL = (velocity_BLC - (data_BLC - noise_BLC)).square().mean(dim=-1)
    loss = _mean_where(error_BL, ~batch.exact_Bthw.flatten(1))
    return loss, {"loss": float(loss.detach())}


def _factors(ids_Bthw: Tensor, sizes: tuple[int, ...]) -> Tensor:
    return split_ids(rearrange(ids_Bthw, "b t h w -> b (t h w)"), sizes)


def _mean_where(values_BL: Tensor, chosen_BL: Tensor) -> Tensor:
    return (values_BL * chosen_BL).sum() / chosen_BL.sum().clamp(min=1)

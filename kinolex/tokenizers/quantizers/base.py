"""What every quantizer returns, and the checks that all of them share.

    latents_BDthw --quantize--> latents_BDthw (gradient passes straight through) + ids_BQthw --> latents_BDthw

Arithmetic is float32 and int64 inside, whatever autocast surrounds the call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from kinolex.errors import ShapeError, TokenError


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    latents_BDthw: Tensor  # of the input's dtype; the gradient passes straight through
    ids_BQthw: Tensor  # int64 in [0, vocab_size) for every level
    losses: dict[str, Tensor]  # unweighted float32 scalars; the training config weights them


Quantize = Callable[[Tensor, int], Quantized]
"""(latents_BDthw, rounded) -> what was made of them; the first `rounded` channels must be what the quantizer makes."""


class Quantizer(Protocol):
    latent_dim: int
    vocab_size: int
    num_levels: int

    def __call__(self, latents_BDthw: Tensor) -> Quantized: ...

    def latents_from_ids(self, ids_BQthw: Tensor) -> Tensor: ...


def check_latents(latents_BDthw: Tensor, latent_dim: int) -> None:
    if latents_BDthw.ndim != 5 or latents_BDthw.shape[1] != latent_dim:
        raise ShapeError(
            f"this quantizer needs latents_BDthw with D={latent_dim}, got shape {tuple(latents_BDthw.shape)}"
        )


def check_ids(ids_BQthw: Tensor, vocab_size: int, max_levels: int) -> None:
    if ids_BQthw.ndim != 5 or not 1 <= ids_BQthw.shape[1] <= max_levels:
        raise ShapeError(
            f"ids need 5 axes B Q t h w with 1 to {max_levels} levels Q, got shape {tuple(ids_BQthw.shape)}"
        )
    if ids_BQthw.numel() and not 0 <= int(ids_BQthw.min()) <= int(ids_BQthw.max()) < vocab_size:
        raise TokenError(
            f"ids must lie in [0, {vocab_size}), got {int(ids_BQthw.min())} to {int(ids_BQthw.max())}; "
            "they belong to another tokenizer or the file is damaged"
        )


def straight_through(latents: Tensor, quantized: Tensor) -> Tensor:
    """The quantized values going forward, the identity coming back."""
    return latents + (quantized - latents).detach()


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _MeanOverProcesses(torch.autograd.Function):
    """Mean over processes whose gradient is the one of the joined batch once DDP has averaged gradients."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total / dist.get_world_size()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        # d(mean)/d(own) is 1/n, and every one of the n processes holds the same loss: DDP's average brings the 1/n.
        return gradients[0]


def mean_over_processes(values: Tensor) -> Tensor:
    """Mean of a tensor over all training processes; the tensor itself with one process."""
    return values if world_size() == 1 else _MeanOverProcesses.apply(values)  # type: ignore[no-any-return]


def sum_over_processes_(values: Tensor) -> Tensor:
    """Sum in place over all training processes, without gradient."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values

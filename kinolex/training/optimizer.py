"""Muon for convolution kernels and the matrices of transformers, AdamW for all else, one learning-rate curve over both.

Muon replaces the momentum of a matrix by the nearest orthogonal matrix (five Newton-Schulz steps), so that every
direction
of a layer learns at the same pace. On this network it reached in 240 steps what AdamW had not reached in 480
(notes/LOG.md).

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; AdamW: arXiv 1711.05101.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from kinolex.layers.precision import is_bfloat16_native
from kinolex.training.config import OptimizerConfig

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Quintic whose iteration drives all singular values towards 1; Jordan et al. 2024."""

ENDS = (
    *("encoder.stem", "encoder.out", "decoder.stem", "decoder.out", "decoder.motion", "decoder.remember"),
    *("layers.trunk_0", "layers.context", "layers.logits"),
)
"""Layers whose inputs or outputs are data and not features: their directions are not alike, AdamW suits them better."""


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised. Parameters of any rank are seen as matrices (outputs, everything else)."""

    def __init__(self, params: Iterable[Tensor], *, lr: float, weight_decay: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            momentum, lr = group["momentum"], group["lr"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                average = state["momentum"].lerp_(parameter.grad, 1 - momentum)
                update = parameter.grad.lerp(average, momentum).reshape(len(parameter), -1)
                rows, columns = update.shape
                update = orthogonalise(update) * max(1.0, rows / columns) ** 0.5
                parameter.mul_(1 - lr * group["weight_decay"]).add_(update.view_as(parameter), alpha=-lr)


def orthogonalise(matrix_OI: Tensor) -> Tensor:
    """About U V^T of a matrix U S V^T, in bfloat16 where that is fast; singular values land in 0.7 to 1.2."""
    a, b, c = NEWTON_SCHULZ
    x = matrix_OI.bfloat16() if is_bfloat16_native(matrix_OI.device) else matrix_OI
    x = x / (x.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix_OI.dtype)


class Optimizers:
    """The pair, stepped together."""

    def __init__(self, model: nn.Module, config: OptimizerConfig, total_steps: int) -> None:
        self.config, self.total_steps = config, total_steps
        kernels, rest = [], []
        for name, parameter in model.named_parameters():
            is_matrix = parameter.ndim == 2 and name.startswith("blocks.")
            is_kernel = (parameter.ndim >= 4 or is_matrix) and not name.startswith(ENDS)
            (kernels if is_kernel else rest).append(parameter)
        self.muon = Muon(kernels, lr=config.muon_lr, weight_decay=config.weight_decay)
        self.adam = torch.optim.AdamW(rest, lr=config.adam_lr, betas=(0.9, 0.99), weight_decay=0.0)

    @property
    def pair(self) -> dict[str, torch.optim.Optimizer]:
        """Both, by the names that they have in a state."""
        return {"muon": self.muon, "adam": self.adam}

    def step(self, step: int) -> None:
        factor = self.lr_factor(step)
        for optimizer, lr in ((self.muon, self.config.muon_lr), (self.adam, self.config.adam_lr)):
            for group in optimizer.param_groups:
                group["lr"] = lr * factor
            optimizer.step()

    def lr_factor(self, step: int) -> float:
        """Linear warm-up times a cosine that ends at final_lr."""
        warmup = min(1.0, (step + 1) / max(1, self.config.warmup_steps))
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.total_steps)))
        return warmup * (self.config.final_lr + (1 - self.config.final_lr) * cosine)


def gradient_norm_(parameters: Iterable[nn.Parameter], limit: float) -> float:
    """Clip gradients in place to a total norm of `limit`; returns the norm before."""
    return float(nn.utils.clip_grad_norm_(parameters, limit))


@torch.no_grad()
def follow_(average: nn.Module, model: nn.Module, step: int, ema_decay: float) -> None:
    """Move an average's weights towards those of the network, faster in the first steps; buffers are copied."""
    decay = min(ema_decay, (1 + step) / (10 + step))
    for ours, theirs in zip(average.parameters(), model.parameters(), strict=True):
        ours.lerp_(theirs, 1 - decay)
    for ours, theirs in zip(average.buffers(), model.buffers(), strict=True):
        ours.copy_(theirs)

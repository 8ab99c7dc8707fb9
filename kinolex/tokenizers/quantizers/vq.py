"""Vector quantization: every latent becomes the nearest of a learned set of codes.

    latents_BDthw --nearest by squared distance--> ids_BQthw --codebook--> codes_BDthw

Codes follow their latents by gradient (MAGVIT) or by a moving average; a code that nobody has used for a while is moved
onto a latent of the current batch, so that the codebook does not die.

Source: van den Oord et al. 2017, arXiv 1711.00937; losses of MAGVIT, papers.md section 2.3; revival after Dhariwal et
al. 2020, arXiv 2005.00341.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinolex.errors import ConfigError
from kinolex.tokenizers.quantizers.base import (
    Quantized,
    check_ids,
    check_latents,
    mean_over_processes,
    straight_through,
    sum_over_processes_,
    world_size,
)

DISTANCES_PER_CHUNK = 2**24
"""Distances held at once outside training: 64 MB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VQConfig:
    codebook_size: int
    dim: int
    """Width of a code; few dimensions keep more codes alive."""
    normalise: bool = False
    """Compare directions only: latents and codes are put on the unit sphere."""
    ema_decay: float | None = None
    """Codes follow their latents by this moving average instead of by gradient."""
    revive_after: int = 100
    """Training steps without use after which a code is replaced; 0 never replaces."""
    lloyd_steps: int = 0
    """Iterations of k-means over the first training batch, from which the codes start."""
    entropy_temperature: float | None = None
    """If set, entropy losses over a softmax of -distance / temperature, as in MAGVIT (0.01 there)."""

    def __post_init__(self) -> None:
        if self.codebook_size < 2 or self.dim < 1:
            raise ConfigError(f"need codebook_size >= 2 and dim >= 1, got {self.codebook_size} and {self.dim}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ConfigError(f"ema_decay must lie between 0 and 1, got {self.ema_decay}")
        if self.lloyd_steps < 0:
            raise ConfigError(f"lloyd_steps cannot be below 0, got {self.lloyd_steps}")

    @property
    def vocab_size(self) -> int:
        return self.codebook_size


class VectorQuantizer(nn.Module):
    """Learned codebook_VD, initialised from the first training batch."""

    codebook: Tensor
    unused_for_V: Tensor
    is_initialised: Tensor
    ema_count_V: Tensor
    ema_sum_VD: Tensor

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.config = config
        self.latent_dim, self.vocab_size, self.num_levels = config.dim, config.codebook_size, 1
        codebook_VD = torch.randn(config.codebook_size, config.dim) * config.dim**-0.5
        if config.ema_decay is None:
            self.codebook = nn.Parameter(codebook_VD)
        else:
            self.register_buffer("codebook", codebook_VD)
            self.register_buffer("ema_count_V", torch.ones(config.codebook_size))
            self.register_buffer("ema_sum_VD", codebook_VD.clone())
        self.register_buffer("unused_for_V", torch.zeros(config.codebook_size, dtype=torch.int64))
        self.register_buffer("is_initialised", torch.zeros((), dtype=torch.bool))

    def forward(self, latents_BDthw: Tensor) -> Quantized:
        """ids_BQthw has Q = 1; losses commitment and codebook are mean squared distances."""
        check_latents(latents_BDthw, self.latent_dim)
        with torch.autocast(latents_BDthw.device.type, enabled=False):
            shape = latents_BDthw.shape
            z_MD = rearrange(latents_BDthw.float(), "b d t h w -> (b t h w) d")
            if self.config.normalise:
                z_MD = F.normalize(z_MD, dim=1)
            # A batch that is not finite is skipped by the trainer; it must not leave traces in the codebook either.
            learns = self.training and bool(torch.isfinite(z_MD).all())
            if learns:
                self._start_from(z_MD)
            codes_VD = self._codes()
            ids_M = self._nearest(z_MD, codes_VD)
            chosen_MD = codes_VD[ids_M]
            losses = {}
            if torch.is_grad_enabled():
                losses["commitment"] = (z_MD - chosen_MD.detach()).square().mean()
                losses["codebook"] = (z_MD.detach() - chosen_MD).square().mean()
                losses |= self._entropies(z_MD, codes_VD)
            if learns:
                self._maintain(z_MD.detach(), ids_M)
            passed_MD = straight_through(z_MD, chosen_MD)
        sizes = {"b": shape[0], "t": shape[2], "h": shape[3], "w": shape[4]}
        return Quantized(
            rearrange(passed_MD, "(b t h w) d -> b d t h w", **sizes).to(latents_BDthw.dtype),
            rearrange(ids_M, "(b t h w) -> b 1 t h w", **sizes),
            losses,
        )

    def latents_from_ids(self, ids_BQthw: Tensor) -> Tensor:
        """Codes, float32. Raises TokenError for ids outside the codebook."""
        check_ids(ids_BQthw, self.vocab_size, self.num_levels)
        return rearrange(self._codes()[ids_BQthw[:, 0]], "b t h w d -> b d t h w")

    def _codes(self) -> Tensor:
        codes_VD = self.codebook.float()
        return F.normalize(codes_VD, dim=1) if self.config.normalise else codes_VD

    @torch.no_grad()
    def _nearest(self, z_MD: Tensor, codes_VD: Tensor) -> Tensor:
        rows = max(1, DISTANCES_PER_CHUNK // self.vocab_size)
        # |z - c|^2 without |z|^2, which does not change the order.
        lengths_V = codes_VD.square().sum(dim=1)
        return torch.cat([(lengths_V - 2.0 * part @ codes_VD.T).argmin(dim=1) for part in z_MD.split(rows)])

    def _entropies(self, z_MD: Tensor, codes_VD: Tensor) -> dict[str, Tensor]:
        if self.config.entropy_temperature is None:
            return {}
        log_q_MV = F.log_softmax(-torch.cdist(z_MD, codes_VD).square() / self.config.entropy_temperature, dim=1)
        q_MV = log_q_MV.exp()
        sample = mean_over_processes(-(q_MV * log_q_MV).sum(dim=1).mean())
        mean_V = mean_over_processes(q_MV.mean(dim=0))
        return {"entropy_sample": sample, "entropy_batch": -(mean_V * mean_V.clamp_min(1e-12).log()).sum()}

    @torch.no_grad()
    def _start_from(self, z_MD: Tensor) -> None:
        if bool(self.is_initialised):
            return
        drawn_VD = self._draw(z_MD, self.vocab_size)
        # Equal draws would tie for ever; a little noise tells them apart.
        drawn_VD = drawn_VD + torch.randn_like(drawn_VD) * drawn_VD.std().clamp_min(1e-4) * 0.01
        self._same_everywhere(drawn_VD)
        for _ in range(self.config.lloyd_steps):
            drawn_VD = self._centres(z_MD, drawn_VD)
        self.codebook.data.copy_(drawn_VD)
        if self.config.ema_decay is not None:
            self.ema_sum_VD.copy_(drawn_VD)
        self.is_initialised.fill_(True)

    def _centres(self, z_MD: Tensor, codes_VD: Tensor) -> Tensor:
        """One iteration of k-means: the mean of the latents nearest to each code; a code without any stays."""
        ids_M = self._nearest(z_MD, codes_VD)
        counts_V = sum_over_processes_(torch.bincount(ids_M, minlength=self.vocab_size).float())
        sums_VD = sum_over_processes_(torch.zeros_like(codes_VD).index_add_(0, ids_M, z_MD))
        means_VD = sums_VD / counts_V.clamp_min(1).unsqueeze(1)
        return torch.where(counts_V.unsqueeze(1) > 0, means_VD, codes_VD)

    @torch.no_grad()
    def _maintain(self, z_MD: Tensor, ids_M: Tensor) -> None:
        counts_V = sum_over_processes_(torch.bincount(ids_M, minlength=self.vocab_size).float())
        if self.config.ema_decay is not None:
            self._follow(z_MD, ids_M, counts_V, self.config.ema_decay)
        self.unused_for_V.add_(1)
        self.unused_for_V[counts_V > 0] = 0
        dead_V = self.unused_for_V >= self.config.revive_after
        if not self.config.revive_after or not bool(dead_V.any()):
            return
        fresh_ND = self._draw(z_MD, int(dead_V.sum()))
        self._same_everywhere(fresh_ND)
        self.codebook.data[dead_V] = fresh_ND
        if self.config.ema_decay is not None:
            self.ema_count_V[dead_V], self.ema_sum_VD[dead_V] = 1.0, fresh_ND
        self.unused_for_V[dead_V] = 0

    def _follow(self, z_MD: Tensor, ids_M: Tensor, counts_V: Tensor, decay: float) -> None:
        sums_VD = torch.zeros_like(self.ema_sum_VD).index_add_(0, ids_M, z_MD)
        sum_over_processes_(sums_VD)
        self.ema_count_V.mul_(decay).add_(counts_V, alpha=1 - decay)
        self.ema_sum_VD.mul_(decay).add_(sums_VD, alpha=1 - decay)
        self.codebook.copy_(self.ema_sum_VD / self.ema_count_V.clamp_min(1e-5).unsqueeze(1))

    def _draw(self, z_MD: Tensor, number: int) -> Tensor:
        joined_MD = z_MD
        if world_size() > 1:
            parts = [torch.empty_like(z_MD) for _ in range(world_size())]
            dist.all_gather(parts, z_MD.contiguous())
            joined_MD = torch.cat(parts)
        return joined_MD[torch.randint(len(joined_MD), (number,), device=z_MD.device)]

    def _same_everywhere(self, values: Tensor) -> None:
        if world_size() > 1:
            dist.broadcast(values, src=0)

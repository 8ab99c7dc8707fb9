"""Lookup-free quantization: every latent channel becomes one bit, so no codebook is searched.

    latents_BDthw --sign--> signs_BDthw --bits--> ids_BQthw        (decoder side: ids -> signs)

The entropy losses make each token certain and all tokens together diverse:

    entropy_sample = E[H(q(z))]     entropy_batch = H(E[q(z)])     the trainer minimises sample - batch

q(z) is a softmax over -inverse_temperature * |z - code|^2, which is a product of independent bits with
p(bit = 1) = sigmoid(4 * inverse_temperature * scale * z). The sample entropy is a sum over bits and exact for any
number of bits; the batch entropy
is exact within groups of bits, whose joint distributions are 2^group wide: memory grows with the group, not with
2^bits.

Source: Yu et al. 2023, arXiv 2310.05737; papers.md section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
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
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LFQConfig:
    """Everything needed to rebuild the quantizer; saved as JSON beside the weights."""

    num_bits: int
    """Bits per token. The vocabulary has 2**num_bits entries."""
    entropy_group: int = 9
    """Bits whose joint distribution the batch entropy looks at; memory grows with 2**entropy_group per token."""
    inverse_temperature: float = 1.0
    """Sharpness of the soft assignment that the entropies see."""
    spherical: bool = False
    """Put latents and codes on the unit sphere (binary spherical quantization, Zhao et al. 2024, arXiv 2406.07548)."""

    def __post_init__(self) -> None:
        if not 1 <= self.num_bits <= 48:
            raise ConfigError(f"num_bits must be in 1..48, got {self.num_bits}")
        if not 1 <= self.entropy_group <= 14:
            raise ConfigError(
                f"entropy_group must be in 1..14 (memory is 2**group per token), got {self.entropy_group}"
            )
        if self.inverse_temperature <= 0:
            raise ConfigError(f"inverse_temperature must be positive, got {self.inverse_temperature}")

    @property
    def vocab_size(self) -> int:
        return 2**self.num_bits


class LookupFreeQuantizer(nn.Module):
    """One bit per channel; codes are -1 and +1 (or +-1/sqrt(bits) when spherical)."""

    shifts: Tensor

    def __init__(self, config: LFQConfig) -> None:
        super().__init__()
        self.config = config
        self.latent_dim, self.vocab_size, self.num_levels = config.num_bits, config.vocab_size, 1
        self.scale = config.num_bits**-0.5 if config.spherical else 1.0
        shifts_D = torch.arange(config.num_bits)
        self.register_buffer("shifts", rearrange(shifts_D, "d -> 1 d 1 1 1"), persistent=False)

    def forward(self, latents_BDthw: Tensor) -> Quantized:
        """ids_BQthw has Q = 1, least significant bit first channel; zero counts as -1."""
        check_latents(latents_BDthw, self.latent_dim)
        with torch.autocast(latents_BDthw.device.type, enabled=False):
            z_BDthw = latents_BDthw.float()
            if self.config.spherical:
                z_BDthw = F.normalize(z_BDthw, dim=1)
            bits_BDthw = z_BDthw > 0
            codes_BDthw = (2.0 * bits_BDthw - 1.0) * self.scale
            ids_B1thw = (bits_BDthw.long() << self.shifts).sum(dim=1, keepdim=True)
            passed_BDthw = straight_through(z_BDthw, codes_BDthw)
            losses = {}
            if torch.is_grad_enabled():
                losses = {"commitment": (z_BDthw - codes_BDthw).square().mean(), **self.entropies(z_BDthw)}
        return Quantized(passed_BDthw.to(latents_BDthw.dtype), ids_B1thw, losses)

    def entropies(self, z_BDthw: Tensor) -> dict[str, Tensor]:
        """Mean entropy of a token and entropy of the mean token, in nats, float32."""
        # Softmax over -(z - s)^2 for s = +-scale leaves a logit of 4 * scale * z between the two signs.
        logits_MD = rearrange(z_BDthw, "b d t h w -> (b t h w) d") * (
            4.0 * self.scale * self.config.inverse_temperature
        )
        sample = _bit_entropy(logits_MD).sum(dim=1).mean()
        batch = sum(self._group_entropy(group_MG) for group_MG in logits_MD.split(self.config.entropy_group, dim=1))
        return {"entropy_sample": mean_over_processes(sample), "entropy_batch": batch}  # type: ignore[dict-item]

    def _group_entropy(self, logits_MG: Tensor) -> Tensor:
        joint_MV = logits_MG.new_zeros(len(logits_MG), 1)
        for logit_M in logits_MG.unbind(dim=1):
            pair_M2 = torch.stack([F.logsigmoid(-logit_M), F.logsigmoid(logit_M)], dim=1)
            joint_MV = rearrange(joint_MV.unsqueeze(1) + pair_M2.unsqueeze(2), "m two v -> m (two v)")
        mean_V = mean_over_processes(joint_MV.exp().mean(dim=0))
        return -(mean_V * mean_V.clamp_min(1e-12).log()).sum()

    def latents_from_ids(self, ids_BQthw: Tensor) -> Tensor:
        """Codes of -1 and +1 (scaled when spherical), float32. Raises TokenError for ids outside the vocabulary."""
        check_ids(ids_BQthw, self.vocab_size, self.num_levels)
        bits_BDthw = (ids_BQthw >> self.shifts) & 1
        return (2.0 * bits_BDthw - 1.0) * self.scale


def _bit_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of a bit with p(1) = sigmoid(logit)."""
    probability = torch.sigmoid(logits)
    return F.softplus(logits) - probability * logits

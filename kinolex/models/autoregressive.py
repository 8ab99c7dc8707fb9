"""The baseline that makes one token after the other: a prefix language model over the same tokens, tasks and words.

    [task, words ...] [condition, HIDDEN where nothing is known] [start, token 0, token 1 ...]
     `---------------- each sees all of this --------------'      `-- sees that and what came before --' --> next token

The prefix is computed once; the tokens after it read its keys and values from a cache, in training as in sampling. A
token that is to be predicted and the condition's token of the same place have the same rotary position.

Source: VideoPoet, arXiv 2312.14125, section 3 (prefix language model); compared with in MAGVIT, arXiv 2212.05199.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinolex.layers.attention import KeyValueCache, TransformerBlock, rotary_angles
from kinolex.masks import HIDDEN
from kinolex.models.factors import FactoredTokens, split_ids
from kinolex.models.places import FOURIER, STD, Prefix, check_sizes, grid_places, grid_shares, initialise, waves

CONDITION, TARGET = 0, 1
"""Rows of the table that tells the two copies of the grid apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoregressiveConfig:
    """Everything needed to rebuild the network; fields mean what they mean in MaskedConfig."""

    tokenizer: str
    """Fingerprint of the tokenizer whose ids these are."""
    factors: tuple[int, ...]
    width: int
    depth: int
    heads: int
    tasks: tuple[str, ...]
    words: tuple[str, ...] = ()
    max_words: int = 1
    latent_frames: int
    marks_first: bool = True
    chained: bool = True
    digits: tuple[int, ...] = ()
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_sizes("an autoregressive transformer", self)


class AutoregressiveTransformer(nn.Module):
    def __init__(self, config: AutoregressiveConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.tokens = FactoredTokens(config.factors, width, chained=config.chained, digits=config.digits)
        self.prefix = Prefix(config)
        self.copies = nn.Parameter(STD * torch.randn(2, width))
        self.first_mark = nn.Parameter(STD * torch.randn(width)) if config.marks_first else None
        self.whereabouts = nn.Linear(6 * FOURIER, width)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, config.heads, post_norm=False, normalised=True, dropout=config.dropout)
            for _ in range(config.depth)
        )
        self.norm_out = nn.LayerNorm(width)
        initialise(self)

    @torch.no_grad()
    def folded(self) -> AutoregressiveTransformer:
        """The same function with the digits' parts added to the rows of ids: they need not be added for every token."""
        if not self.config.digits:
            return self
        like = next(self.parameters())
        network = AutoregressiveTransformer(replace(self.config, digits=())).to(like.device, like.dtype)
        weights = {name: value for name, value in self.state_dict().items() if ".digit_tables." not in name}
        for factor in range(len(self.config.factors)):
            weights[f"tokens.tables.{factor}"] = self.tokens.table(factor)
        network.load_state_dict(weights)
        return network.train(self.training).requires_grad_(like.requires_grad)

    def read_condition(
        self, condition_Bthw: Tensor, tasks_B: Tensor, words_BP: Tensor, first_B: Tensor, cache: KeyValueCache
    ) -> None:
        """Fill an empty cache with what is given.

        Args:
            condition_Bthw: int64 ids of the tokenizer, HIDDEN where nothing is known.
            tasks_B: index into config.tasks.
            words_BP: index into config.words plus one, 0 where nothing is said; P is config.max_words.
            first_B: bool, whether the grid begins a stream of a causal tokenizer.
        """
        grid = (condition_Bthw.shape[1], condition_Bthw.shape[2], condition_Bthw.shape[3])
        places_L3 = grid_places(*grid, condition_Bthw.device)
        ids_BLF = split_ids(rearrange(condition_Bthw, "b t h w -> b (t h w)"), self.config.factors)
        tokens_BLD = self._placed(ids_BLF, places_L3, grid, first_B, CONDITION)
        hidden_BLD = torch.cat([self.prefix(tasks_B, words_BP), tokens_BLD], dim=1)
        angles_LJ = self._angles(torch.cat([self.prefix.places(), places_L3]))
        for block in self.blocks:
            hidden_BLD = block(hidden_BLD, angles_LJ, None, cache)

    def read_tokens(
        self, before_BMF: Tensor, start: int, grid: tuple[int, int, int], first_B: Tensor, cache: KeyValueCache
    ) -> Tensor:
        """Features [B, M, D] that predict the tokens start ... start + M - 1 in t, h, w order.

        Args:
            before_BMF: factors of the token before each of them; HIDDEN before the first of all.
            cache: of the condition and of the tokens before start; takes these in.
        """
        length = before_BMF.shape[1]
        places_M3 = grid_places(*grid, before_BMF.device)[start : start + length]
        hidden_BMD = self._placed(before_BMF, places_M3, grid, first_B, TARGET)
        angles_MJ = self._angles(places_M3)
        mask_ML = None
        if length > 1:
            seen_M = cache.length + 1 + torch.arange(length, device=before_BMF.device)
            mask_ML = torch.arange(cache.length + length, device=before_BMF.device) < seen_M[:, None]
        for block in self.blocks:
            hidden_BMD = block(hidden_BMD, angles_MJ, mask_ML, cache)
        return self.norm_out(hidden_BMD)

    def hidden(
        self, target_BLF: Tensor, condition_Bthw: Tensor, tasks_B: Tensor, words_BP: Tensor, first_B: Tensor
    ) -> Tensor:
        """Features [B, L, D] that predict every token, each from the tokens before it; other arguments as above."""
        grid = (condition_Bthw.shape[1], condition_Bthw.shape[2], condition_Bthw.shape[3])
        cache = KeyValueCache()
        self.read_condition(condition_Bthw, tasks_B, words_BP, first_B, cache)
        return self.read_tokens(shifted(target_BLF), 0, grid, first_B, cache)

    def logits(self, hidden_BLD: Tensor, factor: int, chosen_BLF: Tensor | None = None) -> Tensor:
        """Float32 logits [B, L, V] of one factor; chosen_BLF has at least the factors before it."""
        return self.tokens.logits(hidden_BLD, factor, chosen_BLF)

    def forward(
        self,
        target_BLF: Tensor,
        condition_Bthw: Tensor,
        tasks_B: Tensor,
        words_BP: Tensor,
        first_B: Tensor,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Cross-entropy [B, L] in nats of the target ids' factors, over all factors together."""
        hidden_BLD = self.hidden(target_BLF, condition_Bthw, tasks_B, words_BP, first_B)
        total_BL = hidden_BLD.new_zeros(hidden_BLD.shape[:2], dtype=torch.float32)
        for factor in range(len(self.config.factors)):
            logits_BVL = rearrange(self.logits(hidden_BLD, factor, target_BLF), "b l v -> b v l")
            total_BL = total_BL + F.cross_entropy(
                logits_BVL, target_BLF[..., factor], reduction="none", label_smoothing=label_smoothing
            )
        return total_BL

    def _placed(
        self, ids_BLF: Tensor, places_L3: Tensor, grid: tuple[int, int, int], first_B: Tensor, copy: int
    ) -> Tensor:
        tokens_BLD = self.tokens.embed(ids_BLF) + self.copies[copy]
        if self.first_mark is not None:
            in_first_L = places_L3[:, 0] == 0
            tokens_BLD = tokens_BLD + (first_B[:, None] & in_first_L)[..., None] * self.first_mark
        return tokens_BLD + self.whereabouts(waves(grid_shares(places_L3, grid)).to(tokens_BLD.dtype))

    def _angles(self, places_L3: Tensor) -> Tensor:
        return rotary_angles(places_L3, self.config.width // self.config.heads)


def shifted(ids_BLF: Tensor) -> Tensor:
    """What stands before each token: HIDDEN before the first."""
    return torch.cat([torch.full_like(ids_BLF[:, :1], HIDDEN), ids_BLF[:, :-1]], dim=1)

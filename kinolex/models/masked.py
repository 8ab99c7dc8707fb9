"""MAGVIT's transformer: a grid of tokens, some of them hidden, and what is wanted in words -> logits for every token.

    [task, words ...] [tokens in t, h, w order] --bidirectional transformer--> hidden --heads--> logits

One network serves every task and any grid: positions are rotary in time, rows and columns, and each token is also told
where it lies in the whole. The paper's presets (learned positions, norms after the layers, one class) are built from
the same class and counted in the tests.

Source: MAGVIT, arXiv 2212.05199; factorised tokens: MAGVIT-v2, arXiv 2310.05737.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinolex.errors import ConfigError, ShapeError
from kinolex.layers.attention import TransformerBlock, rotary_angles
from kinolex.models.factors import FactoredTokens, split_ids
from kinolex.models.places import FOURIER, check_sizes, grid_places, grid_shares, initialise, waves


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskedConfig:
    """Everything needed to rebuild the network; saved as JSON beside the weights."""

    tokenizer: str
    """Fingerprint of the tokenizer whose ids these are."""
    factors: tuple[int, ...]
    """Sizes of the factors of an id; their product is the tokenizer's vocabulary."""
    width: int
    depth: int
    heads: int
    tasks: tuple[str, ...]
    """Names, in the order of their ids."""
    words: tuple[str, ...] = ()
    """What classes and captions are made of, in the order of their ids."""
    max_words: int = 1
    """Of one caption; a class is a caption of one word, an unknown one has none."""
    latent_frames: int
    """Of the windows it was trained on; longer videos are made window by window."""
    marks_first: bool = True
    """Tell the network which windows begin a causal stream: their first latent frame holds a single frame."""
    chained: bool = True
    """Predict each factor of an id with those before it known."""
    digits: tuple[int, ...] = ()
    """What ids are numbers of, least significant first; see FactoredTokens."""
    learned_positions: int = 0
    """Positions with an embedding each, for one grid only, instead of rotary ones: the paper's."""
    post_norm: bool = False
    dropout: float = 0.0
    lines: int = 128
    """Short side of the pictures that it was trained on."""

    def __post_init__(self) -> None:
        check_sizes("a masked transformer", self)
        if self.learned_positions < 0:
            raise ConfigError(f"learned_positions must not be negative, got {self.learned_positions}")


def _sizes(width: int, depth: int, heads: int) -> dict[str, Any]:
    return {"width": width, "depth": depth, "heads": heads}


PAPER: dict[str, Any] = {
    "factors": (1024,),
    "tasks": ("generation", "frame-prediction", "frame-interpolation", "outpaint", "inpaint"),
    "latent_frames": 4,
    "marks_first": False,
    "chained": False,
    "learned_positions": 1024,
    "post_norm": True,
    "dropout": 0.1,
}
FSQ: dict[str, Any] = {"factors": (512, 512), "digits": (8,) * 6}
"""Six digits of eight levels, as of magvit2-nano."""
PRESETS: dict[str, dict[str, Any]] = {
    "paper-B": PAPER | _sizes(768, 12, 12),
    "paper-L": PAPER | _sizes(1024, 24, 16),
    "small": FSQ | {"latent_frames": 5} | _sizes(512, 12, 8),
    "nano": FSQ | {"latent_frames": 5} | _sizes(256, 6, 4),
}
"""Fields of MaskedConfig; tokenizer, and tasks and words where they are missing, come from the recipe."""


class MaskedTransformer(nn.Module):
    def __init__(self, config: MaskedConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.tokens = FactoredTokens(config.factors, width, chained=config.chained, digits=config.digits)
        self.task_table = nn.Parameter(0.02 * torch.randn(len(config.tasks), width))
        # Row 0 is "nothing said".
        self.word_table = nn.Parameter(0.02 * torch.randn(len(config.words) + 1, width))
        self.slots = nn.Parameter(0.02 * torch.randn(1 + config.max_words, width))
        self.first_mark = nn.Parameter(0.02 * torch.randn(width)) if config.marks_first else None
        if config.learned_positions:
            self.places = nn.Parameter(0.02 * torch.randn(config.learned_positions, width))
            self.whereabouts = None
        else:
            self.places = None
            self.whereabouts = nn.Linear(6 * FOURIER, width)
        self.norm_in = nn.LayerNorm(width) if config.post_norm else None
        self.blocks = nn.ModuleList(
            TransformerBlock(
                width,
                config.heads,
                post_norm=config.post_norm,
                normalised=not config.post_norm,
                dropout=config.dropout,
            )
            for _ in range(config.depth)
        )
        self.norm_out = None if config.post_norm else nn.LayerNorm(width)
        initialise(self)

    def hidden(self, ids_Bthw: Tensor, tasks_B: Tensor, words_BP: Tensor, first_B: Tensor) -> Tensor:
        """Features [B, L, D] of every position, in t, h, w order.

        Args:
            ids_Bthw: int64 ids of the tokenizer, HIDDEN where nothing is known.
            tasks_B: index into config.tasks.
            words_BP: index into config.words plus one, 0 where nothing is said; P is config.max_words.
            first_B: bool, whether the grid begins a stream of a causal tokenizer.

        Raises:
            ShapeError: a grid that does not fit learned positions.
        """
        _, time, height, width = ids_Bthw.shape
        grid_BLF = split_ids(rearrange(ids_Bthw, "b t h w -> b (t h w)"), self.config.factors)
        tokens_BLD = self.tokens.embed(grid_BLF)
        if self.first_mark is not None:
            mark_BLD = first_B[:, None, None] * self.first_mark
            in_first_L = torch.arange(tokens_BLD.shape[1], device=ids_Bthw.device) < height * width
            tokens_BLD = tokens_BLD + mark_BLD * in_first_L[:, None]
        angles_LJ = None
        if self.places is not None:
            if tokens_BLD.shape[1] != len(self.places):
                raise ShapeError(
                    f"this network has positions for {len(self.places)} tokens, got a grid of {time}x{height}x{width}"
                )
            tokens_BLD = tokens_BLD + self.places
        else:
            places_L3 = grid_places(time, height, width, ids_Bthw.device)
            shares_L3 = grid_shares(places_L3, (time, height, width))
            tokens_BLD = tokens_BLD + self.whereabouts(waves(shares_L3))  # type: ignore[misc]
            before_P3 = places_L3.new_full((len(self.slots), 3), -1.0)
            angles_LJ = rotary_angles(torch.cat([before_P3, places_L3]), self.config.width // self.config.heads)
        prefix_BPD = torch.cat([self.task_table[tasks_B][:, None], F.embedding(words_BP, self.word_table)], dim=1)
        hidden_BLD = torch.cat([prefix_BPD + self.slots, tokens_BLD], dim=1)
        if self.norm_in is not None:
            hidden_BLD = self.norm_in(hidden_BLD)
        for block in self.blocks:
            hidden_BLD = block(hidden_BLD, angles_LJ)
        hidden_BLD = hidden_BLD[:, len(self.slots) :]
        return hidden_BLD if self.norm_out is None else self.norm_out(hidden_BLD)

    def logits(self, hidden_BLD: Tensor, factor: int, chosen_BLF: Tensor | None = None) -> Tensor:
        """Float32 logits [B, L, V] of one factor; chosen_BLF has at least the factors before it."""
        return self.tokens.logits(hidden_BLD, factor, chosen_BLF)

    def forward(
        self,
        ids_Bthw: Tensor,
        tasks_B: Tensor,
        words_BP: Tensor,
        first_B: Tensor,
        target_BLF: Tensor,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Cross-entropy [B, L] in nats with the target ids' factors, over all factors together."""
        hidden_BLD = self.hidden(ids_Bthw, tasks_B, words_BP, first_B)
        total_BL = hidden_BLD.new_zeros(hidden_BLD.shape[:2], dtype=torch.float32)
        for factor in range(len(self.config.factors)):
            logits_BLV = self.logits(hidden_BLD, factor, target_BLF)
            total_BL = total_BL + F.cross_entropy(
                rearrange(logits_BLV, "b l v -> b v l"),
                target_BLF[..., factor],
                reduction="none",
                label_smoothing=label_smoothing,
            )
        return total_BL

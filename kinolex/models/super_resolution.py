"""Tokens of a small picture and of one twice its size, some of these hidden -> logits for every token of the large one.

    large ids [t, 2h, 2w] --embed--> block: vertical, horizontal, temporal layer --> ... --heads--> logits
    small ids [t, h, w]   --embed------------^--------^-----------^

Every layer cuts the grid into windows of its own: tall ones, wide ones, or ones through time. Within a window tokens
look at one another, then at the small tokens beneath the same window, then pass a perceptron. Windows have fixed sizes,
so memory and arithmetic grow with the number of tokens and no faster. Positions are rotary and count from the corner of
a window: nothing depends on how large the picture is.

Source: VideoPoet, arXiv 2312.14125, section 3.4; masked objective: MAGVIT, arXiv 2212.05199.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from kinolex.errors import ConfigError, ShapeError
from kinolex.layers.attention import Attention, plain_attention, rotary_angles, rotate
from kinolex.models.factors import FactoredTokens, split_ids
from kinolex.models.places import STD, grid_places, initialise

FACTOR = 2
"""Rows and columns of large tokens for each of the small ones; in time there are as many."""
LAYERS = ("vertical", "horizontal", "temporal")
"""Of a block, in turn; names of fields with their windows."""

Size3 = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class SuperResolutionConfig:
    """Everything needed to rebuild the network; saved as JSON beside the weights."""

    tokenizer: str
    """Fingerprint of the tokenizer whose ids these are, the small ones and the large ones."""
    factors: tuple[int, ...]
    """Sizes of the factors of an id; their product is the tokenizer's vocabulary."""
    width: int
    depth: int
    """Blocks, of three layers each."""
    heads: int
    vertical: tuple[int, int, int]
    """Latent frames, rows and columns of large tokens in a window of the first layer of every block."""
    horizontal: tuple[int, int, int]
    temporal: tuple[int, int, int]
    latent_frames: int
    """Of the stretches that it was trained on; longer videos are made stretch by stretch."""
    marks_first: bool = True
    """Tell the network which tokens begin a causal stream: their latent frame holds a single frame."""
    beneath: bool = True
    """Add to each large token the small one beneath it, which cross-attention would have to find first."""
    chained: bool = True
    """Predict each factor of an id with those before it known."""
    digits: tuple[int, ...] = ()
    """What ids are numbers of, least significant first; see FactoredTokens."""

    def __post_init__(self) -> None:
        sizes = (self.width, self.depth, self.heads, self.latent_frames)
        if min(sizes) < 1 or self.width % (2 * self.heads) or not self.factors:
            raise ConfigError(
                "super-resolution needs factors, positive sizes and an even width per head; got width "
                f"{self.width}, depth {self.depth}, {self.heads} heads, factors {self.factors}, {self.latent_frames} "
                "latent frames"
            )
        for name in LAYERS:
            window = getattr(self, name)
            if min(window) < 1 or window[1] % FACTOR or window[2] % FACTOR:
                raise ConfigError(
                    f"the {name} window {window} needs a latent frame and whole small tokens beneath it: rows and "
                    f"columns must be multiples of {FACTOR}"
                )


FACTORS: dict[str, Any] = {"factors": (512, 512), "chained": False, "beneath": False, "latent_frames": 5}
PRESETS: dict[str, dict[str, Any]] = {
    "paper-448x256": FACTORS
    | {"width": 2048, "depth": 5, "heads": 16}
    | {"vertical": (1, 56, 4), "horizontal": (1, 8, 32), "temporal": (5, 8, 8)},
    "paper-896x512": FACTORS
    | {"width": 1600, "depth": 4, "heads": 20}
    | {"vertical": (1, 112, 2), "horizontal": (1, 4, 64), "temporal": (5, 8, 8)},
    "nano": {"factors": (64, 64), "digits": (4,) * 6, "latent_frames": 5}
    | {"width": 128, "depth": 2, "heads": 4}
    | {"vertical": (1, 16, 4), "horizontal": (1, 4, 16), "temporal": (5, 4, 4)},
}
"""Fields of SuperResolutionConfig without the tokenizer. Of the paper's stages windows, tokens and factors are
published, and that they have about 1B and 500M parameters; width, depth and heads are chosen to make that many."""


class SuperResolution(nn.Module):
    def __init__(self, config: SuperResolutionConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.tokens = FactoredTokens(config.factors, width, chained=config.chained, digits=config.digits)
        self.small_in, self.small_norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.quarters = nn.Parameter(STD * torch.randn(FACTOR, FACTOR, width)) if config.beneath else None
        self.first_mark = nn.Parameter(STD * torch.randn(width)) if config.marks_first else None
        self.blocks = nn.ModuleList(
            WindowLayer(width, config.heads, getattr(config, name)) for _ in range(config.depth) for name in LAYERS
        )
        self.norm_out = nn.LayerNorm(width)
        initialise(self)

    def hidden(self, ids_Bthw: Tensor, small_Bthw: Tensor, first_B: Tensor) -> Tensor:
        """Features [B, L, D] of every large token, in t, h, w order.

        Args:
            ids_Bthw: int64 ids of the large picture, HIDDEN where nothing is known.
            small_Bthw: those of the small one; HIDDEN says nothing.
            first_B: bool, whether the grid begins a stream of a causal tokenizer.

        Raises:
            ShapeError: the large grid does not have twice the rows and columns of the small one.
        """
        batch, time, rows, columns = small_Bthw.shape
        if ids_Bthw.shape != (batch, time, FACTOR * rows, FACTOR * columns):
            raise ShapeError(
                f"small tokens {tuple(small_Bthw.shape)} need as many large ones with rows and columns times {FACTOR}, "
                f"got {tuple(ids_Bthw.shape)}"
            )
        large_BthwD, small_BthwD = self._embedded(ids_Bthw), self.small_norm(self.small_in(self._embedded(small_Bthw)))
        if self.quarters is not None:
            beneath = repeat(small_BthwD, "b t h w d -> b t (h i) (w j) d", i=FACTOR, j=FACTOR)
            large_BthwD = large_BthwD + beneath + self.quarters.repeat(rows, columns, 1)
        if self.first_mark is not None:
            in_first_t = torch.arange(time, device=ids_Bthw.device) == 0
            marked_Bt = first_B[:, None] & in_first_t
            large_BthwD = large_BthwD + marked_Bt[:, :, None, None, None] * self.first_mark
        for layer in self.blocks:
            large_BthwD = layer(large_BthwD, small_BthwD)
        return self.norm_out(rearrange(large_BthwD, "b t h w d -> b (t h w) d"))

    def logits(self, hidden_BLD: Tensor, factor: int, chosen_BLF: Tensor | None = None) -> Tensor:
        """Float32 logits [B, L, V] of one factor; chosen_BLF has at least the factors before it."""
        return self.tokens.logits(hidden_BLD, factor, chosen_BLF)

    def forward(self, ids_Bthw: Tensor, small_Bthw: Tensor, first_B: Tensor, target_BLF: Tensor) -> Tensor:
        """Cross-entropy [B, L] in nats with the target ids' factors, over all factors together."""
        hidden_BLD = self.hidden(ids_Bthw, small_Bthw, first_B)
        total_BL = hidden_BLD.new_zeros(hidden_BLD.shape[:2], dtype=torch.float32)
        for factor in range(len(self.config.factors)):
            logits_BVL = rearrange(self.logits(hidden_BLD, factor, target_BLF), "b l v -> b v l")
            total_BL = total_BL + F.cross_entropy(logits_BVL, target_BLF[..., factor], reduction="none")
        return total_BL

    def _embedded(self, ids_Bthw: Tensor) -> Tensor:
        _, time, rows, _ = ids_Bthw.shape
        factors_BLF = split_ids(rearrange(ids_Bthw, "b t h w -> b (t h w)"), self.config.factors)
        return rearrange(self.tokens.embed(factors_BLF), "b (t h w) d -> b t h w d", t=time, h=rows)


class WindowLayer(nn.Module):
    """Attention within windows, attention to the small tokens beneath them, and a perceptron, each with a skip.

    Args:
        window: latent frames, rows and columns of large tokens; a grid that is smaller is one window.
    """

    def __init__(self, width: int, heads: int, window: Size3, *, expansion: int = 4) -> None:
        super().__init__()
        self.window, self.head_width = window, width // heads
        self.attention = Attention(width, heads, normalised=True, dropout=0.0, fused=False)
        self.cross = CrossAttention(width, heads)
        self.norm_attention, self.norm_cross, self.norm_perceptron = (nn.LayerNorm(width) for _ in range(3))
        self.up, self.down = nn.Linear(width, expansion * width), nn.Linear(expansion * width, width)

    def forward(self, large_BthwD: Tensor, small_BthwD: Tensor) -> Tensor:
        batch, time, rows, columns, _ = large_BthwD.shape
        cut = Cut.of((time, rows, columns), self.window)
        length, high, wide = cut.window
        # Windows of the small grid begin where those of the large one do, since all sizes are even.
        small_cut = Cut((time, rows // FACTOR, columns // FACTOR), (length, high // FACTOR, wide // FACTOR))
        inputs_MLD, small_MLD = cut.split(large_BthwD), small_cut.split(small_BthwD)
        places_L3 = grid_places(*cut.window, inputs_MLD.device)
        # A small token lies in the middle of the large ones above it.
        stretch_3 = places_L3.new_tensor([1, FACTOR, FACTOR])
        small_places_L3 = grid_places(*small_cut.window, inputs_MLD.device) * stretch_3 + (stretch_3 - 1) / 2
        angles_LJ, small_angles_LJ = (rotary_angles(p, self.head_width) for p in (places_L3, small_places_L3))
        inputs_MLD = inputs_MLD + self.attention(self.norm_attention(inputs_MLD), angles_LJ, None, None)
        inputs_MLD = inputs_MLD + self.cross(self.norm_cross(inputs_MLD), small_MLD, angles_LJ, small_angles_LJ)
        inputs_MLD = inputs_MLD + self.down(F.gelu(self.up(self.norm_perceptron(inputs_MLD))))
        return cut.join(inputs_MLD, batch)


class CrossAttention(nn.Module):
    """What queries find among other tokens; both turn by the angles of their places."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, inputs_BLD: Tensor, given_BMD: Tensor, angles_LJ: Tensor, given_angles_MJ: Tensor) -> Tensor:
        queries = rearrange(self.query(inputs_BLD), "b l (n k) -> b n l k", n=self.heads)
        keys, values = rearrange(self.key_value(given_BMD), "b m (two n k) -> two b n m k", two=2, n=self.heads)
        queries, keys = (F.rms_norm(heads, heads.shape[-1:]) for heads in (queries, keys))
        queries, keys = rotate(queries, angles_LJ).to(values.dtype), rotate(keys, given_angles_MJ).to(values.dtype)
        if values.device.type == "cpu" and values.dtype == torch.bfloat16:  # as in kinolex.layers.attention
            mixed = plain_attention(queries, keys, values, None)
        else:
            mixed = F.scaled_dot_product_attention(queries, keys, values)
        return self.out(rearrange(mixed, "b n l k -> b l (n k)"))


@dataclass(frozen=True, slots=True)
class Cut:
    """How a grid is cut into windows of one size. Where they do not divide it, the last one begins earlier; what two
    windows cover is taken from the later one."""

    grid: Size3
    window: Size3
    """No larger than the grid."""

    @classmethod
    def of(cls, grid: Size3, window: Size3) -> Cut:
        time, rows, columns = (min(pair) for pair in zip(grid, window, strict=True))
        return cls(grid, (time, rows, columns))

    def split(self, grid_BthwD: Tensor) -> Tensor:
        """Windows of all the batch [M, L, D]."""
        for axis, (size, length) in enumerate(zip(self.grid, self.window, strict=True), start=1):
            if size % length:
                places = [start + offset for start in _starts(size, length) for offset in range(length)]
                grid_BthwD = grid_BthwD.index_select(axis, torch.tensor(places, device=grid_BthwD.device))
        time, rows, columns = self.window
        return rearrange(
            grid_BthwD, "b (i t) (j h) (k w) d -> (b i j k) (t h w) d", t=time, h=rows, w=columns
        ).contiguous()

    def join(self, windows_MLD: Tensor, batch: int) -> Tensor:
        """The inverse of split."""
        counts = [-(-size // length) for size, length in zip(self.grid, self.window, strict=True)]
        time, rows, columns = self.window
        grid_BthwD = rearrange(
            windows_MLD,
            "(b i j k) (t h w) d -> b (i t) (j h) (k w) d",
            b=batch,
            i=counts[0],
            j=counts[1],
            t=time,
            h=rows,
            w=columns,
        )
        for axis, (size, length) in enumerate(zip(self.grid, self.window, strict=True), start=1):
            if size % length:
                starts = _starts(size, length)
                last = len(starts) - 1
                number = [min(place // length, last) for place in range(size)]
                places = [length * n + place - starts[n] for place, n in enumerate(number)]
                grid_BthwD = grid_BthwD.index_select(axis, torch.tensor(places, device=grid_BthwD.device))
        return grid_BthwD


def _starts(size: int, length: int) -> list[int]:
    """Where windows begin on an axis that they do not divide."""
    return [*range(0, size - length, length), size - length]

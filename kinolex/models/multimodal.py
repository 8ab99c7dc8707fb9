"""VideoPoet's transformer: text, pictures and sound in one sequence, of which the end is made token by token.

    [bos, task, what is given ..., begin] [token 0, token 1 ...]          one sequence of kinolex.sequences.Layout
     `-- each sees all of this ---------'  `-- sees that and what came before --'
                                     `--------'-- each predicts the token after it

A position that predicts is told where the next token goes, since the layout says so: its query turns to that place,
while its key stays at the place of the token it holds. Time is counted alike for pictures and sound, so that what
happens together lies together. A head gives logits over the ids that may stand in its place and over no others.

Source: VideoPoet, arXiv 2312.14125, section 3.3 (prefix language model); factorised ids: MAGVIT-v2, arXiv 2310.05737.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kinolex.errors import ConfigError, ShapeError, UsageError
from kinolex.layers.attention import KeyValueCache, TransformerBlock, rotary_angles
from kinolex.masks import HIDDEN
from kinolex.models.factors import FactoredTokens, split_ids
from kinolex.models.places import FOURIER, STD, grid_places, initialise, waves
from kinolex.sequences import Layout, Segment, Span, sound_places
from kinolex.vocab import Vocabulary

KINDS = ("marker", "text", "video", "sound")


@dataclass(frozen=True, kw_only=True, slots=True)
class MultimodalConfig:
    """Everything needed to rebuild the network; saved as JSON beside the weights.

    Raises:
        ConfigError: sizes of which no network can be built.
    """

    video_tokenizer: str
    """Fingerprints of the tokenizers whose ids these are."""
    sound_tokenizer: str
    vocabulary: Vocabulary
    words: tuple[str, ...] = ()
    """The closed list of words whose numbers are the text ids; none where a byte-pair tokenizer made them."""
    width: int
    depth: int
    heads: int
    latent_frames: int
    """Of a clip; longer videos are made window by window."""
    sound_frames: int
    """Of a clip."""
    sound_frames_per_latent: float
    """Frames of sound in the time of one latent frame of video."""
    text_length: int
    """Places for a text; shorter ones are padded."""
    text_features: int = 0
    """Width of a frozen text encoder's embeddings that may stand in place of text ids; 0: none."""
    video_digits: tuple[int, ...] = ()
    """What video ids are numbers of, least significant first; see FactoredTokens."""
    chained: bool = True
    """Predict each factor of a video id with those before it known."""
    dropout: float = 0.0
    lines: int = 64
    """Short side of the pictures that it was trained on."""

    def __post_init__(self) -> None:
        sizes = (self.width, self.depth, self.heads, self.latent_frames, self.sound_frames, self.text_length)
        if min(sizes) < 1 or self.width % (2 * self.heads) or self.text_features < 0:
            raise ConfigError(
                "a multimodal transformer needs positive sizes and an even width per head; got width "
                f"{self.width}, depth {self.depth}, {self.heads} heads, {self.latent_frames} latent frames, "
                f"{self.sound_frames} frames of sound, {self.text_length} places for text"
            )
        if not self.sound_frames_per_latent > 0 or not 0.0 <= self.dropout < 1.0:
            raise ConfigError(
                "sound_frames_per_latent must be above 0 and dropout in 0..1, got "
                f"{self.sound_frames_per_latent} and {self.dropout}"
            )
        if self.words and len(self.words) != self.vocabulary.text_size:
            raise ConfigError(f"{len(self.words)} words cannot be {self.vocabulary.text_size} text ids")


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What the network is told about every token of a layout besides its id."""

    layout: Layout
    about_LD: Tensor
    """Kind, role and place; at positions that predict, of the token after them."""
    query_angles_LJ: Tensor
    key_angles_LJ: Tensor


class MultimodalTransformer(nn.Module):
    """Set `checkpointing` to compute activations again in the backward pass instead of keeping them."""

    def __init__(self, config: MultimodalConfig) -> None:
        super().__init__()
        self.config, self.checkpointing = config, False
        width, vocabulary = config.width, config.vocabulary
        self.markers = nn.Parameter(STD * torch.randn(vocabulary.task.stop, width))
        # One more text id: the end.
        self.text = FactoredTokens((vocabulary.text_size + 1,), width, chained=False)
        self.video = FactoredTokens(vocabulary.factors, width, chained=config.chained, digits=config.video_digits)
        self.sound = nn.ModuleList(
            FactoredTokens((vocabulary.sound_codes,), width, chained=False) for _ in range(vocabulary.sound_levels)
        )
        self.text_map = nn.Linear(config.text_features, width) if config.text_features else None
        self.roles = nn.Parameter(STD * torch.randn(2 * len(KINDS), width))
        self.first_mark = nn.Parameter(STD * torch.randn(width))
        self.levels = nn.Parameter(STD * torch.randn(vocabulary.sound_levels, width))
        self.where_video, self.where_sound = nn.Linear(6 * FOURIER, width), nn.Linear(2 * FOURIER, width)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, config.heads, post_norm=False, normalised=True, dropout=config.dropout, fused=False)
            for _ in range(config.depth)
        )
        self.norm_out = nn.LayerNorm(width)
        initialise(self)

    @torch.no_grad()
    def folded(self) -> MultimodalTransformer:
        """The same function with the digits' parts added to the rows of ids: they need not be added for every token."""
        if not self.config.video_digits:
            return self
        like = self.markers
        network = MultimodalTransformer(replace(self.config, video_digits=())).to(like.device, like.dtype)
        weights = {name: value for name, value in self.state_dict().items() if ".digit_tables." not in name}
        for factor in range(len(self.config.vocabulary.factors)):
            weights[f"video.tables.{factor}"] = self.video.table(factor)
        network.load_state_dict(weights)
        return network.train(self.training).requires_grad_(like.requires_grad)

    def plan(self, layout: Layout) -> Plan:
        """Raises ShapeError for a clip that is longer, or has more levels of sound, than those of the config."""
        places_L3 = _places(layout, self.config.sound_frames_per_latent).to(self.markers.device)
        next_L = torch.arange(layout.stop - 1, device=places_L3.device)
        next_L[layout.prefix - 1 :] += 1
        about_LD = torch.cat([self._about(segment) for segment in layout.segments])
        head_width = self.config.width // self.config.heads
        return Plan(
            layout,
            about_LD[next_L],
            rotary_angles(places_L3[next_L], head_width),
            rotary_angles(places_L3[: layout.stop - 1], head_width),
        )

    def read(
        self,
        ids_BM: Tensor,
        start: int,
        plan: Plan,
        cache: KeyValueCache | None = None,
        text_BPE: Tensor | None = None,
    ) -> Tensor:
        """Features [B, M, D] of the tokens start ... start + M - 1; each predicts the token after its own.

        Args:
            ids_BM: ids of the vocabulary. What is read first holds the whole prefix.
            cache: of the tokens before start; takes these in.
            text_BPE: embeddings in place of the ids of the text that is given.

        Raises:
            UsageError: embeddings for a network without text_features, or none where there must be some.
        """
        length, prefix = ids_BM.shape[1], plan.layout.prefix
        assert start == 0 or cache is not None
        assert start >= prefix or (start == 0 and length >= prefix), "the prefix is read whole"
        here = slice(start, start + length)
        hidden_BMD = self._embed(ids_BM, start, plan.layout, text_BPE) + plan.about_LD[here]
        mask_ML = None
        if length > 1 and start + length > prefix:
            seen_L = torch.arange(start + length, device=ids_BM.device)
            mask_ML = (seen_L < prefix) | (seen_L <= seen_L[here, None])
        angles = plan.query_angles_LJ[here], plan.key_angles_LJ[here]
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                hidden_BMD = checkpoint(block, hidden_BMD, angles[0], mask_ML, cache, angles[1], use_reentrant=False)
            else:
                hidden_BMD = block(hidden_BMD, angles[0], mask_ML, cache, angles[1])
        return self.norm_out(hidden_BMD)

    def hidden(self, ids_BL: Tensor, layout: Layout, text_BPE: Tensor | None = None) -> Tensor:
        """Features [B, M, D] that predict the tokens layout.prefix ... layout.stop - 1, each from those before it."""
        if ids_BL.shape[1:] != (layout.length,):
            raise ShapeError(f"this layout has {layout.length} tokens, got ids of shape {tuple(ids_BL.shape)}")
        hidden_BLD = self.read(ids_BL[:, : layout.stop - 1], 0, self.plan(layout), None, text_BPE)
        return hidden_BLD[:, layout.prefix - 1 :]

    def logits(
        self, hidden_BMD: Tensor, span: Span, first: int, factor: int = 0, chosen_BMF: Tensor | None = None
    ) -> Tensor:
        """Float32 logits [B, M, V] of one factor of some tokens of a span, over what may stand there alone.

        Args:
            hidden_BMD: what predicts them.
            first: the first of them, counted from the span's start.
            chosen_BMF: of video, at least the factors before this one. Factors are numbers within a range: see `own`.
        """
        segment = span.segment
        if segment.kind == "video":
            return self.video.logits(hidden_BMD, factor, chosen_BMF)
        if segment.kind == "text":
            return self.text.logits(hidden_BMD, 0)
        logits_BMV = hidden_BMD.new_empty(
            *hidden_BMD.shape[:2], self.config.vocabulary.sound_codes, dtype=torch.float32
        )
        for head, places_m in self._by_level(segment, first, hidden_BMD.shape[1]):
            if places_m is None:
                return head.logits(hidden_BMD, 0)
            logits_BMV[:, places_m] = head.logits(hidden_BMD[:, places_m], 0)
        return logits_BMV

    def own(self, ids_BM: Tensor, span: Span, first: int = 0) -> Tensor:
        """Ids as factors [B, M, F] that `logits` speaks of: text ids with the end after them, video ids split, codes.

        Padding and whatever is hidden become HIDDEN.
        """
        vocabulary, kind = self.config.vocabulary, span.segment.kind
        if kind == "video":
            hidden_BM = (ids_BM == vocabulary.marker("hidden")) | (ids_BM == HIDDEN)
            own_BM = torch.where(hidden_BM, HIDDEN, ids_BM - vocabulary.video.start)
            return split_ids(own_BM, vocabulary.factors)
        if kind == "text":
            own_BM = ids_BM - vocabulary.text.start
            own_BM = torch.where(ids_BM == vocabulary.marker("text_end"), vocabulary.text_size, own_BM)
            hidden_BM = (ids_BM == vocabulary.marker("pad")) | (ids_BM == HIDDEN)
        else:
            own_BM = ids_BM - self._level_starts(span.segment, first, ids_BM)
            hidden_BM = ids_BM == HIDDEN
        return torch.where(hidden_BM, HIDDEN, own_BM)[..., None]

    def ids(self, own_BMF: Tensor, span: Span, first: int = 0) -> Tensor:
        """The inverse of own for tokens that are settled: ids [B, M] of the vocabulary."""
        vocabulary, kind = self.config.vocabulary, span.segment.kind
        if kind == "video":
            ids_BM = torch.zeros_like(own_BMF[..., 0])
            for index in reversed(range(len(vocabulary.factors))):
                ids_BM = ids_BM * vocabulary.factors[index] + own_BMF[..., index]
            return ids_BM + vocabulary.video.start
        own_BM = own_BMF[..., 0]
        if kind == "text":
            end = vocabulary.marker("text_end")
            return torch.where(own_BM == vocabulary.text_size, end, own_BM + vocabulary.text.start)
        return own_BM + self._level_starts(span.segment, first, own_BM)

    def forward(
        self, ids_BL: Tensor, layout: Layout, text_BPE: Tensor | None = None, label_smoothing: float = 0.0
    ) -> Tensor:
        """Cross-entropy [B, M] in nats of the tokens layout.prefix ... layout.stop - 1, over all factors together.

        0 for markers, which are forced, and for padding.
        """
        hidden_BMD = self.hidden(ids_BL, layout, text_BPE)
        nats_BM = hidden_BMD.new_zeros(hidden_BMD.shape[:2], dtype=torch.float32)
        for span in layout.outputs():
            here = slice(span.start - layout.prefix, span.stop - layout.prefix)
            target_BNF = self.own(ids_BL[:, span.start : span.stop], span)
            total_BN = torch.zeros_like(nats_BM[:, here])
            for factor in range(target_BNF.shape[-1]):
                logits_BNV = self.logits(hidden_BMD[:, here], span, 0, factor, target_BNF)
                total_BN = total_BN + F.cross_entropy(
                    rearrange(logits_BNV, "b n v -> b v n"),
                    target_BNF[..., factor],
                    reduction="none",
                    ignore_index=HIDDEN,
                    label_smoothing=label_smoothing,
                )
            nats_BM[:, here] = total_BN
        return nats_BM

    def _embed(self, ids_BM: Tensor, start: int, layout: Layout, text_BPE: Tensor | None) -> Tensor:
        if (text_BPE is not None) > (self.text_map is not None):
            raise UsageError("this network was built without text_features; give ids of a text, not embeddings")
        parts, stop = [], start + ids_BM.shape[1]
        for span in layout.spans():
            first, last = max(span.start, start), min(span.stop, stop)
            if first >= last:
                continue
            segment, ids_BN = span.segment, ids_BM[:, first - start : last - start]
            if segment.kind == "marker":
                parts.append(F.embedding(ids_BN, self.markers))
            elif segment.kind == "video":
                parts.append(self.video.embed(self.own(ids_BN, span)))
            elif segment.kind == "sound":
                parts.append(self._embed_sound(ids_BN, segment, first - span.start))
            elif self.text_map is not None and segment.role == "input":
                if text_BPE is None or text_BPE.shape[1] != segment.length:
                    found = "none" if text_BPE is None else text_BPE.shape[1]
                    raise UsageError(f"this network reads {segment.length} embeddings of a text here, got {found}")
                parts.append(self.text_map(text_BPE))
            else:
                parts.append(self.text.embed(self.own(ids_BN, span)))
        return torch.cat(parts, dim=1)

    def _embed_sound(self, ids_BN: Tensor, segment: Segment, first: int) -> Tensor:
        codes_BN1 = self.own(ids_BN, Span(segment=segment, start=0, stop=segment.length), first)
        rows_BND = self.markers.new_empty(*ids_BN.shape, self.config.width)
        for head, places_n in self._by_level(segment, first, ids_BN.shape[1]):
            if places_n is None:
                return head.embed(codes_BN1)
            rows_BND[:, places_n] = head.embed(codes_BN1[:, places_n])
        return rows_BND

    def _by_level(self, segment: Segment, first: int, length: int) -> Iterator[tuple[FactoredTokens, Tensor | None]]:
        """The head of every level among some tokens of sound, and their places; None for all of them."""
        levels_M = _levels(segment)[first : first + length]
        for level, head in enumerate(self.sound):
            assert isinstance(head, FactoredTokens)
            places_m = (levels_M == level).nonzero()[:, 0]
            if len(places_m):
                yield head, None if len(places_m) == length else places_m.to(self.markers.device)

    def _about(self, segment: Segment) -> Tensor:
        """Kind, role and place [N, D] of every token of a segment."""
        row = 2 * KINDS.index(segment.kind) + (segment.role == "output")
        about_ND = self.roles[row].expand(segment.length, -1)
        if segment.kind == "video":
            time, height, width = segment.grid
            if segment.start + time > self.config.latent_frames:
                raise ShapeError(
                    f"this model knows clips of {self.config.latent_frames} latent frames, got {segment.start + time}"
                )
            places_N3 = _video_places(segment).to(about_ND.device)
            shares_N3 = (places_N3 + 0.5) / places_N3.new_tensor([self.config.latent_frames, height, width])
            about_ND = about_ND + self.where_video(waves(shares_N3).to(about_ND.dtype))
            if segment.begins:
                about_ND = about_ND + (places_N3[:, :1] == 0) * self.first_mark
        elif segment.kind == "sound":
            levels, frames = segment.grid
            if segment.start + frames > self.config.sound_frames or levels > len(self.levels):
                raise ShapeError(
                    f"this model knows clips of {self.config.sound_frames} frames and {len(self.levels)} levels of "
                    f"sound, got {segment.start + frames} and {levels}"
                )
            level_N, frame_N = sound_places(levels, frames, segment.order).to(about_ND.device).unbind(-1)
            shares_N1 = (frame_N[:, None] + segment.start + 0.5) / self.config.sound_frames
            about_ND = about_ND + self.where_sound(waves(shares_N1).to(about_ND.dtype)) + self.levels[level_N]
        return about_ND

    def _level_starts(self, segment: Segment, first: int, like_BM: Tensor) -> Tensor:
        vocabulary = self.config.vocabulary
        levels_M = _levels(segment)[first : first + like_BM.shape[1]].to(like_BM.device)
        return vocabulary.sound.start + vocabulary.sound_codes * levels_M


@lru_cache(maxsize=256)
def _levels(segment: Segment) -> Tensor:
    return sound_places(segment.grid[0], segment.grid[1], segment.order)[:, 0]


def _video_places(segment: Segment) -> Tensor:
    time, height, width = segment.grid
    return grid_places(time, height, width, torch.device("cpu")) + torch.tensor([segment.start, 0.0, 0.0])


@lru_cache(maxsize=256)
def _places(layout: Layout, sound_frames_per_latent: float) -> Tensor:
    """Time, row and column [L, 3] of every token, for rotary positions.

    Of sound, time in latent frames, the frame and the level; of text, the number of the token in place of a row.
    """
    parts = []
    for segment in layout.segments:
        places_N3 = torch.full((segment.length, 3), -1.0)
        if segment.kind == "text":
            places_N3[:, 1] = torch.arange(segment.length)
        elif segment.kind == "video":
            places_N3 = _video_places(segment)
        elif segment.kind == "sound":
            level_N, frame_N = sound_places(segment.grid[0], segment.grid[1], segment.order).float().unbind(-1)
            frame_N = frame_N + segment.start
            places_N3 = torch.stack([frame_N / sound_frames_per_latent, frame_N, level_N], dim=-1)
        parts.append(places_N3)
    return torch.cat(parts)


def _preset(vocabulary: Vocabulary, width: int, depth: int, heads: int, **others: Any) -> MultimodalConfig:
    return MultimodalConfig(
        video_tokenizer="",
        sound_tokenizer="",
        vocabulary=vocabulary,
        width=width,
        depth=depth,
        heads=heads,
        **others,
    )


PAPER = Vocabulary(
    text_size=32_000,
    video_size=2**18,
    video_factors=(512, 512),
    sound_codes=1024,
    sound_levels=4,
    resolutions=("128x224",),
)
"""About 300,000 ids, as in the paper; the number of words is ours."""
NANO = Vocabulary(text_size=512, video_size=4096, sound_codes=1024, sound_levels=4)
_PAPER_CLIP = {
    "latent_frames": 11,
    "sound_frames": 256,
    "sound_frames_per_latent": 25.0,
    "text_length": 64,
    "text_features": 2048,
}
_NANO_CLIP = {"latent_frames": 8, "sound_frames": 128, "sound_frames_per_latent": 8.0, "text_length": 16}
PRESETS: dict[str, MultimodalConfig] = {
    # The paper prints sizes and no shapes: widths and depths are ours.
    "paper-300M": _preset(PAPER, 1024, 20, 16, **_PAPER_CLIP),
    "paper-1B": _preset(PAPER, 2048, 18, 16, **_PAPER_CLIP),
    "paper-8B": _preset(PAPER, 4096, 38, 32, **_PAPER_CLIP),
    "small": _preset(NANO, 384, 9, 6, **_NANO_CLIP),
    "nano": _preset(NANO, 192, 7, 3, **_NANO_CLIP),
}
"""Shapes only: recipes put in fingerprints, vocabularies and lengths of their own."""

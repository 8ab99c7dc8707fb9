"""A multimodal network at work on one layout: from a sequence with open places to a whole one.

    Sequence --SequenceReader--> ReadFn for each output --sample_autoregressive | sample_jacobi--> ids, passes

Each output is drawn from its own range of ids; markers between outputs are forced.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kinolex.errors import UsageError
from kinolex.layers.attention import KeyValueCache
from kinolex.masks import HIDDEN
from kinolex.models.multimodal import MultimodalTransformer
from kinolex.sampling.autoregressive import guided_steps, sample_autoregressive
from kinolex.sampling.choose import Choice
from kinolex.sampling.jacobi import DraftFn, ReadFn, last_of, look_back, sample_jacobi
from kinolex.sampling.parallel import FactorLogits
from kinolex.sequences import Span
from kinolex.tasks.multimodal import Sequence

OnSpan = Callable[[str, int, int], None]
"""(kind of output, its tokens settled, its tokens in all)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeConfig:
    """How outputs are drawn."""

    text: Choice = field(default_factory=Choice)
    video: Choice = field(default_factory=Choice)
    sound: Choice = field(default_factory=Choice)
    guidance: float | None = None
    """Push away from what would be made with less given; doubles the work. By default a MultimodalGenerator takes
    kinolex.tasks.words.GUIDANCE where words are given, and decode_sequence none."""
    window: int = 1
    """Tokens that a pass looks at: 1 draws one after the other, more by coupled Jacobi decoding, equally likely ids."""
    cached: bool = True
    """Keep keys and values of what was read; without, every pass reads everything again."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.window < 1:
            raise UsageError(f"a window holds at least one token, got {self.window}")
        if self.guidance is not None and not 0 <= self.guidance < math.inf:
            raise UsageError(f"guidance must be 0 or more and finite, got {self.guidance}")


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    ids_BL: Tensor
    """The whole sequences; kinolex.tasks.multimodal.outcome reads them."""
    passes: int
    """How often the network was asked; guidance asks twice and counts once."""
    tokens: int
    """Drawn in every sequence."""


class SequenceReader:
    """What sampling asks about a batch of sequences of one layout.

    Args:
        sequence: its open places are filled as sampling goes on, in a copy for each of the batch.
        text_PE: embeddings in place of the ids of the text that is given.
    """

    def __init__(
        self,
        model: MultimodalTransformer,
        sequence: Sequence,
        *,
        batch: int = 1,
        text_PE: Tensor | None = None,
        cached: bool = True,
    ) -> None:
        device = model.markers.device
        self.model, self.layout, self.cached = model, sequence.layout, cached
        self.ids_BL = sequence.ids_L.to(device).repeat(batch, 1)
        self.text_BPE = None if text_PE is None else text_PE.to(device).expand(batch, -1, -1)
        self._plan = model.plan(sequence.layout)
        self._cache = KeyValueCache(sequence.layout.stop)

    def read_fn(self, span: Span) -> ReadFn:
        """For the sampling of one output; outputs come one after the other."""

        def read(start: int, before_BMF: Tensor) -> FactorLogits:
            length, hidden = before_BMF.shape[1], start == 0
            # Before the first token stands a marker, which is there already.
            self._write(span, start - 1 + hidden, before_BMF[:, hidden:])
            first = span.start + start - 1
            if not self.cached or first < self.layout.prefix:
                self._cache = KeyValueCache(self.layout.stop)
            elif self._cache.length > first:
                self._cache.rewind(first)
            begin = self._cache.length
            ids_BM = self.ids_BL[:, begin : first + length]
            hidden_BMD = self.model.read(ids_BM, begin, self._plan, self._cache, self.text_BPE)[:, -length:]
            return lambda factor, chosen_BMF: self.model.logits(hidden_BMD, span, start, factor, chosen_BMF)

        return read

    def known(self, span: Span) -> Tensor:
        """Factors [B, L, F] of an output, HIDDEN where they are to be drawn."""
        return self.model.own(self.ids_BL[:, span.start : span.stop], span)

    def settle(self, span: Span, tokens_BLF: Tensor) -> None:
        """Write down an output. What comes after the end of a text becomes padding."""
        self._write(span, 0, tokens_BLF)
        if span.segment.kind == "text":
            vocabulary = self.model.config.vocabulary
            text_BP = self.ids_BL[:, span.start : span.stop]
            ended_BP = (text_BP == vocabulary.marker("text_end")).long().cumsum(dim=1)
            after_BP = torch.cat([torch.zeros_like(ended_BP[:, :1]), ended_BP[:, :-1]], dim=1) > 0
            text_BP[after_BP] = vocabulary.marker("pad")

    def _write(self, span: Span, first: int, tokens_BMF: Tensor) -> None:
        if tokens_BMF.shape[1]:
            at = span.start + first
            self.ids_BL[:, at : at + tokens_BMF.shape[1]] = self.model.ids(tokens_BMF, span, first)


@torch.inference_mode()
def decode_sequence(
    model: MultimodalTransformer,
    sequence: Sequence,
    config: DecodeConfig,
    *,
    unsaid: Sequence | None = None,
    batch: int = 1,
    text_PE: Tensor | None = None,
    on_span: OnSpan | None = None,
) -> Decoded:
    """Draw everything in a sequence that is open.

    Args:
        unsaid: the same outputs with less given (`compose(..., drop=...)`); guidance pushes away from it.
        batch: sequences that are drawn at once, each its own.
        text_PE: embeddings of the text that is given, where the network reads embeddings.

    Raises:
        UsageError: guidance without `unsaid`, or one with other outputs.
        ShapeError: a clip longer than the network knows.
    """
    model = model.folded()
    generator = torch.Generator().manual_seed(config.seed)
    readers = [SequenceReader(model, sequence, batch=batch, text_PE=text_PE, cached=config.cached)]
    guidance = config.guidance or 0.0
    if guidance:
        if unsaid is None or [s.segment for s in unsaid.layout.outputs()] != [
            s.segment for s in sequence.layout.outputs()
        ]:
            raise UsageError("guidance needs a sequence with the same outputs and less given to push away from")
        said = any(span.segment.kind == "text" for span in unsaid.layout.spans() if span.segment.role == "input")
        readers.append(
            SequenceReader(model, unsaid, batch=batch, text_PE=text_PE if said else None, cached=config.cached)
        )
    passes, tokens = 0, 0
    for spans in zip(*(reader.layout.outputs() for reader in readers), strict=True):
        kind, choice = spans[0].segment.kind, getattr(config, spans[0].segment.kind)
        known_BLF = readers[0].known(spans[0])
        tokens += (open_tokens := int((known_BLF[..., 0] == HIDDEN).any(dim=0).sum()))
        read_fn = readers[0].read_fn(spans[0])
        if len(readers) > 1:
            read_fn = guided_steps(read_fn, readers[1].read_fn(spans[1]), guidance)

        def on_token(done: int, total: int, kind: str = kind) -> None:
            if on_span is not None:
                on_span(kind, done, total)

        if config.window == 1:
            drawn_BLF = sample_autoregressive(last_of(read_fn), known_BLF, choice, generator, on_token=on_token)
            passes += open_tokens
        else:
            drawn = sample_jacobi(
                read_fn,
                known_BLF,
                choice,
                generator,
                window=config.window,
                draft=_draft(readers[0], spans[0]),
                on_token=on_token,
            )
            drawn_BLF, passes = drawn.tokens_BLF, passes + drawn.passes
        for reader, span in zip(readers, spans, strict=True):
            reader.settle(span, drawn_BLF)
    return Decoded(readers[0].ids_BL, passes, tokens)


def _draft(reader: SequenceReader, span: Span) -> DraftFn:
    """Guess the same place one frame earlier in pictures, the token before elsewhere."""
    if span.segment.kind != "video":
        return look_back(1)
    height, width = span.segment.grid[1:]
    frame = height * width
    for other in reader.layout.spans():
        segment = other.segment
        follows = segment.start + segment.grid[0] == span.segment.start and segment.grid[1:] == (height, width)
        if segment.kind == "video" and segment.role == "input" and follows:
            given_BNF = reader.model.own(reader.ids_BL[:, other.stop - frame : other.stop], other)
            return look_back(frame, given_BNF)
    return look_back(frame)

"""What the multimodal generator learns from sequences of one layout: every token that is to be made.

    ids --MultimodalTransformer--> nats of every output token --weights of kinds--> loss, bits of each kind

Source: VideoPoet, arXiv 2312.14125, section 3 (loss on outputs only).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from kinolex.layers.precision import fast_arithmetic
from kinolex.models.multimodal import MultimodalTransformer
from kinolex.sequences import Layout
from kinolex.training.generator_losses import LossAndFigures


def multimodal_loss(
    model: MultimodalTransformer,
    layout: Layout,
    ids_BL: Tensor,
    *,
    text_BPE: Tensor | None = None,
    label_smoothing: float = 0.0,
    weights: Mapping[str, float] | None = None,
) -> LossAndFigures:
    """Mean nats of the tokens that are to be made; markers and padding teach nothing.

    Args:
        weights: of a token of each kind ("text", "video", "sound"); 1 where none is given.
    """
    with fast_arithmetic(ids_BL.device):
        nats_BM = model(ids_BL, layout, text_BPE, label_smoothing)
    pad = model.config.vocabulary.marker("pad")
    total, taught, figures = nats_BM.new_zeros(()), 0.0, {}
    for span in layout.outputs():
        kind = span.segment.kind
        weight = (weights or {}).get(kind, 1.0)
        nats_BN = nats_BM[:, span.start - layout.prefix : span.stop - layout.prefix]
        count = float((ids_BL[:, span.start : span.stop] != pad).sum())
        total, taught = total + weight * nats_BN.sum(), taught + weight * count
        figures[f"{kind}_bits"] = float(nats_BN.detach().sum()) / max(count, 1.0) / math.log(2)
    loss = total / max(taught, 1.0)
    return loss, {"loss": float(loss.detach())} | figures

"""Lookup-free against vector quantization while the vocabulary grows."""

from __future__ import annotations

from kinolex.evaluation.page import Html, lines
from kinolex.tokenizers.quantizers import LFQConfig, QuantizerConfig, VQConfig
from kinolex.training.claims.arms import Arm, words_arm
from kinolex.training.claims.claim import Claim, Table
from kinolex.training.claims.measures import DISTANCE, reconstruction_and_generation
from kinolex.training.claims.rules import Finding, log_ratios, more_than
from kinolex.training.claims.scales import Scale

VQ_DIM = 16
"""Of a code, as in magvit-nano."""
KINDS = ("LFQ", "VQ")


def arms(scale: Scale) -> tuple[Arm, ...]:
    return tuple(
        words_arm(scale, arm_name(kind, bits), _quantizer(kind, bits), 2**bits)
        for bits in scale.vocabulary_bits
        for kind in KINDS
    )


def arm_name(kind: str, bits: int) -> str:
    return f"{kind} 2^{bits}"


def pairs(scale: Scale) -> list[tuple[str, ...]]:
    """Arms that cost the same: a larger vocabulary has a larger softmax, for either quantizer."""
    return [tuple(arm_name(kind, bits) for kind in KINDS) for bits in scale.vocabulary_bits]


def judge(figures: Table) -> list[Finding]:
    first, last = figures.scale.vocabulary_bits[0], figures.scale.vocabulary_bits[-1]
    lfq, vq = (
        log_ratios(figures.values(arm_name(kind, first), DISTANCE), figures.values(arm_name(kind, last), DISTANCE))
        for kind in KINDS
    )
    gains = [one - other for one, other in zip(lfq, vq, strict=True)]
    return [
        more_than(f"LFQ: distance of what is made at 2^{first} over that at 2^{last}", lfq),
        more_than("that ratio of LFQ over that of VQ", gains),
    ]


def charts(figures: Table) -> list[Html]:
    drawn = []
    for caption, figure in (("made from captions", DISTANCE), ("through the tokenizer", f"reconstruction {DISTANCE}")):
        curves = [
            (kind, [(2.0**bits, figures.mean(arm_name(kind, bits), figure)) for bits in figures.scale.vocabulary_bits])
            for kind in KINDS
        ]
        drawn.append(
            lines(curves, caption=f"worlds {caption}; lower is better", x_label="vocabulary", y_label=DISTANCE)
        )
    return drawn


def _quantizer(kind: str, bits: int) -> QuantizerConfig:
    return LFQConfig(num_bits=bits) if kind == "LFQ" else VQConfig(codebook_size=2**bits, dim=VQ_DIM)


CLAIM = Claim(
    name="vocabulary",
    source="MAGVIT-v2, arXiv 2310.05737, figure 1",
    statement="With lookup-free quantization generation improves as the vocabulary grows; with vector quantization it "
    "does not",
    rule="distance of worlds made from captions: with LFQ the largest vocabulary is better than the smallest, and it "
    "gains more by it than VQ does: 95 % t-intervals over seeds of both log ratios above 0; fail if one lies below 0",
    arms=arms,
    measures={"": reconstruction_and_generation},
    judge=judge,
    charts=charts,
    compared=pairs,
)

"""Protocols: which clips, which metrics -> results JSON and a page."""

from kinolex.evaluation.bjontegaard import bd_quality, bd_rate_percent
from kinolex.evaluation.codecs import CODECS, CodecConfig, TokenGrid, evaluate_codecs
from kinolex.evaluation.generation import GenerationProtocol, evaluate_generation
from kinolex.evaluation.protocol import ReconstructionProtocol, read_result, select_entries, write_result
from kinolex.evaluation.rate_distortion import KlxEvaluation, evaluate_klx, evaluate_rate_distortion
from kinolex.evaluation.reconstruction import evaluate_reconstruction

__all__ = [
    "CODECS",
    "CodecConfig",
    "GenerationProtocol",
    "KlxEvaluation",
    "ReconstructionProtocol",
    "TokenGrid",
    "bd_quality",
    "bd_rate_percent",
    "evaluate_codecs",
    "evaluate_generation",
    "evaluate_klx",
    "evaluate_rate_distortion",
    "evaluate_reconstruction",
    "read_result",
    "select_entries",
    "write_result",
]

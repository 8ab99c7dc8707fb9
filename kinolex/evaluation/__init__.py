"""Protocols: which clips, which metrics -> results JSON and a page."""

from kinolex.evaluation.codecs import CODECS, CodecConfig, TokenGrid, evaluate_codecs
from kinolex.evaluation.protocol import ReconstructionProtocol, read_result, select_entries, write_result
from kinolex.evaluation.reconstruction import evaluate_reconstruction

__all__ = [
    "CODECS",
    "CodecConfig",
    "ReconstructionProtocol",
    "TokenGrid",
    "evaluate_codecs",
    "evaluate_reconstruction",
    "read_result",
    "select_entries",
    "write_result",
]

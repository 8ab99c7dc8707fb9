"""Measure codec baselines: python -m kinolex.evaluation --data DIR --features FILE --bits-per-token 18 --out results"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from kinolex.evaluation.codecs import TokenGrid, evaluate_codecs
from kinolex.evaluation.protocol import ReconstructionProtocol


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """x264, x265 and SVT-AV1 at the bytes of plain tokens, one token per 4 x 8 x 8 pixels."""

    data: Path
    """Data folder that holds clips/ and sequences/."""
    features: Path
    """Weights of the perceptual backbone."""
    bits_per_token: float = 18.0
    out: Path = Path("results")


def main(arguments: Arguments) -> None:
    grid = TokenGrid(bits_per_token=arguments.bits_per_token)
    bits = f"{arguments.bits_per_token:g}"
    torch.set_num_threads(1)
    evaluate_codecs(
        arguments.data,
        ReconstructionProtocol(),
        lambda _name, extent: grid.num_bytes(extent),
        label=f"{bits} bits per 4x8x8 pixels",
        features_path=arguments.features,
        out_dir=arguments.out,
        command=f"python -m kinolex.evaluation --data DIR --features FILE --bits-per-token {bits}",
        progress=lambda line: print(line, flush=True),
    )


if __name__ == "__main__":
    main(tyro.cli(Arguments))

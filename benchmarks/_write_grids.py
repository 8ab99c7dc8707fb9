"""The writer of same_everywhere: token grids of many sizes and origins, compressed into one folder.

test clips --tokenizer, crop--> ids --+
prior --draw--> ids ------------------+--compress--> integer.bin, and of the first ones float.bin
uniform ids --------------------------+
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor

from benchmarks._progress import steps
from benchmarks._read_grids import CODERS, MANIFEST, PRIOR, digest, priors_in
from kinolex import checkpoint, hub
from kinolex.codec.network import NetworkConfig
from kinolex.codec.priors import History, LearnedPrior, Prior, plain_levels, save_prior, to_ids
from kinolex.codec.stream import compress
from kinolex.evaluation.protocol import ReconstructionProtocol, read_entry, select_entries
from kinolex.tokenizers.quantizers import FSQConfig
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training.prior import PriorTwin, RoundedLayer
from kinolex.types import Extent, Tokens

LATENTS = (1, 2, 3, 4)
LATENTS_SHARE = (0.4, 0.3, 0.2, 0.1)
"""Most grids are short, so that many of them are read in a few minutes."""
LARGEST_SIDE = 12
SHARPNESS = 4.0
"""Factor on the logits of an untrained network, so that its predictions are far from even."""


@dataclass(frozen=True, kw_only=True)
class WriteSettings:
    """Everything that the written grids depend on."""

    folder: str
    model: str = hub.DEFAULT
    prior: str | None = None
    data: str | None = None
    grids: int = 10_000
    control_grids: int = 2_000
    clips: int | None = None
    seed: int = 0


def place_prior(settings: WriteSettings, tokenizer: VideoTokenizer) -> str:
    """Puts a prior into the folder: the named one, the shipped one, or an untrained one; says which."""
    target = Path(settings.folder) / PRIOR
    shipped = hub.locate(settings.model) / checkpoint.PRIOR
    if settings.prior is not None:
        copyfile(settings.prior, target)
        return "given"
    if shipped.is_file():
        copyfile(shipped, target)
        return "trained, of the model"
    config = NetworkConfig(levels=digit_levels(tokenizer))
    save_prior(target, config, untrained_integers(config, settings.seed))
    return "untrained, drawn at random"


def digit_levels(tokenizer: VideoTokenizer) -> tuple[int, ...]:
    """Values of the digits of an id that a learned prior would have."""
    quantizer = tokenizer.config.quantizer
    if isinstance(quantizer, FSQConfig):
        return tuple(quantizer.levels)
    return plain_levels(tokenizer.vocab_size) * tokenizer.num_levels


@torch.no_grad()
def untrained_integers(config: NetworkConfig, seed: int) -> dict[str, Tensor]:
    """Integers of a network at its initialisation, made sharper."""
    torch.manual_seed(seed)
    twin = PriorTwin(config)
    for name, layer in twin.layers.items():
        if name.startswith("logits"):
            assert isinstance(layer, RoundedLayer)
            layer.weight.mul_(SHARPNESS)
    return twin.export()


def tokens_of_clips(tokenizer: VideoTokenizer, data: str, most: int | None) -> list[Tensor]:
    """ids_Qthw of the test clips."""
    protocol = ReconstructionProtocol()
    entries = select_entries(data, protocol)[:most]
    return [tokenizer.encode(read_entry(entry, protocol)).ids_Qthw for entry in steps(entries, "clips")]


Draw = Callable[[tuple[int, int, int]], Tensor]
"""Size t, h, w at most -> ids_Qthw."""


def origins(tokenizer: VideoTokenizer, prior: Prior, clips: Sequence[Tensor], rng: np.random.Generator) -> list[Draw]:
    """Ways to draw a grid; a function's name is the kind's."""
    num_levels = tokenizer.num_levels
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))

    def uniform(size_thw: tuple[int, int, int]) -> Tensor:
        return torch.randint(prior.vocab_size(num_levels), (num_levels, *size_thw), generator=generator)

    def likely(size_thw: tuple[int, int, int]) -> Tensor:
        history, frames = History(), []
        for _ in range(size_thw[0]):
            frames.append(
                prior.walk(
                    history,
                    size_thw[1:],
                    lambda digit, where, frequencies: torch.multinomial(
                        frequencies.double(), 1, generator=generator
                    ).flatten(),
                )
            )
            history.append(frames[-1])
        return to_ids(torch.stack(frames), num_levels, prior.levels)

    def real(size_thw: tuple[int, int, int]) -> Tensor:
        grid = clips[int(rng.integers(len(clips)))]
        for axis, size in enumerate(size_thw, start=1):
            size = min(size, grid.shape[axis])
            grid = grid.narrow(axis, int(rng.integers(grid.shape[axis] - size + 1)), size)
        return grid.contiguous()

    return [real, real, likely, uniform] if clips else [likely, uniform]


def as_tokens(ids_Qthw: Tensor, tokenizer: VideoTokenizer) -> Tokens:
    """Of a clip that the grid could stand for."""
    time, *space = tokenizer.pixels_per_token
    _, latents, rows, columns = ids_Qthw.shape
    frames = 1 + time * (latents - 1) if tokenizer.config.causal else time * latents
    extent = Extent(frames=frames, height=rows * space[0], width=columns * space[1], fps=Fraction(24))
    return Tokens(ids_Qthw, "video", tokenizer.fingerprint, extent)


def write(settings: WriteSettings) -> None:
    folder, rng = Path(settings.folder), np.random.default_rng(settings.seed)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = hub.load(settings.model)
    kind_of_prior = place_prior(settings, tokenizer)
    priors = priors_in(folder, "cpu")
    clips = tokens_of_clips(tokenizer, settings.data, settings.clips) if settings.data else []
    draws = origins(tokenizer, priors["integer"], clips, rng)
    blobs, rows = {coder: bytearray() for coder in CODERS}, []
    for number in steps(range(settings.grids), "written"):
        side_hw = rng.integers(1, LARGEST_SIDE + 1, size=2)
        size_thw = (int(rng.choice(LATENTS, p=LATENTS_SHARE)), int(side_hw[0]), int(side_hw[1]))
        draw = draws[int(rng.integers(len(draws)))]
        ids_Qthw = draw(size_thw)
        row: dict[str, Any] = {"kind": draw.__name__, "shape": list(ids_Qthw.shape), "sha256": digest(ids_Qthw)}
        tokens = as_tokens(ids_Qthw, tokenizer)
        for coder in CODERS if number < settings.control_grids else CODERS[:1]:
            data = compress(tokens, priors[coder], frames_per_latent=tokenizer.pixels_per_token[0])
            row[coder] = [len(blobs[coder]), len(data)]
            blobs[coder] += data
        rows.append(row)
    for coder, blob in blobs.items():
        (folder / f"{coder}.bin").write_bytes(blob)
    prior = priors["integer"]
    assert isinstance(prior, LearnedPrior)
    manifest = {
        "settings": asdict(settings),
        "tokenizer": tokenizer.fingerprint,
        "prior": {"kind": kind_of_prior, "fingerprint": prior.fingerprint.hex(), "config": asdict(prior.config)},
        "grids": rows,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))


if __name__ == "__main__":
    write(tyro.cli(WriteSettings))

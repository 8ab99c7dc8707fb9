"""Everything a run needs to go on, in one safetensors file that is replaced whole.

A step draws all its randomness from (seed, step), and a batch is a function of (seed, step), so weights, averages,
optimizer
moments and a handful of counters are the whole state: killed at any time and resumed, a run gives the same bits.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from kinolex.errors import CheckpointError

FORMAT = "kinolex-training-1"


@dataclass(slots=True)
class Counters:
    step: int = 0
    """Steps finished."""
    skipped: int = 0
    """Steps skipped because something was not finite."""
    data_offset: int = 0
    """Added to the step when batches are drawn; a roll-back moves past the batches that broke."""
    rollbacks: int = 0
    lecam_real: float = 0.0
    lecam_fake: float = 0.0
    config_hash: str = ""
    history: list[str] = field(default_factory=list)
    """Alarms raised so far."""


def save_state(
    path: Path, modules: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer], counters: Counters
) -> None:
    tensors: dict[str, Tensor] = {}
    for prefix, module in modules.items():
        tensors |= {f"{prefix}.{name}": value for name, value in module.state_dict().items()}
    for prefix, optimizer in optimizers.items():
        for index, moments in optimizer.state_dict()["state"].items():
            for name, value in moments.items():
                tensors[f"{prefix}.{index}.{name}"] = torch.as_tensor(value)
    metadata = {"format": FORMAT, "counters": json.dumps(asdict(counters))}
    temporary = path.with_suffix(".part")
    save_file({name: value.detach().contiguous().cpu() for name, value in tensors.items()}, temporary, metadata)
    os.replace(temporary, path)


def load_state(path: Path, modules: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer]) -> Counters:
    """Raises CheckpointError when the file is damaged or belongs to another network."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); delete it to start the run anew") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {metadata.get('format')!r}, this version reads {FORMAT!r}")
    try:
        for prefix, module in modules.items():
            module.load_state_dict(_below(tensors, prefix))
        for prefix, optimizer in optimizers.items():
            state = optimizer.state_dict()
            state["state"] = {}
            for name, value in _below(tensors, prefix).items():
                index, moment = name.split(".", 1)
                state["state"].setdefault(int(index), {})[moment] = value
            optimizer.load_state_dict(state)
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} belongs to another network ({error}); use another --out folder") from error
    return Counters(**json.loads(metadata["counters"]))


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = prefix + "."
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}

"""Several processes that train one network: torchrun --nproc-per-node 2 -m kinolex train ...

torchrun's variables -> joined() -> engine: DistributedDataParallel, each process its share of every batch
                                         -> any_process, average_gradients_: decisions that all must take alike
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn

from kinolex.errors import UsageError
from kinolex.tokenizers.quantizers.base import sum_over_processes_, world_size


def launched() -> int:
    """How many processes torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Inside, this process belongs to torchrun's group; yields its own device. Without torchrun yields `device`.

    Raises:
        UsageError: one GPU was named for several processes.
    """
    if launched() == 1:
        yield device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    elif device.startswith("cuda"):
        raise UsageError(f"{launched()} processes cannot share {device}; give --device cuda")
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if world_size() > 1 else 0


def wait_for_all() -> None:
    if world_size() > 1:
        dist.barrier()


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in at least one process: all stop, skip or go on together."""
    return flag if world_size() == 1 else bool(sum_over_processes_(torch.tensor(float(flag), device=device)))


def average_gradients_(parameters: Iterable[nn.Parameter]) -> None:
    """For a network that DistributedDataParallel does not wrap."""
    if world_size() > 1:
        for parameter in parameters:
            if parameter.grad is not None:
                sum_over_processes_(parameter.grad).div_(world_size())

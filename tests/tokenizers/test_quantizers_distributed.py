"""Two processes with half a batch each against one process with the whole."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from kinolex.tokenizers.quantizers import LFQConfig, QuantizerConfig, VQConfig, build_quantizer

CONFIGS: dict[str, QuantizerConfig] = {
    "lfq": LFQConfig(num_bits=6, entropy_group=6),
    "vq-gradient": VQConfig(codebook_size=8, dim=6, entropy_temperature=0.5),
    "vq-average": VQConfig(codebook_size=8, dim=6, ema_decay=0.8, revive_after=2),
}


def one_step(name: str, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Losses' sum, gradient of a layer before the quantizer, and the quantizer's state after two batches."""
    torch.manual_seed(0)
    layer, quantizer = nn.Conv3d(6, 6, 1), build_quantizer(CONFIGS[name]).train()
    torch.manual_seed(1)
    for _ in range(2):
        losses = quantizer(layer(latents)).losses
    total = torch.stack([loss * (-1 if key == "entropy_batch" else 1) for key, loss in losses.items()]).sum()
    total.backward()
    assert layer.weight.grad is not None
    return total.detach(), layer.weight.grad, dict(quantizer.state_dict())


def whole_batch() -> torch.Tensor:
    return torch.randn(4, 6, 2, 3, 3, generator=torch.Generator().manual_seed(5))


def worker(rank: int, port: int, name: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    total, gradient, state = one_step(name, whole_batch()[rank * 2 : rank * 2 + 2])
    for tensor in (total, gradient):
        dist.all_reduce(tensor)
        tensor /= 2  # what DistributedDataParallel does
    torch.save({"total": total, "gradient": gradient, **state}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("name", CONFIGS)
def test_two_processes_give_the_loss_gradient_and_codebook_of_one_with_the_joined_batch(
    name: str, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(port, name, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))

    total, gradient, state = one_step(name, whole_batch())

    torch.testing.assert_close(first["total"], total)
    torch.testing.assert_close(first["gradient"], gradient, atol=1e-5, rtol=1e-4)
    for key, value in state.items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], value, atol=1e-6, rtol=1e-5)

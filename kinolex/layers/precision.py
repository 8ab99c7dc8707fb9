"""In which numbers networks compute: bfloat16 where the device has instructions for it, float32 elsewhere.

Without such instructions bfloat16 is emulated, several times slower than float32.
"""

from __future__ import annotations

import torch


def is_bfloat16_native(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 by itself."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def fast_arithmetic(device: torch.device | str = "cpu") -> torch.autocast:
    """Autocast to bfloat16 where that is native; nothing changes elsewhere."""
    device = torch.device(device)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_bfloat16_native(device))

"""Does this machine train and decode as it should? Three examinations, each of seconds.

overfit   a small network learns one clip by heart: if it cannot, training is broken, whatever the data
device    the same network on the device and on the CPU: silent wrong arithmetic shows here
data      broken files of a collection
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kinolex.data.check import check_folder
from kinolex.errors import KinolexError
from kinolex.layers.conv3d import channels_last
from kinolex.tokenizers.autoencoder3d import Autoencoder3D, AutoencoderConfig
from kinolex.tokenizers.quantizers import FSQConfig
from kinolex.training.config import OptimizerConfig
from kinolex.training.optimizer import Optimizers, gradient_norm_

OVERFIT_STEPS, OVERFIT_GOAL_DB = 150, 25.0
DEVICE_TOLERANCE = 2e-3
"""Largest difference of float32 pixels in [-1, 1]; honest rounding stays well below, wrong kernels do not."""

SMALL = AutoencoderConfig(
    channels=(32, 48),
    down=((2, 2),),
    encoder_blocks=(1, 1),
    decoder_blocks=(1, 1),
    middle_blocks=1,
    quantizer=FSQConfig(levels=(8, 8, 8, 8)),
    causal=True,
    fold=2,
    factorised=True,
    norm_groups=8,
)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    name: str
    ok: bool
    detail: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine(*, device: str = "cpu", data: str | Path | None = None) -> list[Diagnosis]:
    """Run the examinations; `data` is a collection to check as well."""
    findings = [overfit(device), compare_device(device)]
    if data is not None:
        findings.append(_examine_data(Path(data)))
    return findings


def overfit(device: str, *, steps: int = OVERFIT_STEPS) -> Diagnosis:
    """Learn one moving gradient by heart."""
    torch.manual_seed(0)
    began = time.monotonic()
    try:
        model = channels_last(Autoencoder3D(SMALL).to(device))
        pixels_BCTHW = moving_gradient().to(device)
        optimizers = Optimizers(model, OptimizerConfig(warmup_steps=10, adam_lr=4e-3), steps)
        mean_squared = 4.0
        for step in range(steps):
            output_BCTHW, _ = model(pixels_BCTHW)
            loss = (output_BCTHW - pixels_BCTHW).abs().mean()
            loss.backward()
            gradient_norm_(model.parameters(), 1.0)
            optimizers.step(step)
            model.zero_grad(set_to_none=True)
            mean_squared = float((output_BCTHW.detach() - pixels_BCTHW).square().mean())
    except (RuntimeError, AssertionError) as error:
        return Diagnosis("overfit", False, f"training on {device} failed: {error}")
    psnr_db = float(10 * torch.log10(torch.tensor(4.0 / max(mean_squared, 1e-10))))
    detail = f"one clip to {psnr_db:.1f} dB in {time.monotonic() - began:.0f} s (needs {OVERFIT_GOAL_DB:.0f} dB)"
    return Diagnosis("overfit", psnr_db >= OVERFIT_GOAL_DB, detail)


def compare_device(device: str) -> Diagnosis:
    """Encode and decode one clip in float32 on the CPU (contiguous memory) and on the device (channels last)."""
    torch.manual_seed(0)
    model = Autoencoder3D(SMALL).eval()
    pixels_BCTHW = moving_gradient()
    try:
        with torch.no_grad():
            latents, golden = _through(model, pixels_BCTHW)
            channels_last(model.to(device))
            device_latents, output = _through(model, pixels_BCTHW.to(device))
    except (RuntimeError, AssertionError) as error:
        return Diagnosis("device", False, f"{device} cannot run the network: {error}; use --device cpu")
    worst = max(float((a - b.cpu()).abs().max()) for a, b in ((latents, device_latents), (golden, output)))
    detail = f"largest difference of {device} from the CPU reference {worst:.1e} (allowed {DEVICE_TOLERANCE:.0e})"
    return Diagnosis("device", worst <= DEVICE_TOLERANCE, detail)


def _through(model: Autoencoder3D, pixels_BCTHW: Tensor) -> tuple[Tensor, Tensor]:
    latents_BDthw = model.encode(pixels_BCTHW)
    # Decoded from the latents themselves: a rounded id could flip on honest rounding.
    return latents_BDthw, model.decode(torch.tanh(latents_BDthw))


def _examine_data(folder: Path) -> Diagnosis:
    try:
        findings = check_folder(folder)
    except KinolexError as error:
        return Diagnosis("data", False, str(error))
    broken = [finding.path for finding in findings if finding.problem == "broken"]
    shown = f", broken: {', '.join(broken[:3])}" if broken else ""
    return Diagnosis("data", not broken, f"{len(findings)} findings in {folder}{shown}")


def moving_gradient() -> Tensor:
    """A clip in [-1, 1] whose every pixel is known: waves that move, 1 3 5 32 32."""
    time_T = torch.arange(5.0).view(5, 1, 1) / 5
    row_H, column_W = torch.linspace(0, 6, 32).view(1, 32, 1), torch.linspace(0, 6, 32).view(1, 1, 32)
    waves = [torch.sin(row_H + time_T), torch.cos(column_W - time_T), torch.sin(row_H + column_W + 2 * time_T)]
    return torch.stack([wave.expand(5, 32, 32) for wave in waves]).unsqueeze(0)

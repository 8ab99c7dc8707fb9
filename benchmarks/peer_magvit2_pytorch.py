"""The side of benchmarks.peers that runs in the peer's own environment, with numpy, torch and magvit2-pytorch only.

    one JSON command per line on stdin -> train | reconstruct | round -> one JSON answer per line on stdout

The network is the one of magvit2-pytorch's README, narrowed from (64, 512) to (32, 128) channels so that it has about
as many parameters as magvit2-nano; its layers already give 4x8x8 pixels per token. Pixel loss only: no discriminator,
no VGG. Its README has no 18-bit vocabulary, and one LFQ codebook of 2**18 needs the distance of every token of a batch
to every code, several times 2.4 GB here; so 18 bits are two LFQ codebooks of 9 ("readme") or six FSQ digits of 8 levels
("tuned").

    readme   float32; its trainer's defaults: AdamW, 2e-5 after 1000 steps of linear warm-up, no clipping. The weights
             themselves are measured: its moving average starts after 100 steps and would only lag.
    tuned    what we would do for it: bfloat16 autocast, channels last, FSQ, 1e-3 with warm-up and cosine over the time
             given, gradient clipping at 1, and the moving average that kinolex uses.
"""

from __future__ import annotations

import copy
import importlib.metadata
import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

LAYERS = (
    "residual",
    "compress_space",
    ("consecutive_residual", 2),
    "compress_space",
    ("consecutive_residual", 2),
    "linear_attend_space",
    "compress_space",
    ("consecutive_residual", 2),
    "attend_space",
    "compress_time",
    ("consecutive_residual", 2),
    "compress_time",
    ("consecutive_residual", 2),
    "attend_time",
)
INIT_DIM, MAX_DIM = 32, 128
FINAL_LR, WARMUP_SHARE, EMA_DECAY = 0.02, 0.05, 0.999
SAY_EVERY_S = 20.0


@dataclass(frozen=True)
class Variant:
    quantizer: dict[str, Any]
    lr: float
    bfloat16: bool
    tuned: bool


VARIANTS = {
    "readme": Variant({"codebook_size": 2**9, "num_codebooks": 2}, lr=2e-5, bfloat16=False, tuned=False),
    "tuned": Variant({"use_fsq": True, "fsq_levels": [8] * 6}, lr=1e-3, bfloat16=True, tuned=True),
}

Command = Callable[..., dict[str, Any]]


def serve(commands: dict[str, Command]) -> None:
    """Answer commands until stdin ends. What libraries print goes to stderr, so that stdout holds answers only."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        answer = commands[request.pop("do")](**request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_batch(path: str, shape: list[int], number: int) -> Tensor:
    """Batch `number` of a raw file of uint8 batches of this shape, from the start again after the last."""
    size = math.prod(shape)
    number %= os.path.getsize(path) // size
    # Read, not mapped: the pages of a mapping would count as memory of this process.
    return torch.from_numpy(np.fromfile(path, np.uint8, size, offset=number * size).reshape(shape))


class Peer:
    """A network, its optimizer and where it is in its run."""

    def __init__(self, variant: Variant, side: int) -> None:
        from magvit2_pytorch import VideoTokenizer  # only in the peer's environment
        from magvit2_pytorch.optimizer import get_optimizer

        torch.manual_seed(0)
        self.variant, self.steps, self.skipped = variant, 0, 0
        self.model = VideoTokenizer(
            image_size=side,
            init_dim=INIT_DIM,
            max_dim=MAX_DIM,
            layers=LAYERS,
            use_gan=False,
            perceptual_loss_weight=0.0,
            **variant.quantizer,
        )
        # It makes a discriminator even when none is used.
        del self.model.discr
        if variant.tuned:
            for parameter in self.model.parameters():
                if parameter.ndim == 5:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
        self.average = copy.deepcopy(self.model).eval() if variant.tuned else self.model
        self.optimizer = get_optimizer(self.model.parameters(), lr=variant.lr)

    def pixels(self, clips_BCTHW: Tensor) -> Tensor:
        """Float in [0, 1], the range of the peer's own data sets, laid out as the weights are."""
        layout = torch.channels_last_3d if self.variant.tuned else torch.contiguous_format
        return (clips_BCTHW.float() / 255).contiguous(memory_format=layout)

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.variant.bfloat16)

    def lr(self, share: float) -> float:
        """Learning rate when this share of the time is over."""
        if not self.variant.tuned:
            return self.variant.lr * min(1.0, (self.steps + 1) / 1000)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
        warmup = min(1.0, (share + 1e-3) / WARMUP_SHARE)
        return self.variant.lr * warmup * (FINAL_LR + (1 - FINAL_LR) * cosine)

    def step(self, clips_BCTHW: Tensor, share: float) -> float:
        """One update on uint8 clips; returns the loss. A loss that is not finite changes nothing."""
        with self.autocast():
            loss, _ = self.model(self.pixels(clips_BCTHW), return_loss=True)
        if not bool(torch.isfinite(loss)):
            self.skipped += 1
            return float(loss)
        loss.backward()
        if self.variant.tuned:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr(share)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.variant.tuned:
            self.follow()
        self.steps += 1
        return float(loss)

    @torch.no_grad()
    def follow(self) -> None:
        decay = min(EMA_DECAY, (1 + self.steps) / (10 + self.steps))
        for ours, theirs in zip(self.average.parameters(), self.model.parameters(), strict=True):
            ours.lerp_(theirs, 1 - decay)

    @torch.no_grad()
    def encode(self, frames_TCHW: Tensor) -> Tensor:
        self.average.eval()
        # Only forward checks the size; the layers take any.
        self.average.image_size = frames_TCHW.shape[-1]
        with self.autocast():
            return self.average.tokenize(self.pixels(frames_TCHW.movedim(0, 1)[None]))

    @torch.no_grad()
    def decode(self, ids_Bthw: Tensor) -> Tensor:
        with self.autocast():
            pixels_BCTHW = self.average.decode_from_code_indices(ids_Bthw)
        pixels_TCHW = pixels_BCTHW[0].movedim(1, 0).float().nan_to_num()
        return (pixels_TCHW * 255).round().clamp(0, 255).to(torch.uint8)


def main(name: str, side: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    peer = Peer(VARIANTS[name], int(side))

    def describe() -> dict[str, Any]:
        versions = {package: importlib.metadata.version(package) for package in ("magvit2-pytorch", "torch")}
        return {"parameters": sum(parameter.numel() for parameter in peer.model.parameters()), **versions}

    def learn(path: str, shape: list[int], seconds: float, *, whole_run: bool) -> dict[str, Any]:
        peer.model.train()
        peer.model.image_size = shape[-1]
        began = said = time.monotonic()
        first, number, loss = peer.steps, 0, math.nan
        while (passed := time.monotonic() - began) < seconds:
            loss = peer.step(read_batch(path, shape, first + number), passed / seconds if whole_run else 1.0)
            number += 1
            if time.monotonic() - said > SAY_EVERY_S:
                said = time.monotonic()
                print(f"  {name}: step {number}, {said - began:.0f} s, loss {loss:.4f}", file=sys.stderr, flush=True)
        passed = time.monotonic() - began
        return {"steps": number, "seconds": passed, "clips_per_s": number * shape[0] / passed, "loss": loss}

    def train(path: str, shape: list[int], minutes: float) -> dict[str, Any]:
        done = learn(path, shape, 60 * minutes, whole_run=True)
        loss = done.pop("loss")
        return (
            done
            | {"last_loss": loss if math.isfinite(loss) else None, "skipped": peer.skipped}
            | {"peak_mib": peak_mib()}
        )

    def reconstruct(clips: str, out: str) -> dict[str, Any]:
        clips_NTCHW = torch.from_numpy(np.load(clips))
        np.save(out, np.stack([peer.decode(peer.encode(clip_TCHW)).numpy() for clip_TCHW in clips_NTCHW]))
        return {}

    def round_(path: str, shape: list[int], clips: str, seconds: float) -> dict[str, Any]:
        clip_TCHW = torch.from_numpy(np.load(clips)[0])
        peer.decode(peer.encode(clip_TCHW))
        began = time.perf_counter()
        ids_Bthw = peer.encode(clip_TCHW)
        middle = time.perf_counter()
        peer.decode(ids_Bthw)
        ended = time.perf_counter()
        frames = len(clip_TCHW)
        speeds = {"encode_fps": frames / (middle - began), "decode_fps": frames / (ended - middle)}
        return speeds | {"clips_per_s": learn(path, shape, seconds, whole_run=False)["clips_per_s"]}

    serve({"describe": describe, "train": train, "reconstruct": reconstruct, "round": round_})


if __name__ == "__main__":
    main(*sys.argv[1:])

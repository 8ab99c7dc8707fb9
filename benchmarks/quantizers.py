"""FSQ against LFQ at equal bytes, several seeds: python -m benchmarks.quantizers --data DIR

The same small causal network, data, steps and 18 bits per token; only the quantizer differs. Says which one the nano
presets should use, and whether every seed trains without collapse. Writes results/quantizers.json; about a minute a run
on two CPU cores.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from kinolex.data.packs import Pack
from kinolex.evaluation import ReconstructionProtocol, evaluate_reconstruction
from kinolex.evaluation.protocol import hardware
from kinolex.tokenizers import magvit2
from kinolex.tokenizers.quantizers import FSQConfig, LFQConfig, QuantizerConfig
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training.config import LossWeights, OptimizerConfig, StageConfig, TrainConfig
from kinolex.training.engine import Trainer
from kinolex.training.recipes import FEATURES, open_packs

PROBE = replace(
    magvit2.PRESETS["nano"],
    channels=(64, 96, 128, 192),
    encoder_blocks=(1, 1, 1, 1),
    decoder_blocks=(1, 2, 1, 1),
)
QUANTIZERS: dict[str, QuantizerConfig] = {
    "fsq": FSQConfig(levels=(8, 8, 8, 8, 8, 8)),
    "lfq": LFQConfig(num_bits=18),
    "bsq": LFQConfig(num_bits=18, spherical=True),
}
CODEBOOK = ("reach", "reach_of_uniform", "perplexity")
KEPT = ("bits_per_pixel", "psnr_db", "squeezenet_distance", "ms_ssim")


def recipe(quantizer: QuantizerConfig, seed: int, steps: int) -> TrainConfig:
    stage = StageConfig(
        name="probe", steps=steps, clip_frames=9, crop=64, batch_video=8, batch_image=0, perceptual_frames=1
    )
    return TrainConfig(
        model=replace(PROBE, quantizer=quantizer),
        stages=(stage,),
        data=("sequences", "clips"),
        seed=seed,
        losses=LossWeights(perceptual=0.1, commitment=0.02, entropy=0.01, entropy_steps=steps // 4),
        optimizer=OptimizerConfig(muon_lr=0.04, adam_lr=2e-3, ema_decay=0.98),
        save_every=10**9,
        grid_every=10**9,
    )


def run(name: str, seed: int, steps: int, packs: list[Pack], data: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        config = recipe(QUANTIZERS[name], seed, steps)
        model = Trainer(config, packs, Path(folder), features_path=data / FEATURES).run()
    protocol = ReconstructionProtocol(max_frames=17)
    result = evaluate_reconstruction(VideoTokenizer(model, f"{name}-{seed}"), data, protocol, data / FEATURES)
    means = {key: result["mean"][key]["mean"] for key in KEPT}
    codebook = {key: result["codebook"][0][key] for key in CODEBOOK}
    record = {"quantizer": name, "seed": seed, **means, **codebook}
    print(json.dumps(record), flush=True)
    return record


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("runs/out/packs"))
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quantizers", nargs="+", default=list(QUANTIZERS))
    options = parser.parse_args()
    packs = open_packs(recipe(QUANTIZERS["fsq"], 0, 1), options.data, options.cache)
    runs = [
        run(name, seed, options.steps, packs, options.data)
        for seed in range(options.seeds)
        for name in options.quantizers
    ]
    summary = {}
    for name in options.quantizers:
        ours = [one for one in runs if one["quantizer"] == name]
        summary[name] = {
            key: {"mean": float(np.mean([one[key] for one in ours])), "std": float(np.std([one[key] for one in ours]))}
            for key in (*KEPT, *CODEBOOK)
        }
    record = {
        "name": "quantizers at equal bytes",
        "command": f"python -m benchmarks.quantizers --data DIR --steps {options.steps} --seeds {options.seeds}",
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(),
        "network": repr(asdict(PROBE)["channels"]),
        "summary": summary,
        "runs": runs,
    }
    Path("results/quantizers.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""How well clip features read the attributes of worlds never learned from, rendered and decoded by a tokenizer.

python -m kinolex.evaluation.clip_features > results/clip_features.json
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from kinolex import hub
from kinolex.data.worlds.labels import CLASSES, Labels, labelled
from kinolex.data.worlds.scene import WorldConfig
from kinolex.evaluation.through import AT_ONCE, through, to_pixels
from kinolex.models.clip_features import ClipFeatures

FIRST_SEED, COUNT = 7_000_000, 500
"""Below the seeds that networks learn from."""
TOKENIZER = "magvit2-nano"
CONFIG = WorldConfig(frames=17, height=64, width=64)


@torch.inference_mode()
def accuracy(model: ClipFeatures, frames_NTHWC: NDArray[np.uint8], labels: Sequence[Labels]) -> dict[str, float]:
    """Shares of clips whose attribute is read rightly, among those that ask for it; and two figures of motion.

    Returns:
        One share per attribute; shuffled_found and intact_found, the shares of clips that the order head calls out of
        order once their frames are shuffled and in order while they are not; velocity_error, the median error of the
        largest body's mean velocity, in picture heights per clip.
    """
    answers: dict[str, list[torch.Tensor]] = {}
    generator = torch.Generator().manual_seed(0)
    for start in range(0, len(frames_NTHWC), AT_ONCE):
        pixels_BCTHW = to_pixels(torch.from_numpy(frames_NTHWC[start : start + AT_ONCE]))
        for name, answer in model.heads(model(pixels_BCTHW)).items():
            answers.setdefault(name, []).append(answer)
        order = torch.randperm(pixels_BCTHW.shape[2], generator=generator)
        answers.setdefault("shuffled", []).append(model.heads(model(pixels_BCTHW[:, :, order]))["order"])
    joined = {name: torch.cat(parts) for name, parts in answers.items()}
    found: dict[str, float] = {}
    for name in CLASSES:
        wanted_N = torch.tensor([each.classes[name] for each in labels])
        asked_N = wanted_N >= 0
        found[name] = float((joined[name].argmax(1) == wanted_N)[asked_N].double().mean())
    found["shuffled_found"] = float((joined["shuffled"].argmax(1) != 0).double().mean())
    found["intact_found"] = float((joined["order"].argmax(1) == 0).double().mean())
    moved_N2 = torch.tensor(np.stack([each.track_T2[-1] - each.track_T2[0] for each in labels]))
    found["velocity_error"] = float((joined["velocity"].double() - moved_N2).norm(dim=1).median())
    return {name: round(value, 4) for name, value in found.items()}


def main() -> None:
    """python -m kinolex.evaluation.clip_features > results/clip_features.json"""
    pairs = [labelled(seed, CONFIG) for seed in range(FIRST_SEED, FIRST_SEED + COUNT)]
    frames_NTHWC, labels = np.stack([frames for frames, _ in pairs]), [label for _, label in pairs]
    model = hub.load_clip_features()
    values = {
        "rendered": accuracy(model, frames_NTHWC, labels),
        f"through {TOKENIZER}": accuracy(model, through(hub.load(TOKENIZER), frames_NTHWC), labels),
    }
    command = "python -m kinolex.evaluation.clip_features > results/clip_features.json"
    print(
        json.dumps(
            {"name": "clip-features-nano on unseen worlds", "command": command, "n": COUNT, "values": values}, indent=1
        )
    )


if __name__ == "__main__":
    main()

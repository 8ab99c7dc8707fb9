"""The benchmark of chaining finds what is planted, and runs on a generator of random weights."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from benchmarks.generation_chain import Watch, chain, drift, measure, seam
from kinolex.errors import UsageError
from kinolex.generation import GenerateConfig, MaskedGenerator, Wish, compose
from kinolex.models.masked import MaskedTransformer
from kinolex.sampling.parallel import ParallelConfig
from kinolex.types import Clip

FAST = GenerateConfig(sampling=ParallelConfig(steps=1))


def watched(levels_TC: torch.Tensor, piece: int = 7) -> Watch:
    """Frames of one colour each, passed on in pieces."""
    frames_TCHW = levels_TC[:, :, None, None].expand(-1, -1, 4, 5).round().to(torch.uint8)
    watch = Watch()
    for start in range(0, len(frames_TCHW), piece):
        watch(Clip(frames_TCHW[start : start + piece].contiguous(), Fraction(10)))
    return watch


def test_a_planted_drift_is_found_per_channel() -> None:
    levels_TC = torch.full((60, 3), 100.0)
    levels_TC[10:, 0] += 2.0 * torch.arange(50)  # 20 levels a second
    levels_TC[10:, 2] -= 1.0 * torch.arange(50)
    found = drift(watched(levels_TC), 10, 10.0)
    assert found["slope_levels_per_s"] == pytest.approx([20.0, 0.0, -10.0], abs=1e-6)
    assert found["largest_distance_levels"] == pytest.approx(98.0)
    assert found["last_second_distance_levels"] == pytest.approx(89.0)
    # What is given is the measure, wherever it lies.
    levels_TC[:10] += 40
    assert drift(watched(levels_TC), 10, 10.0)["largest_distance_levels"] == pytest.approx(89.0)


def test_a_planted_seam_is_told_from_the_seams_of_latent_frames() -> None:
    starts = (9, 21, 33)
    rises_T = torch.ones(45)
    rises_T[1::4] = 2.0  # every latent frame begins with a larger step
    for start in starts:
        rises_T[start] = 6.0
    watch = watched(torch.cumsum(rises_T, 0)[:, None].expand(-1, 3))
    found = seam(watch, 9, starts, 4)
    inside = [float(rises_T[frame]) for frame in range(9, 45) if frame not in starts]
    assert found["boundary_levels"] == pytest.approx(6.0)
    assert found["boundary_over_interior"] == pytest.approx(6.0 / (sum(inside) / len(inside)))
    assert found["boundary_over_latent_frames_inside"] == pytest.approx(3.0)
    with pytest.raises(UsageError, match="needs two windows"):
        seam(watch, 9, (9,), 4)


def test_the_chain_is_what_the_generator_makes_in_one_go(tiny_generator: MaskedGenerator) -> None:
    generator = torch.Generator().manual_seed(0)
    given = Clip(torch.randint(0, 256, (9, 3, 16, 24), generator=generator, dtype=torch.uint8), Fraction(24))
    told: list[int] = []
    made = chain(tiny_generator, given, 26, FAST, told.append)
    posed = compose(given, Wish(task="frame-prediction", frames=26, lines=None), tiny_generator).posed
    clip = tiny_generator.tokenizer.decode(tiny_generator.generate(posed, FAST))
    whole = Watch()
    whole(clip)
    assert made.watch.steps_T == whole.steps_T and len(whole.steps_T) == 26 == told[-1]
    assert torch.equal(torch.stack(made.watch.means_TC), torch.stack(whole.means_TC))
    # Windows of three latent frames make one new one each.
    assert made.starts == (9, 13, 17, 21, 25)


def test_all_figures_of_a_chain_can_be_written(tiny_generator: MaskedGenerator) -> None:
    model = MaskedTransformer(replace(tiny_generator.config, latent_frames=4))
    generator = MaskedGenerator(model, tiny_generator.tokenizer, "a" * 64)
    given = Clip(torch.randint(0, 256, (9, 3, 16, 16), dtype=torch.uint8), Fraction(24))
    figures, starts = measure(generator, given, 49, FAST, marks=(10, 24, 49))
    assert starts == (9, 17, 25, 33, 41) and figures["windows"] == 5
    peaks = figures["peak_mib_at_frames"]
    assert list(peaks) == ["10", "24", "49"] and 10 < peaks["10"] <= peaks["24"] <= peaks["49"]
    assert figures["peak_growth"] == pytest.approx(peaks["49"] / peaks["10"] - 1)
    resident = figures["resident_mib_at_frames"]
    assert list(resident) == list(peaks) and all(resident[mark] <= peaks[mark] for mark in peaks)
    assert figures["seam"]["boundary_levels"] > 0 and figures["seam"]["interior_levels"] > 0
    assert figures["frames_per_second"] > 0 and len(figures["drift"]["slope_levels_per_s"]) == 3
    json.dumps(figures, allow_nan=False)

"""Distances between sets of clips: closed forms, brute force, and what they must see in broken clips."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from kinolex import hub
from kinolex.data.worlds import WorldConfig, render
from kinolex.errors import CheckpointError, MissingFile, ShapeError, UsageError
from kinolex.metrics import SqueezeNetFeatures
from kinolex.metrics.distribution import (
    FewSamplesWarning,
    distance,
    features_of,
    frechet_distance,
    kernel_distance,
    squeezenet_features,
    torchscript_features,
)


def with_moments(mean: np.ndarray, covariance: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Samples whose mean and covariance (divided by count) are exactly these."""
    raw = np.random.default_rng(seed).normal(size=(count, len(mean)))
    raw -= raw.mean(axis=0)
    whitened = raw @ np.linalg.inv(np.linalg.cholesky(raw.T @ raw / count)).T
    return whitened @ np.linalg.cholesky(covariance).T + mean


def random_covariance(dim: int, seed: int) -> np.ndarray:
    factor = np.random.default_rng(seed).normal(size=(dim, dim))
    return factor @ factor.T / dim + 0.1 * np.eye(dim)


def test_frechet_equals_the_closed_form_of_gaussians() -> None:
    dim = 6
    mean_x, mean_y = np.arange(dim) * 0.3, np.ones(dim)
    cov_x, cov_y = random_covariance(dim, 1), random_covariance(dim, 2)
    # tr((Cx Cy)^1/2) by the eigenvalues of the product, which are real and not negative.
    overlap = np.sqrt(np.linalg.eigvals(cov_x @ cov_y).real.clip(0)).sum()
    expected = ((mean_x - mean_y) ** 2).sum() + np.trace(cov_x) + np.trace(cov_y) - 2 * overlap
    found = frechet_distance(with_moments(mean_x, cov_x, 40, 3), with_moments(mean_y, cov_y, 70, 4))
    assert found == pytest.approx(expected, rel=1e-9)


def test_frechet_of_a_shift_and_of_a_scale_is_known() -> None:
    x = np.random.default_rng(0).normal(size=(50, 8))
    assert frechet_distance(x, x + 0.5) == pytest.approx(8 * 0.25, rel=1e-9)
    centred = x - x.mean(axis=0)
    assert frechet_distance(centred, 3 * centred) == pytest.approx(4 * (centred**2).mean(axis=0).sum(), rel=1e-9)


@pytest.mark.parametrize(("n", "m", "dim"), [(2, 2, 50), (5, 9, 64), (30, 30, 30), (200, 150, 12), (3, 400, 20)])
@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance])
def test_distances_are_zero_for_equal_sets_never_negative_and_symmetric(measure, n: int, m: int, dim: int) -> None:
    for seed in range(5):
        dice = np.random.default_rng(seed)
        scale = 10.0 ** dice.integers(-3, 4)
        x, y = (scale * dice.normal(size=(count, dim)) + 5 for count in (n, m))
        assert measure(x, x) == 0.0
        assert measure(x, x[dice.permutation(n)]) == 0.0
        assert measure(x, np.repeat(x, 2, axis=0)) == 0.0
        assert measure(x, y) > 0.0
        assert measure(x, y) == pytest.approx(measure(y, x), rel=1e-9)
        # Almost equal: rounding must not turn it negative.
        assert measure(x, x * (1 + 1e-12)) >= 0.0


def test_kernel_distance_equals_brute_force() -> None:
    dice = np.random.default_rng(5)
    x, y = dice.normal(size=(7, 4)), dice.normal(size=(9, 4)) + 0.3

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (sum(p * q for p, q in zip(a, b, strict=True)) / 4 + 1) ** 3

    within_x = sum(kernel(a, b) for a in x for b in x) / 49
    within_y = sum(kernel(a, b) for a in y for b in y) / 81
    across = sum(kernel(a, b) for a in x for b in y) / 63
    assert kernel_distance(torch.from_numpy(x), y) == pytest.approx(within_x + within_y - 2 * across, rel=1e-9)


def test_the_result_carries_name_sizes_and_an_interval_that_narrows() -> None:
    dice = np.random.default_rng(7)
    x, y = dice.normal(size=(1200, 5)), dice.normal(size=(1200, 5)) + 0.4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        large = distance("frechet_distance", x, y, features="squeezenet")
    assert large.name == "frechet_distance[squeezenet]" and (large.n, large.m, large.dim) == (1200, 1200, 5)
    assert large.few == "" and large.value == frechet_distance(x, y)
    assert large.low < 5 * 0.16 < large.high and large.low < large.value < large.high
    assert distance("frechet_distance", x, y, features="squeezenet") == large
    assert distance("frechet_distance", x, y, features="squeezenet", seed=1) != large
    small = distance("frechet_distance", x[:150], y[:150], features="squeezenet")
    assert small.high - small.low > 1.5 * (large.high - large.low)


def test_small_sets_are_warned_about() -> None:
    x = np.random.default_rng(0).normal(size=(120, 200))
    with pytest.warns(FewSamplesWarning, match="fewer than the 200 dimensions"):
        assert "dimensions" in distance("frechet_distance", x, x + 1, features="f", resamples=0).few
    with pytest.warns(FewSamplesWarning, match="fewer than 100"):
        assert distance("kernel_distance", x[:99], x, features="f", resamples=0).few
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert distance("kernel_distance", x, x + 1, features="f", resamples=0).few == ""


@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance])
def test_what_cannot_be_compared_is_refused(measure) -> None:
    good = np.zeros((4, 3))
    for bad in (np.zeros(3), np.zeros((1, 3)), np.zeros((4, 2)), np.zeros((4, 3, 1)), np.zeros((4, 0))):
        with pytest.raises(ShapeError, match="two matrices"):
            measure(good, bad)
    for value in (np.nan, np.inf):
        with pytest.raises(ShapeError, match="finite"):
            measure(good, np.where(np.eye(4, 3), value, 0.0))
    with pytest.raises(UsageError, match="knows frechet_distance"):
        distance("fvd", good, good, features="f")  # type: ignore[arg-type]


def mean_frame(pixels_BCTHW: Tensor) -> Tensor:
    """A stand-in for networks of single frames: a coarse picture of each frame, then the mean over frames."""
    small_BCTHW = nn.functional.adaptive_avg_pool3d(pixels_BCTHW, (pixels_BCTHW.shape[2], 4, 4))
    return rearrange(small_BCTHW, "b c t h w -> b t (c h w)").mean(dim=1)


def test_features_are_taken_in_batches_of_one_shape() -> None:
    generator = torch.Generator().manual_seed(0)
    clips = [torch.randint(256, (5, 3, side, side), generator=generator).byte() for side in (8, 8, 8, 16, 8)]
    seen: list[tuple[int, ...]] = []

    def watched(pixels_BCTHW: Tensor) -> Tensor:
        seen.append(tuple(pixels_BCTHW.shape))
        assert -1.0 <= float(pixels_BCTHW.min()) < float(pixels_BCTHW.max()) <= 1.0
        return mean_frame(pixels_BCTHW)

    found_ND = features_of(clips, watched, batch=2)
    assert [shape[0] for shape in seen] == [2, 1, 1, 1] and found_ND.dtype == torch.float64
    alone_ND = torch.cat([features_of(clip.unsqueeze(0), mean_frame) for clip in clips])
    torch.testing.assert_close(found_ND, alone_ND, atol=1e-6, rtol=0)


def test_bad_clips_and_bad_features_are_refused() -> None:
    clips = torch.zeros(3, 4, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ShapeError, match=r"must return \(3, D\)"):
        features_of(clips, lambda pixels: pixels.mean(dim=(1, 2, 3, 4)))
    with pytest.raises(ShapeError, match="finite"):
        features_of(clips, lambda pixels: torch.full((len(pixels), 2), torch.nan))
    with pytest.raises(ShapeError, match="uint8"):
        features_of(clips.float(), mean_frame)
    with pytest.raises(UsageError, match="no clips"):
        features_of([], mean_frame)
    with pytest.raises(UsageError, match="batch"):
        features_of(clips, mean_frame, batch=0)


class Pooled(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.mean(dim=(2, 3, 4))


class NotPooled(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        return pixels


def test_a_torchscript_file_gives_features_or_a_named_error(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(Pooled()).save(str(tmp_path / "good.pt"))
        torch.jit.script(NotPooled()).save(str(tmp_path / "bad.pt"))
    clips = torch.full((2, 4, 3, 8, 8), 255, dtype=torch.uint8)
    assert torch.equal(features_of(clips, torchscript_features(tmp_path / "good.pt")), torch.ones(2, 3).double())
    with pytest.raises(ShapeError, match=r"bad.pt must return \(2, D\)"):
        features_of(clips, torchscript_features(tmp_path / "bad.pt"))
    with pytest.raises(ShapeError, match="cannot take clips of shape"):
        torchscript_features(tmp_path / "good.pt")(torch.zeros(2, 3))
    with pytest.raises(MissingFile, match="no feature network"):
        torchscript_features(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(CheckpointError, match="not a TorchScript file"):
        torchscript_features(tmp_path / "text.pt")


@pytest.fixture(scope="module")
def worlds_NTCHW() -> Tensor:
    return torch.stack([render(seed, WorldConfig()).clip.frames_TCHW for seed in range(600, 700)])


def broken(clips_NTCHW: Tensor, how: str) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if how == "frozen":
        return clips_NTCHW[:, :1].expand_as(clips_NTCHW)
    orders = [torch.randperm(clips_NTCHW.shape[1], generator=generator) for _ in clips_NTCHW]
    return torch.stack([clip[order] for clip, order in zip(clips_NTCHW, orders, strict=True)])


@pytest.mark.filterwarnings("ignore::kinolex.metrics.FewSamplesWarning")
@pytest.mark.parametrize("how", ["frozen", "shuffled"])
def test_clip_features_see_broken_time_where_single_frames_do_not(worlds_NTCHW: Tensor, how: str) -> None:
    """Half of the worlds are compared with the other half, once as they are and once broken in time.

    Fifty clips are few for 128 dimensions, so that even good clips are far away; broken ones are clearly further.
    """
    here, there = worlds_NTCHW[:50], worlds_NTCHW[50:]
    values = {}
    for name, features in (("clips", hub.load_clip_features()), ("frames", mean_frame)):
        real, good, bad = (features_of(clips, features, batch=10) for clips in (here, there, broken(there, how)))
        values[name] = [
            distance("frechet_distance", real, other, features=name, resamples=0).value for other in (good, bad)
        ]
    assert values["clips"][1] > {"frozen": 1.8, "shuffled": 1.3}[how] * values["clips"][0]
    if how == "shuffled":
        assert values["frames"][1] == pytest.approx(values["frames"][0], rel=1e-3)


def test_squeezenet_features_are_blind_to_order_and_refuse_small_pictures(data_dir: Path, worlds_NTCHW: Tensor) -> None:
    weights = data_dir / "perceptual" / "squeezenet_v1_0_imagenet.safetensors"
    if not weights.is_file():
        pytest.skip(f"no perceptual network at {weights}")
    features = squeezenet_features(SqueezeNetFeatures(weights))
    clips = worlds_NTCHW[:4, ::4]
    found_ND = features_of(clips, features)
    assert found_ND.shape == (4, 384 + 512)
    torch.testing.assert_close(features_of(clips.flip(1), features), found_ND, rtol=1e-4, atol=1e-3)
    assert float((found_ND[0] - found_ND[1]).norm()) > 1.0
    with pytest.raises(ShapeError, match="at least 32"):
        features(torch.zeros(1, 3, 4, 16, 16))

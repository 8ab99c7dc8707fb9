"""Distances between two sets of clips as a feature network sees them: Frechet and kernel, with what they are worth.

    clips --features--> X_ND      real
    clips --features--> Y_ND      generated      --> distance, 95 % interval, a warning when there are too few

The features are a function that the caller passes in: (B, C, T, H, W) float in [-1, 1] -> (B, D). A distance is only
comparable with distances of the same features, so its name carries theirs: frechet_distance[clip-features-nano].

Source: Frechet distance of Gaussians, Dowson and Landau 1982, with features: Heusel et al. 2017, arXiv 1706.08500 and,
over video, Unterthiner et al. 2018, arXiv 1812.01717; kernel: Binkowski et al. 2018, arXiv 1801.01401.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from kinolex.errors import CheckpointError, MissingFile, ShapeError, UsageError
from kinolex.metrics.perceptual import MIN_SIDE, SqueezeNetFeatures

Features = Callable[[Tensor], Tensor]
"""pixels_BCTHW, float in [-1, 1] -> features_BD."""
Array = NDArray[np.float64]
Kind = Literal["frechet_distance", "kernel_distance"]

FEW_CLIPS = 100
"""Below this many clips in a set a distance says little, whatever the features."""
ROUNDING = 1e-9
"""Of what is subtracted (both variances, both means of the kernel): a distance below it is rounding, and reads 0."""
DEEP_LAYERS = 2
"""Of SqueezeNet's five tapped layers, the deepest so many become features."""
FRAMES_AT_ONCE = 32


class FewSamplesWarning(UserWarning):
    """A distance was taken from so few clips that it says little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """A distance between two sets, and how far to trust it."""

    name: str
    """With the features in brackets."""
    value: float
    low: float
    high: float
    """95 % interval over which clips were drawn (percentiles of a bootstrap, moved by its own upward bias)."""
    n: int
    m: int
    """Clips of either set."""
    dim: int
    few: str
    """Why the sets are too small; empty if they are not."""


def frechet_distance(x_ND: Tensor | Array, y_ND: Tensor | Array) -> float:
    """Squared Frechet distance |mu_x - mu_y|^2 + tr(C_x) + tr(C_y) - 2 tr((C_x C_y)^1/2) of the fitted Gaussians.

    With A, B the centred samples over the roots of n and m, C_x = A'A and C_y = B'B, so the last trace is the sum of
    the singular values of A B': nothing is inverted and no root of a matrix is taken, so fewer samples than dimensions
    do no harm to the arithmetic. Covariances are those of the sample (divided by n, not n - 1): a repeated sample has
    the same distance.

    Args:
        x_ND, y_ND: one feature vector per clip; taken as float64.

    Returns:
        At least 0; exactly 0 where rounding is all there is (ROUNDING).

    Raises:
        ShapeError: not two matrices of one width, fewer than two rows, or values that are not finite.
    """
    return _frechet(*_checked(x_ND, y_ND))


def kernel_distance(x_ND: Tensor | Array, y_ND: Tensor | Array) -> float:
    """Squared maximum mean discrepancy under the kernel (x.y / D + 1)^3.

    The V-statistic: means over all pairs, a clip with itself among them. It is a squared norm, so it is never negative
    and 0 for equal sets, at the price of an upward bias of order 1/n; compare sets of one size.

    Args and errors as of frechet_distance.
    """
    return _kernel(*_checked(x_ND, y_ND))


def distance(
    kind: Kind,
    x_ND: Tensor | Array,
    y_ND: Tensor | Array,
    *,
    features: str,
    resamples: int = 100,
    seed: int = 0,
) -> Distance:
    """A distance with its interval and its name.

    Args:
        kind: which.
        features: name of the feature network, for the result's name.
        resamples: of the bootstrap over clips; 0 leaves the interval at the value. The interval says how much the
            choice of clips matters, not how far a bias that small sets share has moved the value.
        seed: of the bootstrap.

    Raises:
        UsageError: another kind, or negative resamples. ShapeError: as frechet_distance.

    Warns:
        FewSamplesWarning: fewer clips than dimensions (Frechet only: the covariance is then singular), or FEW_CLIPS.
    """
    if kind not in ("frechet_distance", "kernel_distance") or resamples < 0:
        raise UsageError(f"distance knows frechet_distance and kernel_distance, got {kind!r} and {resamples} resamples")
    x, y = _checked(x_ND, y_ND)
    compute = _frechet if kind == "frechet_distance" else _kernel
    value = compute(x, y)
    low, high = _interval(compute, x, y, value, resamples, seed)
    name, (n, dim), m = f"{kind}[{features}]", x.shape, len(y)
    few = _why_few(kind, min(n, m), dim)
    if few:
        warnings.warn(f"{name}: {few}", FewSamplesWarning, stacklevel=2)
    return Distance(name=name, value=value, low=low, high=high, n=n, m=m, dim=dim, few=few)


# --- features of clips ---


@torch.no_grad()
def features_of(clips: Tensor | Iterable[Tensor], features: Features, batch: int = 8) -> Tensor:
    """One float64 vector per clip.

    Args:
        clips: uint8 clips T C H W in 0..255, in any iterable or one tensor B T C H W; clips of one batch that differ
            in size are passed on one by one.
        features: as the module says.
        batch: clips per call.

    Raises:
        UsageError: batch below 1, or no clips. ShapeError: clips that are no uint8 T C H W, or features that return
            anything but one finite vector per clip.
    """
    if batch < 1:
        raise UsageError(f"batch must be at least 1, got {batch}")
    rows = []
    for group in _grouped(clips, batch):
        pixels_BCTHW = rearrange(torch.stack(group), "b t c h w -> b c t h w").float() / 127.5 - 1.0
        found_BD = features(pixels_BCTHW)
        if not isinstance(found_BD, Tensor) or found_BD.ndim != 2 or len(found_BD) != len(group):
            got = tuple(found_BD.shape) if isinstance(found_BD, Tensor) else type(found_BD).__name__
            raise ShapeError(f"features must return ({len(group)}, D) for {len(group)} clips, got {got}")
        rows.append(found_BD.double().cpu())
    if not rows:
        raise UsageError("there are no clips to take features of")
    if len({row.shape[1] for row in rows}) > 1 or not all(bool(torch.isfinite(row).all()) for row in rows):
        raise ShapeError("features must be finite and of one width for all clips")
    return torch.cat(rows)


def squeezenet_features(net: SqueezeNetFeatures) -> Features:
    """Features of single frames, blind to their order: means over space of deep layers, then the mean over frames.

    Channels at a place are scaled to a root mean square of one first, as squeezenet_distance scales them to length one:
    raw activations are in the hundreds, where the cubic kernel sees nothing but the brightest of them.
    """

    @torch.no_grad()
    def features(pixels_BCTHW: Tensor) -> Tensor:
        if pixels_BCTHW.ndim != 5 or pixels_BCTHW.shape[1] != 3 or min(pixels_BCTHW.shape[3:]) < 2 * MIN_SIDE:
            raise ShapeError(
                f"squeezenet features need (B, 3, T, H, W) with H and W at least {2 * MIN_SIDE}, "
                f"got {tuple(pixels_BCTHW.shape)}"
            )
        count = len(pixels_BCTHW)
        frames_NCHW = rearrange(pixels_BCTHW, "b c t h w -> (b t) c h w").to(net.conv1.weight.device)
        vectors = []
        for part_NCHW in frames_NCHW.split(FRAMES_AT_ONCE):
            layers = net(part_NCHW)[-DEEP_LAYERS:]
            scaled = (F.normalize(layer.float(), dim=1) * layer.shape[1] ** 0.5 for layer in layers)
            vectors.append(torch.cat([layer_NCHW.mean(dim=(2, 3)) for layer_NCHW in scaled], dim=1))
        return rearrange(torch.cat(vectors), "(b t) d -> b t d", b=count).mean(dim=1)

    return features


def torchscript_features(path: str | Path) -> Features:
    """Features of any network saved as TorchScript, such as the I3D of the published Frechet video distances.

    Args:
        path: a file that torch.jit.load reads; called with (B, 3, T, H, W) in [-1, 1], it returns (B, D). A TorchScript
            file is a program: load only files from people you trust.

    Raises:
        MissingFile: no such file. CheckpointError: it is no TorchScript file. The function raises ShapeError when the
        network refuses the clips or does not return (B, D).
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"no feature network at {path}; give the path of a TorchScript file")
    try:
        network = torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a TorchScript file ({error}); save it with torch.jit.save") from error

    @torch.no_grad()
    def features(pixels_BCTHW: Tensor) -> Tensor:
        try:
            found = network(pixels_BCTHW)
        except RuntimeError as error:
            shape = tuple(pixels_BCTHW.shape)
            raise ShapeError(f"the network in {path} cannot take clips of shape {shape}: {error}") from error
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(pixels_BCTHW):
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ShapeError(f"the network in {path} must return ({len(pixels_BCTHW)}, D), got {got}")
        return found

    return features


# --- arithmetic ---


def _checked(x_ND: Tensor | Array, y_ND: Tensor | Array) -> tuple[Array, Array]:
    x, y = (
        values.detach().cpu().double().numpy() if isinstance(values, Tensor) else np.asarray(values, np.float64)
        for values in (x_ND, y_ND)
    )
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or x.shape[1] < 1 or min(len(x), len(y)) < 2:
        raise ShapeError(
            f"a distance needs two matrices (clips, D) of one D with at least 2 clips each, got {x.shape} and {y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ShapeError("features must be finite; look for NaN or infinity in what the feature network returns")
    return x, y


def _frechet(x: Array, y: Array) -> float:
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    a, b = (x - mean_x) / np.sqrt(len(x)), (y - mean_y) / np.sqrt(len(y))
    # The product's singular values are those of R_a R_b' as well, which are at most D x D.
    a, b = (_triangle(part) if len(part) > part.shape[1] else part for part in (a, b))
    spread = float((a**2).sum() + (b**2).sum())
    overlap = float(np.linalg.svd(a @ b.T, compute_uv=False).sum())
    value = float(((mean_x - mean_y) ** 2).sum()) + (spread - 2 * overlap)
    return value if value > ROUNDING * spread else 0.0


def _triangle(matrix: Array) -> Array:
    """R of the decomposition Q R."""
    return np.asarray(np.linalg.qr(matrix, mode="r"), np.float64)


def _kernel(x: Array, y: Array) -> float:
    within = float(_cubed(x, x).mean() + _cubed(y, y).mean())
    value = within - 2 * float(_cubed(x, y).mean())
    return value if value > ROUNDING * within else 0.0


def _cubed(x: Array, y: Array) -> Array:
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def _interval(
    compute: Callable[[Array, Array], float], x: Array, y: Array, value: float, resamples: int, seed: int
) -> tuple[float, float]:
    """Percentiles of the distance of resampled sets. Resampling repeats clips, which adds to the distance what drawing
    clips had added before; the percentiles are moved so that their median is the value."""
    if resamples == 0:
        return value, value
    dice = np.random.default_rng(seed)
    drawn = [
        compute(x[dice.integers(0, len(x), len(x))], y[dice.integers(0, len(y), len(y))]) for _ in range(resamples)
    ]
    low, middle, high = np.percentile(drawn, [2.5, 50, 97.5])
    return max(0.0, value + float(low - middle)), value + float(high - middle)


def _why_few(kind: Kind, clips: int, dim: int) -> str:
    if kind == "frechet_distance" and clips < dim:
        return f"{clips} clips are fewer than the {dim} dimensions: the distance is far too large; use more clips"
    if clips < FEW_CLIPS:
        return f"{clips} clips are fewer than {FEW_CLIPS}: compare only distances of sets of this very size"
    return ""


def _grouped(clips: Iterable[Tensor], batch: int) -> Iterator[list[Tensor]]:
    """Neighbours of one shape, at most `batch` at once."""
    group: list[Tensor] = []
    for clip_TCHW in clips:
        if clip_TCHW.dtype != torch.uint8 or clip_TCHW.ndim != 4:
            raise ShapeError(f"clips must be uint8 (T, C, H, W), got {clip_TCHW.dtype} {tuple(clip_TCHW.shape)}")
        if group and (len(group) == batch or clip_TCHW.shape != group[0].shape):
            yield group
            group = []
        group.append(clip_TCHW)
    if group:
        yield group

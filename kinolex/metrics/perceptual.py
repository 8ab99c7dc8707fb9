"""Distance between pictures as an ImageNet-trained SqueezeNet sees them: a metric and a training loss.

    pixels --x2--> SqueezeNet --> features after fire2, 3, 4, 6, 8 --unit length per position--> squared difference

The name carries the backbone: this is `squeezenet_distance`, comparable with itself only, and not LPIPS (no learned
layer weights, another network). It lies in [0, 2]; 0 is equal, features of unrelated pictures are about 1 apart.

Source: network of Iandola et al. 2016, arXiv 1602.07360, version 1.0; distance after Zhang et al. 2018,
arXiv 1801.03924.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kinolex.errors import CheckpointError, ShapeError, UsageError

TAPPED = ("fire2", "fire3", "fire4", "fire6", "fire8")
POOLED_AFTER = ("conv1", "fire4", "fire8")
MEANS_BGR = (104.0, 117.0, 123.0)
FIRE_WIDTHS = {  # name: (channels in, squeezed, each half of the expansion)
    "fire2": (96, 16, 64),
    "fire3": (128, 16, 64),
    "fire4": (128, 32, 128),
    "fire5": (256, 32, 128),
    "fire6": (256, 48, 192),
    "fire7": (384, 48, 192),
    "fire8": (384, 64, 256),
    "fire9": (512, 64, 256),
}
MIN_SIDE = 16
"""Smallest height and width, in pixels before the doubling, whose deepest tapped features are not empty."""

EVAL_EVERY_NTH = 8
"""Neighbouring frames look alike: measuring every 8th changes the mean of a clip little and costs an eighth."""

_UNIT_EPSILON = 1e-3  # measured squared lengths are above 1e4, even on flat grey; guards all-zero features


class Fire(nn.Module):
    """Squeeze with 1x1, expand with 1x1 and 3x3 side by side."""

    def __init__(self, channels_in: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.conv1x1_1 = nn.Conv2d(channels_in, squeezed, 1)
        self.conv1x1_2 = nn.Conv2d(squeezed, expanded, 1)
        self.conv3x3_2 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        squeezed_BCHW = F.relu(self.conv1x1_1(x_BCHW))
        return F.relu(torch.cat([self.conv1x1_2(squeezed_BCHW), self.conv3x3_2(squeezed_BCHW)], dim=1))


class SqueezeNetFeatures(nn.Module):
    """Frozen SqueezeNet 1.0, loaded from a safetensors file; gradients reach its input, never its weights.

    Args:
        path: weights, float16 or float32, with the tensor names conv1, fire2 ... fire9, conv_final (docs/data.md).

    Raises:
        CheckpointError: no such file, not safetensors, or other tensors than this network has.
    """

    means: Tensor

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 7, stride=2)
        for name, widths in FIRE_WIDTHS.items():
            self.add_module(name, Fire(*widths))
        self.conv_final = nn.Conv2d(512, 1000, 1, padding=1)
        self.register_buffer("means", rearrange(torch.tensor(MEANS_BGR), "c -> 1 c 1 1"), persistent=False)
        self._load(Path(path))
        self.requires_grad_(False).eval()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's own stubs

    def forward(self, pixels_BCHW: Tensor) -> list[Tensor]:
        """Features after fire2, fire3, fire4, fire6 and fire8 of RGB pixels, float in [-1, 1], at the size given."""
        features: list[Tensor] = []
        x_BCHW = self._stem(pixels_BCHW)
        for name in FIRE_WIDTHS:
            x_BCHW = self.get_submodule(name)(x_BCHW)
            if name in TAPPED:
                features.append(x_BCHW)
            if name == TAPPED[-1]:
                break
            x_BCHW = _pool_after(name, x_BCHW)
        return features

    def class_scores(self, pixels_BCHW: Tensor) -> Tensor:
        """ImageNet scores (B, 1000), not normalised, of RGB pixels in [-1, 1]; the network knows 227x227."""
        x_BCHW = self._stem(pixels_BCHW)
        for name in FIRE_WIDTHS:
            x_BCHW = _pool_after(name, self.get_submodule(name)(x_BCHW))
        return F.relu(self.conv_final(x_BCHW)).mean(dim=(2, 3))

    def _stem(self, pixels_BCHW: Tensor) -> Tensor:
        bgr_BCHW = (pixels_BCHW.flip(1) + 1.0) * 127.5 - self.means
        return _pool_after("conv1", F.relu(self.conv1(bgr_BCHW)))

    def _load(self, path: Path) -> None:
        if not path.is_file():
            raise CheckpointError(
                f"no perceptual network at {path}; give the path of squeezenet_v1_0_imagenet.safetensors "
                "(docs/data.md says where it comes from), or go without one: training then uses MS-SSIM"
            )
        try:
            weights = {name: weight.float() for name, weight in load_file(path).items()}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read as safetensors ({error}); fetch the file again") from error
        try:
            self.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(f"{path} does not hold SqueezeNet 1.0: {error}") from error


def perceptual_distance_B(features_net: SqueezeNetFeatures, a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    """Distance of each pair of pictures; differentiable in both.

    Args:
        features_net: the frozen network; its device and the pictures' must agree.
        a_BCHW, b_BCHW: RGB, float in [-1, 1], same shape, at least 16x16. Values outside are taken as they are.

    Returns:
        (B,) float32 in [0, 2]: mean over five layers of the mean over positions of the squared difference, summed over
        channels, of features scaled to unit length. Lengths and differences are float32 under any autocast.

    Raises:
        ShapeError: other shapes, or pictures that are too small.
    """
    if a_BCHW.shape != b_BCHW.shape or a_BCHW.ndim != 4 or a_BCHW.shape[1] != 3 or min(a_BCHW.shape[2:]) < MIN_SIDE:
        raise ShapeError(
            f"perceptual distance needs two equal shapes (B, 3, H, W) with H and W at least {MIN_SIDE}, "
            f"got {tuple(a_BCHW.shape)} and {tuple(b_BCHW.shape)}"
        )
    features_a, features_b = (features_net(_doubled(pixels_BCHW)) for pixels_BCHW in (a_BCHW, b_BCHW))
    per_layer = [
        (_unit_length(layer_a) - _unit_length(layer_b)).square().sum(dim=1).mean(dim=(1, 2))
        for layer_a, layer_b in zip(features_a, features_b, strict=True)
    ]
    return torch.stack(per_layer).mean(dim=0)


@torch.no_grad()
def squeezenet_distance(
    features_net: SqueezeNetFeatures, a_TCHW: Tensor, b_TCHW: Tensor, *, every_nth: int = EVAL_EVERY_NTH
) -> float:
    """Mean perceptual distance of two clips over frames 0, n, 2n, ...

    Args:
        a_TCHW, b_TCHW: uint8 RGB in 0..255, same shape, at least 16x16.
        every_nth: n; 1 measures every frame.

    Returns:
        In [0, 2]; 0 for equal clips.

    Raises:
        ShapeError: other shapes or dtypes. UsageError: every_nth below 1.
    """
    if every_nth < 1:
        raise UsageError(f"every_nth must be at least 1, got {every_nth}")
    if a_TCHW.dtype != torch.uint8 or b_TCHW.dtype != torch.uint8 or a_TCHW.shape != b_TCHW.shape:
        raise ShapeError(
            f"squeezenet_distance needs two uint8 clips of one shape, got {a_TCHW.dtype} {tuple(a_TCHW.shape)} "
            f"and {b_TCHW.dtype} {tuple(b_TCHW.shape)}"
        )
    device = features_net.conv1.weight.device
    a_chunks, b_chunks = (frames_TCHW[::every_nth].split(4) for frames_TCHW in (a_TCHW, b_TCHW))
    total, num_frames = 0.0, 0
    for a_BCHW, b_BCHW in zip(a_chunks, b_chunks, strict=True):
        a_float, b_float = (x.to(device).float() / 127.5 - 1.0 for x in (a_BCHW, b_BCHW))
        total += float(perceptual_distance_B(features_net, a_float, b_float).double().sum())
        num_frames += a_BCHW.shape[0]
    return total / num_frames


def _pool_after(name: str, x_BCHW: Tensor) -> Tensor:
    return F.max_pool2d(x_BCHW, 3, stride=2, ceil_mode=True) if name in POOLED_AFTER else x_BCHW


def _doubled(pixels_BCHW: Tensor) -> Tensor:
    return F.interpolate(pixels_BCHW, scale_factor=2.0, mode="bilinear", align_corners=False)


def _unit_length(features_BCHW: Tensor) -> Tensor:
    features_BCHW = features_BCHW.float()
    return features_BCHW * torch.rsqrt(features_BCHW.square().sum(dim=1, keepdim=True) + _UNIT_EPSILON)

"""Perceptual distance through an ImageNet-trained SqueezeNet v1.0, as a metric and as a loss.

    pixels -> upsample x2 -> conv1 pool fire2 fire3 fire4 pool fire5 fire6 fire7 fire8     features after fire 2 3 4 6 8
    distance = mean over the five layers of mean over positions of |unit(a) - unit(b)|^2

The backbone is in the name (squeezenet_distance): numbers of other backbones cannot be compared with it. The weights are
passed in by path. Source: the form of LPIPS without learned weights, Zhang et al. 2018, arXiv 1801.03924; network:
Iandola et al. 2016, arXiv 1602.07360.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kinolex.errors import CheckpointError, MissingFile

TAPPED = (2, 3, 4, 6, 8)
EVERY_NTH_FRAME = 8
CAFFE_MEANS_BGR = (104.0, 117.0, 123.0)
UNIT_EPSILON = 1e-6


class Fire(nn.Module):
    def __init__(self, in_channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.conv1x1_1 = nn.Conv2d(in_channels, squeeze, 1)
        self.conv1x1_2 = nn.Conv2d(squeeze, expand, 1)
        self.conv3x3_2 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        squeezed = F.relu(self.conv1x1_1(x_BCHW))
        return torch.cat([F.relu(self.conv1x1_2(squeezed)), F.relu(self.conv3x3_2(squeezed))], dim=1)


class SqueezeNetFeatures(nn.Module):
    """Features of RGB pixels in [-1, 1], and class logits.

    Args:
        path: safetensors with conv1, fire2 ... fire9 and conv_final.

    Raises:
        MissingFile: no file at path.
        CheckpointError: the file is not safetensors or holds another network.
    """

    bgr_means: Tensor

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 7, stride=2)
        widths = {2: (96, 16, 64), 3: (128, 16, 64), 4: (128, 32, 128), 5: (256, 32, 128)}
        widths |= {6: (256, 48, 192), 7: (384, 48, 192), 8: (384, 64, 256), 9: (512, 64, 256)}
        for number, (in_channels, squeeze, expand) in widths.items():
            setattr(self, f"fire{number}", Fire(in_channels, squeeze, expand))
        self.conv_final = nn.Conv2d(512, 1000, 1, padding=1)
        self.register_buffer("bgr_means", torch.tensor(CAFFE_MEANS_BGR).view(1, 3, 1, 1), persistent=False)
        if not Path(path).is_file():
            raise MissingFile(f"no perceptual weights at {path}; docs/data.md says where SqueezeNet v1.0 comes from")
        try:
            weights = {name: tensor.float() for name, tensor in load_file(path).items()}
            self.load_state_dict(weights)
        except (SafetensorError, RuntimeError) as error:
            raise CheckpointError(f"{path} does not hold the SqueezeNet v1.0 that docs/data.md describes: {error}") from error
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, pixels_BCHW: Tensor) -> list[Tensor]:
        """Features after fire 2, 3, 4, 6 and 8, of pixels upsampled x2."""
        x_BCHW = self._enter(F.interpolate(pixels_BCHW, scale_factor=2, mode="bilinear", align_corners=False))
        features = []
        for number in range(2, 9):
            x_BCHW = self._fire(number, x_BCHW)
            if number in TAPPED:
                features.append(x_BCHW)
        return features

    def classify(self, pixels_BCHW: Tensor) -> Tensor:
        """Logits over the 1000 ImageNet classes; made for 227 x 227 pixels in [-1, 1]."""
        x_BCHW = self._enter(pixels_BCHW)
        for number in range(2, 10):
            x_BCHW = self._fire(number, x_BCHW)
        return F.relu(self.conv_final(x_BCHW)).mean(dim=(2, 3))

    def _enter(self, pixels_BCHW: Tensor) -> Tensor:
        bgr_BCHW = (pixels_BCHW.flip(1) + 1.0) * 127.5 - self.bgr_means
        x_BCHW = F.relu(self.conv1(bgr_BCHW.contiguous(memory_format=torch.channels_last)))
        return F.max_pool2d(x_BCHW, 3, 2, ceil_mode=True)

    def _fire(self, number: int, x_BCHW: Tensor) -> Tensor:
        if number in (5, 9):  # pools stand after fire4 and fire8
            x_BCHW = F.max_pool2d(x_BCHW, 3, 2, ceil_mode=True)
        return getattr(self, f"fire{number}")(x_BCHW)  # type: ignore[no-any-return]


def perceptual_distance_B(network: SqueezeNetFeatures, a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    """Differentiable distance of image pairs in [-1, 1]; the gradient flows to a only."""
    with torch.no_grad():
        features_b = network(b_BCHW)
    terms_B = []
    for a, b in zip(network(a_BCHW), features_b, strict=True):
        terms_B.append((_unit(a) - _unit(b)).square().sum(dim=1).mean(dim=(1, 2)))
    return torch.stack(terms_B).mean(dim=0)


def _unit(features_BCHW: Tensor) -> Tensor:
    x_BCHW = features_BCHW.float()
    return x_BCHW * torch.rsqrt(x_BCHW.square().sum(dim=1, keepdim=True) + UNIT_EPSILON)


@torch.inference_mode()
def squeezenet_distance(
    network: SqueezeNetFeatures, a_TCHW: Tensor, b_TCHW: Tensor, *, every: int = EVERY_NTH_FRAME
) -> float:
    """Distance of two clips, 0 for equal ones, about 1 for unrelated ones; lower is better.

    Args:
        a_TCHW, b_TCHW: uint8 frames of equal shape.
        every: only frames 0, every, 2*every ... are compared.
    """
    distances = [
        perceptual_distance_B(network, a.unsqueeze(0).float() / 127.5 - 1.0, b.unsqueeze(0).float() / 127.5 - 1.0)
        for a, b in zip(a_TCHW[::every], b_TCHW[::every], strict=True)
    ]
    return float(torch.cat(distances).mean())

"""The perceptual network is the one it claims to be, and its distance behaves as a distance."""

from __future__ import annotations

import json
from pathlib import Path

import av
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor

from kinolex.errors import CheckpointError, ShapeError, UsageError
from kinolex.metrics.perceptual import MIN_SIDE, SqueezeNetFeatures, perceptual_distance_B, squeezenet_distance


def random_weights(path: Path) -> Path:
    """A file of the right names and shapes with random weights, so that most tests need no real data."""
    generator = torch.Generator().manual_seed(0)
    blank = SqueezeNetFeatures.__new__(SqueezeNetFeatures)
    blank._load = lambda _path: None  # type: ignore[method-assign]
    SqueezeNetFeatures.__init__(blank, path)
    tensors = {}
    for name, weight in blank.state_dict().items():
        fan_in = weight[0].numel() if weight.ndim > 1 else 100
        tensors[name] = (torch.randn(weight.shape, generator=generator) * (2.0 / fan_in) ** 0.5).half().contiguous()
    save_file(tensors, path)
    return path


@pytest.fixture(scope="module")
def random_net(tmp_path_factory: pytest.TempPathFactory) -> SqueezeNetFeatures:
    return SqueezeNetFeatures(random_weights(tmp_path_factory.mktemp("weights") / "random.safetensors"))


@pytest.fixture(scope="module")
def real_net(data_dir: Path) -> SqueezeNetFeatures:
    return SqueezeNetFeatures(data_dir / "perceptual" / "squeezenet_v1_0_imagenet.safetensors")


def read_image(path: Path) -> Tensor:
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        return rearrange(torch.from_numpy(frame.to_ndarray(format="rgb24")), "h w c -> 1 c h w")


def to_float(frames_TCHW: Tensor) -> Tensor:
    return frames_TCHW.float() / 127.5 - 1.0


@pytest.mark.parametrize(
    ("image", "index", "label"),
    [
        ("images_misc/chelsea.png", 285, "Egyptian Mau"),
        ("images_misc/coffee.png", 967, "espresso"),
        ("kodak/kodim23.png", 88, "macaw"),
    ],
)
def test_the_network_recognises_known_pictures(
    image: str, index: int, label: str, real_net: SqueezeNetFeatures, data_dir: Path
) -> None:
    pixels_BCHW = F.interpolate(to_float(read_image(data_dir / image)), (227, 227), mode="bilinear", antialias=True)

    best = int(real_net.class_scores(pixels_BCHW).argmax())

    assert best == index
    assert json.loads((data_dir / "perceptual" / "imagenet_labels.json").read_text())[best] == label


def test_distance_grows_with_damage_and_separates_unrelated_pictures(
    real_net: SqueezeNetFeatures, data_dir: Path
) -> None:
    cat, coffee = (
        F.interpolate(
            to_float(read_image(data_dir / "images_misc" / name)), (128, 128), mode="bilinear", antialias=True
        )
        for name in ("chelsea.png", "coffee.png")
    )
    noise = torch.randn(cat.shape, generator=torch.Generator().manual_seed(0))
    soft = F.interpolate(F.avg_pool2d(cat, 4), scale_factor=4.0, mode="bilinear")

    slightly, strongly, blurred, unrelated = (
        float(perceptual_distance_B(real_net, cat, other))
        for other in (cat + 0.03 * noise, cat + 0.3 * noise, soft, coffee)
    )

    assert 0.0 < slightly < 0.3 < strongly < 2.0
    assert slightly < blurred < unrelated < 2.0


def test_features_have_the_shapes_of_the_five_tapped_layers(random_net: SqueezeNetFeatures) -> None:
    shapes = [tuple(features.shape) for features in random_net(torch.zeros(2, 3, 256, 256))]

    assert shapes == [(2, 128, 62, 62), (2, 128, 62, 62), (2, 256, 62, 62), (2, 384, 31, 31), (2, 512, 31, 31)]


def test_distance_follows_its_definition_written_plainly(random_net: SqueezeNetFeatures) -> None:
    a, b = torch.rand(2, 1, 3, 32, 40, generator=torch.Generator().manual_seed(1)) * 2 - 1
    layers = []
    for features_a, features_b in zip(
        *(random_net(F.interpolate(x, (64, 80), mode="bilinear")) for x in (a, b)), strict=True
    ):
        unit_a, unit_b = (F.normalize(features[0].double(), dim=0) for features in (features_a, features_b))
        layers.append(((unit_a - unit_b) ** 2).sum(0).mean())

    assert float(perceptual_distance_B(random_net, a, b)) == pytest.approx(float(sum(layers) / 5), rel=1e-3)


def test_equal_pictures_are_at_distance_zero_and_order_does_not_matter(random_net: SqueezeNetFeatures) -> None:
    a, b = torch.randint(0, 256, (2, 3, 3, 24, 24), generator=torch.Generator().manual_seed(2)).to(torch.uint8)

    assert squeezenet_distance(random_net, a, a) == 0.0
    assert squeezenet_distance(random_net, a, b) == pytest.approx(squeezenet_distance(random_net, b, a))


def test_only_every_nth_frame_counts(random_net: SqueezeNetFeatures) -> None:
    a_TCHW = torch.zeros(9, 3, 16, 16, dtype=torch.uint8)
    b_TCHW = torch.randint(0, 256, a_TCHW.shape, generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    b_TCHW[[0, 8]] = 0

    assert squeezenet_distance(random_net, a_TCHW, b_TCHW) == 0.0
    assert squeezenet_distance(random_net, a_TCHW, b_TCHW, every_nth=4) > 0.0


def test_gradient_reaches_the_picture_and_not_the_network(random_net: SqueezeNetFeatures) -> None:
    a, b = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(4)) * 2 - 1
    a.requires_grad_(True)

    perceptual_distance_B(random_net, a, b).sum().backward()

    assert a.grad is not None and bool(torch.isfinite(a.grad).all()) and float(a.grad.abs().max()) > 0
    assert all(weight.grad is None for weight in random_net.parameters())


@pytest.mark.parametrize("level", [-1.0, 0.0, 1.0])
def test_flat_pictures_give_finite_distance_and_gradient(level: float, random_net: SqueezeNetFeatures) -> None:
    a = torch.full((1, 3, MIN_SIDE, MIN_SIDE), level, requires_grad=True)

    distance_B = perceptual_distance_B(random_net, a, torch.zeros_like(a))
    distance_B.sum().backward()

    assert bool(torch.isfinite(distance_B).all()) and bool(torch.isfinite(a.grad).all())  # type: ignore[union-attr]


def test_autocast_changes_the_distance_only_slightly(random_net: SqueezeNetFeatures) -> None:
    a, b = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(5)) * 2 - 1
    exact = float(perceptual_distance_B(random_net, a, b))

    with torch.autocast("cpu", dtype=torch.bfloat16):
        distance_B = perceptual_distance_B(random_net, a, b)

    assert distance_B.dtype == torch.float32
    assert float(distance_B) == pytest.approx(exact, rel=0.05)


def test_a_missing_or_foreign_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"docs/data\.md"):
        SqueezeNetFeatures(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights at all")
    with pytest.raises(CheckpointError, match="safetensors"):
        SqueezeNetFeatures(tmp_path / "text.safetensors")
    save_file({"other": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="SqueezeNet"):
        SqueezeNetFeatures(tmp_path / "other.safetensors")


def test_unfit_pictures_are_refused(random_net: SqueezeNetFeatures) -> None:
    with pytest.raises(ShapeError, match="16"):
        perceptual_distance_B(random_net, torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    with pytest.raises(ShapeError, match="uint8"):
        squeezenet_distance(random_net, torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16))
    with pytest.raises(UsageError, match="every_nth"):
        squeezenet_distance(random_net, *torch.zeros(2, 1, 3, 16, 16, dtype=torch.uint8), every_nth=0)

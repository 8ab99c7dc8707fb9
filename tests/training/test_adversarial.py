from __future__ import annotations

import pytest
import torch
from torch import nn

from kinolex.tokenizers.autoencoder3d import Autoencoder3D
from kinolex.training.adversarial import Discriminator, adaptive_weight, halve, lecam, r1_penalty
from kinolex.training.alarms import Alarms
from kinolex.training.config import DiscriminatorConfig, LossWeights, OptimizerConfig
from kinolex.training.doctor import SMALL, compare_device, overfit
from kinolex.training.losses import quantizer_terms, reconstruction_terms
from kinolex.training.optimizer import Optimizers, orthogonalise


@pytest.mark.parametrize(("base", "millions"), [(64, 15.3), (128, 61.3)])
def test_the_papers_discriminator_has_the_published_size(base: int, millions: float) -> None:
    config = DiscriminatorConfig(base=base, multipliers=(2, 4, 4, 4, 4))
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in Discriminator(config).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize("shape", [(2, 3, 1, 32, 32), (1, 3, 5, 40, 24), (1, 3, 17, 64, 64)])
@pytest.mark.parametrize("blur", [True, False])
def test_the_discriminator_takes_images_and_clips_of_any_size(shape: tuple[int, ...], blur: bool) -> None:
    network = Discriminator(DiscriminatorConfig(base=4, multipliers=(2, 2, 2), blur_pool=blur))
    assert network(torch.randn(shape)).shape == (shape[0],)


def test_blur_pooling_halves_every_axis_longer_than_one_and_keeps_constants_inside() -> None:
    pooled = halve(torch.full((1, 2, 8, 8, 8), 3.0), blur=True)
    assert pooled.shape == (1, 2, 4, 4, 4)
    torch.testing.assert_close(pooled[:, :, 1:, 1:, 1:], torch.full((1, 2, 3, 3, 3), 3.0))
    assert halve(torch.zeros(1, 2, 1, 8, 8), blur=True).shape == (1, 2, 1, 4, 4)
    # An alternating signal, which plain subsampling would turn into a constant, is blurred away.
    alternating = (torch.arange(16) % 2 * 2.0 - 1.0).view(1, 1, 1, 1, 16).expand(1, 1, 1, 4, 16)
    assert float(halve(alternating, blur=True)[..., 1:].abs().max()) < 1e-6


def test_r1_of_a_linear_network_is_the_squared_norm_of_its_weights() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(12, 1)
    network = nn.Sequential(nn.Flatten(), linear, nn.Flatten(0))
    penalty = r1_penalty(network, torch.randn(5, 3, 1, 2, 2))
    torch.testing.assert_close(penalty, linear.weight.square().sum())
    penalty.backward()
    torch.testing.assert_close(linear.weight.grad, 2 * linear.weight)


def test_lecam_by_hand() -> None:
    real_B, fake_B = torch.tensor([1.0, 3.0]), torch.tensor([-1.0, 2.0])
    # relu(real - (-0.5))^2 = 2.25, 12.25; relu(1.5 - fake)^2 = 6.25, 0
    assert float(lecam(real_B, fake_B, 1.5, -0.5)) == pytest.approx((2.25 + 12.25) / 2 + 6.25 / 2)


def test_the_adaptive_weight_balances_gradients_at_the_last_layer() -> None:
    last = torch.tensor([1.0, 2.0], requires_grad=True)
    weight = adaptive_weight((last * 3).sum(), (last * 0.5).sum(), last)
    assert float(weight) == pytest.approx(6.0, rel=1e-3)
    assert not weight.requires_grad
    assert float(adaptive_weight((last * 1e6).sum(), (last * 1e-6).sum(), last)) == 10.0


def test_alarms_name_the_cause_and_a_remedy_once() -> None:
    alarms = Alarms(1024)
    (collapse,) = alarms.check({"code_usage": 0.001})
    assert "code collapse" in collapse and "entropy" in collapse
    assert alarms.check({"code_usage": 0.001}) == []
    assert alarms.check({"code_usage": 0.5}) == []
    assert len(alarms.check({"code_usage": 0.001, "discriminator_accuracy": 0.999})) == 2
    assert alarms.check({"code_usage": 0.5, "discriminator_accuracy": 0.01}) == []  # still the same alarm
    assert alarms.check({"discriminator_accuracy": 0.7}) == []


def test_orthogonalised_updates_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((16, 64), (64, 16), (32, 32)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert float(values.min()) > 0.5 and float(values.max()) < 1.3


def test_every_parameter_is_optimised_once_and_the_rate_warms_up_and_decays() -> None:
    model = Autoencoder3D(SMALL)
    optimizers = Optimizers(model, OptimizerConfig(warmup_steps=10, final_lr=0.1), 100)
    groups = optimizers.muon.param_groups + optimizers.adam.param_groups
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    factors = [optimizers.lr_factor(step) for step in range(101)]
    assert factors[0] == pytest.approx(0.1) and max(factors) == pytest.approx(factors[9], abs=0.05)
    assert factors[100] == pytest.approx(0.1) and factors[50] == pytest.approx(0.55, abs=0.02)


def test_the_entropy_term_falls_from_three_times_to_once() -> None:
    losses = {"entropy_sample": torch.tensor(2.0), "entropy_batch": torch.tensor(5.0), "commitment": torch.tensor(1.0)}
    weights = LossWeights(entropy=0.1, entropy_start=3.0, entropy_steps=100, commitment=0.25)
    values = [float(quantizer_terms(losses, weights, step)["entropy"]) for step in (0, 50, 100, 500)]
    assert values == pytest.approx([-0.9, -0.6, -0.3, -0.3])
    assert float(quantizer_terms(losses, weights, 0)["commitment"]) == 0.25


def test_the_perceptual_term_looks_at_the_same_frames_of_both_clips() -> None:
    torch.manual_seed(0)
    pixels_BCTHW = torch.rand(2, 3, 5, 8, 8) * 2 - 1
    seen: list[torch.Tensor] = []

    def compare(a_BCHW: torch.Tensor, b_BCHW: torch.Tensor) -> torch.Tensor:
        seen.extend([a_BCHW, b_BCHW])
        return (a_BCHW - b_BCHW).square().mean(dim=(1, 2, 3))

    weights = LossWeights(absolute=1.0, squared=0.5, perceptual=2.0)
    terms = reconstruction_terms(pixels_BCTHW + 0.1, pixels_BCTHW, weights, compare, 3, torch.Generator())
    assert seen[0].shape == (6, 3, 8, 8)
    torch.testing.assert_close(seen[0], seen[1] + 0.1)
    assert {name: round(float(term), 4) for name, term in terms.items()} == {
        "absolute": 0.1,
        "squared": 0.005,
        "perceptual": 0.02,
    }


def test_the_doctor_finds_a_healthy_machine_healthy_and_a_missing_device_ill() -> None:
    assert overfit("cpu", steps=80).ok
    assert compare_device("cpu").ok
    assert not compare_device("cuda:99").ok

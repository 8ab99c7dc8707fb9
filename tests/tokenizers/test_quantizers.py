from __future__ import annotations

import math
import resource
import subprocess
import sys
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st

from kinolex.errors import ConfigError, ShapeError, TokenError
from kinolex.tokenizers.quantizers import (
    FSQConfig,
    LFQConfig,
    QuantizerConfig,
    ResidualConfig,
    VQConfig,
    build_quantizer,
)

CONFIGS: list[QuantizerConfig] = [
    VQConfig(codebook_size=32, dim=4),
    VQConfig(codebook_size=32, dim=4, normalise=True),
    VQConfig(codebook_size=16, dim=3, ema_decay=0.9),
    LFQConfig(num_bits=1),
    LFQConfig(num_bits=18),
    LFQConfig(num_bits=36),
    LFQConfig(num_bits=10, spherical=True),
    FSQConfig(levels=(8, 8, 8, 8, 8, 8)),
    FSQConfig(levels=(8, 5, 3, 2)),
    ResidualConfig(level=LFQConfig(num_bits=6), num_levels=3),
    ResidualConfig(level=FSQConfig(levels=(5, 4, 3)), num_levels=2),
    ResidualConfig(level=VQConfig(codebook_size=16, dim=4), num_levels=3),
]


def latents_for(dim: int, seed: int = 0, shape: tuple[int, ...] = (2, 3, 4, 5)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape[0], dim, *shape[1:], generator=generator)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_latents_rebuilt_from_ids_are_the_quantized_latents(config: QuantizerConfig) -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(config).eval()
    quantized = quantizer(latents_for(quantizer.latent_dim))

    rebuilt = quantizer.latents_from_ids(quantized.ids_BQthw)

    assert quantized.ids_BQthw.dtype == torch.int64
    assert quantized.ids_BQthw.shape == (2, quantizer.num_levels, 3, 4, 5)
    assert int(quantized.ids_BQthw.max()) < quantizer.vocab_size
    torch.testing.assert_close(rebuilt, quantized.latents_BDthw, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", [c for c in CONFIGS if not isinstance(c, ResidualConfig)], ids=str)
def test_every_id_survives_the_round_trip(config: QuantizerConfig) -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(config).eval()
    ids_BQthw = torch.randint(quantizer.vocab_size, (2, 1, 3, 4, 5))
    if isinstance(config, FSQConfig):
        values = quantizer.latents_from_ids(ids_BQthw)
        latents = torch.atanh(values.clamp(-0.9999, 0.9999))
    else:
        latents = quantizer.latents_from_ids(ids_BQthw)
    assert torch.equal(quantizer(latents).ids_BQthw, ids_BQthw)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_gradient_passes_straight_through(config: QuantizerConfig) -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(config).eval()
    latents = latents_for(quantizer.latent_dim).requires_grad_(True)
    weights = torch.randn_like(latents)

    (quantizer(latents).latents_BDthw * weights).sum().backward()

    assert latents.grad is not None
    if isinstance(config, LFQConfig) and not config.spherical:
        torch.testing.assert_close(latents.grad, weights)  # the identity
    if isinstance(config, FSQConfig):
        bounded = latents.detach().clone().requires_grad_(True)
        (torch.tanh(bounded) * 1.001 * weights).sum().backward()
        torch.testing.assert_close(latents.grad, bounded.grad)  # of the bounding alone, as if nothing were rounded
    assert float(latents.grad.abs().max()) > 0


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_bfloat16_autocast_does_not_change_ids_or_losses(config: QuantizerConfig) -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(config).eval()
    latents = latents_for(quantizer.latent_dim)
    plain = quantizer(latents)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = quantizer(latents)
        narrow = quantizer(latents.bfloat16())
    assert torch.equal(plain.ids_BQthw, cast.ids_BQthw)
    assert narrow.latents_BDthw.dtype == torch.bfloat16
    for name, loss in plain.losses.items():
        assert cast.losses[name].dtype == torch.float32
        assert torch.equal(loss, cast.losses[name])


@pytest.mark.parametrize("levels", [(8, 8), (5, 2, 3)])
def test_every_fsq_code_is_reachable_from_bfloat16_latents(levels: tuple[int, ...]) -> None:
    quantizer = build_quantizer(FSQConfig(levels=levels))
    axis = torch.linspace(-6, 6, 129).bfloat16()
    latents = torch.stack([axis[torch.randint(129, (60000,))] for _ in levels]).view(1, -1, 1, 1, 60000)
    assert len(quantizer(latents).ids_BQthw.unique()) == math.prod(levels)


def brute_force_entropies(logits_MD: torch.Tensor) -> tuple[float, float]:
    """Over all 2^D codes, in float64."""
    logits = logits_MD.double()
    codes = torch.tensor(list(product([0, 1], repeat=logits.shape[1])), dtype=torch.float64)
    log_p = F.logsigmoid(logits) @ codes.T + F.logsigmoid(-logits) @ (1 - codes).T
    q = log_p.exp()
    mean = q.mean(0)
    return float(-(q * log_p).sum(1).mean()), float(-(mean * mean.log()).sum())


@pytest.mark.parametrize("spherical", [False, True])
def test_lfq_entropies_equal_brute_force_over_all_codes(spherical: bool) -> None:
    config = LFQConfig(num_bits=6, entropy_group=6, inverse_temperature=0.7, spherical=spherical)
    quantizer = build_quantizer(config)
    latents = latents_for(6)
    z = F.normalize(latents, dim=1) if spherical else latents
    scale = 6**-0.5 if spherical else 1.0
    sample, batch = brute_force_entropies(rearrange(z, "b d t h w -> (b t h w) d") * 4 * 0.7 * scale)

    losses = quantizer(latents).losses

    assert float(losses["entropy_sample"]) == pytest.approx(sample, rel=1e-5)
    assert float(losses["entropy_batch"]) == pytest.approx(batch, rel=1e-5)


def test_grouped_batch_entropy_is_the_sum_over_groups_and_never_less_than_the_joint() -> None:
    latents = latents_for(6)
    joint = build_quantizer(LFQConfig(num_bits=6, entropy_group=6))(latents).losses["entropy_batch"]
    grouped = build_quantizer(LFQConfig(num_bits=6, entropy_group=3))(latents).losses["entropy_batch"]
    halves = [
        build_quantizer(LFQConfig(num_bits=3, entropy_group=3))(half).losses["entropy_batch"]
        for half in latents.split(3, dim=1)
    ]
    torch.testing.assert_close(grouped, halves[0] + halves[1])
    assert float(grouped) >= float(joint) - 1e-5


@pytest.mark.parametrize("num_bits", [18, 36])
def test_many_bits_train_in_less_than_a_gigabyte(num_bits: int) -> None:
    code = (
        "import resource, sys, torch\n"
        "from kinolex.tokenizers.quantizers import LFQConfig, build_quantizer\n"
        "torch.set_num_threads(1)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"quantizer = build_quantizer(LFQConfig(num_bits={num_bits}))\n"
        f"latents = torch.randn(4, {num_bits}, 5, 16, 16, requires_grad=True)\n"
        "losses = quantizer(latents).losses\n"
        "(losses['entropy_sample'] - losses['entropy_batch'] + losses['commitment']).backward()\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(result.stdout) < 1.0  # GiB above torch itself
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0


def test_minimising_the_entropy_terms_spreads_collapsed_bits() -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(LFQConfig(num_bits=8, entropy_group=8))
    latents = (torch.randn(2, 8, 2, 6, 6) * 0.1 + 0.5).requires_grad_(True)
    before = len(quantizer(latents).ids_BQthw.unique())
    optimizer = torch.optim.Adam([latents], lr=0.05)
    for _ in range(60):
        losses = quantizer(latents).losses
        optimizer.zero_grad()
        (losses["entropy_sample"] - losses["entropy_batch"]).backward()
        optimizer.step()
    assert before == 1
    assert len(quantizer(latents).ids_BQthw.unique()) > 60


def test_vq_takes_the_nearest_code_and_its_losses_are_mean_squared_distances() -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(VQConfig(codebook_size=50, dim=4)).eval()
    latents = latents_for(4)
    flat_MD = rearrange(latents, "b d t h w -> (b t h w) d")
    distances = torch.cdist(flat_MD, quantizer.codebook.detach())
    quantized = quantizer(latents)
    assert torch.equal(quantized.ids_BQthw.flatten(), distances.argmin(dim=1))
    expected = distances.amin(dim=1).square().mean() / 4
    torch.testing.assert_close(quantized.losses["commitment"], expected)
    torch.testing.assert_close(quantized.losses["codebook"], expected)


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_dead_codes_are_revived_onto_latents(ema_decay: float | None) -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(VQConfig(codebook_size=64, dim=2, revive_after=3, ema_decay=ema_decay)).train()
    quantizer(torch.zeros(1, 2, 1, 8, 8))  # starts from one point: almost all codes will be dead
    usage = []
    for seed in range(12):
        ids = quantizer(latents_for(2, seed, (1, 4, 16, 16))).ids_BQthw
        usage.append(len(ids.unique()))
    assert usage[-1] >= 48 > usage[0]


def test_a_residual_prefix_decodes_and_more_levels_never_hurt_on_average() -> None:
    for level in (LFQConfig(num_bits=6), FSQConfig(levels=(5, 5, 5, 5, 5, 5))):
        quantizer = build_quantizer(ResidualConfig(level=level, num_levels=4)).eval()
        latents = latents_for(6) * 0.5
        target = torch.tanh(latents) if isinstance(level, FSQConfig) else latents
        ids = quantizer(latents).ids_BQthw
        errors = [float((quantizer.latents_from_ids(ids[:, :n]) - target).square().mean()) for n in range(1, 5)]
        assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 4


def test_quantizer_dropout_keeps_a_random_prefix_in_training_only() -> None:
    quantizer = build_quantizer(ResidualConfig(level=LFQConfig(num_bits=4), num_levels=3)).train()
    latents = latents_for(4)
    torch.manual_seed(0)
    seen = {float(quantizer(latents).latents_BDthw.abs().max()) for _ in range(30)}
    assert len(seen) == 3  # 1, 1.5, 1.75
    quantizer.eval()
    assert {float(quantizer(latents).latents_BDthw.abs().max()) for _ in range(5)} == {1.75}


@settings(max_examples=30, deadline=None)
@given(levels=st.lists(st.integers(2, 9), min_size=1, max_size=6), seed=st.integers(0, 1000))
def test_fsq_values_lie_evenly_in_minus_one_to_one_and_ids_are_mixed_radix(levels: list[int], seed: int) -> None:
    quantizer = build_quantizer(FSQConfig(levels=tuple(levels)))
    quantized = quantizer(latents_for(len(levels), seed) * 3)
    digits = ((quantized.latents_BDthw + 1) / 2 * (quantizer.levels - 1)).round().long()
    assert float(quantized.latents_BDthw.abs().max()) <= 1.0 + 1e-6
    assert torch.equal((digits * quantizer.radix).sum(dim=1, keepdim=True), quantized.ids_BQthw)


def test_codes_that_start_from_k_means_are_nearer_than_drawn_ones() -> None:
    latents = latents_for(2, 0, (1, 16, 8, 8))
    errors = []
    for steps in (0, 8):
        torch.manual_seed(0)
        quantizer = build_quantizer(VQConfig(codebook_size=16, dim=2, ema_decay=0.9, lloyd_steps=steps)).train()
        errors.append(float(quantizer(latents).losses["commitment"].detach()))
    assert errors[1] < 0.8 * errors[0]


def test_wrong_shapes_ids_and_configs_raise_named_errors() -> None:
    quantizer = build_quantizer(FSQConfig(levels=(4, 4)))
    with pytest.raises(ShapeError, match="D=2"):
        quantizer(torch.zeros(1, 3, 1, 1, 1))
    with pytest.raises(TokenError, match=r"\[0, 16\)"):
        quantizer.latents_from_ids(torch.full((1, 1, 1, 1, 1), 16))
    with pytest.raises(ShapeError, match="levels"):
        quantizer.latents_from_ids(torch.zeros(1, 2, 1, 1, 1, dtype=torch.int64))
    for broken in (
        lambda: LFQConfig(num_bits=0),
        lambda: FSQConfig(levels=(1, 4)),
        lambda: VQConfig(codebook_size=1, dim=4),
        lambda: VQConfig(codebook_size=4, dim=4, lloyd_steps=-1),
        lambda: ResidualConfig(level=LFQConfig(num_bits=4), num_levels=0),
    ):
        with pytest.raises(ConfigError):
            broken()

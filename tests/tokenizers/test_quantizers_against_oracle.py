"""Our quantizers against an independent implementation; needs the dev extra."""

from __future__ import annotations

import pytest
import torch

from kinolex.tokenizers.quantizers import FSQConfig, LFQConfig, build_quantizer

oracle = pytest.importorskip("vector_quantize_pytorch", reason="the oracle is part of the dev extra")


def test_lfq_ids_entropies_and_commitment_equal_the_oracles() -> None:
    torch.manual_seed(0)
    theirs = oracle.LFQ(
        codebook_size=2**8, dim=8, entropy_loss_weight=1.0, diversity_gamma=1.0, commitment_loss_weight=1.0
    )
    theirs.train()
    ours = build_quantizer(LFQConfig(num_bits=8, entropy_group=8, inverse_temperature=1.0))
    latents = torch.randn(2, 8, 3, 4, 5)

    result, breakdown = theirs(latents, inv_temperature=1.0, return_loss_breakdown=True)
    quantized = ours(latents)

    assert torch.equal(result.quantized > 0, quantized.latents_BDthw > 0)
    # The oracle's first channel is the most significant bit, ours the least.
    reversed_ids = ours(latents.flip(1)).ids_BQthw[:, 0]
    assert torch.equal(result.indices.reshape(reversed_ids.shape), reversed_ids)
    # Its logits are 2 * z * code, which for codes of length sqrt(D) is our softmax of -(z - code)^2.
    torch.testing.assert_close(breakdown.per_sample_entropy, quantized.losses["entropy_sample"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(breakdown.batch_entropy, quantized.losses["entropy_batch"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(breakdown.commitment, quantized.losses["commitment"], atol=1e-5, rtol=1e-5)


def test_fsq_ids_equal_the_oracles_for_the_same_values() -> None:
    torch.manual_seed(0)
    theirs = oracle.FSQ(levels=[7, 5, 3])
    ours = build_quantizer(FSQConfig(levels=(7, 5, 3)))
    ids_BQthw = torch.arange(105).view(1, 1, 3, 5, 7)

    values = theirs.indices_to_codes(ids_BQthw[:, 0])

    # With odd levels both spread their values evenly over [-1, 1]; even levels differ by the oracle's half step.
    torch.testing.assert_close(values, ours.latents_from_ids(ids_BQthw))
    assert torch.equal(theirs.codes_to_indices(torch.movedim(values, 1, -1)).long().reshape(-1), ids_BQthw.reshape(-1))

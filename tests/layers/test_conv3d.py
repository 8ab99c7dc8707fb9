from __future__ import annotations

import pytest
import torch
from torch import nn

from kinolex.layers.conv3d import Conv3d, DepthToSpace, SpaceToDepth, StreamCache, inflate_kernel
from kinolex.layers.norm import AdaptiveGroupNorm, VideoGroupNorm


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("cuts", [(1, 2, 2, 4), (3, 2, 4), (5, 4)])
def test_a_causal_convolution_in_chunks_equals_one_shot(stride: int, cuts: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = Conv3d(4, 6, (3, 3, 3), stride=(stride, 1, 1), causal=True)
    x_BCTHW = torch.randn(2, 4, sum(cuts), 5, 6)

    cache = StreamCache()
    chunks = [layer(chunk, cache) for chunk in x_BCTHW.split(list(cuts), dim=2)]

    torch.testing.assert_close(torch.cat(chunks, dim=2), layer(x_BCTHW), atol=1e-6, rtol=1e-5)


def test_a_causal_convolution_never_looks_ahead() -> None:
    torch.manual_seed(0)
    layer = Conv3d(3, 3, (3, 3, 3), causal=True)
    x_BCTHW = torch.randn(1, 3, 6, 4, 4)
    changed_BCTHW = x_BCTHW.clone()
    changed_BCTHW[:, :, 3:] += 1.0

    before, after = layer(x_BCTHW), layer(changed_BCTHW)

    assert torch.equal(before[:, :, :3], after[:, :, :3])
    assert not torch.allclose(before[:, :, 3:], after[:, :, 3:])


def test_a_convolution_that_is_not_causal_keeps_the_length() -> None:
    layer = Conv3d(2, 2, (3, 3, 3), causal=False)
    assert layer(torch.randn(1, 2, 7, 4, 4)).shape == (1, 2, 7, 4, 4)


def test_depth_to_space_inverts_space_to_depth() -> None:
    x_BCTHW = torch.randn(1, 3, 2, 8, 12)
    folded = SpaceToDepth(4)(x_BCTHW)
    assert folded.shape == (1, 48, 2, 2, 3)
    assert torch.equal(DepthToSpace(1, 4, causal=True)(folded), x_BCTHW)


def test_depth_to_time_drops_the_first_copy_once_per_stream() -> None:
    layer, cache = DepthToSpace(2, 1, causal=True), StreamCache()
    x_BCTHW = torch.randn(1, 4, 3, 1, 1)
    chunks = [layer(x_BCTHW[:, :, :1], cache), layer(x_BCTHW[:, :, 1:], cache)]
    assert layer(x_BCTHW).shape[2] == 5
    assert torch.equal(torch.cat(chunks, dim=2), layer(x_BCTHW))


@pytest.mark.parametrize("mode", ["central", "last", "average"])
@pytest.mark.parametrize("causal", [True, False])
def test_an_inflated_convolution_does_to_still_frames_what_the_2d_one_does(mode: str, causal: bool) -> None:
    torch.manual_seed(0)
    flat = nn.Conv2d(3, 5, 3, padding=1)
    deep = Conv3d(3, 5, (3, 3, 3), causal=causal)
    deep.weight.data, deep.bias.data = inflate_kernel(flat.weight.data, 3, mode), flat.bias.data
    image_BCHW = torch.randn(2, 3, 6, 6)

    video = deep(image_BCHW.unsqueeze(2).expand(-1, -1, 4, -1, -1))

    torch.testing.assert_close(video, flat(image_BCHW).unsqueeze(2).expand_as(video), atol=1e-5, rtol=1e-5)


def test_frame_norm_equals_group_norm_of_every_frame() -> None:
    torch.manual_seed(0)
    norm = VideoGroupNorm(2, 8, per_frame=True)
    reference = nn.GroupNorm(2, 8, eps=1e-6)
    x_BCTHW = torch.randn(2, 8, 3, 4, 5)
    expected = torch.stack([reference(frame) for frame in x_BCTHW.unbind(2)], dim=2)
    torch.testing.assert_close(norm(x_BCTHW), expected)


def test_adaptive_norm_in_chunks_equals_one_shot() -> None:
    torch.manual_seed(0)
    norm = AdaptiveGroupNorm(2, 8, 4, time=4, per_frame=True)
    for layer in (norm.scale, norm.shift):
        nn.init.normal_(layer.weight)
    x_BCTHW, latents_BDthw = torch.randn(1, 8, 9, 2, 2), torch.randn(1, 4, 3, 2, 2)
    cache = StreamCache()
    chunks = [
        norm(x_BCTHW[:, :, :1], latents_BDthw[:, :, :1], cache),
        norm(x_BCTHW[:, :, 1:5], latents_BDthw[:, :, 1:2], cache),
        norm(x_BCTHW[:, :, 5:], latents_BDthw[:, :, 2:], cache),
    ]
    torch.testing.assert_close(torch.cat(chunks, dim=2), norm(x_BCTHW, latents_BDthw))

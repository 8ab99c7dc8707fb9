"""Causal convolutions over sound: the plain operations, cut into chunks at will."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kinolex.errors import ConfigError, ShapeError
from kinolex.layers.conv1d import Conv1d, ConvTranspose1d, Snake
from kinolex.layers.conv3d import StreamCache


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(7, 1, 1), (7, 1, 9), (8, 4, 1), (10, 5, 1), (1, 1, 1)])
def test_a_causal_convolution_is_the_plain_one_over_zeros_and_the_past(kernel: int, stride: int, dilation: int) -> None:
    torch.manual_seed(0)
    layer = Conv1d(3, 5, kernel, stride=stride, dilation=dilation).double()
    x_BC1S = torch.randn(2, 3, 1, 40, dtype=torch.float64)

    padded_BCS = F.pad(x_BC1S.squeeze(2), ((kernel - 1) * dilation + 1 - stride, 0))
    expected = F.conv1d(padded_BCS, layer.weight.squeeze(2), layer.bias, stride, dilation=dilation)

    assert layer(x_BC1S).shape[3] == 40 // stride
    torch.testing.assert_close(layer(x_BC1S).squeeze(2), expected)


def test_a_transposed_convolution_is_the_plain_one_without_its_last_stride() -> None:
    torch.manual_seed(0)
    layer = ConvTranspose1d(3, 5, stride=4).double()
    x_BC1S = torch.randn(2, 3, 1, 11, dtype=torch.float64)
    # Taps on the input before come second in time.
    weight = layer.conv.weight.squeeze(2).view(4, 5, 3, 2).permute(2, 1, 3, 0)  # in, out, tap, phase
    weight_IOK = torch.cat([weight[:, :, 1], weight[:, :, 0]], dim=2)
    bias = layer.conv.bias
    assert bias is not None

    expected = F.conv_transpose1d(x_BC1S.squeeze(2), weight_IOK, stride=4)[..., :-4]
    expected = expected + bias.view(4, 5).T.repeat(1, 11)

    torch.testing.assert_close(layer(x_BC1S).squeeze(2), expected)


@pytest.mark.parametrize("cuts", [(8, 16, 16), (4, 4, 32), (36, 4)])
def test_chunks_equal_one_shot(cuts: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layers: list[Conv1d | ConvTranspose1d] = [
        Conv1d(2, 3, 7, dilation=3),
        Conv1d(3, 4, 8, stride=4),
        ConvTranspose1d(4, 2, stride=4),
    ]
    network = nn.ModuleList(layers).double()
    x_BC1S = torch.randn(1, 2, 1, 40, dtype=torch.float64)

    def run(x: torch.Tensor, cache: StreamCache | None) -> torch.Tensor:
        for layer in network:
            x = layer(x, cache)
        return x

    cache = StreamCache()
    pieces = [run(piece, cache) for piece in x_BC1S.split(list(cuts), dim=3)]
    torch.testing.assert_close(torch.cat(pieces, dim=3), run(x_BC1S, None), rtol=0, atol=1e-12)


def test_an_output_does_not_change_with_later_samples() -> None:
    torch.manual_seed(0)
    layer = Conv1d(1, 1, 7, dilation=3)
    x_BC1S = torch.randn(1, 1, 1, 50)
    changed = x_BC1S.clone()
    changed[..., 30:] += 1.0

    before, after = layer(x_BC1S), layer(changed)

    assert torch.equal(before[..., :30], after[..., :30])
    assert not torch.equal(before[..., 30:], after[..., 30:])


def test_the_slope_of_snake_is_that_of_its_formula() -> None:
    torch.manual_seed(0)
    snake = Snake(3).double()
    snake.frequency.data = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)
    x_BC1S = torch.randn(2, 3, 1, 5, dtype=torch.float64, requires_grad=True)

    a = snake.frequency.detach().view(-1, 1, 1)
    torch.testing.assert_close(snake(x_BC1S), x_BC1S + (a * x_BC1S).sin().square() / a)
    assert torch.autograd.gradcheck(
        lambda x, frequency: torch.func.functional_call(snake, {"frequency": frequency}, (x,)),
        (x_BC1S, snake.frequency.detach().requires_grad_(True)),
        atol=1e-5,  # the sum over a channel is taken in float32
    )


def test_kernels_that_skip_samples_and_chunks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="skips samples"):
        Conv1d(1, 1, 3, stride=4)
    with pytest.raises(ShapeError, match="multiple of 4"):
        Conv1d(1, 1, 8, stride=4)(torch.zeros(1, 1, 1, 10))

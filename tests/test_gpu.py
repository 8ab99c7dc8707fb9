"""What needs a CUDA device: the tokens and pixels of the CPU, streamed pieces, a few steps of training."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from kinolex import hub
from kinolex.data.worlds import WorldConfig, render
from kinolex.training.doctor import examine

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("name", hub.shipped())
def test_the_gpu_gives_the_tokens_and_pixels_of_the_cpu(name: str) -> None:
    clip = render(5, WorldConfig(frames=33, height=128, width=128, fps=Fraction(24))).clip
    here, there = hub.load(name), hub.load(name).to("cuda")
    tokens, other = here.encode(clip), there.encode(clip)
    assert float((tokens.ids_Qthw == other.ids_Qthw.cpu()).float().mean()) > 0.95  # bfloat16 rounds near-ties apart
    difference = here.decode(tokens).frames_TCHW.int() - there.decode(tokens).frames_TCHW.cpu().int()
    assert float(difference.abs().float().mean()) < 1.0


@pytest.mark.parametrize("name", hub.shipped())
def test_pieces_on_the_gpu_equal_the_whole(name: str) -> None:
    clip = render(6, WorldConfig(frames=33, height=64, width=96, fps=Fraction(24))).clip
    tokenizer = hub.load(name).to("cuda")
    pieces = [type(clip)(frames_TCHW, clip.fps) for frames_TCHW in clip.frames_TCHW.split(5)]
    streamed = torch.cat([piece.ids_Qthw for piece in tokenizer.encode_stream(pieces)], dim=1)
    assert torch.equal(streamed, tokenizer.encode(clip).ids_Qthw)


def test_the_doctor_finds_the_gpu_well(tmp_path: Path) -> None:
    assert all(finding.ok for finding in examine(device="cuda"))

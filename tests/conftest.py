"""Shared fixtures. Real data is optional: tests that need it skip with a reason where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from kinolex.generation.super_resolution import Upscaler
from kinolex.generation.windows import MaskedGenerator
from kinolex.models.masked import MaskedConfig, MaskedTransformer
from kinolex.models.super_resolution import SuperResolution, SuperResolutionConfig
from kinolex.tasks.video import TASK_NAMES
from kinolex.tokenizers.autoencoder3d import Autoencoder3D, AutoencoderConfig
from kinolex.tokenizers.quantizers import FSQConfig
from kinolex.tokenizers.video import VideoTokenizer

torch.set_num_threads(int(os.environ.get("KINOLEX_TEST_THREADS", "1")))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real media; set KINOLEX_DATA, or put it at ../shared/data beside the repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("KINOLEX_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set KINOLEX_DATA to a folder laid out as docs/data.md says")
    return folder


@pytest.fixture
def tiny_tokenizer() -> VideoTokenizer:
    """Causal, random weights, 64 ids, 4x8x8 pixels per token."""
    torch.manual_seed(0)
    config = AutoencoderConfig(
        channels=(8, 8),
        down=((4, 2),),
        encoder_blocks=(1, 1),
        decoder_blocks=(1, 1),
        middle_blocks=1,
        quantizer=FSQConfig(levels=(8, 8)),
        causal=True,
        fold=4,
        factorised=True,
        norm_groups=4,
    )
    return VideoTokenizer(Autoencoder3D(config), "f" * 64, precision="float32")


@pytest.fixture
def tiny_generator(tiny_tokenizer: VideoTokenizer) -> MaskedGenerator:
    """Random weights, every task, three words, windows of 3 latent frames (9 frames)."""
    torch.manual_seed(1)
    config = MaskedConfig(
        tokenizer=tiny_tokenizer.fingerprint,
        factors=(8, 8),
        width=32,
        depth=2,
        heads=2,
        tasks=TASK_NAMES,
        words=("red", "ball", "falls"),
        max_words=3,
        latent_frames=3,
    )
    return MaskedGenerator(MaskedTransformer(config), tiny_tokenizer, "a" * 64)


@pytest.fixture
def tiny_upscaler(tiny_tokenizer: VideoTokenizer) -> Upscaler:
    """Random weights, stretches of 3 latent frames."""
    torch.manual_seed(1)
    config = SuperResolutionConfig(
        tokenizer=tiny_tokenizer.fingerprint,
        factors=(8, 8),
        width=32,
        depth=1,
        heads=2,
        vertical=(1, 4, 2),
        horizontal=(1, 2, 4),
        temporal=(3, 2, 2),
        latent_frames=3,
    )
    return Upscaler(SuperResolution(config), tiny_tokenizer, "a" * 64)

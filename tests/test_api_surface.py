"""The names that users rely on: all there, typed, documented, and arriving only when asked for."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

import kinolex
from kinolex.errors import KinolexError, UsageError
from kinolex.tokenizers.video import VideoTokenizer
from tests.tiny_sound import tiny_sound_tokenizer

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = ("kinolex.api", "kinolex.checkpoint", "kinolex.hub", "kinolex.media", "kinolex.metrics", "kinolex.types")
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(kinolex.__path__, "kinolex.")
    if not module.name.endswith("__main__")
)


def members(module_name: str) -> list[tuple[str, object]]:
    """Public functions and classes that a module defines or re-exports."""
    module = importlib.import_module(module_name)
    names = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
    found = [(name, getattr(module, name)) for name in names]
    return [(name, value) for name, value in found if getattr(value, "__module__", "").startswith("kinolex")]


def test_the_front_door_has_exactly_these_names() -> None:
    assert kinolex.__all__ == [
        "Clip",
        "Extent",
        "GenerateConfig",
        "KinolexError",
        "Sound",
        "Tokens",
        "Wish",
        "__version__",
        "ask",
        "classify",
        "compress",
        "decompress",
        "decompress_tokens",
        "describe",
        "encode_folder",
        "errors",
        "generate",
        "load",
        "load_generator",
        "load_tokens",
        "metrics",
        "push",
        "read",
        "read_sound",
        "save",
        "save_tokens",
        "write",
        "write_sound",
    ]
    assert dir(kinolex) == kinolex.__all__
    for name in kinolex.__all__:
        assert getattr(kinolex, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        _ = kinolex.lode


def test_names_arrive_when_asked_for_and_not_before() -> None:
    code = (
        "import sys, kinolex\n"
        "assert 'torch' not in sys.modules\n"
        "kinolex.read\n"
        "assert 'kinolex.media' in sys.modules and 'kinolex.tokenizers.video' not in sys.modules\n"
        "from kinolex import Clip, errors, metrics\n"
        "import kinolex.types; assert Clip is kinolex.types.Clip\n"
        "from kinolex import *; assert load is kinolex.load\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_documented_and_typed(module: str) -> None:
    for name, value in members(module):
        if not (inspect.isfunction(value) or inspect.isclass(value)):
            continue
        assert inspect.getdoc(value), f"{module}.{name} has no docstring"
        if inspect.isfunction(value):
            signature = inspect.signature(value)
            assert signature.return_annotation is not inspect.Signature.empty, f"{module}.{name}"
            for parameter in signature.parameters.values():
                assert parameter.annotation is not inspect.Parameter.empty, f"{module}.{name}({parameter.name})"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is(module: str) -> None:
    assert inspect.getdoc(importlib.import_module(module))


def test_configs_are_frozen_and_take_names_only() -> None:
    configs = {
        value
        for module in MODULES
        for name, value in vars(importlib.import_module(module)).items()
        if inspect.isclass(value) and name.endswith("Config") and value.__module__.startswith("kinolex")
    }
    assert len(configs) > 8
    for config in configs:
        assert dataclasses.is_dataclass(config), config
        assert config.__dataclass_params__.frozen and hasattr(config, "__slots__"), config
        assert all(field.kw_only for field in dataclasses.fields(config)), config


def test_every_error_is_one_of_ours_and_is_in_the_tree_that_the_module_draws() -> None:
    errors = importlib.import_module("kinolex.errors")
    classes = {name: value for name, value in vars(errors).items() if inspect.isclass(value)}
    assert len(classes) > 10
    for name, value in classes.items():
        assert issubclass(value, KinolexError) and inspect.getdoc(value)
        assert name in (errors.__doc__ or ""), name


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(kinolex.__file__).parent / "py.typed").is_file()


def test_the_usual_slips_are_named(tiny_tokenizer: VideoTokenizer, tmp_path: Path) -> None:
    frames_TCHW, samples_CS = torch.zeros(5, 3, 16, 16, dtype=torch.uint8), torch.zeros(1, 800)
    sound_tokenizer = tiny_sound_tokenizer()
    slips: list[tuple[Callable[[Any], object], Any, str]] = [
        (
            tiny_tokenizer.encode,
            frames_TCHW,
            r"a Clip is needed, got torch.Tensor of shape \(5, 3, 16, 16\)",
        ),
        (tiny_tokenizer.encode, "in.mp4", r"a Clip is needed, got str; kinolex.read\(path\)"),
        (tiny_tokenizer.encode, kinolex.Sound(samples_CS, 16_000), "got kinolex.types.Sound; "),
        (tiny_tokenizer.decode, frames_TCHW, "a Tokens is needed, got torch.Tensor"),
        (sound_tokenizer.encode, kinolex.Clip(frames_TCHW, Fraction(25)), "a Sound is needed, got kinolex.types.Clip"),
        (sound_tokenizer.decode, "t.safetensors", r"kinolex.load_tokens\(path\)"),
        (lambda value: kinolex.write(value, tmp_path / "a.mp4"), frames_TCHW, "a Clip is needed"),
        (lambda value: kinolex.write_sound(value, tmp_path / "a.wav"), samples_CS, "a Sound is needed"),
        (
            lambda value: kinolex.Clip(value, Fraction(25)),
            frames_TCHW.numpy(),
            "got numpy.ndarray of",
        ),
        (lambda value: kinolex.Sound(value, 16_000), [0.0], "a Tensor is needed, got list"),
    ]
    for function, value, need in slips:
        with pytest.raises(UsageError, match=need):
            function(value)
    assert not list(tmp_path.iterdir())

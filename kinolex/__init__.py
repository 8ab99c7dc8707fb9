"""kinolex: video, images and sound as discrete tokens.

    import kinolex
    tokenizer = kinolex.load("video-nano")
    clip = kinolex.read("in.mp4")
    tokens = tokenizer.encode(clip)
    kinolex.write(tokenizer.decode(tokens).with_sound(clip.sound), "out.mp4")

Names are imported when they are first used, so that `import kinolex` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinolex import errors, metrics
    from kinolex.checkpoint import save
    from kinolex.compression import compress, decompress, decompress_tokens
    from kinolex.data.token_store import load_tokens, save_tokens
    from kinolex.errors import KinolexError
    from kinolex.generation import GenerateConfig, Wish, generate, load_generator
    from kinolex.hub import load, push
    from kinolex.media import read, read_sound, write, write_sound
    from kinolex.token_folders import encode_folder
    from kinolex.types import Clip, Extent, Sound, Tokens
    from kinolex.understanding import ask, classify, describe

__version__ = "0.1.0"

__all__ = [
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

_HOMES = {
    "Clip": "kinolex.types",
    "Extent": "kinolex.types",
    "GenerateConfig": "kinolex.generation",
    "KinolexError": "kinolex.errors",
    "Sound": "kinolex.types",
    "Tokens": "kinolex.types",
    "Wish": "kinolex.generation",
    "ask": "kinolex.understanding",
    "classify": "kinolex.understanding",
    "compress": "kinolex.compression",
    "decompress": "kinolex.compression",
    "decompress_tokens": "kinolex.compression",
    "describe": "kinolex.understanding",
    "encode_folder": "kinolex.token_folders",
    "generate": "kinolex.generation",
    "load": "kinolex.hub",
    "load_generator": "kinolex.generation",
    "load_tokens": "kinolex.data.token_store",
    "push": "kinolex.hub",
    "read": "kinolex.media",
    "read_sound": "kinolex.media",
    "save": "kinolex.checkpoint",
    "save_tokens": "kinolex.data.token_store",
    "write": "kinolex.media",
    "write_sound": "kinolex.media",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in ("errors", "metrics"):
        return importlib.import_module(f"kinolex.{name}")
    raise AttributeError(f"module 'kinolex' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

"""Bytes of safetensors files: the same tensors and facts give the same bytes, whenever they are written."""

from __future__ import annotations

import json
from collections.abc import Mapping

from safetensors.torch import save
from torch import Tensor

LENGTH_BYTES = 8


def tensor_bytes(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> bytes:
    """A safetensors file of contiguous tensors, with facts as its metadata.

    safetensors itself writes the metadata in an order that changes from call to call.
    """
    data = save(dict(tensors), dict(facts))
    start = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
    header = json.loads(data[LENGTH_BYTES:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)  # tensors begin aligned
    return len(text).to_bytes(LENGTH_BYTES, "little") + text + data[start:]

"""The same tensors and facts are the same file, and safetensors reads it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from kinolex.tensor_files import tensor_bytes


def test_the_order_of_facts_and_the_number_of_calls_do_not_show(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(5, dtype=torch.int16), "a": torch.randn(3, 2), "empty": torch.zeros(0)}
    facts = {f"fact {number}": "é" * number for number in range(20)}
    data = tensor_bytes(tensors, facts)
    assert {tensor_bytes(tensors, dict(reversed(facts.items()))) for _ in range(20)} == {data}

    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with safe_open(path, "pt") as file:
        assert file.metadata() == facts
    assert all(torch.equal(value, tensors[name]) for name, value in load_file(path).items())
    assert int.from_bytes(data[:8], "little") % 8 == 0

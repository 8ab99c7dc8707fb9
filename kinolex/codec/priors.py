"""How likely is every value of every digit, given what both sides already know.

    ids --to_digits--> one latent frame --Prior.walk--> (digit, positions, frequencies) --choose--> digits

One walk serves coding, decoding, estimating and rate control; they differ in `choose` alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import torch
from einops import rearrange
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kinolex.codec.entropy import TOTAL, frequencies_NV
from kinolex.codec.network import (
    FRAMES_BACK,
    GROUPS,
    STRIDE,
    TOP,
    GrowingContext,
    Heads,
    NetworkConfig,
    bordered,
    integer_layers,
    one_hot,
)
from kinolex.errors import CheckpointError, ConfigError, MissingFile, TokenError
from kinolex.tensor_files import tensor_bytes

FORMAT = "kinolex-prior-2"
PLAIN = bytes(16)
"""Fingerprint of every PlainPrior; vocabulary and codebook levels tell the rest."""
PLAIN_VALUES = 256
"""Values per digit where ids are only cut into digits."""

Slices = tuple[slice, slice]
Choose = Callable[[int, Slices, Tensor], Tensor]
"""(digit, positions within the frame, frequencies [N, V]) -> that digit's values at the N positions, row by row."""


class Prior(Protocol):
    """Knows nothing of tokenizers or bytes; two machines with the same prior give the same frequencies."""

    @property
    def levels(self) -> tuple[int, ...]:
        """Values of every digit of one position."""
        ...

    @property
    def fingerprint(self) -> bytes:
        """16 bytes that identify it in a file."""
        ...

    def vocab_size(self, num_levels: int) -> int:
        """Ids that its digits can hold, per codebook level."""
        ...

    def walk(self, history_thwD: Sequence[Tensor], size_hw: tuple[int, int], choose: Choose) -> Tensor:
        """One latent frame.

        Args:
            history_thwD: digits of the frames before, nearest last; only the last FRAMES_BACK are looked at.
            size_hw: rows and columns of the latent frame.
            choose: gives the values; called in the order in which the stream holds them.

        Returns:
            Digits [h, w, D], int64.
        """
        ...


class PlainPrior:
    """Every value alike: fixed length in all but name. For tokenizers whose prior is not trained yet."""

    def __init__(self, vocab_size: int, num_levels: int = 1) -> None:
        self.levels = plain_levels(vocab_size) * num_levels
        self.fingerprint = PLAIN
        self._vocab_size, self._num_levels = vocab_size, num_levels

    def vocab_size(self, num_levels: int) -> int:
        if num_levels != self._num_levels:
            raise TokenError(f"a plain prior for {self._num_levels} codebook levels cannot hold {num_levels}")
        return self._vocab_size

    def walk(self, history_thwD: Sequence[Tensor], size_hw: tuple[int, int], choose: Choose) -> Tensor:
        height, width = size_hw
        digits_hwD = torch.zeros(height, width, len(self.levels), dtype=torch.int64)
        for digit, size in enumerate(self.levels):
            flat = frequencies_NV(torch.zeros(1, size)).expand(height * width, size)
            digits_hwD[:, :, digit] = choose(digit, (slice(None), slice(None)), flat).view(height, width)
        return digits_hwD


class LearnedPrior:
    """The integer network over the two latent frames before and the groups of this one that are known.

    Args:
        config: of the network.
        tensors: its integers, see codec.network.integer_layers.
        device: where it is evaluated; the frequencies do not depend on it.

    Raises:
        CheckpointError: the integers do not fit the config or their sums could be inexact.
    """

    def __init__(self, config: NetworkConfig, tensors: Mapping[str, Tensor], *, device: str = "cpu") -> None:
        self.config, self.levels = config, config.levels
        self.layers = integer_layers(config, tensors, device)
        self._heads = Heads(config, self.layers)
        self.fingerprint, self.device = prior_fingerprint(config, tensors), device

    def vocab_size(self, num_levels: int) -> int:
        return math.prod(self.levels[: _digits_per_id(num_levels, self.levels)])

    @torch.no_grad()
    def walk(self, history_thwD: Sequence[Tensor], size_hw: tuple[int, int], choose: Choose) -> Tensor:
        # The heads are on the CPU wherever the rest is.
        kind = torch.device(self.device).type
        with torch.autocast(kind, enabled=False), torch.autocast("cpu", enabled=False):
            layers, levels = self.layers, self.levels
            digits_hwD = torch.zeros(*size_hw, len(levels), dtype=torch.int64, device=self.device)
            known_hwS = torch.zeros(*size_hw, sum(levels), device=self.device)
            trunk_hwC = self._past(history_thwD, size_hw)
            for index in range(self.config.trunk_layers):
                trunk_hwC = layers[f"trunk.{index}"].activations(trunk_hwC)
            # Trunk and context side by side; the context is written anew for every group.
            both = bordered(torch.cat([trunk_hwC, torch.zeros_like(trunk_hwC)], dim=2))
            context_hwC = both[1:-1, 1:-1, self.config.channels :]
            for quarter, places in enumerate(GROUPS):
                context, mix = GrowingContext(layers[f"context.{quarter}"], known_hwS), layers[f"mix.{quarter}"]
                for row, column in places:
                    where = (slice(row, None, STRIDE), slice(column, None, STRIDE))
                    if not digits_hwD[where].numel():
                        continue
                    context_hwC.copy_(context.activations())
                    mixed_ijC = mix.scaled(mix.totals(both, (row, column), STRIDE)).clamp_(0, TOP)
                    digits_hwD[where] = self._read_digits(mixed_ijC, where, choose)
                    known_hwS[where] = one_hot(digits_hwD[where], levels)
                    context.add(known_hwS[where], (row, column), STRIDE)
        return digits_hwD.cpu()

    def _read_digits(self, mixed_ijC: Tensor, where: Slices, choose: Choose) -> Tensor:
        """All digits of one group, each given those before it: [i, j, D]."""
        rows, columns, channels = mixed_ijC.shape
        totals_NK, values = self._heads.totals(mixed_ijC.reshape(-1, channels)), []
        for digit in range(len(self.levels)):
            frequencies = frequencies_NV(torch.from_numpy(self._heads.logits(totals_NK, digit)))
            values.append(choose(digit, where, frequencies))
            self._heads.learn_(totals_NK, digit, values[-1].numpy())
        return torch.stack(values, dim=1).view(rows, columns, -1).to(self.device)

    def _past(self, history_thwD: Sequence[Tensor], size_hw: tuple[int, int]) -> Tensor:
        """One-hot of the frames before, nearest first; nothing where there is none."""
        planes = []
        for back in range(1, FRAMES_BACK + 1):
            if back <= len(history_thwD):
                planes.append(one_hot(history_thwD[-back].to(self.device), self.levels))
            else:
                planes.append(torch.zeros(*size_hw, self.config.one_hot_channels, device=self.device))
        return torch.cat(planes, dim=2)


def plain_levels(vocab_size: int) -> tuple[int, ...]:
    """An id as digits to base 256, the last one only as large as needed."""
    levels = []
    while vocab_size > PLAIN_VALUES:
        levels.append(PLAIN_VALUES)
        vocab_size = -(-vocab_size // PLAIN_VALUES)
    return (*levels, max(vocab_size, 2))


def to_digits(ids_Qthw: Tensor, levels: Sequence[int]) -> Tensor:
    """Mixed radix, least significant first, the levels of a residual tokenizer one after the other: [t, h, w, D].

    Raises:
        TokenError: an id needs more digits than the prior has.
    """
    digits, per_id = [], _digits_per_id(ids_Qthw.shape[0], levels)
    for ids_thw, first in zip(ids_Qthw, range(0, len(levels), per_id), strict=True):
        rest_thw = ids_thw
        for size in levels[first : first + per_id]:
            digits.append(rest_thw % size)
            rest_thw = rest_thw // size
        if bool(rest_thw.any()):
            raise TokenError(
                f"id {int(ids_thw.max())} does not fit a prior for {math.prod(levels[first : first + per_id])} ids; "
                "use the prior that belongs to the tokenizer"
            )
    return torch.stack(digits, dim=-1)


def to_ids(digits_thwD: Tensor, num_levels: int, levels: Sequence[int]) -> Tensor:
    """The inverse of to_digits: int64 [Q, t, h, w]."""
    per_id = _digits_per_id(num_levels, levels)
    places = [math.prod(levels[digit - digit % per_id : digit]) for digit in range(len(levels))]
    values = rearrange(digits_thwD * torch.tensor(places), "t h w (q d) -> q t h w d", q=num_levels)
    return values.sum(dim=-1)


def _digits_per_id(num_levels: int, levels: Sequence[int]) -> int:
    if len(levels) % num_levels:
        raise TokenError(f"a prior of {len(levels)} digits cannot hold tokens of {num_levels} codebook levels")
    return len(levels) // num_levels


class History(deque[Tensor]):
    """The latent frames that a prior still looks at."""

    def __init__(self) -> None:
        super().__init__(maxlen=FRAMES_BACK)


# --- files ---


def prior_fingerprint(config: NetworkConfig, tensors: Mapping[str, Tensor]) -> bytes:
    """First 16 bytes of a SHA-256 over format, config and integers."""
    digest = hashlib.sha256((FORMAT + json.dumps(asdict(config), sort_keys=True)).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes())
    return digest.digest()[:16]


def save_prior(path: str | Path, config: NetworkConfig, tensors: Mapping[str, Tensor]) -> bytes:
    """Write a prior's integers and config as one safetensors file; returns its fingerprint."""
    LearnedPrior(config, tensors)  # refuse to write what could not be read
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(tensor_bytes(dict(tensors), {"format": FORMAT, "config": json.dumps(asdict(config))}))
    temporary.replace(path)
    return prior_fingerprint(config, tensors)


def load_prior(path: str | Path, *, device: str = "cpu") -> LearnedPrior:
    """The prior in a file.

    Raises:
        MissingFile: there is none.
        CheckpointError: it is damaged, foreign, or its integers could be inexact.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"no prior at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping, though it looks like one
        if metadata.get("format") != FORMAT:
            raise CheckpointError(f"{path} is no {FORMAT} file; it was written by something else or another version")
        fields = json.loads(metadata["config"])
        config = NetworkConfig(**{**fields, "levels": tuple(fields["levels"])})
        if any(type(number) is not int for number in (*config.levels, config.channels, config.trunk_layers)):
            raise TypeError(f"its config holds other things than whole numbers: {fields}")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, ConfigError) as error:
        raise CheckpointError(f"{path} is not a prior: {error}") from error
    return LearnedPrior(config, tensors, device=device)


def uniform_bits(levels: Sequence[int]) -> float:
    """Bits of one position when every value is alike."""
    return sum(math.log2(TOTAL / (TOTAL // size)) for size in levels)

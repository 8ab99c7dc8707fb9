"""A language model that is read and never changed: any causal model of `transformers`, from a folder or the hub.

    prompts --read--> Prefix (cached keys and values, logits of the next id) --score--> log-likelihood of continuations
                                                                             --generate--> ids

Rows of a batch may differ in length: they are padded on the left, where the mask hides the padding, so a row answers
as it does alone. A prefix can be read once and continued in many ways.

Source: Yu et al. 2023, SPAE, arXiv 2306.17842 (frozen language models in context); papers.md section 5.3.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable, Collection, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kinolex.errors import CheckpointError, MissingExtra, TokenError, UnknownModel, UsageError

WORD = re.compile(r" [A-Za-z]{2,}")
"""A whole word as the tokens of byte-level vocabularies spell it, with the space before it."""

LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
"""Names that the many configs have for the number of positions."""
NEEDED = (
    "what is needed is a causal language model such as gpt2, llama or qwen2: config.json, weights in safetensors, and "
    "the files of its tokenizer"
)

Choose = Callable[[Tensor], Tensor]
"""Logits (B, V) -> the chosen ids (B,); kinolex.sampling.choose has others than the default, the likeliest."""


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """What a model has read, ready to be continued; nothing that continues it changes it."""

    mask_BL: Tensor
    """int64, 0 where a row is padding."""
    logits_BV: Tensor
    """float32, of the id that follows."""
    cache: Any
    """Keys and values, as the model's library keeps them."""

    @property
    def rows(self) -> int:
        return self.mask_BL.shape[0]

    def select(self, rows: Sequence[int]) -> Prefix:
        """Some rows, each as often as it is named."""
        chosen = torch.tensor(rows, device=self.mask_BL.device)
        cache = copy.deepcopy(self.cache)
        cache.batch_select_indices(chosen)
        return Prefix(self.mask_BL[chosen], self.logits_BV[chosen], cache)


class FrozenLM:
    """A causal language model and its tokenizer. Not an nn.Module, so that no optimizer can find its parameters.

    Args:
        model: a causal language model of transformers; it is put into eval mode and its parameters stop learning.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer

    @classmethod
    def load(cls, name: str | Path) -> FrozenLM:
        """A model from a folder or, by owner/name, from the hub; weights in safetensors only, no foreign code is run.

        Raises:
            MissingExtra: transformers is not installed.
            UnknownModel: no such folder, and the hub has no such model or cannot be reached.
            CheckpointError: the folder holds no causal language model, no tokenizer or damaged files, or its model
                keeps what it has read in a way that rows cannot be taken from.
        """
        transformers = require_transformers()
        is_folder = Path(name).is_dir()
        if not is_folder and not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
            raise UnknownModel(f"no language model {str(name)!r}: give a folder or a hub repository (owner/name)")
        if is_folder and not (Path(name) / "config.json").is_file():
            raise CheckpointError(f"{name} holds no config.json; {NEEDED}")
        try:
            with no_bars(transformers):
                config = transformers.AutoConfig.from_pretrained(str(name))
                if type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
                    raise CheckpointError(f"{name} holds a model of type {config.model_type}, not causal; {NEEDED}")
                tokenizer = transformers.AutoTokenizer.from_pretrained(str(name))
                model = transformers.AutoModelForCausalLM.from_pretrained(
                    str(name), use_safetensors=True, dtype=torch.float32
                )
        except CheckpointError:
            raise
        except Exception as error:  # its loaders raise whatever their many parsers raise
            what = str(error).strip().partition("\n")[0].partition(". ")[0].rstrip(".:")
            raise (CheckpointError if is_folder else UnknownModel)(
                f"{name} cannot be loaded as a causal language model ({what}); {NEEDED}"
            ) from error
        if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
            raise CheckpointError(f"{name} holds no vocabulary; {NEEDED}")
        lm = cls(model, tokenizer)
        lm._check_cache(name)
        return lm

    def to(self, device: str | torch.device) -> FrozenLM:
        self.model.to(device)
        return self

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def vocab_size(self) -> int:
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def max_length(self) -> int | None:
        """Ids that the model has positions for; None where its config tells of no limit."""
        stated = (getattr(self.model.config, name, None) for name in LIMITS)
        return next((int(limit) for limit in stated if limit is not None), None)

    @property
    def embeddings_VD(self) -> Tensor:
        """The vectors that stand for ids at the input, float32; a copy."""
        return self.model.get_input_embeddings().weight.detach().float().clone()

    @property
    def fingerprint(self) -> str:
        """sha256 over every parameter and the vocabulary; a tokenizer made for a model stores it."""
        digest = hashlib.sha256(json.dumps(sorted(self.tokenizer.get_vocab().items())).encode())
        for name, value in sorted(self.model.state_dict().items()):
            raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode() + raw.numpy().tobytes())
        return digest.hexdigest()

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without any that mark its beginning or end."""
        return [int(index) for index in self.tokenizer(text, add_special_tokens=False)["input_ids"]]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """As encode, of many at once."""
        return [
            [int(index) for index in ids] for ids in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        ]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def word_ids(self) -> list[int]:
        """Ids that are whole English words and are found again when their text is tokenized, in the order of ids.

        Such words, put one after the other, come back from the text they make: the cut is at the spaces.
        """
        special = set(self.tokenizer.all_special_ids)
        candidates = ((index, self.decode([index])) for index in range(min(len(self.tokenizer), self.vocab_size)))
        spelled = [(index, text) for index, text in candidates if index not in special and WORD.fullmatch(text)]
        return [index for index, text in spelled if self.encode(text) == [index]]

    @torch.inference_mode()
    def logits(self, ids_BL: Tensor) -> Tensor:
        """float32 logits (B, L, V) of rows of equal length; at l, of the id that follows l."""
        self._check_length(ids_BL.shape[1])
        return self.model(input_ids=ids_BL.to(self.device), use_cache=False).logits.float()

    @torch.inference_mode()
    def read(self, prompts: Sequence[Sequence[int]], after: Prefix | None = None) -> Prefix:
        """Read one prompt per row.

        Args:
            prompts: ids; none may be empty.
            after: what was read before, of as many rows or of one that all share.

        Raises:
            UsageError: an empty prompt, other numbers of rows, or more ids than the model has positions for.
        """
        if not prompts or not all(prompts):
            raise UsageError("every prompt needs at least one id; leave out empty ones")
        if after is not None and after.rows != len(prompts):
            if after.rows != 1:
                raise UsageError(f"{len(prompts)} prompts cannot follow {after.rows} rows; give as many, or one row")
            after = after.select([0] * len(prompts))
        length = max(map(len, prompts))
        ids_BL = torch.zeros((len(prompts), length), dtype=torch.int64)
        mask_BL = torch.zeros_like(ids_BL)
        for row, prompt in enumerate(prompts):
            ids_BL[row, length - len(prompt) :] = torch.tensor(list(prompt))
            mask_BL[row, length - len(prompt) :] = 1
        cache = None if after is None else copy.deepcopy(after.cache)
        output, mask_BL = self._extend(ids_BL, mask_BL, None if after is None else after.mask_BL, cache)
        return Prefix(mask_BL, output.logits[:, -1].float(), output.cache)

    @torch.inference_mode()
    def score(self, prefix: Prefix, candidates: Sequence[Sequence[Sequence[int]]]) -> list[Tensor]:
        """Log-likelihood of continuations.

        Args:
            prefix: rows read.
            candidates: for every row, the continuations to weigh, each at least one id.

        Returns:
            For every row float32 (number of its candidates,): the sum over ids of log p(id | everything before).

        Raises:
            UsageError: other numbers of rows, or an empty continuation.
        """
        rows = [row for row, several in enumerate(candidates) for _ in several]
        flat = [list(one) for several in candidates for one in several]
        if len(candidates) != prefix.rows or not flat or not all(flat):
            raise UsageError(
                f"score needs continuations of at least one id for each of {prefix.rows} rows, got {len(candidates)} "
                "rows of them; drop empty ones"
            )
        length = max(map(len, flat))
        targets_NL = torch.zeros((len(flat), length), dtype=torch.int64)
        mask_NL = torch.zeros_like(targets_NL)
        for number, continuation in enumerate(flat):
            targets_NL[number, : len(continuation)] = torch.tensor(continuation)
            mask_NL[number, : len(continuation)] = 1
        targets_NL, mask_NL = targets_NL.to(self.device), mask_NL.to(self.device)
        logits_NLV = prefix.logits_BV[rows].unsqueeze(1)
        if length > 1:
            started = prefix.select(rows)
            output, _ = self._extend(targets_NL[:, :-1], mask_NL[:, :-1], started.mask_BL, started.cache)
            logits_NLV = torch.cat([logits_NLV, output.logits.float()], dim=1)
        found_NL = logits_NLV.log_softmax(dim=-1).gather(2, targets_NL.unsqueeze(2)).squeeze(2)
        sums_N = (found_NL * mask_NL).sum(dim=1)
        return list(sums_N.cpu().split([len(several) for several in candidates]))

    @torch.inference_mode()
    def generate(
        self,
        prefix: Prefix,
        length: int,
        *,
        allowed: Sequence[int] | None = None,
        stop: Collection[int] = (),
        choose: Choose | None = None,
    ) -> list[list[int]]:
        """Continue every row by up to `length` ids.

        Args:
            prefix: rows read.
            allowed: ids to choose from; all if None.
            stop: ids that end a row; they are not returned.
            choose: picks ids from logits, those outside `allowed` being -inf; the likeliest by default.

        Raises:
            TokenError: allowed is empty or outside the vocabulary.
        """
        if allowed is not None and (not allowed or not 0 <= min(allowed) <= max(allowed) < self.vocab_size):
            raise TokenError(f"allowed ids must lie in [0, {self.vocab_size}) and there must be one")
        barred_V = torch.zeros(self.vocab_size, device=self.device)
        if allowed is not None:
            barred_V.fill_(-torch.inf)[torch.tensor(list(allowed))] = 0.0
        results: list[list[int]] = [[] for _ in range(prefix.rows)]
        open_rows = [True] * prefix.rows
        logits_BV, mask_BL, cache = prefix.logits_BV, prefix.mask_BL, copy.deepcopy(prefix.cache)
        for step in range(length):
            ids_B = (choose or _likeliest)(logits_BV + barred_V)
            for row, index in enumerate(ids_B.tolist()):
                open_rows[row] = open_rows[row] and index not in stop
                if open_rows[row]:
                    results[row].append(index)
            if not any(open_rows) or step == length - 1:
                break
            ids_B1 = ids_B.unsqueeze(1)
            output, mask_BL = self._extend(ids_B1, torch.ones_like(ids_B1), mask_BL, cache)
            logits_BV, cache = output.logits[:, -1].float(), output.cache
        return results

    def _extend(self, ids_BL: Tensor, mask_BL: Tensor, before_BL: Tensor | None, cache: Any) -> tuple[Any, Tensor]:
        """Run the model over ids that follow what the cache holds; its output, and the mask of all."""
        ids_BL, mask_BL = ids_BL.to(self.device), mask_BL.to(self.device)
        whole_BL = mask_BL if before_BL is None else torch.cat([before_BL, mask_BL], dim=1)
        self._check_length(int(whole_BL.sum(dim=1).max()))
        places_BL = (whole_BL.cumsum(dim=1) - 1).clamp(min=0)[:, -ids_BL.shape[1] :]
        output = self.model(
            input_ids=ids_BL, attention_mask=whole_BL, position_ids=places_BL, cache=cache, use_cache=True
        )
        return output, whole_BL

    @torch.inference_mode()
    def _check_cache(self, name: str | Path) -> None:
        """Raises CheckpointError where rows cannot be taken from what the model has read, as by a recurrent one."""
        try:
            self.read([[0]]).select([0, 0])
        except (AttributeError, TypeError) as error:  # no cache at all, or one without this
            raise CheckpointError(
                f"{name} holds a {type(self.model).__name__}, whose cache cannot be selected by batch; give a model "
                "that keeps keys and values, such as gpt2, llama, qwen2 or bloom"
            ) from error

    def _check_length(self, length: int) -> None:
        if self.max_length is not None and length > self.max_length:
            raise UsageError(
                f"{length} ids are more than the {self.max_length} positions of this language model; use fewer "
                "examples or fewer words of each picture"
            )

    def __repr__(self) -> str:
        million = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        return f"FrozenLM({type(self.model).__name__}, {million:.1f} M parameters, {self.vocab_size} ids)"


def require_transformers() -> Any:
    """The module transformers. Raises MissingExtra where it is not installed."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("language models need transformers and tokenizers: pip install 'kinolex[lm]'") from error
    return transformers


def _likeliest(logits_BV: Tensor) -> Tensor:
    return logits_BV.argmax(dim=-1)


@contextmanager
def no_bars(transformers: Any):  # type: ignore[no-untyped-def]
    """Loading shows no progress bars of its own; what the caller had set stays set."""
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()

"""A causal language model made by hand, of the same face as those of transformers: it copies what it was shown."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from kinolex.models.frozen_lm import FrozenLM


class Copier(nn.Module):
    """After "Output:" it writes what was written in an earlier block of the same input, else ends the line."""

    def __init__(self, vocab_size: int, tokenizer: Any) -> None:
        super().__init__()
        import transformers

        self.table = nn.Embedding(vocab_size, 4)
        self.config = transformers.GPT2Config(vocab_size=vocab_size, n_positions=4096, bos_token_id=0, eos_token_id=0)
        self.tokenizer = tokenizer

    def get_input_embeddings(self) -> nn.Embedding:
        return self.table

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, cache: Any, **_: Any) -> Any:
        before = [[] for _ in input_ids] if cache is None else cache.rows
        length = input_ids.shape[1]
        logits = torch.zeros(*input_ids.shape, self.config.vocab_size)
        rows = []
        for row, (ids, new, mask) in enumerate(zip(before, input_ids.tolist(), attention_mask.tolist(), strict=True)):
            known = list(ids)
            for place, (index, keep) in enumerate(zip(new, mask[-length:], strict=True)):
                known += [index] if keep else []
                if keep and (cache is not None or place == length - 1):  # nobody asks for more
                    logits[row, place, self.next_id(known)] = 20.0
            rows.append(known)
        return type("Output", (), {"logits": logits, "cache": Rows(rows)})()

    def next_id(self, ids: list[int]) -> int:
        text = self.tokenizer.decode(ids)
        block, _, begun = text.rpartition("###\n")[2].partition("\nOutput:")
        shown = text.split("###\n")[:-1]
        known = [one.partition("\nOutput:")[2] for one in shown if one.partition("\nOutput:")[0] == block]
        goal = (known[0] if known else "\n") + "\n"
        rest = goal[len(begun) :] if goal.startswith(begun) else "\n"
        return int(self.tokenizer(rest or "\n", add_special_tokens=False)["input_ids"][0])


def copying_lm(text: str) -> FrozenLM:
    """It, with a vocabulary made for a text."""
    import tokenizers
    import transformers

    trained = tokenizers.ByteLevelBPETokenizer()
    trained.train_from_iterator([text] * 5, vocab_size=300, show_progress=False)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer)
    return FrozenLM(Copier(300, tokenizer), tokenizer)


class Rows:
    """What it keeps of a prefix: the ids themselves."""

    def __init__(self, rows: list[list[int]]) -> None:
        self.rows = rows

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self.rows = [list(self.rows[index]) for index in indices.tolist()]

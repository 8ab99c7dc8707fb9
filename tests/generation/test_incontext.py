"""A picture written in context: layer after layer, among the codebook's words, as the examples show."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kinolex.errors import TokenError, UsageError
from kinolex.generation.incontext import Writing, draw, transform
from kinolex.models.frozen_lm import FrozenLM
from kinolex.tasks import prompts
from kinolex.tokenizers.spae import SpaeConfig
from tests.copying_model import Copier

transformers = pytest.importorskip("transformers", reason="language models need the extra lm")
tokenizers = pytest.importorskip("tokenizers", reason="language models need the extra lm")

WORDS = ("red", "blue", "star", "ring", "wood", "sky")
CONFIG = SpaeConfig(
    words=WORDS,
    language_model="",
    dim=4,
    layers=((1, 1, 1), (1, 2, 2), (1, 4, 4)),
    channels=(8,),
    down=(),
    encoder_blocks=(1,),
    decoder_blocks=(1,),
    middle_blocks=0,
    norm_groups=4,
)
WHOLE = Writing(layers=3, autoregressive=2, chunk=5)


def picture(seed: int) -> list[str]:
    generator = torch.Generator().manual_seed(seed)
    return [WORDS[int(index)] for index in torch.randint(len(WORDS), (21,), generator=generator)]


@pytest.fixture(scope="module")
def tokenizer():  # type: ignore[no-untyped-def]
    trained = tokenizers.ByteLevelBPETokenizer()
    text = f"Input: Output: ### < {' '.join(WORDS)} > one two\n"
    trained.train_from_iterator([text] * 5, vocab_size=320, show_progress=False)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer)


@pytest.fixture(scope="module")
def copier(tokenizer) -> FrozenLM:  # type: ignore[no-untyped-def]
    return FrozenLM(Copier(320, tokenizer), tokenizer)


@pytest.fixture(scope="module")
def random_lm(tokenizer) -> FrozenLM:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    shape = transformers.GPT2Config(vocab_size=320, n_positions=512, n_embd=16, n_layer=1, n_head=1)
    model = transformers.GPT2LMHeadModel(shape)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return FrozenLM(model, tokenizer)


def test_a_model_that_copies_draws_the_picture_of_the_text_it_was_shown(copier: FrozenLM) -> None:
    pairs = [("one", picture(1)), ("two", picture(2))]
    for text, words in pairs:
        assert draw(copier, CONFIG, pairs, text, WHOLE) == words
        assert draw(copier, CONFIG, pairs, text, replace(WHOLE, layers=2)) == words[:5]


def test_a_model_that_copies_transforms_what_it_was_shown(copier: FrozenLM) -> None:
    pairs = [(picture(1), picture(1)[::-1]), (picture(2), picture(2)[::-1])]
    for before, after in pairs:
        assert transform(copier, CONFIG, pairs, before, WHOLE) == after


def test_first_layers_are_the_likeliest_words_one_after_the_other(random_lm: FrozenLM) -> None:
    pairs = [("one", picture(1)), ("two", picture(2))]
    written: list[str] = []
    allowed = torch.tensor([random_lm.encode(f" {word}")[0] for word in WORDS])
    for end in (1, 5):
        for _ in range(end - len(written)):
            text = prompts.generation([(name, words[:end]) for name, words in pairs], "one", written)
            logits_V = random_lm.logits(torch.tensor([random_lm.encode(text)]))[0, -1]
            written.append(WORDS[int(logits_V[allowed].argmax())])
    assert draw(random_lm, CONFIG, pairs, "one", replace(WHOLE, layers=2)) == written


def test_a_chunk_does_not_depend_on_the_chunks_beside_it(random_lm: FrozenLM) -> None:
    pairs = [(picture(1), picture(2)), (picture(3), picture(4))]
    whole = transform(random_lm, CONFIG, pairs, picture(5), WHOLE)
    other = picture(5)[:16] + picture(6)[16:]
    changed = transform(random_lm, CONFIG, pairs, other, WHOLE)
    assert len(whole) == 21 and set(whole) <= set(WORDS)
    assert whole[:15] == changed[:15]


def test_what_cannot_be_written_is_refused(copier: FrozenLM) -> None:
    pairs = [("one", picture(1))]
    with pytest.raises(UsageError, match="has 3 layers, not 4"):
        draw(copier, CONFIG, pairs, "one", replace(WHOLE, layers=4))
    with pytest.raises(UsageError, match="need 21 words"):
        draw(copier, CONFIG, [("one", picture(1)[:5])], "one", WHOLE)
    with pytest.raises(UsageError, match="need 21 words"):
        transform(copier, CONFIG, [(picture(1), picture(2))], picture(1)[:5], WHOLE)
    with pytest.raises(TokenError, match="'triceratops' is"):
        draw(copier, replace(CONFIG, words=("red", "triceratops")), pairs, "one", WHOLE)
    with pytest.raises(UsageError, match="writing needs"):
        Writing(layers=0)

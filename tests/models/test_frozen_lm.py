"""Any causal language model of transformers: rows answer as alone, caches change nothing, no parameter ever moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinolex import api, checkpoint, hub
from kinolex.errors import CheckpointError, TokenError, UnknownModel, UsageError
from kinolex.models.frozen_lm import FrozenLM, Prefix
from kinolex.tokenizers.spae import codebook_from

transformers = pytest.importorskip("transformers", reason="language models need the extra lm")
tokenizers = pytest.importorskip("tokenizers", reason="language models need the extra lm")

TEXT = ["the red ball falls on wood", "a green ring slides", "Input: red Output: ball ###", "walking walked walks"] * 4
FAMILIES = ("gpt2", "llama", "qwen2")


def tiny_tokenizer() -> Any:
    """Byte-level, so that every text has ids; most words of TEXT are one id."""
    trained = tokenizers.ByteLevelBPETokenizer()
    trained.train_from_iterator(TEXT, vocab_size=340, min_frequency=2, show_progress=False)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer)


def tiny_model(family: str) -> Any:
    """Random weights, far enough from those of a beginning that everything depends on everything."""
    torch.manual_seed(0)
    if family == "gpt2":
        config = transformers.GPT2Config(vocab_size=340, n_positions=64, n_embd=32, n_layer=2, n_head=2)
        model = transformers.GPT2LMHeadModel(config)
    else:
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        shape |= {"vocab_size": 340, "max_position_embeddings": 64, "num_key_value_heads": 1}
        names = {"llama": ("LlamaConfig", "LlamaForCausalLM"), "qwen2": ("Qwen2Config", "Qwen2ForCausalLM")}[family]
        model = getattr(transformers, names[1])(getattr(transformers, names[0])(**shape))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module", params=FAMILIES)
def lm(request: pytest.FixtureRequest) -> FrozenLM:
    return FrozenLM(tiny_model(request.param), tiny_tokenizer())


PROMPTS = [[5, 9, 200, 31], [17], [40, 41, 42, 43, 44, 45, 300]]
CANDIDATES = [[[3], [8, 100, 7]], [[50, 51]], [[6], [6, 6], [250, 1]]]


def test_rows_of_other_lengths_are_read_as_they_are_alone(lm: FrozenLM) -> None:
    together = lm.read(PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        alone_LV = lm.logits(torch.tensor([prompt]))[0]
        torch.testing.assert_close(together.logits_BV[row], alone_LV[-1], atol=1e-4, rtol=1e-4)


def test_scores_are_sums_of_log_probabilities(lm: FrozenLM) -> None:
    scores = lm.score(lm.read(PROMPTS), CANDIDATES)
    for prompt, several, found in zip(PROMPTS, CANDIDATES, scores, strict=True):
        for candidate, score in zip(several, found, strict=True):
            log_probs_LV = lm.logits(torch.tensor([prompt + candidate]))[0].log_softmax(-1)
            places = range(len(prompt) - 1, len(prompt) + len(candidate) - 1)
            expected = sum(float(log_probs_LV[at, index]) for at, index in zip(places, candidate, strict=True))
            assert float(score) == pytest.approx(expected, abs=2e-4)


def test_a_cached_prefix_changes_nothing_and_is_not_changed(lm: FrozenLM) -> None:
    shared = lm.read([[1, 2, 3, 77]])
    for _ in range(2):
        cached = lm.read(PROMPTS, after=shared)
        whole = lm.read([[1, 2, 3, 77, *prompt] for prompt in PROMPTS])
        torch.testing.assert_close(cached.logits_BV, whole.logits_BV, atol=1e-4, rtol=1e-4)
        for ours, theirs in zip(lm.score(cached, CANDIDATES), lm.score(whole, CANDIDATES), strict=True):
            torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)
        assert lm.generate(cached, 5) == lm.generate(whole, 5) == lm.generate(cached, 5)


def test_generation_is_the_likeliest_id_again_and_again(lm: FrozenLM) -> None:
    for prompt, made in zip(PROMPTS, lm.generate(lm.read(PROMPTS), 6), strict=True):
        ids = list(prompt)
        for index in made:
            assert int(lm.logits(torch.tensor([ids]))[0, -1].argmax()) == index
            ids.append(index)
        assert len(made) == 6


def test_generation_keeps_to_what_is_allowed_and_ends_at_a_stop(lm: FrozenLM) -> None:
    prefix = lm.read(PROMPTS)
    assert {index for row in lm.generate(prefix, 8, allowed=[4, 7, 11]) for index in row} <= {4, 7, 11}
    free = lm.generate(prefix, 8)
    for row, ids in enumerate(free):
        stopped = lm.generate(prefix, 8, stop={ids[3]})[row]
        assert stopped == ids[: ids.index(ids[3])]
    drawn = lm.generate(prefix, 3, choose=lambda logits_BV: logits_BV.argmin(dim=-1))
    assert drawn != [row[:3] for row in free]


def test_not_one_parameter_changes_or_could(lm: FrozenLM) -> None:
    before = {name: value.clone() for name, value in lm.model.state_dict().items()}
    fingerprint = lm.fingerprint
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())
    prefix = lm.read(PROMPTS)
    lm.score(prefix, CANDIDATES)
    lm.generate(prefix, 4)
    embeddings_VD = lm.embeddings_VD
    embeddings_VD.add_(1.0)  # a copy: the model's own stay
    target = torch.nn.Parameter(embeddings_VD)
    (target * lm.embeddings_VD).sum().backward()
    torch.optim.SGD([target], lr=1.0).step()
    assert all(torch.equal(value, before[name]) for name, value in lm.model.state_dict().items())
    assert all(parameter.grad is None for parameter in lm.model.parameters())
    assert lm.fingerprint == fingerprint
    next(lm.model.parameters()).data.view(-1)[0] += 1e-3
    assert lm.fingerprint != fingerprint
    next(lm.model.parameters()).data.view(-1)[0] -= 1e-3


def test_words_are_whole_and_come_back_from_their_text(lm: FrozenLM) -> None:
    ids = lm.word_ids()
    words = [lm.decode([index]) for index in ids]
    assert {" ball", " red", " ring"} <= set(words)
    assert all(word[0] == " " and word[1:].isalpha() for word in words)
    assert lm.encode(lm.decode(ids)) == ids


def test_a_folder_of_transformers_loads_and_nothing_else_does(lm: FrozenLM, tmp_path: Path) -> None:
    lm.model.save_pretrained(tmp_path / "lm")
    lm.tokenizer.save_pretrained(tmp_path / "lm")
    loaded = FrozenLM.load(tmp_path / "lm")
    assert torch.equal(loaded.read(PROMPTS).logits_BV, lm.read(PROMPTS).logits_BV)
    assert loaded.encode("the red ball") == lm.encode("the red ball")
    assert hub.load_lm(tmp_path / "lm").fingerprint == loaded.fingerprint
    assert checkpoint.what_is(tmp_path / "lm") == checkpoint.LANGUAGE_MODEL
    facts = api.info(tmp_path / "lm")
    assert facts["fingerprint"] == loaded.fingerprint and facts["words"] == len(loaded.word_ids()) > 5
    weights = tmp_path / "lm" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    for name, error in ((tmp_path / "lm", CheckpointError), (tmp_path, CheckpointError), ("nowhere", UnknownModel)):
        with pytest.raises(error):
            FrozenLM.load(name)


def save(model: Any, folder: Path, tokenizer: Any = None) -> Path:
    model.save_pretrained(folder)
    (tokenizer or tiny_tokenizer()).save_pretrained(folder)
    return folder


SIZES = {"vocab_size": 340, "hidden_size": 32}


def test_models_tell_the_number_of_their_positions_in_several_ways_or_not_at_all(tmp_path: Path) -> None:
    bloom = transformers.BloomConfig(n_layer=2, n_head=2, **SIZES)
    mpt = transformers.MptConfig(vocab_size=340, d_model=32, n_layers=2, n_heads=2, max_seq_len=64, expansion_ratio=2)
    for config, limit in ((bloom, None), (mpt, 64)):
        loaded = FrozenLM.load(save(transformers.AutoModelForCausalLM.from_config(config), tmp_path / "lm"))
        assert loaded.max_length == limit and ("positions" in api.info(tmp_path / "lm")) == (limit is not None)
        alone_LV = loaded.logits(torch.tensor([PROMPTS[0]]))[0]
        torch.testing.assert_close(loaded.read(PROMPTS).logits_BV[0], alone_LV[-1], atol=1e-4, rtol=1e-4)


def test_what_is_no_causal_model_with_a_vocabulary_and_a_cache_of_rows_is_named(tmp_path: Path) -> None:
    mamba = transformers.MambaConfig(num_hidden_layers=2, state_size=8, **SIZES)
    t5 = transformers.T5Config(vocab_size=340, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    recurrent = save(transformers.AutoModelForCausalLM.from_config(mamba), tmp_path / "mamba")
    both_ways = save(transformers.T5ForConditionalGeneration(t5), tmp_path / "t5")
    (tmp_path / "empty").mkdir()
    tiny_model("gpt2").save_pretrained(tmp_path / "wordless")
    for folder, said in (
        (recurrent, "MambaForCausalLM, whose cache cannot be selected by batch"),
        (both_ways, "a model of type t5, not causal"),
        (tmp_path / "empty", r"holds no config\.json"),
        (tmp_path / "wordless", "holds no vocabulary"),
    ):
        with pytest.raises(CheckpointError, match=said) as raised:
            hub.load_lm(folder)
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


def test_another_kind_of_network_and_an_unknown_name_are_told_what_is_needed() -> None:
    with pytest.raises(CheckpointError, match="spae-nano is a word tokenizer, and a language model is needed"):
        hub.load_lm("spae-nano")
    with pytest.raises(UnknownModel, match=r"no language model 'nope'.* shipped \(text-nano\)"):
        hub.load_lm("nope")
    with pytest.raises(CheckpointError, match="holds a language model, and a word tokenizer is needed"):
        hub.load_spae("text-nano")
    with pytest.raises(UnknownModel, match=r"no word tokenizer 'nope'.* shipped \(spae-nano\)"):
        hub.load_spae("nope")


def test_wrong_calls_are_refused(lm: FrozenLM) -> None:
    prefix = lm.read(PROMPTS)
    with pytest.raises(UsageError, match="at least one id"):
        lm.read([[1], []])
    with pytest.raises(UsageError, match="as many, or one row"):
        lm.read([[1], [2]], after=prefix)
    with pytest.raises(UsageError, match="positions"):
        lm.read([[1] * 65])
    with pytest.raises(UsageError, match="drop empty ones"):
        lm.score(prefix, [[[1]], [[]], [[2]]])
    with pytest.raises(TokenError, match="must lie in"):
        lm.generate(prefix, 2, allowed=[340])
    assert isinstance(prefix.select([2, 2]), Prefix) and prefix.select([2, 2]).rows == 2


def test_a_model_of_int8_rows_is_nearly_the_same_and_a_damaged_one_is_refused(lm: FrozenLM, tmp_path: Path) -> None:
    checkpoint.save_lm(tmp_path / "small", lm, card="# small\n")
    again = hub.load_lm(tmp_path / "small")

    ids_BL = torch.tensor([PROMPTS[2]])
    apart = float((again.logits(ids_BL) - lm.logits(ids_BL)).abs().max())
    assert 0 < apart < 0.05 * float(lm.logits(ids_BL).abs().max())
    assert again.encode(TEXT[0]) == lm.encode(TEXT[0]) and (tmp_path / "small" / "README.md").is_file()
    checkpoint.save_lm(tmp_path / "small", again, card="# again\n")  # an earlier one is replaced
    assert hub.load_lm(tmp_path / "small").fingerprint == again.fingerprint
    weights = tmp_path / "small" / checkpoint.INT8
    kept = load_file(weights)
    for name in ("model.norm.weight", "transformer.ln_f.weight"):
        kept.pop(name, None)
    save_file(kept, weights)
    with pytest.raises(CheckpointError, match=r"does not fit its config\.json"):
        hub.load_lm(tmp_path / "small")
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        hub.load_lm(tmp_path / "small")


def test_the_shipped_model_looks_back_and_its_embeddings_are_those_of_the_shipped_words() -> None:
    shipped = hub.load_lm("text-nano")
    words = shipped.word_ids()
    dice = torch.Generator().manual_seed(0)
    said_L = torch.tensor(words)[torch.randint(len(words), (24,), generator=dice)]
    logits_LV = shipped.logits(said_L.repeat(3)[None])[0]
    assert float((logits_LV[24:-1].argmax(dim=1) == said_L.repeat(3)[25:]).float().mean()) > 0.9

    spae, _ = hub.load_spae("spae-nano")

    assert spae.config.language_model == shipped.fingerprint
    assert spae.config.words == tuple(shipped.decode([index])[1:] for index in words)
    wanted_VD = codebook_from(shipped.embeddings_VD[words])
    # Rows of int8 move a vector by a hundredth of its length at most.
    torch.testing.assert_close(spae.quantizer.codebook, wanted_VD, atol=0.03, rtol=0)

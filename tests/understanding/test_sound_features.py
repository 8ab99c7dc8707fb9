"""Every kind of input of a sound has the tokenizer's positions, at the same moments; pitch can be read from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kinolex import hub
from kinolex.errors import UsageError
from kinolex.evaluation.understanding_sets import LabelledSet, LabelledSounds
from kinolex.models.probe import HearsConfig, ProbeKind
from kinolex.tokenizers.quantizers import ResidualConfig, VQConfig
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.tokenizers.soundstream import SoundStream, SoundStreamConfig
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training.probe_data import Inputs
from kinolex.training.probe_run import FitConfig, SizeConfig, fit, fit_hidden, judged, new_probe
from kinolex.types import Sound
from kinolex.understanding.features import INPUTS
from kinolex.understanding.sounds import BANDS, RANGE_DB, SoundFrontEnd
from tests.tiny_sound import tiny_sound_tokenizer

PITCHES_HZ = (300, 600, 1200, 2400)


def quiet(_done: int, _total: int) -> None:
    """Nobody waits."""


@pytest.fixture
def tokenizer() -> SoundTokenizer:
    torch.manual_seed(0)
    return tiny_sound_tokenizer()


def noise(count: int = 3, samples: int = 5000) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (count, samples)).astype(np.float32)


def tones(count: int, seed: int, rate_hz: int = 16_000, *, shuffled: bool = False) -> LabelledSounds:
    """0.3 s of one of four pitches a sound, of any phase and loudness, in some noise."""
    dice = np.random.default_rng(seed)
    labels_N = np.arange(count) % len(PITCHES_HZ)
    times_S = np.arange(int(0.3 * rate_hz)) / rate_hz
    cycles_NS = np.array(PITCHES_HZ)[labels_N, None] * times_S + dice.uniform(size=(count, 1))
    samples_NS = dice.uniform(0.1, 0.4, (count, 1)) * np.sin(2 * np.pi * cycles_NS)
    samples_NS += 0.01 * dice.standard_normal(samples_NS.shape)
    told_N = dice.permutation(labels_N) if shuffled else labels_N
    return LabelledSounds(samples_NS.astype(np.float32), rate_hz, {"pitch": told_N}, np.arange(count))


def test_many_at_once_are_what_one_by_one_are(tokenizer: SoundTokenizer) -> None:
    samples_NS = noise(samples=6400)
    front_end = SoundFrontEnd(tokenizer=tokenizer, samples=6400)
    ids_NQthw = front_end.encode(samples_NS, quiet)
    decoded_NS = front_end.decode(ids_NQthw, quiet)
    for number, samples_S in enumerate(torch.from_numpy(samples_NS)):
        tokens = tokenizer.encode(Sound(samples_S[None], tokenizer.config.rate_hz))
        assert torch.equal(tokens.ids_Qthw, ids_NQthw[number])
        by_one_S = tokenizer.decode(tokens).samples_CS[0].numpy()
        assert np.allclose(by_one_S, decoded_NS[number], atol=1e-5)


@pytest.mark.parametrize("samples", [1, 640, 5000])
def test_all_inputs_have_the_positions_of_the_grid(tokenizer: SoundTokenizer, samples: int) -> None:
    sounds = LabelledSounds(noise(samples=samples), 8000, {"pitch": np.zeros(3, np.int64)}, np.arange(3))
    inputs = Inputs(sounds, tokenizer, levels=2)
    cells, rows, columns = inputs.grid
    positions = cells * rows * columns
    assert (rows, columns) == (2, 2) and 0 <= positions * tokenizer.config.hop - samples < 4 * tokenizer.config.hop
    assert inputs.ids_NQthw.shape == (3, 2, positions, 1, 1)
    widths = {"raw": 2 * BANDS, "decoded": 2 * BANDS, "latents": 4, "digits": 2 * 16}
    for kind in INPUTS:
        assert inputs.features(kind, np.arange(3)).shape == (3, positions, widths[kind])
    assert inputs.decoded.shape == (3, samples)


def test_a_position_hears_the_moment_of_its_token(tokenizer: SoundTokenizer) -> None:
    hop, place = tokenizer.config.hop, 9
    samples_NS = np.zeros((1, 20 * hop), np.float32)
    samples_NS[0, place * hop + hop // 4] = 1.0
    heard_LC = SoundFrontEnd(tokenizer=tokenizer, samples=20 * hop).positions(samples_NS)[0]
    assert int(heard_LC.mean(dim=1).argmax()) == place
    silence = float(heard_LC.max()) - RANGE_DB / 20
    far_LC = torch.cat([heard_LC[: place - 1], heard_LC[place + 2 :]])
    assert torch.equal(far_LC, torch.full_like(far_LC, silence)), "as quiet as can be heard beside the click"


def test_a_choice_of_sounds_keeps_ids_and_fewer_levels_are_the_first(tokenizer: SoundTokenizer) -> None:
    sounds = tones(8, 0, 8000)
    whole, fewer = Inputs(sounds, tokenizer), Inputs(sounds, tokenizer, levels=1)
    assert torch.equal(whole.ids_NQthw[:, :1], fewer.ids_NQthw) and whole.digest != fewer.digest
    some = fewer.some(np.array([5, 2]))
    assert torch.equal(some.ids_NQthw, fewer.ids_NQthw[[5, 2]]) and some.levels == 1
    assert some.clips.labels["pitch"].tolist() == [1, 2]


def test_sounds_are_brought_to_the_rate_of_the_tokenizer(tokenizer: SoundTokenizer) -> None:
    inputs = Inputs(tones(2, 0, 16_000), tokenizer)
    assert inputs.media.shape == (2, int(0.3 * 8000)) and inputs.media.dtype == np.float32


@pytest.mark.parametrize(("kind", "kind_input"), [("linear", "raw"), ("attentive", "raw"), ("attentive", "latents")])
def test_pitch_is_told_by_probes_and_labels_of_chance_are_not(kind: ProbeKind, kind_input: str) -> None:
    tokenizer = hub.load_sound()
    test = Inputs(tones(32, 1), tokenizer, levels=2)
    right = {}
    for shuffled in (False, True):
        train = tones(48, 0, shuffled=shuffled)
        inputs = Inputs(train, tokenizer, levels=2)
        clips = LabelledSet("tones", (("pitch", tuple(map(str, PITCHES_HZ))),), train, test.clips)
        size = SizeConfig(kind=kind, width=16, heads=2, dropout=0.0)
        probe = new_probe(clips, inputs, kind_input, size, seed=0)
        assert probe.config.reads == HearsConfig(
            input=kind_input, tokenizer=tokenizer.fingerprint, levels=2, seconds=0.3
        )
        fit(probe, inputs, kind_input, FitConfig(steps=60, batch=16, lr=1e-2, warmup_steps=2), seed=0)
        said_N = judged(probe, test, kind_input)["pitch"].argmax(dim=1).numpy()
        right[shuffled] = (said_N == test.clips.labels["pitch"]).mean()
    assert right[False] > 0.9 and right[True] < 0.6, right


def test_hidden_tokens_of_sound_are_predicted_better_after_than_before(tokenizer: SoundTokenizer) -> None:
    train = tones(12, 0, 8000)
    inputs = Inputs(train, tokenizer)
    clips = LabelledSet("tones", (("pitch", tuple(map(str, PITCHES_HZ))),), train, train)
    size = SizeConfig(kind="transformer", width=16, depth=1, heads=2, dropout=0.0)
    probe = new_probe(clips, inputs, "digits", size, seed=0)
    first = fit_hidden(probe, inputs, "digits", FitConfig(steps=1, batch=8), seed=0)
    last = fit_hidden(probe, inputs, "digits", FitConfig(steps=30, batch=8, lr=5e-3, warmup_steps=2), seed=0)
    assert last < 0.9 * first


def test_what_does_not_fit_is_named(tokenizer: SoundTokenizer, tiny_tokenizer: VideoTokenizer) -> None:
    with pytest.raises(UsageError, match="sounds need a tokenizer of sound"):
        Inputs(tones(2, 0), tiny_tokenizer)
    with pytest.raises(UsageError, match="1 to 3 levels, got 4"):
        Inputs(tones(2, 0, 8000), tokenizer, levels=4)
    odd = SoundStreamConfig(
        rate_hz=8000,
        strides=(5, 3),
        widths=(4, 4, 4),
        encoder_units=(0, 0, 0),
        decoder_units=(0, 0, 0),
        quantizer=ResidualConfig(level=VQConfig(codebook_size=4, dim=4), num_levels=1),
    )
    with pytest.raises(UsageError, match="even number of samples per token, got 15"):
        Inputs(tones(2, 0, 8000), SoundTokenizer(SoundStream(odd), "d" * 64))

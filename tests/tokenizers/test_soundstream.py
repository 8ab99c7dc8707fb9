"""SoundStream and its tokenizer: causal, cut at will, any rate, any length, any number of levels."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
import torch

from kinolex.errors import ConfigError, ShapeError, TokenError, UsageError
from kinolex.tokenizers.quantizers import FSQConfig, ResidualConfig, VQConfig
from kinolex.tokenizers.sound import BLOCK_FRAMES, SoundTokenizer
from kinolex.tokenizers.soundstream import PRESETS, SoundStream, SoundStreamConfig
from kinolex.types import Extent, Sound, SoundExtent, Tokens


def tiny_config() -> SoundStreamConfig:
    return SoundStreamConfig(
        rate_hz=16_000,
        strides=(4, 5),
        widths=(4, 8, 8),
        encoder_units=(1, 1, 0),
        decoder_units=(0, 1, 1),
        quantizer=ResidualConfig(level=VQConfig(codebook_size=32, dim=4, ema_decay=0.9), num_levels=3),
        direct=True,
        decoder_activation="snake",
    )


@pytest.fixture
def tokenizer() -> SoundTokenizer:
    torch.manual_seed(0)
    return SoundTokenizer(SoundStream(tiny_config()), "a" * 64)


def noise(samples: int, *, channels: int = 1, rate_hz: int = 16_000) -> Sound:
    generator = torch.Generator().manual_seed(samples)
    return Sound(torch.randn(channels, samples, generator=generator).clamp(-1, 1) * 0.3, rate_hz)


def pieces_of(sound: Sound, size: int) -> list[Sound]:
    return [Sound(part, sound.rate_hz) for part in sound.samples_CS.split(size, dim=1)]


SOUNDS = [(1, 16_000, 2_345), (2, 44_100, 5_000), (1, 8_000, 1_001), (2, 16_000, 20 * BLOCK_FRAMES), (1, 48_000, 1)]


@pytest.mark.parametrize(("channels", "rate_hz", "samples"), SOUNDS)
def test_length_rate_and_channels_come_back(
    tokenizer: SoundTokenizer, channels: int, rate_hz: int, samples: int
) -> None:
    sound = noise(samples, channels=channels, rate_hz=rate_hz)
    tokens = tokenizer.encode(sound)
    made = tokenizer.decode(tokens)

    assert made.samples_CS.shape == sound.samples_CS.shape and made.rate_hz == rate_hz
    assert float(made.samples_CS.abs().max()) <= 1.0
    assert tokens.extent == SoundExtent(samples=samples, rate_hz=rate_hz)
    assert tokens.ids_Qthw.shape[0] == 3 and tokens.ids_Qthw.shape[2:] == (1, channels)


@pytest.mark.parametrize(("channels", "rate_hz", "samples"), SOUNDS)
@pytest.mark.parametrize("cut", [77, 4_000])
def test_a_stream_equals_one_shot_bit_for_bit(
    tokenizer: SoundTokenizer, channels: int, rate_hz: int, samples: int, cut: int
) -> None:
    sound = noise(samples, channels=channels, rate_hz=rate_hz)
    whole = tokenizer.encode(sound, 2)
    pieces = list(tokenizer.encode_stream(pieces_of(sound, cut), 2))

    assert torch.equal(torch.cat([piece.ids_Qthw for piece in pieces], dim=1), whole.ids_Qthw)
    assert sum(piece.extent.samples for piece in pieces) == samples
    parts = [made.samples_CS for made in tokenizer.decode_stream(pieces)]
    assert torch.equal(torch.cat(parts, dim=1), tokenizer.decode(whole).samples_CS)


def test_a_sound_without_samples_is_one_frame_and_comes_back_empty(tokenizer: SoundTokenizer) -> None:
    tokens = tokenizer.encode(noise(0, channels=2))
    assert tokens.ids_Qthw.shape == (3, 1, 1, 2)
    assert tokenizer.decode(tokens).samples_CS.shape == (2, 0)


def test_channels_are_coded_apart(tokenizer: SoundTokenizer) -> None:
    sound = noise(900, channels=2)
    both = tokenizer.encode(sound).ids_Qthw
    for channel in (0, 1):
        alone = tokenizer.encode(Sound(sound.samples_CS[channel : channel + 1], sound.rate_hz)).ids_Qthw
        assert float((alone[..., 0] == both[..., channel]).float().mean()) > 0.99  # sums may be ordered otherwise


def test_ids_do_not_change_with_later_samples(tokenizer: SoundTokenizer) -> None:
    sound = noise(1_000)
    changed_CS = sound.samples_CS.clone()
    changed_CS[:, 600:] *= -1

    before, after = (tokenizer.encode(s).ids_Qthw for s in (sound, Sound(changed_CS, sound.rate_hz)))

    assert torch.equal(before[:, :30], after[:, :30])
    assert not torch.equal(before[:, 30:], after[:, 30:])


def test_fewer_levels_are_a_prefix_and_decode(tokenizer: SoundTokenizer) -> None:
    sound = noise(700)
    every, two = tokenizer.encode(sound), tokenizer.encode(sound, 2)
    assert torch.equal(every.ids_Qthw[:2], two.ids_Qthw)
    assert not torch.equal(tokenizer.decode(every).samples_CS, tokenizer.decode(two).samples_CS)


@pytest.mark.parametrize(("kbps", "levels"), [(4.0, 1), (8.0, 2), (11.9, 2), (12.0, 3), (99.0, 3)])
def test_levels_are_as_many_as_fit_into_a_rate(tokenizer: SoundTokenizer, kbps: float, levels: int) -> None:
    assert tokenizer.config.kbps_per_level == 4.0  # 800 frames of 5 bits
    assert tokenizer.levels_for(kbps) == levels
    assert tokenizer.levels_for(2 * kbps, channels=2) == levels
    with pytest.raises(UsageError, match=r"needs 4 kbit/s at least for one channel, got 3\.9"):
        tokenizer.levels_for(3.9)


def test_the_direct_path_starts_as_a_cosine_transform_and_back() -> None:
    torch.manual_seed(0)
    model = SoundStream(tiny_config())
    forth, back = model.encoder.direct, model.decoder.direct
    assert forth is not None and back is not None
    times = (torch.arange(200) % 20 + 0.5) * torch.pi / 20
    low_B11S = (1.0 + torch.cos(3 * times)).view(1, 1, 1, 200)
    high_B11S = torch.cos(9 * times).view(1, 1, 1, 200)

    torch.testing.assert_close(back(forth(low_B11S)), low_B11S, atol=1e-4, rtol=0)
    assert float(back(forth(high_B11S)).detach().abs().max()) < 1e-4


def test_dropout_keeps_levels_of_each_sample_apart() -> None:
    torch.manual_seed(0)
    model = SoundStream(tiny_config()).train()
    x_B1S = torch.randn(16, 1, 40) * 0.3
    model(x_B1S)  # the codes start
    latents = model.latents(x_B1S)
    totals = [model.eval().quantizer(latents, keep=keep).latents_BDthw for keep in (1, 2, 3)]
    model.train()
    model.quantizer.levels.eval()  # nothing moves, so that only dropout remains
    dropped = model.quantizer(latents).latents_BDthw
    kept = torch.stack([(dropped - total).abs().amax(dim=(1, 2, 3, 4)) < 1e-5 for total in totals])
    assert bool(kept.any(dim=0).all())
    assert bool(kept.any(dim=1).all()), "of 16 samples each number of levels should occur"


@pytest.mark.parametrize(
    ("name", "rate_hz", "frames_per_s", "levels"), [("paper", 24_000, 75, 8), ("nano", 16_000, 50, 12)]
)
def test_presets_have_the_rates_that_they_state(name: str, rate_hz: int, frames_per_s: int, levels: int) -> None:
    config = PRESETS[name]()
    with torch.device("meta"):
        model = SoundStream(config)
    assert (config.rate_hz, config.rate_hz / config.hop, config.quantizer.num_levels) == (rate_hz, frames_per_s, levels)
    encoder, decoder = (sum(p.numel() for p in half.parameters()) for half in (model.encoder, model.decoder))
    if name == "paper":
        assert config.strides == (2, 4, 5, 8) and all(b == 2 * a for a, b in pairwise(config.widths))
    else:
        assert encoder < decoder and 1.5e6 < encoder + decoder < 3e6


def test_what_does_not_fit_is_refused_by_name(tokenizer: SoundTokenizer) -> None:
    sound = noise(500)
    tokens = tokenizer.encode(sound)
    with pytest.raises(UsageError, match="1 to 3 levels"):
        tokenizer.encode(sound, 4)
    with pytest.raises(ShapeError, match="like the first"):
        list(tokenizer.encode_stream([sound, noise(10, rate_hz=8_000)]))
    with pytest.raises(TokenError, match="load the tokenizer"):
        tokenizer.decode(replace(tokens, tokenizer="b" * 64))
    with pytest.raises(TokenError, match="fewer than"):
        tokenizer.decode(replace(tokens, extent=SoundExtent(samples=5_000, rate_hz=16_000)))
    with pytest.raises(TokenError, match="more than"):
        tokenizer.decode(replace(tokens, extent=SoundExtent(samples=100, rate_hz=16_000)))
    with pytest.raises(TokenError, match="damaged"):
        tokenizer.decode(replace(tokens, ids_Qthw=tokens.ids_Qthw + 32))
    picture = Tokens(
        torch.zeros(3, 1, 1, 1, dtype=torch.int64),
        "video",
        "a" * 64,
        Extent(frames=1, height=1, width=1, fps=Fraction(1)),
    )  # type: ignore[arg-type]
    with pytest.raises(TokenError, match="decodes sound only"):
        tokenizer.decode(picture)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="multiple of 20"):
        tokenizer.model.latents(torch.zeros(1, 1, 21))


def test_tokens_of_sound_and_of_pictures_are_told_apart() -> None:
    ids = torch.zeros(2, 3, 1, 2, dtype=torch.int64)
    extent = SoundExtent(samples=5, rate_hz=8_000)
    assert Tokens(ids, "sound", "a", extent).extent.duration_s == 5 / 8_000
    with pytest.raises(ShapeError, match="cannot have the extent"):
        Tokens(ids, "video", "a", extent)
    with pytest.raises(ShapeError, match="channels"):
        Tokens(ids.transpose(2, 3), "sound", "a", extent)
    with pytest.raises(ShapeError, match="rate from 1 Hz"):
        SoundExtent(samples=5, rate_hz=0)


def test_impossible_configs_are_refused() -> None:
    with pytest.raises(ConfigError, match="need 3 widths"):
        replace(tiny_config(), widths=(4, 8))
    with pytest.raises(ConfigError, match="learned codes"):
        replace(tiny_config(), quantizer=ResidualConfig(level=FSQConfig(levels=(4, 4)), num_levels=2))

"""Small seeded priors, tokens and files for the codec's tests.

python -m tests.codec.codec_examples writes the golden files.
"""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from kinolex.codec.network import NetworkConfig
from kinolex.codec.priors import History, LearnedPrior, PlainPrior, Prior, load_prior, save_prior, to_ids
from kinolex.codec.sound_track import SoundTokens, pack_head, pack_ids, tokens_track, track_of
from kinolex.codec.stream import StreamEncoder
from kinolex.types import Extent, Tokens

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
PRIORS = {
    "one_level": NetworkConfig(levels=(5, 4, 3), channels=8, trunk_layers=2),
    "two_levels": NetworkConfig(levels=(4, 7, 4, 7), channels=8, trunk_layers=1),
}
OPUS_HEAD = b"OpusHead\x01\x01\x38\x01\x80\xbb\x00\x00\x00\x00\x00"
"""Mono, a pre-skip of 312 samples."""
TOKENS_TRACK = tokens_track(
    SoundTokens(tokenizer="a5" * 32, num_levels=3, id_bits=10, source_rate_hz=44_100, latents_per_packet=4),
    rate_hz=16_000,
    samples_per_latent=320,
    channels=2,
)
TOKENS_HEAD = pack_head(TOKENS_TRACK)
FINGERPRINT = "5a" * 32


def random_integers(config: NetworkConfig, seed: int = 0) -> dict[str, Tensor]:
    """Tensors of a network whose activations and logits are neither all zero nor all at the top."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (taps, inputs, outputs) in config.layer_shapes().items():
        tensors[f"{name}.weight"] = torch.randint(-127, 128, (taps, inputs, outputs), generator=generator).to(
            torch.int8
        )
        tensors[f"{name}.bias"] = torch.randint(-4000, 4000, (outputs,), generator=generator).to(torch.int32)
        least = 8 if name.startswith("logits") else 6
        tensors[f"{name}.shift"] = torch.randint(least, least + 3, (outputs,), generator=generator).to(torch.uint8)
    return tensors


def random_prior(levels: tuple[int, ...] = (5, 4, 3), *, channels: int = 8, seed: int = 0) -> LearnedPrior:
    config = NetworkConfig(levels=levels, channels=channels, trunk_layers=2)
    return LearnedPrior(config, random_integers(config, seed))


def random_tokens(
    prior: Prior, grid_Qthw: tuple[int, int, int, int], *, frames: int | None = None, seed: int = 0, **extent: int
) -> Tokens:
    """Ids that a causal tokenizer of 4x8x8 pixels per token could have made, though at random."""
    generator = torch.Generator().manual_seed(seed)
    levels, latents, rows, columns = grid_Qthw
    ids_Qthw = torch.randint(0, prior.vocab_size(levels), grid_Qthw, generator=generator)
    frames = 1 + 4 * (latents - 1) if frames is None else frames
    height, width = extent.get("height", 8 * rows), extent.get("width", 8 * columns)
    return Tokens(ids_Qthw, "video", FINGERPRINT, Extent(frames=frames, height=height, width=width, fps=Fraction(24)))


def likely_tokens(prior: LearnedPrior, latents: int, rows: int, columns: int, seed: int = 0) -> Tokens:
    """Ids drawn as the prior expects them: what it saves bytes on."""
    generator, history, frames = torch.Generator().manual_seed(seed), History(), []
    for _ in range(latents):
        history.append(
            prior.walk(
                history,
                (rows, columns),
                lambda digit, where, frequencies: torch.multinomial(
                    frequencies.double(), 1, generator=generator
                ).flatten(),
            )
        )
        frames.append(history[-1])
    ids_Qthw = to_ids(torch.stack(frames), 1, prior.levels)
    extent = Extent(frames=1 + 4 * (latents - 1), height=8 * rows, width=8 * columns, fps=Fraction(24))
    return Tokens(ids_Qthw, "video", FINGERPRINT, extent)


# --- golden files ---


def plain_golden() -> tuple[bytes, list[Tensor]]:
    """Three levels of 300 ids, so two digits each, in a 3x3 grid, in a stream that continues, and a chunk at a half."""
    prior = PlainPrior(300, 3)
    encoder = StreamEncoder(prior, height=20, width=21)
    data, all_ids = b"", []
    for number, (latents, rows, scale, continued) in enumerate(((2, 3, 16, False), (1, 3, 16, True), (1, 2, 8, False))):
        height, width = -(-20 * scale // 16), -(-21 * scale // 16)
        tokens = random_tokens(prior, (3, latents, rows, rows), frames=4, seed=number, height=height, width=width)
        data += encoder.push(tokens, scale=scale, continued=continued)
        all_ids.append(tokens.ids_Qthw)
    return data + encoder.finish(), all_ids


def learned_golden(prior: LearnedPrior, num_levels: int, rows: int, columns: int) -> tuple[bytes, list[Tensor]]:
    """Independent and continued chunks with packets (of nonsense: only decoders of sound look into them)."""
    encoder = StreamEncoder(prior, height=8 * rows, width=8 * columns, sound_head=OPUS_HEAD)
    data, all_ids = b"", []
    for number in range(4):
        tokens = random_tokens(prior, (num_levels, 1 + number, rows, columns), frames=1 + 4 * number, seed=number)
        packets = tuple(bytes([number, index]) * (1 + 40 * index) for index in range(number))
        data += encoder.push(tokens, packets=packets, continued=number == 2)
        all_ids.append(tokens.ids_Qthw)
    return data + encoder.finish(sound_samples=4321), all_ids


def sound_ids(latents: int, seed: int = 0) -> Tensor:
    """ids_Qtc of TOKENS_TRACK."""
    tokens = TOKENS_TRACK.tokens
    assert tokens is not None
    shape = (tokens.num_levels, latents, TOKENS_TRACK.channels)
    return torch.randint(2**tokens.id_bits, shape, generator=torch.Generator().manual_seed(seed))


def sound_golden() -> tuple[bytes, list[Tensor]]:
    """Four chunks of five pictures at 24 per second beside 45 latent frames of stereo sound tokens."""
    prior = PlainPrior(300)
    encoder = StreamEncoder(prior, height=16, width=24, sound_head=TOKENS_HEAD)
    packets, data, all_ids = pack_ids(sound_ids(45), TOKENS_TRACK), b"", []
    for number in range(4):
        tokens = random_tokens(prior, (1, 2, 2, 3), frames=5, seed=number, height=16, width=24)
        start, stop = (TOKENS_TRACK.packets_before(5 * at, tokens.extent.fps) for at in (number, number + 1))
        data += encoder.push(tokens, packets=packets[start : None if number == 3 else stop])
        all_ids.append(tokens.ids_Qthw)
    return data + encoder.finish(sound_samples=45 * 320 - 100), all_ids


LONG_OPUS_HEAD = OPUS_HEAD + bytes([6])
"""Packets of six frames: 120 ms."""


def long_packets_golden() -> tuple[bytes, list[Tensor]]:
    """Four chunks of five pictures at 24 per second beside 40,000 samples of nonsense in Opus packets of 120 ms."""
    prior, track = PlainPrior(300), track_of(LONG_OPUS_HEAD)
    encoder = StreamEncoder(prior, height=16, width=24, sound_head=LONG_OPUS_HEAD)
    packets, data, all_ids = [bytes([number]) * (90 * number + 1) for number in range(8)], b"", []
    for number in range(4):
        tokens = random_tokens(prior, (1, 2, 2, 3), frames=5, seed=number, height=16, width=24)
        start, stop = (track.packets_before(5 * at, tokens.extent.fps) for at in (number, number + 1))
        data += encoder.push(tokens, packets=tuple(packets[start : None if number == 3 else stop]))
        all_ids.append(tokens.ids_Qthw)
    return data + encoder.finish(sound_samples=40_000), all_ids


def golden_files() -> dict[str, tuple[bytes, list[Tensor]]]:
    """Name -> file and ids of its chunks; priors are read from the golden folder."""
    one, two = (load_prior(GOLDEN / f"{name}.prior.safetensors") for name in PRIORS)
    return {
        "plain": plain_golden(),
        "one_level": learned_golden(one, 1, 5, 7),
        "two_levels": learned_golden(two, 2, 4, 1),
        "one_position": learned_golden(one, 1, 1, 1),
        "sound_tokens": sound_golden(),
        "long_packets": long_packets_golden(),
    }


def ids_to_text(all_ids: list[Tensor]) -> str:
    """A line per chunk: its grid, then its ids."""
    lines = [" ".join(map(str, (*ids_Qthw.shape, *ids_Qthw.flatten().tolist()))) for ids_Qthw in all_ids]
    return "\n".join(lines) + "\n"


def ids_from_text(text: str) -> list[Tensor]:
    numbers = [torch.tensor(list(map(int, line.split()))) for line in text.splitlines()]
    return [line[4:].view(*line[:4].tolist()) for line in numbers]


def make_golden() -> None:
    """Only after a change of the format: existing files must stay readable."""
    GOLDEN.mkdir(exist_ok=True)
    for number, (name, config) in enumerate(PRIORS.items()):
        save_prior(GOLDEN / f"{name}.prior.safetensors", config, random_integers(config, seed=number))
    for name, (data, all_ids) in golden_files().items():
        (GOLDEN / f"{name}.klx").write_bytes(data)
        (GOLDEN / f"{name}.ids.txt").write_text(ids_to_text(all_ids))


def packed_bytes(tokens: Tokens, vocab_size: int) -> float:
    """Bytes at a fixed number of bits, not rounded up."""
    return tokens.num_tokens * math.log2(vocab_size) / 8


if __name__ == "__main__":
    make_golden()

"""The clip before and after, and what its tokens are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from kinolex import api
from kinolex.evaluation.page import (
    animation_data_uri,
    bars,
    figure,
    file_data_uri,
    image_data_uri,
    note,
    table,
)
from kinolex.metrics import codebook_perplexity, psnr_db, ssim
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip, Tokens

SHOWN_FRAMES = 5
ANIMATED_FRAMES = 73


def first_of(tokens: Tokens, clip: Clip) -> Tokens:
    """Tokens of the clip's frames only; a causal stream may be cut anywhere, windows at their ends."""
    if tokens.extent.frames == clip.num_frames:
        return tokens
    per_latent = max(1, -(-tokens.extent.frames // tokens.ids_Qthw.shape[1]))
    needed = -(-clip.num_frames // per_latent) + 1
    return Tokens(tokens.ids_Qthw[:, :needed], tokens.kind, tokens.tokenizer, clip.extent)


def facts_of(report: api.Report, tokenizer: VideoTokenizer) -> str:
    time, rows, columns = tokenizer.pixels_per_token
    raw_bits = 24.0
    return table(
        ["figure", "value"],
        [
            ["model", report.model],
            ["frames", f"{report.frames} of {report.width}x{report.height} at {report.fps} fps"],
            ["sound", report.sound],
            ["tokens", f"{report.tokens} of {(report.vocab_size - 1).bit_length()} bits"],
            ["one token stands for", f"{time}x{rows}x{columns} pixels"],
            ["bits per pixel, raw tokens", report.token_bits_per_pixel],
            ["smaller than raw pixels by", f"{raw_bits / report.token_bits_per_pixel:.0f} times"],
            ["PSNR", f"{report.psnr_db:.2f} dB"],
            ["speed, encode + decode + files", f"{report.frames_per_second:.0f} frames per second"],
        ],
    )


def before_and_after(original: Clip, restored: Clip, files: Sequence[Path]) -> Sequence[str]:
    """Moving side by side, frame by frame, and the files themselves, if any, with their sound."""
    moving = figure(
        [
            ("original", animation_data_uri(rows(original.frames_TCHW), original.fps)),
            ("from tokens", animation_data_uri(rows(restored.frames_TCHW), original.fps)),
        ],
        caption="moving",
    )
    times = torch.linspace(0, original.num_frames - 1, min(SHOWN_FRAMES, original.num_frames)).round().long().tolist()
    stills = []
    for time in times:
        a, b = original.frames_TCHW[time], restored.frames_TCHW[time]
        stills.append(
            figure(
                [
                    ("original", image_data_uri(a.permute(1, 2, 0))),
                    ("from tokens", image_data_uri(b.permute(1, 2, 0))),
                    ("difference x4", image_data_uri(_difference(a, b).permute(1, 2, 0))),
                ],
                caption=f"frame {time}: {psnr_db(a.unsqueeze(0), b.unsqueeze(0)):.2f} dB, "
                f"SSIM {ssim(a.unsqueeze(0), b.unsqueeze(0)):.3f}",
            )
        )
    heard = [figure([(path.name, file_data_uri(path)) for path in files], caption="the files, with sound: press play")]
    return [moving, *(heard if files else ()), *stills]


def token_parts(tokens: Tokens, tokenizer: VideoTokenizer) -> Sequence[str]:
    ids_L = tokens.ids_Qthw.flatten()
    distinct, counts = ids_L.unique(return_counts=True)
    perplexity = codebook_perplexity(ids_L, tokenizer.vocab_size)
    often = counts.sort(descending=True).values[:60].tolist()
    first_frame = ", ".join(str(value) for value in tokens.ids_Qthw[0, 0, 0, :8].tolist())
    return [
        note(f"{len(distinct)} different ids among {len(ids_L)}; perplexity {perplexity:.0f}."),
        bars([float(value) for value in often], caption="how often the most frequent ids occur", x_label="rank"),
        note(f"The first ids of the first row: {first_frame} ..."),
    ]


def rows(frames_TCHW: Tensor) -> Tensor:
    return frames_TCHW.permute(0, 2, 3, 1)


def _difference(a_CHW: Tensor, b_CHW: Tensor) -> Tensor:
    return ((a_CHW.float() - b_CHW.float()).abs() * 4).clamp(0, 255).to(torch.uint8)

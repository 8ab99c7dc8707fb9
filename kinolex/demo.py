"""The main job on real input in one go, with a page to look at.

a world with sound (or your file) -> in.mp4 -> tokens.safetensors -> out.mp4 -> report.html
                  |                                               ^
                  +----> ten tasks, tasks/*.mp4 and sheet.png ----+
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from kinolex import api
from kinolex.data.token_store import load_tokens
from kinolex.data.worlds import WorldConfig, render
from kinolex.evaluation.page import (
    animation_data_uri,
    bars,
    code,
    figure,
    image_data_uri,
    note,
    page,
    section,
    table,
    write_text,
)
from kinolex.generation import MaskedGenerator, Wish, compose, load_generator
from kinolex.generation.loading import DEFAULT, WORLDS
from kinolex.media import fit_short_side, probe, read, write
from kinolex.metrics import codebook_perplexity, psnr_db, ssim
from kinolex.tasks.video import TASKS
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip, Tokens

WORLD_SEED = 15
"""Two bodies that bounce, heard."""
WORLD = WorldConfig(frames=73, height=128, width=128, fps=Fraction(24))
SHOWN_FRAMES = 5
ANIMATED_FRAMES = 73
UNKNOWN = 118
"""Grey of what a task does not give."""
CAPTION = "a large red circle bounces"


def run_demo(
    out: str | Path,
    tokenizer: VideoTokenizer,
    *,
    model_name: str,
    file: str | Path | None = None,
    on_frames: Callable[[int, int | None], None] = lambda _done, _total: None,
) -> tuple[Path, api.Report]:
    """Write in.mp4, tokens.safetensors, out.mp4, tasks/ and report.html into `out`; returns the page and figures.

    Args:
        out: made if missing.
        file: a video to take instead of the world; it is read where it is, and no in.mp4 is written.

    Raises:
        KinolexError: of the layers it runs.
    """
    out = Path(out)
    if file is not None:
        probe(file)  # refuse what cannot be read before anything is made
    out.mkdir(parents=True, exist_ok=True)
    caption = "your file"
    if file is None:
        world = render(WORLD_SEED, WORLD)
        write(world.clip, source := out / "in.mp4")
        caption = f"a procedural world: {world.caption}"
    else:
        source = Path(file)
    api.encode(source, out / "tokens.safetensors", tokenizer, on_frames=on_frames)
    report = api.roundtrip(source, out / "out.mp4", tokenizer, model_name=model_name, on_frames=on_frames)
    tokens = load_tokens(out / "tokens.safetensors")
    original = read(source, max_frames=ANIMATED_FRAMES)
    restored = tokenizer.decode(_first(tokens, original))
    generator = load_generator(WORLDS if file is None else DEFAULT)
    sections = [
        section("What happened", _facts(report, tokenizer)),
        section("Before and after", note(caption), *_pictures(original, restored)),
        section("The tokens", *_token_parts(tokens, tokenizer)),
        section("Ten tasks, one network", *_tasks(original, generator, out / "tasks", on_frames)),
        section("Do it yourself", code(_commands(model_name))),
    ]
    lead = (
        "A video became a grid of integers and a video again, through a network that this project trained. "
        "The sound passed through untouched."
    )
    write_text(out / "report.html", page("kinolex demo", sections, lead=lead))
    return out / "report.html", report


def _first(tokens: Tokens, clip: Clip) -> Tokens:
    """Tokens of the clip's frames only; a causal stream may be cut anywhere, windows at their ends."""
    if tokens.extent.frames == clip.num_frames:
        return tokens
    per_latent = max(1, -(-tokens.extent.frames // tokens.ids_Qthw.shape[1]))
    needed = -(-clip.num_frames // per_latent) + 1
    return Tokens(tokens.ids_Qthw[:, :needed], tokens.kind, tokens.tokenizer, clip.extent)


def _facts(report: api.Report, tokenizer: VideoTokenizer) -> str:
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


def _pictures(original: Clip, restored: Clip) -> Sequence[str]:
    moving = figure(
        [
            ("original", animation_data_uri(_rows(original.frames_TCHW), original.fps)),
            ("from tokens", animation_data_uri(_rows(restored.frames_TCHW), original.fps)),
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
    return [moving, *stills]


def _tasks(
    clip: Clip, generator: MaskedGenerator, folder: Path, on_frames: Callable[[int, int | None], None]
) -> Sequence[str]:
    """Every task on the clip's first window: a video each, a contact sheet, and what a page shows of them."""
    folder.mkdir(exist_ok=True)
    window = 1 + generator.tokenizer.pixels_per_token[0] * (generator.config.latent_frames - 1)
    short = fit_short_side(Clip(clip.frames_TCHW[:window], clip.fps), generator.config.lines)
    side = min(short.height, short.width)
    top, left = (short.height - side) // 2, (short.width - side) // 2
    square = Clip(short.frames_TCHW[:, :, top : top + side, left : left + side].contiguous(), short.fps)
    figures, strips = [], []
    for number, task in enumerate(TASKS.values()):
        words = _class_for(generator) if task.takes_class else ""
        given = 1 if task.fill == "repeat" else None
        size = (side, side) if task.name == "class" else None
        wish = Wish(task=task.name, text=words, given=given, frames=window, size=size)
        composition = compose(None if task.name == "class" else square, wish, generator)
        made = generator.tokenizer.decode(generator.generate(composition.posed, text=words))
        known_THW = task.region(window, side, side, 1)
        given_TCHW = torch.where(known_THW[:, None], square.frames_TCHW, UNKNOWN)
        write(made, folder / f"{task.name}.mp4")
        pictures = [
            ("given", animation_data_uri(_rows(given_TCHW), made.fps)),
            ("made", animation_data_uri(_rows(made.frames_TCHW), made.fps)),
        ]
        figures.append(figure(pictures, caption=f"{task.name}: {task.summary}{words and f' ({words})'}"))
        shown = torch.linspace(0, window - 1, SHOWN_FRAMES).round().long()
        pair = [frames_TCHW[shown].permute(1, 2, 0, 3).flatten(2) for frames_TCHW in (given_TCHW, made.frames_TCHW)]
        strips.append(torch.cat(pair, dim=2).to(torch.uint8))
        on_frames(number + 1, len(TASKS))
    write(Clip(torch.cat(strips, dim=1)[None].contiguous(), Fraction(1)), folder / "sheet.png")
    return figures


def _class_for(generator: MaskedGenerator) -> str:
    """A caption for generators that know worlds, for others the last of their classes."""
    words = generator.config.words
    return CAPTION if "bounces" in words else words[-1] if words else ""


def _token_parts(tokens: Tokens, tokenizer: VideoTokenizer) -> Sequence[str]:
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


def _commands(model_name: str) -> str:
    return (
        f"kinolex roundtrip YOUR.mp4 back.mp4 --model {model_name}\n"
        f"kinolex encode YOUR.mp4 tokens.safetensors --model {model_name}\n"
        f"kinolex decode tokens.safetensors back.mp4 --model {model_name} --sound-from YOUR.mp4\n"
        "kinolex info tokens.safetensors"
    )


def _rows(frames_TCHW: Tensor) -> Tensor:
    return frames_TCHW.permute(0, 2, 3, 1)


def _difference(a_CHW: Tensor, b_CHW: Tensor) -> Tensor:
    return ((a_CHW.float() - b_CHW.float()).abs() * 4).clamp(0, 255).to(torch.uint8)

"""The data of all claims: worlds that are trained on and worlds that are measured on, the same for every arm and seed.

seed --render--> clips --tokenizer, many at once--> clean ids + the condition of every task --> Drawn

Ids are those that VideoTokenizer.encode gives: the same blocks run through the same networks, several clips at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kinolex.data.packs import FORMAT, Pack
from kinolex.data.worlds import WorldConfig
from kinolex.data.worlds.render import render_frames_THWC
from kinolex.data.worlds.scene import describe, draw_scene
from kinolex.errors import CheckpointError
from kinolex.layers.conv3d import StreamCache
from kinolex.masks import HIDDEN
from kinolex.tasks.base import padded
from kinolex.tasks.video import TASKS
from kinolex.tasks.words import word_ids
from kinolex.tokenizers.autoencoder3d import Autoencoder3D
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.training.claims.scales import Scale
from kinolex.training.token_draws import ENCODED_TASKS, Drawn
from kinolex.types import Clip

FIRST_HELD_OUT = 10**6
"""Seeds from here on are never trained on."""
AT_ONCE = 16
"""Clips in one pass of a tokenizer."""
FPS = Fraction(24)

OnClips = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Worlds:
    frames_NTCHW: Tensor  # uint8
    captions: tuple[str, ...]


def render_worlds(scale: Scale, first: int, count: int, on_clips: OnClips = lambda _done, _total: None) -> Worlds:
    """Worlds of one body with the seeds first, first + 1 ..."""
    config = WorldConfig(frames=scale.frames, height=scale.side, width=scale.side, fps=FPS)
    frames, captions = [], []
    for number in range(count):
        scene = draw_scene(first + number, config)
        frames.append(render_frames_THWC(scene, config))
        captions.append(describe(scene, config.duration_s))
        on_clips(number + 1, count)
    return Worlds(rearrange(torch.from_numpy(np.stack(frames)), "n t h w c -> n t c h w").contiguous(), tuple(captions))


def write_pack(worlds: Worlds, folder: Path) -> Pack:
    """Worlds as a pack that loaders read, without a codec in between; what is there is kept."""
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        frames_NTHWC = rearrange(worlds.frames_NTCHW, "n t c h w -> n t h w c").contiguous().numpy()
        frames_NTHWC.tofile(folder / "frames.u8")
        size = frames_NTHWC[0].nbytes
        items = [
            {"name": f"world{index}", "sha256": "", "offset": index * size, "frames": len(one), "kind": "video"}
            | {"height": one.shape[1], "width": one.shape[2], "fps": [FPS.numerator, FPS.denominator]}
            for index, one in enumerate(frames_NTHWC)
        ]
        partial = manifest.with_suffix(".part")
        partial.write_text(json.dumps({"format": FORMAT, "lines": frames_NTHWC.shape[2], "items": items}))
        os.replace(partial, manifest)
    return Pack.open(folder)


@torch.inference_mode()
def encode_many(tokenizer: VideoTokenizer, frames_NTCHW: Tensor) -> Tensor:
    """Ids [N, t, h, w], int64; frames and sides must be whole tokens of a causal tokenizer of one level."""
    network, step = tokenizer.model, tokenizer.config.time_factor
    assert isinstance(network, Autoencoder3D) and (frames_NTCHW.shape[1] - 1) % step == 0
    found = []
    for part_NTCHW in frames_NTCHW.split(AT_ONCE):
        pixels_NCTHW = rearrange(part_NTCHW, "n t c h w -> n c t h w").to(tokenizer.device).float() / 127.5 - 1.0
        cache, ids = StreamCache(), []
        with tokenizer.autocast():
            for block_NCTHW in pixels_NCTHW.split([1] + [step] * ((pixels_NCTHW.shape[2] - 1) // step), dim=2):
                ids.append(network.encode_ids(block_NCTHW, cache)[:, 0])
        found.append(torch.cat(ids, dim=1).cpu())
    return torch.cat(found)


@torch.inference_mode()
def decode_many(tokenizer: VideoTokenizer, ids_Nthw: Tensor) -> Tensor:
    """uint8 frames [N, T, C, H, W]."""
    network, found = tokenizer.model, []
    for part_Nthw in ids_Nthw.split(AT_ONCE):
        latents_NDthw = network.quantizer.latents_from_ids(part_Nthw[:, None].to(tokenizer.device))
        cache = StreamCache()
        with tokenizer.autocast():
            blocks = [network.decode(block_NDthw, cache).float() for block_NDthw in latents_NDthw.split(1, dim=2)]
        levels_NCTHW = ((torch.cat(blocks, dim=2) + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
        found.append(rearrange(levels_NCTHW, "n c t h w -> n t c h w").cpu())
    return torch.cat(found)


def pose_many(tokenizer: VideoTokenizer, frames_NTCHW: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """What tasks.base.pose makes of every clip: condition ids [N, t, h, w] and where they are exact [t, h, w]."""
    task, (_, total, _, height, width) = TASKS[name], frames_NTCHW.shape
    time, space, _ = tokenizer.pixels_per_token
    known_thw = task.region(1 + (total - 1) // time, height // space, width // space, 1)
    if not task.gives_pixels:
        return torch.full((len(frames_NTCHW), *known_thw.shape), HIDDEN), torch.zeros_like(known_thw)
    known_THW = task.region(total, height, width, 1)
    filled = [padded(Clip(frames_TCHW, FPS), known_THW, task.fill).frames_TCHW for frames_TCHW in frames_NTCHW]
    ids_Nthw = encode_many(tokenizer, torch.stack(filled))
    exact_thw = known_thw if task.fill == "repeat" else torch.zeros_like(known_thw)
    return torch.where(known_thw, ids_Nthw, HIDDEN), exact_thw


def drawn_clips(
    worlds: Worlds,
    tokenizer: VideoTokenizer,
    tasks: Sequence[str],
    words: tuple[str, ...],
    max_words: int,
    path: Path,
    on_clips: OnClips = lambda _done, _total: None,
) -> list[Drawn]:
    """Every world with the condition of every one of `tasks`, in tokens; drawn once and kept in a file.

    Raises:
        CheckpointError: the file is damaged.
    """
    if not path.is_file():
        parts: dict[str, list[Tensor]] = {name: [] for name in ("clean", *tasks)}
        for start in range(0, len(worlds.frames_NTCHW), AT_ONCE):
            part_NTCHW = worlds.frames_NTCHW[start : start + AT_ONCE]
            parts["clean"].append(encode_many(tokenizer, part_NTCHW))
            for name in tasks:
                parts[name].append(pose_many(tokenizer, part_NTCHW, name)[0])
            on_clips(start + len(part_NTCHW), len(worlds.frames_NTCHW))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.part")
        save_file({name: torch.cat(ids).to(torch.int32) for name, ids in parts.items()}, temporary)
        os.replace(temporary, path)
    try:
        tensors = load_file(path)
        said = [word_ids(caption if words else "", words, max_words) for caption in worlds.captions]
        return [
            Drawn(
                tensors["clean"][index],
                words_P,
                tuple((ENCODED_TASKS.index(name), tensors[name][index]) for name in tasks),
            )
            for index, words_P in enumerate(said)
        ]
    except (OSError, SafetensorError, KeyError, IndexError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); delete it to draw it anew") from error

"""Seeded batches of crops from packs: a batch is a function of (seed, step, packs) and of nothing else.

    slots (long videos several) --permutation per epoch--> item --crop, stride, scale, flip by (seed, sample)--> batch

Resuming therefore needs only the number of the step, and processes that split a batch between them see together what
one
process would have seen.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kinolex.data.packs import Pack, PackItem
from kinolex.errors import ConfigError, DataError

FRAMES_PER_SLOT = 64
"""An epoch draws from a video once per this many frames, so long videos count more, but not without bound."""

BYTES_PER_SLOT = 3 * 64 * 64
"""From an image once per this many bytes, so thumbnails do not crowd out photographs."""

MAX_SLOTS = 8

STILL_FRACTION = 0.4
"""Of the images that are shown for several frames; the camera glides over the others."""

RenderWorld = Callable[[int, int, int], np.ndarray]
"""(seed, frames, side) -> uint8 T H W C of a procedural world."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderConfig:
    clip_frames: int
    crop: int
    """Side of the square crops in pixels."""
    batch_video: int
    batch_image: int
    seed: int
    image_every: int = 1
    """Only every n-th batch has images: the first frame of a causal clip is an image already."""
    max_stride: int = 2
    """Frames are taken every 1..max_stride, so that slow and fast motion both occur."""
    half_scale: float = 0.25
    """Share of samples cut twice as large and halved, so that content occurs at two scales."""
    image_frames: int = 1
    """Images are shown for this many frames, still or panned over: motion whose truth no camera blurs."""
    world_fraction: float = 0.0
    """Share of the video samples that are procedural worlds instead."""

    def __post_init__(self) -> None:
        counts = min(self.clip_frames, self.image_every, self.image_frames)
        if counts < 1 or self.crop < 8 or self.batch_video + self.batch_image < 1:
            raise ConfigError(
                f"need clip_frames, image_every, image_frames >= 1, crop >= 8 and a batch of at least one, got {self}"
            )
        if self.image_every > 1 and not self.batch_video:
            raise ConfigError(f"image_every={self.image_every} leaves batches empty when there is no video in them")


@dataclass(frozen=True, slots=True)
class Batch:
    step: int
    video_BCTHW: Tensor | None  # uint8
    images_BCTHW: Tensor | None  # uint8, T = 1


class Loader:
    """Draws from packs.

    Args:
        packs: video items give clips; image items (and frames of videos when there are no images) give images.
        rank, world_size: this process's share of every batch.
        render_world: needed when config.world_fraction is positive.

    Raises:
        DataError: no item is long enough for clip_frames.
    """

    def __init__(
        self,
        packs: Sequence[Pack],
        config: LoaderConfig,
        *,
        rank: int = 0,
        world_size: int = 1,
        render_world: RenderWorld | None = None,
    ) -> None:
        if config.world_fraction > 0 and render_world is None:
            raise ConfigError("world_fraction is positive but no render_world function was given")
        self.packs, self.config, self.rank, self.world_size = packs, config, rank, world_size
        self.render_world = render_world
        everything = [(pack, index) for pack in packs for index in range(len(pack))]
        self.video_slots = [
            ref
            for ref in everything
            if ref[0].items[ref[1]].frames >= config.clip_frames > 1
            for _ in range(min(MAX_SLOTS, -(-ref[0].items[ref[1]].frames // FRAMES_PER_SLOT)))
        ]
        self.image_slots = [
            ref
            for ref in everything
            if ref[0].items[ref[1]].frames == 1
            for _ in range(min(MAX_SLOTS, -(-ref[0].items[ref[1]].num_bytes // BYTES_PER_SLOT)))
        ] or everything
        if config.batch_video and not self.video_slots and config.world_fraction < 1:
            raise DataError(
                f"no video in the packs has {config.clip_frames} frames; pack longer videos or lower clip_frames"
            )
        if config.batch_image and not self.image_slots:
            raise DataError("the packs are empty; build them with `kinolex data pack`")
        self._orders: dict[tuple[str, int], np.ndarray] = {}

    def batch(self, step: int) -> Batch:
        config = self.config
        video = self._draw("video", step, config.batch_video, config.clip_frames, self.video_slots)
        with_images = step % config.image_every == 0
        images = (
            self._draw("image", step, config.batch_image, config.image_frames, self.image_slots)
            if with_images
            else None
        )
        return Batch(step, video, images)

    def iterate(self, start_step: int, *, ahead: int = 3) -> Iterator[Batch]:
        """Batches from start_step on for ever, prepared by a thread; close the iterator to stop it."""
        ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=ahead)
        stop = threading.Event()

        def fill() -> None:
            # A second team of OpenMP threads makes libgomp sleep between parallel regions where it would spin, and
            # every step of the trainer a quarter slower.
            torch.set_num_threads(1)
            step = start_step
            while not stop.is_set():
                try:
                    item: Batch | BaseException = self.batch(step)
                except BaseException as error:  # handed to the consumer, which raises it
                    item = error
                while not stop.is_set():
                    try:
                        ready.put(item, timeout=0.2)
                        break
                    except queue.Full:
                        continue
                step += 1

        thread = threading.Thread(target=fill, name="kinolex-loader", daemon=True)
        thread.start()
        try:
            while True:
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()

    def _draw(self, kind: str, step: int, batch: int, frames: int, slots: list[tuple[Pack, int]]) -> Tensor | None:
        if not batch:
            return None
        samples = [
            self._sample(kind, step * batch + position, frames, slots)[0]
            for position in range(self.rank, batch, self.world_size)
        ]
        if not samples:
            return None
        return torch.from_numpy(np.stack(samples)).permute(0, 4, 1, 2, 3)

    def clip(self, number: int) -> tuple[np.ndarray, PackItem | None]:
        """The video sample with this number, T H W C, and the pack item it was cut from; None of a world."""
        return self._sample("video", number, self.config.clip_frames, self.video_slots)

    def _sample(
        self, kind: str, number: int, frames: int, slots: list[tuple[Pack, int]]
    ) -> tuple[np.ndarray, PackItem | None]:
        rng = np.random.default_rng([self.config.seed, len(kind), number])
        if kind == "video" and rng.random() < self.config.world_fraction:
            assert self.render_world is not None
            return self.render_world(int(rng.integers(2**31)), frames, self.config.crop), None
        order = self._order(kind, number // len(slots), len(slots))
        pack, index = slots[order[number % len(slots)]]
        source_THWC = pack.frames_THWC(index)
        if kind == "image" and frames > 1 and rng.random() >= STILL_FRACTION:
            return _panned(source_THWC[0], frames, self.config.crop, rng), pack.items[index]
        return self._crop(source_THWC, frames, rng), pack.items[index]

    def _order(self, kind: str, epoch: int, size: int) -> np.ndarray:
        key = (kind, epoch)
        if key not in self._orders:
            self._orders = {old: order for old, order in self._orders.items() if old[0] != kind}
            self._orders[key] = np.random.default_rng([self.config.seed, len(kind), epoch, 7]).permutation(size)
        return self._orders[key]

    def _crop(self, frames_THWC: np.ndarray, frames: int, rng: np.random.Generator) -> np.ndarray:
        side, (total, height, width) = self.config.crop, frames_THWC.shape[:3]
        if total == 1:
            frames_THWC, total = np.repeat(frames_THWC, frames, axis=0), frames
        longest = (total - 1) // (frames - 1) if frames > 1 else 1
        stride = int(rng.integers(1, min(self.config.max_stride, longest) + 1))
        start = int(rng.integers(0, total - stride * (frames - 1)))
        cut = side * 2 if rng.random() < self.config.half_scale and min(height, width) >= side * 2 else side
        top = int(rng.integers(0, max(0, height - cut) + 1))
        left = int(rng.integers(0, max(0, width - cut) + 1))
        piece_THWC = frames_THWC[start : start + stride * (frames - 1) + 1 : stride, top : top + cut, left : left + cut]
        if rng.random() < 0.5:
            piece_THWC = piece_THWC[:, :, ::-1]
        if piece_THWC.shape[1:3] == (side, side):
            return np.ascontiguousarray(piece_THWC)
        return _resized(piece_THWC, side)


def _panned(image_HWC: np.ndarray, frames: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """A camera that glides straight over an image, slowly turning and zooming; beyond the border the image mirrors."""
    image_1CHW = torch.from_numpy(image_HWC.copy()).permute(2, 0, 1)[None].float()
    height, width = image_HWC.shape[:2]
    time_T = torch.arange(frames) - (frames - 1) / 2
    speed, heading = rng.exponential(1.5), rng.uniform(0, 2 * np.pi)
    scale_T = float(rng.uniform(0.7, 1.4)) * torch.exp(float(rng.normal(0, 0.004)) * time_T)
    angle_T = float(rng.normal(0, 0.01)) * time_T
    centre_x, centre_y = (rng.uniform(0.25, 0.75) * size for size in (width, height))
    x_T = centre_x + speed * np.cos(heading) * time_T
    y_T = centre_y + speed * np.sin(heading) * time_T
    offsets = torch.arange(side) - (side - 1) / 2
    cos_T11, sin_T11 = ((scale_T * f(angle_T))[:, None, None] for f in (torch.cos, torch.sin))
    columns_THW = x_T[:, None, None] + cos_T11 * offsets[None, None, :] - sin_T11 * offsets[None, :, None]
    rows_THW = y_T[:, None, None] + sin_T11 * offsets[None, None, :] + cos_T11 * offsets[None, :, None]
    grid_THW2 = torch.stack([(2 * columns_THW + 1) / width - 1, (2 * rows_THW + 1) / height - 1], dim=-1).float()
    looked = image_1CHW.expand(frames, -1, -1, -1)
    moved_TCHW = F.grid_sample(looked, grid_THW2, padding_mode="reflection", align_corners=False)
    return moved_TCHW.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def _resized(frames_THWC: np.ndarray, side: int) -> np.ndarray:
    """Halve a cut of twice the side, or enlarge a source smaller than the crop, keeping its proportions by cropping."""
    frames_TCHW = torch.from_numpy(frames_THWC.copy()).permute(0, 3, 1, 2).float()
    height, width = frames_TCHW.shape[2:]
    if height >= 2 * side and width >= 2 * side:
        frames_TCHW = F.avg_pool2d(frames_TCHW, 2)
    else:
        scale = max(side / height, side / width, 1.0)
        size = (max(side, round(height * scale)), max(side, round(width * scale)))
        frames_TCHW = F.interpolate(frames_TCHW, size=size, mode="bilinear", align_corners=False)
    cropped_TCHW = frames_TCHW[:, :, :side, :side]
    return cropped_TCHW.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()

from __future__ import annotations

import threading
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from kinolex.data.index import Entry
from kinolex.data.loader import Loader, LoaderConfig, _panned
from kinolex.data.packs import Pack
from kinolex.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Six videos whose every pixel is the video's number, of several lengths, and five images of small sizes."""
    import json

    folder = tmp_path_factory.mktemp("pack")
    items, blobs, offset = [], [], 0
    sizes = [(20, 40, 40), (30, 36, 64), (200, 40, 40), (17, 80, 80), (5, 40, 40), (18, 33, 47)]
    sizes += [(1, 12, 20), (1, 64, 64), (1, 40, 30), (1, 8, 8), (1, 90, 90)]
    for number, shape in enumerate(sizes):
        array = np.full((*shape, 3), number, np.uint8)
        array[..., 1] = np.arange(shape[0])[:, None, None]  # the second channel counts frames
        blobs.append(array.tobytes())
        kind = "image" if shape[0] == 1 else "video"
        size = {"frames": shape[0], "height": shape[1], "width": shape[2]}
        items.append({"name": str(number), "sha256": "", "offset": offset, "fps": [25, 1], "kind": kind, **size})
        offset += array.nbytes
    (folder / "frames.u8").write_bytes(b"".join(blobs))
    (folder / "manifest.json").write_text(json.dumps({"format": "kinolex-pack-1", "items": items, "lines": 128}))
    return Pack.open(folder)


def loader(pack: Pack, **changes: object) -> Loader:
    settings: dict[str, object] = {"clip_frames": 17, "crop": 32, "batch_video": 4, "batch_image": 2, "seed": 3}
    others = {key: changes.pop(key) for key in ("rank", "world_size", "render_world") if key in changes}
    return Loader([pack], LoaderConfig(**(settings | changes)), **others)  # type: ignore[arg-type]


def test_a_batch_is_a_function_of_seed_and_step(pack: Pack) -> None:
    first, second = loader(pack), loader(pack)
    for step in (5, 0, 31, 5):
        a, b = first.batch(step), second.batch(step)
        assert torch.equal(a.video_BCTHW, b.video_BCTHW) and torch.equal(a.images_BCTHW, b.images_BCTHW)
    assert not torch.equal(first.batch(0).video_BCTHW, loader(pack, seed=4).batch(0).video_BCTHW)


def test_resuming_in_the_middle_of_an_epoch_continues_the_same_stream(pack: Pack) -> None:
    straight = [batch.video_BCTHW for batch in islice(loader(pack).iterate(0), 6)]
    resumed = [batch.video_BCTHW for batch in islice(loader(pack).iterate(3), 3)]
    assert all(torch.equal(a, b) for a, b in zip(straight[3:], resumed, strict=True))


def test_ranks_see_disjoint_parts_of_the_batch_that_one_process_sees(pack: Pack) -> None:
    whole = loader(pack).batch(7).video_BCTHW
    parts = [loader(pack, rank=rank, world_size=2).batch(7).video_BCTHW for rank in (0, 1)]
    assert torch.equal(whole[0::2], parts[0]) and torch.equal(whole[1::2], parts[1])


def test_an_epoch_visits_every_long_enough_video_once_per_slot(pack: Pack) -> None:
    one = loader(pack, batch_video=1, batch_image=0, half_scale=0.0)
    slots = len(one.video_slots)
    visits = Counter(int(one.batch(step).video_BCTHW[0, 0, 0, 0, 0]) for step in range(slots))
    assert visits == {0: 1, 1: 1, 2: 4, 3: 1, 5: 1}  # 200 frames are four slots; number 4 is too short


def test_clips_keep_a_constant_stride_of_one_or_two(pack: Pack) -> None:
    strides = set()
    long = loader(pack, batch_video=8, batch_image=0)
    for step in range(10):
        times_BT = long.batch(step).video_BCTHW[:, 1, :, 0, 0].long()
        for steps_T in times_BT.diff(dim=1):
            assert len(set(steps_T.tolist())) == 1
            strides.add(int(steps_T[0]))
    assert strides == {1, 2}


def test_images_of_any_size_become_crops(pack: Pack) -> None:
    images = [loader(pack, batch_image=5).batch(step).images_BCTHW for step in range(5)]
    assert all(batch.shape == (5, 3, 1, 32, 32) and batch.dtype == torch.uint8 for batch in images)
    assert {int(number) for batch in images for number in batch[:, 0, 0, 0, 0]} == {6, 7, 8, 9, 10}


def test_worlds_are_mixed_in_at_the_asked_share(pack: Pack) -> None:
    def world(seed: int, frames: int, side: int) -> np.ndarray:
        return np.full((frames, side, side, 3), 255, np.uint8)

    mixed = loader(pack, batch_video=8, world_fraction=0.5, render_world=world)
    first_pixels = torch.cat([mixed.batch(step).video_BCTHW[:, 0, 0, 0, 0] for step in range(40)])
    assert 0.4 < float((first_pixels == 255).float().mean()) < 0.6


def test_closing_the_iterator_stops_its_thread_and_errors_reach_the_consumer(pack: Pack) -> None:
    batches = loader(pack).iterate(0)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "kinolex-loader"]

    def broken(seed: int, frames: int, side: int) -> np.ndarray:
        raise DataError("the world is broken")

    with pytest.raises(DataError, match="the world is broken"):
        next(loader(pack, world_fraction=1.0, render_world=broken).iterate(0))


def test_impossible_settings_are_refused(pack: Pack) -> None:
    with pytest.raises(DataError, match="500 frames"):
        loader(pack, clip_frames=500)
    with pytest.raises(ConfigError, match="render_world"):
        loader(pack, world_fraction=0.5)
    with pytest.raises(ConfigError):
        loader(pack, crop=1)
    assert Entry(name="x", path=Path("x"), kind="image").label is None


def test_images_can_join_every_nth_batch_only(pack: Pack) -> None:
    rare, always = loader(pack, image_every=3), loader(pack)
    for step in range(7):
        batch = rare.batch(step)
        assert torch.equal(batch.video_BCTHW, always.batch(step).video_BCTHW)
        assert (batch.images_BCTHW is not None) == (step % 3 == 0)
    assert torch.equal(rare.batch(3).images_BCTHW, always.batch(3).images_BCTHW)
    with pytest.raises(ConfigError, match="leaves batches empty"):
        loader(pack, image_every=3, batch_video=0)


def test_images_can_be_shown_for_several_frames_still_or_panned_over() -> None:
    image_HWC = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    clip_THWC = _panned(image_HWC, 9, 32, np.random.default_rng(1))
    assert clip_THWC.shape == (9, 32, 32, 3) and clip_THWC.dtype == np.uint8
    changes = [int((a.astype(int) != b).sum()) for a, b in pairwise(clip_THWC)]
    assert min(changes) > 1000
    assert np.array_equal(clip_THWC, _panned(image_HWC, 9, 32, np.random.default_rng(1)))

    grey = np.full((40, 40, 3), 77, np.uint8)
    assert set(np.unique(_panned(grey, 5, 64, np.random.default_rng(0)))) == {77}


def test_image_frames_makes_clips_of_images(pack: Pack) -> None:
    batch = loader(pack, image_frames=5, batch_image=12).batch(0)
    assert batch.images_BCTHW is not None and batch.images_BCTHW.shape == (12, 3, 5, 32, 32)
    still = [bool((clip_CTHW == clip_CTHW[:, :1]).all()) for clip_CTHW in batch.images_BCTHW]
    assert any(still)
    assert torch.equal(batch.images_BCTHW, loader(pack, image_frames=5, batch_image=12).batch(0).images_BCTHW)


def test_image_frames_must_be_positive(pack: Pack) -> None:
    with pytest.raises(ConfigError):
        loader(pack, image_frames=0)

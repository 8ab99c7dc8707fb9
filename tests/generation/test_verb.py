"""From a file and a wish to a file, for every task, on random weights."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from kinolex import checkpoint, hub
from kinolex.errors import CheckpointError, ConfigError, KinolexError, MediaError, ShapeError, UnknownModel, UsageError
from kinolex.generation import GenerateConfig, MaskedGenerator, Wish, compose, generate, load_generator
from kinolex.generation.pixels import FEATHER, GREY, enlarged, put_back, read_mask
from kinolex.media import read, write
from kinolex.models.masked import MaskedTransformer
from kinolex.sampling.parallel import ParallelConfig
from kinolex.tasks.video import FREE_FORM, TASKS
from kinolex.types import Clip, Sound

FAST = GenerateConfig(sampling=ParallelConfig(steps=2))
FPS = Fraction(25)


def noise(frames: int, height: int, width: int, *, sound: bool = False) -> Clip:
    generator = torch.Generator().manual_seed(0)
    frames_TCHW = torch.randint(0, 256, (frames, 3, height, width), generator=generator, dtype=torch.uint8)
    samples = round(frames / FPS * 16_000)
    tone = Sound(0.5 * torch.sin(torch.arange(samples) / 5)[None], 16_000) if sound else None
    return Clip(frames_TCHW, FPS, tone)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Eleven frames of 40x32 with sound."""
    write(noise(11, 32, 40, sound=True), tmp_path / "in.mp4")
    return tmp_path / "in.mp4"


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    """White, to be made, on the right."""
    white_TCHW = torch.zeros(1, 3, 32, 40, dtype=torch.uint8)
    white_TCHW[..., 16:] = 255
    write(Clip(white_TCHW, FPS), tmp_path / "mask.png")
    return tmp_path / "mask.png"


@pytest.mark.parametrize("task", [*TASKS, FREE_FORM])
def test_every_task_makes_a_video_of_a_file_and_keeps_its_sound(
    task: str, video: Path, mask: Path, tiny_generator: MaskedGenerator
) -> None:
    target, told = video.with_name("out.mp4"), []
    wish = Wish(task=task, mask=mask if task == FREE_FORM else None, text="red" if task.startswith("class") else "")

    report = generate(
        video, target, tiny_generator, wish, FAST, on_frames=lambda done, total: told.append((done, total))
    )

    made = read(target)
    frames = {"frame-prediction": 9 + 16, "class-prediction": 9 + 16, "frame-interpolation": 9}.get(task, 11)
    assert made.frames_TCHW.shape == (frames, 3, 32, 40) and made.fps == FPS
    assert (report.frames, report.height, report.width, report.task) == (frames, 32, 40, task)
    assert report.frames_given == (9 if task.endswith("prediction") else 0)
    assert report.frames_left_out == (2 if task.endswith("prediction") else 0)
    assert made.sound is not None and abs(made.sound.duration_s - min(frames, 11) / 25) < 0.08
    assert told[-1] == (frames, frames) and report.passes >= 2
    assert set(report.as_dict()) >= {"seed", "seconds", "frames_per_second", "target"}


def test_the_same_seed_makes_the_same_picture(tmp_path: Path, tiny_generator: MaskedGenerator) -> None:
    write(noise(1, 32, 40), tmp_path / "in.png")  # without loss, so that pixels can be compared
    made = []
    for name, seed in (("a.png", 5), ("b.png", 5), ("c.png", 6)):
        target = tmp_path / name
        generate(tmp_path / "in.png", target, tiny_generator, Wish(task="inpaint-central"), replace(FAST, seed=seed))
        made.append(read(target).frames_TCHW)
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


@pytest.mark.parametrize(("given", "kept"), [(1, 1), (4, 1), (5, 5), (8, 5), (99, 9)])
def test_prediction_goes_on_from_whole_latent_frames(given: int, kept: int, tiny_generator: MaskedGenerator) -> None:
    clip = noise(11, 32, 40)
    wish = Wish(task="frame-prediction", given=given, frames=30)
    composition = compose(clip, wish, tiny_generator)
    latents = 1 + (kept - 1) // 4
    own_thw = tiny_generator.tokenizer.encode(clip).ids_Qthw[0, :latents]
    made = tiny_generator.generate(composition.posed, FAST)
    assert torch.equal(made.ids_Qthw[0, :latents], own_thw) and made.extent.frames == 30
    assert composition.known_THW is not None and len(composition.known_THW) == kept


def test_an_image_becomes_a_larger_image_with_its_own_pixels_in_the_middle(
    tmp_path: Path, tiny_generator: MaskedGenerator
) -> None:
    clip = noise(1, 64, 64)
    write(clip, tmp_path / "in.png")
    targets = [tmp_path / name for name in ("plain.png", "back.png")]
    for target, back in zip(targets, (False, True), strict=True):
        wish = Wish(task="outpaint-central", grow=True, put_back=back)
        report = generate(tmp_path / "in.png", target, tiny_generator, wish, FAST)
        assert (report.frames, report.height, report.width) == (1, 128, 128)
    plain_CHW, back_CHW = (read(target).frames_TCHW[0] for target in targets)
    inside = slice(32 + FEATHER, 96 - FEATHER)
    assert torch.equal(back_CHW[:, inside, inside], clip.frames_TCHW[0, :, FEATHER:-FEATHER, FEATHER:-FEATHER])
    assert not torch.equal(plain_CHW[:, inside, inside], back_CHW[:, inside, inside])
    outside_HW = torch.ones(128, 128, dtype=torch.bool)
    outside_HW[32:96, 32:96] = False
    assert torch.equal(back_CHW[:, outside_HW], plain_CHW[:, outside_HW])


def test_given_frames_are_put_back_exactly(tmp_path: Path, tiny_generator: MaskedGenerator) -> None:
    write(noise(1, 32, 32), tmp_path / "in.png")
    wish = Wish(task="frame-prediction", put_back=True, frames=4)
    generate(tmp_path / "in.png", tmp_path / "out.gif", tiny_generator, replace(wish, fps=Fraction(10)), FAST)
    assert read(tmp_path / "out.gif").num_frames == 4
    # Losslessly, frame by frame, as the verb streams them.
    from kinolex.generation.verb import _made

    composition = compose(read(tmp_path / "in.png"), wish, tiny_generator)
    for back in (True, False):
        clips = _made(composition, tiny_generator, replace(wish, put_back=back), FAST, lambda *_: None)
        first_CHW = torch.cat([clip.frames_TCHW for clip in clips])[0]
        assert torch.equal(first_CHW, noise(1, 32, 32).frames_TCHW[0]) == back


def test_a_class_is_made_of_nothing_in_any_size(tmp_path: Path, tiny_generator: MaskedGenerator) -> None:
    wish = Wish(task="class", text="a red ball", size=(24, 160), frames=1)
    assert generate(None, tmp_path / "out.png", tiny_generator, wish, FAST).frames == 1
    assert read(tmp_path / "out.png").frames_TCHW.shape == (1, 3, 24, 160)
    # The lines that sources are scaled to say nothing of a size that was asked for.
    large = compose(None, replace(wish, size=(136, 144), frames=None), tiny_generator)
    assert (large.clip.num_frames, large.clip.height, large.clip.width) == (9, 136, 144)


def test_nothing_given_takes_no_memory_for_its_pixels(tiny_generator: MaskedGenerator) -> None:
    made = compose(None, Wish(task="class", size=(20, 4000), frames=99_998), tiny_generator)  # 24 GB of pixels
    assert made.posed.condition_thw.shape == (25_001, 3, 500) and made.clip.num_frames == 99_998


def test_one_frame_of_a_video_keeps_its_rate_and_an_image_takes_the_one_asked_for(
    tiny_generator: MaskedGenerator,
) -> None:
    wish = Wish(task="inpaint-central", fps=Fraction(10))
    for source, fps in ((noise(1, 32, 40), FPS), (Clip(noise(1, 32, 40).frames_TCHW, Fraction(1)), Fraction(10))):
        assert compose(source, wish, tiny_generator).clip.fps == fps


def test_sources_are_scaled_to_the_lines_asked_for_or_trained_on(tiny_generator: MaskedGenerator) -> None:
    for lines, size in ((16, (16, 20)), (None, (32, 40)), (128, (32, 40))):
        composition = compose(noise(3, 32, 40), Wish(task="inpaint-central", lines=lines), tiny_generator)
        assert (composition.clip.height, composition.clip.width) == size
    network = MaskedTransformer(replace(tiny_generator.config, lines=24))
    small = MaskedGenerator(network, tiny_generator.tokenizer, "")
    scaled, made = (
        compose(noise(3, 32, 40), Wish(task="inpaint-central"), small),
        compose(None, Wish(task="class"), small),
    )
    assert (scaled.clip.height, scaled.clip.width, made.clip.height, made.clip.width) == (24, 30, 24, 24)


def test_a_shorter_result_has_shorter_sound(tiny_generator: MaskedGenerator) -> None:
    for wish, frames in ((Wish(task="outpaint-dynamic", frames=5), 5), (Wish(task="frame-interpolation"), 9)):
        clip = compose(noise(20, 32, 40, sound=True), wish, tiny_generator).clip
        assert clip.num_frames == frames
        assert clip.sound is not None and clip.sound.duration_s == pytest.approx(frames / 25, abs=1e-3)


def test_known_pixels_come_back_with_a_soft_seam() -> None:
    made_TCHW = torch.full((2, 3, 40, 60), 50, dtype=torch.uint8)
    original_TCHW = torch.full((2, 3, 40, 60), 200, dtype=torch.uint8)
    known_THW = torch.zeros(2, 40, 60, dtype=torch.bool)
    known_THW[..., :30] = True
    mixed_TCHW = put_back(made_TCHW, original_TCHW, known_THW)
    assert bool((mixed_TCHW[..., : 30 - FEATHER] == 200).all()) and bool((mixed_TCHW[..., 30:] == 50).all())
    steps = mixed_TCHW.int().diff(dim=-1)
    # 150 levels over FEATHER columns, and the seam itself no larger than any other step.
    assert int(steps.max()) <= 0 and -int(steps.min()) <= 150 / FEATHER + 1
    assert torch.equal(put_back(made_TCHW, original_TCHW, torch.ones_like(known_THW)), original_TCHW)
    assert torch.equal(put_back(made_TCHW, original_TCHW, torch.zeros_like(known_THW)), made_TCHW)


@pytest.mark.parametrize("task", ["outpaint-central", "outpaint-vertical", "outpaint-horizontal"])
@pytest.mark.parametrize("size", [(16, 24), (13, 18), (21, 7)])
def test_a_clip_lies_on_its_canvas_where_the_task_gives_pixels(task: str, size: tuple[int, int]) -> None:
    clip = noise(2, *size, sound=True)
    canvas = enlarged(clip, task)
    known_HW = TASKS[task].region(2, canvas.height, canvas.width, 1)[0]
    assert torch.equal(canvas.frames_TCHW[..., known_HW], clip.frames_TCHW.flatten(2))
    assert int(canvas.frames_TCHW[..., ~known_HW].sum()) == 0 and canvas.sound is clip.sound
    with pytest.raises(UsageError, match="can grow the picture, not inpaint-central"):
        enlarged(clip, "inpaint-central")


def test_a_mask_leaves_known_what_is_black(mask: Path) -> None:
    known_THW = read_mask(mask, 3, 32, 40)
    assert known_THW.shape == (3, 32, 40) and known_THW.dtype == torch.bool
    assert bool(known_THW[..., :16].all()) and not bool(known_THW[..., 16:].any())
    assert torch.equal(read_mask(mask, 1, 16, 20)[0, :, 8:], torch.zeros(16, 12, dtype=torch.bool))
    moving_TCHW = torch.zeros(5, 3, 32, 40, dtype=torch.uint8)
    for frame in range(5):
        moving_TCHW[frame, :, :, 8 * frame : 8 * frame + 8] = 255
    write(Clip(moving_TCHW, FPS), mask.with_name("mask.mp4"))
    assert torch.equal(read_mask(mask.with_name("mask.mp4"), 4, 32, 40), moving_TCHW[:4, 0] < 128)
    with pytest.raises(ShapeError, match="has 5 frames for a clip of 6"):
        read_mask(mask.with_name("mask.mp4"), 6, 32, 40)
    with pytest.raises(ShapeError, match="40x32, which does not have the proportions of a clip of 32x32"):
        read_mask(mask, 3, 32, 32)


def test_a_growth_picture_has_a_row_for_each_pass_and_is_grey_where_nothing_is_settled(
    video: Path, tiny_generator: MaskedGenerator
) -> None:
    growth = video.with_name("growth.png")
    config = GenerateConfig(sampling=ParallelConfig(steps=4))
    wish = Wish(task="outpaint-vertical")
    generate(video, video.with_name("out.mp4"), tiny_generator, wish, config, growth=growth)
    picture = read(growth)
    assert (picture.num_frames, picture.height, picture.width) == (1, 4 * 32, 3 * 40)
    rows = picture.frames_TCHW[0].unfold(1, 32, 32)  # C, pass, W, 32 lines
    grey = [float((rows[:, index] == GREY).all(dim=0).float().mean()) for index in range(4)]
    assert grey[0] > 0.5 and grey == sorted(grey, reverse=True) and grey[-1] < 0.05


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (
            {"task": "inpaint-central", "frames": 12},
            "the 11 frames of its source, but 12 are wanted; ask for 11 at most$",
        ),
        ({"task": "class", "frames": 12}, "12 are wanted; ask for 11 at most, or leave out --from"),
        ({"task": "frame-prediction", "given": 8, "frames": 5}, r"5 frames \(of 8: 1 and whole steps of 4 count\) are"),
        ({"task": "outpaint-vertical", "panorama": 10**8}, "16384 is the limit; ask for 510 steps at most"),
        ({"task": "frame-prediction", "given": 9, "frames": 9}, "9 frames are given and 9 wanted"),
        ({"task": "class", "text": "a green ball"}, "does not know 'green'"),
        ({"task": "inpaint-central", "grow": True}, "can grow the picture"),
    ],
)
def test_a_wish_that_cannot_be_granted_leaves_no_file(
    wish: dict[str, object], message: str, video: Path, tiny_generator: MaskedGenerator
) -> None:
    with pytest.raises(UsageError, match=message):
        generate(video, video.with_name("out.mp4"), tiny_generator, Wish(**wish), FAST)  # type: ignore[arg-type]
    assert [path.name for path in video.parent.iterdir()] == ["in.mp4"]


def test_an_error_on_the_way_leaves_no_partial_target(video: Path, tiny_generator: MaskedGenerator) -> None:
    def fails(done: int, total: int | None) -> None:
        if done > 5:
            raise KeyboardInterrupt

    wish, before = Wish(task="inpaint-central"), video.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        generate(video, video.with_name("out.mp4"), tiny_generator, wish, FAST, on_frames=fails)
    for target, growth in (("out.txt", None), ("out.png", None), ("out.mp4", "growth.txt"), ("nowhere/out.mp4", None)):
        path = None if growth is None else video.with_name(growth)
        with pytest.raises(KinolexError):
            generate(video, video.parent / target, tiny_generator, wish, FAST, growth=path)
    with pytest.raises(UsageError, match="would be overwritten"):
        generate(video, video, tiny_generator, wish, FAST)
    assert [path.name for path in video.parent.iterdir()] == ["in.mp4"] and video.read_bytes() == before


@pytest.mark.parametrize(
    ("target", "growth", "message"),
    [
        ("out.png", None, r"can hold one frame only, and 11 are made; name a video, such as out\.mp4"),
        ("out.wav", None, r"name a video, such as out\.mp4"),
        ("out.mp4", "nowhere/growth.png", "there is no folder"),
        ("out.mp4", "growth.mp4", "growth is an image"),
    ],
)
@pytest.mark.parametrize("panorama", [None, 1])
def test_targets_that_cannot_be_written_are_told_before_the_first_token(
    target: str,
    growth: str | None,
    message: str,
    panorama: int | None,
    video: Path,
    tiny_generator: MaskedGenerator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiny_generator, "_fill", lambda *_: pytest.fail("a token was made"))
    path, wish = None if growth is None else video.parent / growth, Wish(task="outpaint-vertical", panorama=panorama)
    with pytest.raises(KinolexError, match=message):
        generate(video, video.parent / target, tiny_generator, wish, FAST, growth=path)


def test_a_folder_in_which_nothing_can_be_written_is_told_before_the_first_token(
    video: Path, tiny_generator: MaskedGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("kinolex.media.opening.tempfile.TemporaryFile", refuses)
    monkeypatch.setattr(tiny_generator, "_fill", lambda *_: pytest.fail("a token was made"))
    with pytest.raises(MediaError, match=r"cannot write in .* \(Permission denied\); choose another folder"):
        generate(video, video.with_name("out.mp4"), tiny_generator, Wish(task="inpaint-central"), FAST)


def test_a_gif_that_cannot_be_as_fast_is_told_before_the_first_token(
    tmp_path: Path, tiny_generator: MaskedGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(Clip(noise(5, 32, 40).frames_TCHW, Fraction(60)), tmp_path / "in.mp4")
    monkeypatch.setattr(tiny_generator, "_fill", lambda *_: pytest.fail("a token was made"))
    with pytest.raises(KinolexError, match="GIF holds at most 50 frames per second, and 60 are made"):
        generate(tmp_path / "in.mp4", tmp_path / "out.gif", tiny_generator, Wish(task="inpaint-central"), FAST)


def test_a_mask_is_not_overwritten(video: Path, mask: Path, tiny_generator: MaskedGenerator) -> None:
    before = mask.read_bytes()
    with pytest.raises(UsageError, match="would be overwritten"):
        generate(video, mask, tiny_generator, Wish(task=FREE_FORM, mask=mask, frames=1), FAST)
    assert mask.read_bytes() == before


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": "dream"}, "no task 'dream'"),
        ({"task": "inpaint-central", "text": "red"}, "takes no class or caption"),
        ({"task": "inpaint-central", "mask": Path("m.png")}, "a mask belongs to the task free-form"),
        ({"task": FREE_FORM}, "that task needs one"),
        ({"task": "class", "frames": 0}, "frames must be 1 or more, got 0"),
        ({"task": "frame-prediction", "given": 0}, "given must be 1 or more, got 0"),
        ({"task": "outpaint-central", "given": 3}, "given is for frame-prediction and class-prediction, not"),
        ({"task": "class", "lines": 0}, "lines must be 1 or more"),
        ({"task": "class", "size": (10**5, 10**5)}, "4096 rows and columns at most, and 100000 by 100000 are wanted"),
        ({"task": "class", "frames": 10**14}, "1,000,000 frames at most, and 100,000,000,000,000 are wanted"),
        ({"task": "class", "size": (8, 128)}, "at least 16 rows and columns"),
        ({"task": "class", "fps": Fraction(0)}, "fps must be positive"),
    ],
)
def test_wishes_that_mean_nothing_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Wish(**values)  # type: ignore[arg-type]


def test_most_tasks_need_a_source(tiny_generator: MaskedGenerator, mask: Path) -> None:
    for task in (*TASKS, FREE_FORM):
        wish = Wish(task=task, mask=mask if task == FREE_FORM else None)
        if task == "class":
            assert compose(None, wish, tiny_generator).known_THW is None
            continue
        with pytest.raises(UsageError, match="needs a video or image to start from"):
            compose(None, wish, tiny_generator)


def test_a_generator_is_loaded_with_the_tokenizer_it_was_trained_with(
    tmp_path: Path, tiny_generator: MaskedGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    digest = checkpoint.save(tmp_path / "tokenizer", tiny_generator.tokenizer.model, card="")
    config = replace(tiny_generator.config, tokenizer=digest)
    checkpoint.save(tmp_path / "generator", MaskedTransformer(config), card="", dtype=torch.int8)
    with pytest.raises(UnknownModel, match="no shipped model has fingerprint"):
        load_generator(tmp_path / "generator")
    loaded = load_generator(tmp_path / "generator", tmp_path / "tokenizer")
    assert loaded.tokenizer.fingerprint == digest and loaded.config == config
    monkeypatch.setattr(hub, "PRETRAINED", tmp_path)
    assert load_generator("generator").fingerprint == loaded.fingerprint
    with pytest.raises(CheckpointError, match="is no generator"):
        load_generator(tmp_path / "tokenizer")
    checkpoint.save(tmp_path / "generator", MaskedTransformer(tiny_generator.config), card="")
    with pytest.raises(ConfigError, match="knows the ids of tokenizer ffffffffffff"):
        load_generator(tmp_path / "generator", tmp_path / "tokenizer")

"""kill -9 at any time, resume, and the weights are those of the run that nobody disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from kinolex.data.index import scan
from kinolex.data.packs import Pack, build_pack
from kinolex.errors import CheckpointError
from kinolex.media import write
from kinolex.tokenizers.autoencoder3d import AutoencoderConfig
from kinolex.tokenizers.quantizers import FSQConfig, VQConfig
from kinolex.tokenizers.recurrent import RecurrentConfig
from kinolex.training.config import DiscriminatorConfig, LossWeights, OptimizerConfig, StageConfig, TrainConfig
from kinolex.training.engine import Trainer
from kinolex.training.loop import Taken
from kinolex.types import Clip

MODEL = AutoencoderConfig(
    channels=(8, 8),
    down=((2, 2),),
    encoder_blocks=(1, 1),
    decoder_blocks=(1, 1),
    middle_blocks=1,
    quantizer=VQConfig(codebook_size=16, dim=4, revive_after=2),
    causal=True,
    fold=2,
    factorised=True,
    norm_groups=4,
)
RECURRENT = RecurrentConfig(
    width=8,
    deep_width=8,
    memory=8,
    encoder_blocks=(1, 1),
    decoder_blocks=(1, 1, 1),
    shifts=4,
    quantizer=FSQConfig(levels=(3, 3)),
)
STAGES = (
    StageConfig(name="plain", steps=4, clip_frames=5, crop=16, batch_video=2, batch_image=1, perceptual_frames=1),
    StageConfig(
        name="adversarial",
        steps=4,
        clip_frames=5,
        crop=16,
        batch_video=1,
        batch_image=0,
        perceptual_frames=1,
        adversarial=True,
    ),
)


def tiny_config(**changes: object) -> TrainConfig:
    settings: dict[str, object] = {
        "model": MODEL,
        "stages": STAGES,
        "data": ("none",),
        "losses": LossWeights(perceptual=0.0),
        "optimizer": OptimizerConfig(warmup_steps=2),
        "discriminator": DiscriminatorConfig(base=4, multipliers=(2, 2), r1_every=2),
        "save_every": 1,
        "grid_every": 5,
    }
    return TrainConfig(**(settings | changes))  # type: ignore[arg-type]


def tiny_pack(folder: Path) -> Pack:
    source = folder / "media"
    source.mkdir(parents=True)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        frames_TCHW = torch.randint(0, 256, (9, 3, 24, 32), generator=generator, dtype=torch.uint8)
        write(Clip(frames_TCHW, Fraction(25)), source / f"clip{seed}.mp4")
    write(Clip(frames_TCHW[:1], Fraction(1)), source / "image.png")
    return build_pack(scan(source), folder / "pack")


def run_in_process(folder: Path, out: Path, minutes: float | None = None) -> Trainer:
    trainer = Trainer(tiny_config(), [Pack.open(folder / "pack")], out)
    trainer.run(minutes=minutes)
    return trainer


def test_a_run_killed_with_sigkill_and_resumed_ends_with_the_same_bits(tmp_path: Path) -> None:
    tiny_pack(tmp_path)
    straight = run_in_process(tmp_path, tmp_path / "straight")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import torch; torch.set_num_threads(1)\n"
        "from pathlib import Path; from test_resume import run_in_process\n"
        "run_in_process(Path(sys.argv[2]), Path(sys.argv[3]))"
    )
    killed = tmp_path / "killed"
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path), str(killed)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (killed / "state.safetensors").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (killed / "state.safetensors").exists()
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    resumed = run_in_process(tmp_path, killed)

    assert resumed.counters.step == straight.counters.step == 8
    for name, tensor in straight.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    for name, tensor in straight.average.state_dict().items():
        assert torch.equal(tensor, resumed.average.state_dict()[name]), name


def test_a_time_limit_stops_cleanly_and_the_next_call_goes_on(tmp_path: Path) -> None:
    tiny_pack(tmp_path)
    straight = run_in_process(tmp_path, tmp_path / "straight")
    out, stops = tmp_path / "stopped", 0
    while True:
        trainer = run_in_process(tmp_path, out, minutes=0.0)
        stops += 1
        if trainer.counters.step == 8:
            break
    assert stops > 2
    assert torch.equal(trainer.model.decoder.out.weight, straight.model.decoder.out.weight)
    log = [json.loads(line) for line in (tmp_path / "straight" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 8 and {"psnr_db", "code_usage", "perplexity", "discriminator_accuracy"} <= log[-1].keys()
    assert list((tmp_path / "straight" / "grids").glob("*.png"))


def test_a_recurrent_network_resumes_to_the_same_bits(tmp_path: Path) -> None:
    pack = tiny_pack(tmp_path)
    stage = StageConfig(
        name="only", steps=4, clip_frames=9, crop=16, batch_video=1, batch_image=1, image_frames=5, perceptual_frames=1
    )
    stage = replace(stage, clip_frames=5, warm_steps=2, thrifty=0.5)
    config = tiny_config(model=RECURRENT, stages=(stage,))
    straight = Trainer(config, [pack], tmp_path / "straight")
    straight.run()
    for _ in range(4):
        resumed = Trainer(config, [pack], tmp_path / "stopped")
        resumed.run(minutes=0.0)
    assert resumed.counters.step == 4
    for name, tensor in straight.average.state_dict().items():
        assert torch.equal(tensor, resumed.average.state_dict()[name]), name


def test_a_batch_that_is_not_finite_is_skipped_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_pack(tmp_path)
    trainer = Trainer(tiny_config(), [Pack.open(tmp_path / "pack")], tmp_path / "out")
    honest, calls = trainer._to_pixels, []

    def poisoned(clip: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        pixels = honest(clip)
        return pixels * float("nan") if len(calls) in (3, 9) else pixels

    trainer._to_pixels = poisoned  # type: ignore[method-assign]
    trainer.run()

    assert trainer.counters.step == 8 and trainer.counters.skipped == 2 and trainer.counters.rollbacks == 0
    assert "is not finite; skipped" in capsys.readouterr().err
    assert all(bool(torch.isfinite(tensor).all()) for tensor in trainer.model.state_dict().values())


def test_three_bad_batches_in_a_row_roll_back_to_the_last_good_state(tmp_path: Path) -> None:
    tiny_pack(tmp_path)
    trainer = Trainer(tiny_config(save_every=2), [Pack.open(tmp_path / "pack")], tmp_path / "out")
    honest, bad = trainer._step, {3: 3}

    def sometimes(stage: StageConfig, step: int, clips: list[torch.Tensor | None]) -> Taken | str:
        if bad.get(step, 0):
            bad[step] -= 1
            return "loss term absolute"
        return honest(stage, step, clips)

    trainer._step = sometimes  # type: ignore[method-assign]
    trainer.run()

    assert trainer.counters.rollbacks == 1 and trainer.counters.skipped == 3
    assert trainer.counters.data_offset > 3  # past the batches that broke it
    assert trainer.counters.step == 8


def test_a_folder_with_another_recipes_run_is_refused(tmp_path: Path) -> None:
    pack = tiny_pack(tmp_path)
    run_in_process(tmp_path, tmp_path / "out", minutes=0.0)
    with pytest.raises(CheckpointError, match="another recipe"):
        Trainer(tiny_config(seed=1), [pack], tmp_path / "out")


def test_a_damaged_state_is_refused_with_a_remedy(tmp_path: Path) -> None:
    pack = tiny_pack(tmp_path)
    run_in_process(tmp_path, tmp_path / "out", minutes=0.0)
    state = tmp_path / "out" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        Trainer(tiny_config(), [pack], tmp_path / "out")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_saves_and_stops(tmp_path: Path, number: signal.Signals) -> None:
    tiny_pack(tmp_path)
    straight = run_in_process(tmp_path, tmp_path / "straight")
    trainer = Trainer(tiny_config(save_every=1000), [Pack.open(tmp_path / "pack")], tmp_path / "out")
    honest = trainer._step

    def signalled(stage: StageConfig, step: int, clips: list[torch.Tensor | None]) -> Taken | str:
        if step == 3:
            os.kill(os.getpid(), number)
        return honest(stage, step, clips)

    trainer._step = signalled  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()

    assert trainer.counters.step == 4
    resumed = run_in_process(tmp_path, tmp_path / "out")
    assert torch.equal(resumed.model.decoder.out.weight, straight.model.decoder.out.weight)


def test_a_network_of_windows_trains_on_clips_and_images(tmp_path: Path) -> None:
    tiny_pack(tmp_path)
    stage = StageConfig(name="w", steps=2, clip_frames=8, crop=16, batch_video=1, batch_image=1, perceptual_frames=1)
    config = tiny_config(model=replace(MODEL, causal=False), stages=(stage,))
    trainer = Trainer(config, [Pack.open(tmp_path / "pack")], tmp_path / "out")
    trainer.run()
    assert trainer.counters.step == 2 and trainer.counters.skipped == 0

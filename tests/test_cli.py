"""The commands as a user calls them, on a tiny random tokenizer."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from kinolex import checkpoint, cli, hub
from kinolex.media import read, write, write_sound
from kinolex.models.masked import MaskedConfig, MaskedTransformer
from kinolex.tasks.video import TASK_NAMES, TASKS
from kinolex.tokenizers.autoencoder3d import Autoencoder3D, AutoencoderConfig
from kinolex.tokenizers.quantizers import FSQConfig
from kinolex.types import Clip, Sound

TINY = AutoencoderConfig(
    channels=(8, 8),
    down=((4, 2),),
    encoder_blocks=(1, 1),
    decoder_blocks=(1, 1),
    middle_blocks=1,
    quantizer=FSQConfig(levels=(8, 8)),
    causal=True,
    fold=4,
    factorised=True,
    norm_groups=4,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    checkpoint.save(folder, Autoencoder3D(TINY), card="# tiny")
    return str(folder)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    frames_TCHW = torch.randint(0, 256, (11, 3, 37, 50), generator=generator, dtype=torch.uint8)
    sound = Sound(torch.sin(torch.arange(8000) / 10).unsqueeze(0) * 0.5, 16000)
    write(Clip(frames_TCHW, Fraction(25), sound), tmp_path / "in.mp4")
    return tmp_path / "in.mp4"


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    return int(stopped.value.code or 0)


def test_roundtrip_brings_back_frames_size_rate_and_sound(
    video: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = video.with_name("out.mp4")
    assert run("roundtrip", video, out, "--model", model, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    original, restored = read(video), read(out)
    assert restored.frames_TCHW.shape == original.frames_TCHW.shape and restored.fps == original.fps
    assert original.sound is not None and restored.sound is not None
    assert restored.sound.rate_hz == original.sound.rate_hz
    assert abs(restored.sound.duration_s - original.sound.duration_s) < 0.1
    assert report["tokens"] == 4 * 5 * 7 and report["frames"] == 11
    assert report["token_bits_per_pixel"] == pytest.approx(4 * 5 * 7 * 6 / (11 * 37 * 50))


def test_encode_then_decode_equals_the_tokenizer_in_python(video: Path, model: str) -> None:
    tokens, out = video.with_name("t.safetensors"), video.with_name("out.mp4")
    assert run("encode", video, tokens, "--model", model) == 0
    assert run("decode", tokens, out, "--model", model, "--sound-from", video) == 0
    restored = read(out)
    assert restored.num_frames == 11 and restored.sound is not None
    tokenizer = checkpoint.load(model)
    again = tokenizer.decode(tokenizer.encode(read(video)))
    assert (again.height, again.width) == (restored.height, restored.width) == (37, 50)
    # H.264 stands between the two, so they are close and not equal.
    assert float((again.frames_TCHW.float() - restored.frames_TCHW.float()).abs().mean()) < 12


def test_an_image_goes_through_as_a_clip_of_one_frame(video: Path, model: str) -> None:
    picture = video.with_name("in.png")
    write(Clip(read(video).frames_TCHW[:1], Fraction(1)), picture)
    assert run("roundtrip", picture, video.with_name("out.png"), "--model", model) == 0
    assert read(video.with_name("out.png")).frames_TCHW.shape == (1, 3, 37, 50)


def test_info_describes_media_tokens_and_models(video: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("encode", video, video.with_name("t.safetensors"), "--model", model)
    capsys.readouterr()
    kinds = []
    for source in (video, video.with_name("t.safetensors"), model):
        assert run("info", source, "--json") == 0
        kinds.append(json.loads(capsys.readouterr().out)["kind"])
    assert kinds == ["media", "tokens", "model"]


@pytest.mark.parametrize(("name", "said"), [("masked-nano", "outpaint-central"), ("clip-features-nano", "parameters")])
def test_info_describes_networks_of_every_kind(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", name, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == "model" and facts["what"] in ("generator", "clip features")
    assert said in json.dumps(facts)


def test_compress_info_and_decompress_bring_back_frames_size_rate_and_sound(
    video: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    klx, out, picture = (video.with_name(name) for name in ("c.klx", "out.mp4", "out.png"))
    assert run("compress", video, klx, "--model", model, "--quality", 80, "--chunk-frames", 5, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bytes"] == klx.stat().st_size and report["frames"] == 11
    assert report["bits_per_pixel"] == pytest.approx(8 * report["bytes"] / (11 * 37 * 50))
    assert run("info", klx, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["kind"], facts["chunks"], facts["size"], facts["prior"]) == ("klx", 3, "50x37", "plain")
    assert run("decompress", klx, out, "--model", model) == 0
    original, restored = read(video), read(out)
    assert restored.frames_TCHW.shape == original.frames_TCHW.shape and restored.fps == original.fps
    assert original.sound is not None and restored.sound is not None
    assert abs(restored.sound.duration_s - original.sound.duration_s) < 0.05
    assert run("decompress", klx, picture, "--model", model, "--frame", 6) == 0
    assert read(picture).frames_TCHW.shape == (1, 3, 37, 50)


def test_a_damaged_klx_file_is_refused_and_concealed_if_tolerated(
    video: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    klx, out = video.with_name("c.klx"), video.with_name("out.mp4")
    run("compress", video, klx, "--model", model, "--chunk-frames", 5)
    data = klx.read_bytes()
    klx.write_bytes(data[: len(data) // 2] + b"?" + data[len(data) // 2 + 1 :])
    capsys.readouterr()
    assert run("decompress", klx, out, "--model", model) == 2
    assert "the file is damaged; " in capsys.readouterr().err and read(out).num_frames == 5
    assert run("info", klx) == 2
    assert run("decompress", klx, out, "--model", model, "--tolerate", "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["lost_frames"] == 5 and "frames 5 to 9 are concealed" in printed.err
    assert read(out).num_frames == 11


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.mp4", b""),
        ("text.mp4", b"this is text, not a video\n" * 50),
        ("missing.mp4", None),
        ("folder", "folder"),
    ],
)
def test_bad_input_gives_exit_code_2_one_clear_message_and_no_file(
    tmp_path: Path, model: str, name: str, content: bytes | str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / name, tmp_path / "out.mp4"
    if content == "folder":
        source.mkdir()
    elif isinstance(content, bytes):
        source.write_bytes(content)
    for command in (("roundtrip", source, out), ("encode", source, tmp_path / "t.safetensors"), ("info", source)):
        options = () if command[0] == "info" else ("--model", model)
        assert run(*command, *options) == 2
        message = capsys.readouterr().err
        assert "kinolex: " in message and "Traceback" not in message
    assert {path.name for path in tmp_path.iterdir()} <= {name}


def test_a_disk_that_is_full_is_named(video: Path, model: str, tmp_path: Path) -> None:
    for command, target in (("encode", "t.safetensors"), ("compress", "t.klx")):
        line = f"ulimit -f 0; exec {sys.executable} -m kinolex {command} {video} {tmp_path / target} --model {model}"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120)
        assert done.returncode == 2 and "File too large; check the path, its rights and the disk" in done.stderr
        assert "Traceback" not in done.stderr and not (tmp_path / target).exists()


def test_sound_comes_from_a_sound_file_too(video: Path, model: str, tmp_path: Path) -> None:
    write_sound(Sound(torch.zeros(1, 8000), 16000), tmp_path / "s.wav")
    assert run("encode", video, tmp_path / "t.safetensors", "--model", model) == 0
    options = ("--model", model, "--sound-from", tmp_path / "s.wav")
    assert run("decode", tmp_path / "t.safetensors", tmp_path / "o.mp4", *options) == 0
    sound = read(tmp_path / "o.mp4").sound
    assert sound is not None and sound.rate_hz == 16000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compress", "IN", "o.klx", "--sound-kbps", "inf"), "positive and finite"),
        (("compress", "IN", "o.klx", "--bpp", "inf"), "positive and finite"),
        (("compress", "IN", "o.klx", "--sound-kbps", 1e9), "6 to 256 are possible for one channel"),
        (("data", "worlds", "o.mp4", "--seed", -1), "counted from 0, got -1"),
        (("encode", "IN", "nowhere/t.safetensors"), "there is no folder nowhere"),
        (("train", "recipe.py", "--data", ".", "--out", "run"), "recipe.py, line 2: ModuleNotFoundError: No module"),
    ],
)
def test_values_that_cannot_be_are_named_before_work_is_done(
    video: Path,
    model: str,
    arguments: tuple[object, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(video.parent)
    Path("recipe.py").write_text("import os\nimport nothing_of_that_name\n")
    before = {path.name for path in Path().iterdir()}
    options = ("--model", model) if "IN" in arguments else ()
    assert run(*(video if part == "IN" else part for part in arguments), *options) == 2
    assert message in capsys.readouterr().err and {path.name for path in Path().iterdir()} == before


def test_tokens_of_another_model_and_damaged_token_files_are_refused(
    video: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens, other = tmp_path / "t.safetensors", tmp_path / "other"
    run("encode", video, tokens, "--model", model)
    torch.manual_seed(1)
    checkpoint.save(other, Autoencoder3D(TINY), card="")
    assert run("decode", tokens, tmp_path / "o.mp4", "--model", other) == 2
    assert "made by tokenizer" in capsys.readouterr().err
    tokens.write_bytes(tokens.read_bytes()[:-10])
    assert run("decode", tokens, tmp_path / "o.mp4", "--model", model) == 2
    assert run("roundtrip", video, video, "--model", model) == 2
    assert run("roundtrip", video, tmp_path / "o.mp4", "--model", "no-such-model") == 2
    assert run("roundtrip", video, tmp_path / "o.png", "--model", model) == 2
    assert run("roundtrip", video, tmp_path / "o.mp4", "--model", model, "--device", "cuda:99") == 2
    assert not (tmp_path / "o.mp4").exists() and not (tmp_path / "o.png").exists()


def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    commands = [("demo",), ("roundtrip",), ("encode",), ("decode",), ("info",), ("train",), ("doctor",)]
    commands += [("compress",), ("decompress",), ("generate",)]
    commands += [("data", name) for name in ("check", "index", "pack", "worlds")] + [("eval", "reconstruction")]
    for command in commands:
        assert run(*command, "--help") == 0
        assert f"Example: kinolex {' '.join(command)}" in " ".join(capsys.readouterr().out.split()), command
    assert run("roundtrip", "--no-such-option") == 2
    run("generate", "--help")
    assert "and free-form with a mask." in " ".join(capsys.readouterr().out.split())  # its list of tasks


def test_the_help_comes_within_a_second_and_imports_no_torch() -> None:
    code = (
        "import sys, time\nfrom kinolex.cli import main\ntry: main(['--help'])\n"
        "finally:\n"
        "    assert not {'torch', 'numpy', 'av'} & set(sys.modules)\n"
        "    assert len(sys.modules) < 600, len(sys.modules)\n"
        # Of this process alone: tests share their machine, and an import of torch takes more than that anywhere.
        "    assert time.process_time() < 1, time.process_time()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "roundtrip" in result.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_gives_exit_code_130_and_leaves_nothing(
    tmp_path: Path, model: str, number: signal.Signals
) -> None:
    generator = torch.Generator().manual_seed(0)
    frames_TCHW = torch.randint(0, 256, (1200, 3, 16, 16), generator=generator, dtype=torch.uint8)
    frames_TCHW = frames_TCHW.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    write(Clip(frames_TCHW, Fraction(25)), tmp_path / "long.mp4")
    command = [sys.executable, "-m", "kinolex", "roundtrip", "long.mp4", "out.webm", "--model", model]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job inherits that it is ignored
    )
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("*out*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, message = process.communicate(timeout=300)
    assert process.returncode == 130, message
    assert "interrupted" in message and "Traceback" not in message
    assert {path.name for path in tmp_path.iterdir()} == {"long.mp4"}


def test_a_refused_call_says_one_line_and_touches_nothing(
    video: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, tokens = video.read_bytes(), tmp_path / "t.safetensors"
    run("encode", video, tokens, "--model", model)
    names = {path.name for path in tmp_path.iterdir()}
    capsys.readouterr()
    for command, message in (
        (("roundtrip", video, tmp_path / "o.mp4", "--lines", 0), "lines must be at least 1"),
        (("encode", video, tmp_path / "o.mp4"), "tokens are written as .safetensors"),
        (("decode", tokens, video, "--sound-from", video), "would be overwritten"),
        (("decode", tokens, tmp_path / "o.mp4", "--sound-from", tokens), "not media"),
        (("roundtrip", video, tmp_path / "o.mp4", "--device", "banana"), "no device 'banana'"),
        (("compress", video, tmp_path / "o.mp4"), "compressed files are written as .klx"),
        (("compress", video, tmp_path / "o.klx", "--quality", 5, "--bpp", 0.1), "give one of quality, bpp and kbps"),
        (("compress", video, tmp_path / "o.klx", "--sound-kbps", 0.001), "cannot be encoded as Opus"),
        (("compress", tmp_path / "missing.mp4", tmp_path / "o.klx"), "no file at"),
        (("decompress", video, tmp_path / "o.mp4"), "no .klx file"),
        (("decompress", tmp_path / "missing.klx", tmp_path / "o.mp4"), "no file at"),
        (("demo", "--out", video), "File exists"),
        (("demo", "--out", tmp_path / "demo", "--file", tmp_path / "missing.mp4"), "no file at"),
    ):
        assert run(*command, "--model", model) == 2
        printed = capsys.readouterr().err.strip()
        assert message in printed and printed.startswith("kinolex: ") and "\n" not in printed
    assert {path.name for path in tmp_path.iterdir()} == names and video.read_bytes() == before


def test_nothing_takes_the_place_of_what_it_is_made_from(
    video: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under names of another kind too: files are known by what is in them."""
    frames, sound = tmp_path / "frames.safetensors", tmp_path / "sound.safetensors"
    tokens, packed, tones = tmp_path / "tokens.mp4", tmp_path / "packed.mp4", tmp_path / "tones.wav"
    made = tmp_path / "tasks" / "class.mp4"
    made.parent.mkdir()
    run("encode", video, tmp_path / "t.safetensors", "--model", model)
    run("compress", video, tmp_path / "t.klx", "--model", model)
    write_sound(Sound(torch.zeros(1, 4800), 24000), tmp_path / "t.wav")
    run("encode", tmp_path / "t.wav", tmp_path / "tones.safetensors")
    for source, copies in (
        (video, (frames, made)),
        (tmp_path / "t.safetensors", (tokens,)),
        (tmp_path / "t.klx", (packed,)),
        (tmp_path / "t.wav", (sound,)),
        (tmp_path / "tones.safetensors", (tones,)),
    ):
        for copy in copies:
            copy.write_bytes(source.read_bytes())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    for command in (
        ("encode", frames, frames, "--model", model),
        ("encode", sound, sound),
        ("decode", tokens, tokens, "--model", model),
        ("decode", tones, tones, "--model", "sound-nano"),
        ("decompress", packed, packed, "--model", model),
        ("demo", "--out", tmp_path, "--file", made, "--model", model),
    ):
        assert run(*command) == 2
        assert "be overwritten" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_growth_takes_the_place_of_no_source_and_of_no_result(
    video: Path, generator: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "in.png"
    write(Clip(read(video).frames_TCHW[:1], Fraction(1)), picture)
    before = picture.read_bytes()
    asked = ("generate", "--model", generator, "--from", picture, "--frames", 5, "--steps", 1)
    assert run(*asked, tmp_path / "o.mp4", "--growth", picture) == 2
    assert "would be overwritten" in capsys.readouterr().err and picture.read_bytes() == before
    assert run(*asked, tmp_path / "o.png", "--growth", tmp_path / "o.png") == 2
    assert "give two names" in capsys.readouterr().err and not (tmp_path / "o.png").exists()


def test_an_earlier_result_is_compared_with_and_not_replaced(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    earlier = tmp_path / "out" / f"reconstruction_{Path(model).name}.json"
    earlier.write_text("{}")
    asked = ("eval", "reconstruction", "--model", model, "--data", tmp_path, "--out", tmp_path / "out")
    assert run(*asked, "--compare", earlier) == 2
    assert "would be overwritten" in capsys.readouterr().err and earlier.read_text() == "{}"


@pytest.mark.parametrize("command", cli.GROUPS["eval"])
def test_a_file_where_a_folder_is_needed_is_told_before_anything_is_measured(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("mine")
    for out in (text, text / "below"):
        assert run("eval", command, "--data", tmp_path / "nowhere", "--out", out, "--model", "no-such-model") == 2
        assert (
            capsys.readouterr().err
            == f"kinolex: --out {out} is to be a folder, and {text} is a file; give another name\n"
        )
    assert text.read_text() == "mine"


@pytest.mark.parametrize(
    "command",
    [
        ("describe", "in.mp4"),
        ("roundtrip", "in.mp4", "o.mp4"),
        ("compress", "in.mp4", "o.klx"),
        ("generate", "o.mp4"),
        ("upscale", "in.mp4", "o.mp4"),
        ("train", "recipe.py", "--data", ".", "--out", "o"),
        ("reproduce", "--list"),
        ("eval", "fewshot"),
        ("eval", "drawing"),
        ("eval", "generation"),
        ("eval", "multimodal"),
        ("eval", "upscale"),
        ("eval", "understanding"),
        ("eval", "sound", "--data", "."),
    ],
)
def test_a_device_that_is_not_there_is_no_traceback(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for device, said in (("cuda:99", "device cuda:99 cannot be used here"), ("cuda:x", "no device 'cuda:x'")):
        assert run(*command, "--device", device) == 2
        printed = capsys.readouterr().err
        assert said in printed and printed.count("\n") == 1
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("arguments", [("beg", "x"), ("eval", "beg", "--out", "o"), ("data", "beg")])
def test_a_command_that_is_not_there_is_told_which_are(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    printed = capsys.readouterr().err
    assert "no command beg; there are " in printed and printed.count("\n") == 1


@pytest.fixture
def generator(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A random generator whose tokenizer is found among the shipped ones."""
    torch.manual_seed(1)
    config = MaskedConfig(
        tokenizer=checkpoint.load(model).fingerprint,
        factors=(8, 8),
        width=32,
        depth=1,
        heads=2,
        tasks=TASK_NAMES,
        words=("red", "ball"),
        max_words=2,
        latent_frames=3,
    )
    checkpoint.save(tmp_path / "models" / "generator", MaskedTransformer(config), card="")
    monkeypatch.setattr(hub, "PRETRAINED", Path(model).parent)
    return str(tmp_path / "models" / "generator")


def test_generate_makes_video_and_tells_how(video: Path, generator: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = video.with_name("out.mp4")
    options = ("--model", generator, "--steps", 2, "--json")
    assert run("generate", "--from", video, "--given", 5, "--frames", 12, "--seed", 7, out, *options) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["task"], report["frames"], report["frames_given"]) == ("frame-prediction", 12, 5)
    assert report["seed"] == 7 and read(out).frames_TCHW.shape == (12, 3, 37, 50)
    picture, growth = video.with_name("out.png"), video.with_name("growth.png")
    words = ("--task", "class", "--text", "a red ball", "--frames", 1, "--size", 32, 48)
    assert run("generate", picture, *words, "--growth", growth, *options) == 0
    assert read(picture).frames_TCHW.shape == (1, 3, 32, 48) and read(growth).frames_TCHW.shape == (1, 3, 64, 48)


@pytest.mark.filterwarnings("ignore::kinolex.metrics.distribution.FewSamplesWarning")
def test_eval_generation_writes_what_it_was_asked_for(generator: str, tmp_path: Path) -> None:
    shipped = Path(hub.__file__).with_name("pretrained") / hub.CLIP_FEATURES
    (hub.PRETRAINED / hub.CLIP_FEATURES).symlink_to(shipped)
    options = ("--worlds", 2, "--captions", 0, "--steps", 1, "--order", "surest", "--tasks", "inpaint-central")
    assert run("eval", "generation", "--sets", "worlds", "--model", generator, "--out", tmp_path / "e", *options) == 0
    result = json.loads((tmp_path / "e" / "generation_generator.json").read_text())
    assert (result["protocol"]["order"], result["protocol"]["steps"], result["n"]) == ("surest", 1, 2)
    assert "--order surest" in result["command"]


def test_generate_refuses_in_one_line_what_it_cannot_do(
    video: Path, generator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names, out = {path.name for path in video.parent.iterdir()}, video.with_name("out.mp4")
    for options, message in (
        (("--task", "dream"), "no task 'dream'; choose one of frame-prediction"),
        (("--task", "class", "--text", "a green ball"), "does not know 'green'; its words are red, ball"),
        (("--task", "inpaint-central", "--text", "red"), "inpaint-central has no use for --text; leave out"),
        (("--window", 4, "--seconds", 2), "frame-prediction has no use for --seconds, --window; leave out"),
        (("--task", "outpaint-central", "--given", 5), "Tasks that have: --given: frame-prediction, class-prediction"),
        (("--task", "future-prediction", "--steps", 8), "Tasks that have: --steps: frame-prediction, frame-interp"),
        (("--task", "future-prediction", "--settle-temperature", 0), "has no use for --settle-temperature"),
        (("--task", "video-to-sound", "--schedule", "uniform"), "has no use for --schedule"),
        (("--task", "video-to-sound", "--structure", video), "Tasks that have: --structure: stylisation"),
        (("--task", "text-to-both", "--text", "red"), "has no use for --from"),
        (("--settle-temperature", 1), "leave out --settle-temperature, or say --order surest"),
        (("--order", "left"), "no order 'left'; choose one of even, surest"),
        (("--task", "class", "--text", "red", "--put-back"), "no pixels that could be put back"),
        (("--size", 32, 32), "here the source has one"),
        (("--task", "free-form"), "that task needs one"),
        (("--steps", 0), "steps must be in 1..1024, got 0"),
        (("--temperature", -1), "temperature must be 0 or more and finite, got -1"),
        (("--guidance", -1), "guidance must be 0 or more and finite, got -1"),
        (("--top-k", 0), "top_k must be 1 or more"),
        (("--top-p", 0), "top_p must be above 0"),
        (("--schedule", "sine"), "no mask schedule 'sine'; choose one of cosine"),
        (("--frames", 5), "9 frames (of 11: 1 and whole steps of 4 count) are given and 5 wanted"),
        (("--text", "red"), "say --task image-to-video or --task class-prediction, or leave one of them out"),
        (("--text", ""), "'' holds no word that the model reads; say what to make in words such as a small red"),
        (("--text", " ...,"), "holds no word that the model reads"),
        (("--task", "inpaint-central", "--mask", video), "say --task free-form --mask FILE"),
        (("--task", "future-prediction"), "does not know the task future-prediction; leave out --model, or name one"),
        (("--guidance", "nan"), "guidance must be 0 or more and finite, got nan"),
        (("--device", "banana"), "no device 'banana'"),
    ):
        assert run("generate", "--from", video, out, "--model", generator, *options) == 2
        printed = capsys.readouterr().err.strip()
        assert message in printed and printed.splitlines()[-1].startswith("kinolex: "), printed
    assert run("generate", out, "--model", generator) == 2
    assert "needs a video or image to start from; give one with --from" in capsys.readouterr().err
    assert run("generate", "--task", "class", "--text", "red", "--lines", 32, out, "--model", generator) == 2
    assert "lines scale a source, and there is none" in capsys.readouterr().err
    assert run("generate", "--from", video, out, "--model", video.parent / "nothing") == 2
    assert {path.name for path in video.parent.iterdir()} == names


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    ],
)
def test_too_little_memory_is_told_in_a_sentence_and_other_errors_of_ours_are_not_hidden(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(error: Exception) -> None:
        raise error

    monkeypatch.setitem(cli.COMMANDS, "doctor", lambda: fails(error))
    assert run("doctor") == 2
    printed = capsys.readouterr().err.strip()
    assert printed.startswith("kinolex: this needs more memory than there is; ask for a smaller picture")
    assert len(printed.splitlines()) == 1
    monkeypatch.setitem(cli.COMMANDS, "doctor", lambda: fails(RuntimeError("a mistake of ours")))
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        cli.main(["doctor"])


def test_a_generator_of_the_other_kind_is_told_which_models_have_the_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for task, model, others in (
        ("class", "poet-world-nano", "masked-nano or masked-world-nano"),
        ("text-to-video", "masked-nano", "poet-world-nano"),
    ):
        words = ("--task", task, "--text", "red")
        assert run("generate", *words, "--model", model, tmp_path / "out.mp4") == 2
        assert f"{model} does not know the task {task}; leave out --model, or name one that does: {others}" in (
            capsys.readouterr().err
        )


def test_the_demo_leaves_video_tokens_and_a_page_that_needs_nothing_else(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert run("demo", "--out", out, "--model", model, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    files = {"in.mp4", "out.mp4", "tokens.safetensors", "report.html", "tasks", "sound", "words"}
    assert {path.name for path in out.iterdir()} == files
    assert {path.name for path in (out / "tasks").iterdir()} == {*(f"{name}.mp4" for name in TASKS), "sheet.png"}
    assert read(out / "tasks" / "inpaint-central.mp4").frames_TCHW.shape == (17, 3, 64, 64)
    original, restored = read(out / "in.mp4"), read(out / "out.mp4")
    assert restored.frames_TCHW.shape == original.frames_TCHW.shape and restored.sound is not None
    assert original.sound is not None and float(original.sound.samples_CS.abs().max()) > 0.05
    page = (out / "report.html").read_text(encoding="utf-8")
    assert f"{report['psnr_db']:.2f} dB" in page
    assert 'src="data:' in page and 'src="http' not in page and "<link" not in page
    assert page.count("<audio") == 3 and page.count("<video") == 2 + 3


def test_a_reader_that_leaves_early_is_no_error(model: str) -> None:
    command = f"{sys.executable} -m kinolex data --help | head -n 1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert result.stderr == ""

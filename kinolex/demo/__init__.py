"""What there is, on real input in one go, with a page to look at.

    a world with sound (or your file) -> in.mp4 -> tokens.safetensors -> out.mp4 -------+
        +-> its sound -> tokens at two rates -> sound/*.wav -----------------------------+-> report.html
        +-> a probe reads its tokens; a word tokenizer says it in words -----------------+
        +-> ten tasks of one network -> tasks/*.mp4 and sheet.png -----------------------+
    three captions -> pictures with sound -> words/*.mp4 --------------------------------+

A part stands on the page where the networks that it needs are shipped.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from kinolex import api, checkpoint, hub
from kinolex.data.token_store import load_picture_tokens
from kinolex.data.worlds import WorldConfig, render
from kinolex.demo.pictures import ANIMATED_FRAMES, before_and_after, facts_of, first_of, token_parts
from kinolex.demo.sounds import sound_parts
from kinolex.demo.tasks import task_parts
from kinolex.demo.words import ACTIONS, class_parts, made_of_words, pyramid_parts
from kinolex.errors import UsageError
from kinolex.evaluation.page import Html, code, note, page, section, write_text
from kinolex.generation import load_generator
from kinolex.generation.loading import DEFAULT, WORLDS
from kinolex.generation.multimodal import DEFAULT as POET
from kinolex.generation.multimodal import load_multimodal
from kinolex.media import probe, read, write
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip
from kinolex.understanding import load_classifier
from kinolex.understanding.verb import DEFAULT as OF_WORLDS

WORLD_SEED = 15
"""Two bodies that bounce, heard."""
WORLD = WorldConfig(frames=73, height=128, width=128, fps=Fraction(24))

MADE = ("out.mp4", "tasks", "sound", "words")
"""Media that are written, and folders of them."""

OnStage = Callable[[str, int, int | None], None]
"""(what is being done, how much of it is done, how much there is if that is known)."""


def run_demo(
    out: str | Path,
    tokenizer: VideoTokenizer,
    *,
    model_name: str,
    file: str | Path | None = None,
    on_stage: OnStage = lambda _stage, _done, _total: None,
) -> tuple[Path, api.Report]:
    """Write in.mp4, tokens.safetensors, out.mp4, folders of what is made and report.html; returns the page and figures.

    Args:
        out: made if missing.
        file: a video to take instead of the world; it is read where it is, and no in.mp4 is written.

    Raises:
        UsageError: the file lies where something is written. KinolexError: of the layers it runs.
    """
    out = Path(out)
    if file is not None:
        probe(file)  # refuse what cannot be read before anything is made
        place = Path(file).resolve()
        if place.is_relative_to(out.resolve()) and place.relative_to(out.resolve()).parts[0] in MADE:
            raise UsageError(f"{file} lies where {out} gets what is made, and may be overwritten; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    world = render(WORLD_SEED, WORLD)
    source, caption = (out / "in.mp4", f"a procedural world: {world.caption}")
    if file is None:
        write(world.clip, source)
    else:
        source, caption = Path(file), "your file"

    def told(stage: str) -> Callable[[int, int | None], None]:
        return lambda done, total: on_stage(stage, done, total)

    api.encode(source, out / "tokens.safetensors", tokenizer, on_frames=told("video into tokens"))
    report = api.roundtrip(source, out / "out.mp4", tokenizer, model_name=model_name, on_frames=told("and back"))
    tokens = load_picture_tokens(out / "tokens.safetensors")
    original = read(source, max_frames=ANIMATED_FRAMES)
    restored = tokenizer.decode(first_of(tokens, original))
    files = (source, out / "out.mp4") if file is None else ()
    sections = [
        section("What happened", facts_of(report, tokenizer)),
        section("Before and after", note(caption), *before_and_after(original, restored, files)),
        section("The tokens", *token_parts(tokens, tokenizer)),
        *_of_sound(original, world.clip, out / "sound", told("sound into tokens and back")),
        *_of_meaning(source, original, file is None, told("what is in it")),
    ]
    generator = load_generator(WORLDS if file is None else DEFAULT)
    parts = task_parts(original, generator, out / "tasks", told("ten tasks"))
    sections.append(section("Ten tasks, one network", *parts))
    if POET in hub.shipped(checkpoint.MULTIMODAL):
        parts = made_of_words(load_multimodal(POET), out / "words", told("words to picture and sound"))
        sections.append(section("Words become picture and sound", *parts))
    sections.append(section("Do it yourself", code(_commands(model_name))))
    lead = (
        "A video became a grid of integers and a video again, its sound did the same, and other networks read, filled "
        "in and made such integers. All weights were trained by this project and came with it; everything here was "
        "computed just now, on this machine."
    )
    write_text(out / "report.html", page("kinolex demo", sections, lead=lead))
    return out / "report.html", report


def _of_sound(original: Clip, world: Clip, folder: Path, on_sounds: Callable[[int, int | None], None]) -> list[Html]:
    """The sound of the clip as tokens; that of a world where the clip is silent."""
    if hub.SOUND not in hub.shipped(checkpoint.SOUND_TOKENIZER):
        return []
    sound, whose = original.sound, "the sound of the clip above"
    if sound is None or not sound.num_samples:
        sound, whose = world.sound, "your file is silent: the sound of a procedural world"
    assert sound is not None  # worlds have one
    parts = sound_parts(sound, hub.load_sound(), folder, on_sounds)
    return [section("Its sound, as tokens too", note(whose), *parts)]


def _of_meaning(source: Path, original: Clip, is_world: bool, on_done: Callable[[int, int | None], None]) -> list[Html]:
    """What a probe reads in the tokens, and the picture as words of a language model."""
    found, probes, spaes = [], hub.shipped(checkpoint.PROBE), hub.shipped(checkpoint.WORD_TOKENIZER)
    if (name := OF_WORLDS if is_world else ACTIONS) in probes:
        found.append(section("What is in it, read from tokens", *class_parts(source, load_classifier(name), name)))
    on_done(1, 2)
    if hub.WORD_TOKENIZER in spaes:
        spae, _ = hub.load_spae()
        found.append(section("The picture as words of a language model", *pyramid_parts(original, spae)))
    on_done(2, 2)
    return found


def _commands(model_name: str) -> str:
    return (
        f"kinolex roundtrip YOUR.mp4 back.mp4 --model {model_name}\n"
        f"kinolex encode YOUR.mp4 tokens.safetensors --model {model_name}\n"
        f"kinolex decode tokens.safetensors back.mp4 --model {model_name} --sound-from YOUR.mp4\n"
        "kinolex info tokens.safetensors\n"
        "kinolex encode YOUR.wav sound.safetensors --sound-kbps 2\n"
        "kinolex decode sound.safetensors back.wav\n"
        "kinolex compress YOUR.mp4 small.klx --quality 50\n"
        "kinolex classify YOUR.mp4 --probe probe-weizmann-nano\n"
        "kinolex generate --task outpaint-horizontal --from YOUR.mp4 outside.mp4\n"
        'kinolex generate --text "a large red circle bounces twice on wood" made.mp4\n'
        "kinolex demo --file YOUR.mp4"
    )

"""The verbs as commands: parse, call kinolex.api, print. torch is imported when a command runs, not before.

A command is a function of one of this folder's files, with its help as docstring, and a line of the tables below.

Exit codes: 0 done, 1 an examination found something wrong (doctor, data check), 2 bad input or usage, 130 interrupted.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import tyro

from kinolex.cli import codec, data, evaluation, files, generation, super_resolution, training, understanding, words
from kinolex.cli.common import into_folder


def main(argv: list[str] | None = None) -> None:
    """Entry point of the command `kinolex`."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) > 1 and arguments[0] in GROUPS:
        group = arguments[0]
        raise SystemExit(_run(GROUPS[group], arguments[1:], f"kinolex {group}"))
    if arguments == ["--version"]:
        from kinolex import __version__

        print(f"kinolex {__version__}")
        raise SystemExit(0)
    raise SystemExit(_run(COMMANDS, arguments, "kinolex"))


def _data() -> None:
    """Collections: kinolex data check | index | pack | worlds (each with --help)."""
    raise SystemExit(_run(GROUPS["data"], ["--help"], "kinolex data"))


def _eval() -> None:
    """Measure: kinolex eval reconstruction | rate-distortion | generation | understanding | sound and others."""
    raise SystemExit(_run(GROUPS["eval"], ["--help"], "kinolex eval"))


COMMANDS: dict[str, Callable[..., None]] = {
    "demo": files.demo,
    "roundtrip": files.roundtrip,
    "encode": files.encode,
    "decode": files.decode,
    "compress": codec.compress,
    "decompress": codec.decompress,
    "generate": generation.generate,
    "upscale": super_resolution.upscale,
    "describe": words.describe,
    "ask": words.ask,
    "classify": understanding.classify,
    "info": files.info,
    "train": training.train,
    "reproduce": training.reproduce,
    "doctor": training.doctor,
    "data": _data,
    "eval": _eval,
}
"""In the order of the help."""

GROUPS: dict[str, dict[str, Callable[..., None]]] = {
    "data": {
        "check": data.check,
        "index": data.index,
        "pack": data.pack,
        "worlds": data.worlds,
    },
    "eval": {
        name: into_folder(command)
        for name, command in {
            "reconstruction": evaluation.reconstruction,
            "rate-distortion": evaluation.rate_distortion,
            "generation": evaluation.generation,
            "words": words.words,
            "fewshot": words.fewshot,
            "questions": words.questions,
            "drawing": words.drawing,
            "sound": evaluation.sound,
            "multimodal": evaluation.multimodal,
            "upscale": super_resolution.evaluate,
            "understanding": understanding.understanding,
            "probe": understanding.judge,
        }.items()
    },
}


@contextmanager
def _ended_as_interrupted() -> Iterator[None]:
    """SIGTERM, as of `timeout` or a machine that shuts down, cleans up as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():  # no other may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _lacks_memory(error: BaseException) -> bool:
    """Whether Python, NumPy or torch says that memory is lacking; torch has no class for it on the CPU."""
    said = ("allocate memory", "out of memory", "not enough memory", "storage size calculation overflowed")
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in said)


def _run(commands: dict[str, Callable[..., None]], arguments: list[str], name: str) -> int:
    """Call the command that the arguments name; the exit code."""
    from kinolex.errors import KinolexError

    if arguments and not arguments[0].startswith("-") and arguments[0].replace("_", "-") not in commands:
        print(f"{name}: no command {arguments[0]}; there are {', '.join(commands)}", file=sys.stderr)
        return 2
    app = tyro.extras.SubcommandApp()
    for command, function in commands.items():
        app.command(name=command)(function)
    try:
        with _ended_as_interrupted():
            app.cli(args=arguments or ["--help"], prog=name, use_underscores=False)
    except KinolexError as error:
        print(f"kinolex: {error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _lacks_memory(error):
            raise
        print(
            "kinolex: this needs more memory than there is; ask for a smaller picture, fewer frames or a shorter video",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("kinolex: interrupted; nothing half-written was left", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stdout = None  # the reader of our output has left, e.g. `| head`; nobody to tell
        return 0
    except OSError as error:
        # Writing to an open file, as onto a full disk, fails without its name.
        where = "a file could not be read or written" if error.filename is None else error.filename
        what = error.strerror or str(error)
        print(f"kinolex: {where}: {what}; check the path, its rights and the disk", file=sys.stderr)
        return 2
    return 0

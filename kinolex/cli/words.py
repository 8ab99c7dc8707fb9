"""Pictures as words: describe, ask, and eval words, fewshot, questions and drawing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kinolex.cli.common import Source, check_device, command_of, frames_bar, show


def describe(
    source: Source,
    model: str = "spae-nano",
    layers: int | None = None,
    pictures: int = 4,
    out: Path | None = None,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """The pyramid of words that a picture or clip becomes.

    Example: kinolex describe in.jpg --out out/words.html

    Args:
        source: an image or a video; the square in the middle is looked at.
        model: a word tokenizer: shipped name, folder, or hub repository.
        layers: how many are printed, from the top; by default 4, or all where there are fewer.
        pictures: of a video, evenly spaced.
        out: a page with words over picture regions.
        device: cpu, cuda, cuda:1, mps.
        json: print the words as JSON, one list per layer and picture.
    """
    check_device(device)
    from kinolex import hub, understanding
    from kinolex.api import refuse_same
    from kinolex.cli.common import to_json
    from kinolex.errors import UsageError
    from kinolex.evaluation.describe import as_text, describe_page, layers_to_show
    from kinolex.evaluation.page import write_text

    if out is not None:
        refuse_same(source, out)
        if out.is_dir():
            raise UsageError(f"--out {out} is a folder, and a page is one file; name it {out / 'words.html'}")
        if out.suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"--out {out} is to be a page; name it {out.with_suffix('.html').name}")
    spae, _ = hub.load_spae(model)
    layers = layers_to_show(spae, layers)
    with frames_bar(source.name, after_s=2.0) as bar:
        described = understanding.describe(source, spae.to(device), pictures=pictures, on_frames=bar)
    if out is not None:
        write_text(out, describe_page(described, source.name))
    if json:
        print(to_json([[layer.ravel().tolist() for layer in one.layers[:layers]] for one in described]))
    else:
        print(as_text(described, layers=layers), end="")


def ask(
    source: Source,
    shown: tuple[str, ...] = (),
    question: str = "",
    model: str = "spae-nano",
    language_model: str = "text-nano",
    layers: int = 1,
    repeats: int = 0,
    prompt: bool = False,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """What a frozen language model says of a picture, after some that are shown with an answer.

    Example: kinolex ask in.jpg --shown seven.png=seven three.png=three

    Args:
        source: an image or a video, of which the middle frame is looked at.
        shown: FILE=ANSWER each: labels, captions, or answers to the question.
        question: asked of every picture, such as "is it even?"; without one the answers say what is shown.
        model: a word tokenizer: shipped name, folder, or hub repository.
        language_model: that reads the words: shipped name, folder, or hub repository of any causal model.
        layers: of the pyramid, from the top, whose words are read.
        repeats: times that what is shown is shown again.
        prompt: print what the model reads, too.
        device: cpu, cuda, cuda:1, mps.
        json: print answer, probabilities and prompt as JSON.
    """
    check_device(device)
    from dataclasses import asdict

    from kinolex import understanding
    from kinolex.cli.common import to_json
    from kinolex.errors import UsageError

    pairs = [one.partition("=") for one in shown]
    if not pairs or not all(file and answer for file, _, answer in pairs):
        raise UsageError(f"--shown takes FILE=ANSWER, once or more, as in seven.png=seven; got {' '.join(shown)!r}")
    spae, _, lm = _words_and_reader(model, language_model, device)
    answered = understanding.ask(
        source,
        [(file, answer) for file, _, answer in pairs],
        question=question,
        model=spae,
        language_model=lm,
        layers=layers,
        repeats=repeats,
    )
    if json:
        print(to_json(asdict(answered)))
        return
    if prompt:
        print(answered.prompt, end="\n\n")
    show({"answer": answered.answer} | {f"  {name}": f"{share:.2f}" for name, share in answered.among.items()}, False)


def words(
    data: Path | None = None,
    out: Path = Path("out/eval"),
    model: str = "spae-nano",
    sets: tuple[str, ...] = ("imagenet_samples", "cifar10", "digits", "worlds"),
    pictures: int = 500,
    permutations: int = 1000,
    seed: int = 0,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """What the words of a picture tell of its label, in bits, beside labels dealt out anew.

    Example: kinolex eval words --data DATA --sets cifar10 digits --out out/eval

    Args:
        data: folder with one sub-folder per set; worlds alone need none.
        out: gets a JSON file and a page with words over pictures.
        model: a word tokenizer: shipped name, folder, or hub repository.
        sets: sub-folders with labelled pictures, whose test split is measured, and worlds.
        pictures: of each set, at most.
        permutations: of the labels; what they come to by chance.
        seed: of pictures, folds and permutations.
        device: cpu, cuda, cuda:1, mps.
        json: print the figures as JSON.
    """
    options = dict(locals())
    check_device(device)
    from kinolex import hub
    from kinolex.evaluation.words import WordsProtocol, evaluate_words

    spae, fingerprint = hub.load_spae(model)
    protocol = WordsProtocol(sets=sets, pictures=pictures, permutations=permutations, seed=seed, tokenizer=fingerprint)
    name = f"words_{Path(model).name}"
    with frames_bar("words", "layers") as bar:
        result = evaluate_words(
            spae.to(device),
            data,
            protocol,
            out,
            name=name,
            command=command_of("eval words", words, options),
            on_layers=bar,
        )
    facts: dict[str, object] = {}
    for set_name, one in result["sets"].items():
        facts[f"{set_name}, entropy of labels"] = one["label_entropy_bits"]
        for row in one["layers"]:
            layer = row["layer"] if isinstance(row["layer"], str) else f"layer {row['layer']}"
            told = f"{row['bits']:.3f} bits, {row['null_mean']:.3f} by chance, p {row['p']:.3g}"
            facts[f"{set_name}, {layer}"] = told
    show(facts | {"page": str(out / f"{name}.html")}, json)


def fewshot(
    data: Path | None = None,
    out: Path = Path("out/eval"),
    model: str = "spae-nano",
    language_model: str = "text-nano",
    sets: tuple[str, ...] = ("imagenet_samples", "cifar10", "digits", "worlds"),
    ways: tuple[int, ...] = (2, 5),
    shots: int = 1,
    repeats: int = 0,
    induction: bool = True,
    layers: tuple[int, ...] = (1, 2, 3),
    episodes: int = 200,
    seed: int = 0,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Few-shot questions about pictures, to a frozen language model that reads their words.

    Example: kinolex eval fewshot --data DATA --sets cifar10 digits --out out/eval

    Args:
        data: folder with one sub-folder per set; worlds alone need none.
        out: gets a JSON file and a page.
        model: a word tokenizer: shipped name, folder, or hub repository.
        language_model: that reads the words: shipped name, folder, or hub repository of any causal model; a tokenizer's
            words are those of one, and others may read several ids where it reads one.
        sets: of imagenet_samples, cifar10, digits, worlds.
        ways: labels to choose from; one measurement each.
        shots: pictures shown of each label.
        repeats: times that they are shown again.
        induction: name the labels beforehand.
        layers: of the pyramid, from the top; one measurement each.
        episodes: of each list of 2,000.
        seed: of the lists.
        device: cpu, cuda, cuda:1, mps.
        json: print the figures as JSON.
    """
    options = dict(locals())
    check_device(device)
    from kinolex.evaluation.fewshot import FewShotProtocol, evaluate_fewshot

    protocol = partial(
        FewShotProtocol,
        sets=sets,
        ways=ways,
        shots=shots,
        repeats=repeats,
        induction=induction,
        layers=layers,
        episodes=episodes,
        seed=seed,
    )
    told = ("open", "among", "shuffled_among", "neighbour", "told_open", "chance")
    result, facts = _measured_in_context(fewshot, options, evaluate_fewshot, protocol, "answers", told)
    facts |= {
        f"{task} {key}: {one['few_words']} words over {one['most_words']}": one[key]["mean"]
        for task, one in result["few_words"].items()
        for key in ("open", "among")
        if key in one
    }
    show(facts, json)


def questions(
    data: Path | None = None,
    out: Path = Path("out/eval"),
    model: str = "spae-nano",
    language_model: str = "text-nano",
    sets: tuple[str, ...] = (),
    captions: tuple[str, ...] = (),
    shots: int = 1,
    examples: int = 4,
    layers: int = 1,
    episodes: int = 200,
    seed: int = 0,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Questions about pictures and captions for them, in context, to a frozen language model that reads their words.

    Example: kinolex eval questions --data DATA --sets digits --captions cifar10 --out out/eval

    Args:
        data: folder with one sub-folder per set; worlds alone need none.
        out: gets a JSON file and a page.
        model: a word tokenizer: shipped name, folder, or hub repository.
        language_model: that reads the words: shipped name, folder, or hub repository of any causal model.
        sets: of digits, cifar10, worlds, that questions are asked of; all by default, worlds alone without data.
        captions: sets whose pictures are captioned, also of your own captions; as sets where neither is given.
        shots: pictures shown of each answer.
        examples: pictures shown with captions.
        layers: of the pyramid, from the top, whose words are read.
        episodes: of each question and set.
        seed: of the pictures.
        device: cpu, cuda, cuda:1, mps.
        json: print the figures as JSON.
    """
    options = dict(locals())
    check_device(device)
    from kinolex.evaluation.questions import QUESTIONS, QuestionsProtocol, evaluate_questions

    usual = ("worlds",) if data is None else tuple(QUESTIONS)
    protocol = partial(
        QuestionsProtocol,
        sets=sets or (() if captions else usual),
        captions=captions or (() if sets else usual),
        shots=shots,
        examples=examples,
        layers=layers,
        episodes=episodes,
        seed=seed,
    )
    told = ("open", "among", "shuffled_among", "neighbour", "chance", "made_f1", "shuffled_f1", "copy_f1")
    _, facts = _measured_in_context(questions, options, evaluate_questions, protocol, "answers", told)
    show(facts, json)


def drawing(
    data: Path | None = None,
    out: Path = Path("out/eval"),
    model: str = "spae-nano",
    language_model: str = "text-nano",
    sets: tuple[str, ...] = (),
    changes: tuple[str, ...] = (
        *("denoise", "inpaint", "outpaint", "deblur", "brighten", "rotate", "shift"),
        *("frame-prediction", "digit-from-condition"),
    ),
    examples: int = 3,
    layers: int = 3,
    episodes: int = 50,
    seed: int = 0,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Pictures changed in context by a frozen language model, beside copying the last example.

    Example: kinolex eval drawing --data DATA --changes rotate inpaint --out out/eval

    Args:
        data: folder with one sub-folder per set; worlds alone need none.
        out: gets a JSON file and a page with pictures.
        model: a word tokenizer: shipped name, folder, or hub repository.
        language_model: that reads and writes the words: shipped name, folder, or hub repository of a causal model of
            which every word of the tokenizer is one id, as of the one that it was made for.
        sets: folders of pictures, or worlds; digits and worlds by default, worlds alone without data.
        changes: of denoise, inpaint, outpaint, deblur, brighten, rotate, shift, frame-prediction (sets that move),
            digit-from-condition (of digits).
        examples: pictures shown before and after.
        layers: of the pyramid, from the top: what is shown and written.
        episodes: of each set and change.
        seed: of the pictures.
        device: cpu, cuda, cuda:1, mps.
        json: print the figures as JSON.
    """
    options = dict(locals())
    check_device(device)
    from kinolex.evaluation.drawing import DrawingProtocol, evaluate_drawing

    protocol = partial(
        DrawingProtocol,
        sets=sets or (("worlds",) if data is None else ("digits", "worlds")),
        changes=changes,
        examples=examples,
        layers=layers,
        episodes=episodes,
        seed=seed,
    )
    told = ("made_success", "shuffled_success", "error_over_copy", "made_digit", "right_digit")
    _, facts = _measured_in_context(drawing, options, evaluate_drawing, protocol, "pictures", told)
    show(facts, json)


def _measured_in_context(
    command: Callable[..., None],
    options: dict[str, Any],
    evaluate: Callable[..., dict[str, Any]],
    protocol: Callable[..., Any],
    unit: str,
    told: tuple[str, ...],
) -> tuple[dict[str, Any], dict[str, object]]:
    """The result of an evaluation with a language model, and what of it is printed: means of these figures, the page.

    Args:
        command, options: that were called.
        protocol: makes it, once both models are known.
    """
    kind = command.__name__
    model, language_model, out = (options[name] for name in ("model", "language_model", "out"))
    spae, fingerprint, lm = _words_and_reader(model, language_model, options["device"])
    # Results of another language model are told apart from those of the shipped one.
    other = "" if (reader := Path(language_model).name) == "text-nano" else f"_{reader}"
    name = f"{kind}_{Path(model).name}{other}"
    with frames_bar(kind, unit) as bar:
        result = evaluate(
            lm,
            spae,
            options["data"],
            protocol(language_model=lm.fingerprint, tokenizer=fingerprint),
            out,
            name=name,
            command=command_of(f"eval {kind}", command, options),
            on_episodes=bar,
        )
    facts: dict[str, object] = {
        f"{task} {key.replace('_', ' ')}": one["mean"][key]["mean"]
        for task, one in result["tasks"].items()
        for key in told
        if key in one["mean"]
    }
    return result, facts | {"page": str(out / f"{name}.html")}


def _words_and_reader(model: str, language_model: str, device: str) -> tuple[Any, str, Any]:
    """A word tokenizer, its fingerprint, and the language model that reads it; says where they were not made for
    each other."""
    from kinolex import hub

    spae, fingerprint = hub.load_spae(model)
    lm = hub.load_lm(language_model).to(device)
    if spae.config.language_model != lm.fingerprint:
        print(
            f"note: the words of {model} are those of another language model "
            f"({spae.config.language_model[:12] or 'none'}) than {language_model} ({lm.fingerprint[:12]})",
            file=sys.stderr,
        )
    return spae.to(device), fingerprint, lm

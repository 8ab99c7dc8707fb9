"""Words beside labels: which pictures are asked about, planted words found by name, the command on picture files."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from kinolex import checkpoint, cli
from kinolex.data.pictures import Picture
from kinolex.data.worlds.scene import COLOURS, SHAPES
from kinolex.errors import ConfigError, DataError
from kinolex.evaluation.words import Labelled, WordsProtocol, evaluate_words, labelled_pictures, measure, presence
from kinolex.media import write
from kinolex.tokenizers.spae import Spae
from kinolex.types import Clip
from tests.tiny_spae import tiny_spae_config

SMALL = WordsProtocol(sets=("worlds",), pictures=40, permutations=19)


@pytest.fixture(scope="module")
def spae() -> Spae:
    """Of dark pictures the first word is red, of bright ones blue."""
    torch.manual_seed(0)
    spae = Spae(tiny_spae_config(fold=8)).eval()
    side = spae.config.pixels[1]
    shades_BCTHW = torch.tensor([-0.965, 0.604]).reshape(2, 1, 1, 1, 1).expand(2, 3, 1, side, side)
    with torch.no_grad():
        dark_D, bright_D = spae.encode(shades_BCTHW).mean(dim=(2, 3, 4))
    spae.quantizer.set_codebook(torch.stack([dark_D, bright_D, dark_D + 9.0, bright_D - 9.0]))
    return spae


def things(folder: Path, kinds: dict[str, int]) -> Path:
    """A set of PNG files, dark or bright by their kind, with an index."""
    folder.mkdir()
    rows, dice = ["file,label,split"], torch.Generator().manual_seed(0)
    for number, (kind, count) in enumerate(kinds.items()):
        for place in range(count):
            frame_TCHW = torch.randint(0, 10, (1, 3, 16, 20), generator=dice) + 200 * (number % 2)
            write(Clip(frame_TCHW.to(torch.uint8), Fraction(1)), folder / f"{kind}{place}.png")
            rows.append(f"{kind}{place}.png,{kind},test")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_worlds_are_asked_about_colour_and_shape_of_the_same_pictures() -> None:
    asked = labelled_pictures(None, "worlds", replace(SMALL, pictures=200))
    colour, shape = asked["worlds colour"], asked["worlds shape"]
    assert list(asked) == ["worlds colour", "worlds shape"] and colour.pictures == shape.pictures
    assert set(colour.names) == set(COLOURS) and set(shape.names) == set(SHAPES) and len(colour.pictures) == 200
    for picture, one, other in zip(colour.pictures, colour.labels_N, shape.labels_N, strict=True):
        assert picture.label == f"{colour.names[one]} {shape.names[other]}"


def test_pictures_are_drawn_by_the_seed_and_rare_labels_count_as_one(tmp_path: Path) -> None:
    things(tmp_path / "things", {"night": 12, "day": 9, "moon": 3, "sun": 4})
    protocol = replace(SMALL, sets=("things",))
    one = labelled_pictures(tmp_path, "things", protocol)["things"]
    assert one.names == ("day", "night", "other") and np.bincount(one.labels_N).tolist() == [9, 12, 7]
    few = replace(protocol, pictures=20)
    chosen = [labelled_pictures(tmp_path, "things", replace(few, seed=seed))["things"].pictures for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2] and len(set(chosen[0])) == 20
    with pytest.raises(DataError, match="give --data"):
        labelled_pictures(None, "things", protocol)


def test_a_set_without_labels_to_tell_apart_is_refused(tmp_path: Path) -> None:
    things(tmp_path / "things", {"night": 12})
    with pytest.raises(DataError, match="12 labelled test pictures of 1 labels"):
        labelled_pictures(tmp_path, "things", SMALL)
    for change, told in (
        ({"sets": ()}, "sets must be folders of labelled pictures, or worlds, got none"),
        ({"pictures": 9}, "pictures must be at least 10, got 9"),
        ({"permutations": 0}, "permutations must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ):
        with pytest.raises(ConfigError, match=told):
            replace(SMALL, **change)


def test_a_word_that_all_others_have_is_named_with_the_label_that_lacks_it() -> None:
    labels_N = np.arange(60) % 3
    asked = Labelled(
        tuple(Picture(name=str(n), label=None, told=()) for n in range(60)), ("ant", "bee", "cow"), labels_N
    )
    ids_NL = np.where(labels_N == 2, 0, 1)[:, None]  # word 0 in cows alone, word 1 in all but cows
    first = measure(ids_NL, (1,), ("w0", "w1"), asked, SMALL)["layers"][1]
    assert {(word["word"], word["label"], word["share_of_label"]) for word in first["strongest"]} == {
        ("w0", "cow", 1.0),
        ("w1", "cow", 0.0),
    }


def test_a_planted_word_is_named_with_its_label_and_its_layer() -> None:
    dice = np.random.default_rng(0)
    labels_N = dice.permutation(np.arange(60) % 2)
    asked = Labelled(tuple(Picture(name=str(n), label=None, told=()) for n in range(60)), ("cat", "dog"), labels_N)
    ids_NL = dice.integers(4, 8, size=(60, 5))
    ids_NL[:, 3] = np.where(labels_N == 1, 2, 3)  # in the second layer, words 2 and 3 say it
    seen: list[int] = []
    found = measure(ids_NL, [1, 5], [f"w{place}" for place in range(9)], asked, SMALL, seen.append)
    top, first, second = found["layers"]
    assert (top["layer"], first["layer"], second["layer"], second["words"]) == ("top word", 1, 2, 4)
    assert second["bits"] == pytest.approx(found["label_entropy_bits"]) == 1.0 and second["p"] == 1 / 20
    assert first["p"] > 0.05 < top["p"] and second["telling_words"] == 0  # 19 permutations cannot go below 0.05
    assert [(word["word"], word["label"]) for word in second["strongest"][:2]] == [("w2", "dog"), ("w3", "cat")]
    assert second["strongest"][0]["share_of_label"] == 1.0 and second["strongest"][0]["share_of_others"] == 0.0
    assert second["strongest"][0]["pictures"] == 30 and seen == [1, 2, 3]
    assert found["n"] == 60 and found["labels"] == {"cat": 30, "dog": 30}


def test_presence_does_not_count_a_word_twice() -> None:
    assert presence(np.array([[0, 2, 2], [1, 1, 1]]), 4).tolist() == [
        [True, False, True, False],
        [False, True, False, False],
    ]


def test_a_whole_evaluation_writes_figures_and_a_page_with_words_over_pictures(spae: Spae, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    result = evaluate_words(spae, None, SMALL, tmp_path, command="x", on_layers=lambda *done: seen.append(done))
    assert json.loads((tmp_path / "words.json").read_text()) == json.loads(json.dumps(result))
    assert set(result["sets"]) == {"worlds colour", "worlds shape"} and seen[-1] == (6, 6)
    for one in result["sets"].values():
        assert [row["layer"] for row in one["layers"]] == ["top word", 1, 2] and one["n"] == 40
        assert all(0 <= row["bits"] <= one["label_entropy_bits"] + 1e-9 for row in one["layers"])
    page = (tmp_path / "words.html").read_text()
    assert "worlds shape" in page and page.count("<svg") == 2 and page.count("looked at") == 2 * 3
    again = evaluate_words(spae, None, SMALL, tmp_path, command="x")
    assert again["sets"] == result["sets"]


def test_the_command_measures_pictures_in_files(spae: Spae, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    things(tmp_path / "things", {"night": 12, "day": 12})
    checkpoint.save(tmp_path / "tiny", spae, card="")
    options = ["--data", str(tmp_path), "--model", str(tmp_path / "tiny"), "--sets", "things", "--permutations", "19"]
    with pytest.raises(SystemExit) as ended:
        cli.main(["eval", "words", *options, "--out", str(tmp_path / "out"), "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["things, entropy of labels"] == 1.0
    result = json.loads((tmp_path / "out" / "words_tiny.json").read_text())
    assert result["command"] == "kinolex eval words --data DIR --model tiny --sets things --permutations 19"
    assert result["sets"]["things"]["n"] == 24 and result["protocol"]["tokenizer"]
    top, first, _ = result["sets"]["things"]["layers"]
    assert top["bits"] == first["bits"] == 1.0 and top["p"] == first["p"] == 1 / 20
    assert {(word["word"], word["label"]) for word in first["strongest"]} == {("red", "night"), ("blue", "day")}

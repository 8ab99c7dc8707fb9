"""Pages stand alone: nothing is fetched, nothing a user wrote becomes HTML."""

from __future__ import annotations

import base64
import io
import re
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from kinolex.errors import ShapeError
from kinolex.evaluation import page as pages


class Balance(HTMLParser):
    """Collects tags that are opened and not closed in order."""

    VOID = frozenset({"meta", "img", "rect", "line"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)


def frame_HWC(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (13, 17, 3), dtype=np.uint8)


def payload(uri: str) -> bytes:
    return base64.b64decode(uri.split(",", 1)[1])


def full_page() -> str:
    return pages.page(
        "A <title>",
        [
            pages.section(
                "Numbers & more",
                "plain <b>text</b>",
                pages.table(["name", "value"], [["<script>", 1.23456], [None, pages.Strong(0.5)]], caption="<i>"),
                pages.figure([("a & b", pages.image_data_uri(frame_HWC()))], caption="x<y"),
                pages.bars([0.0, 1.0, 3.5], caption="bars"),
                pages.code("<pre>"),
                pages.note("<small>"),
            )
        ],
        lead="<lead>",
    )


def test_what_a_user_wrote_is_escaped_and_tags_are_balanced() -> None:
    text = full_page()
    balance = Balance()
    balance.feed(text)

    assert "<script>" not in text and "&lt;script&gt;" in text and "<b>" not in text and "<i>" not in text
    assert balance.wrong == [] and balance.open == []


def test_nothing_is_fetched() -> None:
    assert re.findall(r"(?:src|href)=\"(?!data:)[^\"]*\"|url\(|@import|<link|<script|https?://", full_page()) == []


def test_pictures_survive_exactly() -> None:
    pixels_HWC = frame_HWC()

    with av.open(io.BytesIO(payload(pages.image_data_uri(torch.from_numpy(pixels_HWC))))) as container:
        decoded = next(container.decode(video=0)).to_ndarray(format="rgb24")

    assert np.array_equal(decoded, pixels_HWC)


def test_an_animation_is_an_animated_webp() -> None:
    uri = pages.animation_data_uri(np.stack([frame_HWC(seed) for seed in range(3)]), Fraction(30000, 1001))

    assert uri.startswith("data:image/webp;base64,")
    assert b"ANIM" in payload(uri) and payload(uri).count(b"ANMF") == 3


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_picture_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ShapeError, match="uint8"):
        pages.image_data_uri(bad)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1234.5678, "1235"), (27.123456, "27.12"), (0.0702999, "0.07030"), (0.0, "0"), (1e-7, "1e-07"), (3, "3")],
)
def test_numbers_are_shown_with_four_digits(value: object, shown: str) -> None:
    assert pages.format_number(value) == shown


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    pages.write_text(tmp_path / "new" / "page.html", "first")
    with pytest.raises(UnicodeEncodeError):
        pages.write_text(tmp_path / "new" / "page.html", "\ud800")

    assert (tmp_path / "new" / "page.html").read_text() == "first"
    assert len(list((tmp_path / "new").iterdir())) == 1

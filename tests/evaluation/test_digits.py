"""Small classifiers tell digits apart, wherever they move and whenever they are said."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from kinolex.data.spoken_digits import DigitCollection
from kinolex.errors import UsageError
from kinolex.evaluation.digits import Judges, PictureJudge, SoundJudge, digit_scores, handwriting, train_judges
from kinolex.types import Clip, Sound


def bar(left: int, colour: tuple[int, int, int], backdrop: int) -> Clip:
    frames_TCHW = torch.full((3, 3, 64, 64), backdrop, dtype=torch.uint8)
    frames_TCHW[:, :, 10:50, left : left + 8] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    return Clip(frames_TCHW, Fraction(12))


def test_handwriting_is_the_same_wherever_it_stands_and_whatever_its_colour() -> None:
    one = handwriting(bar(5, (222, 48, 44), 30))
    assert one.shape == (3, 1, 28, 28)
    for other in (bar(40, (222, 48, 44), 30), bar(21, (52, 96, 224), 60)):
        assert torch.allclose(handwriting(other), one, atol=0.02)
    rows = (one[0, 0] > 0.5).any(dim=1).nonzero()[:, 0]
    assert len(rows) == 20 and abs(float(rows.float().mean()) - 13.5) <= 0.5
    nothing = Clip(torch.full((2, 3, 32, 32), 77, dtype=torch.uint8), Fraction(12))
    assert not handwriting(nothing).any()


class Told(Judges):
    """Judges of clips whose first grey and first sample are the digit."""

    def seen(self, clip: Clip) -> int:
        return int(clip.frames_TCHW[0, 0, 0, 0])

    def heard(self, sound: Sound) -> int:
        return round(float(sound.samples_CS[0, 0]) * 10)


def test_scores_count_what_is_right_and_what_agrees() -> None:
    judges = Told(PictureJudge(), SoundJudge())

    def clip(looks: int, says: int | None) -> Clip:
        sound = None if says is None else Sound(torch.full((1, 10), says / 10), 8000)
        return Clip(torch.full((1, 3, 8, 8), looks, dtype=torch.uint8), Fraction(12), sound)

    clips = [clip(1, 1), clip(2, 3), clip(4, 4), clip(5, None)]
    assert digit_scores(judges, clips, [1, 2, 3, 5]) == {
        "picture": 0.75,
        "sound": 0.25,
        "both": 0.25,
        "agree": 0.5,
        "count": 4,
    }


def test_real_digits_are_told_apart_after_little_training_by_one_seed(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kinolex.evaluation.digits.RECORDINGS", 50)
    few, same = (train_judges(data_dir, picture_steps=1, sound_steps=1) for _ in range(2))
    for one, other in ((few.picture, same.picture), (few.sound, same.sound)):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))

    judges = train_judges(data_dir, picture_steps=30, sound_steps=60)
    digits = DigitCollection(data_dir, "test")
    spoken = [digits.draw(seed) for seed in range(12)]
    scores = digit_scores(judges, [one.clip for one in spoken], [one.digit for one in spoken])
    assert scores["picture"] >= 0.5 and scores["sound"] >= 0.4, scores


def test_a_sound_too_short_to_be_a_word_is_refused() -> None:
    with pytest.raises(UsageError, match="a word is longer"):
        Judges(PictureJudge().eval(), SoundJudge().eval()).heard(Sound(torch.zeros(1, 8), 16_000))

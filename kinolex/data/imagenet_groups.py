"""Classes of ImageNet by the everyday word for them: what one picture per class can still be sorted into.

    class number (0 to 999, order of WordNet ids) -> "dog", "bird", "boat", ... or no group

Source: our own reading of the list of class names; groups of five classes or more.
"""

from __future__ import annotations

from collections.abc import Iterable


def _numbers(*parts: int | tuple[int, int]) -> frozenset[int]:
    """Numbers, and ranges given by their first and last."""
    spans: Iterable[range] = (
        range(part[0], part[1] + 1) if isinstance(part, tuple) else range(part, part + 1) for part in parts
    )
    return frozenset(number for span in spans for number in span)


GROUPS: dict[str, frozenset[int]] = {
    "fish": _numbers((0, 6), (389, 397)),
    "bird": _numbers((7, 24), (80, 100), (127, 146)),
    "turtle": _numbers((33, 37)),
    "lizard": _numbers((38, 48)),
    "snake": _numbers((52, 68)),
    "spider": _numbers((72, 77)),
    "crab": _numbers((118, 125)),
    "whale": _numbers((147, 150)),
    "dog": _numbers((151, 268)),
    "wolf": _numbers((269, 280)),
    "cat": _numbers((281, 293)),
    "bear": _numbers((294, 297), 388),
    "insect": _numbers((300, 320)),
    "butterfly": _numbers((321, 326)),
    "horse": _numbers(339, 340, (345, 355)),
    "monkey": _numbers((365, 384)),
    "boat": _numbers(403, 472, 484, 510, 554, 576, 625, 628, 724, 780, 814, 833, 871, 914),
    "car": _numbers(407, 436, 468, 511, 609, 627, 656, 661, 734, 751, 817),
    "truck": _numbers(555, 569, 586, 675, 717, 864, 866, 867),
    "train": _numbers(466, 547, 565, 705, 820, 829),
    "music": _numbers(
        *(401, 402, 420, 432, 486, 513, 541, 546, 558, 566, 577, 579, 593, 594),
        *(641, 642, 683, 684, 687, 699, 776, 822, 875, 881, 889),
    ),
    "fruit": _numbers((948, 957)),
    "plant": _numbers((936, 946)),
    "food": _numbers((924, 935), (959, 965)),
    "mushroom": _numbers(947, (991, 997)),
    "land": _numbers(970, 972, (974, 980)),
    "hat": _numbers(439, 515, 518, 560, 667, 793, 808),
    "coat": _numbers(
        *(399, 400, 411, 474, 501, 568, 578, 608, 610, 614, 617, 652, 655, 689, 697, 735, 775, 834, 841, 869, 887),
    ),
    "shoe": _numbers(502, 514, 630, 770, 774),
    "ball": _numbers(429, 430, 522, 574, 722, 768, 805, 852, 890),
    "clock": _numbers(409, 530, 531, 826, 835, 892),
    "house": _numbers(425, 437, 449, 483, 497, 500, 580, 663, 668, 698, 832, 853, 873, 915),
    "chair": _numbers(423, 559, 703, 765, 831, 857),
    "bottle": _numbers(440, 711, 720, 737, 898, 901, 907),
    "cup": _numbers(438, 441, 504, 572, 647, 968),
    "computer": _numbers(508, 527, 590, 620, 664, 673, 681, 782),
}
"""Words to class numbers; no class is in two groups."""

GROUP_OF: dict[int, str] = {number: name for name, numbers in GROUPS.items() for number in numbers}
"""The word for a class number; classes of no group are not in it."""

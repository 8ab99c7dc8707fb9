"""Tokens understood: clips as features of positions and as words, and the verbs `classify`, `describe` and `ask`."""

from kinolex.understanding.asking import Answered, ask
from kinolex.understanding.verb import Classifier, Recognised, classify, load_classifier
from kinolex.understanding.words import Described, describe

__all__ = [
    "Answered",
    "Classifier",
    "Described",
    "Recognised",
    "ask",
    "classify",
    "describe",
    "load_classifier",
]

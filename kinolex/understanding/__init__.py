"""Tokens understood: clips as features of positions, and the verb `classify`."""

from kinolex.understanding.verb import Classifier, Recognised, classify, load_classifier

__all__ = ["Classifier", "Recognised", "classify", "load_classifier"]

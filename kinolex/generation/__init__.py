"""Generators at work: from a file and a wish to a file.

file --verb--> clip --tasks--> Posed --windows--> Tokens --tokenizer--> clip --pixels--> file
"""

from kinolex.generation.loading import load_generator
from kinolex.generation.verb import GenerateReport, Wish, compose, generate
from kinolex.generation.windows import GenerateConfig, MaskedGenerator

__all__ = ["GenerateConfig", "GenerateReport", "MaskedGenerator", "Wish", "compose", "generate", "load_generator"]

"""The model that is served when nobody names one, its sharing pattern, and how both were made.

It has every part of a DSA model (an indexer per layer, MLA, mixture of experts), is small enough
for two CPU cores, and finds facts in contexts of up to 8K tokens only through its indexers.
Importing this package is cheap: torch is loaded by what trains or writes checkpoints.
"""

from pathlib import Path


def bundled_model() -> Path:
    """The folder of the bundled model: weights, config, tokenizer and model card."""
    return Path(__file__).with_name("model")


def default_pattern_file() -> Path:
    """The bundled model's layer pattern, a JSON file as `--index-cache-pattern` reads it."""
    return Path(__file__).with_name("pattern.json")

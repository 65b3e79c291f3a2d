"""The model that is served when nobody names one, and its sharing pattern.

It is small enough for two CPU cores, has every part of a DSA model (an indexer per layer, MLA,
mixture of experts) and shapes that Hopper's kernels accept. Importing this package is cheap: torch
is loaded only when a checkpoint is really written.
"""

from pathlib import Path


def default_pattern_file() -> Path:
    """The demo model's layer pattern, a JSON file as `--index-cache-pattern` reads it."""
    return Path(__file__).with_name("pattern.json")

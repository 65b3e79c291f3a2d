"""Which model and which data a search was about, in a few characters.

Weights are read in samples only: hashing hundreds of gigabytes would take longer than the search of
a small model, and what has to be told apart are checkpoints, not bits.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

SAMPLE_BYTES = 1 << 16  # from either end of each weight file
WEIGHT_FILES = ("*.safetensors", "*.bin", "*.gguf")


def of_tokens(sequences: Sequence[Sequence[int]]) -> str:
    """Of token ids, in order."""
    digest = hashlib.sha256()
    for ids in sequences:
        digest.update(np.asarray([len(ids), *ids], dtype="<i8").tobytes())
    return digest.hexdigest()[:16]


def of_model(folder: Path) -> str:
    """Of a checkpoint's config.json and samples of its weight files."""
    digest = hashlib.sha256()
    files = [folder / "config.json"]
    files += sorted(path for pattern in WEIGHT_FILES for path in folder.glob(pattern))
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(SAMPLE_BYTES))
            file.seek(max(0, size - SAMPLE_BYTES))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]

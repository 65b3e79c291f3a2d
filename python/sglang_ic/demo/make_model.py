"""Puts the demo model on disk, once: made from a seed, checked by hash, replaced as a whole.

`fingerprint.json` beside the weights records the recipe and a hash per file. A folder that does not
match it (an interrupted copy, an older recipe) is made anew in a temporary neighbour and renamed
into place, so a reader never sees half a model.
"""

import argparse
import fcntl
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sglang_ic.demo.shape import FILES, DsaShape

SEED = 2603
FINGERPRINT = "fingerprint.json"
# The source is the recipe's version: a number would be forgotten, and making the model takes 3 s.
RECIPE = (
    "make_model.py",
    "checkpoint.py",
    "shape.py",
    "tokenizer.py",
    "vocabulary.py",
    "chat_template.jinja",
)

# Sizes that the CPU path runs fast and Hopper's kernels accept: DeepGEMM's index scores take 32 or
# 64 heads of 128 there (6 of ours have a gate that is not zero, and the CPU path scores only
# those), the sparse MLA kernels a latent of 512 + 64 and a head count that divides 64, FlashMLA a
# top-k that is a multiple of 128, and FlashAttention 3 (prompts within the top-k) equal query and
# value head sizes.
SHAPE = DsaShape(
    architecture="GlmMoeDsaForCausalLM",
    num_layers=16,
    index_topk=128,
    kv_lora_rank=512,
    index_n_heads=32,
    num_heads=8,
    num_gated_index_heads=6,
)


def default_directory() -> Path:
    """A per-user place: `$SGLANG_IC_CACHE`, else `~/.cache/sglang_ic`."""
    cache = os.environ.get("SGLANG_IC_CACHE") or Path.home() / ".cache" / "sglang_ic"
    return Path(cache) / "demo-model"


def ensure_demo_model(directory: Path | None = None) -> Path:
    """Return the folder of a whole demo model, writing it first if it is missing, old or damaged.

    Safe to call from several processes at once: the first one writes, the others wait.

    Raises:
        ValueError: `directory` holds something that is not a demo model.
        OSError: the place cannot be written.
    """
    directory = (default_directory() if directory is None else Path(directory)).absolute()
    if is_whole(directory):
        return directory
    _refuse_foreign(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _locked(directory.parent / f".{directory.name}.lock"):
        if not is_whole(directory):
            _replace(directory)
    return directory


def is_whole(directory: Path) -> bool:
    """Whether `directory` was made by this recipe and every file still has the recorded hash."""
    try:
        found = json.loads((directory / FINGERPRINT).read_text())
        return found == _fingerprint(directory)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: not JSON, not UTF-8
        return False


def _fingerprint(directory: Path) -> dict:
    return {
        "recipe": {
            "seed": SEED,
            "source": {name: _sha256(Path(__file__).with_name(name)) for name in RECIPE},
        },
        "sha256": {name: _sha256(directory / name) for name in FILES},
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_foreign(directory: Path) -> None:
    """Remaking deletes what is there, so it must be nothing but our own files."""
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} is a file; name a folder for the demo model")
    names = {path.name for path in directory.iterdir()} if directory.exists() else set()
    if foreign := sorted(names - {*FILES, FINGERPRINT}):
        raise ValueError(
            f"{directory} holds {foreign[0]!r}, which is not part of the demo model; "
            "name an empty or a new folder"
        )


def _replace(directory: Path) -> None:
    from sglang_ic.demo import checkpoint  # loads torch, which a whole model does not need

    # A neighbour, so that the renames stay within one file system.
    with tempfile.TemporaryDirectory(
        prefix=f".{directory.name}.", dir=directory.parent
    ) as scratch_name:
        scratch = Path(scratch_name)
        new = scratch / "new"
        checkpoint.write(new, SHAPE, seed=SEED)
        (new / FINGERPRINT).write_text(json.dumps(_fingerprint(new), indent=2) + "\n")
        if directory.exists():
            directory.rename(scratch / "old")
        new.rename(directory)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, or the process dies
        yield


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m sglang_ic.demo",
        description="Write the demo model, unless it is already there, and print its folder.",
    )
    parser.add_argument(
        "directory",
        nargs="?",
        type=Path,
        metavar="DIR",
        help=f"where to put it (default: {default_directory()})",
    )
    args = parser.parse_args(argv)
    try:
        print(ensure_demo_model(args.directory))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
